//! What is asked of Slurm for each job, and why: the spec's word, the site's, an estimate, a default. Pure.

use std::collections::BTreeMap;

use super::PlannedJob;
use crate::spec::SlurmKeys;

/// What is asked of a Slurm cluster for each job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SlurmOptions {
    /// `--partition`; else the cluster's default.
    pub partition: Option<String>,
    /// `--account`.
    pub account: Option<String>,
    /// `--qos`.
    pub qos: Option<String>,
    /// `--constraint`.
    pub constraint: Option<String>,
    /// `--gres=gpu:N`; 0: none.
    pub gpus: usize,
    /// `--cpus-per-task`, and the runner's threads.
    pub cpus: usize,
    /// `--mem`, as Slurm writes it: `16G`.
    pub memory: Option<String>,
    /// `--time`, seconds; Slurm counts minutes.
    pub time_secs: u64,
    /// `--nodes` and `--ntasks`: processes of a job, one a node; the numbers above are of one.
    pub nodes: usize,
    /// Jobs at one time in one Slurm job; the numbers above are of one of them.
    pub side_by_side: usize,
    /// Slurm jobs in the queue at one time.
    pub jobs: usize,
    /// Seconds for which a worker goes on to the next job; 0: a worker a job.
    pub work_secs: u64,
    /// Whether workers reach no database and leave all in their folders, for the launcher to store.
    pub spool_only: bool,
    /// Variables that are exported before `setup`.
    pub environment: BTreeMap<String, String>,
    /// Shell lines before the worker.
    pub setup: Vec<String>,
    /// Words before `sweep-worker`.
    pub container: Vec<String>,
    /// Further options of `sbatch`.
    pub options: Vec<String>,
    /// Where the values that a spec may leave out come from.
    pub from: SlurmOrigins,
}

impl Default for SlurmOptions {
    /// One CPU for an hour in the cluster's default partition.
    fn default() -> SlurmOptions {
        slurm_options(&SlurmKeys::default(), None, &[])
    }
}

impl SlurmOptions {
    /// What is asked of a node for so many jobs side by side.
    #[must_use]
    pub fn on_a_node(&self, jobs: usize) -> NodeRequest {
        NodeRequest {
            cpus: self.cpus * jobs,
            gpus: self.gpus * jobs,
            memory: self.memory.as_deref().map(|memory| times(memory, jobs)),
        }
    }

    /// Jobs that run at one time at most.
    pub fn slots(&self) -> usize {
        self.jobs.saturating_mul(self.side_by_side)
    }
}

/// What is asked of one node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeRequest {
    /// CPUs.
    pub cpus: usize,
    /// GPUs.
    pub gpus: usize,
    /// Memory, as Slurm writes it.
    pub memory: Option<String>,
}

/// `16G` so many times. What is no amount of memory stays as it is: Slurm will say so.
fn times(memory: &str, count: usize) -> String {
    let unit_at = memory.find(|c: char| !c.is_ascii_digit()).unwrap_or(memory.len());
    let (number, unit) = memory.split_at(unit_at);
    number
        .parse::<u64>()
        .map_or_else(|_| memory.to_owned(), |number| format!("{}{unit}", number.saturating_mul(count as u64)))
}

/// Who says a value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// The spec.
    Spec,
    /// A site's profile: its name.
    Site(String),
    /// The plan: how, in words.
    Estimate(String),
    /// Nobody: what that means, in words; may be empty.
    Default(String),
}

/// Where values come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SlurmOrigins {
    /// Of `partition`.
    pub partition: Origin,
    /// Of `gpus`.
    pub gpus: Origin,
    /// Of `cpus`.
    pub cpus: Origin,
    /// Of `memory`.
    pub memory: Origin,
    /// Of `time`.
    pub time: Origin,
    /// Of `nodes`.
    pub nodes: Origin,
    /// Of `side_by_side`.
    pub side_by_side: Origin,
    /// Of `jobs`.
    pub jobs: Origin,
}

