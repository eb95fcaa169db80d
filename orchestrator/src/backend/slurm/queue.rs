//! What `squeue` says, read. Pure.

use std::collections::{BTreeMap, BTreeSet};

use crate::backend::EndCause;

/// Fields asked for, those with free text last. All letters are in the manuals of Slurm 20.11 to 26.05.
pub(super) const FORMAT: &str = "%F|%K|%T|%N|%j|%r";

/// What names of our Slurm jobs begin with; the batch follows.
pub(super) const NAME_PREFIX: &str = "sweep-";

/// One task of one of our job arrays.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Task {
    /// Name of the batch: which file of attempts the index counts in.
    pub batch: String,
    /// Index in the array.
    pub index: usize,
    /// `ARRAYJOB_INDEX`, as `scancel` takes it.
    pub handle: String,
    /// What it is doing.
    pub state: TaskState,
    /// The same in Slurm's word.
    pub word: String,
    /// Name of its node, or empty.
    pub node: String,
    /// Why it waits, in Slurm's words.
    pub reason: String,
    /// How one of several workers of the task has ended, before the task has; `squeue` does not say.
    pub share_end: Option<String>,
}

/// States of Slurm jobs, as far as they make a difference.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum TaskState {
    /// It waits, or will run again.
    Queued,
    /// It is on a node, or about to be, or its processes are being ended: nobody else may have its work yet.
    Placed,
    /// It has ended; how, its word says.
    Ended,
    /// A word that we don't know. Never an end.
    Unknown(String),
}

impl Task {
    /// Whether the task is with a node, and nobody is ending it.
    pub(super) fn is_running(&self) -> bool {
        self.state == TaskState::Placed && self.word != COMPLETING
    }

    /// Whether somebody, ourselves perhaps, has ended it by hand.
    pub(super) fn is_cancelled(&self) -> bool {
        self.end_cause() == EndCause::Cancelled
    }

    /// What has ended it.
    pub(super) fn end_cause(&self) -> EndCause {
        if self.share_end.is_some() {
            return EndCause::Unknown;
        }
        match self.word.as_str() {
            CANCELLED => EndCause::Cancelled,
            "PREEMPTED" => EndCause::Preempted,
            "NODE_FAIL" | "BOOT_FAIL" => EndCause::NodeFailed,
            "OUT_OF_MEMORY" => EndCause::OutOfMemory,
            "TIMEOUT" | "DEADLINE" => EndCause::TimeLimit,
            _ => EndCause::Unknown,
        }
    }
}

/// Slurm's word where there is no reason.
pub(super) const NO_REASON: &str = "None";
/// Slurm's word for what `scancel` has ended.
const CANCELLED: &str = "CANCELLED";
/// Its word for what is being ended, for whatever reason.
const COMPLETING: &str = "COMPLETING";

impl TaskState {
    /// `squeue`'s long form (`%T`).
    pub(super) fn read(word: &str) -> TaskState {
        use TaskState::{Ended, Placed, Queued};
        match word {
            "PENDING" | "REQUEUED" | "REQUEUED_CRON" | "REQUEUE_FED" | "REQUEUE_HOLD" | "RESV_DEL_HOLD"
            | "SPECIAL_EXIT" | "EXPEDITING" => Queued,
            "CONFIGURING" | "RUNNING" | "SUSPENDED" | "STOPPED" | "RESIZING" | "SIGNALING" | COMPLETING
            | "STAGE_OUT" => Placed,
            "COMPLETED" | "FAILED" | "TIMEOUT" | "DEADLINE" | "PREEMPTED" | "NODE_FAIL" | "BOOT_FAIL" | "REVOKED"
            | "OUT_OF_MEMORY" | CANCELLED => Ended,
            other => TaskState::Unknown(other.to_owned()),
        }
    }
}

/// Our tasks among the lines of `squeue --noheader --array --format` [`FORMAT`]. Lines of other jobs, and lines that
/// can't be read, are left out: a task is not gone because one answer lacks it.
pub(super) fn read(output: &str) -> Vec<Task> {
    output.lines().filter_map(read_line).collect()
}

fn read_line(line: &str) -> Option<Task> {
    let mut fields = line.splitn(6, '|');
    let mut field = || fields.next().map(str::trim);
    let (job, index, state, node, name, reason) = (field()?, field()?, field()?, field()?, field()?, field()?);
    let batch = name.strip_prefix(NAME_PREFIX)?;
    let number: u64 = job.parse().ok()?;
    let index: usize = index.parse().ok()?;
    Some(Task {
        batch: batch.to_owned(),
        index,
        handle: format!("{number}_{index}"),
        state: TaskState::read(state),
        word: state.to_owned(),
        node: node.to_owned(),
        reason: reason.trim_matches(['(', ')']).to_owned(),
        share_end: None,
    })
}

