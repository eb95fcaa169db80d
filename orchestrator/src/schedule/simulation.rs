//! The scheduler against a small world with faults: lost messages, stale looks, workers and launchers killed between
//! any two actions. Safety is checked at every step, liveness once the faults stop. A failure names its seed.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::{Action, AttemptPhase, AttemptView, Input, JobPhase, JobView, Policy, Scheduler};
use crate::backend::Observed;
use crate::store::History;

const JOBS: usize = 5;
const SLOTS: usize = 3;
/// The job that each goes on from, if any: a trunk of three pieces and a branch.
const PARENTS: [Option<usize>; JOBS] = [None, Some(0), None, Some(1), Some(0)];
const STALE: f64 = 2.0;
const SILENT: f64 = 20.0;

/// What the store keeps of an attempt.
#[derive(Debug, Clone)]
struct Attempt {
    job: usize,
    token: String,
    phase: AttemptPhase,
    end: Option<&'static str>,
    created: f64,
    ended: f64,
    stop_requested: bool,
    fence: u64,
    /// Last heartbeat.
    seen: f64,
}

/// A process of the backend: alive until it ends or is killed.
#[derive(Debug, Clone)]
struct Worker {
    token: String,
    /// Claim it believes in; `None` before it has claimed.
    fence: Option<u64>,
}

/// Store and backend, guarded as the SQL guards them.
#[derive(Debug, Default)]
struct World {
    now: f64,
    done: [bool; JOBS],
    failed: [bool; JOBS],
    fences: [u64; JOBS],
    attempts: Vec<Attempt>,
    workers: Vec<Worker>,
    results: BTreeMap<usize, u32>,
    tokens: u64,
}

impl World {
    fn live(&self, job: usize) -> Option<&Attempt> {
        self.attempts.iter().find(|attempt| attempt.job == job && attempt.end.is_none())
    }

    fn alive(&self, token: &str) -> bool {
        self.workers.iter().any(|worker| worker.token == token)
    }

    /// The sweep as a launcher sees it that recorded `own`; `deaf`: the backend doesn't answer.
    fn look(&self, own: &BTreeSet<String>, deaf: bool) -> Input {
        let view = |job: usize| {
            let past =
                |end| self.attempts.iter().filter(|past| past.job == job && past.end == Some(end)).count() as u32;
            let live = self.live(job).map(|attempt| AttemptView {
                token: attempt.token.clone(),
                worker: attempt.token.clone(),
                phase: attempt.phase,
                host: "here".to_owned(),
                created_secs: attempt.created,
                seen_secs: attempt.seen,
                own: own.contains(&attempt.token),
                stop_requested: attempt.stop_requested,
                observed: match self.alive(&attempt.token) {
                    _ if deaf => Observed::Unknown,
                    true => Observed::Alive("1:1".to_owned()),
                    false => Observed::Gone,
                },
            });
            JobView {
                job_id: i64::try_from(job).expect("a few"),
                phase: match &live {
                    _ if self.done[job] || self.failed[job] => JobPhase::Ended,
                    Some(attempt) if attempt.phase == AttemptPhase::Running => JobPhase::Running,
                    _ => JobPhase::Pending,
                },
                history: History {
                    crashes: past("failed"),
                    lost: past("lost"),
                    last_end_secs: self
                        .attempts
                        .iter()
                        .filter(|past| past.job == job && past.end.is_some())
                        .map(|past| past.ended)
                        .reduce(f64::max),
                    ..History::default()
                },
                orphaned: PARENTS[job]
                    .filter(|&parent| self.failed[parent])
                    .map(|parent| format!("job {parent} has failed")),
                live,
            }
        };
        let waits = |job: usize| PARENTS[job].is_some_and(|parent| !self.done[parent] && !self.failed[parent]);
        let open =
            (0..JOBS).filter(|&job| !(self.done[job] || self.failed[job] || waits(job)) || self.live(job).is_some());
        let taken = self.attempts.iter().filter(|attempt| attempt.end.is_none()).count();
        Input { jobs: open.map(view).collect(), free_slots: SLOTS.saturating_sub(taken), stop: false }
    }