/// A profile of a site.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Site {
    /// Its name.
    pub name: String,
    /// What it says.
    pub keys: SlurmKeys,
}

/// `--time` where nothing is known.
const TIME_SECS: u64 = 3600;
/// Of a submission by estimate: the least, so that a queue is worth its while, and what starting takes.
const ESTIMATED_SECS_MIN: u64 = 600;
const START_SECS: f64 = 120.0;
/// The longest job by estimate counts so often: nodes differ, and evaluations are not in it.
const TIME_MARGIN: f64 = 1.5;
/// Memory by estimate: the closed form, which is within a tenth of what is measured, times this, for what it leaves
/// out, and what the worker takes, and a runner while it decodes a pool.
const MEMORY_MARGIN: f64 = 1.25;
const PROCESS_BYTES: f64 = (512_u64 << 20) as f64;

/// What to ask of Slurm for these jobs.
pub fn slurm_options(spec: &SlurmKeys, site: Option<&Site>, jobs: &[PlannedJob]) -> SlurmOptions {
    let below = SlurmKeys::default();
    let below = site.map_or(&below, |site| &site.keys);
    let keys = spec.clone().over(below);
    let origin = |in_spec: bool, in_site: bool, otherwise: &dyn Fn() -> Origin| match site {
        _ if in_spec => Origin::Spec,
        Some(site) if in_site => Origin::Site(site.name.clone()),
        _ => otherwise(),
    };
    let unset = || Origin::Default(String::new());
    let gpus = keys.gpus.unwrap_or(0);
    let (estimated_memory, memory_from) = memory(gpus, jobs);
    let (estimated_secs, time_from) = time(keys.work_secs, jobs);
    let time_secs = keys.time_secs.unwrap_or(estimated_secs);
    SlurmOptions {
        from: SlurmOrigins {
            partition: origin(spec.partition.is_some(), below.partition.is_some(), &|| {
                Origin::Default("the cluster's".to_owned())
            }),
            gpus: origin(spec.gpus.is_some(), below.gpus.is_some(), &unset),
            cpus: origin(spec.cpus.is_some(), below.cpus.is_some(), &unset),
            memory: origin(spec.memory.is_some(), below.memory.is_some(), &|| memory_from.clone()),
            time: origin(spec.time_secs.is_some(), below.time_secs.is_some(), &|| time_from.clone()),
            nodes: origin(spec.nodes.is_some(), below.nodes.is_some(), &unset),
            side_by_side: origin(spec.side_by_side.is_some(), below.side_by_side.is_some(), &unset),
            jobs: origin(spec.jobs.is_some(), below.jobs.is_some(), &unset),
        },
        partition: keys.partition,
        account: keys.account,
        qos: keys.qos,
        constraint: keys.constraint,
        gpus,
        cpus: keys.cpus.unwrap_or(1),
        memory: keys.memory.or(estimated_memory),
        time_secs,
        nodes: keys.nodes.unwrap_or(1),
        side_by_side: keys.side_by_side.unwrap_or(1),
        jobs: keys.jobs.unwrap_or(100),
        work_secs: keys.work_secs.unwrap_or(time_secs / 2),
        spool_only: keys.spool_only.unwrap_or(false),
        environment: keys.environment,
        setup: keys.setup.unwrap_or_default(),
        container: keys.container.unwrap_or_default(),
        options: keys.options.unwrap_or_default(),
    }
}

