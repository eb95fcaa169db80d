//! A sweep of many jobs on a backend that only pretends: the real driver, the real store, workers that are tasks, and
//! everything that may go wrong with them, drawn from a seed that is printed.
//!
//! `SWEEP_SCALE_JOBS` (default 1,000; `make torture-scale` takes 100,000) and `SWEEP_SCALE_SEED`.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use protocol::{Description, Event, FailureKind, Measurement, Resources};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use sweep::backend::{Backend, BackendError, LaunchRequest, Launched, Observed, WorkerId};
use sweep::plan::{Inputs, Plan, plan};
use sweep::schedule::driver::{Outcome, StopRequest, Sweep, drive};
use sweep::schedule::{Policy, Scheduler};
use sweep::spec::{self, Source};
use sweep::store::{Batch, Claim, End, Ending, Energy, NextRequest, Store};
use tokio::sync::{Notify, watch};

use crate::harness::Project;

const SLOTS: usize = 16;
/// Seconds without a heartbeat after which a worker that the backend denies is lost.
const STALE_SECS: f64 = 1.0;
/// Jobs that a worker runs one after another.
const JOBS_A_WORKER: u32 = 50;

/// Workers that are tasks of this process.
struct Simulated {
    /// What all workers share.
    world: Arc<World>,
}

struct World {
    store: Store,
    sweep_id: i64,
    rng: Mutex<ChaCha8Rng>,
    /// Workers that live, by name.
    alive: Mutex<BTreeSet<String>>,
    changed: Notify,
    faults: Mutex<BTreeMap<&'static str, u32>>,
    /// Deliveries of workers that had been given up, all of which the store has to refuse.
    late: AtomicUsize,
}

impl World {
    /// Whether something goes wrong that does so once in `times` times; counted by name.
    fn happens(&self, what: &'static str, times: u32) -> bool {
        let happens = self.rng.lock().expect("no panic").random_range(0..times) == 0;
        if happens {
            *self.faults.lock().expect("no panic").entry(what).or_default() += 1;
        }
        happens
    }

    fn is_alive(&self, worker: &str) -> bool {
        self.alive.lock().expect("no panic").contains(worker)
    }

    /// A worker's life. Whatever goes wrong, it ends without a word, as a process does that is killed.
    async fn work(self: Arc<World>, token: String, slot: usize) {
        let ended = self.jobs(&token, slot).await;
        self.alive.lock().expect("no panic").remove(&token);
        self.changed.notify_one();
        ended.unwrap_or_else(|error| panic!("the store refuses: {error:?}"));
    }

    async fn jobs(&self, token: &str, slot: usize) -> Result<(), sweep::store::StoreError> {
        if self.happens("worker dies before its claim", 100) {
            return Ok(());
        }
        let nonce = format!("{slot}-{token}");
        let mut claim = self.store.attempt_claim(token, &nonce, "node").await?;
        if claim.is_some() && self.happens("answer to a claim is lost", 100) {
            claim = self.store.attempt_claim(token, &nonce, "node").await?;
            assert!(claim.is_some(), "asking again gives the claim again");
        }
        for nth in 1.. {
            let Some(held) = claim else { return Ok(()) };
            if self.happens("worker dies in the middle of a job", 200) {
                self.store.events_store(&held, held.attempt_id, &Batch::new(&events(&held)[..2], 2), None).await?;
                return Ok(());
            }
            let is_late = self.happens("worker hangs until it is given up", 1000);
            if is_late {
                self.alive.lock().expect("no panic").remove(token);
                tokio::time::sleep(Duration::from_secs_f64(2.5 * STALE_SECS)).await;
            }
            let ending = if self.happens("runner crashes", 100) {
                let (kind, reason) = (FailureKind::Crash, "chance".to_owned());
                Ending::Failed { kind, reason, exit_code: Some(1), stderr_tail: String::new() }
            } else if self.happens("job stops at its time limit", 200) {
                Ending::Stopped { reason: Ending::TIME_LIMIT.to_owned() }
            } else {
                Ending::Finished { train_secs: 0.1, eval_secs: 0.0, peak_memory_bytes: None }
            };
            let next = NextRequest {
                sweep_id: self.sweep_id,
                token: format!("{token}-{nth}"),
                nonce: nonce.clone(),
                home: "/nowhere".to_owned(),
            };
            let next = (nth < JOBS_A_WORKER).then_some(&next);
            let batch = Batch::new(&events(&held), 4);
            let end = Some(End { ending: &ending, energy: Energy::default(), next });
            let mut stored = self.store.events_store(&held, held.attempt_id, &batch, end).await?;
            if self.happens("answer to an end is lost", 100) {
                let again = self.store.events_store(&held, held.attempt_id, &batch, end).await?;
                let job = |stored: Option<&sweep::store::Stored>| Some(stored?.next.as_ref()?.job_key.clone());
                assert_eq!(job(again.as_ref()), job(stored.as_ref()), "asking again gives the same job");
                stored = again;
            }
            if is_late && stored.is_none() {
                self.late.fetch_add(1, Ordering::Relaxed);
            }
            claim = stored.and_then(|stored| stored.next);
        }
        Ok(())
    }
}

