//! What fits and back-tests start from: the law, and the rows that it can be fitted to.

use crate::law::{self, Axis, Law, LawName};
use crate::objective::{Objective, Space};
use crate::observation::{self, Convention, Exclusion, Observation, Response};
use crate::points;
use crate::sample::Sample;
use crate::{FitError, Options, extent};

/// A law with its rows.
pub(crate) struct Prepared {
    /// Of every C; `None` of no rows.
    pub(crate) convention: Option<Convention>,
    /// The error of guessing; 1 where it is not known.
    pub(crate) ceiling: f64,
    /// Whether the law or the space ends there.
    pub(crate) ends: bool,
    /// Whether the rows say what it is.
    pub(crate) ceiling_known: bool,
    pub(crate) law: Box<dyn Law>,
    /// Internal values of the parameters that are held.
    pub(crate) frozen: Vec<Option<f64>>,
    pub(crate) objective: Objective,
    /// That rows must have.
    pub(crate) axes: Vec<Axis>,
    /// Sorted by job key and C.
    pub(crate) rows: Vec<Observation>,
    pub(crate) excluded: Vec<Exclusion>,
}

/// `more`: axes that rows must have besides the law's and the selection's.
pub(crate) fn prepare(
    observations: &[Observation],
    options: &Options,
    more: impl IntoIterator<Item = Axis>,
) -> Result<Prepared, FitError> {
    prepare_below(known_ceiling(observations), observations, options, more)
}

/// The same for rows that are some of a study's, with what all of its rows say of the error of guessing.
pub(crate) fn prepare_below(
    known: Option<f64>,
    observations: &[Observation],
    options: &Options,
    more: impl IntoIterator<Item = Axis>,
) -> Result<Prepared, FitError> {
    let convention = one_convention(observations)?;
    let ends = law_ends(options.law) || space_ends(options.objective);
    if ends && known.is_none() && options.response == Response::Loss {
        return Err(FitError::NeedsCeiling { law: options.law, objective: options.objective });
    }
    let ceiling = known.unwrap_or(1.0);
    let law = options.law.law(ceiling);
    let frozen = frozen(law.as_ref(), &options.frozen)?;
    let mut axes = law.axes().to_vec();
    for axis in options.points.axes().iter().copied().chain(more) {
        if !axes.contains(&axis) {
            axes.push(axis);
        }
    }
    let (mut rows, mut excluded) = observation::usable(observations, options.response, &axes);
    if ends {
        rows = observation::below(ceiling, rows, &mut excluded);
    }
    let rows = points::candidates(options.points, rows);
    let objective = options.objective.with_ceiling(ceiling);
    Ok(Prepared {
        convention,
        ceiling,
        ends,
        ceiling_known: known.is_some(),
        law,
        frozen,
        objective,
        axes,
        rows,
        excluded,
    })
}

pub(crate) fn one_convention(observations: &[Observation]) -> Result<Option<Convention>, FitError> {
    let Some(first) = observations.first() else { return Ok(None) };
    match observations.iter().find(|o| o.convention != first.convention) {
        Some(other) => Err(FitError::MixedConventions { first: first.convention, second: other.convention }),
        None => Ok(Some(first.convention)),
    }
}

/// The error of guessing; `None` where observations disagree on it, or none knows it.
pub(crate) fn known_ceiling(observations: &[Observation]) -> Option<f64> {
    let (low, high) = extent(observations.iter().filter_map(|o| o.chance_error));
    (low.is_finite() && high - low <= 1e-12 && low > 0.0).then_some(high)
}

/// Whether the law ends at the error of guessing.
pub(crate) fn law_ends(law: LawName) -> bool {
    matches!(law, LawName::Bounded | LawName::BoundedNd)
}

/// Whether the objective's space ends there.
pub(crate) fn space_ends(objective: Objective) -> bool {
    matches!(objective.space, Space::Logit { .. })
}

/// Internal values of the parameters to hold, one a parameter.
fn frozen(law: &dyn Law, held: &[(String, f64)]) -> Result<Vec<Option<f64>>, FitError> {
    let mut frozen = vec![None; law.parameters().len()];
    for (name, value) in held {
        let found = law.parameters().iter().position(|parameter| parameter.name == name);
        let inside = found.map(|index| match law.parameters()[index].scale {
            law::Scale::Linear => (index, *value),
            law::Scale::Log => (index, value.ln()),
        });
        match inside {
            Some((index, value)) if value.is_finite() => frozen[index] = Some(value),
            _ => {
                let names: Vec<&str> = law.parameters().iter().map(|parameter| parameter.name).collect();
                return Err(FitError::Frozen {
                    name: name.clone(),
                    value: value.to_string(),
                    law: law.name(),
                    allowed: names.join(", "),
                });
            }
        }
    }
    Ok(frozen)
}

/// An axis of the law on which all rows agree (to rounding) leaves its exponent free.
pub(crate) fn one_value(law: &dyn Law, sample: &Sample) -> Result<(), FitError> {
    for &axis in law.axes() {
        let (low, high) = extent(sample.inputs.iter().map(|x| x.ln(axis)));
        if high - low <= 1e-12 * high.abs().max(1.0) {
            return Err(FitError::OneValue { axis, points: sample.len() });
        }
    }
    Ok(())
}
