//! What is seen first: the question, the answer, the headline's figure, state and cost.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::answer::{answer, headline, link};
use super::{Drawn, Report};
use crate::number::{compact, duration, scientific, significant};
use crate::study::StudyJob;
use crate::text::escape;

pub(super) fn opening(report: &Report, drawn: &Drawn) -> String {
    let study = &report.study;
    let question = if study.question.trim().is_empty() {
        String::new()
    } else {
        format!("<p class=\"lead\">{}</p>\n", escape(&study.question))
    };
    let figure = drawn.headline.as_ref().zip(headline(report)).map_or(String::new(), |(picture, place)| {
        let panel = &report.metrics[place].panel;
        format!(
            "<figure class=\"headline\" data-m=\"{place}\">{}<figcaption>{}: error against compute, both axes logarithmic; one \
             mark a job, bars of one standard error over the test items. Line and band: the law and its 95 % interval, \
             dashed beyond the data.</figcaption></figure>\n",
            picture.in_page(),
            link(place, panel)
        )
    });
    format!(
        "<header>\n<h1>{}</h1>\n{question}<div class=\"answer\">\n<div>\n{}{}</div>\n{figure}</div>\n{}</header>\n",
        escape(&study.name),
        answer(report),
        facts(report),
        legend(drawn)
    )
}

/// State and cost.
fn facts(report: &Report) -> String {
    let jobs = &report.study.jobs;
    let mut states: BTreeMap<&str, usize> = BTreeMap::new();
    for job in jobs {
        *states.entry(&job.state).or_default() += 1;
    }
    let done = states.remove("done").unwrap_or(0);
    let others: String = states.iter().fold(String::new(), |mut text, (state, count)| {
        let _ = write!(text, ", {count} {}", escape(state));
        text
    });
    let sum = |value: &dyn Fn(&StudyJob) -> Option<f64>| jobs.iter().filter_map(value).reduce(|sum, value| sum + value);
    let mut facts = vec![("state", format!("{done} of {} jobs done{others}", jobs.len()))];
    let own = |job: &StudyJob| {
        let whole = report.compute_of(job).filter(|_| job.state == "done")?;
        Some(whole * job.samples_seen.map_or(1.0, |seen| 1.0 - job.parent_samples as f64 / seen.max(1) as f64))
    };
    if let Some(compute) = sum(&own) {
        facts.push(("compute", format!("{} {}", scientific(compute), escape(report.compute.unit()))));
    }
    if let Some(secs) = sum(&|job| job.train_secs).filter(|secs| *secs > 0.0) {
        facts.push(("training", duration(secs)));
    }
    if let Some(hours) = sum(&|job| job.gpu_hours) {
        facts.push(("GPU hours", compact(hours)));
    }
    if let Some(joules) = sum(&|job| job.gpu_joules.or(job.cpu_joules)) {
        facts.push(("energy", format!("{} kJ", significant(joules / 1e3, 3))));
    }
    facts.push(("read", report.study.read_at.format("%Y-%m-%d %H:%M:%S UTC").to_string()));
    let facts: String = facts.iter().fold(String::new(), |mut html, (name, value)| {
        let _ = write!(html, "<div><dt>{name}</dt><dd>{value}</dd></div>");
        html
    });
    format!("<dl class=\"facts\">{facts}</dl>\n")
}

/// What colours, shapes and sizes stand for, in every figure of jobs.
fn legend(drawn: &Drawn) -> String {
    let rows: String = drawn.legend.iter().fold(String::new(), |mut html, row| {
        let entries: String = row.entries.iter().fold(String::new(), |mut html, (picture, words)| {
            let _ = write!(html, "<li>{}{}</li>", picture.in_page().trim_end(), escape(words));
            html
        });
        let _ = writeln!(html, "<div><span>{}</span><ul>{entries}</ul></div>", escape(row.title));
        html
    });
    if rows.is_empty() { String::new() } else { format!("<div class=\"legend\">\n{rows}</div>\n") }
}
