//! `synthetic-runner`: draws losses and measurements from a known law with seeded noise, and fails on request.
//!
//! It speaks the whole protocol (checkpoints, resume, signals), so tests of the machinery need no training. It must not
//! know the orchestrator. The law and the faults are described in `README.md`.

mod checkpoint;
mod fault;
mod law;
mod ranks;

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use anyhow::{Context, Result};
use clap::{Parser, Subcommand};
use protocol::{Description, Event, FailureKind, Job, ServeRequest, exit};

use checkpoint::State;
use fault::Faults;
use ranks::Ranks;

/// Name in the recipe's `extra` of jobs that only say that they started and finished.
const NOTHING: &str = "nothing";

/// A runner that draws losses from a known law.
#[derive(Debug, Parser)]
#[command(version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Print name, version and what is supported, as JSON.
    Describe,
    /// "Train" one job.
    Run {
        /// The job, as written by `sweep-worker`.
        #[arg(long)]
        job: PathBuf,
    },
    /// "Train" the jobs that come on standard input, one a line, until it ends or a job does not finish.
    Serve,
}

fn main() -> ExitCode {
    let code = match Cli::parse().command {
        Command::Describe => describe().map(|()| exit::FINISHED),
        Command::Run { job } => StopSignal::listen().and_then(|stop| run(&job, &stop)),
        Command::Serve => serve(),
    };
    match code {
        Ok(code) => ExitCode::from(u8::try_from(code).unwrap_or(1)),
        Err(error) => {
            words(&format!("{error:#}"));
            ExitCode::from(u8::try_from(exit::FAILED).unwrap_or(1))
        }
    }
}

fn describe() -> Result<()> {
    let description = Description {
        name: "synthetic".to_owned(),
        version: "1".to_owned(),
        protocol: protocol::PROTOCOL_VERSION,
        reads_data: false,
        devices: vec!["cpu".to_owned()],
        serve: true,
        ranks: true,
        init: false,
        branches: true,
        rolls_back: false,
        accepts: BTreeMap::new(),
    };
    writeln!(std::io::stdout(), "{}", serde_json::to_string(&description)?).context("can't write to standard output")
}

/// Set by SIGTERM and SIGUSR1. While the runner waits for a job they end it.
struct StopSignal {
    asked: Arc<AtomicBool>,
    idle: Arc<AtomicBool>,
}

impl StopSignal {
    fn listen() -> Result<StopSignal> {
        let stop = StopSignal { asked: Arc::default(), idle: Arc::default() };
        for signal in [signal_hook::consts::SIGTERM, signal_hook::consts::SIGUSR1] {
            signal_hook::flag::register_conditional_shutdown(signal, exit::FINISHED, Arc::clone(&stop.idle))
                .and_then(|_| signal_hook::flag::register(signal, Arc::clone(&stop.asked)))
                .context("can't handle signals")?;
        }
        Ok(stop)
    }
}

fn serve() -> Result<i32> {
    let stop = StopSignal::listen()?;
    let mut requests = std::io::stdin().lines();
    loop {
        stop.idle.store(true, Ordering::SeqCst);
        let request = requests.next();
        stop.idle.store(false, Ordering::SeqCst);
        let Some(request) = request else { return Ok(exit::FINISHED) };
        let request = request.context("can't read standard input")?;
        let request: ServeRequest =
            serde_json::from_str(&request).with_context(|| format!("`{request}` is no request"))?;
        let code = run(&request.job, &stop)?;
        if code != exit::FINISHED {
            return Ok(code);
        }
    }
}