    fn perform(&mut self, action: &Action, own: &mut BTreeSet<String>) {
        let now = self.now;
        match action {
            Action::Start { job_id } => {
                let job = usize::try_from(*job_id).expect("a row");
                let taken = self.attempts.iter().filter(|attempt| attempt.end.is_none()).count();
                if self.live(job).is_none() && !self.done[job] && !self.failed[job] && taken < SLOTS {
                    self.tokens += 1;
                    let token = format!("t{}", self.tokens);
                    own.insert(token.clone());
                    // Every other launcher is killed between the record and the launch.
                    if self.tokens.is_multiple_of(2) {
                        self.workers.push(Worker { token: token.clone(), fence: None });
                    }
                    let (phase, end) = (AttemptPhase::Intent, None);
                    self.attempts.push(Attempt {
                        job,
                        token,
                        phase,
                        end,
                        created: now,
                        ended: 0.0,
                        stop_requested: false,
                        fence: 0,
                        seen: now,
                    });
                }
            }
            Action::Launch { token } => {
                assert!(
                    self.attempts.iter().any(|attempt| attempt.token == *token),
                    "launched what was never recorded"
                );
                self.workers.push(Worker { token: token.clone(), fence: None });
            }
            Action::Adopt { token, .. } => self.change(token, |attempt| {
                if attempt.phase == AttemptPhase::Intent {
                    attempt.phase = AttemptPhase::Launched;
                }
            }),
            Action::MarkLost { token, .. } => self.change(token, |attempt| {
                if attempt.phase != AttemptPhase::Intent {
                    (attempt.end, attempt.ended) = (Some("lost"), now);
                }
            }),
            Action::CancelJob { token, .. } => unreachable!("nobody ends {token} by hand"),
            Action::Withdraw { token } => self.change(token, |attempt| {
                if attempt.phase != AttemptPhase::Running {
                    (attempt.end, attempt.ended) = (Some("stopped"), now);
                }
            }),
            Action::StopAttempt { token } => self.change(token, |attempt| attempt.stop_requested = true),
            Action::FailJob { job_id, .. } => {
                let job = usize::try_from(*job_id).expect("a row");
                if self.live(job).is_none() && !self.done[job] {
                    self.failed[job] = true;
                }
            }
        }
    }

    fn change(&mut self, token: &str, change: impl FnOnce(&mut Attempt)) {
        if let Some(attempt) = self.attempts.iter_mut().find(|attempt| attempt.token == token && attempt.end.is_none())
        {
            change(attempt);
        }
    }

    /// Workers that have claimed say that they live; under faults some heartbeats don't arrive.
    fn beat(&mut self, rng: &mut ChaCha8Rng, faults: bool) {
        for attempt in &mut self.attempts {
            let alive = self.workers.iter().any(|worker| worker.token == attempt.token && worker.fence.is_some());
            if alive && !(faults && rng.random_bool(0.3)) {
                attempt.seen = self.now;
            }
        }
    }

    /// One worker goes on: claims, or ends in one of the ways there are. `faults`: it may crash or be killed.
    fn advance(&mut self, rng: &mut ChaCha8Rng, faults: bool) {
        if self.workers.is_empty() {
            return;
        }
        let index = rng.random_range(0..self.workers.len());
        let Worker { token, fence } = self.workers[index].clone();
        if faults && rng.random_bool(0.1) {
            self.workers.remove(index);
            return;
        }
        let Some(row) = self.attempts.iter().position(|attempt| attempt.token == token) else { return };
        let job = self.attempts[row].job;
        let now = self.now;
        match fence {
            None => {
                let attempt = &mut self.attempts[row];
                if attempt.end.is_some() || attempt.phase == AttemptPhase::Running || self.done[job] || self.failed[job]
                {
                    self.workers.remove(index); // refused
                    return;
                }
                self.fences[job] += 1;
                (attempt.phase, attempt.fence) = (AttemptPhase::Running, self.fences[job]);
                self.workers[index].fence = Some(self.fences[job]);
            }
            Some(fence) => {
                self.workers.remove(index);
                let attempt = &mut self.attempts[row];
                if attempt.end.is_some() || self.fences[job] != fence {
                    return; // superseded: its writes change nothing
                }
                attempt.ended = now;
                if faults && rng.random_bool(0.2) {
                    attempt.end = Some("failed");
                } else {
                    attempt.end = Some("finished");
                    self.done[job] = true;
                    *self.results.entry(job).or_default() += 1;
                }
            }
        }
    }

