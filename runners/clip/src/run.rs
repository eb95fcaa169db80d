//! Trains one job: the loop, its reports, checkpoints and evaluations, and how it ends.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use protocol::{Event, FailureKind, Job, exit};
use tch::{Kind, Tensor};

use crate::augment::Patches;
use crate::batches::{Batch, PatchDropout, Source};
use crate::checkpoint::{CheckpointError, Folder, Position};
use crate::device::{self, DeviceError};
use crate::evaluate::{EvaluateError, HeldOut};
use crate::job::{self, JobError};
use crate::model::Clip;
use crate::optimizer::{self, AdamW, learning_rate};
use crate::prepared::Prepared;
use crate::report;
use crate::serve::StopSignal;
use crate::step::{self, StepOptions};
use crate::tokenizer::TokenizerError;
use crate::weights::{self, WeightsError};

/// Steps are reported at least this often.
const REPORT_INTERVAL: Duration = Duration::from_secs(10);

/// Reports over a training, if steps are quick.
const REPORTS: u64 = 100;

/// Why a job ended before its end.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The job.
    #[error(transparent)]
    Job(#[from] JobError),
    /// Its device.
    #[error(transparent)]
    Device(#[from] DeviceError),
    /// Its data.
    #[error(transparent)]
    Pool(#[from] pool::Error),
    /// Other data than those the job was planned for.
    #[error(
        "pool `{pool}` has changed since the job was planned{shards}: its digest is {found}, the job says {planned}; plan again"
    )]
    PoolChanged {
        /// Name of the pool.
        pool: String,
        /// ` (in 00000.tar)`, where it is known in which shards.
        shards: String,
        /// As it is now.
        found: String,
        /// As the job says.
        planned: String,
    },
    /// Its tokenizer.
    #[error(transparent)]
    Tokenizer(#[from] TokenizerError),
    /// An evaluation.
    #[error(transparent)]
    Evaluate(#[from] EvaluateError),
    /// The loss.
    #[error(transparent)]
    Loss(#[from] kernels::LossError),
    /// More of the pool can't be used than may be.
    #[error(
        "pool `{pool}`: {pairs} pairs can be used, {planned} were planned, and at most {most} may be missing ({skipped}); mend the pool, or raise `limits.skipped`"
    )]
    Skipped {
        /// The pool.
        pool: String,
        /// Pairs there are.
        pairs: u64,
        /// Pairs that the plan counted.
        planned: u64,
        /// How many of them may be missing.
        most: u64,
        /// Reasons with their counts.
        skipped: String,
    },
    /// A checkpoint.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// The weights to start from.
    #[error(transparent)]
    Weights(#[from] WeightsError),
    /// The loss is no longer a number.
    #[error(
        "the loss of step {step} is {loss}: training diverged; try a lower learning rate, a longer warmup or `grad_clip_norm`"
    )]
    Diverged {
        /// The step, counted from 1.
        step: u64,
        /// NaN or infinite.
        loss: f64,
    },
    /// Nobody reads events any more.
    #[error("cannot write an event")]
    Report(#[source] io::Error),
    /// The data thread ended early.
    #[error("the thread that reads the data ended before the training")]
    DataThread,
}

impl RunError {
    fn kind(&self) -> FailureKind {
        match self {
            RunError::Diverged { .. } => FailureKind::Diverged,
            RunError::Pool(error) | RunError::Evaluate(EvaluateError::Pool(error)) => match error {
                pool::Error::Io { .. } => FailureKind::Crash,
                _ => FailureKind::BadInput,
            },
            // The file may lie on a disk that is away for a moment.
            RunError::Weights(WeightsError::Io { source, .. }) if source.kind() != io::ErrorKind::NotFound => {
                FailureKind::Crash
            }
            RunError::Job(_)
            | RunError::Weights(_)
            | RunError::Tokenizer(_)
            | RunError::Device(_)
            | RunError::PoolChanged { .. }
            | RunError::Skipped { .. }
            | RunError::Evaluate(_) => FailureKind::BadInput,
            _ => FailureKind::Crash,
        }
    }

    /// The error and its causes in one line.
    fn reason(&self) -> String {
        let causes = std::iter::successors(std::error::Error::source(self), |error| error.source());
        causes.fold(self.to_string(), |reason, cause| format!("{reason}: {cause}"))
    }
}

/// How a training that did not fail ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ending {
    Finished,
    Stopped,
}

