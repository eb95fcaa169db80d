//! What one attempt's runner may say after what it has said: the order of events, one value for each place, only what
//! the job plans.

use std::collections::{BTreeMap, BTreeSet};

use protocol::{Event, JobSpec, Measurement};

use super::complete::{Measured, missing, planned_positions};
use super::{Range, Reading, problem, quote, read_line};

/// Evaluations of one attempt, by data set and position, that the job does not plan.
const EVALUATIONS_MAX: usize = 100_000;

/// What one attempt's runner has said, as far as it matters for what comes.
#[derive(Debug)]
pub struct Attempt<'a> {
    spec: &'a JobSpec,
    started: bool,
    resumed_from: u64,
    last_step: Option<Step>,
    evaluations: BTreeMap<(String, u64), BTreeMap<String, Measurement>>,
    measured: Measured,
    last_word: Option<Event>,
    /// Keys that were ignored, and told of.
    ignored: BTreeSet<String>,
}

/// The last report of training.
#[derive(Debug)]
struct Step {
    number: u64,
    samples_seen: u64,
    values: BTreeMap<String, f64>,
}

/// What came of a line.
#[derive(Debug, Clone, PartialEq)]
pub enum Taken {
    /// It was empty, or repeats the last word.
    Nothing,
    /// Words, or an event of the runner's own.
    Words,
    /// An event that counts.
    Event {
        /// What it says.
        event: Event,
        /// Keys that were ignored and not told of before.
        ignored: Vec<String>,
    },
    /// The last line has no line break, and can't be read: its writer has ended within it.
    CutOff(String),
    /// The attempt fails with this reason, which quotes the line.
    Refused(String),
}

