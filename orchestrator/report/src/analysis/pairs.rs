//! The bootstrap's resamples of a law's parameters.

use super::words::symbol;
use super::{Material, Undrawable};
use crate::figures::pairs::PairsFigure;
use fit::law::Scale;

/// The figure: parameters that are held by their logarithm are shown so.
pub fn figure(of: Material<'_>) -> Result<PairsFigure, Undrawable> {
    let (fit, form) = (of.fit, of.fit.form());
    let free: Vec<usize> = (0..fit.parameters.len()).filter(|&index| !fit.parameters[index].frozen).collect();
    if fit.replicates.is_empty() || free.is_empty() {
        return Err(Undrawable::lacks("there are no resamples", "ask for some: --resamples 1000"));
    }
    let name = |&index: &usize| {
        let parameter = &form.parameters()[index];
        match parameter.scale {
            Scale::Log => format!("ln {}", symbol(parameter.name)),
            Scale::Linear => symbol(parameter.name).to_owned(),
        }
    };
    let pick = |theta: &[f64]| free.iter().map(|&index| theta[index]).collect::<Vec<f64>>();
    Ok(PairsFigure {
        title: format!("{}: {} resamples of {}", of.subject.name, fit.replicates.len(), form.formula()),
        names: free.iter().map(name).collect(),
        optimum: pick(&fit.solution.best.theta),
        resamples: fit.replicates.iter().map(|theta| pick(theta)).collect(),
    })
}
