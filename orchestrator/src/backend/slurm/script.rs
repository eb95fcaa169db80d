//! The batch script of a job array. Pure.

use std::fmt::Write;
use std::path::Path;

use super::queue::NAME_PREFIX;
use super::shares::{ATTEMPTS, Attempts, Member};
use crate::backend::{LaunchRequest, THREADS};
use crate::plan::SlurmOptions;

/// A job array to submit.
#[derive(Debug)]
pub(super) struct Batch<'a> {
    /// Its name, drawn at random.
    pub name: &'a str,
    /// Its folder, which holds the script, the list of attempts and what Slurm writes.
    pub folder: &'a Path,
    /// The attempts, in the order of the tasks. What they share is read from the first.
    pub requests: &'a [LaunchRequest],
    /// Attempts of each task.
    pub together: usize,
    /// `sweep-worker`.
    pub worker: &'a Path,
    /// Folder of all state.
    pub home: &'a Path,
    /// File with the database's URL, where it has one.
    pub database_url: Option<&'a Path>,
}

/// Seconds before the end of its time at which a worker stops, and at which Slurm tells it to.
const STOP_SECS: (u64, u64) = (30, 300);

/// What the file of attempts says.
pub(super) fn attempts(batch: &Batch<'_>) -> Attempts {
    let member = |request: &LaunchRequest| Member { token: request.token.clone(), folder: request.folder.clone() };
    Attempts { together: batch.together, members: batch.requests.iter().map(member).collect() }
}

