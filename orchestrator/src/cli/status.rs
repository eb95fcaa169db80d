//! `sweep status`: the sweeps, or the jobs of one.

use std::collections::BTreeMap;

use comfy_table::{CellAlignment, Table, presets};
use serde::Serialize;

use super::output::{self, Exit, Failure, data, say};
use super::progress::{short, time};
use super::slurm;
use crate::backend::{QueueWord, SlurmBackend};
use crate::schedule::{QUIET_SECS, SILENT_SECS};
use crate::store::{JobProgress, ProgressFilter, StateCounts, Store, SweepSummary, Tuning};

/// Options of `sweep status`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Name of the sweep; without one, all sweeps are listed.
    sweep: Option<String>,
    /// List at most so many jobs: those that run, then those that failed or were cancelled, then the rest, each in plan
    /// order.
    #[arg(long, value_name = "JOBS", default_value_t = 1000, conflicts_with = "all")]
    limit: u32,
    /// List all jobs, in plan order.
    #[arg(long)]
    all: bool,
    /// As JSON, schema `sweep.status/1`.
    #[arg(long)]
    json: bool,
}

/// Body of `sweep status --json`.
#[derive(Debug, Serialize)]
struct Sweeps<'a> {
    sweeps: Vec<SweepLine<'a>>,
}

#[derive(Debug, Serialize)]
struct SweepLine<'a> {
    sweep: &'a str,
    question: &'a str,
    jobs: i64,
    done: i64,
    running: i64,
    failed: i64,
    cancelled: i64,
}

/// Body of `sweep status SWEEP --json`.
#[expect(clippy::struct_field_names, reason = "`jobs` is what is in the field")]
#[derive(Debug, Serialize)]
struct Jobs<'a> {
    sweep: &'a str,
    pending: i64,
    running: i64,
    done: i64,
    failed: i64,
    cancelled: i64,
    /// Age of these counts: 0, or of what the launcher of a large sweep counted last.
    counted_secs_ago: f64,
    /// Jobs of the sweep that `jobs` leaves out (`--limit`, `--all`).
    left_out: i64,
    /// Jobs that measure its checkpoints apart from training, by the sweeps that they are in.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    companions: Vec<CompanionLine>,
    /// What ladders have chosen for its models, with which its cells were planned.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tuned: Vec<Tuning>,
    jobs: Vec<JobLine<'a>>,
}

/// A sweep that measures checkpoints of another one, in `--json` of `status` and `launch`.
#[derive(Debug, Serialize)]
pub(super) struct CompanionLine {
    pub(super) sweep: String,
    pub(super) pending: i64,
    pub(super) running: i64,
    pub(super) done: i64,
    pub(super) failed: i64,
    pub(super) cancelled: i64,
}

impl CompanionLine {
    pub(super) fn new(sweep: &str, counts: &StateCounts) -> CompanionLine {
        let StateCounts { pending, running, done, failed, cancelled } = *counts;
        CompanionLine { sweep: sweep.to_owned(), pending, running, done, failed, cancelled }
    }
}

#[derive(Debug, Serialize)]
struct JobLine<'a> {
    job_key: &'a str,
    state: &'a str,
    reason: Option<&'a str>,
    model: &'a str,
    /// D.
    samples_seen_total: Option<i64>,
    data_size: Option<i64>,
    seed: i64,
    /// Samples seen so far.
    samples_seen: i64,
    samples_per_sec: Option<f64>,
    /// Training loss at the last report.
    loss: Option<f64>,
    /// Seconds that training waited for its data, all attempts.
    data_wait_secs: Option<f64>,
    /// Loss spikes so far.
    spikes: Option<i64>,
    /// How often it went back after one; null: it is not asked to.
    rollbacks: Option<i64>,
    /// Joules of its GPUs, all attempts; null: not known of all of them.
    gpu_joules: Option<f64>,
    /// Joules of processor packages by its share of their machines; likewise.
    cpu_joules: Option<f64>,
    attempts: i64,
    /// Of a live attempt: the host, or the cluster.
    host: Option<&'a str>,
    /// Of a live attempt: the backend's name for its worker, as `12_3` of Slurm.
    handle: Option<&'a str>,
    /// Of a live attempt that a worker has claimed: the machine.
    node: Option<&'a str>,
    /// What `squeue` says of it.
    slurm_state: Option<&'a str>,
    /// And why it waits.
    slurm_reason: Option<&'a str>,
    /// Seconds since a live attempt was last heard of.
    silent_secs: Option<f64>,
    /// Samples that the job it goes on from trains on; 0 without one.
    parent_samples: i64,
    /// Key of that job, while it is not done.
    waits_for: Option<&'a str>,
    /// Whether other jobs of the sweep go on from it.
    is_trunk: bool,
}