/// What a runner says of a job: a curve, a measurement that only this job has, and the end.
fn events(claim: &Claim) -> [Event; 4] {
    let samples_seen = claim.spec.samples_seen;
    let measurement = Measurement {
        metric: "acc1".to_owned(),
        value: claim.spec.seed as f64,
        standard_error: None,
        chance: None,
        count: None,
    };
    [
        Event::Started {
            parameters: claim.parameters.cast_unsigned(),
            resumed_from_samples: 0,
            device: "none".into(),
            data: None,
        },
        Event::Step { step: 1, samples_seen, loss: 1.0 / (1.0 + claim.spec.seed as f64), metrics: BTreeMap::new() },
        Event::Eval {
            samples_seen,
            dataset: "made-up".to_owned(),
            measurements: vec![measurement],
            unmeasured: BTreeMap::new(),
        },
        Event::Finished { samples_seen, train_secs: 0.1, eval_secs: 0.0, peak_memory_bytes: None },
    ]
}

#[async_trait]
impl Backend for Simulated {
    fn name(&self) -> &'static str {
        "simulated"
    }

    fn host(&self) -> &'static str {
        "nowhere"
    }

    fn machine(&self) -> &'static str {
        "none"
    }

    fn slots(&self) -> usize {
        SLOTS
    }

    fn slot_resources(&self) -> Resources {
        Resources { device: "cpu".to_owned(), threads: 1 }
    }

    async fn launch(&self, requests: &[LaunchRequest]) -> Launched {
        let mut launched = Launched::default();
        for request in requests {
            let refused = || {
                let source = std::io::Error::other("chance");
                Some(BackendError::Launch { token: request.token.clone(), source })
            };
            if self.world.happens("launch is refused", 100) {
                launched.error = refused();
                break;
            }
            self.world.alive.lock().expect("no panic").insert(request.token.clone());
            tokio::spawn(Arc::clone(&self.world).work(request.token.clone(), request.slot));
            if self.world.happens("launch succeeds and its answer is lost", 100) {
                launched.error = refused();
                break;
            }
            launched.handles.push((request.token.clone(), request.token.clone()));
        }
        launched
    }

    async fn poll(&self, workers: &[WorkerId]) -> BTreeMap<String, Observed> {
        let of = |worker: &WorkerId| {
            if self.world.happens("backend can't tell", 50) {
                Observed::Unknown
            } else if self.world.is_alive(&worker.name) && !self.world.happens("backend denies what lives", 100) {
                Observed::Alive(worker.name.clone())
            } else {
                Observed::Gone
            }
        };
        workers.iter().map(|worker| (worker.name.clone(), of(worker))).collect()
    }

    async fn stop(&self, _: &WorkerId) -> Result<(), BackendError> {
        Ok(())
    }

    async fn kill_leftovers(&self, _: &str) {}

    async fn changed(&self) {
        self.world.changed.notified().await;
    }
}

fn many(jobs: usize) -> Plan {
    let seeds: Vec<String> = (0..jobs).map(|seed| seed.to_string()).collect();
    let text = format!(
        "name: many\nrunner: made-up\ngrid: {{model: cpu-w32-l2, samples_seen: 64, data_size: 500, seed: [{}]}}\n\
         recipe: {{global_batch: 64}}\n",
        seeds.join(", ")
    );
    let spec = spec::parse(&Source::new("many.yaml", &text)).expect("a good spec");
    let runner = Description {
        init: false,
        branches: false,
        rolls_back: false,
        accepts: BTreeMap::new(),
        name: "made-up".to_owned(),
        version: "1".to_owned(),
        protocol: protocol::PROTOCOL_VERSION,
        reads_data: false,
        devices: vec!["cpu".to_owned()],
        serve: true,
        ranks: false,
    };
    let inputs = Inputs {
        weights: BTreeMap::new(),
        runner,
        companion_runner: None,
        runner_path: "made-up".into(),
        pools: BTreeMap::new(),
        model_files: BTreeMap::new(),
        secs_per_sample: BTreeMap::new(),
        site: None,
        tuned: BTreeMap::new(),
        memory: None,
        base_dir: "/".into(),
    };
    plan(&spec, &inputs).expect("it can be planned")
}

#[test]
fn many_jobs_on_a_backend_that_errs_are_each_done_once() {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let seed = number("SWEEP_SCALE_SEED").unwrap_or_else(rand::random);
    let jobs = usize::try_from(number("SWEEP_SCALE_JOBS").unwrap_or(1000)).expect("a number of jobs");
    eprintln!("SWEEP_SCALE_SEED={seed} SWEEP_SCALE_JOBS={jobs}");
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    runtime.expect("a Tokio runtime can be built").block_on(run(jobs, seed));
}