/// Runs the job in a file and returns the process's exit code. What went wrong is told as an event.
pub fn run(path: &Path, prepared: &mut Prepared, stop: &StopSignal) -> i32 {
    let training = std::panic::AssertUnwindSafe(|| train(path, prepared, stop));
    let (reason, kind) = match std::panic::catch_unwind(training) {
        Ok(Ok(Ending::Finished)) => return exit::FINISHED,
        Ok(Ok(Ending::Stopped)) => return exit::STOPPED,
        Ok(Err(error)) => (error.reason(), error.kind()),
        // The message is on standard error already; libtorch's own errors (out of memory) arrive here.
        Err(panic) => {
            let words = panic.downcast_ref::<String>().cloned();
            let words = words.or_else(|| panic.downcast_ref::<&str>().map(|words| (*words).to_owned()));
            (words.unwrap_or_else(|| "a bug: panic without words".to_owned()), FailureKind::Crash)
        }
    };
    report::say(format_args!("{reason}"));
    if report::event(&Event::Failed { reason, kind }).is_err() {
        report::say(format_args!("nobody reads standard output"));
    }
    if kind == FailureKind::BadInput { exit::BAD_INPUT } else { exit::FAILED }
}

fn train(path: &Path, prepared: &mut Prepared, stop: &StopSignal) -> Result<Ending, RunError> {
    device::reset_peak_memory();
    let job = job::read(path)?;
    let device = device::open(&job.resources)?;
    let spec = &job.spec;
    let config = &spec.model.config;
    let pairs = if spec.measures_only() { None } else { Some(prepared.pairs(&job)?) };
    let held_out: Vec<_> =
        spec.evaluations.iter().map(|plan| prepared.held_out(&job, plan)).collect::<Result<_, _>>()?;

    let mut model = Clip::new(config, spec.recipe.precision, spec.seed, device);
    let Some(pairs) = pairs else { return measure(&job, model, &held_out, stop.asked()) };
    let mut optimizer = AdamW::new(&model.parameters);
    let folder = job.base_dir.join(&job.checkpoint_dir);
    let mut folder = Folder::open(&folder, &job, prepared.tokenizer(&job)?.files())?;
    let mut resumed = folder.resume(&mut model, &mut optimizer)?;
    let saved = resumed.is_some();
    if let (None, Some(parent)) = (&resumed, &job.parent) {
        let branched = folder.branch(parent, &job.base_dir, &mut model, &mut optimizer)?;
        resumed = branched.map(|position| (position, Vec::new()));
    }
    if let (None, Some(init)) = (&resumed, &spec.init) {
        weights::load(init, &job.base_dir, &mut model.parameters)?;
    }
    let (position, losses) = resumed.unwrap_or_default();
    emit(&Event::Started {
        parameters: model.parameters.count(),
        resumed_from_samples: position.samples_seen,
        device: device::name(device, job.resources.threads),
        data: Some(pairs.used()),
    })?;
    let source = Source {
        images: Arc::clone(&pairs.images),
        captions: Arc::clone(&pairs.captions),
        patches: Patches::new(
            config.vision_cfg.image_size as usize,
            config.vision_cfg.patch_size as usize,
            &spec.recipe.preprocess,
        ),
        augmentation: spec.recipe.augmentation,
        dropout: PatchDropout::new(&config.vision_cfg),
        seed: spec.seed,
        global_batch: spec.recipe.global_batch,
        threads: job.resources.threads,
    };
    let batches = source.stream(position.samples_seen, spec.samples_seen);
    let training = Training {
        job: &job,
        model,
        optimizer,
        folder,
        position,
        saved,
        held_out,
        losses,
        unread: Vec::new(),
        train_time: Duration::ZERO,
        eval_time: Duration::ZERO,
    };
    training.run(&batches, stop.asked())
}

