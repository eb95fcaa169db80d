//! How minima are searched for, for every command that fits: by which solver, for how long, and what is said meanwhile.

use std::io::IsTerminal;
use std::str::FromStr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::output::{Exit, say};
use super::place::positive;
use crate::fit::solve::{Minimum, Step};
use crate::fit::{Method, SolverKind, Watch};
use crate::report::number::significant;

/// Options of every command that fits.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct Search {
    /// What searches for minima: newton (ours, damped), lbfgs or trust-region (argmin's own).
    #[arg(long, default_value = "newton", value_name = "SOLVER")]
    solver: SolverKind,
    /// Seconds that the searches and refits of this command may take [default: as long as they need].
    #[arg(long, value_name = "SECONDS", value_parser = positive)]
    time_limit: Option<f64>,
}

impl Search {
    /// As the engine takes it. Time is counted from now.
    pub(super) fn method(&self) -> Method {
        method(self.solver, self.time_limit)
    }
}

/// The same for `sweep fit`, which can compare solvers.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct SearchOrAll {
    /// What searches for minima: newton (ours, damped), lbfgs or trust-region (argmin's own); all: the three side by
    /// side.
    #[arg(long, default_value = "newton", value_name = "SOLVER")]
    solver: OneOrAll,
    /// Seconds that the searches and refits may take, of each solver [default: as long as they need].
    #[arg(long, value_name = "SECONDS", value_parser = positive)]
    time_limit: Option<f64>,
}

#[derive(Debug, Clone, Copy)]
enum OneOrAll {
    One(SolverKind),
    All,
}

impl FromStr for OneOrAll {
    type Err = String;

    fn from_str(text: &str) -> Result<OneOrAll, String> {
        if text == "all" {
            return Ok(OneOrAll::All);
        }
        text.parse().map(OneOrAll::One).map_err(|_| "allowed are newton, lbfgs, trust-region and all".to_owned())
    }
}

impl SearchOrAll {
    /// The solver asked for; `None`: all of them.
    pub(super) fn one(&self) -> Option<SolverKind> {
        match self.solver {
            OneOrAll::One(solver) => Some(solver),
            OneOrAll::All => None,
        }
    }

    /// As the engine takes it, with one of the solvers. Time is counted from now.
    pub(super) fn method(&self, solver: SolverKind) -> Method {
        method(solver, self.time_limit)
    }
}

fn method(solver: SolverKind, time_limit: Option<f64>) -> Method {
    let says = std::io::stderr().is_terminal();
    let limit = time_limit.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    if limit.is_none() && !says {
        return Method::by(solver);
    }
    let [searches, steps, next_secs] = [0, 0, 1].map(AtomicU64::new);
    Method::watched(solver, Clock { begun: Instant::now(), limit, says, next_secs, searches, steps })
}

/// What a command ends with: a failure, said, where its time limit cut something short.
pub(super) fn end(method: &Method, exit: Exit) -> Exit {
    if !method.was_cut() {
        return exit;
    }
    say(
        "\nout of time: what is given here was cut short\n\nhint: raise --time-limit, or lower --starts and --resamples",
    );
    Exit::Failed
}

/// Knows when time is out, and says on a terminal how far fits are that take more than a second: then, and each time
/// that they have taken twice as long.
struct Clock {
    begun: Instant,
    limit: Option<Duration>,
    says: bool,
    next_secs: AtomicU64,
    searches: AtomicU64,
    steps: AtomicU64,
}

impl Watch for Clock {
    fn time_left(&self) -> Option<Duration> {
        self.limit.map(|limit| limit.saturating_sub(self.begun.elapsed()))
    }

    fn step(&self, step: &Step) {
        let steps = self.steps.fetch_add(1, Ordering::Relaxed) + 1;
        // A look at the clock costs as much as a small step.
        if self.says && steps.is_multiple_of(256) {
            self.tell(step.cost, steps);
        }
    }

    fn ended(&self, _: &Minimum) {
        self.searches.fetch_add(1, Ordering::Relaxed);
    }
}

impl Clock {
    fn tell(&self, cost: f64, steps: u64) {
        let (taken, due) = (self.begun.elapsed().as_secs(), self.next_secs.load(Ordering::Relaxed));
        let next = (2 * due).max(taken + 1);
        let first = || self.next_secs.compare_exchange(due, next, Ordering::Relaxed, Ordering::Relaxed).is_ok();
        if taken >= due && first() {
            let searches = self.searches.load(Ordering::Relaxed);
            say(&format!(
                "fitting for {taken} s: {searches} searches and refits ended, {steps} steps; one is at {}",
                significant(cost, 3)
            ));
        }
    }
}