async fn run(jobs: usize, seed: u64) {
    let project = Project::new();
    let store = project.store().await;
    let plan = many(jobs);
    let begun = Instant::now();
    let mut stored = store.sweep_begin(&plan).await.expect("it is stored");
    let world = Arc::new(World {
        store: project.store().await,
        sweep_id: stored.sweep_id,
        rng: Mutex::new(ChaCha8Rng::seed_from_u64(seed)),
        alive: Mutex::default(),
        changed: Notify::new(),
        faults: Mutex::default(),
        late: AtomicUsize::new(0),
    });
    let backend = Simulated { world: Arc::clone(&world) };
    let sweep = Sweep {
        sweep_id: stored.sweep_id,
        runner: "made-up".into(),
        base_dir: "/".into(),
        home: "/nowhere".into(),
        time_limit_secs: None,
        work_secs: 60,
        serve: true,
        spool_only: false,
        detach: false,
    };
    let (storing_sender, storing) = watch::channel(true);
    let rest = async {
        store.sweep_store_rest(&plan, &mut stored).await.expect("it is stored");
        let _ = storing_sender.send(false);
    };
    let (done_sender, done) = watch::channel(false);
    let driving = async {
        let mut launchers = 0;
        loop {
            launchers += 1;
            let policy = Policy {
                lost_max: u32::MAX,
                retries: u32::MAX,
                stalled_max: u32::MAX,
                backoff_secs: 0.02,
                backoff_max_secs: 0.2,
                intent_grace_secs: 0.5,
                stale_secs: STALE_SECS,
                silent_secs: 30.0,
                ..Policy::new(SLOTS, 0)
            };
            let (_request, requests) = watch::channel(StopRequest::None);
            let one = drive(store.clone(), &backend, Scheduler::new(policy), &sweep, storing.clone(), requests, |_| {});
            // A launcher that is dropped is one that is killed, at whatever it was waiting for.
            let life = Duration::from_millis(world.rng.lock().expect("no panic").random_range(200..5000));
            if let Ok(outcome) = Box::pin(tokio::time::timeout(life, one)).await {
                assert_eq!(outcome.expect("nothing is refused for good"), Outcome::Complete);
                let _ = done_sender.send(true);
                return launchers;
            }
        }
    };
    let statuses = async {
        let mut times = Vec::new();
        loop {
            tokio::time::sleep(Duration::from_millis(300)).await;
            let mut command = tokio::process::Command::from(project.sweep(&["status", "many", "--limit", "50"]));
            let asked = Instant::now();
            let output = command.output().await.expect("sweep runs");
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            times.push(asked.elapsed());
            if *done.borrow() {
                return times;
            }
        }
    };
    let ((), launchers, mut times) = tokio::join!(rest, driving, statuses);
    let secs = begun.elapsed().as_secs_f64();
    times.sort();
    let at = |share: f64| times[((times.len() - 1) as f64 * share).round() as usize].as_secs_f64();
    eprintln!(
        "{jobs} jobs in {secs:.1} s ({:.0}/s), {launchers} launchers; `sweep status` {} times: median {:.3} s, 99th percentile {:.3} s",
        jobs as f64 / secs,
        times.len(),
        at(0.5),
        at(0.99)
    );
    eprintln!(
        "{:#?}, {} late deliveries refused",
        world.faults.lock().expect("no panic"),
        world.late.load(Ordering::Relaxed)
    );
    let first = "SELECT concat(round(extract(epoch FROM min(claimed_at) - (SELECT min(created_at) FROM sweep))::numeric, 2), ' s')
                 FROM attempt";
    eprintln!("first job started after {}", ask(&project, first));
    check(&project, jobs, seed);
}

fn ask(project: &Project, sql: &str) -> String {
    project.ok(&["sql", "--format", "csv", sql]).lines().nth(1).unwrap_or_default().to_owned()
}

/// Each job done by one finished attempt, with its own numbers, and nothing alive.
fn check(project: &Project, jobs: usize, seed: u64) {
    for (what, sql) in [
        ("jobs done", "SELECT count(*) FROM job WHERE state = 'done'"),
        ("jobs in the sweep", "SELECT count(*) FROM sweep_job"),
        ("attempts finished", "SELECT count(*) FROM attempt WHERE state = 'finished'"),
        ("jobs finished", "SELECT count(DISTINCT job_id) FROM attempt WHERE state = 'finished'"),
        (
            "results of the job's own",
            "SELECT count(*) FROM measurement JOIN job USING (job_id) WHERE value = seed AND metric = 'acc1'",
        ),
        ("results", "SELECT count(*) FROM measurement"),
        ("losses", "SELECT count(*) FROM curve WHERE metric = 'loss'"),
    ] {
        assert_eq!(ask(project, sql), jobs.to_string(), "seed {seed}: {what}");
    }
    let alive = "SELECT count(*) FROM attempt WHERE state IN ('intent', 'launched', 'running')";
    assert_eq!(ask(project, alive), "0", "seed {seed}: attempts live");
}
