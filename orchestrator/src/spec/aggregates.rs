//! Aggregates of data sets in YAML: a map from names to lists of data sets.

use super::Source;
use super::error::{Path, Place, Problem, SpecError};
use super::parse::{self, Node};

/// Reads `NAME: [DATASET, ...]` entries, or says every mistake at once.
pub fn aggregates(source: &Source) -> Result<Vec<(String, Vec<String>)>, SpecError> {
    let Node::Map(entries) = parse::tree(source)? else {
        let problem = Problem::new(Place::Nowhere, "a map from names to lists is expected", "here");
        return Err(SpecError::new(source, vec![problem.help("for example `my-five: [imagenetv2, objectnet]`")]));
    };
    let mut problems = Vec::new();
    let mut read: Vec<(String, Vec<String>)> = Vec::new();
    for (name, node) in entries {
        let path = Path::default().key(&name);
        if read.iter().any(|(known, _)| *known == name) {
            problems.push(Problem::new(Place::Key(path.clone()), format!("`{name}` stands here twice"), "here"));
        }
        let members = members(&node, &path, &mut problems);
        if members.contains(&name) {
            let message = format!("`{name}` can't be a member of itself");
            problems.push(Problem::new(Place::Value(path), message, "data sets only, no aggregates"));
        }
        read.push((name, members));
    }
    if problems.is_empty() { Ok(read) } else { Err(SpecError::new(source, problems)) }
}

fn members(node: &Node, path: &Path, problems: &mut Vec<Problem>) -> Vec<String> {
    let Node::List(list) = node else {
        let message = format!("`{path}` has to be a list of data sets");
        problems.push(Problem::new(Place::Value(path.clone()), message, "a list"));
        return Vec::new();
    };
    if list.is_empty() {
        let message = format!("`{path}` has no members");
        problems.push(Problem::new(Place::Value(path.clone()), message, "one data set or more"));
    }
    let mut members: Vec<String> = Vec::new();
    for (at, node) in list.iter().enumerate() {
        let place = Place::Value(path.index(at));
        match node {
            Node::Text(name) if members.contains(name) => {
                problems.push(Problem::new(place, format!("`{name}` is a member twice"), "once is enough"));
            }
            Node::Text(name) => members.push(name.clone()),
            _ => problems.push(Problem::new(place, "a member has to be the name of a data set", "text")),
        }
    }
    members
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Vec<(String, Vec<String>)>, Vec<String>> {
        aggregates(&Source::new("a.yaml", text))
            .map_err(|error| error.mistakes.iter().map(|mistake| mistake.message.clone()).collect())
    }

    #[test]
    fn names_and_members() {
        let read = read("one: [a, b/c]\ntwo:\n  - d\n").expect("aggregates");
        assert_eq!(read[0], ("one".to_owned(), vec!["a".to_owned(), "b/c".to_owned()]));
        assert_eq!(read[1].1, ["d"]);
    }

    #[test]
    fn mistakes_are_all_said() {
        let said = read("one: [a, a, 3]\ntwo: []\nthree: x\nfour: [four]\none: [b]\n").expect_err("mistakes");
        let wanted = [
            "`a` is a member twice",
            "a member has to be the name of a data set",
            "`two` has no members",
            "`three` has to be a list of data sets",
            "`four` can't be a member of itself",
            "`one` stands here twice",
        ];
        for wanted in wanted {
            assert!(said.iter().any(|said| said == wanted), "{wanted}: {said:?}");
        }
        assert_eq!(read("- a\n").expect_err("a list"), ["a map from names to lists is expected"]);
    }
}