/// Memory for any of the jobs: a worker goes on from one to the next. With GPUs what is estimated is theirs, and
/// nothing is known of the node's.
fn memory(gpus: usize, jobs: &[PlannedJob]) -> (Option<String>, Origin) {
    let Some(largest) = jobs.iter().map(|job| job.memory_bytes).max() else {
        return (None, Origin::Default("the cluster's".to_owned()));
    };
    if gpus > 0 {
        return (None, Origin::Default("the cluster's; the estimate is of the GPU's".to_owned()));
    }
    let mib = (largest as f64 * MEMORY_MARGIN + PROCESS_BYTES) / f64::from(1 << 20);
    let step = if mib < 4096.0 { 64.0 } else { 1024.0 };
    let mib = ((mib / step).ceil() * step) as u64;
    let text = if mib.is_multiple_of(1024) { format!("{}G", mib / 1024) } else { format!("{mib}M") };
    let said = format!(
        "{:.0} MiB of the largest job x {MEMORY_MARGIN}, {:.0} MiB for the worker and for decoding",
        largest as f64 / f64::from(1 << 20),
        PROCESS_BYTES / f64::from(1 << 20)
    );
    (Some(text), Origin::Estimate(said))
}

/// Time of a submission: the longest job, once begun as late as a worker may.
fn time(work_secs: Option<u64>, jobs: &[PlannedJob]) -> (u64, Origin) {
    let measured = jobs.iter().map(|job| job.secs).collect::<Option<Vec<f64>>>();
    let Some(longest) = measured.and_then(|secs| secs.into_iter().reduce(f64::max)) else {
        return (TIME_SECS, Origin::Default("no speed of these models was measured on such slots".to_owned()));
    };
    let of_one = (longest * TIME_MARGIN + START_SECS).ceil() as u64;
    // Unless it is said, a worker goes on for half of its time.
    let secs = work_secs.map_or(2 * of_one, |work_secs| work_secs + of_one).max(ESTIMATED_SECS_MIN);
    let secs = secs.div_ceil(300) * 300;
    (secs, Origin::Estimate(format!("the longest job takes {longest:.0} s as measured, x {TIME_MARGIN}, begun late")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(partition: &str) -> SlurmKeys {
        SlurmKeys { partition: Some(partition.to_owned()), ..SlurmKeys::default() }
    }

    #[test]
    fn the_spec_wins_over_the_site_and_the_site_over_defaults() {
        let variables = |pairs: &[(&str, &str)]| {
            pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect::<BTreeMap<_, _>>()
        };
        let spec = SlurmKeys { environment: variables(&[("A", "spec")]), ..keys("gpu") };
        let site = SlurmKeys {
            cpus: Some(8),
            time_secs: Some(7200),
            environment: variables(&[("A", "site"), ("B", "site")]),
            ..keys("long")
        };
        let site = Site { name: "home".to_owned(), keys: site };
        let options = slurm_options(&spec, Some(&site), &[]);
        assert_eq!((options.partition.as_deref(), options.cpus, options.gpus), (Some("gpu"), 8, 0));
        assert_eq!((options.time_secs, options.work_secs, options.jobs), (7200, 3600, 100));
        assert_eq!(options.environment, variables(&[("A", "spec"), ("B", "site")]));
        let of_site = Origin::Site("home".to_owned());
        assert_eq!(
            (&options.from.partition, &options.from.cpus, &options.from.time),
            (&Origin::Spec, &of_site, &of_site)
        );
        assert!(matches!(options.from.gpus, Origin::Default(_)));
    }

    #[test]
    fn jobs_side_by_side_ask_for_as_many_times_as_much() {
        let options =
            SlurmOptions { cpus: 8, gpus: 1, memory: Some("1500M".to_owned()), jobs: 5, ..SlurmOptions::default() };
        assert_eq!((options.side_by_side, options.slots()), (1, 5));
        let asked = options.on_a_node(3);
        assert_eq!((asked.cpus, asked.gpus, asked.memory.as_deref()), (24, 3, Some("4500M")));
        assert_eq!(SlurmOptions::default().on_a_node(4).memory, None);
        assert_eq!(SlurmOptions { side_by_side: 3, ..options }.slots(), 15);
    }

    #[test]
    fn without_a_word_an_hour_and_the_clusters_memory() {
        let options = SlurmOptions::default();
        assert_eq!((options.time_secs, options.work_secs, options.memory.as_deref()), (3600, 1800, None));
        assert!(matches!(options.from.time, Origin::Default(_)));
    }
}
