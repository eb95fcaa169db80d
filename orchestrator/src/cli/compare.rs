//! `sweep compare`: two training sets or families of models, law against law.

use serde::Serialize;

use super::analysis::{Law, Loaded, Rows, fit_and_store, line, load, with_numbers};
use super::output::{Exit, Failure, data, json};
use super::place::positive;
use super::search::{Search, end};
use crate::fit::compare::{CompareOptions, Comparison, compare};
use crate::fit::cost::Cost;
use crate::fit::frontier::Limits;
use crate::fit::{Axis, Fit};
use crate::report::number::{compact, significant, with_interval};
use crate::store::Store;
use crate::store::fit::StoredFit;

/// Options of `sweep compare`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
A and B may be one sweep, split by --where-a and --where-b. Laws of N and D are compared along their frontiers.
Example: sweep compare openclip-2022 openclip-2022-openai --metric imagenet1k/acc1")]
pub(super) struct Args {
    /// Name of the first sweep.
    a: String,
    /// Name of the second.
    b: String,
    #[command(flatten)]
    rows: Rows,
    /// Only rows of A for which this SQL condition holds.
    #[arg(long, value_name = "SQL")]
    where_a: Option<String>,
    /// Only rows of B for which this SQL condition holds.
    #[arg(long, value_name = "SQL")]
    where_b: Option<String>,
    #[command(flatten)]
    law: Law,
    #[command(flatten)]
    search: Search,
    /// Compare at this compute, may be repeated [default: the ends of what both were observed at].
    #[arg(long, value_name = "C", value_parser = positive)]
    at: Vec<f64>,
    /// Take both to be equally noisy: for families of a few jobs.
    #[arg(long)]
    pool: bool,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Side<'a> {
    sweep: &'a str,
    condition: &'a str,
    fit: StoredFit,
    verdict: &'static str,
}

#[derive(Serialize)]
struct Body<'a> {
    metric: String,
    a: Side<'a>,
    b: Side<'a>,
    comparison: &'a Comparison,
}

pub(super) async fn run(args: Args) -> Result<Exit, Failure> {
    let store = Store::connect_to_read().await?;
    let of = |own: &Option<String>| {
        let conditions: Vec<String> =
            [&args.rows.condition, own].into_iter().flatten().map(|condition| format!("({condition})")).collect();
        Rows { condition: (!conditions.is_empty()).then(|| conditions.join(" AND ")), ..args.rows.clone() }
    };
    let a = load(&store, &args.a, &of(&args.where_a)).await?;
    let b = load(&store, &args.b, &of(&args.where_b)).await?;
    let method = args.search.method();
    let (fit_a, stored_a) = fit_and_store(&store, &a, &args.law.options(&a.metric, method.clone())).await?;
    let (fit_b, stored_b) = fit_and_store(&store, &b, &args.law.options(&b.metric, method.clone())).await?;
    let bad = |error: &dyn std::error::Error| Failure::bad_input(error.to_string());
    let rows: Vec<_> = a.observations.iter().chain(&b.observations).cloned().collect();
    let cost = if fit_a.form().axes() == [Axis::C] { None } else { Some(Cost::compute(&rows).map_err(|e| bad(&e))?) };
    let at = if args.at.is_empty() { ends(&fit_a, &fit_b) } else { args.at.clone() };
    let options = CompareOptions {
        pool: args.pool,
        seed: args.law.seed,
        along: cost.as_ref().map(|cost| (cost, Limits::default())),
        ..CompareOptions::new(at)
    };
    let comparison = compare(&fit_a, &fit_b, &options).map_err(|error| bad(&error))?;
    if args.json {
        let side = |loaded: &'_ Loaded, stored, fit: &Fit| (loaded.sweep.clone(), stored, fit.verdict.as_str());
        let (left, right) = (side(&a, stored_a, &fit_a), side(&b, stored_b, &fit_b));
        json(
            "sweep.compare/1",
            &Body {
                metric: a.metric.name(),
                a: Side { sweep: &left.0, condition: &a.condition, fit: left.1, verdict: left.2 },
                b: Side { sweep: &right.0, condition: &b.condition, fit: right.1, verdict: right.2 },
                comparison: &comparison,
            },
        );
    } else {
        print(&a, &fit_a, &b, &fit_b, &comparison);
    }
    Ok(end(&method, Exit::Done))
}

/// Least and most compute that both families were observed at; of either, where they have none in common.
fn ends(a: &Fit, b: &Fit) -> Vec<f64> {
    let range = |fit: &Fit| {
        let computes = fit.observations.iter().map(|row| row.compute).filter(|compute| compute.is_finite());
        computes.fold((f64::INFINITY, 0.0_f64), |(low, high), c| (low.min(c), high.max(c)))
    };
    let (a, b) = (range(a), range(b));
    let (low, high) = (a.0.max(b.0), a.1.min(b.1));
    if low < high { vec![low, high] } else { vec![a.0.min(b.0), a.1.max(b.1)] }
}

fn print(a: &Loaded, fit_a: &Fit, b: &Loaded, fit_b: &Fit, comparison: &Comparison) {
    line("metric", &a.metric.name());
    for (name, loaded, fit) in [("A", a, fit_a), ("B", b, fit_b)] {
        let condition =
            if loaded.condition.is_empty() { String::new() } else { format!(" where {}", loaded.condition) };
        line(name, &format!("{}{condition}: {} rows, {}", loaded.sweep, fit.observations.len(), with_numbers(fit)));
    }
    for difference in &comparison.differences {
        line(
            &difference.name,
            &format!(
                "A {}, B {}, A - B {}",
                significant(difference.a, 3),
                significant(difference.b, 3),
                with_interval(&difference.difference)
            ),
        );
    }
    for at in &comparison.at {
        data("");
        line("at C", &compact(at.compute));
        line("E_A / E_B", &with_interval(&at.ratio));
        line("C_A / C_B", &format!("{} for the error that B reaches", with_interval(&at.multiplier)));
        line("A better", &format!("in {:.0} % of {} draws", 100.0 * at.a_better, comparison.draws));
    }
    data("");
    line("crossover", &comparison.crossover.to_string());
    if let Some(shared) = &comparison.shared_exponent {
        line(
            "same slope",
            &format!("F(1, {}) = {}, p = {}", shared.free, significant(shared.f, 3), significant(shared.p, 2)),
        );
    }
    for caution in &comparison.cautions {
        line("caution", &caution.to_string());
    }
}
