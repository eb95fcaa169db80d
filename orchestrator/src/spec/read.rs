//! The tree against the tables: every mistake of form at once.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use protocol::Shots;

use super::error::{Path, Place, Problem, Step};
use super::keys::{Key, Kind, Need, names};
use super::models::{is_model_file, model_names, nearest};
use super::parse::Node;
use super::quantity::{self, QuantityError};
use super::rule::Rule;
use super::{Amount, DataSize};

/// A value that its [`Kind`] allows.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Value {
    /// Text, name, model, one of the words of a choice, or text that was checked.
    Text(String),
    /// Yes or no.
    Flag(bool),
    /// Whole number.
    Count(u64),
    /// Unique samples, or another number for which `all` can be said.
    DataSize(DataSize),
    /// Images that a probe trains on.
    Shots(Shots),
    /// Samples or a share.
    Amount(Amount),
    /// Real number.
    Number(f64),
    /// What gives a number.
    Rule(Arc<Rule>),
    /// Seconds.
    Secs(u64),
    /// Names to numbers.
    Numbers(BTreeMap<String, f64>),
    /// Names to text.
    Texts(BTreeMap<String, String>),
    /// Any list.
    List(Vec<Value>),
    /// Keys that were there.
    Section(BTreeMap<&'static str, Value>),
    /// Name and options.
    Variant(&'static str, BTreeMap<&'static str, Value>),
}

/// `None` where there was a problem; then `problems` has grown.
pub(super) fn read(node: &Node, kind: &Kind, path: &mut Path, problems: &mut Vec<Problem>) -> Option<Value> {
    match kind {
        Kind::Section(keys) => section(node, keys, true, path, problems).map(Value::Section),
        Kind::Some(keys) => section(node, keys, false, path, problems).map(Value::Section),
        Kind::Variant(keys) => variant(node, keys, path, problems),
        Kind::Tuple(of, count) => match node {
            Node::List(list) if list.len() == *count => list_of(list, of, path, problems),
            _ => refuse(node, kind, None, path, problems),
        },
        Kind::List(of) => match node {
            Node::List(list) => list_of(list, of, path, problems),
            _ => refuse(node, kind, None, path, problems),
        },
        Kind::OneOrMore(of) => one_or_more(node, of, path, problems),
        Kind::Ruled(plain, keys) => match node {
            Node::Map(_) => ruled(node, keys, path, problems),
            _ => scalar(node, plain).or_else(|reason| refuse(node, kind, reason, path, problems).ok_or(())).ok(),
        },
        Kind::Numbers => numbers(node, kind, path, problems),
        Kind::Texts => texts(node, kind, path, problems),
        _ => scalar(node, kind).or_else(|reason| refuse(node, kind, reason, path, problems).ok_or(())).ok(),
    }
}