/// Our arrays of which Slurm shows a record without a task, cancelled: it has forgotten those that waited, of which the
/// last was taken out of the queue.
pub(super) fn emptied(output: &str) -> BTreeSet<String> {
    let names = output.lines().filter_map(|line| {
        let fields: Vec<&str> = line.splitn(6, '|').map(str::trim).collect();
        let is_empty = fields.len() == 6 && fields[1] == "N/A" && fields[2] == CANCELLED;
        fields.get(4)?.strip_prefix(NAME_PREFIX).filter(|_| is_empty).map(str::to_owned)
    });
    names.collect()
}

/// Values of `scontrol show config` by name.
pub(super) fn read_config(output: &str) -> BTreeMap<&str, &str> {
    output.lines().filter_map(|line| line.split_once('=')).map(|(name, value)| (name.trim(), value.trim())).collect()
}

/// What became of a submission.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Submission {
    /// The array's job id.
    Accepted(u64),
    /// Limits on jobs in the queue are reached: later.
    Full(String),
    /// Slurm does not answer, or can't be understood: it may have accepted or not.
    Unclear(String),
    /// It never will be accepted as it is.
    Refused(String),
}

/// Words of errors after which Slurm may have the array or not, in small letters: what was sent or answered was lost.
/// They come first: `sbatch` tries again by itself, and may have been told of a limit before.
const LOST_ON_THE_WAY: &[&str] = &[
    "timed out",
    "unable to contact",
    "connection refused",
    "communication connection failure",
    "communication shutdown failure",
    "message send failure",
    "message receive failure",
    "failed to send entire message",
    "received zero length message",
    "received message length < 0",
    "zero bytes",
    "header lengths are longer",
    "insane message length",
    "missing socket error",
    // MUNGE is away, on one side or the other; `scontrol` was answered when the launch began.
    "protocol authentication error",
    "authentication credential",
    "authentication agent",
];

/// Words of errors that pass, after which Slurm surely has nothing of ours. `sbatch` says some of them as it begins to
/// try again, for two minutes.
const PASSING: &[&str] = &[
    "maxsubmit",
    "submit limit",
    "maximum job count",
    "too many jobs",
    "unable to create job record",
    "job queue full",
    "temporarily unable to accept job",
    "job creation temporarily disabled",
    "requested nodes are busy",
    "required ports are in use",
    "rate limit exceeded",
    "submissions disabled",
    "standby mode",
    "inactive or drain",
    "partition in down state",
    "i/o error writing script",
];

