//! Whether heartbeats can be judged: they are told by the database's clock, which people set.

use std::time::Duration;

use tokio::time::Instant;

/// A database clock that runs away from ours by so much between two looks was set.
const JUMP_SECS: f64 = 5.0;
/// How long heartbeats are not judged after that: all workers beat meanwhile.
const GRACE: Duration = Duration::from_secs(15);

/// Compares the database's clock with ours, which nobody sets (it is monotonic).
#[derive(Debug, Default)]
pub(super) struct ClockWatch {
    last: Option<(Instant, f64)>,
    distrust_until: Option<Instant>,
}

impl ClockWatch {
    /// Takes in one look: our clock and the database's, seconds since 1970.
    pub(super) fn look(&mut self, ours: Instant, database: f64) {
        if let Some((then, database_then)) = self.last.replace((ours, database)) {
            let drift = (database - database_then) - (ours - then).as_secs_f64();
            if drift.abs() > JUMP_SECS {
                self.distrust_until = Some(ours + GRACE);
            }
        }
        if self.distrust_until.is_some_and(|until| ours >= until) {
            self.distrust_until = None;
        }
    }

    /// Whether the database's clock was set a moment ago.
    pub(super) fn has_jumped(&self) -> bool {
        self.distrust_until.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_is_set_is_not_trusted_for_a_while_and_one_that_drifts_is() {
        let begun = Instant::now();
        for (jump, trusted) in [(0.0, true), (4.0, true), (-4.0, true), (3600.0, false), (-3600.0, false)] {
            let mut watch = ClockWatch::default();
            watch.look(begun, 1e9);
            let at = |secs: u64| begun + Duration::from_secs(secs);
            watch.look(at(1), 1e9 + 1.0 + jump);
            assert_eq!(!watch.has_jumped(), trusted, "{jump}");
            watch.look(at(10), 1e9 + 10.0 + jump);
            assert_eq!(!watch.has_jumped(), trusted, "{jump}: workers may not have beaten since");
            watch.look(at(16), 1e9 + 16.0 + jump);
            assert!(!watch.has_jumped(), "{jump}: they have by now");
        }
    }

    #[test]
    fn a_launcher_that_was_frozen_has_not_seen_a_jump() {
        let begun = Instant::now();
        let mut watch = ClockWatch::default();
        watch.look(begun, 1e9);
        watch.look(begun + Duration::from_hours(2), 1e9 + 7200.0);
        assert!(!watch.has_jumped());
    }
}
