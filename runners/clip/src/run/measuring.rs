//! Measures weights on held-out data.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use protocol::{Event, Job};

use super::{Ending, RunError, emit};
use crate::device;
use crate::evaluate::HeldOut;
use crate::model::Clip;
use crate::weights;

/// Measures the weights that a job begins with, and trains nothing. What was asked to stop is measured again later.
pub(super) fn measure_only(
    job: &Job,
    mut model: Clip,
    held_out: &[Arc<HeldOut>],
    stop: &AtomicBool,
) -> Result<Ending, RunError> {
    if let Some(init) = &job.spec.init {
        weights::load(init, &job.base_dir, &mut model.parameters)?;
    }
    emit(&Event::Started {
        parameters: model.parameters.count(),
        resumed_from_samples: 0,
        device: device::name(model.device(), job.resources.threads, 1),
        data: None,
    })?;
    let started = Instant::now();
    if measure(&model, held_out, 0, stop, |event| emit(&event))? == Ending::Stopped {
        return Ok(Ending::Stopped);
    }
    emit(&Event::Finished {
        samples_seen: 0,
        train_secs: 0.0,
        eval_secs: started.elapsed().as_secs_f64(),
        peak_memory_bytes: device::peak_memory_bytes(model.device()),
    })?;
    Ok(Ending::Finished)
}

/// Measures weights on data sets, one after another, and tells what each says. After a stop the rest is left out.
pub(super) fn measure<'a>(
    model: &Clip,
    held_out: impl IntoIterator<Item = &'a Arc<HeldOut>>,
    samples_seen: u64,
    stop: &AtomicBool,
    mut tell: impl FnMut(Event) -> Result<(), RunError>,
) -> Result<Ending, RunError> {
    for held_out in held_out {
        if stop.load(Ordering::Relaxed) {
            return Ok(Ending::Stopped);
        }
        let Some((measurements, unmeasured)) = held_out.measure(model, stop)? else { return Ok(Ending::Stopped) };
        tell(Event::Eval { samples_seen, dataset: held_out.dataset.clone(), measurements, unmeasured })?;
    }
    Ok(Ending::Finished)
}
