//! Our own solver for two to ten parameters.
//!
//! Steps solve `(H + lambda (M + diag M)) s = -g` in the coordinates of [`Frame`]: g the gradient, H the exact second
//! derivatives, M the matrix of reweighted least squares (Holland and Welsch 1977), which lies above H where the law is
//! close to linear. With lambda large these are damped reweighted least squares (Levenberg 1944, Marquardt 1963), which
//! go down from anywhere; with lambda at zero they are Newton's, semi-smooth for Huber's loss (Qi and Sun 1993), which
//! end it in a few steps. Least absolute deviations are reached through Huber losses of falling delta.

use super::absolute;
use super::frame::{Frame, Local, Vector};
use super::linear_algebra::damped_step;
use super::{Ending, Minimum, Problem, Solver};
use crate::law::Scale;
use crate::objective::Loss;

/// Each Huber loss on the way to a small delta has this share of the delta before.
const DELTA_FALL: f64 = 0.2;
/// Deltas, as shares of the median residual, from which the vertex of least absolute deviations is sought.
const ABSOLUTE_LAST: [f64; 3] = [1e-4, 1e-6, 1e-9];
/// Huber losses of a delta below this share of the median residual are sought from the least absolute deviations.
const NEAR_ABSOLUTE: f64 = 1e-2;
/// Steps from a vertex to Huber's minimum, and the share of the objective between the two that may be left.
const VERTEX_STEPS: usize = 20;
const VERTEX_GAP: f64 = 1e-5;
/// The share of the objective that a Newton step may still promise at the end, and on the way.
const ENOUGH: f64 = 1e-12;
const ENOUGH_ON_THE_WAY: f64 = 1e-3;
/// Longest step of a parameter held by its logarithm.
const STEP_MAX: f64 = 4.0;
/// A parameter whose derivative is below this (root mean square, relative) may be on its way to nothing.
const FADING: f64 = 1e-2;
/// Where a parameter that goes to nothing is put: its derivative, relative to the response.
const NOTHING: f64 = 1e-18;

/// Damped Newton.
#[derive(Debug, Clone, Copy)]
pub struct Newton {
    /// Iterations after which it gives up.
    pub iterations_max: usize,
}

impl Default for Newton {
    fn default() -> Newton {
        Newton { iterations_max: 400 }
    }
}

impl Solver for Newton {
    fn minimise(&self, problem: &Problem<'_>, start: &[f64]) -> Minimum {
        let frame = Frame::new(problem);
        self.search(&frame, frame.enter(start), true)
    }
}

impl Newton {
    /// From `phi`. `cold`: nothing is known about it, so that robust losses are approached from wide ones.
    pub(super) fn search(self, frame: &Frame<'_>, phi: Vector, cold: bool) -> Minimum {
        let mut search = Search::new(frame, phi, frame.problem.objective.loss, self.iterations_max);
        let loss = search.loss;
        let near_absolute = matches!(loss, Loss::Huber(delta) if delta < NEAR_ABSOLUTE * search.typical_residual());
        if loss == Loss::Absolute || near_absolute {
            let mut delta = search.typical_residual();
            let mut vertex = false;
            search.turn_to(Loss::Absolute);
            for share in ABSOLUTE_LAST {
                if !search.approach(&mut delta, share, 0.0) {
                    break;
                }
                search.descend(ENOUGH);
                vertex = absolute::finish(&mut search);
                if vertex {
                    break;
                }
            }
            if near_absolute && vertex {
                search.leave_vertex(loss);
                return search.end();
            }
        } else if let (Some(last), true) = (loss.delta(), cold) {
            let mut delta = search.typical_residual();
            search.approach(&mut delta, 0.0, last);
        }
        if loss != Loss::Absolute {
            search.turn_to(loss);
            search.descend(ENOUGH);
        }
        search.end()
    }
}

/// A search under way.
pub(super) struct Search<'a> {
    pub(super) frame: &'a Frame<'a>,
    pub(super) phi: Vector,
    pub(super) local: Local,
    pub(super) loss: Loss,
    pub(super) ending: Ending,
    /// Parameters that went to nothing, and which way.
    bound: [Option<f64>; crate::law::PARAMETERS_MAX],
    released: usize,
    damping: f64,
    iterations: usize,
    iterations_max: usize,
}

impl<'a> Search<'a> {
    fn new(frame: &'a Frame<'a>, phi: Vector, loss: Loss, iterations_max: usize) -> Search<'a> {
        let local = frame.at(&phi, loss);
        Search {
            frame,
            phi,
            local,
            loss,
            ending: Ending::Unfinished,
            bound: [None; crate::law::PARAMETERS_MAX],
            released: 0,
            damping: 1e-2,
            iterations: 0,
            iterations_max,
        }
    }

    fn turn_to(&mut self, loss: Loss) {
        if self.loss != loss {
            self.loss = loss;
            self.local = self.frame.at(&self.phi, loss);
        }
    }

    /// Goes down Huber losses from `delta`, roughly, to `last` or to `share` of the median residual; leaves the last
    /// one in
    /// `delta`. Whether there was anything to do.
    fn approach(&mut self, delta: &mut f64, share: f64, last: f64) -> bool {
        let mut any = false;
        while *delta > last.max(share * self.typical_residual()) && *delta > 0.0 && delta.is_finite() {
            any = true;
            self.turn_to(self.loss.with_delta(*delta));
            self.descend(ENOUGH_ON_THE_WAY);
            *delta = (*delta * DELTA_FALL).min(self.typical_residual()).max(last);
        }
        any
    }

    /// From a vertex of least absolute deviations to the minimum of a Huber loss of small delta beside it. Huber's loss
    /// lies between `delta |r|` and `delta^2/2` less a row: where that is next to nothing the vertex itself will do.
    fn leave_vertex(&mut self, loss: Loss) {
        let most = self.iterations_max;
        self.iterations_max = most.min(self.iterations + VERTEX_STEPS);
        self.turn_to(loss);
        self.descend(ENOUGH);
        self.iterations_max = most;
        let total: f64 = self.frame.problem.weights.iter().sum();
        let gap = 0.5 * total * loss.delta().unwrap_or(0.0).powi(2);
        if self.ending == Ending::Unfinished && gap <= VERTEX_GAP * self.local.value {
            self.ending = Ending::Converged;
        }
    }

    /// Median of the residuals' sizes; NaN where there are none.
    fn typical_residual(&self) -> f64 {
        let theta = self.frame.leave(&self.phi);
        let mut slopes = [0.0; crate::law::PARAMETERS_MAX];
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

    /// Goes down until a Newton step promises less than `enough` of the objective.
    fn descend(&mut self, enough: f64) {
        self.ending = Ending::Unfinished;
        let k = self.frame.k;
        self.damping = self.damping.clamp(1e-6, 1e-2);
        while self.iterations < self.iterations_max && self.local.value.is_finite() {
            self.iterations += 1;
            let free: [bool; crate::law::PARAMETERS_MAX] = std::array::from_fn(|i| i < k && self.is_free(i));
            let Some((mut step, used)) = damped_step(&self.local, &free, k, self.damping) else { return };
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
                    continue;
                }
                self.ending = Ending::Converged;
                return;
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
                    return;
                }
            }
        }
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

    fn end(self) -> Minimum {
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
