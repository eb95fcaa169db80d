//! What the page's script shows of a job: words ready to be shown, as JSON inside the page.

use serde_json::{Value, json};

use super::Report;
use super::sections::{DASH, short, value, whole};
use crate::number::scientific;

/// For a `<script type="application/json">`: nothing in it ends the element.
pub(super) fn json(report: &Report) -> String {
    let count = whole;
    let jobs: Vec<Value> = report
        .study
        .jobs
        .iter()
        .map(|job| {
            json!([
                short(&job.job_key),
                job.model,
                count(job.parameters),
                count(job.samples_seen),
                count(job.unique_samples),
                job.seed.to_string(),
                report.compute_of(job).map_or(DASH.to_owned(), scientific),
                job.state,
                job.attempts.to_string(),
                job.folder,
            ])
        })
        .collect();
    let metrics: Vec<Value> = report
        .panels()
        .map(|panel| {
            let mut values = vec![Value::Null; report.study.jobs.len()];
            for (place, measured) in report.study.measured(&panel.dataset, &panel.metric) {
                values[place] = Value::String(value(panel.response(), measured));
            }
            json!([panel.name(), values])
        })
        .collect();
    let fields = ["job", "model", "N", "D", "U", "seed", "C", "state", "attempts", "log"];
    json!({ "fields": fields, "jobs": jobs, "metrics": metrics }).to_string().replace('<', "\\u003c")
}
