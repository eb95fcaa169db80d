//! What a report is drawn from: a sweep as it was read, and the laws of its metrics. Plain data; whoever keeps results
//! fills it.

use std::collections::HashMap;

use chrono::{DateTime, Utc};
use fit::{Convention, Fit, FitError, LawName, Observation, Response};
use serde::Serialize;
use serde_json::Value;

/// A sweep with its jobs, curves, measurements and data, read at one time.
#[derive(Debug, Clone)]
pub struct Study {
    /// Name of the sweep.
    pub name: String,
    /// What it is to answer.
    pub question: String,
    /// The YAML as last launched.
    pub spec: String,
    /// Jobs in the order of the plan.
    pub jobs: Vec<StudyJob>,
    /// Training loss, thinned, each the mean of what was reported between it and the one
    /// before.
    pub curves: Vec<CurvePoint>,
    /// Final measurements of finished jobs.
    pub measurements: Vec<StudyMeasurement>,
    /// Pools that jobs train on or are measured on.
    pub pools: Vec<StudyPool>,
    /// What ladders have chosen for its models.
    pub tuned: Vec<Tuning>,
    /// Its cells beside that.
    pub tuned_cells: Vec<TunedCell>,
    /// The database's clock when this was read.
    pub read_at: DateTime<Utc>,
}

impl Study {
    /// What finished jobs measured, with the jobs' places in [`Study::jobs`].
    pub fn measured(&self, dataset: &str, metric: &str) -> Vec<(usize, &StudyMeasurement)> {
        let places: HashMap<&str, usize> =
            self.jobs.iter().enumerate().map(|(place, job)| (job.job_key.as_str(), place)).collect();
        let of_panel = |m: &&StudyMeasurement| m.metric == metric && m.dataset == dataset;
        self.measurements.iter().filter(of_panel).filter_map(|m| Some((*places.get(m.job_key.as_str())?, m))).collect()
    }

    /// The rows of the view `observation` that a law of this metric is fitted to, by job key, each with its job's place
    /// in [`Study::jobs`]. Axes that a source does not say are NaN.
    pub fn observations(&self, dataset: &str, metric: &str, compute: Convention) -> Vec<(usize, Observation)> {
        let response = Response::of_metric(metric);
        let number = |count: Option<i64>| count.map_or(f64::NAN, |count| count as f64);
        let row = |(place, m): (usize, &StudyMeasurement)| {
            let job = &self.jobs[place];
            let observation = Observation {
                job_key: job.job_key.clone(),
                model: job.model.clone(),
                parameters: number(job.parameters),
                samples_seen: number(job.samples_seen),
                unique_samples: number(job.unique_samples),
                compute: job.compute_in(compute).unwrap_or(f64::NAN),
                convention: compute,
                error: response.error_of(m.value),
                standard_error: m.standard_error,
                chance_error: m.chance.map(|chance| response.error_of(chance)),
                count: m.count.map(|count| count as f64),
                gpu_hours: job.gpu_hours,
                proxy_loss: f64::NAN,
            };
            (place, observation)
        };
        let mut rows: Vec<_> = self.measured(dataset, metric).into_iter().map(row).collect();
        rows.sort_by(|a, b| a.1.job_key.cmp(&b.1.job_key));
        rows
    }
}

/// One job.
#[derive(Debug, Clone)]
pub struct StudyJob {
    /// Its name everywhere.
    pub job_key: String,
    /// `pending`, `running`, `done`, `failed`, `cancelled`.
    pub state: String,
    /// Why it failed or was cancelled.
    pub reason: Option<String>,
    /// Last lines of its last attempt's standard error.
    pub stderr_tail: Option<String>,
    /// Runner's name.
    pub runner: String,
    /// Runner's version.
    pub runner_version: String,
    /// Model's name.
    pub model: String,
    /// N. Axes and compute are `None` where an imported table does not say.
    pub parameters: Option<i64>,
    /// D.
    pub samples_seen: Option<i64>,
    /// Unique samples of the pool that it may see.
    pub data_size: Option<i64>,
    /// U.
    pub unique_samples: Option<i64>,
    /// Seed.
    pub seed: i64,
    /// C, forward GMACs x samples.
    pub gmacs_samples: Option<f64>,
    /// C, FLOPs of training.
    pub train_flops: Option<f64>,
    /// C, 6ND.
    pub six_nd: Option<f64>,
    /// Samples of these that its parent trains on; 0 without one.
    pub parent_samples: i64,
    /// Whether other jobs of the sweep go on from it: it is no cell.
    pub is_trunk: bool,
    /// Training loss at the last report, nats.
    pub train_loss: Option<f64>,
    /// Seconds in training steps, all attempts.
    pub train_secs: Option<f64>,
    /// Loss spikes; `None`: the runner does not say.
    pub spikes: Option<i64>,
    /// How often it went back after one, and the samples that it passed over then.
    pub rollbacks: Option<i64>,
    /// See `rollbacks`.
    pub skipped_samples: Option<i64>,
    /// Seconds of these that waited for data; `None`: the runner does not say.
    pub data_wait_secs: Option<f64>,
    /// Training seconds x GPUs, hours; `None`: no GPU is known of.
    pub gpu_hours: Option<f64>,
    /// Joules of its GPUs, all attempts; `None`: not known of all of them.
    pub gpu_joules: Option<f64>,
    /// Joules of processor packages by its share of their machines; likewise.
    pub cpu_joules: Option<f64>,
    /// What it was imported from; `None`: trained by us.
    pub source: Option<String>,
    /// Name of the data set trained on.
    pub pool: Option<String>,
    /// Seconds in evaluations, all attempts.
    pub eval_secs: Option<f64>,
    /// Executions so far.
    pub attempts: i64,
    /// Folder of the last one: its `stderr.log` and `events.jsonl` are there.
    pub folder: Option<String>,
    /// What the last attempt ran on.
    pub device: Option<String>,
    /// When its result was stored.
    pub done_at: Option<DateTime<Utc>>,
}