/// Slurm's words by worker.
type Queue = BTreeMap<String, QueueWord>;

const STATES: &[&str] = &["pending", "running", "done", "failed", "cancelled"];

pub(super) async fn run(args: Args) -> Result<Exit, Failure> {
    let Some(store) = Store::connect_stored().await? else {
        return nothing(&args);
    };
    match &args.sweep {
        None => {
            let sweeps = store.sweep_list(None).await?;
            if args.json {
                output::json("sweep.status/1", &Sweeps { sweeps: sweeps.iter().map(sweep_line).collect() });
            } else if sweeps.is_empty() {
                return nothing(&args);
            } else {
                data(&sweep_table(&sweeps));
            }
        }
        Some(name) => {
            let SweepSummary { sweep_id, counts, counted_secs_ago, .. } = find(&store, name).await?;
            let jobs = jobs(&store, sweep_id, &args, &counts).await?;
            let queue = queue_of(&jobs).await;
            let companions = store.companion_progress(sweep_id).await?;
            let companions: Vec<CompanionLine> =
                companions.iter().map(|measuring| CompanionLine::new(&measuring.sweep, &measuring.counts)).collect();
            let tuned = store.tuning_list(name).await?;
            let left_out = counts.total() - i64::try_from(jobs.len()).unwrap_or(i64::MAX);
            if args.json {
                let StateCounts { pending, running, done, failed, cancelled } = counts;
                let jobs = jobs.iter().map(|job| job_line(job, &queue)).collect();
                let sweep = name;
                let body = Jobs {
                    sweep,
                    pending,
                    running,
                    done,
                    failed,
                    cancelled,
                    counted_secs_ago,
                    left_out,
                    companions,
                    tuned,
                    jobs,
                };
                output::json("sweep.status/1", &body);
            } else {
                data(&job_table(&jobs, &queue));
                warn_of_silence(&jobs);
                tell_spikes(&jobs);
                for CompanionLine { sweep, pending, running, done, failed, cancelled } in companions {
                    let given_up = if failed + cancelled > 0 {
                        format!(", {} given up", failed + cancelled)
                    } else {
                        String::new()
                    };
                    output::say_line(&format!(
                        "its checkpoints, by {sweep}: {done} measured, {running} running, {pending} waiting{given_up}"
                    ));
                }
                super::tune::say_choices(name, &tuned);
                if left_out > 0 {
                    say(&format!(
                        "{left_out} more jobs: {} pending, {} running, {} done, {} failed, {} cancelled in all\n\n\
                         hint: `--all` lists them, `sweep sql` asks for some",
                        counts.pending, counts.running, counts.done, counts.failed, counts.cancelled
                    ));
                }
            }
        }
    }
    Ok(Exit::Done)
}

/// The jobs to list: all in plan order if they fit, else the ones that matter most.
async fn jobs(store: &Store, sweep_id: i64, args: &Args, counts: &StateCounts) -> Result<Vec<JobProgress>, Failure> {
    let limit = if args.all { i64::MAX } else { i64::from(args.limit) };
    if counts.total() <= limit {
        return Ok(store.job_progress(sweep_id, ProgressFilter::States(STATES, limit)).await?);
    }
    let mut jobs = Vec::new();
    for (states, count) in [
        (&["running"][..], counts.running),
        (&["failed", "cancelled"], counts.failed + counts.cancelled),
        (&["pending", "done"], counts.pending + counts.done),
    ] {
        let room = limit - i64::try_from(jobs.len()).unwrap_or(i64::MAX);
        // Looking for what there is none of would go through all jobs.
        if room > 0 && count > 0 {
            jobs.extend(store.job_progress(sweep_id, ProgressFilter::States(states, room)).await?);
        }
    }
    Ok(jobs)
}

