//! Faults at random, many of them, while a sweep runs: `make torture`. The seed is printed; the same seed draws the
//! same faults, though not the same moments.
//!
//! `SWEEP_TORTURE_FAULTS` is how many (default 8, a short form for every test run), `SWEEP_TORTURE_SEED` the seed.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::bench::{Bench, Launch, kill_runner, kill_worker};
use crate::harness::transcript;

/// 30 jobs of 20 or 40 steps, a checkpoint every fifth.
const SPEC: &str = "\
name: tiny
runner: synthetic
grid: {model: [cpu-w32-l2, cpu-w64-l3, cpu-w96-l4], samples_seen: [1280, 2560], data_size: 500, seed: [0, 1, 2, 3, 4]}
recipe: {global_batch: 64, checkpoint_every: 320}
backend: {local: {slots: 3, threads_per_slot: 1}}
limits: {retries: 100}
";

/// So slow that faults meet jobs under way.
const SLOW: &str = "delay@30";

/// What may go wrong.
#[derive(Debug, Clone, Copy)]
enum Fault {
    KillLauncher,
    KillWorker,
    KillRunner,
    KillPostmaster,
    KillEverything,
    StopLauncher,
    FreezeWorker,
    FreezeLauncher,
    FreezePostmaster,
    SecondLauncher,
    CutCheckpoint,
    TornSpool,
    HangingClient,
    ClockBack,
    ClockForward,
    DatabaseFull,
    NoDescriptors,
}

const FAULTS: &[Fault] = &[
    Fault::KillLauncher,
    Fault::KillWorker,
    Fault::KillRunner,
    Fault::KillPostmaster,
    Fault::KillEverything,
    Fault::StopLauncher,
    Fault::FreezeWorker,
    Fault::FreezeLauncher,
    Fault::FreezePostmaster,
    Fault::SecondLauncher,
    Fault::CutCheckpoint,
    Fault::TornSpool,
    Fault::HangingClient,
    Fault::ClockBack,
    Fault::ClockForward,
    Fault::DatabaseFull,
    Fault::NoDescriptors,
];

#[test]
fn whatever_goes_wrong_every_job_is_done_once() {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let seed = number("SWEEP_TORTURE_SEED").unwrap_or_else(rand::random);
    let faults = number("SWEEP_TORTURE_FAULTS").unwrap_or(8);
    eprintln!("SWEEP_TORTURE_SEED={seed} SWEEP_TORTURE_FAULTS={faults}");
    let untouched = Bench::new(SPEC);
    untouched.finish();
    let reference = untouched.outcome();

    let mut torture = Torture { bench: Bench::new(SPEC), rng: ChaCha8Rng::seed_from_u64(seed), launches: Vec::new() };
    torture.launch();
    torture.bench.wait_for("SELECT 'one' FROM attempt WHERE state = 'running' AND samples_seen > 0");
    let mut rounds = 0;
    for nth in 0..faults {
        let fault = FAULTS[torture.rng.random_range(0..FAULTS.len())];
        if torture.is_done() {
            torture.again();
            rounds += 1;
        }
        eprintln!("{nth}: {fault:?}");
        torture.inject(fault);
        if torture.launches.is_empty() {
            torture.launch();
        }
        torture.wait_for_progress();
    }
    torture.calm();
    let Torture { bench, launches, .. } = torture;
    for launch in launches {
        let output = launch.wait();
        assert!(output.status.success(), "seed {seed}:\n{}\n{}", transcript(&output), bench.story());
    }
    bench.finish();
    check(&bench, &reference, seed, rounds);
}

