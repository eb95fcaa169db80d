//! How a running sweep looks: bars on a terminal, lines elsewhere.

use std::collections::BTreeMap;
use std::io::IsTerminal;
use std::time::{Duration, Instant};

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

use super::output::{one_line, say, say_line};
use crate::schedule::driver::Notice;
use crate::store::{JobProgress, StateCounts, Totals};

/// Between two lines on how far a sweep is, where there are no bars.
const LINE_EVERY: Duration = Duration::from_secs(30);

/// Lines on single jobs that are printed in a second.
const LINES_PER_SEC: u32 = 20;

/// What is shown of one sweep.
pub(super) struct Progress {
    /// Jobs of the plan; some may not be stored yet.
    jobs: i64,
    bars: Option<Bars>,
    begun: Instant,
    gmacs_at_start: Option<f64>,
    last_line: Instant,
    second: Instant,
    lines_this_second: u32,
    reached: StateCounts,
}

struct Bars {
    all: MultiProgress,
    sweep: ProgressBar,
    jobs: BTreeMap<String, ProgressBar>,
}

impl Progress {
    pub(super) fn new(name: &str, jobs: i64) -> Progress {
        let bars = std::io::stderr().is_terminal().then(|| Bars::of(MultiProgress::new(), name));
        Progress { bars, ..Progress::lines(jobs) }
    }

    fn lines(jobs: i64) -> Progress {
        let now = Instant::now();
        Progress {
            jobs,
            bars: None,
            begun: now,
            gmacs_at_start: None,
            last_line: now,
            second: now,
            lines_this_second: 0,
            reached: StateCounts::default(),
        }
    }

    /// Of another sweep that is driven by the same process.
    pub(super) fn beside(&self, name: &str) -> Progress {
        let bars = self.bars.as_ref().map(|bars| bars.of_another(name));
        Progress { bars, ..Progress::lines(0) }
    }

    /// The last counts that were seen.
    pub(super) fn reached(&self) -> StateCounts {
        self.reached
    }

    pub(super) fn show(&mut self, notice: &Notice<'_>) {
        match notice {
            Notice::Progress { totals, running, ended } => self.progress(totals, running, ended),
            Notice::DatabaseAway(why) => self.line(&format!("the database doesn't answer, trying again: {why}")),
            Notice::DatabaseBack => self.line("the database answers again"),
            Notice::ActionFailed(why) => self.line(&format!("the database refused something, trying again: {why}")),
            Notice::AttemptLost { reason } => {
                self.line(&format!("an attempt is lost: {reason}; its job goes on from its last checkpoint"));
            }
            Notice::BackendRefused(error) => self.line(&format!("{error}; trying again")),
            Notice::NodeAvoided { node } => self.line(&format!(
                "two attempts have failed on {node} that others had no trouble with: the next ones run elsewhere if they can"
            )),
            Notice::HostSilent { host, silent_secs, limit_secs } => self.line(&format!(
                "nothing was heard of attempts on host {host} for {}; they are given up after {}",
                time(*silent_secs),
                time(*limit_secs)
            )),
            Notice::Launched { job_key } if self.bars.is_none() => {
                if self.may_say_more() {
                    self.line(&format!("started {}", &job_key[..12]));
                }
            }
            Notice::Launched { .. } => {}
        }
    }

    /// Whether one more line on a single job fits: a sweep of short jobs would drown the rest.
    fn may_say_more(&mut self) -> bool {
        if self.second.elapsed() >= Duration::from_secs(1) {
            self.second = Instant::now();
            self.lines_this_second = 0;
        }
        self.lines_this_second += 1;
        self.lines_this_second <= LINES_PER_SEC
    }

    /// Takes the bars away.
    pub(super) fn finish(self) {
        if let Some(bars) = self.bars {
            for bar in bars.jobs.values().chain([&bars.sweep]) {
                bar.finish_and_clear();
            }
        }
    }

    fn progress(&mut self, totals: &Totals, running: &[JobProgress], ended: &[JobProgress]) {
        self.reached = totals.counts;
        let to_store = (self.jobs - totals.counts.total()).max(0);
        let mut silent = 0;
        for job in ended {
            if job.state != "done" || self.may_say_more() {
                self.line(&end_line(job));
            } else {
                silent += 1;
            }
        }
        if silent > 0 {
            self.line(&format!("done      {silent} more jobs"));
        }
        let reached = totals.gmacs_reached(running);
        let advanced = reached - *self.gmacs_at_start.get_or_insert(reached);
        let left = totals.gmacs - reached;
        let eta = (advanced > 0.0 && to_store == 0).then(|| self.begun.elapsed().as_secs_f64() / advanced * left);
        let counts = &totals.counts;
        let state = format!(
            "{} running, {} waiting{}{}",
            counts.running,
            counts.pending + to_store,
            if counts.failed > 0 { format!(", {} failed", counts.failed) } else { String::new() },
            eta.map_or(String::new(), |eta| format!(", about {} left", time(eta))),
        );
        if let Some(bars) = &mut self.bars {
            bars.sweep.set_length((counts.total() + to_store).cast_unsigned());
            bars.sweep.set_position((counts.done + counts.failed + counts.cancelled).cast_unsigned());
            bars.sweep.set_message(state);
            bars.update(running);
        } else if self.last_line.elapsed() >= LINE_EVERY {
            self.last_line = Instant::now();
            say(&format!("{}/{} jobs done, {state}", counts.done, counts.total() + to_store));
        }
    }

