//! `sweep advise`: which jobs to run next, so that a forecast's interval narrows most for what they cost.

mod write;

use std::path::{Path, PathBuf};

use comfy_table::{CellAlignment, Table, presets};
use serde::Serialize;

use super::analysis::{Loaded, Rows, fit_and_store, line, load, no_fit, with_numbers};
use super::candidates::{Asked, Cell, of_plan, of_rows};
use super::hashing;
use super::output::{Exit, Failure, data, json, say};
use super::place::{Job, Place, positive};
use super::plan::{unplannable, with_choices};
use super::search::{Search, end};
use crate::fit::advise::{Advice, AdviseError, AdviseOptions, Candidate, PICKS_MAX, Pick, Stop, advise};
use crate::fit::cost::{Cost, Currency};
use crate::fit::{
    Axis, Fit, FitError, Interval, LawName, Objective, Observation, Options, Points, RESAMPLES, Response, STARTS,
};
use crate::plan::inputs::{gather, read_spec};
use crate::plan::{LoadError, Plan};
use crate::report::number::{compact, significant, with_interval};
use crate::spec::{Spec, quantity};
use crate::store::Store;
use crate::store::fit::StoredFit;

/// Options of `sweep advise`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
The job to forecast is named by --model (or --parameters), --samples and --data. Candidates are the cells of the sweep
(again, with a new seed) and those beside them; each pick is believed run before the next is chosen.
Exit codes: 0 for advice, none included (it says why); 1 where no law can be fitted; 2 for bad input.
Examples: sweep advise study.yaml --metric emoji-val/loss@1024 --model cpu-w96-l4 --samples 1M --budget 1e4 -o next.yaml
          sweep advise openclip-2022 --metric imagenet1k/acc1 --model ViT-G-14 --samples 68B --budget 1e13 --width 5%")]
pub(super) struct Args {
    /// Spec of a sweep that was launched, or the name of any sweep.
    #[arg(value_name = "SPEC")]
    spec: String,
    #[command(flatten)]
    rows: Rows,
    /// The form, may be repeated: then they compete [default: additive where N, D and repeats (D/U) vary, else
    /// chinchilla where N and D do, else power].
    #[arg(long = "law", value_name = "LAW")]
    laws: Vec<LawName>,
    /// What is minimised, as for `sweep fit`.
    #[arg(long, default_value = "ls-log", value_name = "OBJECTIVE")]
    objective: Objective,
    /// Which points the law goes through, as for `sweep fit`.
    #[arg(long, default_value = "all", value_name = "POLICY")]
    points: Points,
    /// Searches for the minimum.
    #[arg(long, default_value_t = STARTS, value_name = "COUNT")]
    starts: usize,
    /// Resamples of the fits that are stored; the advice itself needs none.
    #[arg(long, default_value_t = RESAMPLES, value_name = "COUNT")]
    resamples: usize,
    /// Seed of all that is drawn.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    #[command(flatten)]
    search: Search,
    #[command(flatten)]
    place: Place,
    /// What all jobs together may cost, in the convention of compute (or GPU-hours with --gpu-hours).
    #[arg(long, value_name = "AMOUNT", value_parser = positive)]
    budget: f64,
    /// The budget is GPU-hours, priced by what the sweep's jobs cost.
    #[arg(long)]
    gpu_hours: bool,
    /// Stop where the 95 % interval is this narrow, relative to its value: 5% or 0.05.
    #[arg(long, value_name = "WIDTH", value_parser = share)]
    width: Option<f64>,
    /// Most jobs to advise.
    #[arg(long, default_value_t = PICKS_MAX, value_name = "COUNT")]
    jobs: usize,
    /// Models to choose among, may be repeated [default: the sweep's].
    #[arg(long, value_name = "NAME")]
    candidates_model: Vec<String>,
    /// Samples seen to choose among, may be repeated [default: the sweep's, and 2 and 4 times the most].
    #[arg(long, value_name = "D", value_parser = positive)]
    candidates_samples: Vec<f64>,
    /// Unique samples to choose among, may be repeated [default: the sweep's].
    #[arg(long, value_name = "U", value_parser = positive)]
    candidates_data: Vec<f64>,
    /// No second job in a cell that has one.
    #[arg(long)]
    no_replicates: bool,
    /// Write SPEC with the jobs added to `include`.
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

/// `5%` or `0.05`.
fn share(text: &str) -> Result<f64, String> {
    let value = match text.trim().strip_suffix('%') {
        Some(percent) => quantity::number(percent).map(|percent| percent / 100.0),
        None => quantity::number(text),
    };
    match value {
        Ok(value) if value > 0.0 && value.is_finite() => Ok(value),
        _ => Err("a share above zero is wanted, such as 5% or 0.05".to_owned()),
    }
}

/// A spec with its plan.
struct Study {
    path: PathBuf,
    spec: Spec,
    plan: Plan,
}

/// A pick as it is shown and written.
#[derive(Debug, Serialize)]
struct Row {
    #[serde(flatten)]
    job: Job,
    data_size: f64,
    /// Of a sweep whose spec is known.
    seed: Option<u64>,
    /// `new`, `replicate`, or `planned`: in the spec already, and not measured yet.
    kind: &'static str,
    cost: f64,
    spent: f64,
    gain: f64,
    after: Interval,
    #[serde(skip)]
    written: String,
}

#[derive(Serialize)]
struct LawRow {
    law: LawName,
    fit: StoredFit,
    verdict: &'static str,
}

#[derive(Serialize)]
struct Body<'a> {
    sweep: &'a str,
    metric: String,
    laws: Vec<LawRow>,
    target: &'a Job,
    currency: Currency,
    budget: f64,
    candidates: usize,
    picks: &'a [Row],
    stop: Stop,
    why: String,
    before: Interval,
    spent: f64,
    modes: &'a [crate::fit::advise::Mode],
    noise: crate::fit::advise::Noise,
    written: Option<&'a Path>,
}

