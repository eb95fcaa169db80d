//! What `sweep top` knows and shows, and what keys do to it. Pure: no terminal, no database, no clock.

use ratatui::termion::event::Key;

use crate::schedule::QUIET_SECS;
use crate::store::{Activity, JobProgress, LAUNCHER_SECS, Point, SweepSummary, Totals};

/// Rows that page up and down move by.
const PAGE: usize = 10;

/// What was read from the database at one time.
#[derive(Debug, Clone, Default)]
pub(super) struct Snapshot {
    /// All sweeps by name.
    pub(super) sweeps: Vec<SweepSummary>,
    /// The one that is shown.
    pub(super) view: Option<View>,
    /// The job whose details are shown.
    pub(super) detail: Option<Detail>,
    /// When, `12:00:00`.
    pub(super) at: String,
}

/// One sweep.
#[derive(Debug, Clone)]
pub(super) struct View {
    /// Its name.
    pub(super) sweep: String,
    /// What it is to answer.
    pub(super) question: String,
    /// How far it is.
    pub(super) totals: Totals,
    /// What it has taken.
    pub(super) activity: Activity,
    /// Those that run, those that were given up, the next that wait: the first of each.
    pub(super) jobs: Vec<Row>,
}

/// A job in the list.
#[derive(Debug, Clone)]
pub(super) struct Row {
    /// How far it is.
    pub(super) job: JobProgress,
    /// Its training loss so far.
    pub(super) loss: Vec<Point>,
}

/// One job, closer.
#[derive(Debug, Clone)]
pub(super) struct Detail {
    /// How far it is.
    pub(super) row: Row,
    /// State and folder of each attempt, oldest first.
    pub(super) attempts: Vec<(String, String)>,
    /// The last lines that its runner wrote, or why there are none.
    pub(super) log: Vec<String>,
}

/// What the screen shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Page {
    /// The sweep and its jobs.
    Jobs,
    /// One job.
    Detail,
    /// A choice of sweeps.
    Sweeps,
    /// What keys do.
    Help,
}

/// What a key asks of the program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Action {
    /// Draw again.
    Draw,
    /// End.
    Quit,
    /// Stop as the shell's job control has it.
    Suspend,
}

/// What to read.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Wanted {
    /// Name of the sweep to show.
    pub(super) sweep: Option<String>,
    /// Key of the job to show closer.
    pub(super) detail: Option<String>,
}

/// Everything that the screen is drawn from.
#[derive(Debug, Clone)]
pub(super) struct App {
    /// What was read last.
    pub(super) snapshot: Option<Snapshot>,
    /// Why nothing newer was read, while the database is away.
    pub(super) away: Option<String>,
    /// What is shown.
    pub(super) page: Page,
    /// Name of the sweep that is shown.
    pub(super) sweep: Option<String>,
    /// Key of the chosen job: it stays chosen when jobs come and go.
    pub(super) chosen: Option<String>,
    /// Place in the list of sweeps.
    pub(super) sweep_place: usize,
    /// Whether colours may be used.
    pub(super) colours: bool,
}

impl App {
    /// With a sweep, or with a choice of them.
    pub(super) fn new(sweep: Option<String>, colours: bool) -> App {
        let page = if sweep.is_some() { Page::Jobs } else { Page::Sweeps };
        App { snapshot: None, away: None, page, sweep, chosen: None, sweep_place: 0, colours }
    }

    /// What is to be read for it.
    pub(super) fn wanted(&self) -> Wanted {
        let detail = if self.page == Page::Detail { self.chosen.clone() } else { None };
        Wanted { sweep: self.sweep.clone(), detail }
    }

    /// Takes in what was read.
    pub(super) fn update(&mut self, snapshot: Snapshot) {
        self.away = None;
        self.snapshot = Some(snapshot);
        let rows = self.rows();
        let known = self.chosen.as_ref().is_some_and(|key| rows.iter().any(|row| row.job.job_key == *key));
        // The job of the detail page may have left the list; it stays in view.
        if !known && self.page != Page::Detail {
            self.chosen = rows.first().map(|row| row.job.job_key.clone());
        }
        self.sweep_place = self.sweep_place.min(self.sweeps().len().saturating_sub(1));
    }

    /// The sweep that is shown, once it was read.
    pub(super) fn view(&self) -> Option<&View> {
        self.snapshot.as_ref()?.view.as_ref().filter(|view| Some(&view.sweep) == self.sweep.as_ref())
    }

    /// Jobs in the list.
    pub(super) fn rows(&self) -> &[Row] {
        self.view().map_or(&[], |view| &view.jobs)
    }

    /// Sweeps in the list.
    pub(super) fn sweeps(&self) -> &[SweepSummary] {
        self.snapshot.as_ref().map_or(&[], |snapshot| &snapshot.sweeps)
    }