/// What `sbatch --parsable` meant. An id with an exit code of 0 is an id, whatever is said beside it.
pub(super) fn read_submission(success: bool, stdout: &str, stderr: &str) -> Submission {
    let id = stdout.lines().rev().find_map(|line| line.trim().split(';').next()?.parse::<u64>().ok());
    let said = stderr.lines().map(str::trim).filter(|line| !line.is_empty()).collect::<Vec<_>>().join("; ");
    if let Some(id) = id.filter(|_| success) {
        return Submission::Accepted(id);
    }
    let lower = said.to_ascii_lowercase();
    let says = |words: &[&str]| words.iter().any(|word| lower.contains(word));
    let lost = says(LOST_ON_THE_WAY) || (says(&["resource temporarily unavailable"]) && !says(PASSING));
    if success || id.is_some() || said.is_empty() || lost {
        return Submission::Unclear(if said.is_empty() { format!("sbatch said {:?}", stdout.trim()) } else { said });
    }
    if says(&["job violates accounting/qos policy"]) {
        // One text for limits on jobs in the queue and for those that one job is beyond. Which it is, Slurm says before
        // it in one word: AssocMaxSubmitJobLimit, QOSMaxWallDurationPerJobLimit.
        let words = said.split(';').map(|line| line.trim().trim_start_matches("sbatch: error:").trim());
        let reason = words.filter(|line| !line.is_empty()).find(|line| !line.contains(' '));
        return match reason {
            Some(reason) if !reason.contains("Submit") => Submission::Refused(said),
            _ => Submission::Full(said),
        };
    }
    if says(PASSING) {
        return Submission::Full(said);
    }
    Submission::Refused(said)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_tasks_are_found_among_other_jobs() {
        let output = "12|3|RUNNING|node1|sweep-ab12|None\n\
                      12|4|PENDING||sweep-ab12|(Resources)\n\
                      13|N/A|RUNNING|node2|interactive|None\n\
                      14|0|COMPLETED|node2|sweep-cd|a|reason|with bars\n\
                      torn line\n\
                      15|0|WHATEVER|n|sweep-ef|None";
        let tasks = read(output);
        let short: Vec<_> = tasks.iter().map(|task| (&*task.handle, &task.state, &*task.reason)).collect();
        assert_eq!(
            short,
            [
                ("12_3", &TaskState::Placed, "None"),
                ("12_4", &TaskState::Queued, "Resources"),
                ("14_0", &TaskState::Ended, "a|reason|with bars"),
                ("15_0", &TaskState::Unknown("WHATEVER".to_owned()), "None"),
            ]
        );
        assert_eq!(tasks[2].word, "COMPLETED");
        assert_eq!((&*tasks[0].batch, tasks[0].index, &*tasks[0].node), ("ab12", 3, "node1"));
    }

    #[test]
    fn an_array_whose_waiting_tasks_were_all_cancelled_is_still_known() {
        // Captured from 22.05.8, with other names.
        let output = "3|N/A|CANCELLED||sweep-ab12|JobHeldUser\n4|1|CANCELLED||sweep-cd|JobHeldUser\n\
                      5|N/A|RUNNING|node1|sweep-ef|None\n6|N/A|CANCELLED||other|None";
        assert_eq!(emptied(output), BTreeSet::from(["ab12".to_owned()]));
        assert_eq!(read(output).len(), 1);
    }

    #[test]
    fn an_end_has_slurms_word() {
        for word in [
            "COMPLETED",
            "FAILED",
            "TIMEOUT",
            "DEADLINE",
            "PREEMPTED",
            "NODE_FAIL",
            "BOOT_FAIL",
            "REVOKED",
            "OUT_OF_MEMORY",
            "CANCELLED",
        ] {
            let task = read(&format!("1|0|{word}|node1|sweep-cafe|None")).remove(0);
            assert_eq!((task.state, &*task.word), (TaskState::Ended, word));
        }
        // Of other versions, or cut off: nothing is given up for it.
        for word in ["", "COMPLETE", "CANCELLED by 0", "completed", "LAUNCH_FAILED"] {
            assert!(matches!(TaskState::read(word), TaskState::Unknown(_)), "{word}");
        }
    }

    #[test]
    fn sbatch_is_understood() {
        let read = |success, stdout, stderr| read_submission(success, stdout, stderr);
        assert_eq!(read(true, "17\n", ""), Submission::Accepted(17));
        assert_eq!(read(true, "17;cluster\n", "sbatch: warning: can't run 1 processes\n"), Submission::Accepted(17));
        assert_eq!(read(true, "Welcome!\n17\n", ""), Submission::Accepted(17));
        for (success, stdout, stderr) in [
            (true, "", ""),
            (true, "garbage", ""),
            (false, "", ""),
            (false, "17", "sbatch: error: killed"),
            (false, "", "sbatch: error: Batch job submission failed: Socket timed out on send/recv operation"),
            (
                false,
                "",
                "sbatch: error: Batch job submission failed: Unable to contact slurm controller (connect failure)",
            ),
        ] {
            assert!(matches!(read(success, stdout, stderr), Submission::Unclear(_)), "{success} {stdout} {stderr}");
        }
        let full = "sbatch: error: QOSMaxSubmitJobPerUserLimit\nsbatch: error: Batch job submission failed: \
                    Job violates accounting/QOS policy (job submit limit, user's size and/or time limits)";
        assert!(matches!(read(false, "", full), Submission::Full(_)));
        let refused = "sbatch: error: invalid partition specified: nowhere\n\
                       sbatch: error: Batch job submission failed: Invalid partition name specified";
        assert!(matches!(read(false, "", refused), Submission::Refused(said) if said.contains("nowhere")));
    }

    #[test]
    fn the_configuration_is_read() {
        let output = "Configuration data as of 2026-11-27T12:00:00\nClusterName             = ci\nMaxArraySize            = 11\n";
        let config = read_config(output);
        assert_eq!((config.get("ClusterName"), config.get("MaxArraySize")), (Some(&"ci"), Some(&"11")));
    }

    /// Captured from Slurm 22.05: see the README there.
    #[test]
    fn every_captured_state_is_known() {
        let captured = include_str!("../../../tests/it/slurm/squeue-22.05.txt");
        let mut waiting = 0;
        for line in captured.lines() {
            let fields: Vec<&str> = line.splitn(24, '|').collect();
            let ours = [fields[2], fields[3], fields[4], fields[20], "sweep-cafe", fields[6]].join("|");
            let tasks = read(&ours);
            if fields[3] == "N/A" {
                assert!(tasks.is_empty(), "no task of an array: {line}");
                continue;
            }
            assert!(!matches!(tasks[0].state, TaskState::Unknown(_)), "{line}");
            waiting += usize::from(tasks[0].state == TaskState::Queued);
        }
        assert!(waiting > 0, "some tasks of arrays waited");
    }

    #[test]
    fn every_captured_answer_of_sbatch_is_understood() {
        let captured = include_str!("../../../tests/it/slurm/sbatch-outputs.txt");
        let mut seen = [0; 2];
        for block in captured.split("\n$ ").filter(|block| !block.contains("--test-only")) {
            let Some((_, rest)) = block.split_once("exit code: ") else { continue };
            let (code, rest) = rest.split_once('\n').expect("a line");
            let (stdout, stderr) = rest.split_once("stderr:").expect("both");
            let stdout = stdout.trim_start_matches("stdout:");
            if !block.contains("--parsable") {
                continue;
            }
            let success = code.trim() == "0";
            let submission = read_submission(success, stdout, stderr);
            let accepted = matches!(submission, Submission::Accepted(_));
            assert_eq!(accepted, success, "{block}: {submission:?}");
            seen[usize::from(success)] += 1;
        }
        assert!(seen[0] > 2 && seen[1] > 2, "{seen:?}");
    }
}