/// A value on its own, or why not where there is more to say than what is allowed.
fn scalar(node: &Node, kind: &Kind) -> Result<Value, Option<String>> {
    match (kind, node) {
        (Kind::Text, Node::Text(text)) if !text.trim().is_empty() => Ok(Value::Text(text.trim().to_owned())),
        (Kind::Name, Node::Text(text)) if is_name(text) => Ok(Value::Text(text.clone())),
        (Kind::Text | Kind::Name, Node::Integer(_) | Node::Float(_) | Node::Bool(_)) => {
            Err(Some("write it in quotes to make it text".to_owned()))
        }
        (Kind::Model, Node::Text(text)) => {
            if is_model_file(text) || model_names().any(|name| name == text) {
                return Ok(Value::Text(text.clone()));
            }
            Err(did_you_mean(text, model_names()))
        }
        (Kind::Checked(check, _), Node::Text(text)) => {
            check(text.trim()).map(|()| Value::Text(text.trim().to_owned())).map_err(Some)
        }
        (Kind::Choice(words), Node::Text(text)) => match words.iter().find(|word| *word == text) {
            Some(word) => Ok(Value::Text((*word).to_owned())),
            None => Err(did_you_mean(text, words.iter().copied())),
        },
        (Kind::Flag, Node::Bool(value)) => Ok(Value::Flag(*value)),
        (Kind::Count { min, max }, _) => {
            let value = count_of(node)?;
            if (*min..=*max).contains(&value) { Ok(Value::Count(value)) } else { Err(None) }
        }
        (Kind::DataSize | Kind::CountOrAll { .. }, Node::Text(text)) if text == "all" => {
            Ok(Value::DataSize(DataSize::All))
        }
        (Kind::DataSize, _) => match count_of(node)? {
            0 => Err(None),
            value if value > super::keys::COUNT_MAX => Err(Some("too large".to_owned())),
            value => Ok(Value::DataSize(DataSize::Samples(value))),
        },
        (Kind::Shots, Node::Text(text)) if text == "all" => Ok(Value::Shots(Shots::All)),
        (Kind::Shots, Node::Text(text)) if *text == Shots::Vtab1k.suffix() => Ok(Value::Shots(Shots::Vtab1k)),
        (Kind::Shots, _) => match count_of(node)? {
            0 => Err(None),
            value if value > super::keys::COUNT_MAX => Err(Some("too large".to_owned())),
            value => Ok(Value::Shots(Shots::Each(value))),
        },
        (Kind::CountOrAll { max }, _) => match count_of(node)? {
            value if (1..=*max).contains(&value) => Ok(Value::DataSize(DataSize::Samples(value))),
            _ => Err(None),
        },
        (Kind::Amount, Node::Text(text)) if text.trim_end().ends_with('%') => match quantity::percent(text) {
            Ok(percent) if (0.0..=100.0).contains(&percent) => Ok(Value::Amount(Amount::Percent(percent))),
            Ok(_) => Err(Some("a share lies between 0% and 100%".to_owned())),
            Err(error) => Err(Some(error.to_string())),
        },
        (Kind::Amount, _) => match count_of(node)? {
            value if value > super::keys::COUNT_MAX => Err(Some("too large".to_owned())),
            value => Ok(Value::Amount(Amount::Samples(value))),
        },
        (Kind::Number(range), _) => {
            let value = number_of(node)?;
            if value.is_finite() && range.contains(value) { Ok(Value::Number(value)) } else { Err(None) }
        }
        (Kind::Duration { min }, Node::Text(text)) => match quantity::duration(text) {
            Ok(secs) if secs < *min => Err(None),
            Ok(secs) if secs <= 10 * 365 * 86_400 => Ok(Value::Secs(secs)),
            Ok(_) => Err(Some("more than ten years".to_owned())),
            Err(error) => Err(Some(error.to_string())),
        },
        (Kind::Duration { .. }, Node::Integer(_) | Node::Float(_)) => Err(Some(QuantityError::NoUnit.to_string())),
        _ => Err(None),
    }
}

fn count_of(node: &Node) -> Result<u64, Option<String>> {
    match node {
        Node::Integer(value) => u64::try_from(*value).map_err(|_| None),
        Node::Float(value) if value.fract() == 0.0 && *value >= 0.0 && *value < 9e15 => Ok(*value as u64),
        Node::Float(value) if value.is_finite() && value.fract() != 0.0 => {
            Err(Some(QuantityError::NotWhole.to_string()))
        }
        Node::Text(text) => quantity::count(text).map_err(|error| Some(error.to_string())),
        _ => Err(None),
    }
}

fn number_of(node: &Node) -> Result<f64, Option<String>> {
    match node {
        Node::Integer(value) => Ok(*value as f64),
        Node::Float(value) => Ok(*value),
        Node::Text(text) => quantity::number(text).map_err(|error| Some(error.to_string())),
        _ => Err(None),
    }
}

pub(super) fn is_name(text: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    (1..=64).contains(&text.len()) && text.chars().all(plain) && !text.starts_with(['.', '-'])
}

fn did_you_mean<'a>(word: &str, candidates: impl Iterator<Item = &'a str>) -> Option<String> {
    nearest(word, candidates).map(|nearest| format!("did you mean `{nearest}`?"))
}

/// Reports a value that its kind does not allow.
fn refuse(node: &Node, kind: &Kind, reason: Option<String>, path: &Path, problems: &mut Vec<Problem>) -> Option<Value> {
    let mut problem = match node {
        Node::Null => Problem::new(Place::Value(path.clone()), format!("`{path}` has no value"), ""),
        _ => Problem::new(Place::Value(path.clone()), format!("`{path}` can't be {}", shown(node)), ""),
    };
    problem.label = format!("allowed: {}", kind.allowed());
    problem.help = reason;
    problems.push(problem);
    None
}