impl StudyJob {
    /// C in a convention, where the job's source says it.
    pub fn compute_in(&self, convention: Convention) -> Option<f64> {
        match convention {
            Convention::GmacsSamples => self.gmacs_samples,
            Convention::TrainFlops => self.train_flops,
            Convention::SixNd => self.six_nd,
        }
    }
}

/// A point of a loss curve.
#[derive(Debug, Clone, PartialEq)]
pub struct CurvePoint {
    /// Which job.
    pub job_key: String,
    /// Samples seen.
    pub samples_seen: f64,
    /// Training loss, nats.
    pub loss: f64,
}

/// One number measured at the end of a job.
#[derive(Debug, Clone, PartialEq)]
pub struct StudyMeasurement {
    /// Which job.
    pub job_key: String,
    /// Data set.
    pub dataset: String,
    /// Metric.
    pub metric: String,
    /// Fraction or nats.
    pub value: f64,
    /// Over the test items.
    pub standard_error: Option<f64>,
    /// What guessing gives.
    pub chance: Option<f64>,
    /// Test items.
    pub count: Option<i64>,
}

/// A pool.
#[derive(Debug, Clone)]
pub struct StudyPool {
    /// Name.
    pub name: String,
    /// sha256 of its manifest.
    pub digest: String,
    /// Folder.
    pub path: String,
    /// Pairs; `None`: an imported table does not say.
    pub samples: Option<i64>,
    /// `protocol::PoolManifest`, where there is one.
    pub manifest: Option<Value>,
}

/// A value that a ladder has chosen.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Tuning {
    /// Model.
    pub model: String,
    /// Unique samples.
    pub data_size: i64,
    /// Of the ladder's jobs.
    pub samples_seen: i64,
    /// What was chosen: `lr`.
    pub parameter: String,
    /// Chosen, on what the recipe has.
    pub factor: f64,
    /// The same as a value at `samples_seen`.
    pub value: f64,
    /// Data set that decided.
    pub dataset: String,
    /// Metric that decided.
    pub metric: String,
    /// What it measured.
    pub measured: f64,
    /// Its standard error.
    pub noise: Option<f64>,
    /// `seeds` or `items`.
    pub noise_of: Option<String>,
    /// Rungs within noise of the best one.
    pub tied: i64,
    /// Why the best may lie beyond.
    pub open: Option<String>,
    /// Rungs.
    pub rungs: i64,
    /// Of which so many failed.
    pub rungs_failed: i64,
}

/// A cell and the value that was tuned for its model.
#[derive(Debug, Clone, PartialEq)]
pub struct TunedCell {
    /// The cell.
    pub job_key: String,
    /// Its model.
    pub model: String,
    /// Unique samples.
    pub data_size: i64,
    /// Its samples seen.
    pub samples_seen: i64,
    /// Its seed.
    pub seed: i64,
    /// Its learning rate.
    pub lr: f64,
    /// That which was tuned.
    pub tuned_lr: f64,
    /// Samples seen where it was tuned.
    pub tuned_samples: i64,
}

/// One metric: its fits by every policy. The first is the one drawn with its band.
#[derive(Debug, Clone)]
pub struct Panel {
    /// Data set.
    pub dataset: String,
    /// Metric.
    pub metric: String,
    /// Fits, or why there is none.
    pub fits: Vec<PanelFit>,
}

/// One fit of a panel.
#[derive(Debug, Clone)]
pub struct PanelFit {
    /// Policy, as stored: `all`, `pareto`, `bins:5`.
    pub policy: String,
    /// The fit.
    pub fit: Result<Fit, FitError>,
    /// Its row, where it was stored.
    pub stored: Option<FitRow>,
    /// Other laws of C through the same points, the same laws in the same order in all of a report.
    pub others: Vec<OtherLaw>,
}

/// A law that a figure can show in the place of the power law.
#[derive(Debug, Clone)]
pub struct OtherLaw {
    /// Which.
    pub law: LawName,
    /// The fit, or why there is none.
    pub fit: Result<Fit, FitError>,
}

/// Where a fit is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FitRow {
    /// `fit.fit_id`.
    pub fit_id: i64,
    /// sha256 of the observations that it was made from.
    pub input_hash: String,
}

impl Panel {
    /// `DATASET/METRIC`, as on the command line.
    pub fn name(&self) -> String {
        format!("{}/{}", self.dataset, self.metric)
    }

    /// How its values become errors.
    pub fn response(&self) -> Response {
        Response::of_metric(&self.metric)
    }

    /// The fit that is drawn.
    pub fn main(&self) -> Option<&PanelFit> {
        self.fits.first()
    }
}