    /// What must hold at every moment.
    fn check(&self) {
        for (job, parent) in PARENTS.into_iter().enumerate() {
            let live = self.attempts.iter().filter(|attempt| attempt.job == job && attempt.end.is_none()).count();
            assert!(live <= 1, "job {job} has {live} live attempts");
            assert!(self.results.get(&job).copied().unwrap_or(0) <= 1, "job {job} finished twice");
            let begun = self.attempts.iter().any(|attempt| attempt.job == job);
            assert!(!begun || parent.is_none_or(|parent| self.done[parent]), "job {job} did not wait");
            let current = self.workers.iter().filter(|worker| {
                worker.fence == Some(self.fences[job])
                    && self.attempts.iter().any(|attempt| attempt.token == worker.token && attempt.job == job)
            });
            assert!(current.count() <= 1, "job {job} has two workers under one claim");
        }
    }
}

/// One launcher: a scheduler and the memory of what it recorded, both lost when it is killed.
struct Launcher {
    scheduler: Scheduler,
    own: BTreeSet<String>,
    stale: Option<(f64, Input)>,
}

impl Launcher {
    fn new() -> Launcher {
        let policy = Policy {
            retries: 1000,
            lost_max: 1000,
            backoff_max_secs: 5.0,
            stale_secs: STALE,
            silent_secs: SILENT,
            ..Policy::new(SLOTS, 0)
        };
        Launcher { scheduler: Scheduler::new(policy), own: BTreeSet::new(), stale: None }
    }

    fn round(&mut self, world: &mut World, rng: &mut ChaCha8Rng, faults: bool) {
        let fresh = (world.now, world.look(&self.own, faults && rng.random_bool(0.2)));
        // Now and then a look arrives twice.
        let (now, input) = match self.stale.take() {
            Some(stale) if faults && rng.random_bool(0.1) => stale,
            _ => fresh.clone(),
        };
        self.stale = Some(fresh);
        for action in self.scheduler.step(now, &input) {
            if let Action::MarkLost { token, .. } = &action {
                let lost = input.jobs.iter().filter_map(|job| job.live.as_ref()).find(|live| live.token == *token);
                let lost = lost.expect("it was in the input");
                let silence = world.now - lost.seen_secs;
                let allowed = match lost.observed {
                    Observed::Gone | Observed::Ended { .. } => silence >= STALE,
                    Observed::Unknown => silence >= SILENT,
                    Observed::Exited => true,
                    Observed::Alive(_) | Observed::NoAnswer => false,
                };
                assert!(allowed, "{token} was given up after {silence} s: {:?}", lost.observed);
            }
            world.perform(&action, &mut self.own);
            world.check();
            if faults && rng.random_bool(0.05) {
                *self = Launcher::new(); // killed between two actions, and started again
                return;
            }
        }
    }
}

fn simulate(seed: u64) {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut world = World::default();
    let mut launchers = [Launcher::new(), Launcher::new()];
    for round in 0..600 {
        let faults = round < 300;
        world.now += rng.random_range(0.0..0.4);
        world.beat(&mut rng, faults);
        for launcher in &mut launchers {
            if rng.random_bool(0.7) {
                launcher.round(&mut world, &mut rng, faults);
            }
        }
        for _ in 0..rng.random_range(0..4) {
            world.advance(&mut rng, faults);
            world.check();
        }
    }
    assert!(world.done.iter().all(|&done| done), "not every job is done: {:?}", world.done);
    assert_eq!(world.results.values().sum::<u32>() as usize, JOBS);
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(300) })]

    #[test]
    fn faults_do_no_harm_and_end(seed in any::<u64>()) {
        simulate(seed);
    }
}