/// A value as errors quote it.
fn shown(node: &Node) -> String {
    match node {
        Node::Null => "empty".to_owned(),
        Node::Bool(value) => format!("`{value}`"),
        Node::Integer(value) => format!("`{value}`"),
        Node::Float(value) if value.is_nan() => "`.nan`".to_owned(),
        Node::Float(value) if (1e-4..1e16).contains(&value.abs()) || *value == 0.0 => format!("`{value}`"),
        Node::Float(value) => format!("`{value:e}`"),
        Node::Text(text) if text.is_empty() => "empty".to_owned(),
        Node::Text(text) if text.chars().count() > 60 => format!("`{}...`", text.chars().take(57).collect::<String>()),
        Node::Text(text) => format!("`{}`", text.escape_debug()),
        Node::List(list) => format!("a list of {}", list.len()),
        Node::Map(_) => "a map".to_owned(),
    }
}

/// The rule at a key of the recipe.
fn ruled(node: &Node, keys: &'static [Key], path: &mut Path, problems: &mut Vec<Problem>) -> Option<Value> {
    let mut values = section(node, keys, true, path, problems)?;
    let Some(Value::Text(text)) = values.remove("rule") else { unreachable!("a rule is text, and required") };
    let round = match values.remove("round") {
        Some(Value::Count(round)) => round,
        _ => 1,
    };
    let Some(Step::Key(field)) = path.0.last() else { unreachable!("a rule stands at a key") };
    match Rule::read(field, text, round) {
        Ok(rule) => Some(Value::Rule(Arc::new(rule))),
        Err((what, label, help)) => {
            let place = path.key("rule");
            let problem = Problem::new(Place::Value(place.clone()), format!("`{place}` {what}"), label);
            problems.push(Problem { help, ..problem });
            None
        }
    }
}

fn list_of(list: &[Node], of: &Kind, path: &mut Path, problems: &mut Vec<Problem>) -> Option<Value> {
    let mut values = Vec::with_capacity(list.len());
    for (index, node) in list.iter().enumerate() {
        path.0.push(Step::Index(index));
        values.extend(read(node, of, path, problems));
        path.0.pop();
    }
    (values.len() == list.len()).then_some(Value::List(values))
}

fn one_or_more(node: &Node, of: &Kind, path: &mut Path, problems: &mut Vec<Problem>) -> Option<Value> {
    let list = match node {
        Node::List(list) if list.is_empty() => {
            let label = format!("allowed: {}", of.allowed());
            problems.push(Problem::new(Place::Value(path.clone()), format!("`{path}` is an empty list"), label));
            return None;
        }
        Node::List(list) => list,
        single => return read(single, of, path, problems).map(|value| Value::List(vec![value])),
    };
    let values = list_of(list, of, path, problems)?;
    let Value::List(entries) = &values else { unreachable!("list_of gives lists") };
    let mut seen = BTreeSet::new();
    for (index, entry) in entries.iter().enumerate() {
        if !seen.insert(format!("{entry:?}")) {
            let place = path.index(index);
            let message = format!("`{place}` repeats a value of this list");
            problems.push(Problem::new(Place::Value(place), message, "each value once"));
        }
    }
    (seen.len() == entries.len()).then_some(values)
}

fn numbers(node: &Node, kind: &Kind, path: &mut Path, problems: &mut Vec<Problem>) -> Option<Value> {
    let Node::Map(entries) = node else { return refuse(node, kind, None, path, problems) };
    let before = problems.len();
    let mut numbers = BTreeMap::new();
    for (name, node) in entries {
        path.0.push(Step::Key(name.clone()));
        let any = Kind::Number(super::keys::Range { min: f64::MIN, min_allowed: true, below: f64::INFINITY });
        match scalar(node, &any) {
            Ok(Value::Number(value)) if numbers.insert(name.clone(), value).is_none() => {}
            Ok(_) => repeated(name, path, problems),
            Err(_) => {
                let message = format!("`{path}` can't be {}", shown(node));
                problems.push(Problem::new(Place::Value(path.clone()), message, "allowed: a number"));
            }
        }
        path.0.pop();
    }
    (problems.len() == before).then_some(Value::Numbers(numbers))
}

fn texts(node: &Node, kind: &Kind, path: &mut Path, problems: &mut Vec<Problem>) -> Option<Value> {
    let Node::Map(entries) = node else { return refuse(node, kind, None, path, problems) };
    let before = problems.len();
    let mut texts = BTreeMap::new();
    for (name, node) in entries {
        path.0.push(Step::Key(name.clone()));
        match node {
            Node::Text(text) if texts.insert(name.clone(), text.clone()).is_none() => {}
            Node::Text(_) => repeated(name, path, problems),
            _ => {
                let message = format!("`{path}` can't be {}", shown(node));
                let problem = Problem::new(Place::Value(path.clone()), message, "allowed: text");
                problems.push(problem.help("write it in quotes to make it text"));
            }
        }
        path.0.pop();
    }
    (problems.len() == before).then_some(Value::Texts(texts))
}

