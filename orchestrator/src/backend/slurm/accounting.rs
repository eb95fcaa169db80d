//! How Slurm jobs have ended that the controller has forgotten: `sacct`, where the cluster keeps accounts. Where it
//! does not, they are gone, and that is all there is to say.

use std::collections::BTreeMap;

use super::command::{COMMAND_LIMIT, command, run};
use super::queue::{self, NAME_PREFIX, Task, TaskState};
use super::watch::{Shared, read_batch};

/// Job, name, state and nodes. A state may be more than a word: `CANCELLED by 1000`.
const FORMAT: &str = "JobID,JobName,State,NodeList";

/// Looks up the ends of workers that were found missing, all in one call.
pub(super) async fn look_up(shared: &Shared) {
    let asked = std::mem::take(&mut shared.state().to_look_up);
    if asked.is_empty() {
        return;
    }
    let handles: Vec<&str> = asked.values().flatten().map(String::as_str).collect();
    let mut found = BTreeMap::new();
    if !handles.is_empty() {
        let mut sacct = command("sacct");
        sacct.args(["--noheader", "--parsable2", "--allocations", "--format", FORMAT, "--jobs", &handles.join(",")]);
        if let Ok(answer) = run(&mut sacct, COMMAND_LIMIT).await
            && answer.success
        {
            found = read(&answer.stdout);
        }
    }
    let look_up = |(worker, handle): (String, Option<String>)| {
        let task = handle.and_then(|handle| found.get(&handle)).filter(|task| {
            // Ids are given again: the name decides whose it is.
            let attempts = read_batch(shared, &task.batch);
            attempts.is_some_and(|attempts| attempts.of_task(task.index).iter().any(|member| member.token == worker))
        });
        let task = task.cloned();
        (worker, task)
    };
    // Files are read before others are kept waiting.
    let looked_up: Vec<(String, Option<Task>)> = asked.into_iter().map(look_up).collect();
    shared.state().looked_up.extend(looked_up);
    shared.changed.notify_one();
}

/// Tasks that have ended, by handle. Lines of others, and lines that can't be read, are left out.
fn read(output: &str) -> BTreeMap<String, Task> {
    output.lines().filter_map(read_line).map(|task| (task.handle.clone(), task)).collect()
}

fn read_line(line: &str) -> Option<Task> {
    let fields: Vec<&str> = line.split('|').collect();
    let [handle, name, state, node] = fields[..] else { return None };
    let (job, index) = handle.split_once('_')?;
    let index = job.parse::<u64>().ok().and(index.parse().ok())?;
    let word = state.split_whitespace().next()?.to_owned();
    let state = TaskState::read(&word);
    let node = if node == "None assigned" { String::new() } else { node.to_owned() };
    let batch = name.strip_prefix(NAME_PREFIX)?.to_owned();
    (state == TaskState::Ended).then(|| Task {
        batch,
        index,
        handle: handle.to_owned(),
        state,
        word,
        node,
        reason: queue::NO_REASON.to_owned(),
        share_end: None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_are_read_and_nothing_else() {
        let found = read(
            "12_3|sweep-ab12|PREEMPTED|node7\n12_4|sweep-ab12|CANCELLED by 1000|None assigned\n\
             12_5|sweep-ab12|RUNNING|node1\n13|sweep-ab12|FAILED|node1\n14_0|other|FAILED|node1\ntorn|sweep-\n",
        );
        let words: Vec<_> = found.values().map(|task| (&*task.handle, task.index, &*task.word, &*task.node)).collect();
        assert_eq!(words, [("12_3", 3, "PREEMPTED", "node7"), ("12_4", 4, "CANCELLED", "")]);
    }
}
