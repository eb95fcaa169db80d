//! Faults at random on a real cluster while a sweep runs: `make torture`. The seed is printed; the same seed draws the
//! same faults, though not the same moments.
//!
//! `SWEEP_TORTURE_SLURM_FAULTS` is how many (default 5, a short form for every test run), `SWEEP_TORTURE_SEED` the
//! seed.

use std::collections::BTreeSet;
use std::fs;
use std::time::Duration;

use nix::sys::signal::Signal;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::{Cluster, SlurmBench, on_slurm, wait_until};
use crate::harness::transcript;
use crate::run::bench::{Bench, Launch, kill_runner, kill_worker};

/// 12 jobs of 20 or 40 steps, a checkpoint every fifth.
const SPEC: &str = "\
name: tiny
runner: synthetic
grid: {model: [cpu-w32-l2, cpu-w64-l3], samples_seen: [1280, 2560], data_size: 500, seed: [0, 1, 2]}
recipe: {global_batch: 64, checkpoint_every: 320}
backend: {local: {slots: 2, threads_per_slot: 1}}
limits: {retries: 100}
";
const OPTIONS: &str = "worker_time: 0s, jobs: 6";
/// So slow that faults meet jobs under way.
const SLOW: &str = "delay@100";

#[derive(Debug, Clone, Copy)]
enum Fault {
    KillWorker,
    KillRunner,
    KillLauncher,
    SecondLauncher,
    KillNode,
    RestartController,
    ForgetfulController,
    StopController,
    Preempt,
    CancelByHand,
    HoldAndRelease,
    DeafQueue,
    LyingSubmission,
}

const FAULTS: [Fault; 13] = [
    Fault::KillWorker,
    Fault::KillRunner,
    Fault::KillLauncher,
    Fault::SecondLauncher,
    Fault::KillNode,
    Fault::RestartController,
    Fault::ForgetfulController,
    Fault::StopController,
    Fault::Preempt,
    Fault::CancelByHand,
    Fault::HoldAndRelease,
    Fault::DeafQueue,
    Fault::LyingSubmission,
];

#[test]
fn whatever_goes_wrong_on_slurm_every_job_is_done_once() {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let seed = number("SWEEP_TORTURE_SEED").unwrap_or_else(rand::random);
    let faults = number("SWEEP_TORTURE_SLURM_FAULTS").unwrap_or(5);
    let Some(cluster) = Cluster::up(&[]) else { return };
    eprintln!("SWEEP_TORTURE_SEED={seed} SWEEP_TORTURE_SLURM_FAULTS={faults}");
    let untouched = Bench::new(SPEC);
    untouched.finish();
    let reference = untouched.outcome();

    let slurm = SlurmBench::on(cluster, Bench::new(&on_slurm(SPEC, OPTIONS)));
    let mut torture = Torture {
        slurm,
        rng: ChaCha8Rng::seed_from_u64(seed),
        launches: Vec::new(),
        handles: BTreeSet::new(),
        past: BTreeSet::new(),
    };
    torture.launch();
    let mut rounds = 0;
    for nth in 0..faults {
        let fault = *FAULTS.choose(&mut torture.rng).expect("there are some");
        if torture.is_done() {
            torture.check(&reference, seed);
            torture.again();
            rounds += 1;
        }
        torture.wait_for_a_job_under_way();
        eprintln!("{nth}: {fault:?}");
        torture.inject(fault);
        torture.launches.retain_mut(|launch| !launch.has_ended());
        if torture.launches.is_empty() {
            torture.launch();
        }
    }
    eprintln!("all {faults} faults were injected, in {} rounds", rounds + 1);
    torture.finish(seed);
    torture.check(&reference, seed);
}

/// Whether SQL gives a row.
fn is_so(bench: &Bench, sql: &'static str) -> bool {
    bench.try_ask(sql).is_some_and(|rows| !rows.is_empty())
}

struct Torture {
    slurm: SlurmBench,
    rng: ChaCha8Rng,
    launches: Vec<Launch>,
    /// Every task of ours that was seen in the queue: array's name and index.
    handles: BTreeSet<String>,
    /// Those of earlier rounds, whose attempts were thrown away.
    past: BTreeSet<String>,
}

