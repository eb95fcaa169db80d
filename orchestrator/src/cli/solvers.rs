//! `sweep fit --solver all`: the solvers side by side on one fit. Nothing is stored.

use std::time::Instant;

use serde::Serialize;

use super::analysis::{Loaded, line, no_fit};
use super::fit::Args;
use super::output::{Exit, Failure, data, json};
use super::search::end;
use crate::fit::solvers::{Agreement, BySolver, SAME_OBJECTIVE, SAME_PARAMETER, SharedOptimum, agreement};
use crate::fit::{Fit, Options, SolverKind, fit};
use crate::report::number::significant;

#[derive(Serialize)]
struct Body<'a> {
    sweep: &'a str,
    metric: String,
    condition: &'a str,
    law: String,
    formula: &'static str,
    objective: String,
    /// Names of the parameters, in their order.
    parameters: Vec<&'static str>,
    options: &'a Options,
    same_objective: f64,
    same_parameter: f64,
    #[serde(flatten)]
    agreement: &'a Agreement,
}

/// Searches with each solver from the same starts, and compares what they found.
pub(super) fn side_by_side(args: &Args, loaded: &Loaded) -> Result<Exit, Failure> {
    let options = |solver| Options { resamples: 0, ..args.law.options(&loaded.metric, args.search.method(solver)) };
    let mut fits = Vec::new();
    for solver in SolverKind::ALL {
        let options = options(solver);
        let begun = Instant::now();
        let fitted = fit(&loaded.observations, &options).map_err(|error| no_fit(&error))?;
        fits.push((fitted, Some(begun.elapsed())));
    }
    let found = agreement(&fits);
    let first = &fits[0].0;
    let form = first.form();
    if args.json {
        let body = Body {
            sweep: &args.sweep,
            metric: loaded.metric.name(),
            condition: &loaded.condition,
            law: first.law.to_string(),
            formula: form.formula(),
            objective: first.objective.to_string(),
            parameters: form.parameters().iter().map(|parameter| parameter.name).collect(),
            options: &options(SolverKind::Newton),
            same_objective: SAME_OBJECTIVE,
            same_parameter: SAME_PARAMETER,
            agreement: &found,
        };
        json("sweep.solvers/1", &body);
    } else {
        print(loaded, first, &found);
    }
    let exit = if found.agree { Exit::Done } else { Exit::Failed };
    let (one, _) = fits.iter().find(|(fit, _)| fit.method.was_cut()).unwrap_or(&fits[0]);
    Ok(end(&one.method, exit))
}

fn print(loaded: &Loaded, first: &Fit, found: &Agreement) {
    let form = first.form();
    line("metric", &loaded.metric.name());
    line("law", &format!("{}   ({}, by {})", form.formula(), first.law, first.objective));
    line("points", &format!("{} of {} rows", first.points.len(), first.observations.len()));
    data("");
    let names =
        form.parameters().iter().map(|parameter| format!("{:>12}", parameter.name)).collect::<Vec<_>>().concat();
    data(&format!(
        "{:<14}{:>14}{:>12}{:>10}{:>8}{:>10}  {:<12}{names}",
        "solver", "objective", "above least", "parameter", "hits", "ms", "status"
    ));
    found.solvers.iter().for_each(|one| data(&row(one)));
    data("");
    for (place, optimum) in found.optima.iter().enumerate() {
        line(if place == 0 { "minima" } else { "" }, &place_of(optimum, &found.solvers));
    }
    let tolerances = format!(
        "objectives within {} of the least, parameters within {}",
        significant(SAME_OBJECTIVE, 1),
        significant(SAME_PARAMETER, 1)
    );
    let others: Vec<String> =
        found.solvers.iter().filter(|one| !one.agrees).map(|one| one.solver.to_string()).collect();
    if found.agree {
        line("verdict", &format!("the solvers agree ({tolerances})"));
    } else {
        line("verdict", &format!("the solvers disagree: {} found something else ({tolerances})", others.join(", ")));
    }
    line("stored", "nothing: fit with one of them for intervals and a row");
}

fn row(one: &BySolver) -> String {
    let parameters =
        one.parameters.iter().map(|value| format!("{:>12}", significant(*value, 6))).collect::<Vec<_>>().concat();
    let time = one.seconds.map_or("-".to_owned(), |seconds| format!("{:.1}", 1e3 * seconds));
    format!(
        "{:<14}{:>14}{:>12}{:>10}{:>8}{:>10}  {:<12}{parameters}",
        one.solver.as_str(),
        significant(one.objective, 8),
        tiny(one.above_least),
        tiny(one.parameter_off),
        format!("{:.0} %", 100.0 * one.hit_rate),
        time,
        one.status.to_string()
    )
}

/// A share; what rounding may leave is not shown in digits.
fn tiny(share: f64) -> String {
    if share < 1e-9 { "< 1e-9".to_owned() } else { significant(share, 1) }
}

/// `0.00123: newton 30, lbfgs 28, trust-region 31`
fn place_of(optimum: &SharedOptimum, solvers: &[BySolver]) -> String {
    let found = solvers.iter().zip(&optimum.hits).map(|(one, hits)| format!("{} {hits}", one.solver));
    format!("{}: {}", significant(optimum.objective, 6), found.collect::<Vec<_>>().join(", "))
}
