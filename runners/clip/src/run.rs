//! Trains one job: the loop, its reports, checkpoints and evaluations, and how it ends.

mod error;
mod measuring;
mod rollback;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use protocol::{Event, FailureKind, Job, exit};
use tch::{Kind, Tensor};

use crate::augment::Patches;
use crate::batches::{Batches, PatchDropout, Source};
use crate::checkpoint::{Folder, Position};
use crate::device;
use crate::evaluate::HeldOut;
use crate::job;
use crate::learning_rate::learning_rate;
use crate::model::{Clip, Inputs};
use crate::optimizer::{self, AdamW};
use crate::prepared::Prepared;
use crate::ranks::{Place, Ranks, Start};
use crate::report;
use crate::serve::StopSignal;
use crate::spikes::History;
use crate::step::{self, StepOptions};
use crate::weights;

pub use error::RunError;
use measuring::{measure, measure_only};
use rollback::Rollback;

/// Steps are reported at least this often.
const REPORT_INTERVAL: Duration = Duration::from_secs(10);

/// Reports over a training, if steps are quick.
const REPORTS: u64 = 100;

/// How a training that did not fail ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ending {
    Finished,
    Stopped,
}

/// Runs the job in a file and returns the process's exit code. What went wrong is told as an event, by rank 0 where
/// there are several.
pub fn run(path: &Path, prepared: &mut Prepared, stop: &StopSignal) -> i32 {
    let mut place = None;
    let training = std::panic::AssertUnwindSafe(|| train(path, prepared, stop, &mut place));
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
    if place.is_none_or(|place| place.rank == 0) && report::event(&Event::Failed { reason, kind }).is_err() {
        report::say(format_args!("nobody reads standard output"));
    }
    if kind == FailureKind::BadInput { exit::BAD_INPUT } else { exit::FAILED }
}

fn train(
    path: &Path,
    prepared: &mut Prepared,
    stop: &StopSignal,
    place: &mut Option<Place>,
) -> Result<Ending, RunError> {
    let job = job::read(path)?;
    *place = Place::of(&job)?;
    let device = device::open(&job.resources, place.map(|place| place.local_rank))?;
    device::reset_peak_memory(device);
    let mut ranks = Ranks::meet(&job, device)?;
    let is_first = ranks.as_ref().is_none_or(Ranks::is_first);
    let spec = &job.spec;
    let config = &spec.model.config;
    let mut open = || if spec.measures_only() { Ok(None) } else { prepared.pairs(&job).map(Some) };
    let pairs = match &ranks {
        None => open()?,
        Some(ranks) => ranks.first_then_others(open)?,
    };
    // Rank 0 measures.
    let plans = if is_first { &spec.evaluations[..] } else { &[] };
    let held_out: Vec<_> = plans.iter().map(|plan| prepared.held_out(&job, plan)).collect::<Result<_, _>>()?;

    let mut model = Clip::new(config, spec.recipe.precision, spec.seed, device);
    model.set_grad_checkpointing(spec.recipe.grad_checkpointing);
    let Some(pairs) = pairs else {
        let ending = if is_first { measure_only(&job, model, &held_out, stop.asked())? } else { Ending::Finished };
        return told(ranks.as_ref(), ending);
    };
    let mut optimizer = AdamW::new(&model.parameters);
    let folder = job.base_dir.join(&job.checkpoint_dir);
    let mut folder = Folder::open(&folder, &job, prepared.tokenizer(&job)?.files())?;
    let (mut start, mut history) = (Start { pairs: pairs.used().pairs, ..Start::default() }, History::default());
    if is_first {
        history = begin(&job, &mut folder, &mut model, &mut optimizer, &mut start)?;
    }
    if let Some(ranks) = &mut ranks {
        start = ranks.spread(&mut model.parameters, &mut optimizer, start)?;
        (history.rollbacks, history.skipped_samples) = (start.rollbacks, start.skipped_samples);
    }
    let position = start.position;
    let world = ranks.as_ref().map_or(1, Ranks::world);
    let started = Event::Started {
        parameters: model.parameters.count(),
        resumed_from_samples: position.samples_seen,
        device: device::name(device, job.resources.threads, world),
        data: Some(pairs.used()),
    };
    if is_first {
        emit(&started)?;
    }
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
        share: match &ranks {
            Some(ranks) => ranks.rows(spec.recipe.global_batch),
            None => 0..spec.recipe.global_batch,
        },
        threads: job.resources.threads,
        device,
    };
    let source = Arc::new(source);
    let rollback = Rollback::of(&job, &model, &optimizer, position, &history);
    let training = Training {
        job: &job,
        batches: stream(&source, position, &history, spec.samples_seen),
        source,
        model,
        optimizer,
        folder,
        position,
        saved: start.saved,
        ranks,
        held_out,
        history,
        rollback,
        unread: Vec::new(),
        train_time: Duration::ZERO,
        eval_time: Duration::ZERO,
    };
    training.run(stop.asked())
}