/// Slurm's words for its workers among those of these jobs.
async fn queue_of(jobs: &[JobProgress]) -> Queue {
    if !jobs.iter().any(is_on_slurm) {
        return Queue::new();
    }
    slurm::queue_words().await.unwrap_or_else(|| {
        output::say_line("Slurm does not say what its jobs are doing: this is what the database knows");
        Queue::new()
    })
}

fn is_on_slurm(job: &JobProgress) -> bool {
    job.backend.as_deref() == Some(SlurmBackend::NAME)
}

/// `Slurm job 12_3: RUNNING on node7`.
fn in_slurms_words(job: &JobProgress, queue: &Queue) -> Option<String> {
    if !is_on_slurm(job) {
        return None;
    }
    let handle = job.handle.as_ref()?;
    let word = queue_word(job, queue).map(QueueWord::to_string);
    let node = || job.node.as_ref().map(|node| format!("on {node}"));
    let said = word.or_else(node).map(|said| format!(": {said}")).unwrap_or_default();
    Some(format!("Slurm job {handle}{said}"))
}

fn queue_word<'a>(job: &JobProgress, queue: &'a Queue) -> Option<&'a QueueWord> {
    queue.get(job.worker.as_ref()?)
}

/// Says of each host that its attempts have stopped beating.
fn warn_of_silence(jobs: &[JobProgress]) {
    let mut hosts: Vec<(&str, f64)> = Vec::new();
    for job in jobs {
        let Some(silent) = job.silent_secs.filter(|&secs| secs >= QUIET_SECS) else { continue };
        let host = job.host.as_deref().unwrap_or("unknown");
        match hosts.iter_mut().find(|(name, _)| *name == host) {
            Some((_, longest)) => *longest = longest.max(silent),
            None => hosts.push((host, silent)),
        }
    }
    for (host, silent) in hosts {
        output::say_line(&format!(
            "host {host}: nothing was heard of an attempt for {}; `sweep launch` gives it up when its backend denies it, or \
             after {}",
            time(silent),
            time(SILENT_SECS)
        ));
    }
}

/// Names the jobs whose loss spiked, and what they did about it.
fn tell_spikes(jobs: &[JobProgress]) {
    const SHOWN: usize = 10;
    let spiked: Vec<String> = jobs
        .iter()
        .filter_map(|job| {
            let spikes = job.spikes.filter(|&spikes| spikes > 0)?;
            let back = job.rollbacks.filter(|&count| count > 0);
            let back = back.map_or(String::new(), |count| match count {
                1 => " (went back once)".to_owned(),
                count => format!(" (went back {count} times)"),
            });
            Some(format!("{spikes} in {}{back}", &job.job_key[..12]))
        })
        .collect();
    if !spiked.is_empty() {
        let more = spiked.len().saturating_sub(SHOWN);
        let more = if more > 0 { format!(", and in {more} more jobs") } else { String::new() };
        output::say_line(&format!("loss spikes: {}{more}", spiked[..spiked.len().min(SHOWN)].join(", ")));
    }
}

fn nothing(args: &Args) -> Result<Exit, Failure> {
    match (&args.sweep, args.json) {
        (Some(name), _) => {
            Err(Failure::bad_input(format!("there is no sweep `{name}` here")).hint("`sweep launch SPEC` starts one"))
        }
        (None, true) => {
            output::json("sweep.status/1", &Sweeps { sweeps: Vec::new() });
            Ok(Exit::Done)
        }
        (None, false) => {
            say("no sweep has been launched here yet\n\nhint: `sweep launch SPEC` starts one");
            Ok(Exit::Done)
        }
    }
}

/// The sweep with this name, or an error that lists the names there are.
pub(super) async fn find(store: &Store, name: &str) -> Result<SweepSummary, Failure> {
    if let Some(sweep) = store.sweep_list(Some(name)).await?.pop() {
        return Ok(sweep);
    }
    let names = store.study_names().await?;
    let failure = Failure::bad_input(format!("there is no sweep `{name}` here"));
    Err(if names.is_empty() {
        failure.hint("`sweep launch SPEC` starts one")
    } else {
        failure.hint(format!("these are here: {}", names.join(", ")))
    })
}

