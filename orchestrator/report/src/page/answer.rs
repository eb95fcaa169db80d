//! The answer in a few sentences: which metrics scale, how sure, what ten times the compute would give, what to run
//! next. Every word of it is made from verdicts and intervals.

use std::fmt::Write as _;

use fit::{Fit, Interval, JOBS_MIN, Response, Verdict};

use super::Report;
use crate::analysis::next::next;
use crate::analysis::subject::BEYOND;
use crate::number::{shown_interval, significant};
use crate::study::Panel;
use crate::text::escape;

/// Names that a sentence lists before it counts the rest.
const NAMED: usize = 3;

/// Place of the metric that the page opens with: the one asked for, else the one whose law is known best. That is, of
/// the laws that scale those of most jobs, and of these the one whose exponent is farthest from zero by the width of
/// its interval.
pub(super) fn headline(report: &Report) -> Option<usize> {
    let panels: Vec<&Panel> = report.panels().collect();
    let asked = report.headline.as_deref().and_then(|name| panels.iter().position(|panel| panel.name() == name));
    let known_best = || {
        let evidence: Vec<_> = panels.iter().map(|panel| evidence(panel)).collect();
        let compare = |a: &usize, b: &usize| {
            let (a, b) = (&evidence[*a], &evidence[*b]);
            a.0.cmp(&b.0).then(a.1.total_cmp(&b.1))
        };
        // In reverse: the first of equals.
        (0..panels.len()).rev().max_by(compare)
    };
    asked.or_else(known_best)
}

/// Whether it scales, whether its verdict can be trusted, jobs; and how many widths of its interval α is from zero.
fn evidence(panel: &Panel) -> ((bool, bool, usize), f64) {
    let Some(fit) = law(panel) else {
        return ((false, false, 0), 0.0);
    };
    let alpha = fit.interval("alpha");
    let widths = -alpha.value / (alpha.high - alpha.low);
    let widths = if widths.is_finite() { widths } else { 0.0 };
    ((fit.verdict == Verdict::Scaling, fit.verdict.is_trustworthy(), fit.jobs), widths)
}

/// The law that is drawn first.
pub(super) fn law(panel: &Panel) -> Option<&Fit> {
    panel.main().and_then(|main| main.fit.as_ref().ok())
}

/// Paragraphs of HTML.
pub(super) fn answer(report: &Report) -> String {
    let Some(place) = headline(report) else {
        return "<p>No job is done yet, so there is nothing to fit. What there is so far follows.</p>\n".to_owned();
    };
    let panel = &report.metrics[place].panel;
    let sentences = [scaling(report), of_headline(report, place), what_next(report, panel)];
    format!("<p>{}</p>\n", sentences.join("</p>\n<p>"))
}

/// Which metrics scale, and how sure.
fn scaling(report: &Report) -> String {
    let of = |wanted: fn(Option<Verdict>) -> bool| -> Vec<usize> {
        let verdict = |panel: &Panel| law(panel).map(|fit| fit.verdict);
        report.panels().enumerate().filter(|(_, panel)| wanted(verdict(panel))).map(|(place, _)| place).collect()
    };
    let scale = of(|verdict| verdict == Some(Verdict::Scaling));
    let flat = of(|verdict| verdict == Some(Verdict::NoScaling));
    let grow = of(|verdict| verdict == Some(Verdict::WrongWay));
    let open = of(|verdict| !matches!(verdict, Some(Verdict::Scaling | Verdict::NoScaling | Verdict::WrongWay)));
    let all = report.metrics.len();
    let mut text = match (scale.len(), all) {
        (0, 1) => "<b>The metric is not shown to scale with compute.</b>".to_owned(),
        (1, 1) => {
            "<b>The metric scales with compute</b>: the 95 % interval of its exponent lies below zero.".to_owned()
        }
        (0, _) => format!("<b>None of the {all} metrics is shown to scale with compute.</b>"),
        (count, _) => format!(
            "<b>{count} of {all} metrics scale with compute</b>: the 95 % {} below zero.",
            if count == 1 { "interval of its exponent lies" } else { "intervals of their exponents lie" }
        ),
    };
    for (places, one, many) in [
        (flat, "shows no scaling: its interval covers zero", "show no scaling: their intervals cover zero"),
        (grow, "grows with compute", "grow with compute"),
        (open, "can't be judged", "can't be judged"),
    ] {
        if !places.is_empty() {
            let what = if places.len() == 1 { one } else { many };
            let _ = write!(text, " {} {what}.", named(report, &places));
        }
    }
    text
}

/// `a, b and 3 more`, linked.
fn named(report: &Report, places: &[usize]) -> String {
    let link = |place: &usize| link(*place, &report.metrics[*place].panel);
    let rest = places.len().saturating_sub(NAMED);
    let mut names: Vec<String> = places.iter().take(NAMED).map(link).collect();
    if rest > 0 {
        names.push(format!("{rest} more"));
    }
    let last = names.pop().unwrap_or_default();
    if names.is_empty() { last } else { format!("{} and {last}", names.join(", ")) }
}