/// `path` ends in the key that is there again.
fn repeated(name: &str, path: &Path, problems: &mut Vec<Problem>) {
    let mut place = path.clone();
    place.0.pop();
    place.0.push(Step::Repeated(name.to_owned(), 1));
    problems.push(Problem::new(Place::Key(place), format!("`{path}` is there twice"), "remove one of the two"));
}

fn section(
    node: &Node,
    keys: &'static [Key],
    whole: bool,
    path: &mut Path,
    problems: &mut Vec<Problem>,
) -> Option<BTreeMap<&'static str, Value>> {
    let at_root = path.0.is_empty();
    let Node::Map(entries) = node else {
        let message = match node {
            Node::Null => format!("`{path}` has no value"),
            _ if at_root => format!("a spec can't be {}", shown(node)),
            _ => format!("`{path}` can't be {}", shown(node)),
        };
        let label = if at_root { "allowed: a map, `key: value` on each line".to_owned() } else { keys_here(keys) };
        problems.push(Problem::new(Place::Value(path.clone()), message, label));
        return None;
    };
    let before = problems.len();
    let mut values = BTreeMap::new();
    let mut seen = BTreeSet::new();
    for (name, node) in entries {
        path.0.push(Step::Key(name.clone()));
        if let Some(key) = keys.iter().find(|key| key.name == name) {
            if seen.insert(key.name) {
                values.extend(read(node, &key.kind, path, problems).map(|value| (key.name, value)));
            } else {
                repeated(name, path, problems);
            }
        } else {
            let near = nearest(name, keys.iter().map(|key| key.name));
            let label = near.map_or_else(|| "unknown".to_owned(), |near| format!("did you mean `{near}`?"));
            let place = if at_root { "a spec" } else { "this section" };
            let message = format!("`{path}` is no key of {place}");
            problems.push(Problem::new(Place::Key(path.clone()), message, label).help(keys_here(keys)));
        }
        path.0.pop();
    }
    let place = || if at_root { Place::Nowhere } else { Place::Key(path.clone()) };
    for key in keys.iter().filter(|key| whole && key.need == Need::Required && !seen.contains(key.name)) {
        // A misspelt key is reported once, as such.
        let misspelt = entries.iter().any(|(name, _)| {
            !keys.iter().any(|key| key.name == name) && nearest(name, keys.iter().map(|key| key.name)) == Some(key.name)
        });
        if !misspelt {
            let message = format!("`{}` is missing: {}", path.key(key.name), lower_first(key.doc));
            problems.push(
                Problem::new(place(), message, format!("add `{}:` here", key.name))
                    .help(format!("allowed: {}", key.kind.allowed())),
            );
        }
    }
    if !whole && entries.is_empty() {
        problems.push(Problem::new(Place::Value(path.clone()), format!("`{path}` is empty"), keys_here(keys)));
    }
    (problems.len() == before).then_some(values)
}

fn keys_here(keys: &[Key]) -> String {
    format!("keys here: {}", names(keys))
}

fn lower_first(text: &str) -> String {
    let mut chars = text.chars();
    let first = chars.next().map(|c| c.to_lowercase().to_string()).unwrap_or_default();
    first + chars.as_str()
}

fn variant(node: &Node, keys: &'static [Key], path: &mut Path, problems: &mut Vec<Problem>) -> Option<Value> {
    let empty = Node::Map(Vec::new());
    let (name, options) = match node {
        Node::Text(name) => (name, &empty),
        Node::Map(entries) if entries.len() == 1 => {
            let (name, options) = &entries[0];
            (name, if *options == Node::Null { &empty } else { options })
        }
        _ => return refuse(node, &Kind::Variant(keys), None, path, problems),
    };
    let Some(key) = keys.iter().find(|key| key.name == name) else {
        let near = did_you_mean(name, keys.iter().map(|key| key.name));
        return refuse(&Node::Text(name.clone()), &Kind::Variant(keys), near, path, problems);
    };
    path.0.push(Step::Key(name.clone()));
    let value = read(options, &key.kind, path, problems);
    path.0.pop();
    match value? {
        Value::Section(options) => Some(Value::Variant(key.name, options)),
        _ => unreachable!("options of a variant are a section"),
    }
}