/// The oracle, all of it by SQL and by what lies on the disk.
fn check(bench: &Bench, reference: &str, seed: u64, rounds: usize) {
    let wrong = bench.ask(
        "SELECT concat_ws(' ', left(job_key, 12), job.state, count(*) FILTER (WHERE a.state = 'finished'))
         FROM job LEFT JOIN attempt a USING (job_id) GROUP BY job_id
         HAVING job.state <> 'done' OR count(*) FILTER (WHERE a.state IN ('intent', 'launched', 'running')) > 0
                OR count(*) FILTER (WHERE a.state = 'finished') < 1",
    );
    assert!(wrong.is_empty(), "seed {seed}: {wrong:?}\n{}", bench.story());
    if rounds == 0 {
        let twice = "SELECT job_id::text FROM attempt WHERE state = 'finished' GROUP BY job_id HAVING count(*) > 1";
        assert!(bench.ask(twice).is_empty(), "seed {seed}: finished twice\n{}", bench.story());
    }
    let outcome = bench.outcome();
    let only = |one: &str, other: &str| -> Vec<String> {
        one.lines().filter(|line| !other.contains(line)).map(str::to_owned).collect()
    };
    assert!(
        outcome == reference,
        "seed {seed}: only here {:?}; only without faults {:?}\n{}",
        only(&outcome, reference),
        only(reference, &outcome),
        bench.story()
    );
    for worker in bench.ask("SELECT DISTINCT coalesce(worker, token) FROM attempt") {
        assert!(!kill_worker(&worker, Signal::SIGKILL), "seed {seed}: worker {worker} is left");
        assert_eq!(kill_runner(&worker), 0, "seed {seed}: processes of {worker} are left");
    }
    let temporary = files(&bench.path().join(".sweep/jobs"), |path| {
        path.parent().and_then(|folder| folder.file_name()).is_some_and(|name| name == "checkpoints")
            && path.file_name().is_some_and(|name| name.to_string_lossy().starts_with('.'))
    });
    assert!(temporary.is_empty(), "seed {seed}: {temporary:?}");
}

struct Torture {
    bench: Bench,
    rng: ChaCha8Rng,
    launches: Vec<Launch>,
}

impl Torture {
    fn launch(&mut self) {
        self.launches.push(self.bench.launch(SLOW));
    }

    fn is_done(&self) -> bool {
        let open = "SELECT 'open' FROM job WHERE state IN ('pending', 'running') LIMIT 1";
        self.bench.try_ask(open).is_some_and(|open| open.is_empty())
    }

    /// All jobs were done before all faults were: a third of them run again, from nothing.
    fn again(&mut self) {
        for launch in self.launches.drain(..) {
            launch.wait();
        }
        for checkpoints in files(&self.bench.path().join(".sweep/jobs"), |path| path.ends_with("checkpoints")) {
            fs::remove_dir_all(checkpoints).expect("it is ours");
        }
        self.bench.ask("TRUNCATE attempt CASCADE");
        self.bench.ask("UPDATE job SET state = 'pending', done_at = NULL, retries_granted = 0");
        self.launch();
        self.bench.wait_for("SELECT 'one' FROM attempt WHERE state = 'running' AND samples_seen > 0");
    }

    /// Until something was stored after the fault, or all is done.
    fn wait_for_progress(&self) {
        let stored = self.bench.wait_for("SELECT (SELECT coalesce(sum(acked_events), 0) FROM attempt)::text");
        let more = || {
            let now = self.bench.try_ask("SELECT (SELECT coalesce(sum(acked_events), 0) FROM attempt)::text")?;
            (now.first() != Some(&stored) || self.is_done()).then_some(())
        };
        super::bench::wait_until(more).unwrap_or_else(|| panic!("nothing goes on\n{}", self.bench.story()));
    }

    fn workers(&self) -> Vec<String> {
        let running = "SELECT coalesce(worker, token) FROM attempt WHERE state = 'running' ORDER BY attempt_id";
        self.bench.try_ask(running).unwrap_or_default()
    }

    fn one_worker(&mut self) -> Option<String> {
        let workers = self.workers();
        (!workers.is_empty()).then(|| workers[self.rng.random_range(0..workers.len())].clone())
    }

    /// How long what is frozen stays so.
    fn pause(&mut self) {
        let millis = self.rng.random_range(100..1500);
        std::thread::sleep(Duration::from_millis(millis));
    }

    /// What the database full, or a hanging client, leaves is taken back.
    fn calm(&self) {
        self.bench.ask("DROP TRIGGER IF EXISTS full_disk ON metric");
    }

