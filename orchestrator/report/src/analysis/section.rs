//! The analysis of one metric as part of a report: which figures are drawn, and their words.

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::{Drawing, Family, Kind, Material, Subject, Table, Target, draw};
use crate::number::significant;
use crate::text::file_name;
use fit::choose::default_law;
use fit::law::LawName;
use fit::{Axis, Evaluation, Fit, Observation, Options, Points, Response, fit};

/// Resamples behind what a page shows in passing: intervals of pictures.
const RESAMPLES: usize = 400;
/// Searches for the minimum of a law of several axes.
const STARTS: usize = 24;
/// Differences of ln N and of ln D up to which a run is one of a job that is forecast: recipes round their samples.
const SAME_MODEL: f64 = 0.002;
const SAME_SAMPLES: f64 = 0.1;

/// What was drawn of one metric.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Analysis {
    /// Figures in order.
    pub parts: Vec<Part>,
    /// Forecasts that were asked for.
    pub forecasts: Option<Table>,
    /// How far they lie from what was measured.
    pub missed: Option<String>,
}

/// One figure, or why there is none.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Part {
    /// Which.
    pub kind: Kind,
    /// The figure, or what is missing and the way out.
    pub drawn: Result<Drawing, String>,
}

/// What a page's analysis is made of.
#[derive(Debug, Clone, Copy)]
pub struct Input<'a> {
    /// The metric.
    pub subject: &'a Subject,
    /// Its rows.
    pub observations: &'a [Observation],
    /// How the law of the headline was fitted.
    pub options: &'a Options,
    /// That law.
    pub fit: &'a Fit,
    /// Jobs to forecast; the first is what figures forecast too.
    pub forecasts: &'a [Target],
    /// Another sweep.
    pub against: Option<&'a Family>,
}

impl Input<'_> {
    /// All that the analysis depends on, as text: of equal texts the analyses are equal.
    pub fn identity(&self) -> String {
        let rows = |rows: &[Observation]| serde_json::to_string(rows).expect("observations serialise");
        let names = |subject: &Subject, rows: &[Observation]| {
            let data: Vec<_> = rows.iter().map(|row| (subject.data.get(&row.job_key), subject.place(row))).collect();
            format!("{:?} {:?} {:?} {data:?}", subject.name, subject.error, subject.sweep)
        };
        let law = |fit: &Fit| serde_json::to_string(fit).expect("fits serialise");
        let against = self.against.map(|other| {
            format!("{:?} {} {}", other.name, names(&other.subject, &other.fit.observations), law(&other.fit))
        });
        format!(
            "{} {} {:?} {} {:?} {against:?}",
            names(self.subject, self.observations),
            rows(self.observations),
            self.options,
            law(self.fit),
            self.forecasts
        )
    }
}

/// Draws everything that there are data for, side by side. `progress` hears of each figure before it is drawn.
pub fn analyse(input: Input<'_>, progress: impl Fn(Kind) + Sync) -> Analysis {
    let beyond = Target::beyond(input.observations);
    let Some(target) = input.forecasts.first().or(beyond.as_ref()) else {
        return Analysis { parts: Vec::new(), forecasts: None, missed: None };
    };
    let options = Options { resamples: input.options.resamples.min(RESAMPLES), ..input.options.clone() };
    let of = Material {
        subject: input.subject,
        observations: input.observations,
        held_out: &[],
        options: &options,
        fit: input.fit,
        target,
        against: input.against,
    };
    let mut kinds = vec![Kind::Policies, Kind::Residuals, Kind::Profile, Kind::Pairs, Kind::Backtest, Kind::Models];
    kinds.push(Kind::Budget);
    if input.against.is_some() {
        kinds.insert(0, Kind::Comparison);
    }
    // Few points of many rows leave nothing to hold out: laws are compared on all rows.
    let all = Options { points: Points::All, ..options.clone() };
    let part = |kind: Kind, of: Material<'_>| {
        progress(kind);
        Part { kind, drawn: draw(kind, of).map_err(|error| format!("{error} ({})", error.way_out())) }
    };
    let of_law = || -> Vec<Part> {
        let of = |kind: Kind| if kind == Kind::Models { Material { options: &all, ..of } } else { of };
        kinds.into_par_iter().map(|kind| part(kind, of(kind))).collect()
    };
    // Of a law of compute alone there is no frontier: these are of the law of N and D that the rows can tell.
    let of_surface = || -> Vec<Part> {
        let Some((options, surface)) = surface(input.observations, &options) else { return Vec::new() };
        let of = Material { options: &options, fit: &surface, ..of };
        [Kind::Law, Kind::Frontier, Kind::Isoflop].into_par_iter().map(|kind| part(kind, of)).collect()
    };
    let (mut parts, mut of_surface) = rayon::join(of_law, of_surface);
    parts.append(&mut of_surface);
    Analysis { parts, forecasts: forecasts(input), missed: missed(input) }
}

