//! What is asked of Slurm, in words: which values, who says them, in how many submissions, and whether the cluster has
//! as much.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;

use super::output::Failure;
use super::plan::time;
use crate::backend::{ClusterLimits, QueueWord, SlurmBackend, slurm_limits};
use crate::plan::{BackendChoice, Origin, Plan, SlurmOptions};
use crate::spec::quantity::grouped;
use crate::store;

/// What `sweep plan` says of Slurm.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Request {
    /// Values and who says them.
    values: Vec<Asked>,
    /// Slurm jobs in the queue at one time.
    at_once: usize,
    /// Arrays that the first of them are submitted in; `None`: the cluster was not asked.
    arrays: Option<usize>,
    /// Tasks of an array at most.
    array_size: Option<usize>,
    /// Why the cluster was not asked whether it can give as much.
    not_checked: Option<String>,
}

#[derive(Debug, Clone, Serialize)]
struct Asked {
    key: &'static str,
    value: String,
    /// `spec`, `site NAME`, `estimate: ...`, `default: ...`.
    from: String,
}

/// How long Slurm may take to say what its jobs are doing.
const QUEUE_LIMIT: Duration = Duration::from_secs(15);

/// Slurm's words for the workers of this project; `None`: there is no Slurm here, or it does not answer.
pub(super) async fn queue_words() -> Option<BTreeMap<String, QueueWord>> {
    let slurm = SlurmBackend::connect(&SlurmOptions::default(), &store::home(), None).await.ok()?;
    slurm.queue_words(QUEUE_LIMIT).await
}

/// What is asked of the cluster for a plan. A time by estimate is cut to what the partition allows: longer jobs go on
/// in the next submission. `Err`: no partition can ever give it.
pub(super) async fn request(plan: &mut Plan) -> Result<Option<Request>, Failure> {
    if !matches!(plan.backend, BackendChoice::Slurm(_)) {
        return Ok(None);
    }
    let limits = slurm_limits().await;
    let jobs = plan.jobs.len();
    let parallel = plan.limits.parallel;
    let BackendChoice::Slurm(options) = &mut plan.backend else { return Ok(None) };
    if let Ok(limits) = &limits {
        fit_to(options, limits)?;
    }
    let slots = options.slots();
    let at_once = parallel.map_or(slots, |parallel| parallel.min(slots)).min(jobs).div_ceil(options.side_by_side);
    let (array_size, not_checked) = match limits {
        Ok(limits) => (limits.array_size, None),
        Err(why) => (None, Some(why)),
    };
    let arrays = array_size.map(|size| at_once.div_ceil(size.max(1)));
    Ok(Some(Request { values: values(options), at_once, arrays, array_size, not_checked }))
}

/// As [`request`], for who submits: a cluster that can't be asked about its nodes may still take jobs.
pub(super) async fn fit_to_cluster(plan: &mut Plan) -> Result<(), Failure> {
    let BackendChoice::Slurm(options) = &mut plan.backend else { return Ok(()) };
    match slurm_limits().await {
        Ok(limits) => fit_to(options, &limits),
        Err(_) => Ok(()),
    }
}

/// Cuts a time by estimate to what the partition allows. `Err`: no partition can ever give what is asked.
fn fit_to(options: &mut SlurmOptions, limits: &ClusterLimits) -> Result<(), Failure> {
    cut(options, limits);
    let Some(impossible) = limits.impossible(options) else { return Ok(()) };
    let (key, said) = (impossible.key, impossible.said);
    Err(Failure::bad_input(format!("no partition can ever run these jobs: `{key}`: {said}"))
        .hint(format!("change `{key}` of `backend: {{slurm: ...}}`, or of the site's profile; `sinfo` shows all")))
}

fn cut(options: &mut SlurmOptions, limits: &ClusterLimits) {
    let longest = limits.longest_secs(options);
    let Origin::Estimate(said) = &mut options.from.time else { return };
    if let Some(most) = longest.filter(|most| (60..options.time_secs).contains(most)) {
        options.work_secs = options.work_secs.min(most / 2);
        options.time_secs = most;
        said.push_str("; cut to the partition's limit, jobs go on in the next submission");
    }
}

fn values(options: &SlurmOptions) -> Vec<Asked> {
    let from = &options.from;
    let value = |key, value: String, from: &Origin| Asked { key, value, from: word(from) };
    let or = |value: &Option<String>| value.clone().unwrap_or_else(|| "not asked".to_owned());
    let mut values = vec![
        value("partition", or(&options.partition), &from.partition),
        value("cpus", options.cpus.to_string(), &from.cpus),
        value("gpus", options.gpus.to_string(), &from.gpus),
        value("memory", or(&options.memory), &from.memory),
        value("time", time(options.time_secs as f64), &from.time),
        value("jobs", options.jobs.to_string(), &from.jobs),
    ];
    if options.nodes > 1 {
        values.insert(1, value("nodes", options.nodes.to_string(), &from.nodes));
    }
    if options.side_by_side > 1 {
        values.insert(1, value("side_by_side", options.side_by_side.to_string(), &from.side_by_side));
    }
    values
}

fn word(origin: &Origin) -> String {
    let with = |what: &str, more: &str| if more.is_empty() { what.to_owned() } else { format!("{what}: {more}") };
    match origin {
        Origin::Spec => "spec".to_owned(),
        Origin::Site(name) => format!("site {name}"),
        Origin::Estimate(said) => with("estimate", said),
        Origin::Default(said) => with("default", said),
    }
}

impl Request {
    /// Lines of text.
    pub(super) fn lines(&self, each: &str) -> Vec<String> {
        let at_once = grouped(self.at_once as u64);
        let plural = |count: usize| if count == 1 { "" } else { "s" };
        let mut lines =
            vec![format!("slurm: at most {at_once} Slurm job{} at one time, each {each}", plural(self.at_once))];
        let width = self.values.iter().map(|value| value.key.len()).max().unwrap_or(0);
        let row = |value: &Asked| format!("       {:<width$}  {:<10}  {}", value.key, value.value, value.from);
        lines.extend(self.values.iter().map(row));
        lines.push(match (self.arrays, self.array_size) {
            (Some(arrays), Some(size)) => format!(
                "       submitted at first as {arrays} job array{} of at most {} tasks, then anew as workers end",
                plural(arrays),
                grouped(size as u64)
            ),
            _ => "       submitted as job arrays as large as `jobs` and MaxArraySize let them be".to_owned(),
        });
        if let Some(why) = &self.not_checked {
            lines.push(format!("       not checked whether the cluster has as much: {why}"));
        }
        lines
    }
}