pub(super) async fn run(args: Args) -> Result<Exit, Failure> {
    let study = study(&args).await?;
    if args.rows.checkpoints {
        return Err(Failure::bad_input("advice is on whole jobs, so --checkpoints can't be used").hint("leave it out"));
    }
    let store = Store::connect_to_read().await?;
    let sweep = study.as_ref().map_or(args.spec.as_str(), |study| &study.spec.name);
    let loaded = load(&store, sweep, &args.rows).await?;
    let target = args.place.job(&loaded.observations)?;
    let asked =
        Asked { models: &args.candidates_model, samples: &args.candidates_samples, data: &args.candidates_data };
    let mut cells = match &study {
        Some(study) => of_plan(&study.spec, &study.plan, &loaded.observations, asked)?,
        None => of_rows(&loaded.observations, asked)?,
    };
    let cost = if args.gpu_hours { Cost::gpu_hours } else { Cost::compute };
    let cost = cost(&loaded.observations).map_err(|error| Failure::bad_input(error.to_string()))?;
    let candidates: Vec<Candidate> = cells.iter().map(|cell| candidate(cell, &cost)).collect();
    let fits = fits(&args, &store, &loaded).await?;
    let options = AdviseOptions {
        width: args.width,
        picks_max: args.jobs,
        replicates: !args.no_replicates,
        seed: args.seed,
        ..AdviseOptions::new(args.budget)
    };
    let only: Vec<&Fit> = fits.iter().map(|(fit, _)| fit).collect();
    let advice = advise(&only, &[target.input()], &candidates, &options).map_err(|error| unadvised(&error))?;
    let rows: Vec<Row> = advice.picks.iter().map(|pick| row(pick, &mut cells, study.is_some())).collect();
    let written = match (&args.output, &study) {
        (Some(output), Some(study)) => write::write(output, study, &rows).await?.then_some(output.as_path()),
        _ => None,
    };
    if args.json {
        let law =
            |(fit, stored): &(Fit, StoredFit)| LawRow { law: fit.law, fit: *stored, verdict: fit.verdict.as_str() };
        let body = Body {
            sweep,
            metric: loaded.metric.name(),
            laws: fits.iter().map(law).collect(),
            target: &target,
            currency: cost.currency,
            budget: args.budget,
            candidates: candidates.len(),
            picks: &rows,
            stop: advice.stop,
            why: advice.stop.to_string(),
            before: advice.before[0],
            spent: advice.spent,
            modes: &advice.modes,
            noise: advice.noise,
            written,
        };
        json("sweep.advise/1", &body);
    } else {
        let cheapest = candidates.iter().map(|candidate| candidate.cost).fold(f64::NAN, f64::min);
        print(&args, &loaded, &only, &target, &advice, &rows, (cost.currency, cheapest));
        let most = cells.iter().map(|cell| cell.job.unique_samples).fold(f64::NAN, f64::max);
        if advice.stop == Stop::NothingHelps && target.unique_samples > most {
            let (target, most) = (compact(target.unique_samples), compact(most));
            say(&format!(
                "\nhint: {target} unique samples are forecast and no candidate has over {most}: --candidates-data"
            ));
        }
    }
    match (&args.output, written) {
        (_, Some(path)) => {
            let (old, path) = (args.spec.as_str(), path.display());
            say(&format!(
                "\nwrote {path}: {old} with the jobs above\nnext: `sweep plan {path}`, `sweep launch {path}`"
            ));
        }
        (Some(output), None) => say(&format!("\nnothing to add to the spec: {} is not written", output.display())),
        (None, None) => {}
    }
    Ok(fits.first().map_or(Exit::Done, |(fit, _)| end(&fit.method, Exit::Done)))
}

