//! `sweep report`: one HTML page about a sweep.

use std::path::PathBuf;

use super::analysis::{Rows, find_metric, metrics, unknown};
use super::output::{Exit, Failure, data, say};
use super::place::{Place, positive};
use super::plot::{family, subject, target};
use super::search::{Search, end};
use crate::fit::{Convention, Fit, Method, Observation, Options, Points, Response, fit};
use crate::report::analysis::Family;
use crate::report::analysis::section::{Analysis, Input, analyse};
use crate::report::number::{significant, with_interval};
use crate::report::study::{FitRow, Panel, PanelFit};
use crate::report::{Metric, PAGE_FILE, Report, STAMP_FILE, Stamp, default_metrics, file_name, render, write};
use crate::store::Store;
use crate::store::fit::{FitSource, code_version, input_hash, sha256};
use crate::store::observation::MeasuredMetric;
use crate::store::study::Study;

/// Options of `sweep report`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Name of the sweep.
    sweep: String,
    /// Folder to write to [default: reports/SWEEP].
    #[arg(short, long, value_name = "DIR")]
    output: Option<PathBuf>,
    /// A metric to show, may be repeated [default: for each data set one retrieval recall, acc1 and loss@1024].
    #[arg(long, value_name = "DATASET/METRIC")]
    metric: Vec<String>,
    /// Convention of compute: gmacs_samples, train_flops or six_nd [default: the first that most jobs have].
    #[arg(long, value_name = "CONVENTION")]
    compute: Option<Convention>,
    /// Which points the laws of the headline go through: all, pareto, hull, last or bins:K.
    #[arg(long, default_value = "all", value_name = "POLICY")]
    points: Points,
    /// A sweep to compare with, metric by metric.
    #[arg(long, value_name = "SWEEP")]
    against: Option<String>,
    /// A job to forecast, may be repeated: ViT-G-14:68e9, or ViT-G-14:68e9:2e9 with its unique samples.
    #[arg(long, value_name = "MODEL:SAMPLES[:DATA]", value_parser = forecast)]
    forecast: Vec<Place>,
    /// Leave the analysis out: laws, figures of results and jobs only.
    #[arg(long)]
    quick: bool,
    /// Seed of the bootstraps.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    #[command(flatten)]
    search: Search,
    /// Draw the page anew, also if nothing has changed since it was drawn.
    #[arg(long)]
    force: bool,
}

fn forecast(text: &str) -> Result<Place, String> {
    let wanted = || {
        "a model and samples seen are wanted, for example ViT-G-14:68e9, and unique samples after a `:` if they \
                     are not all that there are"
            .to_owned()
    };
    let mut parts = text.split(':').map(str::trim);
    let (Some(model), Some(samples)) = (parts.next(), parts.next()) else { return Err(wanted()) };
    let data = parts.next().map(positive).transpose()?;
    if model.is_empty() || parts.next().is_some() {
        return Err(wanted());
    }
    Ok(Place { model: Some(model.to_owned()), parameters: None, samples: Some(positive(samples)?), data })
}

/// Metrics up to which a report without `--metric` analyses each: some take half a minute.
const ANALYSED_MAX: usize = 6;

/// Policies that every metric is fitted by, besides the one asked for, which is drawn with its band.
const POLICIES: [Points; 3] = [Points::All, Points::Pareto, Points::Bins(5)];

pub(super) async fn run(args: Args) -> Result<Exit, Failure> {
    let store = Store::connect_to_read().await?;
    let Some(study) = store.study_read(&args.sweep).await? else {
        let names = store.study_names().await?;
        return Err(unknown("sweep", &args.sweep, &names, "start one with `sweep launch SPEC`"));
    };
    let folder = args.output.clone().unwrap_or_else(|| PathBuf::from("reports").join(file_name(&args.sweep)));
    let inputs = inputs(&store, &args).await?;
    if !args.force && Stamp::read(&folder).is_some_and(|stamp| stamp.holds(&folder, &inputs)) {
        data(&folder.join(PAGE_FILE).display().to_string());
        say("unchanged: nothing that it shows has changed (--force draws it anew)");
        return Ok(Exit::Done);
    }
    let measured = store.observation_metrics(&args.sweep).await?;
    let chosen = if args.metric.is_empty() {
        default_metrics(&measured)
    } else {
        args.metric.iter().map(|name| find_metric(&measured, name)).collect::<Result<_, _>>()?
    };
    let compute = args.compute.unwrap_or_else(|| {
        let count = |convention| study.jobs.iter().filter(|job| job.compute_in(convention).is_some()).count();
        // The last of the greatest in reverse: the first convention that most jobs have.
        Convention::ALL.into_iter().rev().max_by_key(|convention| count(*convention)).expect("there are conventions")
    });
    let quick = args.quick || (args.metric.is_empty() && chosen.len() > ANALYSED_MAX);
    if quick && !args.quick {
        say(&format!(
            "{} metrics: the analysis is left out; name those that it is wanted for with --metric",
            chosen.len()
        ));
    }
    let method = args.search.method();
    let mut metrics = Vec::new();
    for metric in chosen {
        metrics.push(panel(&store, (&args, compute, quick), &method, metric, &study).await?);
    }
    for Metric { panel, .. } in &metrics {
        say(&law(panel));
    }
    let report = Report { study, compute, metrics, seed: args.seed, code_version: code_version() };
    let rendered = render(&report).map_err(|error| Failure::environment(error.to_string()).because(&error))?;
    let page = write(&rendered, &folder).map_err(|error| {
        Failure::environment(error.to_string()).because(&error).hint("choose another folder with `-o DIR`")
    })?;
    // Last: without it the page is drawn again, as one that was cut short should be.
    if !method.was_cut() {
        Stamp::of(&rendered, inputs).write(&folder).map_err(|error| {
            Failure::environment(format!("can't write {}", folder.join(STAMP_FILE).display())).because(&error)
        })?;
    }
    data(&page.display().to_string());
    say(&format!("{} figures in {}", rendered.figures.len(), folder.join("figures").display()));
    Ok(end(&method, Exit::Done))
}

