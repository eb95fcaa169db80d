//! `--exclude`: which nodes an array is kept away from.

use std::collections::BTreeSet;

use super::command::{COMMAND_LIMIT, command, run};
use crate::plan::SlurmOptions;

/// Name, partition and state of each node.
const FORMAT: &str = "%N|%P|%T";

/// The option that keeps an array away from nodes, and from those that the user's options exclude, whose place it
/// takes. `None`: there is nothing to avoid, or too few nodes would be left, since a job that waits for ever is worse
/// than one on a bad node; or Slurm does not say which there are.
pub(super) async fn option(avoid: &BTreeSet<String>, options: &SlurmOptions) -> Option<String> {
    if avoid.is_empty() {
        return None;
    }
    let mut sinfo = command("sinfo");
    sinfo.args(["--noheader", "--Node", "--format", FORMAT]);
    let answer = run(&mut sinfo, COMMAND_LIMIT).await.ok().filter(|answer| answer.success)?;
    option_of(avoid, options, &answer.stdout)
}

fn option_of(avoid: &BTreeSet<String>, options: &SlurmOptions, nodes: &str) -> Option<String> {
    let others: BTreeSet<&str> = nodes.lines().filter_map(|line| usable(line, options)).collect();
    let left = others.iter().filter(|node| !avoid.contains(**node)).count();
    if left < options.nodes {
        return None;
    }
    let theirs = options.options.iter().filter_map(|option| {
        option
            .strip_prefix("--exclude=")
            .or_else(|| option.strip_prefix("-x").map(|rest| rest.trim_start_matches(['=', ' '])))
    });
    let all: Vec<&str> = theirs.chain(avoid.iter().map(String::as_str)).collect();
    Some(format!("--exclude={}", all.join(",")))
}

/// The node of a line of `sinfo`, if jobs of this request may run on it.
fn usable<'a>(line: &'a str, options: &SlurmOptions) -> Option<&'a str> {
    let fields: Vec<&str> = line.split('|').map(str::trim).collect();
    let [name, partition, state] = fields[..] else { return None };
    // `idle*`: it does not respond; `idle~` and others are powered down, and come up when they are needed.
    let works = ["idle", "mixed", "allocated", "completing"]
        .contains(&state.trim_end_matches(['~', '#', '%', '@', '^', '-', '+', '$']));
    let in_partition = match &options.partition {
        Some(names) => names.split(',').any(|name| name == partition.trim_end_matches('*')),
        None => partition.ends_with('*'),
    };
    (works && in_partition).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NODES: &str =
        "n1|low*|idle\nn2|low*|mixed\nn3|low*|down*\nn4|high|allocated\nn5|low*|idle*\nn6|low*|idle~\ntorn";

    fn avoiding(nodes: &[&str], change: impl FnOnce(&mut SlurmOptions)) -> Option<String> {
        let mut options = SlurmOptions::default();
        change(&mut options);
        option_of(&nodes.iter().map(|node| (*node).to_owned()).collect(), &options, NODES)
    }

    #[test]
    fn nodes_are_avoided_while_enough_others_work() {
        assert_eq!(avoiding(&["n1"], |_| ()).as_deref(), Some("--exclude=n1"));
        assert_eq!(avoiding(&["n1", "n2"], |_| ()).as_deref(), Some("--exclude=n1,n2"), "n6 can be powered up");
        assert_eq!(avoiding(&["n1", "n2", "n6"], |_| ()), None, "n3 is down, n5 silent, n4 in another partition");
        assert_eq!(avoiding(&["n1"], |options| options.nodes = 2).as_deref(), Some("--exclude=n1"));
        assert_eq!(avoiding(&["n1"], |options| options.nodes = 3), None);
        let high = |options: &mut SlurmOptions| options.partition = Some("high,low".to_owned());
        assert_eq!(avoiding(&["n1", "n2", "n6"], high).as_deref(), Some("--exclude=n1,n2,n6"));
    }

    #[test]
    fn what_the_user_excludes_stays_excluded() {
        for option in ["--exclude=n9", "-xn9", "-x n9"] {
            let with = |options: &mut SlurmOptions| options.options = vec![option.to_owned()];
            assert_eq!(avoiding(&["n1"], with).as_deref(), Some("--exclude=n9,n1"), "{option}");
        }
    }
}