fn run(job_file: &Path, stop: &StopSignal) -> Result<i32> {
    let text = std::fs::read_to_string(job_file).with_context(|| format!("can't read {}", job_file.display()))?;
    let job: Job = match serde_json::from_str(&text) {
        Ok(job) => job,
        Err(error) => return refuse(&format!("{} is no job: {error}", job_file.display())),
    };
    if job.protocol != protocol::PROTOCOL_VERSION {
        return refuse(&format!("protocol {} is not spoken here, {} is", job.protocol, protocol::PROTOCOL_VERSION));
    }
    let faults = Faults::read(&job)?;

    let spec = &job.spec;
    let (steps, batch) = (spec.steps(), spec.recipe.global_batch);
    let mut ranks = Ranks::meet(&job)?;
    let own = checkpoint::newest(&job.checkpoint_dir, job.fence);
    let begins = own.is_none();
    let state = own.or_else(|| checkpoint::of_parent(&job)).unwrap_or_default();
    let mut state = ranks.agree_on_start(state)?;
    let first = ranks.is_first();
    let say = |event: &Event| if first { say(event) } else { Ok(()) };
    say(&Event::Started {
        parameters: spec.model.config.size().parameters(),
        resumed_from_samples: state.step * batch,
        device: ranks.device(),
        data: None,
    })?;
    if first && begins && state.step > 0 {
        // What is due where the parent ends is this job's.
        evaluate(&job, state.step * batch, false)?;
    }
    let report_every = (steps / 50).max(1);
    let started = Instant::now();
    while state.step < steps && !spec.recipe.extra.contains_key(NOTHING) {
        let step = state.step + 1;
        faults.before_step(step, &job.checkpoint_dir)?;
        let seen = step * batch;
        let draw = || if faults.nan_at(step) || law::diverges(spec) { f64::NAN } else { law::step_loss(spec, step) };
        let (loss, stop_asked) = ranks.share(step, draw, stop.asked.load(Ordering::Relaxed))?;
        state = State { step, loss_sum: state.loss_sum + loss, loss_count: state.loss_count + 1 };
        if step.is_multiple_of(report_every) || step == steps {
            say(&step_event(&job, &state))?;
            state = State { loss_sum: 0.0, loss_count: 0, ..state };
        }
        if first {
            evaluate(&job, seen, step == steps)?;
        }
        let due = spec.recipe.checkpoint_every_samples.is_some_and(|every| seen / every != (seen - batch) / every);
        let stopping = stop_asked && step < steps;
        if first && (due || stopping || step == steps) {
            say(&checkpoint::write(&job, state)?)?;
        }
        if stopping {
            words(&format!("stopped on request after {seen} samples"));
            ranks.account().iter().for_each(|text| words(text));
            return Ok(exit::STOPPED);
        }
    }
    ranks.account().iter().for_each(|text| words(text));
    say(&Event::Finished {
        samples_seen: spec.samples_seen,
        train_secs: started.elapsed().as_secs_f64(),
        eval_secs: 0.0,
        peak_memory_bytes: None,
    })?;
    Ok(exit::FINISHED)
}

/// Mean loss since the last report, and the learning rate of the step.
fn step_event(job: &Job, state: &State) -> Event {
    let recipe = &job.spec.recipe;
    let samples_seen = state.step * recipe.global_batch;
    let warmup = (samples_seen as f64 / recipe.warmup_samples.max(1) as f64).min(1.0);
    Event::Step {
        step: state.step,
        samples_seen,
        loss: state.loss_sum / state.loss_count as f64,
        metrics: [("lr".to_owned(), recipe.lr * warmup)].into(),
    }
}

/// Reports the evaluations that fall due between this step and the one before.
fn evaluate(job: &Job, seen: u64, last: bool) -> Result<()> {
    let batch = job.spec.recipe.global_batch;
    for (dataset, tasks, at_samples) in law::evaluations(&job.spec) {
        if last || at_samples.iter().any(|&at| seen - batch < at && at <= seen) {
            let measurements = law::measure(&job.spec, dataset, tasks, seen);
            say(&Event::Eval {
                samples_seen: seen,
                dataset: dataset.to_owned(),
                measurements,
                unmeasured: BTreeMap::new(),
            })?;
        }
    }
    Ok(())
}

/// One event, one line, at once.
fn say(event: &Event) -> Result<()> {
    let mut line = serde_json::to_string(event)?;
    line.push('\n');
    let mut stdout = std::io::stdout().lock();
    stdout.write_all(line.as_bytes()).and_then(|()| stdout.flush()).context("can't write to standard output")
}

/// A job that can never work.
fn refuse(reason: &str) -> Result<i32> {
    say(&Event::Failed { reason: reason.to_owned(), kind: FailureKind::BadInput })?;
    Ok(exit::BAD_INPUT)
}

/// Words for people.
fn words(text: &str) {
    let _ = writeln!(std::io::stderr(), "{text}");
}
