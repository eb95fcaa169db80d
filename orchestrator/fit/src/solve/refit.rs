//! The same law and objective over a resample: a search from what the whole sample gave.

use super::frame::Frame;
use super::{Minimum, Newton, Problem};

/// Minimises from `best`, the minimum of a problem that differs little: a resample, or the next place of a profile.
/// Unlike [`Newton`] from anywhere, a Huber loss is not approached through wider ones.
pub fn refit(problem: &Problem<'_>, best: &[f64]) -> Minimum {
    let frame = Frame::new(problem);
    Newton::default().search(&frame, frame.enter(best), false)
}
