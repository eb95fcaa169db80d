//! Which laws can take part, and which is the default.

use std::fmt;

use serde::Serialize;

use super::Contest;
use crate::law::{Axis, LawName};
use crate::observation::{self, Observation};
use crate::points::{self, select};
use crate::prepare::law_ends;
use crate::{Response, extent};

/// Distinct values on an axis from which a term in it, with a constant beside, can be told: two leave a line.
const VALUES_MIN: usize = 3;
/// Points, as a multiple of its parameters, from which M4 is the default of a curve.
const CURVE_POINTS: usize = 3;

/// A law that does not take part.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct LeftOut {
    /// Which.
    pub law: LawName,
    /// Why.
    pub why: WhyNot,
}

impl fmt::Display for LeftOut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.law, self.why)
    }
}

/// Why a law does not take part.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, thiserror::Error)]
#[serde(tag = "reason", rename_all = "snake_case")]
pub enum WhyNot {
    /// Most rows lack an axis.
    #[error("{lacking} of {of} rows do not say their {}", axis.describe())]
    Lacks {
        /// Which.
        axis: Axis,
        /// How many rows.
        lacking: usize,
        /// Of how many.
        of: usize,
    },
    /// It ends at the loss of guessing.
    #[error("it ends at the loss of guessing, which the rows do not say")]
    NoCeiling,
    /// One value on an axis.
    #[error("all rows have the same {}", axis.describe())]
    OneValue {
        /// Which.
        axis: Axis,
    },
    /// Nothing would be left to predict.
    #[error("{parameters} parameters are too many for {points} points: at least {needed} leave a quarter to hold out")]
    TooFewPoints {
        /// Of the law.
        parameters: usize,
        /// After selection.
        points: usize,
        /// Least number.
        needed: usize,
    },
    /// A law of one axis where others matter as well.
    #[error("it sees {} only, and {} varies too", sees.describe(), varies.describe())]
    OneOfMany {
        /// The axis of the law.
        sees: Axis,
        /// Another.
        varies: Axis,
    },
}

/// Laws that take part.
pub(super) struct Field {
    pub laws: Vec<LawName>,
    pub left_out: Vec<LeftOut>,
    /// All axes that they, the policy and the split need.
    pub axes: Vec<Axis>,
    /// Points to train on, so that each of them can be fitted.
    pub train_min: usize,
}

/// Sorts the laws asked for into those that take part and those that can't. A law may lack an axis in fewer than half
/// of the rows: these rows are then left out for all laws. Where none is asked for, laws of N, D or U alone are left
/// out if another axis varies. `needed`: axes of the policy and the split. `known_ceiling`: the error of guessing, if
/// the rows say it.
pub(super) fn candidates(
    observations: &[Observation],
    contest: &Contest,
    needed: &[Axis],
    known_ceiling: Option<f64>,
) -> Field {
    let options = &contest.options;
    let ceiling = known_ceiling.unwrap_or(1.0);
    let (usable, _) = observation::usable(observations, options.response, needed);
    let count = |rows: &[Observation]| {
        let pairs: Vec<(f64, f64)> = rows.iter().map(|row| (row.compute, row.error)).collect();
        select(options.points, &pairs).len()
    };
    let below = observation::below(ceiling, usable.clone(), &mut Vec::new());
    let points_below = count(&points::candidates(options.points, below));
    let rows = points::candidates(options.points, usable);
    let points_all = count(&rows);
    let mut field = Field { laws: Vec::new(), left_out: Vec::new(), axes: needed.to_vec(), train_min: 0 };
    for &name in contest.asked() {
        let law = name.law(ceiling);
        let points = if contest.ends_at_guessing(name) { points_below } else { points_all };
        let parameters = law.parameters().len();
        let least = ((parameters + 2) * 4).div_ceil(3);
        let lacks = law.axes().iter().find_map(|&axis| {
            let lacking = rows.iter().filter(|row| !known(row, axis)).count();
            (2 * lacking >= rows.len().max(1)).then_some(WhyNot::Lacks { axis, lacking, of: rows.len() })
        });
        let same = || law.axes().iter().find(|&&axis| values(&rows, axis) < 2).map(|&axis| WhyNot::OneValue { axis });
        let few = || (points < least).then_some(WhyNot::TooFewPoints { parameters, points, needed: least });
        let blind = || match law.axes() {
            &[sees] if contest.laws.is_empty() && sees != Axis::C => [Axis::N, Axis::D, Axis::U, Axis::C]
                .into_iter()
                .find(|&axis| axis != sees && values(&rows, axis) > 1)
                .map(|varies| WhyNot::OneOfMany { sees, varies }),
            _ => None,
        };
        let unbounded = || {
            let unknown = options.response == Response::Loss && known_ceiling.is_none();
            (unknown && law_ends(name)).then_some(WhyNot::NoCeiling)
        };
        if let Some(why) = lacks.or_else(unbounded).or_else(same).or_else(few).or_else(blind) {
            field.left_out.push(LeftOut { law: name, why });
            continue;
        }
        field.laws.push(name);
        field.train_min = field.train_min.max(parameters + 2);
        for axis in law.axes() {
            if !field.axes.contains(axis) {
                field.axes.push(*axis);
            }
        }
    }
    field
}

/// The law that is kept unless beaten: F8 `additive` where N, D and U take three values each and U is not D in
/// disguise; F6 `chinchilla` where N and D do; F4 `m4` along the curve of one model with fifteen points (best on
/// Alabdulmohsin et al.'s 92); else F1 `power` of compute, the study's.
pub fn default_law(rows: &[Observation]) -> LawName {
    let many = |axis: Axis| values(rows, axis) >= VALUES_MIN;
    let independent = |a: Axis, b: Axis| {
        let (low, high) = extent(rows.iter().map(|row| (row.on(a) / row.on(b)).ln()).filter(|ratio| ratio.is_finite()));
        high - low > 1e-9
    };
    let shipped = |name: &str| name.parse::<LawName>().ok();
    let grid = many(Axis::N) && many(Axis::D) && independent(Axis::N, Axis::D);
    let curve = rows.iter().all(|row| row.model == rows[0].model) && values(rows, Axis::C) >= 5 * CURVE_POINTS;
    let additive = || (grid && many(Axis::U) && independent(Axis::D, Axis::U)).then(|| shipped("additive")).flatten();
    let chinchilla = || grid.then(|| shipped("chinchilla")).flatten();
    let m4 = || curve.then(|| shipped("m4")).flatten();
    additive().or_else(chinchilla).or_else(m4).or_else(|| shipped("power")).unwrap_or(LawName::ALL[0])
}

fn known(row: &Observation, axis: Axis) -> bool {
    row.on(axis).is_finite() && row.on(axis) > 0.0
}

/// Distinct values among the rows that have any.
fn values(rows: &[Observation], axis: Axis) -> usize {
    let mut values: Vec<f64> = rows.iter().filter(|row| known(row, axis)).map(|row| row.on(axis)).collect();
    values.sort_by(f64::total_cmp);
    values.dedup_by(|next, kept| *next <= *kept * (1.0 + 1e-9));
    values.len()
}
