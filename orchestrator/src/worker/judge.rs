//! How an attempt ended, from what its runner said and how it left. Pure.

use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;

use nix::sys::signal::Signal;
use protocol::{Event, FailureKind, exit};

use crate::events::{diverged, short_text};
use crate::store::Ending;

/// What the runner has said so far that matters for the end.
#[derive(Debug, Default)]
pub(super) struct RunnerOutput {
    /// Whether any line was an event.
    pub(super) any_event: bool,
    /// Why the runner had to be killed, if it had to.
    pub(super) verdict: Option<(FailureKind, String)>,
    /// What is wrong with the end of its last line.
    pub(super) cut_off: Option<String>,
    /// Its `finished` or `failed`.
    pub(super) last_word: Option<Event>,
}

/// Why the runner was asked to stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum StopCause {
    /// By people: free of charge.
    Request,
    /// Its time was over, after so many seconds.
    TimeLimit(u64),
}

impl RunnerOutput {
    /// Whether nothing was said that counts.
    pub(super) fn is_silent(&self) -> bool {
        !self.any_event && self.verdict.is_none() && self.cut_off.is_none()
    }

    /// Takes an event in. `true`: the runner is to be killed.
    pub(super) fn take(&mut self, event: &Event, planned_parameters: i64) -> bool {
        self.any_event = true;
        match event {
            Event::Started { parameters, .. } if parameters.cast_signed() != planned_parameters => {
                let reason = format!("the runner built {parameters} parameters, the plan has {planned_parameters}");
                self.verdict = Some((FailureKind::BadInput, reason));
            }
            Event::Finished { .. } | Event::Failed { .. } => self.last_word = Some(event.clone()),
            _ => self.verdict = diverged(event).map(|reason| (FailureKind::Diverged, reason)),
        }
        self.verdict.is_some()
    }
}

/// How the runner left.
#[derive(Debug)]
pub(super) struct RunnerExit {
    /// `None`: it has finished and goes on to serve.
    pub(super) status: Option<ExitStatus>,
    /// Why it was asked to stop, if it was.
    pub(super) asked: Option<StopCause>,
    /// Whether the kernel has killed a process beside this one for want of memory meanwhile.
    pub(super) killed_for_memory: bool,
    /// Its last words.
    pub(super) stderr_tail: String,
}

/// The ending: the runner's last word first, its exit code second.
pub(super) fn judge(output: RunnerOutput, exit: RunnerExit, samples_total: u64) -> Ending {
    let RunnerExit { status, asked, killed_for_memory, stderr_tail } = exit;
    let left_badly = status.is_some_and(|status| !status.success());
    if output.last_word.is_none() && output.verdict.is_none() && left_badly && says_disk_full(&stderr_tail) {
        return Ending::Stopped { reason: format!("{} for the runner", Ending::NO_SPACE) };
    }
    let code = status.and_then(|status| status.code());
    let failed = |kind, reason| Ending::Failed { kind, reason, exit_code: code, stderr_tail };
    let crashed = |how: String| {
        let because = if killed_for_memory { format!("{}: ", Ending::OUT_OF_MEMORY) } else { String::new() };
        format!("{because}the runner {how}")
    };
    if let Some((kind, reason)) = output.verdict {
        return failed(kind, reason);
    }
    match output.last_word {
        Some(Event::Finished { samples_seen, train_secs, eval_secs, peak_memory_bytes })
            if samples_seen == samples_total =>
        {
            return Ending::Finished {
                train_secs,
                eval_secs,
                peak_memory_bytes: peak_memory_bytes.map(u64::cast_signed),
            };
        }
        Some(Event::Finished { samples_seen, .. }) => {
            let reason = format!("the runner said `finished` after {samples_seen} of {samples_total} samples");
            return failed(FailureKind::Crash, reason);
        }
        Some(Event::Failed { reason, kind }) => return failed(kind, short_text(&reason)),
        _ => {}
    }
    match (code, asked) {
        (_, Some(StopCause::Request)) => Ending::Stopped { reason: Ending::ASKED.to_owned() },
        // One that leaves by itself has written all that it had to say.
        (Some(0 | exit::STOPPED), _) if output.cut_off.is_some() => {
            failed(FailureKind::Crash, output.cut_off.unwrap_or_default())
        }
        (Some(exit::STOPPED), Some(StopCause::TimeLimit(_))) => {
            Ending::Stopped { reason: Ending::TIME_LIMIT.to_owned() }
        }
        (Some(exit::STOPPED), None) => Ending::Stopped { reason: "the runner stopped itself".to_owned() },
        (_, Some(StopCause::TimeLimit(secs))) => {
            failed(FailureKind::Crash, format!("reached its time limit of {secs} s and left no checkpoint"))
        }
        (Some(exit::BAD_INPUT), None) => failed(FailureKind::BadInput, "the runner refused the job".to_owned()),
        (Some(0), None) => {
            let reason = if output.any_event {
                "the runner left with exit code 0 but never said `finished`"
            } else {
                "the runner left with exit code 0 without a single event: does it speak the protocol?"
            };
            failed(FailureKind::Crash, reason.to_owned())
        }
        (Some(code), None) => failed(FailureKind::Crash, crashed(format!("left with exit code {code}"))),
        (None, None) => {
            let name = status.and_then(|status| status.signal()).and_then(|number| Signal::try_from(number).ok());
            let name = name.map_or("a signal".to_owned(), |signal| signal.to_string());
            failed(FailureKind::Crash, crashed(format!("was killed by {name}")))
        }
    }
}

