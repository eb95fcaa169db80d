//! `sweep isoflop`: the best model size at each budget, off the fitted surface and as the literature does it.

use comfy_table::{CellAlignment, Table, presets};
use serde::Serialize;

use super::analysis::{Law, Rows, fit_and_store, law_lines, line, load};
use super::output::{Exit, Failure, data, json, say};
use super::place::positive;
use super::search::{Search, end};
use crate::fit::cost::Cost;
use crate::fit::frontier::Limits;
use crate::fit::isoflop::{Budget, Exponent, IsoFlop, Optimum, Setting, TOLERANCE, isoflop, isoflop_of};
use crate::fit::{Axis, LawName};
use crate::report::number::{compact, significant};
use crate::store::Store;
use crate::store::fit::StoredFit;

/// Options of `sweep isoflop`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Rows of about one compute are a budget. The surface is a law of N and D (default: chinchilla); the parabola in ln N and
Akima's interpolation use the rows of one budget each. `bias` is what the parabola is wrong by on the surface's own values.
Exit codes: 0; 1 where the rows hold no budget or no N* at all; 2 for bad input.
Example: sweep isoflop chinchilla --metric c4/loss --law chinchilla --tolerance 0.2")]
pub(super) struct Args {
    /// Name of the sweep.
    sweep: String,
    #[command(flatten)]
    rows: Rows,
    #[command(flatten)]
    law: Law,
    #[command(flatten)]
    search: Search,
    /// Rows whose ln C differ by no more are of one budget.
    #[arg(long, default_value_t = TOLERANCE, value_name = "SHARE", value_parser = positive)]
    tolerance: f64,
    /// Unique samples that there are.
    #[arg(long, value_name = "U", value_parser = positive)]
    data: Option<f64>,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Body<'a> {
    sweep: &'a str,
    metric: String,
    law: Option<LawName>,
    fit: Option<StoredFit>,
    #[serde(flatten)]
    isoflop: &'a IsoFlop,
}

pub(super) async fn run(args: Args) -> Result<Exit, Failure> {
    let store = Store::connect_to_read().await?;
    let loaded = load(&store, &args.sweep, &args.rows).await?;
    let cost = Cost::compute(&loaded.observations).map_err(|error| Failure::bad_input(error.to_string()))?;
    let limits = Limits { unique_max: args.data, ..Limits::default() };
    let setting = Setting { limits, tolerance: args.tolerance, ..Setting::new(&cost) };
    let mut options = args.law.options(&loaded.metric, args.search.method());
    if options.law == LawName::Power(Axis::C) {
        // The default of all commands has no N.
        options.law = LawName::Chinchilla;
    }
    if ![Axis::N, Axis::D].iter().all(|axis| options.law.law(1.0).axes().contains(axis)) {
        return Err(Failure::bad_input(format!("the law `{}` is not one of N and D", options.law))
            .hint("use chinchilla, additive or another of both: `sweep laws`"));
    }
    let fitted = match crate::fit::fit(
        &loaded.observations,
        &crate::fit::Options { resamples: 0, starts: 1, ..options.clone() },
    ) {
        Ok(_) => Some(fit_and_store(&store, &loaded, &options).await?),
        Err(error) => {
            say(&format!("no surface: {error}"));
            None
        }
    };
    let found = match &fitted {
        Some((fit, _)) => isoflop_of(fit, setting),
        None => isoflop(&loaded.observations, None, setting),
    };
    let any = found.budgets.iter().any(|one| one.surface.or(one.parabola).or(one.akima).is_some());
    let exit = if any { Exit::Done } else { Exit::Failed };
    if args.json {
        let metric = loaded.metric.name();
        let (law, fit) = (fitted.as_ref().map(|(fit, _)| fit.law), fitted.as_ref().map(|(_, stored)| *stored));
        json("sweep.isoflop/1", &Body { sweep: &args.sweep, metric, law, fit, isoflop: &found });
        return Ok(end(&options.method, exit));
    }
    line("metric", &loaded.metric.name());
    if let Some((fit, _)) = &fitted {
        law_lines(fit);
        line("verdict", fit.verdict.as_str());
    }
    if found.budgets.is_empty() {
        line("budgets", "none: no two rows of different N have about the same compute");
        say("\nhint: let rows differ more in compute with --tolerance, for example 0.3");
        return Ok(end(&options.method, exit));
    }
    data("");
    for row in table(&found.budgets) {
        data(&row);
    }
    data("");
    for (name, exponent) in [("surface", &found.surface), ("parabola", &found.parabola), ("Akima", &found.akima)] {
        line(name, &power(exponent.as_ref()));
    }
    for budget in &found.budgets {
        for flag in &budget.flags {
            line("flag", &format!("C {}: {flag}", significant(budget.compute, 3)));
        }
    }
    if found.rows_left_out > 0 {
        line("left out", &format!("{} rows of no budget", found.rows_left_out));
    }
    Ok(end(&options.method, exit))
}

fn power(exponent: Option<&Exponent>) -> String {
    match exponent {
        Some(one) => format!("N* ~ C^{} over {} budgets", significant(one.a, 3), one.budgets),
        None => "no exponent: fewer than two budgets with an optimum".to_owned(),
    }
}

fn table(budgets: &[Budget]) -> Vec<String> {
    let size = |optimum: Option<Optimum>| optimum.map_or("-".to_owned(), |optimum| compact(optimum.parameters));
    let mut table = Table::new();
    let header = ["C", "rows", "sizes", "N* surface", "D*", "E*", "N* parabola", "N* Akima", "bias"];
    table.load_preset(presets::NOTHING).set_header(header);
    for budget in budgets {
        let surface = |of: fn(Optimum) -> String| budget.surface.map_or("-".to_owned(), of);
        let bias = budget.parabola_bias.map(|bias| 100.0 * bias.exp_m1());
        table.add_row([
            significant(budget.compute, 3),
            budget.rows.to_string(),
            budget.sizes.to_string(),
            size(budget.surface),
            surface(|optimum| compact(optimum.samples_seen)),
            surface(|optimum| significant(optimum.error, 4)),
            size(budget.parabola),
            size(budget.akima),
            bias.map_or("-".to_owned(), |bias| format!("{bias:+.1} %")),
        ]);
    }
    for column in table.column_iter_mut() {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table.lines().map(|line| line.trim_end().to_owned()).collect()
}