    /// A line of words, above the bars.
    pub(super) fn line(&self, text: &str) {
        match &self.bars {
            Some(bars) => bars.all.suspend(|| say_line(text)),
            None => say_line(text),
        }
    }
}

impl Bars {
    fn of(all: MultiProgress, name: &str) -> Bars {
        let sweep = all.add(ProgressBar::new(0).with_style(style("{prefix} {bar:30} {pos}/{len} jobs  {msg}")));
        sweep.set_prefix(name.to_owned());
        Bars { all, sweep, jobs: BTreeMap::new() }
    }

    fn of_another(&self, name: &str) -> Bars {
        Bars::of(self.all.clone(), name)
    }

    fn update(&mut self, running: &[JobProgress]) {
        self.jobs.retain(|key, bar| {
            let runs = running.iter().any(|job| job.job_key == *key);
            if !runs {
                bar.finish_and_clear();
                self.all.remove(bar);
            }
            runs
        });
        for job in running {
            let bar = self.jobs.entry(job.job_key.clone()).or_insert_with(|| {
                let style = style("  {prefix:<44} {bar:20} {msg}");
                let bar = self.all.insert_before(&self.sweep, ProgressBar::new(0).with_style(style));
                bar.set_prefix(one_line(&label(job)).into_owned());
                bar
            });
            bar.set_length((job.samples_of_ours() - job.parent_samples).cast_unsigned());
            bar.set_position((job.samples_seen - job.parent_samples).max(0).cast_unsigned());
            let rate = job.samples_per_sec.filter(|&rate| rate > 0.0);
            let left = (job.samples_of_ours() - job.samples_seen) as f64;
            bar.set_message(format!(
                "{}/{}{}{}{}",
                short(job.samples_seen),
                short(job.samples_of_ours()),
                rate.map_or(String::new(), |rate| format!("  {}/s", short(rate as i64))),
                job.loss.map_or(String::new(), |loss| format!("  loss {loss:.3}")),
                rate.map_or(String::new(), |rate| format!("  {} left", time(left / rate))),
            ));
        }
    }
}

/// A line of words while bars may be showing: a line break first keeps them apart.
pub(super) fn interject(text: &str) {
    if std::io::stderr().is_terminal() {
        say("");
    }
    say(text);
}

/// `1f2e3d4c5b6a ViT-tiny 128k samples of 4k, seed 0`; `trunk to 102k samples` and `128k from 102k samples`.
pub(super) fn label(job: &JobProgress) -> String {
    if job.samples_total.is_none() {
        return format!("{} {} as it is", &job.job_key[..12], job.model);
    }
    let from = if job.parent_samples > 0 { format!(" from {}", short(job.parent_samples)) } else { String::new() };
    format!(
        "{} {} {}{}{from} samples of {}, seed {}",
        &job.job_key[..12],
        job.model,
        if job.is_trunk { "trunk to " } else { "" },
        short(job.samples_of_ours()),
        short(job.data_size.unwrap_or(0)),
        job.seed
    )
}

fn end_line(job: &JobProgress) -> String {
    let how = match (job.state.as_str(), job.loss) {
        ("done", Some(loss)) => format!("loss {loss:.3}"),
        ("done", None) => return format!("done      {}", label(job)),
        _ => job.reason.clone().unwrap_or_default(),
    };
    format!("{:<9} {}: {how}", job.state, label(job))
}

/// `131072` is `131k`, as short as three digits say it.
pub(super) fn short(count: i64) -> String {
    let number = count as f64;
    let (scaled, unit) = match count {
        ..1_000 => return count.to_string(),
        1_000..1_000_000 => (number / 1e3, "k"),
        1_000_000..1_000_000_000 => (number / 1e6, "M"),
        _ => (number / 1e9, "B"),
    };
    let digits = usize::from(scaled < 10.0);
    let text = format!("{scaled:.digits$}");
    format!("{}{unit}", text.strip_suffix(".0").unwrap_or(&text))
}

/// `42 s`, `3 min`, `2 h 05 min`.
pub(super) fn time(secs: f64) -> String {
    let secs = secs.max(0.0) as u64;
    match secs {
        ..100 => format!("{secs} s"),
        100..6_000 => format!("{} min", secs.div_ceil(60)),
        _ => format!("{} h {:02} min", secs / 3600, secs / 60 % 60),
    }
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).expect("the template is right").progress_chars("━╸─")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short() {
        assert_eq!([999, 1_000, 4_096, 131_072, 3_000_000].map(short), ["999", "1k", "4.1k", "131k", "3M"]);
        assert_eq!([42.4, 130.0, 7_500.0].map(time), ["42 s", "3 min", "2 h 05 min"]);
    }
}
