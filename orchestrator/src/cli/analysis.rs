//! What the analysing commands share: which rows, which law, and how both are said.

use super::output::{Failure, data};
use crate::fit::{
    Axis, Convention, Exclusion, Fit, FitError, IntervalKind, Intervals, LawName, Method, Objective, Observation,
    Options, Points, RESAMPLES, Reason, Resampling, Response, STARTS, Weighting, fit,
};
use crate::report::number::{significant, with_interval};
use crate::spec::nearest;
use crate::store::Store;
use crate::store::fit::{FitSource, StoredFit};
use crate::store::observation::{MeasuredMetric, ObservationsOf};

/// Which rows.
#[derive(Debug, Clone, Default, clap::Args)]
pub(super) struct Rows {
    /// What to fit, for example `emoji-val/image_retrieval_recall@5`; `sweep fit SWEEP` lists what there is.
    #[arg(long, value_name = "DATASET/METRIC")]
    pub(super) metric: Option<String>,
    /// Only rows for which this SQL condition on the view `observation` holds, for example "model <> 'ViT-H-14'".
    #[arg(long = "where", value_name = "SQL")]
    pub(super) condition: Option<String>,
    /// Convention of compute: gmacs_samples, train_flops or six_nd [default: the first that most rows have].
    #[arg(long, value_name = "CONVENTION")]
    pub(super) compute: Option<Convention>,
    /// Every measured checkpoint instead of the end of each job; resampling is by job either way.
    #[arg(long)]
    pub(super) checkpoints: bool,
    /// A loss of the same jobs, for laws that take one (`downstream`, `sigmoid`).
    #[arg(long, value_name = "DATASET/METRIC")]
    pub(super) proxy: Option<String>,
}

/// Which law, and how.
#[derive(Debug, Clone, clap::Args)]
#[expect(clippy::struct_field_names, reason = "`--law` is the law's name")]
pub(super) struct Law {
    /// The form; `sweep laws` lists them.
    #[arg(long, default_value = "power", value_name = "LAW")]
    pub(super) law: LawName,
    /// What is minimised: ls-log, ls, ls-logit, huber:DELTA, lad, asymmetric:DELTA:OVER.
    #[arg(long, default_value = "ls-log", value_name = "OBJECTIVE")]
    pub(super) objective: Objective,
    /// Which points the law goes through: all, pareto, hull, last or bins:K.
    #[arg(long, default_value = "all", value_name = "POLICY")]
    pub(super) points: Points,
    /// Hold a parameter of the law, may be repeated.
    #[arg(long = "fix", value_name = "NAME=VALUE", value_parser = held)]
    pub(super) fixed: Vec<(String, f64)>,
    /// Searches for the minimum.
    #[arg(long, default_value_t = STARTS, value_name = "COUNT")]
    pub(super) starts: usize,
    /// Resamples behind the intervals.
    #[arg(long, default_value_t = RESAMPLES, value_name = "COUNT")]
    pub(super) resamples: usize,
    /// Where intervals come from: bootstrap (pairs, by job), wild, seed-noise or profile.
    #[arg(long, default_value = "bootstrap", value_name = "WAY")]
    pub(super) intervals: Intervals,
    /// How intervals are read off resamples: expanded, percentile, bca or expanded-bca.
    #[arg(long, default_value = "expanded", value_name = "KIND")]
    pub(super) interval_kind: IntervalKind,
    /// Weights of rows: equal, or noise (1 / variance, by replicates and test items).
    #[arg(long, default_value = "equal", value_name = "WEIGHTS")]
    pub(super) weights: Weighting,
    /// Random starts of each refit, besides the optimum.
    #[arg(long, default_value_t = 0, value_name = "COUNT")]
    pub(super) restarts: usize,
    /// Seed of the resamples and of random starts.
    #[arg(long, default_value_t = 0)]
    pub(super) seed: u64,
}

impl Law {
    /// As the engine takes it.
    pub(super) fn options(&self, metric: &MeasuredMetric, method: Method) -> Options {
        Options {
            law: self.law,
            objective: self.objective,
            points: self.points,
            frozen: self.fixed.clone(),
            starts: self.starts,
            resamples: self.resamples,
            seed: self.seed,
            resampling: match self.intervals {
                Intervals::Bootstrap(kind) => kind,
                Intervals::Profile => Resampling::Pairs,
            },
            interval: self.interval_kind,
            restarts: self.restarts,
            weighting: self.weights,
            method,
            ..Options::new(Response::of_metric(&metric.metric))
        }
    }
}