fn sweep_table(sweeps: &[SweepSummary]) -> String {
    let mut table = plain(&["sweep", "jobs", "done", "running", "failed", "question"], 1..5);
    for sweep in sweeps {
        let question = sweep.question.lines().next().unwrap_or_default();
        let counts = &sweep.counts;
        let numbers = [counts.total(), counts.done, counts.running, counts.failed].map(|number| number.to_string());
        let row = std::iter::once(sweep.name.clone()).chain(numbers).chain([output::one_line(question).into_owned()]);
        table.add_row(row);
    }
    table.trim_fmt()
}

fn job_table(jobs: &[JobProgress], queue: &Queue) -> String {
    let head = ["job", "model", "samples", "data", "seed", "state", "seen", "loss", "attempts", "reason"];
    let mut table = plain(&head, 2..5);
    for column in 6..9 {
        table.column_mut(column).expect("it is there").set_cell_alignment(CellAlignment::Right);
    }
    for job in jobs {
        table.add_row([
            job.job_key[..12].to_owned(),
            format!("{}{}", output::one_line(&job.model), if job.is_trunk { " (trunk)" } else { "" }),
            job.samples_total.map_or("-".to_owned(), short),
            job.data_size.map_or("-".to_owned(), short),
            job.seed.to_string(),
            job.state.clone(),
            job.samples_total.map_or("-".to_owned(), |_| format!("{:.0} %", 100.0 * job.share_done())),
            job.loss.map_or(String::new(), |loss| format!("{loss:.3}")),
            job.attempts.to_string(),
            output::one_line(&because(job, queue)).into_owned(),
        ]);
    }
    table.trim_fmt()
}

/// Why a job is not done: its end, what it waits for, or where it is with Slurm.
fn because(job: &JobProgress, queue: &Queue) -> String {
    let waits = || {
        let parent = job.waits_for.as_ref().filter(|_| job.state == "pending")?;
        Some(format!("goes on from {}", &parent[..12]))
    };
    job.reason.clone().or_else(waits).or_else(|| in_slurms_words(job, queue)).unwrap_or_default()
}

/// A table without lines; `numbers` are aligned to the right.
fn plain(head: &[&str], numbers: std::ops::Range<usize>) -> Table {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING).set_header(head.to_vec());
    for column in numbers {
        table.column_mut(column).expect("it is there").set_cell_alignment(CellAlignment::Right);
    }
    table
}

fn sweep_line(sweep: &SweepSummary) -> SweepLine<'_> {
    SweepLine {
        sweep: &sweep.name,
        question: &sweep.question,
        jobs: sweep.counts.total(),
        done: sweep.counts.done,
        running: sweep.counts.running,
        failed: sweep.counts.failed,
        cancelled: sweep.counts.cancelled,
    }
}

fn job_line<'a>(job: &'a JobProgress, queue: &'a Queue) -> JobLine<'a> {
    JobLine {
        job_key: &job.job_key,
        state: &job.state,
        reason: job.reason.as_deref(),
        model: &job.model,
        samples_seen_total: job.samples_total,
        data_size: job.data_size,
        seed: job.seed,
        samples_seen: job.samples_seen,
        parent_samples: job.parent_samples,
        waits_for: job.waits_for.as_deref(),
        is_trunk: job.is_trunk,
        samples_per_sec: job.samples_per_sec,
        loss: job.loss,
        data_wait_secs: job.data_wait_secs,
        spikes: job.spikes,
        rollbacks: job.rollbacks,
        gpu_joules: job.gpu_joules,
        cpu_joules: job.cpu_joules,
        attempts: job.attempts,
        host: job.host.as_deref(),
        handle: job.handle.as_deref(),
        node: job.node.as_deref(),
        slurm_state: queue_word(job, queue).map(|word| word.state.as_str()),
        slurm_reason: queue_word(job, queue).and_then(|word| word.reason.as_deref()),
        silent_secs: job.silent_secs,
    }
}