impl Torture {
    fn launch(&mut self) {
        self.launches.push(self.slurm.launch(SLOW));
    }

    fn is_done(&self) -> bool {
        // Until they are stored, there are none.
        let done = "SELECT 'done' FROM job HAVING count(*) = 12 AND bool_and(state = 'done')";
        is_so(&self.slurm.bench, done)
    }

    /// Until a job is under way, or all are done. What was cancelled by hand is asked for again once nothing else is
    /// left.
    fn wait_for_a_job_under_way(&mut self) {
        let live = "SELECT 'live' FROM attempt WHERE state = 'running' AND samples_seen > 0 LIMIT 1";
        let ended = "SELECT 'ended' FROM job HAVING count(*) = 12 AND bool_and(state NOT IN ('pending', 'running'))";
        let known = || (is_so(&self.slurm.bench, live) || is_so(&self.slurm.bench, ended)).then_some(());
        wait_until(known).unwrap_or_else(|| panic!("nothing goes on\n{}", self.slurm.story()));
        if is_so(&self.slurm.bench, ended) && !self.is_done() {
            for launch in self.launches.drain(..) {
                launch.wait();
            }
            self.slurm.bench.sweep(&["retry", "tiny"]);
            self.launch();
        }
        self.note_tasks();
    }

    fn note_tasks(&mut self) {
        // Without a controller there is no queue to see.
        let seen = std::process::Command::new("squeue")
            .args(["--noheader", "--array", "--states=all", "--format", "%j %K"])
            .env("SLURM_CONF", self.slurm.cluster.conf())
            .output()
            .expect("Slurm is there");
        let text = String::from_utf8_lossy(&seen.stdout).into_owned();
        // An array whose waiting tasks were all cancelled is a record without a task.
        let ours = |line: &&str| line.starts_with("sweep-") && !line.ends_with(" N/A") && !self.past.contains(*line);
        let tasks = text.lines().filter(ours);
        self.handles.extend(tasks.map(str::to_owned));
    }

    /// All jobs were done before all faults were: they run again, from nothing.
    fn again(&mut self) {
        for launch in self.launches.drain(..) {
            launch.wait();
        }
        self.note_tasks();
        self.past.append(&mut self.handles);
        let bench = &self.slurm.bench;
        for job in fs::read_dir(bench.path().join(".sweep/jobs")).expect("it is there") {
            fs::remove_dir_all(job.expect("it is readable").path()).expect("it is ours");
        }
        bench.ask("TRUNCATE attempt CASCADE");
        bench.ask("UPDATE job SET state = 'pending', done_at = NULL, fence = 0, retries_granted = 0");
        self.launch();
    }

    fn one_worker(&mut self) -> Option<String> {
        let workers = self.slurm.bench.try_ask("SELECT token FROM attempt WHERE state = 'running' ORDER BY attempt_id");
        workers.unwrap_or_default().choose(&mut self.rng).cloned()
    }

    fn pause(&mut self, most_secs: f64) {
        let secs = self.rng.random_range(0.1..most_secs);
        std::thread::sleep(Duration::from_secs_f64(secs));
    }