/// The spec that the first argument names, planned; `None`: it is the name of a sweep.
async fn study(args: &Args) -> Result<Option<Study>, Failure> {
    let path = Path::new(&args.spec);
    let like_a_path = args.spec.contains('/') || path.extension().is_some_and(|end| end == "yaml" || end == "yml");
    if !like_a_path && !path.is_file() {
        return match &args.output {
            None => Ok(None),
            Some(_) => {
                Err(Failure::bad_input(format!("`{}` is no spec, so there is nothing to add jobs to", args.spec))
                    .hint("give the file that the sweep was launched from, or leave out --output"))
            }
        };
    }
    if let Some(output) = &args.output
        && output.exists()
        && output.canonicalize().ok() != path.canonicalize().ok()
    {
        let failure = Failure::bad_input(format!("{} is there already", output.display()));
        return Err(failure.hint("give another name; only SPEC itself is written over"));
    }
    let spec = read_spec(path).map_err(|error| unplannable(&error))?;
    let plan = planned(&spec, Store::connect_stored().await?.as_ref()).await?;
    Ok(Some(Study { path: path.to_owned(), spec, plan }))
}

/// `None` for the store: with what a ladder chose left out.
async fn planned(spec: &Spec, store: Option<&Store>) -> Result<Plan, Failure> {
    let base_dir = std::env::current_dir().map_err(|error| unplannable(&LoadError::CurrentDir(error)))?;
    let mut inputs = gather(spec, &base_dir, &mut hashing::progress()).map_err(|error| unplannable(&error))?;
    with_choices(spec, &mut inputs, store).await
}

/// The laws asked for; or the richest usual one that the rows can tell.
async fn fits(args: &Args, store: &Store, loaded: &Loaded) -> Result<Vec<(Fit, StoredFit)>, Failure> {
    let method = args.search.method();
    let options = |law: LawName| Options {
        law,
        method: method.clone(),
        objective: args.objective,
        points: args.points,
        starts: args.starts,
        resamples: args.resamples,
        seed: args.seed,
        ..Options::new(Response::of_metric(&loaded.metric.metric))
    };
    let mut fits = Vec::new();
    for &law in &args.laws {
        fits.push(fit_and_store(store, loaded, &options(law)).await?);
    }
    if !fits.is_empty() {
        return Ok(fits);
    }
    let usual = usual(&loaded.observations);
    for (place, &law) in usual.iter().enumerate() {
        match crate::fit::fit(&loaded.observations, &Options { resamples: 0, starts: 1, ..options(law) }) {
            Ok(_) => return Ok(vec![fit_and_store(store, loaded, &options(law)).await?]),
            Err(FitError::TooFewPoints { .. } | FitError::OneValue { .. }) if place + 1 < usual.len() => {}
            Err(error) => return Err(no_fit(&error)),
        }
    }
    Err(Failure::failed("no law can be fitted"))
}

/// Laws by what varies among the rows, richest first.
pub(super) fn usual(observations: &[Observation]) -> Vec<LawName> {
    let varies = |of: fn(&Observation) -> f64| {
        let values = || observations.iter().map(of).filter(|value| value.is_finite() && *value > 0.0);
        values().fold(f64::INFINITY, f64::min) < 0.99 * values().fold(0.0, f64::max)
    };
    let both = varies(|row| row.parameters) && varies(|row| row.samples_seen);
    let mut laws = Vec::new();
    // Where no sample is repeated, U is D again.
    laws.extend((both && varies(|row| row.samples_seen / row.unique_samples)).then_some(LawName::Additive));
    laws.extend(both.then_some(LawName::Chinchilla));
    laws.push(LawName::Power(Axis::C));
    laws
}

pub(super) fn candidate(cell: &Cell, cost: &Cost) -> Candidate {
    let job = &cell.job;
    let per_sample = cost.ln_price_of_compute((job.compute / job.samples_seen).ln());
    Candidate { name: job.describe(), at: job.input(), cost: per_sample.exp() * job.samples_seen }
}

fn row(pick: &Pick, cells: &mut [Cell], has_spec: bool) -> Row {
    let cell = &mut cells[pick.candidate];
    let (seed, planned) = cell.take_seed();
    let kind = match pick.replicate_of {
        _ if planned => "planned",
        0 => "new",
        _ => "replicate",
    };
    Row {
        job: cell.job.clone(),
        data_size: cell.data_size,
        seed: has_spec.then_some(seed),
        kind,
        cost: pick.cost,
        spent: pick.spent,
        gain: pick.gain,
        after: pick.after[0],
        written: cell.written.clone(),
    }
}