/// Measures the weights that a job begins with, and trains nothing. What was asked to stop is measured again later.
fn measure(job: &Job, mut model: Clip, held_out: &[Arc<HeldOut>], stop: &AtomicBool) -> Result<Ending, RunError> {
    if let Some(init) = &job.spec.init {
        weights::load(init, &job.base_dir, &mut model.parameters)?;
    }
    emit(&Event::Started {
        parameters: model.parameters.count(),
        resumed_from_samples: 0,
        device: device::name(model.device(), job.resources.threads),
        data: None,
    })?;
    let started = Instant::now();
    for held_out in held_out {
        if stop.load(Ordering::Relaxed) {
            return Ok(Ending::Stopped);
        }
        let Some((measurements, unmeasured)) = held_out.measure(&model, stop)? else { return Ok(Ending::Stopped) };
        emit(&Event::Eval { samples_seen: 0, dataset: held_out.dataset.clone(), measurements, unmeasured })?;
    }
    emit(&Event::Finished {
        samples_seen: 0,
        train_secs: 0.0,
        eval_secs: started.elapsed().as_secs_f64(),
        peak_memory_bytes: device::peak_memory_bytes(),
    })?;
    Ok(Ending::Finished)
}

fn emit(event: &Event) -> Result<(), RunError> {
    report::event(event).map_err(RunError::Report)
}

/// A training under way.
struct Training<'a> {
    job: &'a Job,
    model: Clip,
    optimizer: AdamW,
    folder: Folder,
    position: Position,
    /// Whether a checkpoint of this very position is on disk.
    saved: bool,
    held_out: Vec<Arc<HeldOut>>,
    /// Losses since the last report that was due by its step. They are kept in checkpoints, so that a report's mean is
    /// the same after one. Reports between those, of slow steps, leave them: what is due must not depend on the clock.
    losses: Vec<f64>,
    /// The newest of them, which have not been read: reading one waits for the device.
    unread: Vec<Tensor>,
    train_time: Duration,
    eval_time: Duration,
}