/// Batches from a position of training on, behind the samples that were passed over.
fn stream(source: &Arc<Source<pool::Dataset>>, position: Position, history: &History, to: u64) -> Batches {
    source.stream(position.samples_seen + history.skipped_samples, to + history.skipped_samples)
}

/// Brings model and optimiser to where the job starts: its own newest checkpoint, else its parent's, else given
/// weights. Gives what is known of the steps before.
fn begin(
    job: &Job,
    folder: &mut Folder,
    model: &mut Clip,
    optimizer: &mut AdamW,
    start: &mut Start,
) -> Result<History, RunError> {
    let mut resumed = folder.resume(model, optimizer)?;
    start.saved = resumed.is_some();
    if let (None, Some(parent)) = (&resumed, &job.parent) {
        resumed = folder.branch(parent, &job.base_dir, model, optimizer)?;
    }
    if let (None, Some(init)) = (&resumed, &job.spec.init) {
        weights::load(init, &job.base_dir, &mut model.parameters)?;
    }
    let (position, history) = resumed.unwrap_or_default();
    start.position = position;
    (start.rollbacks, start.skipped_samples) = (history.rollbacks, history.skipped_samples);
    Ok(history)
}

/// How rank 0 came to an end of what it does alone, on every rank.
fn told(ranks: Option<&Ranks>, ending: Ending) -> Result<Ending, RunError> {
    let Some(ranks) = ranks else { return Ok(ending) };
    Ok(if ranks.told(ending == Ending::Stopped)? { Ending::Stopped } else { Ending::Finished })
}

fn emit(event: &Event) -> Result<(), RunError> {
    report::event(event).map_err(RunError::Report)
}

/// A training under way.
struct Training<'a> {
    job: &'a Job,
    source: Arc<Source<pool::Dataset>>,
    batches: Batches,
    model: Clip,
    optimizer: AdamW,
    folder: Folder,
    position: Position,
    /// Whether a checkpoint of this very position is on disk.
    saved: bool,
    /// The other processes, if there are any.
    ranks: Option<Ranks>,
    held_out: Vec<Arc<HeldOut>>,
    /// Kept in checkpoints, so that reports are the same after one. Those between the reports that are due, of slow
    /// steps, leave its losses: what is due must not depend on the clock.
    history: History,
    /// If a spike leads back to a checkpoint.
    rollback: Option<Rollback>,
    /// The newest losses, which have not been read: reading one waits for the device.
    unread: Vec<Tensor>,
    train_time: Duration,
    eval_time: Duration,
}