fn unadvised(error: &AdviseError) -> Failure {
    let failure = Failure::bad_input(error.to_string());
    match error {
        AdviseError::Axis { of, .. } if of == "a target" => {
            failure.hint("name the job to forecast by --model, --samples and --data")
        }
        AdviseError::Axis { .. } => failure.hint("choose another law (`sweep laws`), or add --candidates-data"),
        AdviseError::DifferentPoints { .. } => {
            failure.hint("keep rows that have all that both laws need, for example --where 'u IS NOT NULL'")
        }
        AdviseError::Value { what, .. } if what.starts_with("the cost of") => {
            failure.hint("the sizes of that job are not known; name models with --candidates-model")
        }
        AdviseError::None(_) => failure.hint("none of the sweep's rows has parameters, samples seen and compute"),
        AdviseError::NoMode => failure.hint("try another law: `sweep laws` lists them"),
        AdviseError::Value { .. } | AdviseError::Fit(_) => failure,
    }
}

/// Width of an interval, relative to its value.
fn width(interval: &Interval) -> String {
    format!("{} %", significant(100.0 * (interval.high - interval.low) / interval.value, 2))
}

fn print(
    args: &Args,
    loaded: &Loaded,
    fits: &[&Fit],
    target: &Job,
    advice: &Advice,
    rows: &[Row],
    (currency, cheapest): (Currency, f64),
) {
    line("metric", &loaded.metric.name());
    for fit in fits {
        line("law", &format!("{}   ({}; {})", with_numbers(fit), fit.law, fit.verdict));
    }
    if advice.modes.len() > 1 || fits.len() > 1 {
        for mode in &advice.modes {
            let share = format!("{:.0} %", 100.0 * mode.weight);
            line("believed", &format!("{share:>5} {}: E = {}", mode.law, significant(mode.forecasts[0], 3)));
        }
        for fit in fits.iter().filter(|fit| !advice.modes.iter().any(|mode| mode.law == fit.law)) {
            line("", &format!("  0 % {}: fits far worse, by BIC", fit.law));
        }
    }
    line("target", &target.describe());
    line("now", &format!("E = {}, {} wide", with_interval(&advice.before[0]), width(&advice.before[0])));
    let noise = &advice.noise;
    line(
        "noise",
        &format!(
            "{} % of E between seeds ({}), {} % misfit of the law",
            significant(100.0 * noise.seed, 2),
            if noise.replicates == 0 {
                "no replicates: a guess".to_owned()
            } else {
                format!("{} replicates", noise.replicates)
            },
            significant(100.0 * noise.cell, 2)
        ),
    );
    line("budget", &format!("{} {}", significant(args.budget, 3), currency.unit()));
    if !rows.is_empty() {
        data(&format!("\n{}\n", table(rows).join("\n")));
    }
    let jobs = if rows.len() == 1 { "job" } else { "jobs" };
    let spent = format!("{} spent on {} {jobs}", significant(advice.spent, 3), rows.len());
    line("end", &if rows.is_empty() { advice.stop.to_string() } else { format!("{}; {spent}", advice.stop) });
    if let (Some(width), true) = (args.width, advice.stop != Stop::NarrowEnough) {
        line("", &format!("the wanted width of {} % is not reached", significant(100.0 * width, 3)));
    }
    if rows.is_empty() && advice.stop == Stop::Budget {
        line("", &format!("the cheapest candidate costs {}", significant(cheapest, 3)));
    }
}

fn table(rows: &[Row]) -> Vec<String> {
    let seeds = rows.iter().any(|row| row.seed.is_some());
    let mut header = vec!["#", "model", "seen", "unique"];
    header.extend(seeds.then_some("seed"));
    header.extend(["kind", "cost", "spent", "E then", "width"]);
    let mut table = Table::new();
    table.load_preset(presets::NOTHING).set_header(header);
    for (index, row) in rows.iter().enumerate() {
        let mut cells = vec![
            (index + 1).to_string(),
            row.job.model.clone().unwrap_or_default(),
            compact(row.job.samples_seen),
            compact(row.job.unique_samples),
        ];
        cells.extend(row.seed.map(|seed| seed.to_string()));
        cells.extend([
            row.kind.to_owned(),
            significant(row.cost, 3),
            significant(row.spent, 3),
            with_interval(&row.after),
            width(&row.after),
        ]);
        table.add_row(cells);
    }
    for (index, column) in table.column_iter_mut().enumerate() {
        if index != 1 && index != 4 + usize::from(seeds) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table.lines().map(|line| line.trim_end().to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn widths_are_shares() {
        assert_eq!((share("5%"), share("0.5")), (Ok(0.05), Ok(0.5)));
        assert!(["0", "-1%", "x", "", "%"].iter().all(|bad| share(bad).is_err()));
    }
}
