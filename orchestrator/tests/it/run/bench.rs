//! What the tests of running share: a project with a spec, the launch under test, and questions to its database.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::OnceLock;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use sqlx::PgPool;
use sqlx::postgres::PgPoolOptions;
use sweep::store::private_postgres;

pub(super) use crate::harness::wait_until;
use crate::harness::{Project, transcript};

/// Four jobs of 20 or 40 steps, a checkpoint every fifth.
pub(super) const SPEC: &str = "\
name: tiny
runner: synthetic
grid: {model: [cpu-w32-l2, cpu-w64-l3], samples_seen: [1280, 2560], data_size: 500}
recipe: {global_batch: 64, checkpoint_every: 320}
backend: {local: {slots: 2, threads_per_slot: 1}}
";

/// One job of 64 samples, run by `runner.sh`: see [`Bench::with_shell_runner`].
pub(super) const SHELL_SPEC: &str = "\
name: tiny
runner: ./runner.sh
grid: {model: cpu-w32-l2, samples_seen: 64, data_size: 500}
recipe: {global_batch: 64}
backend: {local: {slots: 1, threads_per_slot: 1}}
";

/// A project with a spec in `sweep.yaml`.
pub(super) struct Bench {
    project: Project,
    runtime: tokio::runtime::Runtime,
}

impl Bench {
    pub(super) fn new(spec: &str) -> Bench {
        ensure_synthetic_runner();
        let project = Project::new();
        fs::write(project.path().join("sweep.yaml"), spec).expect("the project can be written to");
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        Bench { project, runtime: runtime.expect("a Tokio runtime can be built") }
    }

    pub(super) fn path(&self) -> &Path {
        self.project.path()
    }

