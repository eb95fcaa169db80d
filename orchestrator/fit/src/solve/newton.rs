//! Our own solver for two to ten parameters, run by argmin's `Executor`: one of its iterations is one step.
//!
//! Steps solve `(H + lambda (M + diag M)) s = -g` in the coordinates of [`Frame`]: g the gradient, H the exact second
//! derivatives, M the matrix of reweighted least squares (Holland and Welsch 1977), which lies above H where the law is
//! close to linear. With lambda large these are damped reweighted least squares (Levenberg 1944, Marquardt 1963), which
//! go down from anywhere; with lambda at zero they are Newton's, semi-smooth for Huber's loss (Qi and Sun 1993), which
//! end it in a few steps. Least absolute deviations are reached through Huber losses of falling delta.

use argmin::core::{Error, KV, Problem as ArgminProblem, Solver as ArgminSolver, State as _, TerminationReason};

use super::absolute;
use super::descent::Search;
use super::frame::{Frame, Vector};
use super::method::Iterate;
use super::{Ending, Minimum, Problem, Solver};
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

/// argmin's part of a search.
type State = Iterate<Vector, (), ()>;

/// Damped Newton.
#[derive(Debug, Clone, Copy)]
pub struct Newton {
    /// Iterations after which it gives up.
    pub iterations_max: usize,
}

impl Newton {
    /// The usual one.
    pub const USUAL: Newton = Newton { iterations_max: 400 };
}

impl Default for Newton {
    fn default() -> Newton {
        Newton::USUAL
    }
}

impl Solver for Newton {
    fn minimise(&self, problem: &Problem<'_>, start: &[f64]) -> Minimum {
        self.search(problem, start, true)
    }

    /// A Huber loss is not approached through wider ones.
    fn refit(&self, problem: &Problem<'_>, best: &[f64]) -> Minimum {
        self.search(problem, best, false)
    }
}

impl Newton {
    /// `cold`: nothing is known about the start, so that robust losses are approached from wide ones.
    fn search(self, problem: &Problem<'_>, start: &[f64], cold: bool) -> Minimum {
        let frame = Frame::new(problem);
        let course = Course::new(&frame, frame.enter(start), cold, self.iterations_max);
        let executor = problem.method.executor(&frame, course);
        let run = executor.configure(|state| state.max_iters(self.iterations_max as u64)).run();
        let mut course = run.expect("a course has no errors of its own").solver;
        if course.phase != Phase::Over {
            // Time ran out, perhaps on the way, where another loss is gone down than the one asked for.
            course.search.turn_to(course.loss);
            course.search.ending = Ending::TimeLimit;
        }
        problem.method.ended(course.search.end())
    }
}

/// Which loss is gone down, and what comes after it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// A Huber loss on the way: to the loss itself, or to a stage of [`ABSOLUTE_LAST`].
    Way(Option<usize>),
    /// The last Huber loss of a stage, to its minimum; a vertex is sought from there.
    Stage(usize),
    /// From a vertex of least absolute deviations to the minimum of a Huber loss of small delta beside it.
    Vertex,
    /// The loss asked for.
    Last,
    /// None: the search has ended.
    Over,
}

/// A search under way, as argmin runs it: a step an iteration, and with the last step of a phase what leads to the
/// next.
struct Course<'a> {
    search: Search<'a>,
    loss: Loss,
    cold: bool,
    near_absolute: bool,
    phase: Phase,
    /// Of the Huber loss on the way.
    delta: f64,
    /// Iterations at which the search gives up, and at which its phase does.
    iterations_max: usize,
    phase_max: usize,
}

