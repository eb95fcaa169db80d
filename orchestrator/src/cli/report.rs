//! `sweep report`: one HTML page about a sweep.

use std::path::PathBuf;

use rayon::prelude::*;

use super::analysis::{Rows, find_metric, metrics, unknown};
use super::output::{Exit, Failure, data, say};
use super::place::{Place, positive};
use super::plot::{family, subject, target};
use super::search::{Search, end};
use crate::fit::{Axis, Convention, Fit, FitError, LawName, Method, Observation, Options, Points, Response};
use crate::report::analysis::section::{Analysis, Input, analyse};
use crate::report::analysis::{Family, Subject, Target};
use crate::report::number::{significant, with_interval};
use crate::report::study::{FitRow, OtherLaw, Panel, PanelFit};
use crate::report::{Cache, Metric, PAGE_FILE, Report, STAMP_FILE, Stamp, default_metrics, file_name, render, write};
use crate::spec::{Source, parse};
use crate::store::fit::{FitSource, code_version, input_hash, sha256};
use crate::store::observation::MeasuredMetric;
use crate::store::study::Study;
use crate::store::{Store, home};

/// Options of `sweep report`.
#[derive(Debug, Clone, clap::Args)]
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
    /// Draw the page anew, also if nothing has changed since it was drawn, and compute anew what reports have computed.
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

/// Laws that large figures show in the power law's place. The first is cheap; the others take tenths of a second a fit,
/// which only a report with an analysis is worth.
const OTHER_LAWS: [LawName; 3] = [LawName::Saturating(Axis::C), LawName::Shifted(Axis::C), LawName::Chinchilla];

/// Resamples behind their bands, of a quick report and of one with an analysis.
const OTHER_RESAMPLES: [usize; 2] = [100, 200];

/// Searches for their minima.
const OTHER_STARTS: usize = 8;

pub(super) async fn run(args: Args) -> Result<Exit, Failure> {
    let store = Store::connect_to_read().await?;
    let folder = args.output.clone().unwrap_or_else(|| PathBuf::from("reports").join(file_name(&args.sweep)));
    let inputs = inputs(&store, &args).await?;
    if !args.force && Stamp::read(&folder).is_some_and(|stamp| stamp.holds(&folder, &inputs)) {
        data(&folder.join(PAGE_FILE).display().to_string());
        say("unchanged: nothing that it shows has changed (--force draws it anew)");
        return Ok(Exit::Done);
    }
    let Some(study) = store.study_read(&args.sweep).await? else {
        let names = store.study_names().await?;
        return Err(unknown("sweep", &args.sweep, &names, "start one with `sweep launch SPEC`"));
    };
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
    let cache = Cache::open(&home(), &program()?, !args.force);
    let metrics = measured_laws((&store, &cache), (&args, compute, quick), &method, &chosen, &study).await?;
    for Metric { panel, .. } in &metrics {
        say(&law(panel));
    }
    let headline = headline(&study, &metrics);
    let report = Report { study, compute, metrics, headline, seed: args.seed, code_version: code_version() };
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
    say(&format!("{} figures in {}; {}", rendered.figures.len(), folder.join("figures").display(), cache.summary()));
    if let Err(error) = cache.close() {
        say(&format!("the next report computes all of it again: can't keep it below {}: {error}", home().display()));
    }
    Ok(end(&method, Exit::Done))
}

/// sha256 of all that a page shows: rows of the sweeps, options, and the program that draws them.
async fn inputs(store: &Store, args: &Args) -> Result<String, Failure> {
    let mut sweeps = vec![args.sweep.as_str()];
    sweeps.extend(args.against.as_deref());
    let rows = store.study_digest(&sweeps).await?;
    // How it is asked for is no part of what it shows.
    let shown = Args { force: false, output: None, ..args.clone() };
    Ok(sha256(&format!("{shown:?} {} {rows}", program()?)))
}

