//! Workers without a database (`ship: spool`), in the driver's rounds: they are given fences before they start, and
//! what they have left is stored before anything is decided about them.

use super::round::RoundDriver;
use super::{DriveError, Notice};
use crate::backend::{BackendError, LaunchRequest};
use crate::schedule::Action;
use crate::store::{LiveAttempt, OpenJob, StoreError};
use crate::worker::ingest::{GrantError, SpooledAttempt};

impl RoundDriver<'_> {
    /// Stores what the workers of these jobs have left, and takes out those that have ended.
    pub(super) async fn ingest_spools(
        &mut self,
        jobs: &mut Vec<OpenJob>,
        tell: &mut impl FnMut(Notice<'_>),
    ) -> Result<(), StoreError> {
        let attempts: Vec<SpooledAttempt> =
            jobs.iter().filter_map(|job| job.live.as_ref()).filter(|live| live.spooled).map(spooled).collect();
        if attempts.is_empty() {
            return Ok(());
        }
        let ingested = self.ingest.look(&self.store, &attempts).await?;
        for problem in &ingested.problems {
            tell(Notice::ActionFailed(problem));
        }
        jobs.retain(|job| job.live.as_ref().is_none_or(|live| !ingested.ended.contains(&live.token)));
        Ok(())
    }

    /// Whether an attempt that is to be given up has ended properly after all, as what it has left says.
    pub(super) async fn had_ended(&mut self, action: &Action, jobs: &[OpenJob]) -> Result<bool, StoreError> {
        let (Action::MarkLost { token, .. } | Action::CancelJob { token, .. }) = action else { return Ok(false) };
        let mut live = jobs.iter().filter_map(|job| job.live.as_ref());
        match live.find(|live| live.token == *token).filter(|live| live.spooled) {
            Some(live) => self.ingest.finish(&self.store, &spooled(live)).await,
            None => Ok(false),
        }
    }

    /// Gives fences to the attempts of these requests, and leaves out those that have none to get.
    pub(super) async fn grant(&mut self, requests: &mut Vec<LaunchRequest>) -> Result<(), GrantError> {
        let tokens: Vec<String> = requests.iter().map(|request| request.token.clone()).collect();
        let granted = self.ingest.grant(&self.store, &tokens).await?;
        requests.retain(|request| granted.contains(&request.token));
        Ok(())
    }

    /// A folder that can't be written to is waited for as a worker that can't be started.
    pub(super) fn grant_failed(
        &mut self,
        error: GrantError,
        tell: &mut impl FnMut(Notice<'_>),
    ) -> Result<(), DriveError> {
        match error {
            GrantError::Store(error) => Err(error.into()),
            GrantError::File { token, source } => self.launch_failed(BackendError::Launch { token, source }, tell),
        }
    }
}

fn spooled(live: &LiveAttempt) -> SpooledAttempt {
    SpooledAttempt { token: live.token.clone(), folder: live.folder.clone().into(), running: live.state == "running" }
}