/// A law of N and D (and U) that can be fitted to the rows.
fn surface(rows: &[Observation], options: &Options) -> Option<(Options, Fit)> {
    let mut laws = vec![default_law(rows), LawName::Chinchilla];
    laws.retain(|law| [Axis::N, Axis::D].iter().all(|axis| law.law(1.0).axes().contains(axis)));
    laws.dedup();
    let all = || rows.iter().filter(|row| row.parameters.is_finite() && row.samples_seen.is_finite());
    let distinct = |axis: Axis| {
        let mut values: Vec<u64> = all().map(|row| row.on(axis).to_bits()).collect();
        values.sort_unstable();
        values.dedup();
        values.len()
    };
    if distinct(Axis::N) < 2 || distinct(Axis::D) < 2 {
        return None;
    }
    let mut fits = laws.into_iter().filter_map(|law| {
        let points = Points::All;
        let options =
            Options { law, points, frozen: Vec::new(), starts: options.starts.min(STARTS), ..options.clone() };
        let fit = fit(rows, &options).ok()?;
        Some((options, fit))
    });
    let first = fits.next()?;
    if first.1.verdict.is_trustworthy() {
        return Some(first);
    }
    Some(fits.find(|(_, fit)| fit.verdict.is_trustworthy()).unwrap_or(first))
}

fn forecasts(input: Input<'_>) -> Option<Table> {
    if input.forecasts.is_empty() {
        return None;
    }
    let rows = input.forecasts.iter().map(|target| {
        let forecast = input.fit.forecast(&target.input, Evaluation::AsObserved);
        let beyond: Vec<String> =
            forecast.extrapolation.iter().filter(|beyond| beyond.ln != 0.0).map(ToString::to_string).collect();
        vec![
            target.name.clone(),
            super::words::interval(&input.subject.shown_interval(forecast.law)),
            super::words::interval(&input.subject.shown_interval(forecast.prediction)),
            measured(input, target).map_or(String::new(), |error| significant(input.subject.shown(error), 4)),
            if beyond.is_empty() { "within the data".to_owned() } else { beyond.join(", ") },
        ]
    });
    let unit = input.subject.shown_unit();
    let head = ["job", &format!("the law, {unit}"), &format!("one new run, {unit}"), "measured", "where"];
    Some(Table { head: head.map(str::to_owned).to_vec(), numbers_from: 1, rows: rows.collect() })
}

/// The least error of runs of that model on as many samples.
fn measured(input: Input<'_>, target: &Target) -> Option<f64> {
    let same = |row: &&Observation| {
        let at = row.input();
        (at.ln_n - target.input.ln_n).abs() < SAME_MODEL && (at.ln_d - target.input.ln_d).abs() < SAME_SAMPLES
    };
    input.observations.iter().filter(same).map(|row| row.error).min_by(f64::total_cmp)
}

/// Mean absolute difference of forecasts and what was measured.
fn missed(input: Input<'_>) -> Option<String> {
    let off = |target: &Target| {
        let forecast = input.fit.forecast(&target.input, Evaluation::AsObserved).law.value;
        Some((input.subject.shown(forecast) - input.subject.shown(measured(input, target)?)).abs())
    };
    // A job that is named twice counts once.
    let mut targets: Vec<&Target> = Vec::new();
    for target in input.forecasts {
        if targets.iter().all(|known| known.input != target.input) {
            targets.push(target);
        }
    }
    let off: Vec<f64> = targets.into_iter().filter_map(off).collect();
    if off.is_empty() {
        return None;
    }
    let unit = match input.subject.response {
        Response::Fraction => "points",
        Response::Loss => "nats",
    };
    Some(format!(
        "{} of these jobs were run (on as many samples, to a tenth; the best of them is shown): the mean absolute difference is \
         {} {unit}. The law was fitted to runs among them, so this is no test of its forecasts.",
        off.len(),
        significant(off.iter().sum::<f64>() / off.len() as f64, 3)
    ))
}

impl Part {
    /// What it is, in a summary line.
    pub fn title(&self) -> &'static str {
        match self.kind {
            Kind::Law => "Best error at each compute, by a law of N and D",
            Kind::Residuals => "Residuals",
            Kind::Profile => "Profiles of the parameters",
            Kind::Pairs => "Resamples of the parameters",
            Kind::Policies => "Choice of points",
            Kind::Isoflop => "IsoFLOP curves",
            Kind::Frontier => "Frontier: best N, D and U for a compute",
            Kind::Backtest => "Back-test of the largest run",
            Kind::Models => "Laws and objectives by held-out error",
            Kind::Budget => "Width of the forecast against the cost of the study",
            Kind::Comparison => "Comparison",
        }
    }

    /// Parts that are read first lie open.
    pub fn is_open(&self) -> bool {
        matches!(self.kind, Kind::Policies | Kind::Comparison)
    }

    /// File of its figure; `subject`: `DATASET-METRIC`.
    pub fn file(&self, subject: &str) -> String {
        file_name(&format!("{}-{subject}.svg", self.kind))
    }
}

impl Analysis {
    /// Names and contents of the figures' files.
    pub fn files(&self, subject: &str) -> Vec<(String, String)> {
        let of = |part: &Part| Some((part.file(subject), part.drawn.as_ref().ok()?.picture.standalone()));
        self.parts.iter().filter_map(of).collect()
    }
}