impl Training<'_> {
    fn run(
        mut self,
        batches: &std::sync::mpsc::Receiver<Result<Batch, pool::Error>>,
        stop: &AtomicBool,
    ) -> Result<Ending, RunError> {
        let steps = self.job.spec.steps();
        let report_every = steps.div_ceil(REPORTS);
        // A stop between a checkpoint and its evaluations leaves them to the next attempt: here.
        if self.evaluate(stop)? == Ending::Stopped {
            return self.stop();
        }
        let mut reported = Instant::now();
        let mut reported_step = self.position.step;
        while self.position.step < steps {
            let started = Instant::now();
            let lr = learning_rate(&self.job.spec.recipe, self.position.step, steps);
            let step = self.position.step + 1;
            let scheduled = step.is_multiple_of(report_every) || step == steps;
            let reporting = scheduled || reported.elapsed() >= REPORT_INTERVAL;
            let batch = batches.recv().map_err(|_| RunError::DataThread)??;
            let grad_norm = self.step(&batch, lr, reporting)?;
            let stopping = stop.load(Ordering::Relaxed);
            let (saving, evaluating) = (self.checkpoint_is_due(), self.evaluation_is_due());
            if reporting || stopping || saving || evaluating {
                let loss = self.mean_loss()?;
                self.train_time += started.elapsed();
                if let Some(grad_norm) = grad_norm {
                    let samples = (step - reported_step) * self.job.spec.recipe.global_batch;
                    let samples_per_sec = samples as f64 / reported.elapsed().as_secs_f64();
                    self.report(loss, &[("lr", lr), ("grad_norm", grad_norm), ("samples_per_sec", samples_per_sec)])?;
                    (reported, reported_step) = (Instant::now(), step);
                    if scheduled {
                        self.losses.clear();
                    }
                }
            } else {
                self.train_time += started.elapsed();
            }
            if stopping {
                return self.stop();
            }
            if saving {
                self.checkpoint()?;
            }
            let before = Instant::now();
            if evaluating && self.evaluate(stop)? == Ending::Stopped {
                return self.stop();
            }
            reported += before.elapsed(); // Evaluation is not training: it does not count into samples a second.
        }
        emit(&Event::Finished {
            samples_seen: self.position.samples_seen,
            train_secs: self.train_time.as_secs_f64(),
            eval_secs: self.eval_time.as_secs_f64(),
            peak_memory_bytes: device::peak_memory_bytes(),
        })?;
        Ok(Ending::Finished)
    }

    /// Takes a step; gives the norm of its gradient, before clipping, where it is `reported`.
    fn step(&mut self, batch: &Batch, lr: f64, reported: bool) -> Result<Option<f64>, RunError> {
        let model = &mut self.model;
        let options = StepOptions::new(&self.job.spec.recipe, model.device());
        let (loss, gradients) = step::gradients(model, &model.inputs(batch), options)?;
        let grad_norm = reported.then(|| optimizer::norm(&gradients));
        let threads = self.job.resources.threads;
        self.optimizer.step(&mut model.parameters, &gradients, &self.job.spec.recipe, lr, threads);
        model.clamp_logit_scale();
        self.unread.push(loss);
        self.position.step += 1;
        self.position.samples_seen += batch.len() as u64;
        self.saved = false;
        Ok(grad_norm)
    }

    /// Mean of the losses since the last report that was due.
    fn mean_loss(&mut self) -> Result<f64, RunError> {
        let unread = std::mem::take(&mut self.unread);
        let read = Vec::<f64>::try_from(Tensor::stack(&unread, 0).to_kind(Kind::Double)).unwrap_or_default();
        let first = self.position.step + 1 - read.len() as u64;
        if let Some(bad) = read.iter().position(|loss| !loss.is_finite()) {
            return Err(RunError::Diverged { step: first + bad as u64, loss: read[bad] });
        }
        self.losses.extend(read);
        Ok(self.losses.iter().sum::<f64>() / self.losses.len() as f64)
    }

    fn report(&self, loss: f64, metrics: &[(&str, f64)]) -> Result<(), RunError> {
        let logit_scale = self.model.logit_scale.double_value(&[]);
        // The losses were fine, the step after them was not: the next loss would be no number either.
        if !logit_scale.is_finite() {
            return Err(RunError::Diverged { step: self.position.step, loss: logit_scale });
        }
        emit(&Event::Step {
            step: self.position.step,
            samples_seen: self.position.samples_seen,
            loss,
            metrics: metrics
                .iter()
                .chain(&[("logit_scale", logit_scale)])
                .map(|(name, value)| ((*name).to_owned(), *value))
                .collect(),
        })
    }

    /// Whether the step just taken crossed a multiple of `checkpoint_every_samples`, or was the last one.
    fn checkpoint_is_due(&self) -> bool {
        let (now, spec) = (self.position.samples_seen, &self.job.spec);
        let before = now - spec.recipe.global_batch;
        let crossed = spec.recipe.checkpoint_every_samples.is_some_and(|every| now / every > before / every);
        crossed || now == spec.samples_seen
    }

    fn checkpoint(&mut self) -> Result<(), RunError> {
        let (path, sha256) = self.folder.write(&self.model, &self.optimizer, self.position, &self.losses)?;
        self.saved = true;
        let Position { step, samples_seen, .. } = self.position;
        emit(&Event::Checkpoint { step, samples_seen, path, sha256 })
    }

    fn stop(mut self) -> Result<Ending, RunError> {
        if !self.saved {
            self.checkpoint()?;
        }
        Ok(Ending::Stopped)
    }

    fn evaluation_is_due(&self) -> bool {
        (0..self.held_out.len()).any(|index| self.is_due(index))
    }

    /// Whether an evaluation has a point at or before here that is not done yet.
    fn is_due(&self, index: usize) -> bool {
        let now = self.position.samples_seen;
        let mut points =
            self.job.spec.evaluations[index].at_samples.iter().copied().chain([self.job.spec.samples_seen]);
        points.any(|point| point <= now && self.position.evaluated_samples.is_none_or(|done| point > done))
    }

    /// Measures what is due. A stop between two data sets leaves the rest to the next attempt.
    fn evaluate(&mut self, stop: &AtomicBool) -> Result<Ending, RunError> {
        if !self.evaluation_is_due() {
            return Ok(Ending::Finished);
        }
        let started = Instant::now();
        for index in (0..self.held_out.len()).filter(|index| self.is_due(*index)) {
            if stop.load(Ordering::Relaxed) {
                return Ok(Ending::Stopped);
            }
            let held_out = &self.held_out[index];
            let Some((measurements, unmeasured)) = held_out.measure(&self.model, stop)? else {
                return Ok(Ending::Stopped);
            };
            let (dataset, samples_seen) = (held_out.dataset.clone(), self.position.samples_seen);
            emit(&Event::Eval { samples_seen, dataset, measurements, unmeasured })?;
        }
        self.position.evaluated_samples = Some(self.position.samples_seen);
        self.eval_time += started.elapsed();
        Ok(Ending::Finished)
    }
}