/// sha256 of all that a page shows: rows of the sweeps, options, and the program that draws them.
async fn inputs(store: &Store, args: &Args) -> Result<String, Failure> {
    let mut sweeps = vec![args.sweep.as_str()];
    sweeps.extend(args.against.as_deref());
    let rows = store.study_digest(&sweeps).await?;
    let program = std::env::current_exe()
        .and_then(|path| path.metadata())
        .map_err(|error| Failure::environment("can't look at this program").because(&error))?;
    let built = program.modified().ok();
    Ok(sha256(&format!("{args:?} {} {built:?} {} {rows}", code_version(), program.len())))
}

/// One line a metric: the law through all jobs with its intervals, and what to think of it.
fn law(panel: &Panel) -> String {
    let name = format!("{}/{}", panel.dataset, panel.metric);
    match panel.fits.first().map(|first| &first.fit) {
        Some(Ok(fit)) => format!(
            "{name:<44} E = {} * C^{}   alpha {}, beta {}: {}",
            significant(fit.interval("beta").value, 3),
            significant(fit.interval("alpha").value, 3),
            with_interval(&fit.interval("alpha")),
            with_interval(&fit.interval("beta")),
            fit.verdict
        ),
        Some(Err(error)) => format!("{name:<44} no law: {error}"),
        None => format!("{name:<44} not fitted"),
    }
}

/// Fits one metric by every policy, stores what could be fitted, and analyses the first.
async fn panel(
    store: &Store,
    (args, compute, quick): (&Args, Convention, bool),
    method: &Method,
    metric: &MeasuredMetric,
    study: &Study,
) -> Result<Metric, Failure> {
    let observations = store.observation_list(&args.sweep, &metric.dataset, &metric.metric, compute, None).await?;
    let source = FitSource { sweep: &args.sweep, dataset: &metric.dataset, metric: &metric.metric, condition: "" };
    let mut fits = Vec::new();
    let others = POLICIES.into_iter().filter(|policy| *policy != args.points);
    let options = Options {
        points: args.points,
        seed: args.seed,
        method: method.clone(),
        ..Options::new(Response::of_metric(&metric.metric))
    };
    for points in std::iter::once(args.points).chain(others) {
        let options = Options { points, ..options.clone() };
        let fit = fit(&observations, &options);
        let stored = match &fit {
            Ok(fit) => store
                .fit_insert(source, &options, fit)
                .await?
                .map(|row| FitRow { fit_id: row.fit_id, input_hash: input_hash(fit) }),
            Err(_) => None,
        };
        fits.push(PanelFit { policy: points.to_string(), fit, stored });
    }
    let analysis = match fits.first().map(|first| &first.fit) {
        Some(Ok(fit)) if !quick => {
            Some(analysis(store, (args, compute), metric, study, (&observations, &options, fit)).await?)
        }
        _ => None,
    };
    Ok(Metric { panel: Panel { dataset: metric.dataset.clone(), metric: metric.metric.clone(), fits }, analysis })
}

async fn analysis(
    store: &Store,
    (args, compute): (&Args, Convention),
    metric: &MeasuredMetric,
    study: &Study,
    (observations, options, fit): (&[Observation], &Options, &Fit),
) -> Result<Analysis, Failure> {
    let subject = subject(&args.sweep, &metric.dataset, &metric.metric, Some(study));
    let forecasts =
        args.forecast.iter().map(|place| target(place, observations, None)).collect::<Result<Vec<_>, _>>()?;
    let against = match &args.against {
        None => None,
        Some(other) => against(store, other, metric, compute, options).await?,
    };
    let input =
        Input { subject: &subject, observations, options, fit, forecasts: &forecasts, against: against.as_ref() };
    Ok(analyse(input, |kind| say(&format!("{}: {kind}", metric.name()))))
}

/// The other sweep's law; `None`, and a word on why, where it has none of this metric.
async fn against(
    store: &Store,
    sweep: &str,
    metric: &MeasuredMetric,
    compute: Convention,
    options: &Options,
) -> Result<Option<Family>, Failure> {
    let others = metrics(store, sweep).await?;
    if !others.iter().any(|other| other.name() == metric.name()) {
        say(&format!("{}: not compared, `{sweep}` was not measured by it", metric.name()));
        return Ok(None);
    }
    let rows = Rows { metric: Some(metric.name()), compute: Some(compute), ..Rows::default() };
    family(store, sweep, &rows, options, Points::All).await.map(Some)
}
