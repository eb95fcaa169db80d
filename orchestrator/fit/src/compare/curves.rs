//! Laws along compute, and what is read off two of them.

use std::collections::BTreeSet;

use super::{CompareError, CompareOptions, Difference, SharedExponent};
use crate::cost::Currency;
use crate::distribution::t_within;
use crate::frontier::Path;
use crate::interval::plain as interval;
use crate::law::{Axis, Input, LawName, Scale};
use crate::noise::Weighting;
use crate::objective::Objective;
use crate::sample::Sample;
use crate::{EFFECT_MIN, Fit, extent};

/// Whether the law is of compute alone.
pub(super) fn of_compute(fit: &Fit) -> bool {
    fit.form().axes() == [Axis::C]
}

pub(super) fn check(a: &Fit, b: &Fit, options: &CompareOptions<'_>) -> Result<(), CompareError> {
    if options.draws == 0 {
        return Err(CompareError::NoDraws);
    }
    if a.compute != b.compute {
        return Err(CompareError::Convention { a: a.compute, b: b.compute });
    }
    if let Some(&bad) = options.at.iter().find(|compute| !(compute.is_finite() && **compute > 0.0)) {
        return Err(CompareError::Compute(bad));
    }
    for fit in [a, b] {
        if fit.form().axes().contains(&Axis::L) {
            return Err(CompareError::NeedsLoss { law: fit.law });
        }
        match options.along {
            None if !of_compute(fit) => return Err(CompareError::NeedsCost { law: fit.law }),
            Some((cost, _)) if of_compute(fit) && cost.currency == Currency::GpuHours => {
                return Err(CompareError::ComputeAlone { law: fit.law });
            }
            Some((cost, _)) if fit.form().axes().contains(&Axis::C) && cost.convention != fit.compute => {
                return Err(CompareError::Convention { a: fit.compute, b: cost.convention });
            }
            _ => {}
        }
    }
    Ok(())
}

/// Least and most C, or price, of the observations; (inf, -inf) where none has one.
pub(super) fn range(fit: &Fit, options: &CompareOptions<'_>) -> (f64, f64) {
    let price = |row| options.along.map(|(cost, _)| cost.of_observation(row));
    extent(
        fit.observations
            .iter()
            .map(|row| price(row).unwrap_or(row.compute))
            .filter(|compute| compute.is_finite() && *compute > 0.0),
    )
}

/// Evenly spaced ln C; a curve is ln E on it, straight between.
pub(super) struct Grid {
    ln_c: Vec<f64>,
    step: f64,
}

impl Grid {
    pub(super) fn new(low: f64, high: f64, points: usize) -> Grid {
        let step = (high / low).ln() / (points - 1) as f64;
        Grid { ln_c: (0..points).map(|i| low.ln() + step * i as f64).collect(), step }
    }

    /// ln E of the law at `theta`: at equal C, or the best that a budget gives.
    pub(super) fn curve(&self, fit: &Fit, theta: &[f64], options: &CompareOptions<'_>) -> Vec<f64> {
        let form = fit.form();
        let law = form.as_ref();
        let at = |&ln_c: &f64| match options.along {
            Some((cost, limits)) if !of_compute(fit) => {
                let observed = extent(fit.observations.iter().map(|row| row.parameters));
                Path::new(law, cost, ln_c.exp(), limits, observed).best(theta).ln_e
            }
            _ => law.ln_at(theta, &Input { ln_c, ..Input::UNKNOWN }),
        };
        self.ln_c.iter().map(at).collect()
    }

    /// ln E at ln C; the ends' slopes beyond them.
    pub(super) fn at(&self, curve: &[f64], ln_c: f64) -> f64 {
        let place = (ln_c - self.ln_c[0]) / self.step;
        let below = (place.floor().max(0.0) as usize).min(curve.len() - 2);
        curve[below] + (place - below as f64) * (curve[below + 1] - curve[below])
    }

    /// The least ln C at which the curve is as low as `goal`; an end of the grid where it is so from the start or
    /// never.
    pub(super) fn reaches(&self, curve: &[f64], goal: f64) -> f64 {
        let Some(first) = curve.iter().position(|ln_e| *ln_e <= goal) else { return self.ln_c[curve.len() - 1] };
        if first == 0 {
            return self.ln_c[0];
        }
        let fall = curve[first - 1] - curve[first];
        self.ln_c[first - 1] + self.step * (curve[first - 1] - goal) / fall
    }

