//! How long an attempt has given no sign of life, whatever clocks say.

use std::collections::BTreeMap;

use tokio::time::Instant;

use super::Notice;
use super::round::RoundDriver;
use crate::backend::Observed;
use crate::schedule::Input;
use crate::store::{LiveAttempt, OpenJob};

impl RoundDriver<'_> {
    /// A clock that was set back leaves signs of life in the future, which would count for as long as it was set back:
    /// what has not changed for a while is silent, whatever it says.
    pub(super) fn note_signs(&mut self, jobs: &[OpenJob]) {
        let before = std::mem::take(&mut self.signs);
        for live in jobs.iter().filter_map(|job| job.live.as_ref()) {
            let same = before.get(&live.token).filter(|(seen, _)| seen.total_cmp(&live.seen_secs).is_eq());
            let since = same.map_or_else(Instant::now, |&(_, since)| since);
            self.signs.insert(live.token.clone(), (live.seen_secs, since));
        }
    }

    pub(super) fn unchanged_secs(&self, live: &LiveAttempt) -> f64 {
        self.signs.get(&live.token).map_or(0.0, |(_, since)| since.elapsed().as_secs_f64())
    }

    /// Says once of each host that its attempts can't be seen and don't beat.
    pub(super) fn tell_of_silence(&mut self, now: f64, input: &Input, tell: &mut impl FnMut(Notice<'_>)) {
        let policy = self.scheduler.policy();
        let mut silent = BTreeMap::new();
        for attempt in input.jobs.iter().filter_map(|job| job.live.as_ref()) {
            let silence = now - attempt.seen_secs;
            if attempt.observed == Observed::Unknown && silence >= 3.0 * policy.stale_secs {
                silent.insert(attempt.host.clone(), silence);
            }
        }
        self.silent_hosts.retain(|host| silent.contains_key(host));
        for (host, silent_secs) in silent {
            if self.silent_hosts.insert(host.clone()) {
                tell(Notice::HostSilent { host: &host, silent_secs, limit_secs: policy.silent_secs });
            }
        }
    }
}
