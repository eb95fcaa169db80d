//! Measures the checkpoints of a sweep as they are reported, until that sweep has no open job and every one of them is
//! measured.
//!
//! It keeps nothing that a killed process would lose: what is to be measured is found from the checkpoints that count,
//! by the rule that a resumed job goes by, and is recorded with its jobs in one transaction, before they can start.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::companions::Question;
use super::drive::{Driving, Requests, drive_jobs};
use super::evaluate::CONTRADICTION;
use super::launch::Driven;
use super::output::{Failure, say};
use super::progress::{self, Progress};
use crate::plan::Plan;
use crate::schedule::driver::Outcome;
use crate::store::{CheckpointOf, EndListener, StateCounts, Store, StoreError};

/// Between two looks for checkpoints, if nothing is heard before.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// After a hint, for others that come with it.
const HINT_PAUSE: Duration = Duration::from_millis(200);

/// Or so many times what the last look took.
const LOOK_SHARE: u32 = 20;

/// What is known of the checkpoints of a sweep that is followed.
pub(super) struct Following<'a> {
    question: &'a Question,
    /// The sweep that is followed.
    sweep_id: i64,
    /// Whether this process still trains it.
    training: Option<&'a AtomicBool>,
    /// Checkpoints that have been looked at, by attempt and samples seen.
    known: Vec<(i64, i64)>,
    /// Of which so many were not kept.
    gone: usize,
    /// What to show in the end.
    pub(super) seen: Seen,
}

/// Whose measurements there are, of which data sets, and where.
#[derive(Default)]
pub(super) struct Seen {
    pub(super) jobs: Vec<String>,
    pub(super) datasets: BTreeSet<String>,
    pub(super) places: BTreeSet<(String, i64)>,
}

/// Why a look failed.
enum LookError {
    /// The database, which may come back.
    Store(StoreError),
    /// Anything else.
    Other(Failure),
}

impl From<StoreError> for LookError {
    fn from(error: StoreError) -> LookError {
        LookError::Store(error)
    }
}

impl From<LookError> for Failure {
    fn from(error: LookError) -> Failure {
        match error {
            LookError::Store(error) => error.into(),
            LookError::Other(failure) => failure,
        }
    }
}

impl<'a> Following<'a> {
    /// `training`: whether a driver of the same process still stores and trains jobs of the sweep.
    pub(super) fn new(question: &'a Question, sweep_id: i64, training: Option<&'a AtomicBool>) -> Following<'a> {
        Following { question, sweep_id, training, known: Vec::new(), gone: 0, seen: Seen::default() }
    }

    /// Follows to the end. `launched` says how large the models are that are to come, where that is known.
    pub(super) async fn run(
        &mut self,
        launched: Option<&Plan>,
        requests: &Requests,
        progress: &mut Progress,
    ) -> Result<Driven, Failure> {
        let store = Store::connect().await?;
        let mut plan =
            self.question.plan_of(launched.and_then(|plan| Question::largest(&plan.jobs)).into_iter().collect());
        super::slurm::fit_to_cluster(&mut plan).await?;
        plan.jobs.clear();
        let sweep_id = self.add(&store, &plan, &[]).await?;
        let more = self.look(&store).await?;
        let idle = !more && store.job_first_open(sweep_id).await?.is_none();
        let outcome = if idle {
            Outcome::Complete
        } else {
            let what = format!("checkpoints of `{}` as they come", self.question.sweep);
            let driving = Driving { plan: &plan, sweep_id, aside: true, detach: false, what };
            let feed = async { if more { self.look_until_all_is_there(store.clone()).await } else { Ok(()) } };
            let (outcome, failure) = Box::pin(drive_jobs(&driving, &store, requests, progress, feed)).await?;
            if let Some(failure) = failure {
                return Err(failure);
            }
            outcome?
        };
        if self.gone > 0 {
            let (gone, all) = (self.gone, self.known.len());
            say(&format!("{gone} of {all} checkpoints were not kept long enough: they are left out"));
        }
        let reached = if idle { StateCounts::default() } else { progress.reached() };
        Ok(Driven { sweep_id, idle, outcome, reached })
    }

    async fn look_until_all_is_there(&mut self, mut store: Store) -> Result<(), Failure> {
        let mut hints: Option<EndListener> = None;
        loop {
            if hints.is_none() {
                // Before the look, so that nothing falls between the two.
                hints = store.listen_for_checkpoints().await.ok();
            }
            let begun = Instant::now();
            let looked = self.look(&store).await;
            // Of a large sweep a look takes its time: it is to take a small share.
            let pause = begun.elapsed() * LOOK_SHARE;
            match looked {
                Ok(true) => {}
                Ok(false) => return Ok(()),
                Err(LookError::Store(error)) if error.is_transient() => {
                    hints = None;
                    if let Ok(again) = Store::connect().await {
                        store = again;
                    }
                }
                Err(error) => {
                    // Said at once: what is stored goes on, and training may take days.
                    let failure = Failure::from(error);
                    progress::interject(&format!(
                        "no more checkpoints are measured in this launch: {}",
                        failure.message()
                    ));
                    return Err(failure);
                }
            }
            let hint = async {
                match &mut hints {
                    Some(listener) => listener.next().await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = sleep(LOOK_EVERY.max(pause)) => {}
                heard = hint => {
                    if heard.is_err() {
                        hints = None;
                    }
                    sleep(HINT_PAUSE.max(pause)).await;
                }
            }
        }
    }

    /// Adds what measures the checkpoints that were not there at the last look. Whether more may come.
    async fn look(&mut self, store: &Store) -> Result<bool, LookError> {
        // Before the checkpoints: those of a job that has ended are all there.
        let training = self.training.is_some_and(|training| training.load(Ordering::SeqCst));
        let more = training || store.job_first_open(self.sweep_id).await?.is_some();
        let found = store.companion_checkpoints(self.sweep_id, false, &self.known).await?;
        let places: Vec<(i64, i64)> = found.iter().map(|found| (found.attempt_id, found.samples_seen)).collect();
        let (there, gone): (Vec<CheckpointOf>, Vec<CheckpointOf>) =
            found.into_iter().partition(|found| Path::new(&found.path).exists());
        if !there.is_empty() {
            let measuring = self.question.measuring(store, &there).await.map_err(LookError::Other)?;
            self.add(store, &measuring.plan, &measuring.companions).await?;
            self.seen.jobs.extend(measuring.shown);
            self.seen.datasets.extend(measuring.datasets);
            self.seen.places.extend(measuring.places.into_iter().flatten());
        }
        self.gone += gone.len();
        self.known.extend(places);
        Ok(more)
    }

    async fn add(&self, store: &Store, plan: &Plan, companions: &[crate::store::Companion]) -> Result<i64, LookError> {
        store
            .companion_add(plan, companions)
            .await?
            .map_err(|contradiction| LookError::Other(Failure::failed(contradiction).hint(CONTRADICTION)))
    }
}