    /// The details of the chosen job, once they were read.
    pub(super) fn detail(&self) -> Option<&Detail> {
        let detail = self.snapshot.as_ref()?.detail.as_ref()?;
        Some(detail).filter(|detail| Some(&detail.row.job.job_key) == self.chosen.as_ref())
    }

    /// Place of the chosen job in the list.
    pub(super) fn place(&self) -> Option<usize> {
        self.rows().iter().position(|row| Some(&row.job.job_key) == self.chosen.as_ref())
    }

    /// Does what a key asks for.
    pub(super) fn press(&mut self, key: Key) -> Action {
        match (self.page, key) {
            (_, Key::Char('q') | Key::Ctrl('c')) => return Action::Quit,
            (_, Key::Ctrl('z')) => return Action::Suspend,
            (Page::Help, _) => self.page = if self.sweep.is_some() { Page::Jobs } else { Page::Sweeps },
            (_, Key::Char('?')) => self.page = Page::Help,
            (Page::Detail | Page::Jobs, Key::Char('s')) => {
                self.page = Page::Sweeps;
                let shown = |sweep: &SweepSummary| Some(&sweep.name) == self.sweep.as_ref();
                self.sweep_place = self.sweeps().iter().position(shown).unwrap_or(0);
            }
            (Page::Detail, Key::Esc | Key::Char('\n') | Key::Backspace) => self.page = Page::Jobs,
            (Page::Sweeps, Key::Esc | Key::Backspace) if self.sweep.is_some() => self.page = Page::Jobs,
            (Page::Jobs, Key::Char('\n')) if self.place().is_some() => self.page = Page::Detail,
            (Page::Sweeps, Key::Char('\n')) => {
                if let Some(sweep) = self.sweeps().get(self.sweep_place) {
                    self.sweep = Some(sweep.name.clone());
                    self.chosen = None;
                    self.page = Page::Jobs;
                }
            }
            (_, key) => self.go(key),
        }
        Action::Draw
    }

    /// Moves in the list of the page; in the details, to the next job.
    fn go(&mut self, key: Key) {
        let (count, place) = match self.page {
            Page::Sweeps => (self.sweeps().len(), self.sweep_place),
            _ => (self.rows().len(), self.place().unwrap_or(0)),
        };
        let last = count.saturating_sub(1);
        let place = match key {
            Key::Down | Key::Char('j') => place + 1,
            Key::Up | Key::Char('k') => place.saturating_sub(1),
            Key::PageDown => place + PAGE,
            Key::PageUp => place.saturating_sub(PAGE),
            Key::Home | Key::Char('g') => 0,
            Key::End | Key::Char('G') => last,
            _ => return,
        };
        let place = place.min(last);
        if self.page == Page::Sweeps {
            self.sweep_place = place;
        } else if let Some(row) = self.rows().get(place) {
            self.chosen = Some(row.job.job_key.clone());
        }
    }
}

impl View {
    /// Jobs of the list that a worker has.
    pub(super) fn running(&self) -> impl Iterator<Item = &JobProgress> {
        self.jobs.iter().map(|row| &row.job).filter(|job| job.state == "running")
    }

    /// Samples a second of all that run.
    pub(super) fn samples_per_sec(&self) -> f64 {
        self.running().filter_map(|job| job.samples_per_sec).sum()
    }

    /// Seconds until all is done at the speed of what runs now; `None`: nothing does.
    pub(super) fn secs_left(&self) -> Option<f64> {
        let left = self.totals.gmacs - self.totals.gmacs_reached(self.running());
        let speed: f64 =
            self.running().filter_map(|job| Some(job.samples_per_sec? * job.gmacs / job.own_samples() as f64)).sum();
        (speed > 0.0 && left > 0.0).then(|| left / speed)
    }

    /// What somebody should look at, the worst first; empty: all is well.
    pub(super) fn troubles(&self) -> Vec<String> {
        let mut troubles = Vec::new();
        let counts = &self.totals.counts;
        let open = counts.pending + counts.running;
        match self.activity.launcher_secs {
            Some(secs) if secs > LAUNCHER_SECS && open > 0 => {
                troubles.push(format!("no launcher for {}", super::super::progress::time(secs)));
            }
            None if open > 0 => troubles.push("no launcher".to_owned()),
            _ => {}
        }
        let silent = self.running().filter(|job| job.silent_secs.is_some_and(|secs| secs >= QUIET_SECS)).count();
        if silent > 0 {
            troubles.push(format!("{silent} silent"));
        }
        if counts.failed > 0 {
            troubles.push(format!("{} failed", counts.failed));
        }
        let spiked = self.running().filter(|job| job.spikes.is_some_and(|spikes| spikes > 0)).count();
        if spiked > 0 {
            troubles.push(format!("{spiked} with loss spikes"));
        }
        troubles
    }
}