impl<'a> Course<'a> {
    fn new(frame: &'a Frame<'a>, phi: Vector, cold: bool, iterations_max: usize) -> Course<'a> {
        let loss = frame.problem.objective.loss;
        let search = Search::new(frame, phi);
        let near_absolute = matches!(loss, Loss::Huber(delta) if delta < NEAR_ABSOLUTE * search.typical_residual());
        Course {
            search,
            loss,
            cold,
            near_absolute,
            phase: Phase::Over,
            delta: 0.0,
            iterations_max,
            phase_max: iterations_max,
        }
    }

    fn begin(&mut self) {
        if self.loss == Loss::Absolute || self.near_absolute {
            self.delta = self.search.typical_residual();
            self.search.turn_to(Loss::Absolute);
            self.stage(0);
        } else if self.loss.delta().is_some() && self.cold {
            self.delta = self.search.typical_residual();
            if !self.way(None) {
                self.last();
            }
        } else {
            self.last();
        }
    }

    /// Goes down the Huber loss of the present delta, unless that is small enough; whether it was not.
    fn way(&mut self, stage: Option<usize>) -> bool {
        let enough = match stage {
            None => self.last_delta(),
            Some(stage) => ABSOLUTE_LAST[stage] * self.search.typical_residual(),
        };
        // No number: there are no residuals.
        let far = self.delta > enough.max(0.0) && self.delta > 0.0 && self.delta.is_finite();
        if far {
            self.search.turn_to(self.search.loss.with_delta(self.delta));
            self.go(Phase::Way(stage));
        }
        far
    }

    fn last_delta(&self) -> f64 {
        self.loss.delta().unwrap_or(0.0)
    }

    fn stage(&mut self, stage: usize) {
        if stage >= ABSOLUTE_LAST.len() || !self.way(Some(stage)) {
            self.last();
        }
    }

    fn last(&mut self) {
        if self.loss == Loss::Absolute {
            self.phase = Phase::Over;
        } else {
            self.search.turn_to(self.loss);
            self.go(Phase::Last);
        }
    }

    fn go(&mut self, phase: Phase) {
        self.search.begin();
        self.phase = phase;
    }

    /// What follows a phase that has ended.
    fn next(&mut self) {
        match self.phase {
            Phase::Way(stage) => {
                let last = if stage.is_none() { self.last_delta() } else { 0.0 };
                self.delta = (self.delta * DELTA_FALL).min(self.search.typical_residual()).max(last);
                if !self.way(stage) {
                    match stage {
                        Some(stage) => self.go(Phase::Stage(stage)),
                        None => self.last(),
                    }
                }
            }
            Phase::Stage(stage) => {
                if !absolute::finish(&mut self.search) {
                    self.stage(stage + 1);
                } else if self.near_absolute {
                    self.phase_max = self.iterations_max.min(self.search.iterations + VERTEX_STEPS);
                    self.search.turn_to(self.loss);
                    self.go(Phase::Vertex);
                } else {
                    self.phase = Phase::Over;
                }
            }
            Phase::Vertex => {
                // Huber's loss lies between `delta |r|` and `delta^2/2` less a row: where that is next to nothing the
                // vertex itself will do.
                let total: f64 = self.search.frame.problem.weights.iter().sum();
                let gap = 0.5 * total * self.last_delta().powi(2);
                if self.search.ending == Ending::Unfinished && gap <= VERTEX_GAP * self.search.local.value {
                    self.search.ending = Ending::Converged;
                }
                self.phase = Phase::Over;
            }
            Phase::Last | Phase::Over => self.phase = Phase::Over,
        }
    }

    /// On to a phase that has a step to take, or to the end; what argmin keeps of it.
    fn advance(&mut self, state: State) -> State {
        while self.phase != Phase::Over && !self.search.may_step(self.phase_max) {
            self.next();
        }
        let state = state.param(self.search.phi).cost(self.search.local.value);
        if self.phase != Phase::Over {
            return state;
        }
        state.terminate_with(match self.search.ending {
            Ending::Converged | Ending::Bound => TerminationReason::SolverConverged,
            Ending::TimeLimit => TerminationReason::Timeout,
            Ending::Unfinished if self.search.iterations >= self.iterations_max => TerminationReason::MaxItersReached,
            Ending::Unfinished => TerminationReason::SolverExit("nothing lower can be told apart".to_owned()),
        })
    }
}

/// The search knows the frame that argmin is given as its problem.
impl<'a> ArgminSolver<&'a Frame<'a>, State> for Course<'a> {
    fn name(&self) -> &'static str {
        "damped Newton"
    }

    fn init(&mut self, _: &mut ArgminProblem<&'a Frame<'a>>, state: State) -> Result<(State, Option<KV>), Error> {
        self.begin();
        Ok((self.advance(state), None))
    }

    fn next_iter(&mut self, _: &mut ArgminProblem<&'a Frame<'a>>, state: State) -> Result<(State, Option<KV>), Error> {
        let enough = if matches!(self.phase, Phase::Way(_)) { ENOUGH_ON_THE_WAY } else { ENOUGH };
        if !self.search.step(enough) {
            self.next();
        }
        Ok((self.advance(state), None))
    }
}
