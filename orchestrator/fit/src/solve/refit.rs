//! The same law and objective over a resample: a search from what the whole sample gave.

use super::frame::Frame;
use super::{Minimum, Newton, Problem};

/// What refits begin from.
#[derive(Debug, Clone)]
pub struct Warm {
    theta: Vec<f64>,
}

impl Warm {
    /// From the minimum of `problem`, the whole sample's.
    pub fn new(problem: &Problem<'_>, minimum: &Minimum) -> Warm {
        let _ = problem;
        Warm { theta: minimum.theta.clone() }
    }
}

/// Minimises a resample of the problem that `warm` is of: the same rows under other weights, or other rows.
pub fn refit(problem: &Problem<'_>, warm: &Warm) -> Minimum {
    let frame = Frame::new(problem);
    Newton::default().search(&frame, frame.enter(&warm.theta), false)
}
