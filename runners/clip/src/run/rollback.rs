//! `on_spike: rollback`: after a loss spike training goes back to its last planned checkpoint and on with other data.
//! The samples from the checkpoint to the step of the spike are passed over for good, as in PaLM (Chowdhery et al.
//! 2022, section 5.1).
//!
//! What is decided depends on the losses alone, at steps that are the same in any run: an attempt that is killed goes
//! on from the checkpoint, meets the same spike and does the same again. So a stop writes no checkpoint of its own,
//! and what happened since the last one is told when the next is written: events only go forward.

use protocol::{Event, Job, OnSpike};
use tch::{Device, Tensor};

use super::{RunError, emit};
use crate::checkpoint::Position;
use crate::model::Clip;
use crate::optimizer::AdamW;
use crate::spikes::History;

/// Rollbacks of a job; with one more it has diverged.
pub(super) const ROLLBACKS_MAX: u64 = 10;

/// The last planned checkpoint, or the start, and what is not told since.
pub(super) struct Rollback {
    position: Position,
    history: History,
    parameters: Tensor,
    moments: [Tensor; 2],
    held: Vec<Event>,
}

impl Rollback {
    /// `None`: the job goes on after spikes.
    pub(super) fn of(
        job: &Job,
        model: &Clip,
        optimizer: &AdamW,
        position: Position,
        history: &History,
    ) -> Option<Rollback> {
        (job.spec.recipe.on_spike == OnSpike::Rollback).then(|| Rollback {
            position,
            history: history.clone(),
            parameters: kept(&model.parameters.flat),
            moments: [kept(&optimizer.first), kept(&optimizer.second)],
            held: Vec::new(),
        })
    }

    /// Tells an event, or keeps it until the next checkpoint.
    pub(super) fn tell(&mut self, event: Event, position: Position) -> Result<(), RunError> {
        if position.step == self.position.step {
            return emit(&event);
        }
        self.held.push(event);
        Ok(())
    }

    /// Tells what was kept. A checkpoint is written then, and from now on it is this one that is gone back to.
    pub(super) fn confirm(
        &mut self,
        model: &Clip,
        optimizer: &AdamW,
        position: Position,
        history: &History,
    ) -> Result<(), RunError> {
        self.tell_all()?;
        self.position = position;
        self.history.clone_from(history);
        tch::no_grad(|| {
            self.parameters.copy_(&model.parameters.flat);
            self.moments[0].copy_(&optimizer.first);
            self.moments[1].copy_(&optimizer.second);
        });
        Ok(())
    }

    /// Tells what was kept.
    pub(super) fn tell_all(&mut self) -> Result<(), RunError> {
        self.held.drain(..).try_for_each(|event| emit(&event))
    }

    /// What is due where the checkpoint lies was measured.
    pub(super) fn evaluated(&mut self, position: Position) {
        if position.step == self.position.step {
            self.position = position;
        }
    }

    /// Brings everything back to the checkpoint after a spike at `step`, with the data from there to the step passed
    /// over.
    pub(super) fn go_back(
        &mut self,
        step: u64,
        batch: u64,
        model: &mut Clip,
        optimizer: &mut AdamW,
    ) -> Result<(Position, History), RunError> {
        self.history.spikes.count += 1;
        self.history.rollbacks += 1;
        self.history.skipped_samples += step * batch - self.position.samples_seen;
        if self.history.rollbacks > ROLLBACKS_MAX {
            return Err(RunError::Spiking { step });
        }
        self.held.clear();
        tch::no_grad(|| {
            model.parameters.flat.copy_(&self.parameters);
            optimizer.first.copy_(&self.moments[0]);
            optimizer.second.copy_(&self.moments[1]);
        });
        optimizer.steps = self.position.step;
        Ok((self.position, self.history.clone()))
    }
}

/// A panic, by which libtorch's errors come (out of memory), passes by where errors have what was kept told.
impl Drop for Rollback {
    fn drop(&mut self) {
        if std::thread::panicking() {
            // The job fails with the panic's words, whether anybody reads or not.
            let _ = self.tell_all();
        }
    }
}

/// A copy in the machine's own memory.
fn kept(tensor: &Tensor) -> Tensor {
    tensor.detach().to_device(Device::Cpu).copy()
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    const ALONE: &str = "SWEEP_TEST_PANICS";

    /// Panics with an event kept: by itself, or, asked to, in a process whose output is read.
    #[test]
    fn a_panic_does_not_lose_what_was_kept() {
        if std::env::var_os(ALONE).is_none() {
            let mut again = Command::new(std::env::current_exe().expect("a test"));
            again.args(["--exact", "run::rollback::tests::a_panic_does_not_lose_what_was_kept", "--nocapture"]);
            let output = again.env(ALONE, "1").output().expect("it starts");
            let said = String::from_utf8_lossy(&output.stdout);
            assert!(!output.status.success() && said.contains(r#"{"event":"step","step":3"#), "{said}");
            return;
        }
        let none = || Tensor::zeros([1], (tch::Kind::Float, Device::Cpu));
        let position = Position { step: 3, samples_seen: 30, evaluated_samples: None };
        let mut rollback = Rollback {
            position: Position::default(),
            history: History::default(),
            parameters: none(),
            moments: [none(), none()],
            held: Vec::new(),
        };
        let event = Event::Step { step: 3, samples_seen: 30, loss: 1.0, metrics: std::collections::BTreeMap::new() };
        rollback.tell(event, position).expect("it is kept");
        panic!("not enough memory");
    }
}