fn held(text: &str) -> Result<(String, f64), String> {
    let parts = text.split_once('=').and_then(|(name, value)| Some((name.trim(), value.trim().parse::<f64>().ok()?)));
    match parts {
        Some((name, value)) if value.is_finite() => Ok((name.to_owned(), value)),
        _ => Err("a name and a number with `=` between them are wanted, for example alpha=0.34".to_owned()),
    }
}

/// A sweep's observations of one metric.
pub(super) struct Loaded {
    /// Name of the sweep.
    pub(super) sweep: String,
    /// What was measured.
    pub(super) metric: MeasuredMetric,
    /// SQL condition; empty: all rows.
    pub(super) condition: String,
    /// The rows, C in one convention.
    pub(super) observations: Vec<Observation>,
}

impl Loaded {
    /// As the store names it.
    pub(super) fn source(&self) -> FitSource<'_> {
        FitSource {
            sweep: &self.sweep,
            dataset: &self.metric.dataset,
            metric: &self.metric.metric,
            condition: &self.condition,
        }
    }

    /// What E is, with its unit.
    pub(super) fn response_name(&self) -> String {
        match Response::of_metric(&self.metric.metric) {
            Response::Fraction => format!("1 - {}", self.metric.metric),
            Response::Loss => format!("{}, nats", self.metric.metric),
        }
    }
}

/// The metrics of a sweep; an error if there is no such sweep.
pub(super) async fn metrics(store: &Store, sweep: &str) -> Result<Vec<MeasuredMetric>, Failure> {
    let names = store.study_names().await?;
    if !names.iter().any(|name| name == sweep) {
        return Err(unknown("sweep", sweep, &names, "start one with `sweep launch SPEC`, or `sweep import`"));
    }
    Ok(store.observation_metrics(sweep).await?)
}

/// Reads what `rows` asks for.
pub(super) async fn load(store: &Store, sweep: &str, rows: &Rows) -> Result<Loaded, Failure> {
    let measured = metrics(store, sweep).await?;
    let metric = match &rows.metric {
        Some(wanted) => find_metric(&measured, wanted)?.clone(),
        None => match measured.as_slice() {
            [only] => only.clone(),
            _ => {
                return Err(Failure::bad_input(format!("`{sweep}` was measured by {} metrics", measured.len()))
                    .hint(format!("choose one with --metric; `sweep fit {sweep}` lists them")));
            }
        },
    };
    let proxy = rows.proxy.as_deref().map(|wanted| find_metric(&measured, wanted)).transpose()?;
    let read = |convention: Convention| {
        let of = ObservationsOf {
            sweep,
            dataset: &metric.dataset,
            metric: &metric.metric,
            convention,
            condition: rows.condition.as_deref(),
            proxy: proxy.map(|proxy| (proxy.dataset.as_str(), proxy.metric.as_str())),
            checkpoints: rows.checkpoints,
        };
        async move { store.observations(&of).await }
    };
    let conventions = rows.compute.map_or(Convention::ALL.to_vec(), |convention| vec![convention]);
    let with_compute = |rows: &[Observation]| rows.iter().filter(|row| row.compute.is_finite()).count();
    let mut observations: Vec<Observation> = Vec::new();
    for convention in conventions {
        let rows = read(convention).await?;
        if observations.is_empty() || with_compute(&rows) > with_compute(&observations) {
            observations = rows;
        }
    }
    if let (true, Some(condition)) = (observations.is_empty(), &rows.condition) {
        return Err(Failure::bad_input(format!("no row of `{sweep}` with {} satisfies `{condition}`", metric.name()))
            .hint(format!(
                "sweep sql \"SELECT * FROM observation WHERE sweep = '{sweep}' LIMIT 5\" shows the columns"
            )));
    }
    let condition = rows.condition.clone().unwrap_or_default();
    Ok(Loaded { sweep: sweep.to_owned(), metric, condition, observations })
}

/// Fits and stores.
pub(super) async fn fit_and_store(
    store: &Store,
    loaded: &Loaded,
    options: &Options,
) -> Result<(Fit, StoredFit), Failure> {
    let fitted = fit(&loaded.observations, options).map_err(|error| no_fit(&error))?;
    let stored = store
        .fit_insert(loaded.source(), options, &fitted)
        .await?
        .ok_or_else(|| Failure::failed(format!("the sweep `{}` was deleted meanwhile", loaded.sweep)))?;
    Ok((fitted, stored))
}