/// Whether the runner's last words are those of a full disk: no fault of the job's.
fn says_disk_full(stderr_tail: &str) -> bool {
    ["No space left on device", "os error 28", "Disk quota exceeded", "os error 122"]
        .iter()
        .any(|words| stderr_tail.contains(words))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn end(last_word: Option<Event>, raw_status: i32, asked: Option<StopCause>) -> String {
        let status = Some(ExitStatus::from_raw(raw_status));
        end_of(last_word, RunnerExit { status, asked, killed_for_memory: false, stderr_tail: String::new() })
    }

    fn end_of(last_word: Option<Event>, exit: RunnerExit) -> String {
        let output = RunnerOutput { any_event: true, last_word, ..RunnerOutput::default() };
        match judge(output, exit, 100) {
            Ending::Finished { .. } => "finished".to_owned(),
            Ending::Stopped { reason } => format!("stopped: {reason}"),
            Ending::Failed { kind, reason, .. } => format!("{kind:?}: {reason}"),
        }
    }

    #[test]
    fn last_word_first_exit_code_second() {
        let finished = |samples_seen| {
            Some(Event::Finished { samples_seen, train_secs: 1.0, eval_secs: 0.0, peak_memory_bytes: None })
        };
        let code = |code: i32| code << 8;
        assert_eq!(end(finished(100), code(1), None), "finished");
        assert_eq!(end(finished(50), 0, None), "Crash: the runner said `finished` after 50 of 100 samples");
        assert_eq!(end(None, 0, None), "Crash: the runner left with exit code 0 but never said `finished`");
        assert_eq!(end(None, code(75), None), "stopped: the runner stopped itself");
        assert_eq!(end(None, code(75), Some(StopCause::TimeLimit(9))), "stopped: time limit");
        assert_eq!(end(None, 15, Some(StopCause::Request)), "stopped: asked to stop");
        assert_eq!(
            end(None, 9, Some(StopCause::TimeLimit(9))),
            "Crash: reached its time limit of 9 s and left no checkpoint"
        );
        assert_eq!(end(None, 9, None), "Crash: the runner was killed by SIGKILL");
        assert_eq!(end(None, code(2), None), "BadInput: the runner refused the job");
        let failed = Some(Event::Failed { reason: "no such pool".to_owned(), kind: FailureKind::BadInput });
        assert_eq!(end(failed, code(1), None), "BadInput: no such pool");
    }

    #[test]
    fn a_kill_for_memory_is_said() {
        let exit = |raw_status| RunnerExit {
            status: Some(ExitStatus::from_raw(raw_status)),
            asked: None,
            killed_for_memory: true,
            stderr_tail: String::new(),
        };
        assert_eq!(end_of(None, exit(9)), "Crash: out of memory: the runner was killed by SIGKILL");
        // One of its children was killed, and it left for that.
        assert_eq!(end_of(None, exit(1 << 8)), "Crash: out of memory: the runner left with exit code 1");
        let failed = Some(Event::Failed { reason: "no such pool".to_owned(), kind: FailureKind::BadInput });
        assert_eq!(end_of(failed, exit(1 << 8)), "BadInput: no such pool", "its own word counts");
    }

    #[test]
    fn who_is_killed_within_a_line_has_crashed_and_who_leaves_within_one_too() {
        let end = |raw_status, asked| {
            let output =
                RunnerOutput { any_event: true, cut_off: Some("cut off".to_owned()), ..RunnerOutput::default() };
            let status = Some(ExitStatus::from_raw(raw_status));
            let exit = RunnerExit { status, asked, killed_for_memory: false, stderr_tail: String::new() };
            match judge(output, exit, 100) {
                Ending::Failed { kind, reason, .. } => format!("{kind:?}: {reason}"),
                other => format!("{other:?}"),
            }
        };
        assert_eq!(end(9, None), "Crash: the runner was killed by SIGKILL");
        assert_eq!(end(0, None), "Crash: cut off");
        assert_eq!(end(75 << 8, None), "Crash: cut off");
        assert!(end(9, Some(StopCause::Request)).starts_with("Stopped"));
    }

    #[test]
    fn a_loss_that_is_no_number_and_a_wrong_size_end_it() {
        let step = |loss| Event::Step { step: 7, samples_seen: 56, loss, metrics: BTreeMap::default() };
        let mut output = RunnerOutput::default();
        assert!(!output.take(&step(1.0), 10));
        assert!(output.take(&step(f64::NAN), 10));
        assert_eq!(output.verdict, Some((FailureKind::Diverged, "loss is NaN at step 7".to_owned())));
        let started = Event::Started { parameters: 11, resumed_from_samples: 0, device: "cpu".to_owned(), data: None };
        assert!(RunnerOutput::default().take(&started, 10) && !RunnerOutput::default().take(&started, 11));
    }
}
