//! What a job costs as a function of N and D: compute in a convention, or GPU-hours by the throughput that was
//! measured.
//!
//! Both are `D * price(N)`. Compute per sample is 6N by the convention of that name and by no other: a CLIP of few
//! parameters and small patches costs more than a larger one of large patches, so its price is read off the models
//! observed, straight between them in ln N and ln price. GPU-hours are `exp(level) * (compute per sample)^slope * D`,
//! least squares of ln (GPU-hours / D) over the observations that have GPU-hours.

use serde::Serialize;

use crate::extent;
use crate::observation::{Convention, Observation};

/// Two models closer than this in ln N are one.
const SAME_MODEL: f64 = 1e-6;

/// What a budget is counted in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Currency {
    /// Compute, in the convention's unit.
    Compute(Convention),
    /// GPU-hours.
    GpuHours,
}

impl Currency {
    /// Unit, for people.
    pub fn unit(self) -> &'static str {
        match self {
            Currency::Compute(convention) => convention.unit(),
            Currency::GpuHours => "GPU-hours",
        }
    }
}

/// A model that was observed: its size and what a sample costs it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Rung {
    /// Its name; several, joined by `+`, where models are of one size.
    pub model: String,
    /// ln N.
    pub ln_n: f64,
    /// ln of compute per sample, geometric mean over its observations.
    pub ln_compute: f64,
}

/// GPU-hours per sample, `exp(level) * (compute per sample)^slope`.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Throughput {
    /// ln GPU-hours per sample at compute per sample 1.
    pub level: f64,
    /// Below 1 where larger models use a GPU better.
    pub slope: f64,
    /// Observations behind it.
    pub rows: usize,
    /// Residual standard deviation of ln GPU-hours; NaN where the rows leave no degree of freedom.
    pub spread: f64,
    /// False: the rows are all of one compute per sample, and the slope is taken as 1.
    pub slope_fitted: bool,
}

/// The price of a job.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Cost {
    /// What budgets are in.
    pub currency: Currency,
    /// How the compute behind it is counted.
    pub convention: Convention,
    /// Models observed, ascending in N; empty: 6N.
    pub rungs: Vec<Rung>,
    /// d ln price / d ln N beyond the rungs: least squares through them all; 1 where there is one.
    pub slope_beyond: f64,
    /// For GPU-hours.
    pub throughput: Option<Throughput>,
}

/// Why there is no price.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CostError {
    /// Nothing to learn it from.
    #[error(
        "pricing jobs: none of {observations} observations has {what}; give budgets in compute, or import rows that have it"
    )]
    Nothing {
        /// What they lack.
        what: &'static str,
        /// How many there are.
        observations: usize,
    },
    /// Two conventions of C.
    #[error("pricing jobs: compute is given as `{first}` and as `{second}`; keep the rows of one convention")]
    Mixed {
        /// One.
        first: Convention,
        /// The other.
        second: Convention,
    },
}

impl Cost {
    /// `C = 6 N D`, FLOPs.
    pub fn six_nd() -> Cost {
        Cost {
            currency: Currency::Compute(Convention::SixNd),
            convention: Convention::SixNd,
            rungs: Vec::new(),
            slope_beyond: 1.0,
            throughput: None,
        }
    }

    /// Compute, in the convention of `observations`: 6ND where that is it, else off the models observed.
    pub fn compute(observations: &[Observation]) -> Result<Cost, CostError> {
        let nothing = || CostError::Nothing { what: "compute", observations: observations.len() };
        let first = observations.first().ok_or_else(nothing)?.convention;
        if let Some(other) = observations.iter().find(|row| row.convention != first) {
            return Err(CostError::Mixed { first, second: other.convention });
        }
        if first == Convention::SixNd {
            return Ok(Cost::six_nd());
        }
        let rungs = rungs(observations);
        if rungs.is_empty() {
            return Err(CostError::Nothing {
                what: "parameters, samples seen and compute",
                observations: observations.len(),
            });
        }
        let line = line(rungs.iter().map(|rung| (rung.ln_n, rung.ln_compute)));
        Ok(Cost {
            currency: Currency::Compute(first),
            convention: first,
            slope_beyond: if line.slope_fitted { line.slope } else { 1.0 },
            rungs,
            throughput: None,
        })
    }

