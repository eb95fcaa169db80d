//! What a study's money bought: the interval of a forecast against what was spent (the accuracy against cost of Porian
//! et al. 2024, arXiv 2406.19146, section 5).

use std::collections::BTreeMap;

use serde::Serialize;

use super::AdviseError;
use crate::interval::Interval;
use crate::law::Input;
use crate::observation::Observation;
use crate::outcome::Verdict;
use crate::{Options, fit};

/// The forecast from the jobs that so much money buys, cheapest first.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct DesignPoint {
    /// What the jobs cost.
    pub spent: f64,
    /// Jobs.
    pub jobs: usize,
    /// E at the target; `None` where these jobs can't be fitted.
    pub forecast: Option<Interval>,
    /// What to make of the fit.
    pub verdict: Option<Verdict>,
    /// Why there is none.
    pub problem: Option<String>,
}

/// Refits at `steps` rising budgets, evenly spaced in the logarithm between the cheapest job and all of them. `cost_of`
/// is the price of a row's job; rows of one job cost what the dearest of them does.
pub fn design_value(
    observations: &[Observation],
    options: &Options,
    target: &Input,
    cost_of: &dyn Fn(&Observation) -> f64,
    steps: usize,
) -> Result<Vec<DesignPoint>, AdviseError> {
    let mut jobs: BTreeMap<&str, (f64, Vec<usize>)> = BTreeMap::new();
    for (row, observation) in observations.iter().enumerate() {
        let job = jobs.entry(&observation.job_key).or_insert((0.0, Vec::new()));
        let cost = cost_of(observation);
        if !(cost.is_finite() && cost > 0.0) {
            let what = format!("the cost of job {}", observation.job_key);
            return Err(AdviseError::Value { what, value: cost, allowed: "a positive number" });
        }
        job.0 = job.0.max(cost);
        job.1.push(row);
    }
    let mut jobs: Vec<(f64, Vec<usize>)> = jobs.into_values().collect();
    jobs.sort_by(|a, b| a.0.total_cmp(&b.0));
    let (Some(first), total) = (jobs.first(), jobs.iter().map(|job| job.0).sum::<f64>()) else {
        return Err(AdviseError::None("observations are"));
    };
    let (low, steps) = (first.0.ln(), steps.max(2));
    let mut points: Vec<DesignPoint> = Vec::new();
    for step in 0..steps {
        let budget = (low + (total.ln() - low) * step as f64 / (steps - 1) as f64).exp() * (1.0 + 1e-12);
        let (mut spent, mut bought) = (0.0, 0);
        while bought < jobs.len() && spent + jobs[bought].0 <= budget {
            spent += jobs[bought].0;
            bought += 1;
        }
        if points.last().is_some_and(|point| point.jobs == bought) {
            continue;
        }
        let rows: Vec<Observation> =
            jobs[..bought].iter().flat_map(|job| &job.1).map(|&row| observations[row].clone()).collect();
        let point = DesignPoint { spent, jobs: bought, forecast: None, verdict: None, problem: None };
        points.push(match fit(&rows, options) {
            Err(error) => DesignPoint { problem: Some(error.to_string()), ..point },
            Ok(fit) => {
                let form = fit.form();
                let at = |theta: &[f64]| form.ln_at(theta, target).exp();
                let forecast =
                    fit.interval_from(at(&fit.solution.best.theta), fit.replicates.iter().map(|theta| at(theta)));
                DesignPoint { forecast: Some(forecast), verdict: Some(fit.verdict), ..point }
            }
        });
    }
    Ok(points)
}