impl Training<'_> {
    /// Whether this process speaks, writes and measures.
    fn is_first(&self) -> bool {
        self.ranks.as_ref().is_none_or(Ranks::is_first)
    }

    fn run(mut self, stop: &AtomicBool) -> Result<Ending, RunError> {
        let ending = self.train(stop);
        if let (Err(_), Some(rollback)) = (&ending, &mut self.rollback) {
            rollback.tell_all()?; // What led to it is worth to be seen.
        }
        ending
    }

    fn train(&mut self, stop: &AtomicBool) -> Result<Ending, RunError> {
        let steps = self.job.spec.steps();
        let report_every = steps.div_ceil(REPORTS);
        // A stop between a checkpoint and its evaluations leaves them to the next attempt: here.
        if self.evaluate(stop)? == Ending::Stopped {
            return self.stop();
        }
        let mut reported = Instant::now();
        let mut reported_step = self.position.step;
        let mut data_wait = Duration::ZERO; // Since the last report.
        while self.position.step < steps {
            let started = Instant::now();
            let lr = learning_rate(&self.job.spec.recipe, self.position.step, steps);
            let step = self.position.step + 1;
            let scheduled = step.is_multiple_of(report_every) || step == steps;
            // What leads back is seen at the same steps in any run, and told later anyway.
            let reporting = scheduled || (self.rollback.is_none() && reported.elapsed() >= REPORT_INTERVAL);
            let asked = Instant::now();
            let batch = self.batches.next().ok_or(RunError::DataThread)??;
            data_wait += asked.elapsed();
            let (grad_norm, stopping) = self.step(batch, lr, reporting, stop)?;
            let (saving, evaluating) = (self.checkpoint_is_due(), self.evaluation_is_due());
            let reading = reporting || stopping || saving || evaluating;
            let spike = if reading { self.read_losses()? } else { None };
            self.train_time += started.elapsed();
            if self.rollback.is_some() && (reporting || saving || evaluating) && self.went_back(spike)? {
                (reported, reported_step, data_wait) = (Instant::now(), self.position.step, Duration::ZERO);
                continue;
            }
            if let (Some(grad_norm), true) = (grad_norm, self.is_first()) {
                let samples = (step - reported_step) * self.job.spec.recipe.global_batch;
                let samples_per_sec = samples as f64 / reported.elapsed().as_secs_f64();
                let metrics = [
                    ("lr", lr),
                    ("grad_norm", grad_norm),
                    ("samples_per_sec", samples_per_sec),
                    ("data_wait_secs", data_wait.as_secs_f64()),
                ];
                self.report(&metrics)?;
                (reported, reported_step, data_wait) = (Instant::now(), step, Duration::ZERO);
                if scheduled {
                    self.history.losses.clear();
                }
            }
            if saving {
                self.checkpoint()?;
            }
            if stopping {
                return self.stop();
            }
            let before = Instant::now();
            if evaluating && self.evaluate(stop)? == Ending::Stopped {
                return self.stop();
            }
            reported += before.elapsed(); // Evaluation is not training: it does not count into samples a second.
        }
        if self.is_first() {
            emit(&Event::Finished {
                samples_seen: self.position.samples_seen,
                train_secs: self.train_time.as_secs_f64(),
                eval_secs: self.eval_time.as_secs_f64(),
                peak_memory_bytes: device::peak_memory_bytes(self.model.device()),
            })?;
        }
        Ok(Ending::Finished)
    }

    /// Takes a step on a batch that is on the model's device; gives the norm of its gradient, before clipping, where it
    /// is `reported`, and whether it is to be the last.
    fn step(
        &mut self,
        batch: Inputs,
        lr: f64,
        reported: bool,
        stop: &AtomicBool,
    ) -> Result<(Option<f64>, bool), RunError> {
        let (model, recipe) = (&mut self.model, &self.job.spec.recipe);
        let options = StepOptions::new(recipe, model.device());
        let threads = self.job.resources.threads;
        let (loss, grad_norm, stopping) = if let Some(ranks) = &mut self.ranks {
            let loss = ranks.gradients(model, &batch, options)?;
            self.batches.reuse(batch);
            let stop = stop.load(Ordering::Relaxed);
            let agreed = ranks.step(&mut model.parameters, &mut self.optimizer, (recipe, lr), threads, stop)?;
            (loss, reported.then_some(agreed.grad_norm), agreed.stop)
        } else {
            let (loss, gradients) = step::gradients(model, &batch, options)?;
            self.batches.reuse(batch);
            let grad_norm = reported.then(|| optimizer::norm(&gradients).double_value(&[]));
            self.optimizer.step(&mut model.parameters, &gradients, recipe, lr, threads);
            (loss, grad_norm, stop.load(Ordering::Relaxed))
        };
        model.clamp_logit_scale();
        self.unread.push(loss);
        self.position.step += 1;
        self.position.samples_seen += recipe.global_batch;
        self.saved = false;
        Ok((grad_norm, stopping))
    }

    /// Has rank 0 look at the losses since it last did. Gives the step of the first spike that leads back; those behind
    /// it count for nothing then.
    fn read_losses(&mut self) -> Result<Option<u64>, RunError> {
        let unread = std::mem::take(&mut self.unread);
        if !self.is_first() {
            return Ok(None);
        }
        let read = Vec::<f64>::try_from(Tensor::stack(&unread, 0).to_kind(Kind::Double)).unwrap_or_default();
        let first = self.position.step + 1 - read.len() as u64;
        for (step, loss) in (first..).zip(read) {
            if !loss.is_finite() {
                return Err(RunError::Diverged { step, loss });
            }
            if self.history.spikes.take(loss) {
                report::say(format_args!("the loss of step {step} is {loss}: a spike"));
                if self.rollback.is_some() {
                    return Ok(Some(step));
                }
            }
            self.history.losses.push(loss);
        }
        Ok(None)
    }

    /// After a spike that rank 0 has seen, goes back to the last planned checkpoint, all ranks alike. `false`: there
    /// was none.
    fn went_back(&mut self, spike: Option<u64>) -> Result<bool, RunError> {
        let seen = spike.map_or(-1, |step| step as i64);
        let seen = self.ranks.as_ref().map_or(Ok(seen), |ranks| ranks.told_number(seen))?;
        let (Ok(step), Some(rollback)) = (u64::try_from(seen), &mut self.rollback) else { return Ok(false) };
        let batch = self.job.spec.recipe.global_batch;
        (self.position, self.history) = rollback.go_back(step, batch, &mut self.model, &mut self.optimizer)?;
        self.saved = true;
        self.batches = stream(&self.source, self.position, &self.history, self.job.spec.samples_seen);
        if self.is_first() {
            let (position, skipped) = (self.position.samples_seen, self.history.skipped_samples);
            report::say(format_args!("back at {position} samples, with {skipped} passed over so far"));
        }
        Ok(true)
    }

    /// Tells the step just taken, with the mean of the losses since the last report that was due.
    fn report(&mut self, metrics: &[(&str, f64)]) -> Result<(), RunError> {
        let losses = &self.history.losses;
        let loss = losses.iter().sum::<f64>() / losses.len() as f64;
        let logit_scale = self.model.logit_scale.double_value(&[]);
        // The losses were fine, the step after them was not: the next loss would be no number either.
        if !logit_scale.is_finite() {
            return Err(RunError::Diverged { step: self.position.step, loss: logit_scale });
        }
        let counts = [
            ("spikes", self.history.spikes.count),
            ("rollbacks", self.history.rollbacks),
            ("skipped_samples", self.history.skipped_samples),
        ];
        let is_last = self.position.step == self.job.spec.steps();
        let told = if self.rollback.is_some() { &counts[..] } else { &counts[..1] };
        let told = told.iter().filter(|(_, count)| is_last || *count > 0);
        let metrics = metrics.iter().copied().chain([("logit_scale", logit_scale)]);
        let metrics = metrics.chain(told.map(|&(name, count)| (name, count as f64)));
        self.tell(Event::Step {
            step: self.position.step,
            samples_seen: self.position.samples_seen,
            loss,
            metrics: metrics.map(|(name, value)| (name.to_owned(), value)).collect(),
        })
    }

    /// At once, or when the next checkpoint is written.
    fn tell(&mut self, event: Event) -> Result<(), RunError> {
        match &mut self.rollback {
            Some(rollback) => rollback.tell(event, self.position),
            None => emit(&event),
        }
    }

    /// Whether the step just taken crossed a multiple of `checkpoint_every_samples`, or was the last one.
    fn checkpoint_is_due(&self) -> bool {
        let (now, spec) = (self.position.samples_seen, &self.job.spec);
        let before = now - spec.recipe.global_batch;
        let crossed = spec.recipe.checkpoint_every_samples.is_some_and(|every| now / every > before / every);
        crossed || now == spec.samples_seen
    }

    fn checkpoint(&mut self) -> Result<(), RunError> {
        self.saved = true;
        if let Some(rollback) = &mut self.rollback {
            rollback.confirm(&self.model, &self.optimizer, self.position, &self.history)?;
        }
        let moments = match &self.ranks {
            Some(ranks) => ranks.moments(&self.optimizer, &self.model.parameters)?,
            None => [self.optimizer.first.shallow_clone(), self.optimizer.second.shallow_clone()],
        };
        if !self.is_first() {
            return Ok(());
        }
        let (path, sha256) = self.folder.write(&self.model, moments.each_ref(), self.position, &self.history)?;
        let Position { step, samples_seen, .. } = self.position;
        emit(&Event::Checkpoint { step, samples_seen, path, sha256 })
    }

    fn stop(&mut self) -> Result<Ending, RunError> {
        if !self.saved && self.rollback.is_none() {
            self.checkpoint()?;
        }
        Ok(Ending::Stopped)
    }

    fn evaluation_is_due(&self) -> bool {
        (0..self.job.spec.evaluations.len()).any(|index| self.is_due(index))
    }

    /// Whether an evaluation has a point at or before here that is not done yet.
    fn is_due(&self, index: usize) -> bool {
        let now = self.position.samples_seen;
        let mut points =
            self.job.spec.evaluations[index].at_samples.iter().copied().chain([self.job.spec.samples_seen]);
        points.any(|point| point <= now && self.position.evaluated_samples.is_none_or(|done| point > done))
    }

    /// Has rank 0 measure what is due. A stop between two data sets leaves the rest to the next attempt.
    fn evaluate(&mut self, stop: &AtomicBool) -> Result<Ending, RunError> {
        if !self.evaluation_is_due() {
            return Ok(Ending::Finished);
        }
        let started = Instant::now();
        let measured = if self.is_first() {
            let due = (0..self.held_out.len()).filter(|index| self.is_due(*index));
            let due: Vec<_> = due.map(|index| Arc::clone(&self.held_out[index])).collect();
            let (position, rollback) = (self.position, &mut self.rollback);
            measure(&self.model, &due, position.samples_seen, stop, |event| match rollback {
                Some(rollback) => rollback.tell(event, position),
                None => emit(&event),
            })?
        } else {
            Ending::Finished
        };
        let ending = told(self.ranks.as_ref(), measured)?;
        if ending == Ending::Finished {
            self.position.evaluated_samples = Some(self.position.samples_seen);
            if let Some(rollback) = &mut self.rollback {
                rollback.evaluated(self.position);
            }
            self.eval_time += started.elapsed();
        }
        Ok(ending)
    }
}