impl<'a> Attempt<'a> {
    /// Of a job.
    pub fn new(spec: &'a JobSpec) -> Attempt<'a> {
        Attempt {
            spec,
            started: false,
            resumed_from: 0,
            last_step: None,
            evaluations: BTreeMap::new(),
            measured: Measured::default(),
            last_word: None,
            ignored: BTreeSet::new(),
        }
    }

    /// Takes the next line in. After one that is refused, or `failed`, nothing counts.
    pub fn take(&mut self, line: &[u8]) -> Taken {
        let refused = |reason: String| Taken::Refused(format!("{}; the line: {}", printable(&reason), quote(line)));
        match read_line(line) {
            Reading::Empty => Taken::Nothing,
            Reading::Words => Taken::Words,
            _ if matches!(self.last_word, Some(Event::Failed { .. })) => Taken::Nothing,
            Reading::Unclear { problem } => refused(format!("the runner wrote an event that can't be read: {problem}")),
            Reading::Event { event, .. } if self.last_word.as_ref() == Some(&event) => Taken::Nothing,
            Reading::Event { event, mut ignored } => match self.enter(&event) {
                Ok(()) => {
                    ignored.retain(|key| self.ignored.insert(format!("{}.{key}", kind_of(&event))));
                    Taken::Event { event, ignored }
                }
                Err(reason) => refused(format!("the runner said `{}` {reason}", kind_of(&event))),
            },
        }
    }

    /// Takes the last line in, which has no line break. Who was killed may have been within a line, and that is no
    /// fault of what was said.
    pub fn take_last(&mut self, line: &[u8]) -> Taken {
        match read_line(line) {
            Reading::Unclear { problem } if self.last_word.is_none() => Taken::CutOff(format!(
                "the runner's last line is cut off: {}; the line: {}",
                printable(&problem),
                quote(line)
            )),
            _ => self.take(line),
        }
    }

    fn enter(&mut self, event: &Event) -> Result<(), String> {
        if let Some(last) = &self.last_word {
            return Err(format!("after `{}`, which is the last word", kind_of(last)));
        }
        if let Some(problem) = problem(event, self.spec.samples_seen) {
            return Err(format!("that can't be stored: {problem}"));
        }
        match event {
            Event::Failed { .. } => self.last_word = Some(event.clone()),
            Event::Started { .. } if self.started => {
                return Err("twice: an attempt starts once, and one process speaks for all".to_owned());
            }
            Event::Started { resumed_from_samples, .. } => {
                self.started = true;
                self.resumed_from = *resumed_from_samples;
            }
            // Of a job before this one, if it serves: not to be taken for this one's.
            _ if !self.started => {
                return Err("before `started`: it is another job's, or nobody's".to_owned());
            }
            Event::Step { step, samples_seen, loss, metrics } => {
                let mut values = metrics.clone();
                values.insert("loss".to_owned(), *loss);
                self.enter_step(Step { number: *step, samples_seen: *samples_seen, values })?;
            }
            Event::Eval { samples_seen, dataset, measurements, .. } => {
                self.enter_evaluation(dataset, *samples_seen, measurements)?;
                self.measured.take(event);
            }
            Event::Checkpoint { .. } => {}
            Event::Finished { samples_seen, .. } => {
                // With other samples it has not finished, which is told as such.
                if *samples_seen == self.spec.samples_seen
                    && let Some(missing) = missing(self.spec, &self.measured, self.resumed_from)
                {
                    return Err(format!("too soon: {missing}"));
                }
                self.last_word = Some(event.clone());
            }
        }
        Ok(())
    }

    fn enter_step(&mut self, now: Step) -> Result<(), String> {
        let Step { number: step, samples_seen, .. } = now;
        if samples_seen < self.resumed_from {
            let resumed_from = self.resumed_from;
            return Err(format!("of {samples_seen} samples, and this attempt resumed from {resumed_from}"));
        }
        let Some(last) = &mut self.last_step else {
            self.last_step = Some(now);
            return Ok(());
        };
        if (step, samples_seen) == (last.number, last.samples_seen) {
            for (name, value) in now.values {
                let before = *last.values.entry(name.clone()).or_insert(value);
                if before.total_cmp(&value).is_ne() && !(before.is_nan() && value.is_nan()) {
                    return Err(format!("{step} with two values of `{name}`: {before} and {value}"));
                }
            }
            return Ok(());
        }
        if step <= last.number || samples_seen <= last.samples_seen {
            return Err(format!(
                "{step} at {samples_seen} samples after step {} at {} samples: an attempt only goes forward",
                last.number, last.samples_seen
            ));
        }
        *last = now;
        Ok(())
    }

    fn enter_evaluation(&mut self, dataset: &str, at: u64, measurements: &[Measurement]) -> Result<(), String> {
        if !self.spec.evaluations.is_empty() {
            let Some(positions) = planned_positions(self.spec, dataset) else {
                let planned: BTreeSet<&str> = self.spec.evaluations.iter().map(|plan| plan.dataset.as_str()).collect();
                let planned: Vec<String> = planned.into_iter().map(|name| format!("`{name}`")).collect();
                return Err(format!("of the data set `{dataset}`; the job plans {}", planned.join(", ")));
            };
            if !positions.contains(&at) {
                let positions: Vec<String> = positions.iter().map(u64::to_string).collect();
                return Err(format!("of `{dataset}` at {at} samples; the job plans it at {}", positions.join(", ")));
            }
        }
        if self.evaluations.len() >= EVALUATIONS_MAX {
            return Err(format!("more than {EVALUATIONS_MAX} times"));
        }
        let before = self.evaluations.entry((dataset.to_owned(), at)).or_default();
        for measurement in measurements {
            let first = before.entry(measurement.metric.clone()).or_insert_with(|| measurement.clone());
            // A loss that is no number is none twice, too.
            if first != measurement && !(first.value.is_nan() && measurement.value.is_nan()) {
                return Err(format!(
                    "with two values of `{}` of `{dataset}` at {at} samples: {} and {}",
                    measurement.metric, first.value, measurement.value
                ));
            }
        }
        Ok(())
    }
}

/// Why the job has diverged, if the event says so: a loss, in training or measured, that is no finite number.
pub fn diverged(event: &Event) -> Option<String> {
    let named = |loss: f64| if loss.is_nan() { "NaN" } else { "infinite" };
    match event {
        Event::Step { step, loss, .. } if !loss.is_finite() => Some(format!("loss is {} at step {step}", named(*loss))),
        Event::Eval { samples_seen, dataset, measurements, .. } => {
            let is_loss = |measurement: &&Measurement| Range::of(&measurement.metric) == Range::Loss;
            let bad = measurements.iter().filter(is_loss).find(|measurement| !measurement.value.is_finite())?;
            Some(format!("{} of {dataset} is {} at {samples_seen} samples", bad.metric, named(bad.value)))
        }
        _ => None,
    }
}

/// The name of an event's kind.
pub fn kind_of(event: &Event) -> &'static str {
    match event {
        Event::Started { .. } => "started",
        Event::Step { .. } => "step",
        Event::Eval { .. } => "eval",
        Event::Checkpoint { .. } => "checkpoint",
        Event::Finished { .. } => "finished",
        Event::Failed { .. } => "failed",
    }
}

/// Without what steers a terminal: names come from the runner.
fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { char::REPLACEMENT_CHARACTER } else { c }).collect()
}
