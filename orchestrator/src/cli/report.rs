//! `sweep report`: one HTML page about a sweep.

use std::path::PathBuf;

use super::analysis::{find_metric, unknown};
use super::output::{Exit, Failure, data, say};
use crate::fit::{Convention, Options, Points, Response, fit};
use crate::report::number::{significant, with_interval};
use crate::report::{Panel, PanelFit, Report, default_metrics, file_name, render, write};
use crate::store::Store;
use crate::store::fit::{FitSource, code_version};
use crate::store::observation::MeasuredMetric;

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
    /// Convention of compute: gmacs_samples, train_flops or six_nd.
    #[arg(long, default_value = "gmacs_samples", value_name = "CONVENTION")]
    compute: Convention,
    /// Seed of the bootstraps.
    #[arg(long, default_value_t = 0)]
    seed: u64,
}

/// Policies that every metric is fitted by; the first is drawn with its band.
const POLICIES: [Points; 3] = [Points::All, Points::Pareto, Points::Bins(5)];

pub(super) async fn run(args: Args) -> Result<Exit, Failure> {
    let store = Store::connect().await?;
    let Some(study) = store.study_read(&args.sweep).await? else {
        let names = store.study_names().await?;
        return Err(unknown("sweep", &args.sweep, &names, "start one with `sweep launch SPEC`"));
    };
    let measured = store.observation_metrics(&args.sweep).await?;
    let metrics = if args.metric.is_empty() {
        default_metrics(&measured)
    } else {
        args.metric.iter().map(|name| find_metric(&measured, name)).collect::<Result<_, _>>()?
    };
    let mut panels = Vec::new();
    for metric in metrics {
        panels.push(panel(&store, &args, metric).await?);
    }
    for panel in &panels {
        say(&law(panel));
    }
    let report = Report { study, compute: args.compute, panels, seed: args.seed, code_version: code_version() };
    let folder = args.output.unwrap_or_else(|| PathBuf::from("reports").join(file_name(&args.sweep)));
    let rendered = render(&report).map_err(|error| Failure::environment(error.to_string()).because(&error))?;
    let page = write(&rendered, &folder).map_err(|error| {
        Failure::environment(error.to_string()).because(&error).hint("choose another folder with `-o DIR`")
    })?;
    data(&page.display().to_string());
    say(&format!("{} figures in {}", rendered.figures.len(), folder.join("figures").display()));
    Ok(Exit::Done)
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

/// Fits one metric by every policy and stores what could be fitted.
async fn panel(store: &Store, args: &Args, metric: &MeasuredMetric) -> Result<Panel, Failure> {
    let observations = store.observation_list(&args.sweep, &metric.dataset, &metric.metric, args.compute, None).await?;
    let source = FitSource { sweep: &args.sweep, dataset: &metric.dataset, metric: &metric.metric, condition: "" };
    let mut fits = Vec::new();
    for points in POLICIES {
        let options = Options { points, seed: args.seed, ..Options::new(Response::of_metric(&metric.metric)) };
        let fit = fit(&observations, &options);
        let stored = match &fit {
            Ok(fit) => store.fit_insert(source, &options, fit).await?,
            Err(_) => None,
        };
        fits.push(PanelFit { policy: points.to_string(), fit, stored });
    }
    Ok(Panel { dataset: metric.dataset.clone(), metric: metric.metric.clone(), fits })
}