    /// GPU-hours, by the observations that have them.
    pub fn gpu_hours(observations: &[Observation]) -> Result<Cost, CostError> {
        let cost = Cost::compute(observations)?;
        let measured = observations.iter().filter_map(|row| {
            let hours = row.gpu_hours.filter(|hours| usable(*hours))?;
            let known = usable(row.samples_seen) && usable(row.compute);
            known.then(|| ((row.compute / row.samples_seen).ln(), (hours / row.samples_seen).ln()))
        });
        let throughput = line(measured);
        if throughput.rows == 0 {
            return Err(CostError::Nothing {
                what: "GPU-hours with its samples seen and compute",
                observations: observations.len(),
            });
        }
        Ok(Cost { currency: Currency::GpuHours, throughput: Some(throughput), ..cost })
    }

    /// ln of compute per sample of a model of that size.
    pub fn ln_compute_per_sample(&self, ln_n: f64) -> f64 {
        let (Some(first), Some(last)) = (self.rungs.first(), self.rungs.last()) else { return 6f64.ln() + ln_n };
        if ln_n <= first.ln_n {
            return first.ln_compute + self.slope_beyond * (ln_n - first.ln_n);
        }
        if ln_n >= last.ln_n {
            return last.ln_compute + self.slope_beyond * (ln_n - last.ln_n);
        }
        let above = self.rungs.partition_point(|rung| rung.ln_n < ln_n).clamp(1, self.rungs.len() - 1);
        let (a, b) = (&self.rungs[above - 1], &self.rungs[above]);
        let share = (ln_n - a.ln_n) / (b.ln_n - a.ln_n);
        a.ln_compute + share * (b.ln_compute - a.ln_compute)
    }

    /// ln of the price of a sample, in the currency, given ln of its compute.
    pub fn ln_price_of_compute(&self, ln_compute: f64) -> f64 {
        match self.throughput {
            None => ln_compute,
            Some(throughput) => throughput.level + throughput.slope * ln_compute,
        }
    }

    /// ln of the price of a sample for a model of that size.
    pub fn ln_price(&self, ln_n: f64) -> f64 {
        self.ln_price_of_compute(self.ln_compute_per_sample(ln_n))
    }

    /// What a job costs.
    pub fn of(&self, parameters: f64, samples_seen: f64) -> f64 {
        (self.ln_price(parameters.ln()) + samples_seen.ln()).exp()
    }

    /// What an observed job cost: as measured where it was, else as it would. NaN where it can't be told.
    pub fn of_observation(&self, row: &Observation) -> f64 {
        match (self.currency, row.gpu_hours) {
            (Currency::Compute(convention), _) if convention == row.convention => row.compute,
            (Currency::GpuHours, Some(hours)) if usable(hours) => hours,
            _ => {
                let ln_compute = (row.compute / row.samples_seen).ln();
                (self.ln_price_of_compute(ln_compute) + row.samples_seen.ln()).exp()
            }
        }
    }

    /// Pairs of models of which the larger has the lower price: between them N alone does not say what a job costs.
    pub fn reversals(&self) -> Vec<(&str, &str)> {
        let falls = self.rungs.windows(2).filter(|pair| pair[1].ln_compute < pair[0].ln_compute);
        falls.map(|pair| (pair[0].model.as_str(), pair[1].model.as_str())).collect()
    }
}

/// Models of the observations, ascending in N.
pub(crate) fn rungs(observations: &[Observation]) -> Vec<Rung> {
    let mut known: Vec<(f64, f64, &str)> = observations
        .iter()
        .filter(|row| usable(row.parameters) && usable(row.samples_seen) && usable(row.compute))
        .map(|row| (row.parameters.ln(), (row.compute / row.samples_seen).ln(), row.model.as_str()))
        .collect();
    known.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.2.cmp(b.2)).then(a.1.total_cmp(&b.1)));
    known
        .chunk_by(|a, b| b.0 - a.0 < SAME_MODEL)
        .map(|same| {
            let mut names: Vec<&str> = same.iter().map(|row| row.2).collect();
            names.dedup();
            let mean = |pick: fn(&(f64, f64, &str)) -> f64| same.iter().map(pick).sum::<f64>() / same.len() as f64;
            Rung { model: names.join("+"), ln_n: mean(|row| row.0), ln_compute: mean(|row| row.1) }
        })
        .collect()
}