    /// ln E of A less that of B; zero where no more than rounding is between them.
    pub(super) fn gap(&self, pair: &[Vec<f64>; 2], ln_c: f64) -> f64 {
        let gap = self.at(&pair[0], ln_c) - self.at(&pair[1], ln_c);
        if gap.abs() > EFFECT_MIN { gap } else { 0.0 }
    }

    /// The first C in `range` where A and B change places, and whether A is the better below it.
    pub(super) fn crossing(&self, pair: &[Vec<f64>; 2], range: (f64, f64)) -> Option<(f64, bool)> {
        let gap = |ln_c: f64| self.gap(pair, ln_c);
        let (low, high) = (range.0.ln(), range.1.ln());
        let mut places = vec![low];
        places.extend(self.ln_c.iter().copied().filter(|ln_c| (low..high).contains(ln_c)));
        places.push(high);
        places.retain(|place| gap(*place) != 0.0);
        places.windows(2).find_map(|ends| {
            let (left, right) = (gap(ends[0]), gap(ends[1]));
            (left * right < 0.0).then(|| ((ends[0] + (ends[1] - ends[0]) * left / (left - right)).exp(), left < 0.0))
        })
    }
}

/// A less B, parameter by parameter, where the law is the same; logarithms of those held by them.
pub(super) fn differences(a: &Fit, b: &Fit, thetas: &[Vec<Vec<f64>>; 2]) -> Vec<Difference> {
    if a.law != b.law {
        return Vec::new();
    }
    let of = |(index, parameter): (usize, &crate::law::Parameter)| {
        let (left, right) = (a.solution.best.theta[index], b.solution.best.theta[index]);
        let drawn = thetas[0].iter().zip(&thetas[1]).map(|(a, b)| a[index] - b[index]);
        let name = match parameter.scale {
            Scale::Linear => parameter.name.to_owned(),
            Scale::Log => format!("ln {}", parameter.name),
        };
        Difference { name, a: left, b: right, difference: interval(left - right, drawn) }
    };
    a.form().parameters().iter().enumerate().map(of).collect()
}

/// Analysis of covariance of two straight lines in (ln C, ln E), of fits that go through all rows, weighed alike. The
/// degrees of freedom are those of jobs, and the sums count each row as its share of a job: rows of one job are not
/// independent.
pub(super) fn shared_exponent(a: &Fit, b: &Fit) -> Option<SharedExponent> {
    let line = |fit: &Fit| {
        let fits = fit.law == LawName::Power(Axis::C) && fit.objective == Objective::LS_LOG;
        let rows = fit.points.iter().map(|point| point.observation).collect::<BTreeSet<usize>>();
        let all = rows.len() == fit.observations.len() && fit.points.len() == rows.len();
        let unweighted = fit.weighting == Weighting::Equal;
        let fitted = fits && all && unweighted && fit.parameters.iter().all(|parameter| !parameter.frozen);
        fitted.then(|| Moments::of(&Sample::of(&fit.observations, &fit.points)))
    };
    let (a, b) = (line(a)?, line(b)?);
    let free = (a.jobs + b.jobs).checked_sub(4).filter(|free| *free > 0)?;
    let left = a.left() + b.left();
    let exponent = (a.xy + b.xy) / (a.xx + b.xx);
    let more = (a.xy / a.xx - b.xy / b.xx).powi(2) / (1.0 / a.xx + 1.0 / b.xx);
    let f = more / (left / free as f64);
    f.is_finite().then(|| SharedExponent { exponent, f, free, p: 1.0 - t_within(f.sqrt(), free) })
}

/// Centred sums of ln C and ln E, as if a job had one row.
struct Moments {
    jobs: usize,
    xx: f64,
    xy: f64,
    yy: f64,
}

impl Moments {
    fn of(sample: &Sample) -> Moments {
        let count = sample.len() as f64;
        let x_mean = sample.inputs.iter().map(|x| x.ln_c).sum::<f64>() / count;
        let y_mean = sample.ln_y.iter().sum::<f64>() / count;
        let (mut xx, mut xy, mut yy) = (0.0, 0.0, 0.0);
        for (x, ln_y) in sample.inputs.iter().zip(&sample.ln_y) {
            let (x, y) = (x.ln_c - x_mean, ln_y - y_mean);
            xx += x * x;
            xy += x * y;
            yy += y * y;
        }
        let jobs = sample.jobs_len();
        let share = jobs as f64 / count;
        Moments { jobs, xx: share * xx, xy: share * xy, yy: share * yy }
    }

    fn left(&self) -> f64 {
        (self.yy - self.xy * self.xy / self.xx).max(0.0)
    }
}