    fn inject(&mut self, fault: Fault) {
        // A launcher lives, so a database that was killed comes back.
        self.bench.wait_for("SELECT 'up'");
        match fault {
            Fault::KillLauncher => self.launches.drain(..).for_each(Launch::kill),
            Fault::KillWorker => {
                if let Some(worker) = self.one_worker() {
                    kill_worker(&worker, Signal::SIGKILL);
                }
            }
            Fault::KillRunner => {
                if let Some(worker) = self.one_worker() {
                    kill_runner(&worker);
                }
            }
            Fault::KillPostmaster => {
                let _ = kill(self.bench.postmaster(), Signal::SIGKILL);
            }
            Fault::KillEverything => {
                let (workers, postmaster) = (self.workers(), self.bench.postmaster());
                self.launches.drain(..).for_each(Launch::kill);
                for worker in workers {
                    kill_worker(&worker, Signal::SIGKILL);
                }
                let _ = kill(postmaster, Signal::SIGKILL);
            }
            Fault::StopLauncher => {
                for launch in self.launches.drain(..) {
                    launch.signal(Signal::SIGTERM);
                    launch.wait();
                }
            }
            Fault::FreezeWorker => {
                if let Some(worker) = self.one_worker() {
                    kill_worker(&worker, Signal::SIGSTOP);
                    self.pause();
                    kill_worker(&worker, Signal::SIGCONT);
                }
            }
            Fault::FreezeLauncher => {
                self.launches.iter().for_each(|launch| launch.signal(Signal::SIGSTOP));
                self.pause();
                self.launches.iter().for_each(|launch| launch.signal(Signal::SIGCONT));
            }
            Fault::FreezePostmaster => {
                let postmaster = self.bench.postmaster();
                let _ = kill(postmaster, Signal::SIGSTOP);
                self.pause();
                let _ = kill(postmaster, Signal::SIGCONT);
            }
            Fault::SecondLauncher => self.launch(),
            Fault::CutCheckpoint => {
                let states = files(&self.bench.path().join(".sweep/jobs"), |path| path.ends_with("state.json"));
                if let Some(state) = states.last() {
                    let _ = fs::write(state, "{");
                }
            }
            Fault::TornSpool => {
                // Half a line, as a worker leaves it that dies while it writes.
                let running =
                    "SELECT concat_ws(' ', coalesce(worker, token), folder) FROM attempt WHERE state = 'running'
                               ORDER BY attempt_id LIMIT 1";
                let running = self.bench.try_ask(running).unwrap_or_default();
                if let Some((worker, folder)) = running.first().and_then(|row| row.split_once(' ')) {
                    kill_worker(worker, Signal::SIGKILL);
                    let spool = PathBuf::from(folder).join("events.jsonl");
                    let text = fs::read(&spool).unwrap_or_default();
                    let _ = fs::write(&spool, [&text[..], b"{\"event\":\"ste"].concat());
                }
            }
            Fault::HangingClient => {
                let held = self.bench.hold("SELECT job_id FROM job ORDER BY job_id LIMIT 3 FOR UPDATE");
                self.pause();
                drop(held);
            }
            Fault::ClockBack => self.shift_clock("2 min"),
            Fault::ClockForward => self.shift_clock("-2 min"),
            Fault::DatabaseFull => {
                self.bench.ask(
                    "CREATE OR REPLACE FUNCTION full_disk() RETURNS trigger LANGUAGE plpgsql AS
                     $$ BEGIN RAISE EXCEPTION 'could not extend file' USING ERRCODE = '53100'; END $$",
                );
                self.bench.ask("DROP TRIGGER IF EXISTS full_disk ON metric");
                self.bench
                    .ask("CREATE TRIGGER full_disk BEFORE INSERT ON metric FOR EACH ROW EXECUTE FUNCTION full_disk()");
                self.pause();
                self.calm();
            }
            Fault::NoDescriptors => {
                self.launches.iter().for_each(|launch| launch.limit_descriptors(5));
                self.pause();
                self.launches.iter().for_each(|launch| launch.limit_descriptors(1024));
            }
        }
    }

    /// To all that compares with it, the database's clock was set: every time that it has noted lies so much later.
    fn shift_clock(&self, by: &str) {
        let text = format!(
            "UPDATE attempt SET created_at = created_at + interval '{by}', launched_at = launched_at + interval '{by}',
                    claimed_at = claimed_at + interval '{by}', heartbeat_at = heartbeat_at + interval '{by}',
                    ended_at = ended_at + interval '{by}'"
        );
        self.bench.ask(Box::leak(text.into_boxed_str()));
    }
}

/// Files and folders below `root` that are meant, in the order of their paths.
fn files(root: &std::path::Path, meant: impl Fn(&std::path::Path) -> bool + Copy) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).into_iter().flatten().filter_map(Result::ok) {
            let path = entry.path();
            if meant(&path) {
                found.push(path.clone());
            }
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                folders.push(path);
            }
        }
    }
    found.sort();
    found
}