/// `error: there is no sweep X`, with the nearest name and the list.
pub(super) fn unknown(kind: &str, name: &str, names: &[String], otherwise: &str) -> Failure {
    const SHOWN: usize = 40;
    let failure = Failure::bad_input(format!("there is no {kind} `{name}`"));
    let nearest = nearest(name, names.iter().map(String::as_str));
    let mut list = names.iter().take(SHOWN).map(String::as_str).collect::<Vec<_>>().join(", ");
    if names.len() > SHOWN {
        list = format!("{list} and {} more", names.len() - SHOWN);
    }
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

/// Why there is no fit, and the way out.
pub(super) fn no_fit(error: &FitError) -> Failure {
    let failure = Failure::failed(error.to_string());
    match error {
        FitError::TooFewPoints { excluded, observations: 0, law, .. }
            if let Some(axis) = lacking(excluded) =>
        {
            Failure::failed(format!("none of {} rows says its {}, which the law `{law}` needs", excluded.len(), axis.describe()))
                .hint("choose a law of what they do say (`sweep laws`; power-d is a power law of samples seen), or map it on import")
        }
        FitError::TooFewPoints { excluded, .. } if !excluded.is_empty() => {
            let reasons: Vec<String> = excluded.iter().map(left_out).collect();
            failure.hint(format!("what was left out:\n  {}", reasons.join("\n  ")))
        }
        FitError::TooFewPoints { policy: Points::All, .. } => failure.hint("let more jobs finish: `sweep status`"),
        FitError::TooFewPoints { .. } => failure.hint("use `--points all`, or let more jobs finish"),
        FitError::OneValue { .. } => failure.hint("widen the grid, or fit a law without that axis: `sweep laws`"),
        FitError::Frozen { .. } => Failure::bad_input(error.to_string()).hint("see `sweep laws`"),
        FitError::NeedsCeiling { .. } => Failure::bad_input(error.to_string())
            .hint("import the rows with their chance level, or choose another law: `sweep laws`"),
        FitError::MixedConventions { .. } => failure.hint("choose one with `--compute`"),
    }
}

/// The axis that all rows lack, if they were left out for nothing else.
fn lacking(excluded: &[Exclusion]) -> Option<Axis> {
    let axis = |row: &Exclusion| match row.reason {
        Reason::Axis(axis, value) if value.0.is_nan() => Some(axis),
        _ => None,
    };
    let first = axis(excluded.first()?)?;
    excluded.iter().all(|row| axis(row) == Some(first)).then_some(first)
}

/// `job 0123456789ab: error 0 has no logarithm`
pub(super) fn left_out(row: &Exclusion) -> String {
    format!("job {}: {}", short(&row.job_key), row.reason)
}

/// First 12 characters of a job key.
pub(super) fn short(job_key: &str) -> &str {
    job_key.get(..12).unwrap_or(job_key)
}

/// A line with its label in front.
pub(super) fn line(label: &str, text: &str) {
    data(&format!("{label:<12}{text}"));
}

/// The law with its numbers: `E = 5.86 * C^-0.111`; each parameter with its interval on its own line.
pub(super) fn law_lines(fit: &Fit) {
    line("law", &format!("{}   ({})", with_numbers(fit), fit.law));
    for parameter in &fit.parameters {
        if parameter.frozen {
            line(parameter.name, &format!("{} (held)", significant(parameter.interval.value, 6)));
        } else {
            line(parameter.name, &with_interval(&parameter.interval));
        }
    }
}

/// The formula with the fitted values in place of the names.
pub(super) fn with_numbers(fit: &Fit) -> String {
    let form = fit.form();
    let mut out = String::new();
    let mut word = String::new();
    let flush = |word: &mut String, out: &mut String| {
        match fit.parameter(word) {
            Some(interval) if interval.value < 0.0 && out.ends_with('-') => {
                out.extend(["(", &significant(interval.value, 3), ")"]);
            }
            Some(interval) => out.push_str(&significant(interval.value, 3)),
            None => out.push_str(word),
        }
        word.clear();
    };
    for c in form.formula().chars() {
        if c.is_alphanumeric() || c == '_' || (c == '*' && word.starts_with("R_")) {
            word.push(c);
        } else {
            flush(&mut word, &mut out);
            out.push(c);
        }
    }
    flush(&mut word, &mut out);
    // `E = 1.69 + ...`: the left side keeps its name.
    match (form.formula().split_once('='), out.split_once('=')) {
        (Some((left, _)), Some((_, right))) => format!("{left}={right}"),
        _ => out,
    }
}
