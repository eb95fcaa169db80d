//! What versions of Slurm say, as facts: the words of `squeue`'s `%T` and the errors of `sbatch`, read from the tags
//! slurm-20-11-9-1 to slurm-26-05-3-1 of Slurm's source (`job_state_string`, `slurm_errno.c`, `sbatch.c`). Only 22.05.8
//! has been run; its captured output is in `tests/it/slurm`.

use super::queue::{Submission, TaskState, read_submission};

/// The versions that were read.
const VERSIONS: [&str; 10] = ["20.11", "21.08", "22.05", "23.02", "23.11", "24.05", "24.11", "25.05", "25.11", "26.05"];

/// Words for states, of which versions (`None`: all), and what they mean to us. Where a job has one of the flags that
/// come before its state (COMPLETING, REQUEUED, ...), the flag is its word.
const STATES: &[(&str, Option<&[&str]>, Kind)] = &[
    ("PENDING", None, Kind::Queued),
    ("REQUEUED", None, Kind::Queued),
    ("REQUEUED_CRON", Some(&["20.11"]), Kind::Queued),
    ("REQUEUE_FED", None, Kind::Queued),
    ("REQUEUE_HOLD", None, Kind::Queued),
    ("RESV_DEL_HOLD", None, Kind::Queued),
    // Requeued and held, after an exit code that the site calls special.
    ("SPECIAL_EXIT", None, Kind::Queued),
    // Requeued with the highest priority.
    ("EXPEDITING", Some(&["25.11", "26.05"]), Kind::Queued),
    ("CONFIGURING", None, Kind::Placed),
    ("RUNNING", None, Kind::Placed),
    ("SUSPENDED", None, Kind::Placed),
    ("STOPPED", None, Kind::Placed),
    ("RESIZING", None, Kind::Placed),
    ("SIGNALING", None, Kind::Placed),
    ("COMPLETING", None, Kind::Placed),
    ("STAGE_OUT", None, Kind::Placed),
    ("COMPLETED", None, Kind::Ended),
    ("CANCELLED", None, Kind::Ended),
    ("FAILED", None, Kind::Ended),
    ("TIMEOUT", None, Kind::Ended),
    ("NODE_FAIL", None, Kind::Ended),
    ("PREEMPTED", None, Kind::Ended),
    ("BOOT_FAIL", None, Kind::Ended),
    ("DEADLINE", None, Kind::Ended),
    ("OUT_OF_MEMORY", None, Kind::Ended),
    // Another cluster of a federation runs it.
    ("REVOKED", None, Kind::Ended),
    // What it says of a number that it does not know.
    ("?", None, Kind::Unknown),
    // Flags that have no word here and are seen in `--json` alone; not known as a word of any version.
    ("LAUNCH_FAILED", Some(&[]), Kind::Unknown),
    ("RECONFIG_FAIL", Some(&[]), Kind::Unknown),
    ("POWER_UP_NODE", Some(&[]), Kind::Unknown),
    ("UPDATE_DB", Some(&[]), Kind::Unknown),
];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Queued,
    Placed,
    Ended,
    Unknown,
}

#[test]
fn every_state_of_every_version_is_known_and_what_is_not_is_no_end() {
    for (word, versions, kind) in STATES {
        let read = match TaskState::read(word) {
            TaskState::Queued => Kind::Queued,
            TaskState::Placed => Kind::Placed,
            TaskState::Ended => Kind::Ended,
            TaskState::Unknown(_) => Kind::Unknown,
        };
        assert_eq!(read, *kind, "{word}");
        for version in versions.unwrap_or_default() {
            assert!(VERSIONS.contains(version), "{word}: {version}");
        }
    }
    // But for `?`, 24 words; one more in the first version, and in the last two.
    let of = |version| STATES.iter().filter(|(_, of, _)| of.is_none_or(|of| of.contains(&version))).count() - 1;
    assert_eq!(VERSIONS.map(of), [25, 24, 24, 24, 24, 24, 24, 24, 25, 25]);
}

const PREFIX: &str = "sbatch: error: Batch job submission failed: ";

fn read(said: &str) -> Submission {
    read_submission(false, "", said)
}