/// The script. It ends in `exec sweep-worker`: the worker, on the first node, or the process that holds several, is the
/// one that Slurm signals.
pub(super) fn script(batch: &Batch<'_>, options: &SlurmOptions) -> String {
    let mut text = String::from("#!/bin/bash\n");
    let _ = match batch.together {
        1 => writeln!(
            text,
            "# Written by sweep: a job array, of which task I runs the attempt in line I + 1 of the file `attempts`."
        ),
        many => writeln!(
            text,
            "# Written by sweep: a job array, of which each task runs {many} attempts of the file `attempts`."
        ),
    };
    let margin = stop_margin(options.time_secs);
    let last = batch.requests.len() / batch.together - 1;
    let asked = options.on_a_node(batch.together);
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
        format!("--cpus-per-task={}", asked.cpus),
        format!("--time={}", options.time_secs.div_ceil(60)),
        format!("--signal=B:USR1@{margin}"),
    ];
    let named = [
        ("partition", &options.partition),
        ("account", &options.account),
        ("qos", &options.qos),
        ("constraint", &options.constraint),
        ("mem", &asked.memory),
    ];
    sbatch.extend(named.into_iter().filter_map(|(name, value)| Some(format!("--{name}={}", value.as_deref()?))));
    if asked.gpus > 0 {
        sbatch.push(format!("--gres=gpu:{}", asked.gpus));
    }
    sbatch.extend(options.options.iter().cloned());
    for option in sbatch {
        let _ = writeln!(text, "#SBATCH {option}");
    }
    let attempts_file = quote(&batch.folder.join(ATTEMPTS).display().to_string());
    text.push_str("\nset -u\n");
    if batch.together == 1 {
        let _ = write!(
            text,
            "line=$(sed -n \"$((SLURM_ARRAY_TASK_ID + 1))p\" {attempts_file}) || exit 78\n\
             token=${{line%% *}} folder=${{line#* }}\n\
             [ -n \"$token\" ] || {{ echo \"no attempt for task $SLURM_ARRAY_TASK_ID\"; exit 78; }}\n\
             mkdir -p \"$folder\" || exit 78\nexec >>\"$folder/worker.log\" 2>&1\n"
        );
    }
    let _ = writeln!(
        text,
        "export SWEEP_HOME={home}\nexport {threads}",
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
    text.push_str(&quote(&batch.worker.display().to_string()));
    if batch.together == 1 {
        text.push_str(" --attempt \"$token\"");
    } else {
        let _ = write!(
            text,
            " side-by-side --attempts {attempts_file} --task \"$SLURM_ARRAY_TASK_ID\" --cpus {} --gpus {}",
            options.cpus, options.gpus
        );
        text.push_str(if batch.requests[0].spool_only { " --spool-only --" } else { " --" });
    }
    let _ = write!(text, " --database-elsewhere --until-secs {}", options.time_secs - margin);
    if batch.together == 1 && batch.requests[0].spool_only {
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

#[cfg(test)]
mod tests {
    use super::*;

    fn script_of(count: usize, together: usize, spool_only: bool) -> String {
        let request = |slot: usize| LaunchRequest {
            token: format!("{slot:032x}"),
            slot,
            folder: format!("/p/.sweep/jobs/{slot}").into(),
            runner: "/bin/clip-runner".into(),
            base_dir: "/p".into(),
            time_limit_secs: None,
            sweep_id: 7,
            work_secs: if spool_only { 0 } else { 1800 },
            serve: true,
            spool_only,
            avoid: std::collections::BTreeSet::new(),
        };
        let requests: Vec<LaunchRequest> = (0..count).map(request).collect();
        let batch = Batch {
            name: "cafe",
            folder: Path::new("/p/.sweep/slurm/cafe"),
            requests: &requests,
            together,
            worker: Path::new("/bin/sweep-worker"),
            home: Path::new("/p/.sweep"),
            database_url: (!spool_only).then_some(Path::new("/p/.sweep/slurm/database-url")),
        };
        let options = SlurmOptions {
            cpus: 8,
            gpus: 1,
            memory: Some("16G".to_owned()),
            setup: vec!["module load cuda".to_owned()],
            container: vec!["apptainer".to_owned(), "exec".to_owned(), "i.sif".to_owned()],
            ..SlurmOptions::default()
        };
        // Its last line, as it can be read.
        script(&batch, &options).replace(" --", "\n    --").replace("#SBATCH\n    ", "#SBATCH ")
    }

    #[test]
    fn a_task_of_one_attempt() {
        insta::assert_snapshot!(script_of(2, 1, true), @r#"
        #!/bin/bash
        # Written by sweep: a job array, of which task I runs the attempt in line I + 1 of the file `attempts`.
        #SBATCH --job-name=sweep-cafe
        #SBATCH --array=0-1
        #SBATCH --output=/p/.sweep/slurm/cafe/%a.log
        #SBATCH --open-mode=append
        #SBATCH --no-requeue
        #SBATCH --nodes=1
        #SBATCH --ntasks=1
        #SBATCH --cpus-per-task=8
        #SBATCH --time=60
        #SBATCH --signal=B:USR1@300
        #SBATCH --mem=16G
        #SBATCH --gres=gpu:1

        set -u
        line=$(sed -n "$((SLURM_ARRAY_TASK_ID + 1))p" /p/.sweep/slurm/cafe/attempts) || exit 78
        token=${line%% *} folder=${line#* }
        [ -n "$token" ] || { echo "no attempt for task $SLURM_ARRAY_TASK_ID"; exit 78; }
        mkdir -p "$folder" || exit 78
        exec >>"$folder/worker.log" 2>&1
        export SWEEP_HOME=/p/.sweep
        export OMP_NUM_THREADS=8 MKL_NUM_THREADS=8 OPENBLAS_NUM_THREADS=8 RAYON_NUM_THREADS=8
        module load cuda
        exec apptainer exec i.sif /bin/sweep-worker
            --attempt "$token"
            --database-elsewhere
            --until-secs 3300
            --spool-only "$folder"
            --runner /bin/clip-runner
            --base-dir /p
        "#);
    }

    #[test]
    fn a_task_of_three_attempts_asks_for_three_times_as_much() {
        insta::assert_snapshot!(script_of(6, 3, false), @r#"
        #!/bin/bash
        # Written by sweep: a job array, of which each task runs 3 attempts of the file `attempts`.
        #SBATCH --job-name=sweep-cafe
        #SBATCH --array=0-1
        #SBATCH --output=/p/.sweep/slurm/cafe/%a.log
        #SBATCH --open-mode=append
        #SBATCH --no-requeue
        #SBATCH --nodes=1
        #SBATCH --ntasks=1
        #SBATCH --cpus-per-task=24
        #SBATCH --time=60
        #SBATCH --signal=B:USR1@300
        #SBATCH --mem=48G
        #SBATCH --gres=gpu:3

        set -u
        export SWEEP_HOME=/p/.sweep
        export OMP_NUM_THREADS=8 MKL_NUM_THREADS=8 OPENBLAS_NUM_THREADS=8 RAYON_NUM_THREADS=8
        DATABASE_URL=$(cat /p/.sweep/slurm/database-url) || exit 78
        export DATABASE_URL
        module load cuda
        exec apptainer exec i.sif /bin/sweep-worker side-by-side
            --attempts /p/.sweep/slurm/cafe/attempts
            --task "$SLURM_ARRAY_TASK_ID"
            --cpus 8
            --gpus 1
            --
            --database-elsewhere
            --until-secs 3300
            --runner /bin/clip-runner
            --base-dir /p
            --sweep 7
            --work-secs 1800
            --serve
        "#);
    }
}
