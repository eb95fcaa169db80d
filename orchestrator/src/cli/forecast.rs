//! `sweep forecast`: what a job that was not run would reach, with its interval.

use serde::Serialize;

use super::analysis::{Law, Rows, fit_and_store, law_lines, line, load};
use super::fit::profile_lines;
use super::output::{Exit, Failure, json};
use super::place::{Job, Place};
use super::search::{Search, end};
use crate::fit::{Convention, Evaluation, Forecast, Interval, Intervals, Response};
use crate::report::number::{significant, with_interval};
use crate::store::Store;
use crate::store::fit::StoredFit;

/// Options of `sweep forecast`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Two intervals: of the law (where the mean of many such jobs would be) and of one new job's measured result, which adds
the noise of seeds and of the test items.
Example: sweep forecast openclip-2022 --metric imagenet1k/acc1 --points bins:5 --model ViT-G-14 --samples 68e9")]
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
    /// Test items that the result would be measured on [default: as the sweep's jobs were].
    #[arg(long, value_name = "COUNT", value_parser = super::place::positive)]
    items: Option<f64>,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Body<'a> {
    sweep: &'a str,
    metric: String,
    fit: StoredFit,
    verdict: &'static str,
    job: &'a Job,
    #[serde(flatten)]
    forecast: &'a Forecast,
}

pub(super) async fn run(args: Args) -> Result<Exit, Failure> {
    let store = Store::connect_to_read().await?;
    let loaded = load(&store, &args.sweep, &args.rows).await?;
    let job = args.place.job(&loaded.observations)?;
    let options = args.law.options(&loaded.metric, args.search.method());
    let (fit, stored) = fit_and_store(&store, &loaded, &options).await?;
    let at = job.input();
    let form = fit.form();
    if let Some(axis) = form.axes().iter().find(|&&axis| !at.ln(axis).is_finite()) {
        return Err(Failure::bad_input(format!("the law `{}` needs the {} of the job", fit.law, axis.describe()))
            .hint("name a model with --model, or add --samples and --data; `sweep laws` says what each law takes"));
    }
    let evaluation = args.items.map_or(Evaluation::AsObserved, Evaluation::Count);
    let forecast = match args.law.intervals {
        Intervals::Profile => fit.forecast_by_profile(&at, evaluation),
        Intervals::Bootstrap(_) => fit.forecast(&at, evaluation),
    };
    let exit = if fit.verdict.is_trustworthy() { Exit::Done } else { Exit::Failed };
    if args.json {
        let metric = loaded.metric.name();
        let verdict = fit.verdict.as_str();
        json(
            "sweep.forecast/1",
            &Body { sweep: &args.sweep, metric, fit: stored, verdict, job: &job, forecast: &forecast },
        );
        return Ok(end(&options.method, exit));
    }
    line("metric", &loaded.metric.name());
    match args.law.intervals {
        Intervals::Profile => profile_lines(&fit, &options),
        Intervals::Bootstrap(_) => law_lines(&fit),
    }
    line("job", &job.describe());
    if job.model.is_none() && fit.compute != Convention::SixNd {
        line("", "C per sample is read off the sweep's models, between those nearest in N");
    }
    let response = Response::of_metric(&loaded.metric.metric);
    line("law", &reading(response, &loaded.metric.metric, &forecast.law));
    line("one job", &reading(response, &loaded.metric.metric, &forecast.prediction));
    line("noise", &format!("{} % of E, standard deviation of one job", significant(100.0 * forecast.noise_sd, 2)));
    for beyond in &forecast.extrapolation {
        line("where", &beyond.to_string());
    }
    for caution in &fit.cautions {
        line("caution", &caution.to_string());
    }
    line("verdict", fit.verdict.as_str());
    Ok(end(&options.method, exit))
}

/// `acc1 81.92 % [80.1, 83.0] (E = 0.181 [0.170, 0.199])` of a fraction; the loss itself of a loss.
fn reading(response: Response, metric: &str, error: &Interval) -> String {
    match response {
        Response::Loss => format!("{metric} = {} nats", with_interval(error)),
        Response::Fraction => {
            let percent = Interval {
                value: 100.0 * (1.0 - error.value),
                low: 100.0 * (1.0 - error.high),
                high: 100.0 * (1.0 - error.low),
            };
            let number = |value: f64| format!("{value:.2}");
            format!(
                "{metric} {} % [{}, {}]   E = {}",
                number(percent.value),
                number(percent.low),
                number(percent.high),
                with_interval(error)
            )
        }
    }
}