/// What computes and draws: builds of one version may differ.
fn program() -> Result<String, Failure> {
    let file = std::env::current_exe()
        .and_then(|path| path.metadata())
        .map_err(|error| Failure::environment("can't look at this program").because(&error))?;
    Ok(format!("{} {:?} {}", code_version(), file.modified().ok(), file.len()))
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

/// What the spec wants a report to open with, where it was measured.
fn headline(study: &Study, metrics: &[Metric]) -> Option<String> {
    // Imported sweeps have no spec of ours, and one of another version is not this one's business.
    let asked = parse(&Source::new("the sweep's spec", &study.spec)).ok()?.headline?;
    let is_shown = metrics.iter().any(|metric| metric.panel.name() == asked);
    if !is_shown {
        say(&format!("`headline: {asked}` is not among the metrics shown: the law that is known best takes its place"));
    }
    is_shown.then_some(asked)
}

/// The laws of one metric, each with its options.
type Fitted = Vec<(Options, Result<Fit, FitError>, Vec<OtherLaw>)>;

/// Fits every metric by every policy, stores what could be fitted, and analyses the first of each; metrics side by
/// side.
async fn measured_laws(
    (store, cache): (&Store, &Cache),
    (args, compute, quick): (&Args, Convention, bool),
    method: &Method,
    chosen: &[&MeasuredMetric],
    study: &Study,
) -> Result<Vec<Metric>, Failure> {
    let rows = |metric: &&MeasuredMetric| -> Vec<Observation> {
        let rows = study.observations(&metric.dataset, &metric.metric, compute);
        rows.into_iter().map(|(_, row)| row).collect()
    };
    let rows: Vec<Vec<Observation>> = chosen.iter().map(rows).collect();
    let fitted: Vec<Fitted> =
        chosen.par_iter().zip(&rows).map(|(metric, rows)| laws((cache, rows), (args, quick), method, metric)).collect();
    let ours: Vec<_> = chosen
        .iter()
        .zip(&fitted)
        .flat_map(|(metric, fits)| fits.iter().map(move |(options, fit, _)| (metric, options, fit)))
        .filter_map(|(metric, options, fit)| Some((source(args, metric), options, fit.as_ref().ok()?)))
        .collect();
    let mut stored = store.fits_insert(&ours).await?.into_iter();
    let mut read = Vec::new();
    for ((metric, rows), laws) in chosen.iter().zip(&rows).zip(&fitted) {
        read.push(match laws.first() {
            Some((options, Ok(fit), _)) if !quick => {
                Some(Analysed::read(store, (args, compute), metric, study, (rows, options, fit)).await?)
            }
            _ => None,
        });
    }
    let analyses: Vec<Option<Analysis>> =
        read.par_iter().map(|read| read.as_ref().map(|read| read.analysis(cache, method))).collect();
    let metrics = chosen.iter().zip(fitted).zip(analyses).map(|((metric, laws), analysis)| {
        let fits = laws
            .into_iter()
            .map(|(options, fit, others)| PanelFit {
                policy: options.points.to_string(),
                stored: fit.as_ref().ok().and_then(|fit| {
                    let row = stored.next().flatten()?;
                    Some(FitRow { fit_id: row.fit_id, input_hash: input_hash(fit) })
                }),
                fit,
                others,
            })
            .collect();
        let panel = Panel { dataset: metric.dataset.clone(), metric: metric.metric.clone(), fits };
        Metric { panel, analysis }
    });
    Ok(metrics.collect())
}

/// The rows that a law of the report is made of.
fn source<'a>(args: &'a Args, metric: &'a MeasuredMetric) -> FitSource<'a> {
    FitSource { sweep: &args.sweep, dataset: &metric.dataset, metric: &metric.metric, condition: "" }
}

/// By every policy, that which was asked for first.
fn laws(
    (cache, rows): (&Cache, &[Observation]),
    (args, quick): (&Args, bool),
    method: &Method,
    metric: &MeasuredMetric,
) -> Fitted {
    let (others, resamples) =
        if quick { (&OTHER_LAWS[..1], OTHER_RESAMPLES[0]) } else { (&OTHER_LAWS[..], OTHER_RESAMPLES[1]) };
    std::iter::once(args.points)
        .chain(POLICIES.into_iter().filter(|policy| *policy != args.points))
        .map(|points| {
            let response = Response::of_metric(&metric.metric);
            let options = Options { points, seed: args.seed, method: method.clone(), ..Options::new(response) };
            let fit = cache.fit(rows, &options);
            let other = |law: &LawName| {
                let options = Options { law: *law, resamples, starts: OTHER_STARTS, ..options.clone() };
                OtherLaw { law: *law, fit: cache.fit(rows, &options) }
            };
            let others = others.iter().map(other).collect();
            (options, fit, others)
        })
        .collect()
}

/// What the analysis of a metric is made of.
struct Analysed<'a> {
    metric: &'a MeasuredMetric,
    subject: Subject,
    observations: &'a [Observation],
    options: &'a Options,
    fit: &'a Fit,
    forecasts: Vec<Target>,
    against: Option<Family>,
}

impl<'a> Analysed<'a> {
    async fn read(
        store: &Store,
        (args, compute): (&Args, Convention),
        metric: &'a MeasuredMetric,
        study: &Study,
        (observations, options, fit): (&'a [Observation], &'a Options, &'a Fit),
    ) -> Result<Analysed<'a>, Failure> {
        let mut subject = subject(&args.sweep, &metric.dataset, &metric.metric, Some(study));
        subject.places = study.jobs.iter().enumerate().map(|(place, job)| (job.job_key.clone(), place)).collect();
        let forecasts =
            args.forecast.iter().map(|place| target(place, observations, None)).collect::<Result<Vec<_>, _>>()?;
        let against = match &args.against {
            None => None,
            Some(other) => against(store, other, metric, compute, options).await?,
        };
        Ok(Analysed { metric, subject, observations, options, fit, forecasts, against })
    }

    fn analysis(&self, cache: &Cache, method: &Method) -> Analysis {
        let input = Input {
            subject: &self.subject,
            observations: self.observations,
            options: self.options,
            fit: self.fit,
            forecasts: &self.forecasts,
            against: self.against.as_ref(),
        };
        cache.analysis(input, method, |input| analyse(input, |kind| say(&format!("{}: {kind}", self.metric.name()))))
    }
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
