//! `sweep influence`: what each job does to a law, and to a forecast.

use comfy_table::{CellAlignment, Table, presets};
use serde::Serialize;

use super::analysis::{Law, Rows, fit_and_store, law_lines, line, load, short};
use super::output::{Exit, Failure, data, json, say};
use super::place::{Job, Place};
use super::search::{Search, end};
use crate::fit::influence::{Effect, Influence, Shift, influence, peel};
use crate::report::number::significant;
use crate::store::Store;
use crate::store::fit::StoredFit;

/// Options of `sweep influence`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Each line is the law without one job: every parameter, and the forecast of the job that --model, --samples and --data name,
with the change in standard errors that the other jobs give. Outliers that hide each other are found by --peel.
Exit codes: 0; 1 where the law can't be fitted or its interval can't be used; 2 for bad input.
Example: sweep influence openclip-2022 --metric imagenet1k/acc1 --model ViT-G-14 --samples 68B")]
pub(super) struct Args {
    /// Name of the sweep.
    sweep: String,
    #[command(flatten)]
    rows: Rows,
    #[command(flatten)]
    law: Law,
    #[command(flatten)]
    search: Search,
    #[command(flatten)]
    place: Place,
    /// Take away the most influential job, look again at the rest, and so on, this many times.
    #[arg(long, default_value_t = 0, value_name = "STEPS")]
    peel: usize,
    /// Jobs to show.
    #[arg(long, default_value_t = 20, value_name = "COUNT")]
    top: usize,
    /// Print one JSON object, every job in it.
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Body<'a> {
    sweep: &'a str,
    metric: String,
    fit: StoredFit,
    verdict: &'static str,
    target: Option<&'a Job>,
    #[serde(flatten)]
    influence: &'a Influence,
    peeled: &'a [Effect],
}

pub(super) async fn run(args: Args) -> Result<Exit, Failure> {
    let store = Store::connect_to_read().await?;
    let loaded = load(&store, &args.sweep, &args.rows).await?;
    let place = &args.place;
    let named = place.model.is_some() || place.parameters.is_some() || place.samples.is_some() || place.data.is_some();
    let target = named.then(|| place.job(&loaded.observations)).transpose()?;
    let options = args.law.options(&loaded.metric, args.search.method());
    let (fit, stored) = fit_and_store(&store, &loaded, &options).await?;
    let at = target.as_ref().map(Job::input);
    if let Some(at) = &at
        && let Some(axis) = fit.form().axes().iter().find(|&&axis| !at.ln(axis).is_finite())
    {
        return Err(Failure::bad_input(format!("the law `{}` needs the {} of the job", fit.law, axis.describe()))
            .hint("name a model with --model, or add --samples and --data; `sweep laws` says what each law takes"));
    }
    let found = influence(&fit, &options, at.as_ref());
    let peeled = if args.peel > 0 { peel(&fit, &options, at.as_ref(), args.peel) } else { Vec::new() };
    let exit = if fit.verdict.is_trustworthy() { Exit::Done } else { Exit::Failed };
    if args.json {
        let body = Body {
            sweep: &args.sweep,
            metric: loaded.metric.name(),
            fit: stored,
            verdict: fit.verdict.as_str(),
            target: target.as_ref(),
            influence: &found,
            peeled: &peeled,
        };
        json("sweep.influence/1", &body);
        return Ok(end(&options.method, exit));
    }
    line("metric", &loaded.metric.name());
    law_lines(&fit);
    if let (Some(target), Some(at)) = (&target, &at) {
        line("job", &format!("{}: E = {}", target.describe(), significant(fit.value(at), 4)));
    }
    data("");
    let shown = &found.effects[..args.top.min(found.effects.len())];
    for row in table(shown) {
        data(&row);
    }
    data("");
    for effect in &peeled {
        line("peeled", &effect.to_string());
    }
    if let Some(caution) = &found.caution {
        line("caution", caution);
    }
    for caution in &fit.cautions {
        line("caution", &caution.to_string());
    }
    line("verdict", fit.verdict.as_str());
    if shown.len() < found.effects.len() {
        let more = found.effects.len() - shown.len();
        say(&format!("\n{more} more jobs; `--top {}` shows all", found.effects.len()));
    }
    Ok(end(&options.method, exit))
}

fn table(effects: &[Effect]) -> Vec<String> {
    let mut names: Vec<&str> = Vec::new();
    for shift in effects.iter().flat_map(shifts) {
        if !names.contains(&shift.name) {
            names.push(shift.name);
        }
    }
    let mut table = Table::new();
    let mut header = vec!["without".to_owned(), "model".to_owned()];
    header.extend(names.iter().flat_map(|name| [(*name).to_owned(), "s.e.".to_owned()]));
    table.load_preset(presets::NOTHING).set_header(header);
    for effect in effects {
        let key = effect.job_keys.first().map_or("", |key| short(key)).to_owned();
        let mut row = vec![key, effect.models.join(", ")];
        if let Some(why) = effect.unfit {
            row.push(format!("no fit: {why}"));
        }
        for shift in shifts(effect) {
            row.push(significant(shift.without, 4));
            row.push(shift.in_errors.map_or("-".to_owned(), |errors| format!("{errors:+.1}")));
        }
        table.add_row(row);
    }
    for column in table.column_iter_mut().skip(2) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table.lines().map(|line| line.trim_end().to_owned()).collect()
}

fn shifts(effect: &Effect) -> impl Iterator<Item = &Shift> {
    effect.forecast.iter().chain(&effect.parameters)
}
