//! The batch script of a job array. Pure.

use std::fmt::Write;
use std::path::Path;

use super::queue::NAME_PREFIX;
use crate::backend::{LaunchRequest, THREADS};
use crate::plan::SlurmOptions;

/// A job array to submit: one task an attempt.
#[derive(Debug)]
pub(super) struct Batch<'a> {
    /// Its name, drawn at random.
    pub name: &'a str,
    /// Its folder, which holds the script, the list of attempts and what Slurm writes.
    pub folder: &'a Path,
    /// The attempts, by index. What they share is read from the first.
    pub requests: &'a [LaunchRequest],
    /// `sweep-worker`.
    pub worker: &'a Path,
    /// Folder of all state.
    pub home: &'a Path,
    /// File with the database's URL, where it has one.
    pub database_url: Option<&'a Path>,
}

/// Seconds before the end of its time at which a worker stops, and at which Slurm tells it to.
const STOP_SECS: (u64, u64) = (30, 300);

/// Name of the file with the attempts: `TOKEN FOLDER`, a line a task.
pub(super) const ATTEMPTS: &str = "attempts";

pub(super) fn attempts(requests: &[LaunchRequest]) -> String {
    requests.iter().fold(String::new(), |mut text, request| {
        let _ = writeln!(text, "{} {}", request.token, request.folder.display());
        text
    })
}

/// Tokens of a file of attempts.
pub(super) fn read_attempts(text: &str) -> Vec<String> {
    text.lines().map(|line| line.split(' ').next().unwrap_or_default().to_owned()).collect()
}

/// The script. It ends in `exec sweep-worker`: the worker, on the first node, is the process that Slurm signals.
pub(super) fn script(batch: &Batch<'_>, options: &SlurmOptions) -> String {
    let mut text = String::from(
        "#!/bin/bash\n# Written by sweep: a job array, of which task I runs the attempt in line I + 1 of the file `attempts`.\n",
    );
    let margin = stop_margin(options.time_secs);
    let last = batch.requests.len() - 1;
    let mut sbatch = vec![
        format!("--job-name={NAME_PREFIX}{}", batch.name),
        format!("--array=0-{last}"),
        format!("--output={}/%a.log", pattern(batch.folder)),
        "--open-mode=append".to_owned(),
        // A requeued job would be a second worker of an attempt: the launcher submits anew instead.
        "--no-requeue".to_owned(),
        // Not `--ntasks-per-node`: Slurm 22.05.8 miscounts with it.
        format!("--nodes={}", options.nodes),
        format!("--ntasks={}", options.nodes),
        format!("--cpus-per-task={}", options.cpus),
        format!("--time={}", options.time_secs.div_ceil(60)),
        format!("--signal=B:USR1@{margin}"),
    ];
    let named = [
        ("partition", &options.partition),
        ("account", &options.account),
        ("qos", &options.qos),
        ("constraint", &options.constraint),
        ("mem", &options.memory),
    ];
    sbatch.extend(named.into_iter().filter_map(|(name, value)| Some(format!("--{name}={}", value.as_deref()?))));
    if options.gpus > 0 {
        sbatch.push(format!("--gres=gpu:{}", options.gpus));
    }
    sbatch.extend(options.options.iter().cloned());
    for option in sbatch {
        let _ = writeln!(text, "#SBATCH {option}");
    }
    let _ = write!(
        text,
        "\nset -u\nline=$(sed -n \"$((SLURM_ARRAY_TASK_ID + 1))p\" {attempts}) || exit 78\n\
         token=${{line%% *}} folder=${{line#* }}\n\
         [ -n \"$token\" ] || {{ echo \"no attempt for task $SLURM_ARRAY_TASK_ID\"; exit 78; }}\n\
         mkdir -p \"$folder\" || exit 78\nexec >>\"$folder/worker.log\" 2>&1\n\
         export SWEEP_HOME={home}\n\
         export {threads}\n",
        attempts = quote(&batch.folder.join(ATTEMPTS).display().to_string()),
        home = quote(&batch.home.display().to_string()),
        threads = THREADS.map(|name| format!("{name}={}", options.cpus)).join(" "),
    );
    if let Some(file) = batch.database_url {
        let _ = writeln!(
            text,
            "DATABASE_URL=$(cat {}) || exit 78\nexport DATABASE_URL",
            quote(&file.display().to_string())
        );
    }
    for (name, value) in &options.environment {
        let _ = writeln!(text, "export {name}={}", quote(value));
    }
    for line in &options.setup {
        let _ = writeln!(text, "{line}");
    }
    text.push_str("exec ");
    for word in &options.container {
        let _ = write!(text, "{} ", quote(word));
    }
    let _ = write!(
        text,
        "{} --attempt \"$token\" --database-elsewhere --until-secs {}",
        quote(&batch.worker.display().to_string()),
        options.time_secs - margin,
    );
    if batch.requests[0].spool_only {
        text.push_str(" --spool-only \"$folder\"");
    }
    if options.nodes > 1 {
        let _ = write!(text, " --ranks {}", options.nodes);
    }
    for argument in batch.requests[0].arguments() {
        let _ = write!(text, " {}", quote(&argument.to_string_lossy()));
    }
    text.push('\n');
    text
}

/// What people who submit a script themselves have to know.
const BY_HAND: &str = "\
# To submit by hand: sbatch THIS_FILE. Edit what you like but --job-name, --array and the last line: by them a launcher
# knows this job in the queue. It runs one attempt, which is recorded already. If it is never submitted, nothing is lost:
# the next `sweep launch` submits that attempt itself once it is 3 minutes old and not in the queue. Whichever worker of
# the two starts first has the attempt; the other ends at once, with exit code 77. So it can be submitted once, and not
# again: ask for a new script then.
";

/// A script for somebody to submit.
pub(super) fn by_hand(script: &str) -> String {
    let (shebang, rest) = script.split_once('\n').unwrap_or((script, ""));
    format!("{shebang}\n{BY_HAND}{rest}")
}

/// Seconds that a worker is given to write a checkpoint and go: a tenth of its time, within [`STOP_SECS`].
fn stop_margin(time_secs: u64) -> u64 {
    (time_secs / 10).clamp(STOP_SECS.0, STOP_SECS.1).min(time_secs / 2)
}

/// One word for a shell.
fn quote(text: &str) -> String {
    if !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || "-_./=".contains(c)) {
        return text.to_owned();
    }
    format!("'{}'", text.replace('\'', r"'\''"))
}

/// A path in an option that Slurm replaces `%` in, as one word of an `#SBATCH` line.
fn pattern(path: &Path) -> String {
    let mut text = String::new();
    for c in path.display().to_string().chars() {
        match c {
            '%' => text.push_str("%%"),
            ' ' | '\'' | '"' | '\\' | '#' => text.extend(['\\', c]),
            c => text.push(c),
        }
    }
    text
}
