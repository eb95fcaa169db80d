//! One damped Newton step after another, and what surrounds them: parameters that go to nothing and come back.
//! [`Newton`](super::Newton) says on which loss, and how far down.

use super::frame::{Frame, Local, Vector};
use super::linear_algebra::damped_step;
use super::{Ending, Minimum};
use crate::law::{PARAMETERS_MAX, Scale};
use crate::objective::Loss;

/// Longest step of a parameter held by its logarithm.
const STEP_MAX: f64 = 4.0;
/// A parameter whose derivative is below this (root mean square, relative) may be on its way to nothing.
const FADING: f64 = 1e-2;
/// Where a parameter that goes to nothing is put: its derivative, relative to the response.
const NOTHING: f64 = 1e-18;

/// A search under way.
pub(super) struct Search<'a> {
    pub(super) frame: &'a Frame<'a>,
    pub(super) phi: Vector,
    pub(super) local: Local,
    pub(super) loss: Loss,
    pub(super) ending: Ending,
    /// Parameters that went to nothing, and which way.
    bound: [Option<f64>; PARAMETERS_MAX],
    released: usize,
    damping: f64,
    pub(super) iterations: usize,
}

impl<'a> Search<'a> {
    pub(super) fn new(frame: &'a Frame<'a>, phi: Vector) -> Search<'a> {
        let loss = frame.problem.objective.loss;
        let local = frame.at(&phi, loss);
        Search {
            frame,
            phi,
            local,
            loss,
            ending: Ending::Unfinished,
            bound: [None; PARAMETERS_MAX],
            released: 0,
            damping: 1e-2,
            iterations: 0,
        }
    }

    pub(super) fn turn_to(&mut self, loss: Loss) {
        if self.loss != loss {
            self.loss = loss;
            self.local = self.frame.at(&self.phi, loss);
        }
    }

    /// Median of the residuals' sizes; NaN where there are none.
    pub(super) fn typical_residual(&self) -> f64 {
        let theta = self.frame.leave(&self.phi);
        let mut slopes = [0.0; PARAMETERS_MAX];
        let weights = self.frame.problem.weights;
        let mut sizes: Vec<f64> = (0..weights.len())
            .filter(|&row| weights[row] > 0.0)
            .map(|row| self.frame.row(&theta, row, &mut slopes).abs())
            .collect();
        if sizes.is_empty() {
            return f64::NAN;
        }
        let middle = sizes.len() / 2;
        *sizes.select_nth_unstable_by(middle, f64::total_cmp).1
    }

    /// Whether parameter `i` may move and does anything.
    pub(super) fn is_free(&self, i: usize) -> bool {
        !self.frame.problem.is_frozen(i)
            && self.bound[i].is_none()
            && self.local.majorant[i * self.frame.k + i] > f64::MIN_POSITIVE
    }

    /// Begins to go down the present loss; [`Search::step`] does.
    pub(super) fn begin(&mut self) {
        self.ending = Ending::Unfinished;
        self.damping = self.damping.clamp(1e-6, 1e-2);
    }

    /// Whether a step may be taken.
    pub(super) fn may_step(&self, iterations_max: usize) -> bool {
        self.iterations < iterations_max && self.local.value.is_finite()
    }

    /// One step down, or a shorter one next time; whether there is more to do: no longer where a Newton step promises
    /// less than `enough` of the objective.
    pub(super) fn step(&mut self, enough: f64) -> bool {
        let k = self.frame.k;
        self.iterations += 1;
        let free: [bool; PARAMETERS_MAX] = std::array::from_fn(|i| i < k && self.is_free(i));
        let Some((mut step, used)) = damped_step(&self.local, &free, k, self.damping) else { return false };
        self.damping = used;
        let limit = self.limit(&step);
        for s in &mut step[..k] {
            *s *= limit;
        }
        let promise = promise(&self.local, &step, k);
        let end = promise <= enough * self.local.value + self.local.rounding;
        if end && (used <= 1e-3 || promise <= f64::EPSILON * self.local.value) {
            if enough < 1e-6 {
                self.polish(&free, promise);
            }
            if self.release() {
                return true;
            }
            self.ending = Ending::Converged;
            return false;
        }
        let trial: Vector = std::array::from_fn(|i| self.phi[i] + step[i]);
        let there = self.frame.at(&trial, self.loss);
        let gained = self.local.value - there.value;
        if gained > 0.0 && gained > 1e-4 * promise.min(gained * 1e5) {
            let ratio = gained / promise;
            self.phi = trial;
            self.local = there;
            if ratio > 0.75 {
                self.damping *= 0.1;
            } else if ratio < 0.25 {
                self.damping *= 4.0;
            }
            self.damping = self.damping.max(1e-16);
            self.fade(&step);
        } else {
            self.damping = (8.0 * self.damping).max(1e-6);
            if self.damping > 1e16 {
                // Nothing lower can be told apart: a minimum if little was promised.
                if promise <= 1e-9 * self.local.value && !self.release() {
                    self.ending = Ending::Converged;
                }
                return false;
            }
        }
        true
    }

    /// The share of a step that keeps the response and the parameters in range.
    fn limit(&self, step: &Vector) -> f64 {
        let k = self.frame.k;
        let mut limit: f64 = 1.0;
        for (i, parameter) in self.frame.problem.law.parameters().iter().enumerate() {
            if parameter.scale == Scale::Log {
                limit = limit.min(STEP_MAX / step[i].abs().max(f64::MIN_POSITIVE));
            }
        }
        let mut change = 0.0;
        for i in 0..k {
            for j in 0..k {
                change += step[i] * step[j] * self.local.majorant[i * k + j];
            }
        }
        limit.min(STEP_MAX / (change.max(0.0) / self.local.stiffness).sqrt().max(f64::MIN_POSITIVE))
    }

    /// Newton steps judged by their gradients: the objective is flatter at its minimum than rounding lets one see.
    fn polish(&mut self, free: &[bool], mut promise: f64) {
        for _ in 0..3 {
            let Some((step, used)) = damped_step(&self.local, free, self.frame.k, 0.0) else { return };
            if used > 0.0 {
                return;
            }
            let trial: Vector = std::array::from_fn(|i| self.phi[i] + step[i]);
            let there = self.frame.at(&trial, self.loss);
            let Some((next, _)) = damped_step(&there, free, self.frame.k, 0.0) else { return };
            let after = self::promise(&there, &next, self.frame.k);
            let rounding = 1e-13 * self.local.value + self.local.rounding;
            if !(after < promise && there.value <= self.local.value + rounding) {
                return;
            }
            (self.phi, self.local, promise) = (trial, there, after);
        }
    }

    /// Sends a parameter that is fading and on its way out to where it does nothing, if that is no worse.
    fn fade(&mut self, step: &Vector) {
        let k = self.frame.k;
        for i in 0..k {
            if !self.is_free(i) || self.frame.problem.law.parameters()[i].scale != Scale::Log {
                continue;
            }
            let size = (self.local.majorant[i * k + i] / self.local.stiffness).sqrt();
            let way = -self.local.gradient[i].signum();
            if size > FADING || step[i] * way < 0.3 {
                continue;
            }
            let mut trial = self.phi;
            trial[i] += way * (size / NOTHING).ln().max(1.0);
            let there = self.frame.at(&trial, self.loss);
            let left = (there.majorant[i * k + i] / there.stiffness).sqrt();
            if there.value <= self.local.value && left < 1e-3 * size {
                self.phi = trial;
                self.local = there;
                self.bound[i] = Some(way);
            }
        }
    }

    /// Brings back a parameter that went to nothing if the objective falls towards its return; whether it did.
    fn release(&mut self) -> bool {
        let k = self.frame.k;
        for i in 0..k {
            let Some(way) = self.bound[i] else { continue };
            let size = (self.local.majorant[i * k + i] / self.local.stiffness).sqrt();
            let push = self.local.gradient[i] * way / (size * (self.local.stiffness * self.local.value).sqrt());
            if self.released < 3 && push > 1e-6 {
                let mut trial = self.phi;
                trial[i] -= way * (1e-3 / size).ln();
                let there = self.frame.at(&trial, self.loss);
                if there.value.is_finite() {
                    self.released += 1;
                    self.bound[i] = None;
                    self.phi = trial;
                    self.local = there;
                    return true;
                }
            }
        }
        false
    }

    pub(super) fn end(self) -> Minimum {
        let k = self.frame.k;
        let gradient_norm = (0..k)
            .filter(|&i| self.is_free(i))
            .map(|i| self.local.gradient[i].powi(2) / self.local.majorant[i * k + i])
            .fold(0.0, f64::max);
        let at_bound: Vec<usize> = (0..k).filter(|&i| self.bound[i].is_some()).collect();
        let ending = match self.ending {
            Ending::Converged if !at_bound.is_empty() => Ending::Bound,
            ending => ending,
        };
        let at_bound = if ending == Ending::Bound { at_bound } else { Vec::new() };
        let theta = self.frame.leave(&self.phi)[..k].to_vec();
        Minimum { theta, value: self.local.value, gradient_norm, iterations: self.iterations, ending, at_bound }
    }
}

/// What the quadratic model says `step` gains.
fn promise(local: &Local, step: &Vector, k: usize) -> f64 {
    let mut gain = 0.0;
    for i in 0..k {
        let bend: f64 = (0..k).map(|j| local.newton[i * k + j] * step[j]).sum();
        gain -= step[i] * (local.gradient[i] + 0.5 * bend);
    }
    gain
}
