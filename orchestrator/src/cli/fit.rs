//! `sweep fit`: a law through the results of a sweep.

use serde::Serialize;

use super::analysis::{Law, Loaded, Rows, fit_and_store, law_lines, left_out, line, load, metrics, with_numbers};
use super::output::{Exit, Failure, data, json, say};
use super::search::{SearchOrAll, end};
use super::solvers::side_by_side;
use crate::fit::{Fit, Intervals, Options, SolverKind, Stated};
use crate::report::number::{compact, significant, with_interval};
use crate::store::Store;
use crate::store::fit::{StoredFit, code_version};
use crate::store::observation::MeasuredMetric;

/// Options of `sweep fit`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Points: all (every job), pareto (jobs that no other beats in both compute and error), hull (the lower convex hull of
ln E over ln C), last (the last checkpoint of each job), bins:K (the best of each of K equal-width bins of log10 C, at the
bin's centre: the 2022 study's rule with K = 5). `sweep laws` lists the laws.
--solver all searches with each solver and stores nothing: exit code 1 if they do not agree.
Exit codes: 0 for a law whose interval can be used, `no scaling` included, since that is an answer; 1 where it can't
(too few jobs or points, all at chance, unstable interval); 2 for an unknown sweep or metric.")]
pub(super) struct Args {
    /// Name of the sweep.
    pub(super) sweep: String,
    #[command(flatten)]
    rows: Rows,
    #[command(flatten)]
    pub(super) law: Law,
    #[command(flatten)]
    pub(super) search: SearchOrAll,
    /// Print one JSON object.
    #[arg(long)]
    pub(super) json: bool,
}

#[derive(Serialize)]
struct MetricsJson<'a> {
    sweep: &'a str,
    metrics: &'a [MeasuredMetric],
}

#[derive(Serialize)]
struct FitJson<'a> {
    sweep: &'a str,
    dataset: &'a str,
    metric: &'a str,
    condition: &'a str,
    formula: &'static str,
    source: &'static str,
    options: &'a Options,
    code_version: String,
    stored: StoredFit,
    /// Intervals of the parameters as asked for, with their profiles.
    profiles: Option<Vec<Stated>>,
    #[serde(flatten)]
    fit: &'a Fit,
}

pub(super) async fn run(args: Args) -> Result<Exit, Failure> {
    let store = Store::connect().await?;
    if args.rows.metric.is_none() {
        let metrics = metrics(&store, &args.sweep).await?;
        return Ok(list(&args, &metrics));
    }
    let loaded = load(&store, &args.sweep, &args.rows).await?;
    let Some(solver) = args.search.one() else { return side_by_side(&args, &loaded) };
    let options = args.law.options(&loaded.metric, args.search.method(solver));
    let (fitted, stored) = fit_and_store(&store, &loaded, &options).await?;
    if args.json {
        let form = fitted.form();
        json(
            "sweep.fit/2",
            &FitJson {
                sweep: &args.sweep,
                dataset: &loaded.metric.dataset,
                metric: &loaded.metric.metric,
                condition: &loaded.condition,
                formula: form.formula(),
                source: form.source(),
                options: &options,
                code_version: code_version(),
                stored,
                profiles: (args.law.intervals == Intervals::Profile)
                    .then(|| fitted.intervals(Intervals::Profile, &options)),
                fit: &fitted,
            },
        );
    } else {
        print(&loaded, &options, &fitted, stored, args.law.intervals);
    }
    Ok(end(&options.method, if fitted.verdict.is_trustworthy() { Exit::Done } else { Exit::Failed }))
}

fn list(args: &Args, metrics: &[MeasuredMetric]) -> Exit {
    if args.json {
        json("sweep.metrics/1", &MetricsJson { sweep: &args.sweep, metrics });
        return Exit::Done;
    }
    for metric in metrics {
        data(&format!("{:<48} {:>4} jobs", metric.name(), metric.jobs));
    }
    match metrics.first() {
        Some(first) => say(&format!("\nhint: sweep fit {} --metric {}", args.sweep, first.name())),
        None => say(&format!("no job of `{0}` is done yet\n\nhint: sweep status {0}", args.sweep)),
    }
    Exit::Done
}

/// The law with the profile interval of each parameter, and what is not identified in words.
pub(super) fn profile_lines(fit: &Fit, options: &Options) {
    line("law", &format!("{}   ({})", with_numbers(fit), fit.law));
    for stated in fit.intervals(Intervals::Profile, options) {
        let held = if stated.frozen { " (held)" } else { "" };
        line(stated.name, &format!("{}{held}", with_interval(&stated.interval)));
        if let Some(words) = stated.words {
            line("", &words);
        }
    }
}

fn print(loaded: &Loaded, options: &Options, fit: &Fit, stored: StoredFit, intervals: Intervals) {
    line("metric", &loaded.metric.name());
    match intervals {
        Intervals::Bootstrap(_) => law_lines(fit),
        Intervals::Profile => profile_lines(fit, options),
    }
    line("", &format!("E: {}; C: {} ({})", loaded.response_name(), fit.compute.unit(), fit.compute));
    line("R2", &format!("{} in ln E", fit.r2.map_or("none: E does not vary".to_owned(), |r2| format!("{r2:.3}"))));
    if let Some(last) = fit.band.last() {
        let by = if intervals == Intervals::Profile { ", by bootstrap" } else { "" };
        line(
            "at 10x",
            &format!(
                "E = {}{by} at C = {}, ten times the most seen",
                with_interval(&last.error),
                compact(last.compute)
            ),
        );
    }
    let mut points = format!("{} of {} rows ({})", fit.points.len(), fit.observations.len(), options.points);
    if let [first, .., last] = fit.points.as_slice()
        && first.compute.is_finite()
    {
        points = format!("{points}, C {} to {}", compact(first.compute), compact(last.compute));
    }
    line("points", &points);
    for excluded in &fit.excluded {
        line("left out", &left_out(excluded));
    }
    let minimum = &fit.solution;
    line(
        "minimum",
        &format!(
            "{} = {}, {:.0} % of {} searches{}, condition {}",
            fit.objective,
            significant(minimum.best.value, 6),
            100.0 * minimum.hit_rate,
            minimum.starts,
            if fit.method.solver == SolverKind::Newton { String::new() } else { format!(" by {}", fit.method.solver) },
            significant(minimum.condition, 2)
        ),
    );
    line(
        "interval",
        &match intervals {
            Intervals::Profile => "95 %, profile likelihood".to_owned(),
            Intervals::Bootstrap(way) => format!(
                "95 %, {} percentiles of {} resamples ({way}), points selected anew in each",
                fit.interval_kind, fit.resamples
            ),
        },
    );
    for caution in &fit.cautions {
        line("caution", &caution.to_string());
    }
    line("verdict", fit.verdict.as_str());
    let by = if intervals == Intervals::Profile { "; its row holds the bootstrap's intervals" } else { "" };
    let again = if stored.is_new { "" } else { " (the same as before)" };
    line("stored", &format!("fit {}{again}{by}", stored.fit_id));
}