/// Reasons that precede "Job violates accounting/QOS policy", in all versions from 20.11 to 26.05.
#[test]
fn limits_on_jobs_in_the_queue_pass_and_limits_on_one_job_do_not() {
    let policy = "Job violates accounting/QOS policy (job submit limit, user's size and/or time limits)";
    for reason in [
        "AssocGrpSubmitJobsLimit",
        "AssocMaxSubmitJobLimit",
        "MaxSubmitJobsPerAccount",
        "QOSGrpSubmitJobsLimit",
        "QOSMaxSubmitJobPerUserLimit",
    ] {
        let said = format!("sbatch: error: {reason}\n{PREFIX}{policy}\n");
        assert!(matches!(read(&said), Submission::Full(said) if said.contains(reason)), "{said}");
    }
    // Nothing is said of which it is: it is tried again, and told.
    assert!(matches!(read(&format!("{PREFIX}{policy}")), Submission::Full(_)));
    for reason in [
        "AssocMaxWallDurationPerJobLimit",
        "AssocMaxCpuPerJobLimit",
        "QOSMaxWallDurationPerJobLimit",
        "QOSMaxGRESPerJob",
        "QOSMinGRES",
        "QOSGrpCpuLimit",
        "MaxMemPerLimit",
    ] {
        let said = format!("sbatch: error: {reason}\n{PREFIX}{policy}\n");
        assert!(matches!(read(&said), Submission::Refused(said) if said.contains(reason)), "{said}");
    }
}

#[test]
fn what_passes_is_tried_again() {
    for said in [
        "Unable to create job record, try again",
        "Rate limit exceeded, please retry momentarily", // 23.02
        "Rate limit exceeded, please retry later",       // 24.05
        "System submissions disabled",
        "Slurm backup controller in standby mode",
        "Controller is in standby mode, try a different controller", // 21.08
        "Required partition not available (inactive or drain)",
        "Partition in DOWN state",
        "Requested nodes are busy",
        "Required ports are in use",
        "I/O error writing script/environment to file",
    ] {
        assert!(matches!(read(&format!("{PREFIX}{said}\n")), Submission::Full(_)), "{said}");
    }
    // MaxJobCount: after two minutes of its own attempts.
    for begun in
        ["Slurm temporarily unable to accept job, sleeping and retrying", "Slurm job queue full, sleeping and retrying"]
    {
        let said = format!("sbatch: error: {begun}\n{PREFIX}Resource temporarily unavailable\n");
        assert!(matches!(read(&said), Submission::Full(_)), "{said}");
    }
}

#[test]
fn what_may_have_arrived_is_looked_for_in_the_queue() {
    for said in [
        "Socket timed out on send/recv operation",
        "Zero Bytes were transmitted or received",
        "Unable to contact slurm controller (connect failure)",
        "Unable to contact slurm controller (send failure)",
        "Unable to contact slurm controller (receive failure)",
        "Unable to contact slurm controller (shutdown failure)",
        "Communication connection failure",
        "Communication shutdown failure",
        "Message send failure",
        "Message receive failure",
        "Failed to send entire message", // to 22.05, like the next two
        "Received zero length message",
        "Received message length < 0",
        "Header lengths are longer than data received",
        "Insane message length",
        "Unexpected missing socket error", // 21.08
        "Protocol authentication error",
        "Invalid authentication credential",
        "Authentication credential expired", // 24.11
        "Failed to connect to authentication agent",
        "Connection refused",
        "Connection timed out",
        "Resource temporarily unavailable",
    ] {
        assert!(matches!(read(&format!("{PREFIX}{said}\n")), Submission::Unclear(_)), "{said}");
        // Whatever it was told of before.
        let after = format!("sbatch: error: Slurm job queue full, sleeping and retrying\n{PREFIX}{said}\n");
        let expected_full = said == "Resource temporarily unavailable";
        assert_eq!(matches!(read(&after), Submission::Full(_)), expected_full, "{after}");
    }
}

#[test]
fn what_will_never_be_accepted_is_refused() {
    for said in [
        "Invalid partition name specified",
        "No partition specified or system default partition",
        "Access/permission denied",
        "User's group not permitted to use this partition",
        "More processors requested than permitted",
        "Node count specification invalid",
        "Requested node configuration is not available",
        "Requested partition configuration not available now",
        "Invalid node name specified",
        "Invalid feature specification",
        "Invalid account or account/partition combination specified",
        "Invalid qos specification",
        "Invalid generic resource (gres) specification",
        "Invalid job array specification",
        "Requested time limit is invalid (missing or exceeds some limit)",
        "Requested reservation is invalid",
        "Memory required by task is not available",
        "Invalid Trackable RESource (TRES) specification",
        "Incompatible versions of client and server code",
        "Job script not specified",
        "Pathname of a file, directory or other parameter too long",
        "CPU count specification invalid",
        "Invalid license specification",
        "Slurm internal error, contact system administrator",
    ] {
        assert!(matches!(read(&format!("{PREFIX}{said}\n")), Submission::Refused(_)), "{said}");
    }
}
