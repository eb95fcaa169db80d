//! How searches are made: by which solver, for how long, and who is told of their progress.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use argmin::core::observers::{Observe, ObserverMode};
use argmin::core::{Error, Executor, IterState, KV, Solver as ArgminSolver, State};
use serde::{Serialize, Serializer};

use super::{Ending, Lbfgs, Minimum, Newton, Solver, TrustRegion};

/// Which solver. All are run by argmin's `Executor`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum SolverKind {
    /// [`Newton`]: ours, damped, on exact second derivatives. Names bounds, and ends at vertices of absolute losses.
    #[default]
    Newton,
    /// [`Lbfgs`]: argmin's L-BFGS on exact gradients.
    Lbfgs,
    /// [`TrustRegion`]: argmin's trust region on exact second derivatives.
    TrustRegion,
}

impl SolverKind {
    /// All of them, the default first.
    pub const ALL: [SolverKind; 3] = [SolverKind::Newton, SolverKind::Lbfgs, SolverKind::TrustRegion];

    /// As on the command line.
    pub fn as_str(self) -> &'static str {
        match self {
            SolverKind::Newton => "newton",
            SolverKind::Lbfgs => "lbfgs",
            SolverKind::TrustRegion => "trust-region",
        }
    }

    /// With its usual settings.
    pub fn solver(self) -> &'static dyn Solver {
        match self {
            SolverKind::Newton => &Newton::USUAL,
            SolverKind::Lbfgs => &Lbfgs,
            SolverKind::TrustRegion => &TrustRegion,
        }
    }
}

impl fmt::Display for SolverKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Serialize for SolverKind {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl FromStr for SolverKind {
    type Err = String;

    fn from_str(text: &str) -> Result<SolverKind, String> {
        SolverKind::ALL
            .into_iter()
            .find(|kind| kind.as_str() == text)
            .ok_or_else(|| "allowed are newton, lbfgs and trust-region".to_owned())
    }
}

/// A step that a search has taken.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Step {
    /// Iterations of this run of the solver, this one included.
    pub iteration: u64,
    /// What is minimised, where it is now: on the way to a robust loss, a wider one; of argmin's own solvers a share of
    /// the objective where the run began.
    pub cost: f64,
}

/// Who watches searches. Searches are made by many threads at once, and so are these calls.
pub trait Watch: Send + Sync {
    /// What is left of the time that searches may take, all together; `None`: as long as they need. Asked when a search
    /// begins; the engine itself knows no clock, and argmin's is read only where there is a limit.
    fn time_left(&self) -> Option<Duration> {
        None
    }

    /// A search has taken a step.
    fn step(&self, _step: &Step) {}

    /// A search has ended.
    fn ended(&self, _minimum: &Minimum) {}
}

/// How searches are made. Two that differ in who watches are equal: that changes no result, unless time runs out.
#[derive(Clone, Default)]
pub struct Method {
    /// By which solver.
    pub solver: SolverKind,
    watched: Option<Arc<Watched>>,
}

struct Watched {
    watch: Box<dyn Watch>,
    /// Whether time ran out for a search.
    cut: AtomicBool,
}

impl Method {
    /// By [`Newton`], unwatched.
    pub const USUAL: &'static Method = &Method { solver: SolverKind::Newton, watched: None };

    /// By a solver, unwatched.
    pub fn by(solver: SolverKind) -> Method {
        Method { solver, watched: None }
    }

    /// By a solver, watched. Clones share the watcher, and its time.
    pub fn watched(solver: SolverKind, watch: impl Watch + 'static) -> Method {
        Method { solver, watched: Some(Arc::new(Watched { watch: Box::new(watch), cut: AtomicBool::new(false) })) }
    }

    /// Whether time ran out for a search so far, of this method or of a clone.
    pub fn was_cut(&self) -> bool {
        self.watched.as_ref().is_some_and(|watched| watched.cut.load(Ordering::Relaxed))
    }

    pub(super) fn ended(&self, minimum: Minimum) -> Minimum {
        if let Some(watched) = &self.watched {
            watched.cut.fetch_or(minimum.ending == Ending::TimeLimit, Ordering::Relaxed);
            watched.watch.ended(&minimum);
        }
        minimum
    }

    /// An executor with the time that is left and the watcher as an observer; unwatched, it reads no clock and keeps no
    /// records.
    pub(super) fn executor<O, S, P, G, H>(&self, problem: O, solver: S) -> Executor<O, S, Iterate<P, G, H>>
    where
        S: ArgminSolver<O, Iterate<P, G, H>>,
        P: Clone,
        Iterate<P, G, H>: State<Float = f64>,
    {
        let mut executor = Executor::new(problem, solver).ctrlc(false).timer(false);
        if let Some(watched) = &self.watched {
            if let Some(left) = watched.watch.time_left() {
                executor = executor.timeout(left);
            }
            executor = executor.add_observer(Relay(Arc::clone(watched)), ObserverMode::Always);
        }
        executor
    }
}

/// argmin's state of a search.
pub(super) type Iterate<P, G, H> = IterState<P, G, (), H, (), f64>;

/// Tells a watcher what argmin tells observers.
struct Relay(Arc<Watched>);

impl<I: State<Float = f64>> Observe<I> for Relay {
    fn observe_iter(&mut self, state: &I, _: &KV) -> Result<(), Error> {
        self.0.watch.step(&Step { iteration: state.get_iter() + 1, cost: state.get_cost() });
        Ok(())
    }
}

impl PartialEq for Method {
    fn eq(&self, other: &Method) -> bool {
        self.solver == other.solver
    }
}

impl fmt::Debug for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.solver, f)
    }
}

impl Serialize for Method {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.solver.serialize(serializer)
    }
}
