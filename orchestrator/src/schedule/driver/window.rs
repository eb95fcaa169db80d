//! Where in the plan a launcher looks for jobs to start.

use std::time::Duration;

use tokio::time::Instant;

use super::round::RoundDriver;
use crate::store::{OpenJob, StoreError};

/// Jobs of the plan that are looked at in one go for one to start.
const WINDOW_ROWS: i64 = 200;
/// Windows behind that one which are looked at in a round where it holds too few.
const WINDOWS_AHEAD: usize = 8;
/// Between two looks through the whole sweep for jobs that came back, once its end has been reached; or so many times
/// what such a look takes.
const FULL_LOOK_EVERY: Duration = Duration::from_secs(1);
const FULL_LOOK_SHARE: u32 = 20;

impl RoundDriver<'_> {
    /// Jobs that may be started, in plan order: at least `room` of them if there are so many, and whether every job of
    /// the sweep has ended. The cursor goes past what has ended; jobs that came back behind it are found when the end
    /// of the plan is reached.
    pub(super) async fn next_jobs(&mut self, room: usize) -> Result<(Vec<OpenJob>, bool), StoreError> {
        let sweep_id = self.sweep.sweep_id;
        let rows = WINDOW_ROWS + 2 * i64::try_from(self.backend.slots()).unwrap_or(0);
        let limit = i64::try_from(room * 4).unwrap_or(i64::MAX).max(64);
        loop {
            let window = self.store.job_window(sweep_id, self.cursor, rows, limit).await?;
            match (window.first_open, window.reached) {
                (Some(first), reached) => {
                    self.cursor = first - 1;
                    let mut jobs = window.jobs;
                    if jobs.len() < room {
                        self.look_ahead(reached, room, rows, limit, &mut jobs).await?;
                    }
                    return Ok((jobs, false));
                }
                (None, Some(reached)) => self.cursor = reached,
                (None, None) => {
                    let begun = Instant::now();
                    if self.full_look_at.is_some_and(|at| begun < at) {
                        return Ok((Vec::new(), false));
                    }
                    let first = self.store.job_first_open(sweep_id).await?;
                    self.full_look_at = Some(Instant::now() + FULL_LOOK_EVERY.max(begun.elapsed() * FULL_LOOK_SHARE));
                    let Some(first) = first else { return Ok((Vec::new(), true)) };
                    self.cursor = first - 1;
                }
            }
        }
    }

    /// Where the window behind the cursor holds too few jobs to start (they run, wait for their parents, or have ended
    /// behind one that takes long), the plan behind it is gone through too, some windows a round, again from the window
    /// when its end is reached.
    async fn look_ahead(
        &mut self,
        reached: Option<i32>,
        room: usize,
        rows: i64,
        limit: i64,
        jobs: &mut Vec<OpenJob>,
    ) -> Result<(), StoreError> {
        self.ahead = self.ahead.max(reached);
        // Windows with jobs are looked at again in the next round, until these have been started.
        let mut first = None;
        for _ in 0..WINDOWS_AHEAD {
            let Some(after) = self.ahead else { break };
            let window = self.store.job_window(self.sweep.sweep_id, after, rows, limit).await?;
            self.ahead = window.reached;
            if !window.jobs.is_empty() {
                first.get_or_insert(after);
                jobs.extend(window.jobs);
            }
            if jobs.len() >= room {
                break;
            }
        }
        self.ahead = first.or(self.ahead);
        Ok(())
    }
}