/// Least-squares line `y = level + slope * x`.
fn line(pairs: impl Iterator<Item = (f64, f64)>) -> Throughput {
    let pairs: Vec<(f64, f64)> = pairs.collect();
    let count = pairs.len() as f64;
    let (x_mean, y_mean) =
        (pairs.iter().map(|pair| pair.0).sum::<f64>() / count, pairs.iter().map(|pair| pair.1).sum::<f64>() / count);
    let (low, high) = extent(pairs.iter().map(|pair| pair.0));
    let slope_fitted = high - low > SAME_MODEL;
    let slope = if slope_fitted {
        let xy: f64 = pairs.iter().map(|(x, y)| (x - x_mean) * (y - y_mean)).sum();
        xy / pairs.iter().map(|(x, _)| (x - x_mean).powi(2)).sum::<f64>()
    } else {
        1.0
    };
    let level = y_mean - slope * x_mean;
    let left: f64 = pairs.iter().map(|(x, y)| (y - level - slope * x).powi(2)).sum();
    let free = count - if slope_fitted { 2.0 } else { 1.0 };
    let spread = if free > 0.0 { (left / free).sqrt() } else { f64::NAN };
    Throughput { level, slope, rows: pairs.len(), spread, slope_fitted }
}

fn usable(value: f64) -> bool {
    value.is_finite() && value > 0.0
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn row(model: &str, parameters: f64, per_sample: f64, samples: f64, gpu_hours: Option<f64>) -> Observation {
        Observation {
            job_key: format!("{model}-{samples}"),
            model: model.to_owned(),
            parameters,
            samples_seen: samples,
            unique_samples: samples,
            compute: per_sample * samples,
            proxy_loss: f64::NAN,
            convention: Convention::GmacsSamples,
            error: 0.5,
            standard_error: None,
            chance_error: None,
            count: None,
            gpu_hours,
        }
    }

    /// Sizes and forward GMACs of OpenCLIP's ViT-B/16, B/32 and L/14: B/32 is the larger of the B, and the cheaper.
    fn rows() -> Vec<Observation> {
        [("B-16", 149.62e6, 20.57), ("B-32", 151.28e6, 7.40), ("L-14", 427.62e6, 87.73)]
            .into_iter()
            .flat_map(|(model, n, c)| [1e9, 3e9].map(|d| row(model, n, c, d, Some(2e-9 * c.powf(0.8) * d))))
            .collect()
    }

    #[test]
    fn known_models_cost_what_they_cost() {
        let cost = Cost::compute(&rows()).unwrap();
        assert_eq!(cost.rungs.len(), 3);
        for row in rows() {
            assert!((cost.of(row.parameters, row.samples_seen) / row.compute - 1.0).abs() < 1e-12);
            assert_eq!(cost.of_observation(&row).to_bits(), row.compute.to_bits());
        }
        assert_eq!(cost.reversals(), [("B-16", "B-32")]);
        assert!((Cost::six_nd().of(1e9, 20e9) / 1.2e20 - 1.0).abs() < 1e-12);
    }

    #[test]
    fn throughput_is_read_off_measured_hours() {
        let mut rows = rows();
        rows.push(row("H-14", 986.1e6, 190.97, 1e9, None));
        let cost = Cost::gpu_hours(&rows).unwrap();
        let throughput = cost.throughput.unwrap();
        assert_eq!((throughput.rows, throughput.slope_fitted), (6, true));
        assert!((throughput.slope - 0.8).abs() < 1e-9 && throughput.spread < 1e-9);
        let hours = 2e-9 * 190.97f64.powf(0.8) * 1e9;
        assert!((cost.of(986.1e6, 1e9) / hours - 1.0).abs() < 1e-9);
        assert!((cost.of_observation(&rows[6]) / hours - 1.0).abs() < 1e-9);
        let one = Cost::gpu_hours(&rows[..1]).unwrap().throughput.unwrap();
        assert!(!one.slope_fitted && one.spread.is_nan());
        assert_eq!(one.slope.to_bits(), 1f64.to_bits());
    }

    #[test]
    fn what_has_no_price_is_an_error() {
        assert!(matches!(Cost::compute(&[]), Err(CostError::Nothing { .. })));
        assert!(matches!(Cost::compute(&[row("a", f64::NAN, 1.0, 1.0, None)]), Err(CostError::Nothing { .. })));
        assert!(matches!(Cost::gpu_hours(&[row("a", 1e6, 1.0, 1.0, Some(0.0))]), Err(CostError::Nothing { .. })));
        let mut mixed = rows();
        mixed[1].convention = Convention::SixNd;
        assert!(matches!(Cost::compute(&mixed), Err(CostError::Mixed { .. })));
    }

    proptest! {
        #[test]
        fn price_is_continuous_and_finite(ln_n in 10.0..30.0f64) {
            let cost = Cost::compute(&rows()).unwrap();
            let (here, there) = (cost.ln_price(ln_n), cost.ln_price(ln_n + 1e-9));
            prop_assert!(here.is_finite() && (here - there).abs() < 1e-6);
        }
    }
}