    /// A project with a spec that names `./runner.sh`, and that runner, in shell: it describes itself with `more`,
    /// knows `started` and `finished` of a job of 64 samples, and does `body`.
    pub(super) fn with_shell_runner(spec: &str, more: &str, body: &str) -> Bench {
        let bench = Bench::new(spec);
        let text = format!(
            "#!/bin/sh
if [ \"$1\" = describe ]; then
    echo '{{\"name\": \"shell\", \"version\": \"1\", \"protocol\": 1, \"reads_data\": false, \"devices\": [\"cpu\"]{more}}}'
    exit 0
fi
started() {{ echo '{{\"event\": \"started\", \"parameters\": 191873, \"resumed_from_samples\": 0, \"device\": \"sh\"}}'; }}
finished() {{ echo '{{\"event\": \"finished\", \"samples_seen\": 64, \"train_secs\": 1, \"eval_secs\": 0}}'; }}
{body}
"
        );
        let path = bench.path().join("runner.sh");
        fs::write(&path, text).expect("the project can be written to");
        fs::set_permissions(&path, Permissions::from_mode(0o755)).expect("the file is ours");
        bench
    }

    /// Writes the spec anew with these words replaced, which have to be there.
    pub(super) fn change_spec(&self, changes: &[(&str, &str)]) {
        self.change("sweep.yaml", changes);
    }

    /// The same with the shell runner.
    pub(super) fn change_runner(&self, changes: &[(&str, &str)]) {
        self.change("runner.sh", changes);
    }

    fn change(&self, file: &str, changes: &[(&str, &str)]) {
        let path = self.path().join(file);
        let mut text = fs::read_to_string(&path).expect("it is there");
        for (from, to) in changes {
            assert!(text.contains(from), "{from}: {text}");
            text = text.replace(from, to);
        }
        fs::write(path, text).expect("the project can be written to");
    }

    /// `sweep` in the project.
    pub(super) fn sweep(&self, args: &[&str]) -> Output {
        self.project.output(args)
    }

    /// `sweep` in the project, to be started.
    pub(super) fn command(&self, args: &[&str]) -> Command {
        self.project.sweep(args)
    }

    /// Starts `sweep launch SPEC` with faults.
    pub(super) fn launch_spec(&self, spec: &str, fault: &str) -> Launch {
        self.launch_with(spec, fault, &[])
    }

    /// The same with more in its environment.
    pub(super) fn launch_with(&self, spec: &str, fault: &str, environment: &[(&str, &str)]) -> Launch {
        let mut command = self.project.sweep(&["launch", spec]);
        command.envs(environment.iter().copied());
        Launch::start(command.env("SYNTHETIC_FAULT", fault))
    }

    /// Starts `sweep launch sweep.yaml` in a control group, given by the file that takes processes into it.
    pub(super) fn launch_in_group(&self, procs: &Path) -> Launch {
        let plain = self.project.sweep(&["launch", "sweep.yaml"]);
        let mut command = Command::new("sh");
        command
            .args(["-c", "echo $$ >\"$0\" && exec \"$@\""])
            .arg(procs)
            .arg(plain.get_program())
            .args(plain.get_args());
        for (name, value) in plain.get_envs() {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        command.current_dir(plain.get_current_dir().expect("it is the project"));
        Launch::start(&mut command)
    }

    /// Starts any other command.
    pub(super) fn start(&self, args: &[&str]) -> Launch {
        Launch::start(&mut self.project.sweep(args))
    }

    /// Starts `sweep launch sweep.yaml` with faults.
    pub(super) fn launch(&self, fault: &str) -> Launch {
        self.launch_spec("sweep.yaml", fault)
    }

    /// Launches to the end, which has to be a good one; gives what was said.
    pub(super) fn finish(&self) -> String {
        let output = self.launch("").wait();
        assert!(output.status.success(), "{}\n{}", transcript(&output), self.story());
        String::from_utf8_lossy(&output.stderr).into_owned()
    }

    /// Process id of the database server.
    pub(super) fn postmaster(&self) -> Pid {
        self.project.postmaster()
    }

    /// Runs SQL that gives text, one value a row. `None`: there is no database yet, or it is away.
    pub(super) fn try_ask(&self, sql: &'static str) -> Option<Vec<String>> {
        let access = private_postgres::running(&self.project.home()).ok()??;
        self.runtime.block_on(async {
            let pool = PgPoolOptions::new().max_connections(1).acquire_timeout(Duration::from_secs(5));
            let pool: PgPool = pool.connect_with(access.options()).await.ok()?;
            let rows = sqlx::query_scalar::<_, String>(sql).fetch_all(&pool).await.ok();
            pool.close().await;
            rows
        })
    }

    /// Runs SQL that gives text, one value a row.
    pub(super) fn ask(&self, sql: &'static str) -> Vec<String> {
        self.try_ask(sql).unwrap_or_else(|| panic!("no answer to {sql}"))
    }

    /// Opens a transaction, runs SQL in it and leaves it open until the result is dropped, as a client that hangs.
    pub(super) fn hold(&self, sql: &'static str) -> sqlx::PgConnection {
        use sqlx::{Connection, Executor};
        let access = private_postgres::running(&self.project.home()).expect("it is ours").expect("it is up");
        self.runtime.block_on(async {
            let mut connection = sqlx::PgConnection::connect_with(&access.options()).await.expect("it answers");
            connection.execute("BEGIN").await.expect("it begins");
            connection.execute(sql).await.expect("it is right");
            connection
        })
    }

    /// Commits what [`Bench::hold`] left open.
    pub(super) fn release(&self, mut connection: sqlx::PgConnection) {
        use sqlx::Executor;
        self.runtime.block_on(connection.execute("COMMIT")).expect("it commits");
    }

    /// Waits until SQL gives a row, and gives the first value.
    pub(super) fn wait_for(&self, sql: &'static str) -> String {
        let first = || self.try_ask(sql)?.into_iter().next();
        wait_until(first).unwrap_or_else(|| panic!("nothing came of {sql}\n{}", self.story()))
    }

    /// Waits until a job is under way and has left a checkpoint; gives its attempt's token.
    pub(super) fn wait_for_checkpoint(&self) -> String {
        self.wait_for(
            "SELECT a.token FROM attempt a JOIN checkpoint USING (attempt_id) WHERE a.state = 'running' LIMIT 1",
        )
    }

    /// Curves and results of every job, in one text.
    pub(super) fn outcome(&self) -> String {
        self.ask(
            "SELECT concat_ws(' ', job_key, metric, step, samples_seen, value) FROM curve
             UNION ALL
             SELECT concat_ws(' ', job_key, dataset, metric, m.samples_seen, value, standard_error, count)
             FROM measurement m JOIN job USING (job_id)
             UNION ALL SELECT concat_ws(' ', job_key, state) FROM job ORDER BY 1",
        )
        .join("\n")
    }

    /// Asserts that every job is done, by one finished attempt, and nothing lives.
    pub(super) fn assert_each_done_once(&self) {
        let wrong = self.ask(
            "SELECT concat_ws(' ', left(job_key, 12), job.state, count(*) FILTER (WHERE a.state = 'finished'))
             FROM job LEFT JOIN attempt a USING (job_id) GROUP BY job_id
             HAVING job.state <> 'done' OR count(*) FILTER (WHERE a.state = 'finished') <> 1
                    OR count(*) FILTER (WHERE a.state IN ('intent', 'launched', 'running')) > 0",
        );
        assert!(wrong.is_empty(), "{wrong:?}\n{}", self.story());
    }

    /// The same, with the outcome of a run of [`SPEC`] that nothing happened to.
    pub(super) fn assert_done_once(&self) {
        self.assert_each_done_once();
        let (outcome, reference) = (self.outcome(), reference());
        if outcome != *reference {
            let here: Vec<&str> = outcome.lines().filter(|line| !reference.contains(line)).collect();
            let there: Vec<&str> = reference.lines().filter(|line| !outcome.contains(line)).collect();
            panic!("curves differ; only here: {here:?}; only without faults: {there:?}\n{}", self.story());
        }
    }

    /// What happened, for a test that failed.
    pub(super) fn story(&self) -> String {
        let events = self.try_ask(
            "SELECT concat_ws(' ', to_char(at, 'MI:SS.MS'), left(job_key, 8), left(token, 8), kind, detail)
             FROM event LEFT JOIN job USING (job_id) LEFT JOIN attempt USING (attempt_id) ORDER BY event_id",
        );
        let mut story = events.unwrap_or(vec!["no database".to_owned()]);
        for log in glob(&self.project.home().join("jobs"), "worker.log") {
            story.push(format!("--- {}\n{}", log.display(), fs::read_to_string(&log).unwrap_or_default()));
        }
        story.join("\n")
    }
}

impl Drop for Bench {
    /// No process of a test outlives it.
    fn drop(&mut self) {
        for folder in glob(&self.project.home().join("jobs"), "worker.log") {
            let token = folder.parent().and_then(Path::file_name).map(|name| name.to_string_lossy().into_owned());
            let Some(token) = token else { continue };
            kill_worker(&token, Signal::SIGKILL);
            kill_runner(&token);
        }
    }
}

/// A `sweep launch` that runs; killed when it is dropped.
pub(super) struct Launch {
    child: Option<Child>,
}

impl Launch {
    fn start(command: &mut Command) -> Launch {
        let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
        Launch { child: Some(child.expect("sweep starts")) }
    }

    pub(super) fn signal(&self, signal: Signal) {
        let child = self.child.as_ref().expect("it runs");
        kill(Pid::from_raw(child.id().cast_signed()), signal).expect("it is ours");
    }

    /// It may open no file, socket or pipe beyond so many.
    pub(super) fn limit_descriptors(&self, most: u32) {
        let pid = self.child.as_ref().expect("it runs").id().to_string();
        // It may have ended in the meantime.
        let _ = Command::new("prlimit").args(["--pid", &pid, &format!("--nofile={most}:")]).status();
    }

    pub(super) fn has_ended(&mut self) -> bool {
        self.child.as_mut().expect("it runs").try_wait().expect("it is ours").is_some()
    }

    /// Seconds of a core that it has used, without its children.
    pub(super) fn cpu_secs(&self) -> f64 {
        let pid = self.child.as_ref().expect("it runs").id();
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).expect("it runs");
        let fields: Vec<&str> = stat.rsplit(')').next().expect("fields").split_whitespace().collect();
        let ticks: f64 = fields[11..13].iter().map(|field| field.parse::<f64>().expect("a number")).sum();
        ticks / 100.0
    }

    /// Waits for its end.
    pub(super) fn wait(mut self) -> Output {
        self.child.take().expect("it runs").wait_with_output().expect("it ends")
    }

    /// `kill -9`.
    pub(super) fn kill(mut self) {
        let mut child = self.child.take().expect("it runs");
        child.kill().expect("it is ours");
        child.wait().expect("it ends");
    }
}

impl Drop for Launch {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Signals the worker of an attempt, found by its arguments.
pub(super) fn kill_worker(token: &str, signal: Signal) -> bool {
    let workers = pids().filter(|pid| {
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let mut arguments = line.split(|&byte| byte == 0);
        arguments.next().is_some_and(|program| program.ends_with(b"sweep-worker"))
            && arguments.any(|argument| argument == token.as_bytes())
    });
    workers.flat_map(|pid| kill(Pid::from_raw(pid), signal)).count() > 0
}

/// Kills the runners of a worker until none is left, those too that it starts meanwhile, and gives their number.
pub(super) fn kill_runner(token: &str) -> usize {
    sweep::backend::kill_marked(&format!("SWEEP_ATTEMPT={token}"))
}

/// Kills the one runner that a worker has now, and not the one that takes its place.
pub(super) fn kill_present_runner(token: &str) {
    let marker = format!("SWEEP_ATTEMPT={token}");
    let is_marked = |pid: &i32| {
        let block = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        block.split(|&byte| byte == 0).any(|entry| entry == marker.as_bytes())
    };
    let runners: Vec<i32> = pids().filter(is_marked).collect();
    let [runner] = runners[..] else { panic!("one runner, not {runners:?}") };
    kill(Pid::from_raw(runner), Signal::SIGKILL).expect("it lives");
}

fn pids() -> impl Iterator<Item = i32> {
    let entries = fs::read_dir("/proc").expect("this is Linux");
    entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
}

/// What the ranks of an attempt said, that of rank 0 first in file order.
pub(super) fn words_of_ranks(bench: &Bench, token: &str) -> String {
    let jobs = fs::read_dir(bench.path().join(".sweep/jobs")).expect("it is there");
    let logs = jobs.map(|job| job.expect("it is readable").path().join(token).join("stderr.log"));
    logs.filter_map(|log| fs::read_to_string(log).ok()).collect()
}

/// Processes of an attempt's runner, as `/proc` shows them: rank and id.
pub(super) fn ranks_of(token: &str) -> Vec<(String, i32)> {
    let rank = |pid: i32| {
        let block = fs::read(format!("/proc/{pid}/environ")).ok()?;
        let text = String::from_utf8_lossy(&block).into_owned();
        let value = |name: &str| text.split('\0').find_map(|entry| entry.strip_prefix(name).map(str::to_owned));
        let rank = value("RANK=").filter(|_| value("SWEEP_ATTEMPT=").as_deref() == Some(token))?;
        Some((rank, pid))
    };
    let mut found: Vec<_> = pids().filter_map(rank).collect();
    found.sort();
    found
}

/// Outcome of [`SPEC`] when nothing goes wrong.
fn reference() -> &'static String {
    static REFERENCE: OnceLock<String> = OnceLock::new();
    REFERENCE.get_or_init(|| {
        let bench = Bench::new(SPEC);
        bench.finish();
        bench.outcome()
    })
}

/// `synthetic-runner` belongs to another package, so it may not be there yet.
/// Whether clip-runner lies beside the program under test; if not, says that the test is skipped.
pub(super) fn clip_runner_is_built() -> bool {
    let is_built = Path::new(env!("CARGO_BIN_EXE_sweep")).with_file_name("clip-runner").exists();
    if !is_built {
        eprintln!("skipped: no clip-runner beside sweep (cargo build --workspace)");
    }
    is_built
}

fn ensure_synthetic_runner() {
    static BUILT: OnceLock<()> = OnceLock::new();
    BUILT.get_or_init(|| {
        let sweep = Path::new(env!("CARGO_BIN_EXE_sweep"));
        if sweep.with_file_name("synthetic-runner").exists() {
            return;
        }
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let target = sweep.parent().and_then(Path::parent).expect("a target folder");
        let mut build = Command::new(cargo);
        build.args(["build", "--package", "synthetic-runner", "--target-dir"]).arg(target);
        let built = build.current_dir(env!("CARGO_MANIFEST_DIR")).status().expect("cargo runs");
        assert!(built.success(), "synthetic-runner can't be built");
    });
}

/// Files of this name two folders below `root`.
fn glob(root: &Path, name: &str) -> Vec<PathBuf> {
    let inside =
        |folder: PathBuf| fs::read_dir(folder).into_iter().flatten().filter_map(|entry| Some(entry.ok()?.path()));
    inside(root.to_owned()).flat_map(inside).map(|folder| folder.join(name)).filter(|file| file.exists()).collect()
}
