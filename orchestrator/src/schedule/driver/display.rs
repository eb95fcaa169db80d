//! What a driver tells people of a sweep: totals, running jobs, jobs that ended. Looks no more often than it can
//! afford.

use std::collections::BTreeSet;
use std::time::Duration;

use tokio::time::Instant;

use super::Notice;
use crate::store::{ProgressFilter, Store, StoreError};

/// Between two looks at least.
const EVERY: Duration = Duration::from_millis(500);
/// All jobs that run are read each time.
const EVERY_A_JOB: Duration = Duration::from_millis(10);
const EVERY_MAX: Duration = Duration::from_secs(10);
/// A look may take one such part of the time.
const SHARE: u32 = 20;
/// Sweeps of more jobs are counted here alone; readers use what was counted.
const LARGE: i64 = 10_000;
/// Jobs that ended, told one by one in one notice at most; the totals count the rest.
const ENDS_MAX: i64 = 1000;

/// What was shown last, so that each end is told once.
#[derive(Debug, Default)]
pub(super) struct Display {
    /// The history was read up to here; `None`: not yet.
    read_to: Option<i64>,
    /// Entries behind `read_to` that were read: numbers are drawn before they are committed, so a smaller one may turn
    /// up after a larger one.
    read: BTreeSet<i64>,
    next: Option<Instant>,
}

impl Display {
    /// Shows the sweep if it is time to, or if it is the last time.
    pub(super) async fn show(
        &mut self,
        store: &Store,
        sweep_id: i64,
        last: bool,
        tell: &mut impl FnMut(Notice<'_>),
    ) -> Result<(), StoreError> {
        let begun = Instant::now();
        if !last && self.next.is_some_and(|next| begun < next) {
            return Ok(());
        }
        let ended = self.ended(store, sweep_id).await?;
        let totals = store.job_totals(sweep_id).await?;
        if totals.counts.total() > LARGE {
            store.sweep_note_counts(sweep_id, (!last).then_some(&totals.counts)).await?;
        }
        let running = store.job_progress(sweep_id, ProgressFilter::Running).await?;
        let ended = if ended.is_empty() {
            Vec::new()
        } else {
            store.job_progress(sweep_id, ProgressFilter::Rows(&ended)).await?
        };
        tell(Notice::Progress { totals: &totals, running: &running, ended: &ended });
        let rows = u32::try_from(running.len()).unwrap_or(u32::MAX);
        let pause = EVERY.max(begun.elapsed() * SHARE).max(EVERY_A_JOB.saturating_mul(rows).min(EVERY_MAX));
        self.next = Some(Instant::now() + pause);
        Ok(())
    }

    /// Rows of the jobs that ended since the last look.
    async fn ended(&mut self, store: &Store, sweep_id: i64) -> Result<Vec<i64>, StoreError> {
        let Some(read_to) = self.read_to else {
            self.read_to = Some(store.event_last().await?);
            return Ok(Vec::new());
        };
        let known = self.read.last().copied().unwrap_or(read_to);
        let found = store.event_job_ends(sweep_id, read_to, ENDS_MAX).await?;
        let fresh: Vec<(i64, i64)> = found.into_iter().filter(|(event, _)| !self.read.contains(event)).collect();
        // What was known a look ago is settled by now.
        self.read.retain(|&event| event > known);
        self.read_to = Some(known);
        self.read.extend(fresh.iter().map(|&(event, _)| event));
        Ok(fresh.into_iter().map(|(_, job)| job).collect())
    }
}