pub(super) fn link(place: usize, panel: &Panel) -> String {
    format!("<a href=\"#m{place}\">{}</a>", escape(&panel.name()))
}

/// What ten times the compute would give.
fn of_headline(report: &Report, place: usize) -> String {
    let panel = &report.metrics[place].panel;
    let name = link(place, panel);
    let Some(fit) = law(panel) else {
        let why = match panel.main().map(|main| &main.fit) {
            Some(Err(error)) => format!(": {}", escape(&error.to_string())),
            _ => String::new(),
        };
        return format!("There is no law of {name}{why}.");
    };
    if fit.verdict != Verdict::Scaling {
        return format!("{name}: {}", escape(&meaning(fit)));
    }
    let alpha = shown_interval(&fit.interval("alpha"));
    let most = fit.observations.iter().map(|row| row.compute).fold(f64::NAN, f64::max);
    let by = if report.headline.is_none() && report.metrics.len() > 1 { ", known best," } else { "" };
    let law = format!("The error of {name}{by} follows C<sup>α</sup> with α = {alpha} over {} jobs", fit.jobs);
    let Some(last) = fit.band.last() else {
        return format!("{law}.");
    };
    let response = panel.response();
    format!(
        "{law}: ten times the compute of the largest run would bring it from {} to {}.",
        error(response, fit.at_compute(most)),
        error_interval(response, &last.error)
    )
}

fn error(response: Response, value: f64) -> String {
    match response {
        Response::Fraction => format!("{} %", significant(100.0 * value, 3)),
        Response::Loss => format!("{} nats", significant(value, 3)),
    }
}

/// Of an error, in % or nats.
pub(super) fn error_interval(response: Response, interval: &Interval) -> String {
    match response {
        Response::Fraction => format!("{} %", shown_interval(&interval.map(|value| 100.0 * value))),
        Response::Loss => format!("{} nats", shown_interval(interval)),
    }
}

/// What to run next.
fn what_next(report: &Report, panel: &Panel) -> String {
    let metric = escape(&panel.name());
    let Some(fit) = law(panel).filter(|fit| fit.verdict.is_trustworthy()) else {
        return match law(panel) {
            Some(fit) if fit.jobs < JOBS_MIN => format!(
                "Next: let {} more jobs finish; of fewer than {JOBS_MIN} an interval means little.",
                JOBS_MIN - fit.jobs
            ),
            Some(fit) if fit.verdict == Verdict::AtChance => {
                "Next: larger models on more samples; below chance nothing can be told of the law.".to_owned()
            }
            _ => "Next: let more jobs finish.".to_owned(),
        };
    };
    let more = format!("<code>sweep advise {} --metric {metric}</code> plans more", escape(&report.study.name));
    match next(&report.study, report.compute, fit) {
        Some(next) => format!(
            "Next: {} {}. Of the jobs up to the price of the largest it narrows that forecast most for its compute, by {} % of \
             its variance; {more}.",
            if next.is_replicate { "another seed of" } else { "" },
            escape(&next.job),
            significant(100.0 * next.gain, 2)
        )
        .replace("Next:  ", "Next: "),
        None => format!(
            "Next: a run beyond the largest. No job up to its price would narrow a forecast at {BEYOND} times its compute \
             noticeably; {more}."
        ),
    }
}

/// A fit in one sentence.
pub(super) fn meaning(fit: &Fit) -> String {
    // What ten times the compute takes off the error, in percent.
    let cut = |alpha: f64| 100.0 * (1.0 - 10f64.powf(alpha));
    match fit.verdict {
        Verdict::Scaling => format!(
            "Scaling: ten times the compute takes {} % [{}, {}] off the error.",
            significant(cut(fit.interval("alpha").value), 2),
            significant(cut(fit.interval("alpha").high), 2),
            significant(cut(fit.interval("alpha").low), 2)
        ),
        Verdict::NoScaling => {
            let alpha = fit.interval("alpha");
            let why = if alpha.low <= 0.0 && 0.0 <= alpha.high {
                "the interval of α covers zero"
            } else {
                "what α makes of the error is rounding"
            };
            format!("No scaling: {why}.")
        }
        Verdict::WrongWay => "The error grows with compute.".to_owned(),
        Verdict::TooFewJobs => format!("Not to be trusted: fewer than {JOBS_MIN} jobs."),
        Verdict::AtChance => "Not to be trusted: no job is told apart from guessing.".to_owned(),
        Verdict::UnstableInterval => "Not to be trusted: too many resamples could not be fitted.".to_owned(),
        Verdict::NotConverged => "Not to be trusted: the minimiser stopped short.".to_owned(),
        Verdict::Fitted => "A minimum, and no other as deep.".to_owned(),
        Verdict::Bound => "The best is at a limit of the law.".to_owned(),
        Verdict::Flat => "Parameters are not told apart by the data; predictions among the data stand.".to_owned(),
        Verdict::TimeLimit => "Not to be trusted: the time limit cut the fit short.".to_owned(),
        Verdict::MultiModal => "Not to be trusted: different parameters do as well.".to_owned(),
    }
}