    fn inject(&mut self, fault: Fault) {
        match fault {
            Fault::KillWorker => drop(self.one_worker().map(|worker| kill_worker(&worker, Signal::SIGKILL))),
            Fault::KillRunner => drop(self.one_worker().map(|worker| kill_runner(&worker))),
            Fault::KillLauncher => self.launches.drain(..).for_each(Launch::kill),
            Fault::SecondLauncher => self.launch(),
            Fault::KillNode => {
                let node = self.rng.random_range(1..=3_u32).to_string();
                self.slurm.cluster.run(&["kill-node", &node]);
                // Until it is missed, or not.
                self.pause(15.0);
                self.slurm.cluster.run(&["start-node", &node]);
            }
            Fault::RestartController => drop(self.slurm.cluster.run(&["restart-controller"])),
            Fault::ForgetfulController => drop(self.slurm.cluster.run(&["restart-controller", "--wipe"])),
            Fault::StopController => {
                self.slurm.cluster.run(&["stop-controller"]);
                self.pause(5.0);
                self.slurm.cluster.run(&["start-controller"]);
            }
            Fault::Preempt => {
                let urgent = ["--partition=high", "--exclusive", "--output=/dev/null", "--wrap", "sleep 1"];
                drop(self.slurm.on_cluster("sbatch", &urgent));
            }
            Fault::CancelByHand => {
                let ours = self.slurm.on_cluster("squeue", &["--noheader", "--array", "--format", "%i %j"]);
                let ours: Vec<&str> = ours.lines().filter(|line| line.contains(" sweep-")).collect();
                if let Some(task) = ours.choose(&mut self.rng).and_then(|line| line.split(' ').next()) {
                    drop(self.slurm.on_cluster("scancel", &[task]));
                }
            }
            Fault::HoldAndRelease => {
                let waiting = self.slurm.on_cluster("squeue", &["--noheader", "--array", "--states=PD", "--format=%i"]);
                for job in waiting.lines() {
                    drop(self.slurm.on_cluster("scontrol", &["hold", job]));
                }
                self.pause(2.0);
                for job in waiting.lines() {
                    drop(self.slurm.on_cluster("scontrol", &["release", job]));
                }
            }
            Fault::DeafQueue => {
                let deaf = self.slurm.wrappers.join("deaf");
                fs::write(&deaf, "").expect("the project can be written to");
                self.pause(5.0);
                fs::remove_file(deaf).expect("it is there");
            }
            Fault::LyingSubmission => {
                let lies = ["accepted-and-silent", "accepted-and-denied", "accepted-and-killed", "garbage", "away"];
                let lie = lies.choose(&mut self.rng).expect("there are some");
                fs::write(self.slurm.wrappers.join("lie"), lie).expect("the project can be written to");
            }
        }
        self.note_tasks();
    }

    /// To the end, however often what was cancelled by hand has to be asked for again.
    fn finish(&mut self, seed: u64) {
        let _ = fs::remove_file(self.slurm.wrappers.join("lie"));
        let mut said = String::new();
        for _ in 0..5 {
            if self.launches.is_empty() {
                self.launch();
            }
            for launch in self.launches.drain(..).collect::<Vec<_>>() {
                said = transcript(&launch.wait());
            }
            self.note_tasks();
            if self.is_done() {
                // Ours: Slurm holds an urgent job of this test's own back for good whose node was not ready for it.
                let states = "--states=PENDING,RUNNING,COMPLETING";
                let queue = || self.slurm.on_cluster("squeue", &["--noheader", "--array", states, "--format", "%j"]);
                let left = || (!queue().lines().any(|name| name.starts_with("sweep-"))).then_some(());
                wait_until(left).unwrap_or_else(|| panic!("seed {seed}: Slurm jobs are left\n{}", self.slurm.story()));
                return;
            }
            self.slurm.bench.sweep(&["retry", "tiny"]);
        }
        panic!("seed {seed}: not done\n{said}\n{}", self.slurm.story());
    }

    /// Each job done once, as without faults; and every task that was seen belongs to an attempt that is recorded.
    fn check(&self, reference: &str, seed: u64) {
        self.slurm.bench.assert_each_done_once();
        let outcome = self.slurm.bench.outcome();
        let here: Vec<&str> = outcome.lines().filter(|line| !reference.contains(line)).collect();
        let there: Vec<&str> = reference.lines().filter(|line| !outcome.contains(line)).collect();
        assert!(
            outcome == reference,
            "seed {seed}: only here {here:?}; only without {there:?}\n{}",
            self.slurm.story()
        );
        let attempts: BTreeSet<String> = self.slurm.bench.ask("SELECT token FROM attempt").into_iter().collect();
        for task in &self.handles {
            let (name, index) = task.split_once(' ').expect("both");
            let folder = self.slurm.bench.path().join(".sweep/slurm").join(name.trim_start_matches("sweep-"));
            let list = fs::read_to_string(folder.join("attempts")).unwrap_or_default();
            let token = index.parse::<usize>().ok().and_then(|index| list.lines().nth(index)?.split(' ').next());
            let explained = token.is_some_and(|token| attempts.contains(token));
            assert!(explained, "seed {seed}: nothing explains task {task}\n{}", self.slurm.story());
        }
    }
}
