//! `sweep frontier`: the best model, samples seen and unique samples for a budget.

use serde::Serialize;

use super::analysis::{Law, Rows, fit_and_store, law_lines, line, load};
use super::output::{Exit, Failure, data, json};
use super::place::{positive, shipped_model};
use super::search::{Search, end};
use crate::fit::cost::Cost;
use crate::fit::frontier::{Allocation, Choice, Frontier, Limits, Model, best_model, frontier, models_of};
use crate::fit::{Axis, Interval};
use crate::report::number::{compact, significant, with_interval};
use crate::store::Store;
use crate::store::fit::StoredFit;

/// Options of `sweep frontier`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
A law of N and D (chinchilla, additive, ...) splits the budget; a law of compute alone only says what error it buys.
Example: sweep frontier openclip-2022 --metric imagenet1k/acc1 --law chinchilla --budget 1e13 --budget 1e14")]
pub(super) struct Args {
    /// Name of the sweep.
    sweep: String,
    #[command(flatten)]
    rows: Rows,
    #[command(flatten)]
    law: Law,
    #[command(flatten)]
    search: Search,
    /// Budget of a job, in the convention of compute (or GPU-hours with --gpu-hours); may be repeated.
    #[arg(long, value_name = "AMOUNT", value_parser = positive, required = true)]
    budget: Vec<f64>,
    /// Budgets are GPU-hours, priced by what the sweep's jobs cost.
    #[arg(long)]
    gpu_hours: bool,
    /// Unique samples that there are.
    #[arg(long, value_name = "U", value_parser = positive)]
    data: Option<f64>,
    /// Most samples seen.
    #[arg(long, value_name = "D", value_parser = positive)]
    samples_max: Option<f64>,
    /// Choose among models by name, may be repeated; `observed` stands for those of the sweep.
    #[arg(long, value_name = "NAME")]
    model: Vec<String>,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Body<'a> {
    sweep: &'a str,
    metric: String,
    fit: StoredFit,
    frontier: &'a Frontier,
    models: &'a [(f64, Vec<Choice>)],
}

pub(super) async fn run(args: Args) -> Result<Exit, Failure> {
    let store = Store::connect_to_read().await?;
    let loaded = load(&store, &args.sweep, &args.rows).await?;
    let options = args.law.options(&loaded.metric, args.search.method());
    let (fit, stored) = fit_and_store(&store, &loaded, &options).await?;
    let bad = |error: &dyn std::error::Error| Failure::bad_input(error.to_string());
    let cost = if args.gpu_hours {
        Cost::gpu_hours(&fit.observations).map_err(|error| bad(&error))?
    } else if fit.form().axes() == [Axis::C] {
        Cost::compute(&fit.observations).unwrap_or_else(|_| Cost::six_nd())
    } else {
        Cost::compute(&fit.observations).map_err(|error| bad(&error))?
    };
    let limits = Limits { unique_max: args.data, samples_max: args.samples_max, parameters: None };
    let found = frontier(&fit, &cost, &args.budget, limits).map_err(|error| bad(&error))?;
    let models = models(&args, &fit.observations)?;
    let mut choices = Vec::new();
    if !models.is_empty() {
        for &budget in &args.budget {
            choices.push((budget, best_model(&fit, &cost, &models, budget, limits).map_err(|error| bad(&error))?));
        }
    }
    let exit = if fit.verdict.is_trustworthy() { Exit::Done } else { Exit::Failed };
    if args.json {
        let metric = loaded.metric.name();
        json("sweep.frontier/1", &Body { sweep: &args.sweep, metric, fit: stored, frontier: &found, models: &choices });
        return Ok(end(&options.method, exit));
    }
    line("metric", &loaded.metric.name());
    law_lines(&fit);
    line("verdict", fit.verdict.as_str());
    for allocation in &found.allocations {
        data("");
        print(allocation, found.currency.unit());
    }
    if let Some(exponent) = &found.exponent {
        data("");
        line("N* ~", &format!("budget^{}", with_interval(exponent)));
    }
    for (budget, choices) in &choices {
        data(&format!("\nmodels at {}: best first", compact(*budget)));
        for choice in choices {
            data(&format!(
                "  {:<24} D {:<8} E {}  best in {:.0} % of resamples{}",
                choice.model.name,
                compact(choice.samples_seen),
                with_interval(&choice.error),
                100.0 * choice.best,
                if choice.far { ", far from what was seen" } else { "" }
            ));
        }
    }
    for note in &found.notes {
        line("note", &note.to_string());
    }
    Ok(end(&options.method, exit))
}

fn models(args: &Args, observations: &[crate::fit::Observation]) -> Result<Vec<Model>, Failure> {
    let observed = models_of(observations);
    let convention = observations.first().map(|row| row.convention);
    let mut models = Vec::new();
    for name in &args.model {
        if name == "observed" {
            models.extend(observed.iter().cloned());
        } else if let Some(model) = observed.iter().find(|model| model.name == *name) {
            models.push(model.clone());
        } else {
            let model = convention.and_then(|convention| shipped_model(name, convention));
            models.push(model.ok_or_else(|| {
                Failure::bad_input(format!("there is no model `{name}`")).hint("`sweep model` lists those with a name")
            })?);
        }
    }
    Ok(models)
}

fn print(allocation: &Allocation, unit: &str) {
    line("budget", &format!("{} {unit}", compact(allocation.budget)));
    let large = |interval: &Interval| {
        format!("{} [{}, {}]", compact(interval.value), compact(interval.low), compact(interval.high))
    };
    for (label, value) in [
        ("N*", &allocation.parameters),
        ("D*", &allocation.samples_seen),
        ("U*", &allocation.unique_samples),
        ("D*/N*", &allocation.samples_per_parameter),
        ("epochs", &allocation.epochs),
    ] {
        if let Some(interval) = value {
            line(label, &large(interval));
        }
    }
    line("E*", &with_interval(&allocation.error));
    if let Some(edge) = &allocation.edge {
        line("where", &edge.to_string());
    }
    if allocation.at_end > 0.0 {
        line(
            "caution",
            &format!("{} % of resamples ended at the least or most N", significant(100.0 * allocation.at_end, 2)),
        );
    }
}
