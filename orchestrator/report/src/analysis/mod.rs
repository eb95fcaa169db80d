//! From what the engine says to what the figures draw: one file a kind of figure. Pure: fits and plain data in,
//! pictures with the words and tables that belong to them out. Knows no store.

pub mod backtest;
pub mod budget;
pub mod comparison;
pub mod frontier;
pub mod isoflop;
pub mod law;
pub mod models;
pub mod next;
pub mod pairs;
pub mod policies;
pub mod profile;
pub mod residuals;
pub mod section;
pub mod subject;
pub mod words;

use std::fmt;

use serde::{Deserialize, Serialize};

use super::figures::{self, FigureError, data::Picture};
use fit::compare::CompareError;
use fit::cost::CostError;
use fit::frontier::FrontierError;
use fit::{Fit, FitError, Observation, Options};

pub use subject::{Subject, Target};

/// What is to be drawn, and of which rows.
#[derive(Debug, Clone, Copy)]
pub struct Material<'a> {
    /// The metric, and the names of training sets.
    pub subject: &'a Subject,
    /// Rows that may be fitted.
    pub observations: &'a [Observation],
    /// Rows kept out of the fit to judge it.
    pub held_out: &'a [Observation],
    /// How the law was fitted.
    pub options: &'a Options,
    /// The law.
    pub fit: &'a Fit,
    /// What is forecast.
    pub target: &'a Target,
    /// What it is compared with.
    pub against: Option<&'a Family>,
}

/// Another sweep's rows of the same metric.
#[derive(Debug, Clone)]
pub struct Family {
    /// Name of the sweep.
    pub name: String,
    /// Names of its training sets.
    pub subject: Subject,
    /// Its law.
    pub fit: Fit,
}

/// A kind of figure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Kind {
    /// The law with its band over its points.
    Law,
    /// Residuals against N, D, U and C.
    Residuals,
    /// Profile likelihood of the parameters.
    Profile,
    /// Resamples, each two parameters together.
    Pairs,
    /// How the choice of points moves the law and a forecast.
    Policies,
    /// Best N at equal compute.
    Isoflop,
    /// Best N, D and U for a budget.
    Frontier,
    /// Forecasts of the largest run as data grow.
    Backtest,
    /// Laws by objectives, by held-out error.
    Models,
    /// Width of a forecast against what the study costs.
    Budget,
    /// Two sweeps side by side.
    Comparison,
}

impl Kind {
    /// All of them.
    pub const ALL: [Kind; 11] = [
        Kind::Law,
        Kind::Residuals,
        Kind::Profile,
        Kind::Pairs,
        Kind::Policies,
        Kind::Isoflop,
        Kind::Frontier,
        Kind::Backtest,
        Kind::Models,
        Kind::Budget,
        Kind::Comparison,
    ];

    /// On the command line and in file names.
    pub fn as_str(self) -> &'static str {
        match self {
            Kind::Law => "law",
            Kind::Residuals => "residuals",
            Kind::Profile => "profile",
            Kind::Pairs => "pairs",
            Kind::Policies => "policies",
            Kind::Isoflop => "isoflop",
            Kind::Frontier => "frontier",
            Kind::Backtest => "backtest",
            Kind::Models => "models",
            Kind::Budget => "budget",
            Kind::Comparison => "comparison",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A picture with what is to be said beside it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Drawing {
    /// The picture.
    pub picture: Picture,
    /// Sentences of plain text.
    pub words: Vec<String>,
    /// Numbers behind it.
    pub table: Option<Table>,
}

impl Drawing {
    fn of(picture: Picture) -> Drawing {
        Drawing { picture, words: Vec::new(), table: None }
    }
}

/// A table of plain text.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Table {
    /// Titles of the columns.
    pub head: Vec<String>,
    /// The first column that holds numbers.
    pub numbers_from: usize,
    /// Cells.
    pub rows: Vec<Vec<String>>,
}

/// Why there is no figure.
#[derive(Debug, thiserror::Error)]
pub enum Undrawable {
    /// No law.
    #[error(transparent)]
    Fit(#[from] FitError),
    /// No frontier.
    #[error(transparent)]
    Frontier(#[from] FrontierError),
    /// No comparison.
    #[error(transparent)]
    Compare(#[from] CompareError),
    /// No price of a job.
    #[error(transparent)]
    Cost(#[from] CostError),
    /// The drawing itself.
    #[error(transparent)]
    Figure(#[from] FigureError),
    /// The law or the data do not have what it shows.
    #[error("{what}")]
    Lacks {
        /// What is missing.
        what: String,
        /// What to do.
        way_out: &'static str,
    },
}

impl Undrawable {
    fn lacks(what: impl Into<String>, way_out: &'static str) -> Undrawable {
        Undrawable::Lacks { what: what.into(), way_out }
    }

    /// What to do about it.
    pub fn way_out(&self) -> &'static str {
        match self {
            Undrawable::Lacks { way_out, .. } => way_out,
            Undrawable::Fit(_) => "let more jobs finish, widen --where, or use --points all",
            Undrawable::Frontier(
                FrontierError::ComputeAlone { .. } | FrontierError::NoChoice { .. } | FrontierError::NeedsLoss { .. },
            ) => "fit a law of N and D: --law chinchilla",
            Undrawable::Compare(CompareError::NotIdentified { .. } | CompareError::NoFreedom { .. }) => {
                "fit a law of fewer parameters: --law power"
            }
            Undrawable::Compare(CompareError::NeedsLoss { .. }) => "fit a law of compute: --law power",
            Undrawable::Frontier(_) | Undrawable::Compare(_) => "choose one convention with --compute",
            Undrawable::Cost(_) => "choose a convention that the rows have with --compute, or --law power",
            Undrawable::Figure(_) => "please report it",
        }
    }
}

/// Draws one kind.
pub fn draw(kind: Kind, of: Material<'_>) -> Result<Drawing, Undrawable> {
    match kind {
        Kind::Law => Ok(Drawing::of(figures::law::draw(&law::figure(of)?)?)),
        Kind::Residuals => Ok(Drawing::of(figures::residuals::draw(&residuals::figure(of)?)?)),
        Kind::Profile => profile::draw(of),
        Kind::Pairs => Ok(Drawing::of(figures::pairs::draw(&pairs::figure(of)?)?)),
        Kind::Policies => policies::draw(of),
        Kind::Isoflop => isoflop::draw(of),
        Kind::Frontier => frontier::draw(of),
        Kind::Backtest => Ok(Drawing::of(figures::backtest::draw_fan(&backtest::figure(of)?)?)),
        Kind::Models => models::draw(of),
        Kind::Budget => Ok(Drawing::of(figures::budget::draw(&budget::figure(of)?)?)),
        Kind::Comparison => comparison::draw(of),
    }
}
