//! `sweep backtest`: how well laws forecast what they had not seen.

use comfy_table::{CellAlignment, Table, presets};
use serde::Serialize;

use super::analysis::{Law, Rows, line, load, no_fit};
use super::output::{Exit, Failure, data, json, say};
use super::search::{Search, end};
use crate::fit::backtest::{BackTest, HoldOut, Split, backtest};
use crate::fit::choose::{Choice, Contest, choose};
use crate::fit::{LawName, Options};
use crate::report::number::significant;
use crate::store::Store;

/// Searches for the minimum of each law at each cut.
const STARTS_EACH: usize = 8;

/// Options of `sweep backtest`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Without --only, all laws that the data have the axes for are compared by three objectives and their own delta; the
default law is kept unless another halves its held-out error. More than 8 --starts count as 8 there.
Example: sweep backtest openclip-2022 --metric imagenet1k/acc1 --hold-out rolling:N")]
pub(super) struct Args {
    /// Name of the sweep.
    sweep: String,
    #[command(flatten)]
    rows: Rows,
    #[command(flatten)]
    law: Law,
    #[command(flatten)]
    search: Search,
    /// What is held out: rolling:C, :N, :D or :U (train below, test above), leave-out:model, :data-size or
    /// :samples-seen.
    #[arg(long, default_value = "rolling:C", value_name = "SPLIT")]
    hold_out: Split,
    /// Back-test only the law and objective given, each cut on its own line, with the coverage of its intervals.
    #[arg(long)]
    only: bool,
    /// Laws to compare, may be repeated [default: all].
    #[arg(long, value_name = "LAW")]
    among: Vec<LawName>,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct One<'a> {
    sweep: &'a str,
    metric: String,
    backtest: &'a BackTest,
}

#[derive(Serialize)]
struct All<'a> {
    sweep: &'a str,
    metric: String,
    choice: &'a Choice,
}

pub(super) async fn run(args: Args) -> Result<Exit, Failure> {
    let store = Store::connect_to_read().await?;
    let loaded = load(&store, &args.sweep, &args.rows).await?;
    let options = args.law.options(&loaded.metric, args.search.method());
    let metric = loaded.metric.name();
    if args.only {
        let report = backtest(&loaded.observations, &options, &HoldOut::new(args.hold_out)).map_err(|e| no_fit(&e))?;
        if args.json {
            json("sweep.backtest/1", &One { sweep: &args.sweep, metric, backtest: &report });
        } else {
            one(&metric, &report);
        }
        return Ok(end(&options.method, if report.pooled.is_some() { Exit::Done } else { Exit::Failed }));
    }
    // Every law is searched for at every cut: fewer starts do, since variable projection finds most of them.
    let options = Options { starts: options.starts.min(STARTS_EACH), ..options };
    say("judging every law at every cut: about a minute for thirty jobs; --among LAW judges fewer");
    let contest = Contest { laws: args.among.clone(), ..Contest::new(args.hold_out, options) };
    let choice = choose(&loaded.observations, &contest).map_err(|error| no_fit(&error))?;
    if args.json {
        json("sweep.backtest/1", &All { sweep: &args.sweep, metric, choice: &choice });
    } else {
        all(&metric, &args, &choice);
    }
    let any = choice.contenders.iter().any(|contender| contender.held_out.is_some());
    Ok(end(&contest.options.method, if any { Exit::Done } else { Exit::Failed }))
}

fn one(metric: &str, report: &BackTest) {
    line("metric", metric);
    line("law", &format!("{} by {}, held out {}", report.law, report.objective, report.split));
    let mut table =
        table(&["trained on", "points", "rows held out", "RMSLE", "signed", "in interval", "pairs right", "beyond"]);
    for cut in &report.cuts {
        let scores = &cut.scores;
        table.add_row([
            cut.place.to_string(),
            cut.train_points.to_string(),
            scores.rows.to_string(),
            significant(scores.rmsle, 3),
            signed(scores.signed),
            percent(scores.coverage),
            percent(scores.decisions),
            format!("{:.1}x", scores.distance_max),
        ]);
    }
    data(&table.to_string());
    for skipped in &report.skipped {
        line("skipped", &skipped.to_string());
    }
    line("pooled", &report.to_string());
}

fn all(metric: &str, args: &Args, choice: &Choice) {
    line("metric", metric);
    line("held out", &format!("{} of {} rows", args.hold_out, choice.rows));
    let mut table =
        table(&["law", "objective", "held-out RMSLE", "signed", "pairs right", "in sample", "AICc", "cuts", "minimum"]);
    for contender in &choice.contenders {
        let held = contender.held_out.as_ref();
        table.add_row([
            contender.law.to_string(),
            if contender.auto_delta { "huber, own delta".to_owned() } else { contender.objective.to_string() },
            held.map_or("n/a".to_owned(), |held| significant(held.rmsle, 3)),
            held.map_or(String::new(), |held| signed(held.signed)),
            percent(held.and_then(|held| held.decisions)),
            significant(contender.in_sample_rmsle, 3),
            contender.criteria.as_ref().and_then(|c| c.aicc).map_or(String::new(), |aicc| format!("{aicc:.1}")),
            contender.cuts.to_string(),
            contender.status.to_string(),
        ]);
    }
    data(&table.to_string());
    for out in &choice.left_out {
        line("left out", &out.to_string());
    }
    line("choice", &choice.sentence);
}

fn signed(share: f64) -> String {
    let percent = 100.0 * share;
    if percent.abs() < 1000.0 { format!("{percent:+.1} %") } else { format!("{} %", significant(percent, 2)) }
}

fn percent(share: Option<f64>) -> String {
    share.map_or(String::new(), |share| format!("{:.0} %", 100.0 * share))
}

fn table(head: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING).set_header(head);
    for (index, column) in table.column_iter_mut().enumerate() {
        column.set_padding((0, 2));
        if index > 1 {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table
}
