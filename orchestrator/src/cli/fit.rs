//! `sweep fit`: a power law through the results of a sweep.

use serde::Serialize;

use super::output::{Exit, Failure, data, json, say};
use crate::fit::{Convention, Fit, FitError, Options, Points, RESAMPLES, Response, fit};
use crate::report::number::{compact, significant, with_interval};
use crate::spec::nearest;
use crate::store::Store;
use crate::store::fit::{StoredFit, code_version};
use crate::store::observation::MeasuredMetric;

/// Options of `sweep fit`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Points: all (every job), pareto (jobs that no other beats in both compute and error), bins:K (the best of each of K
equal-width bins of log10 C, at the bin's centre: the 2022 study's rule with K = 5).
Exit codes: 0 for a law whose interval can be used, `no scaling` included, since that is an answer; 1 where it can't
(too few jobs or points, all at chance, unstable interval); 2 for an unknown sweep or metric.")]
pub(super) struct Args {
    /// Name of the sweep.
    sweep: String,
    /// What to fit, for example `emoji-val/image_retrieval_recall@5`; without it, list what there is.
    #[arg(long, value_name = "DATASET/METRIC")]
    metric: Option<String>,
    /// Which points the law goes through: all, pareto or bins:K.
    #[arg(long, default_value = "all", value_name = "POLICY")]
    points: Points,
    /// Convention of compute: gmacs_samples, train_flops or six_nd.
    #[arg(long, default_value = "gmacs_samples", value_name = "CONVENTION")]
    compute: Convention,
    /// Seed of the bootstrap.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
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
    points_policy: String,
    seed: u64,
    law_formula: &'static str,
    code_version: String,
    stored: StoredFit,
    #[serde(flatten)]
    fit: &'a Fit,
}

pub(super) async fn run(args: Args) -> Result<Exit, Failure> {
    let store = Store::connect().await?;
    let names = store.study_names().await?;
    if !names.contains(&args.sweep) {
        return Err(unknown("sweep", &args.sweep, &names, "start one with `sweep launch SPEC`"));
    }
    let metrics = store.observation_metrics(&args.sweep).await?;
    let Some(wanted) = &args.metric else {
        return Ok(list(&args, &metrics));
    };
    let chosen = find_metric(&metrics, wanted)?;
    let observations = store.observation_list(&args.sweep, &chosen.dataset, &chosen.metric, args.compute, None).await?;
    let options = Options {
        points: args.points,
        response: Response::of_metric(&chosen.metric),
        seed: args.seed,
        resamples: RESAMPLES,
    };
    let fitted = fit(&observations, &options).map_err(|error| no_fit(&error))?;
    let stored = store
        .fit_insert(&args.sweep, &chosen.dataset, &chosen.metric, &options, &fitted)
        .await?
        .ok_or_else(|| Failure::failed(format!("the sweep `{}` was deleted meanwhile", args.sweep)))?;
    if args.json {
        json(
            "sweep.fit/1",
            &FitJson {
                sweep: &args.sweep,
                dataset: &chosen.dataset,
                metric: &chosen.metric,
                points_policy: args.points.to_string(),
                seed: args.seed,
                law_formula: crate::fit::PowerLaw::FORMULA,
                code_version: code_version(),
                stored,
                fit: &fitted,
            },
        );
    } else {
        print(chosen, args.points, &fitted, stored);
    }
    Ok(if fitted.verdict.is_trustworthy() { Exit::Done } else { Exit::Failed })
}

/// `error: there is no sweep X`, with the nearest name and the list.
pub(super) fn unknown(kind: &str, name: &str, names: &[String], otherwise: &str) -> Failure {
    let failure = Failure::bad_input(format!("there is no {kind} `{name}`"));
    let nearest = nearest(name, names.iter().map(String::as_str));
    let list = names.join(", ");
    match nearest {
        _ if names.is_empty() => failure.hint(format!("there is none yet: {otherwise}")),
        Some(nearest) => failure.hint(format!("did you mean `{nearest}`? There are: {list}")),
        None => failure.hint(format!("there are: {list}")),
    }
}

/// The measured metric of a name, or an error with the nearest.
pub(super) fn find_metric<'a>(metrics: &'a [MeasuredMetric], wanted: &str) -> Result<&'a MeasuredMetric, Failure> {
    let names: Vec<String> = metrics.iter().map(MeasuredMetric::name).collect();
    metrics
        .iter()
        .find(|metric| metric.name() == wanted)
        .ok_or_else(|| unknown("metric", wanted, &names, "no job of this sweep is done; see `sweep status`"))
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

fn no_fit(error: &FitError) -> Failure {
    let failure = Failure::failed(error.to_string());
    match error {
        FitError::TooFewPoints { excluded, .. } if !excluded.is_empty() => {
            let reasons: Vec<String> =
                excluded.iter().map(|row| format!("job {}: {}", short(&row.job_key), row.reason)).collect();
            failure.hint(format!("what was left out:\n  {}", reasons.join("\n  ")))
        }
        FitError::TooFewPoints { policy: Points::All, .. } => failure.hint("let more jobs finish: `sweep status`"),
        FitError::TooFewPoints { .. } => failure.hint("use `--points all`, or let more jobs finish"),
        FitError::OneCompute { .. } => failure.hint("add models or samples seen to the grid"),
        FitError::MixedConventions { .. } => failure.hint("choose one with `--compute`"),
    }
}

fn print(metric: &MeasuredMetric, policy: Points, fit: &Fit, stored: StoredFit) {
    let response = match Response::of_metric(&metric.metric) {
        Response::Fraction => format!("1 - {}", metric.metric),
        Response::Loss => format!("{}, nats", metric.metric),
    };
    let line = |label: &str, text: &str| data(&format!("{label:<10}{text}"));
    line("metric", &metric.name());
    line("law", &format!("E = {} * C^{}", significant(fit.law.beta, 3), significant(fit.law.alpha, 3)));
    line("", &format!("E: {response}; C: {} ({})", fit.compute.unit(), fit.compute));
    line("alpha", &with_interval(&fit.alpha));
    line("beta", &with_interval(&fit.beta));
    line("R2", &format!("{} in ln E", fit.r2.map_or("none: E does not vary".to_owned(), |r2| format!("{r2:.3}"))));
    if let Some(last) = fit.band.last() {
        line(
            "at 10x",
            &format!("E = {} at C = {}, ten times the most seen", with_interval(&last.error), compact(last.compute)),
        );
    }
    line(
        "points",
        &format!(
            "{} of {} jobs ({policy}), C {} to {}",
            fit.points.len(),
            fit.observations.len(),
            compact(fit.points[0].compute),
            compact(fit.points[fit.points.len() - 1].compute)
        ),
    );
    for excluded in &fit.excluded {
        line("left out", &format!("job {}: {}", short(&excluded.job_key), excluded.reason));
    }
    line(
        "interval",
        &format!("95 %, percentiles of {} resamples of jobs, points selected anew in each", fit.resamples),
    );
    for caution in &fit.cautions {
        line("caution", &caution.to_string());
    }
    line("verdict", fit.verdict.as_str());
    line("stored", &format!("fit {}{}", stored.fit_id, if stored.is_new { "" } else { " (the same as before)" }));
}

/// First 12 characters of a job key.
fn short(job_key: &str) -> &str {
    job_key.get(..12).unwrap_or(job_key)
}
