//! A run that lies in two folders: a copy, or its state at an earlier time.

use std::collections::HashMap;

use crate::store::import::{ImportedEvaluation, ImportedJob};

/// Keeps of folders that hold one run the one that has come furthest. Where they contradict each other none is kept.
pub(super) fn once(jobs: Vec<ImportedJob>, warnings: &mut Vec<String>, failed: &mut Vec<String>) -> Vec<ImportedJob> {
    let mut order: Vec<String> = Vec::new();
    let mut by_run: HashMap<String, Vec<ImportedJob>> = HashMap::new();
    for job in jobs {
        let run = job.identity.to_string();
        let of = by_run.entry(run.clone()).or_default();
        if of.is_empty() {
            order.push(run);
        }
        of.push(job);
    }
    let of_run = |run: &String| by_run.remove(run).and_then(|of| one(of, warnings, failed));
    order.iter().filter_map(of_run).collect()
}

fn one(mut of: Vec<ImportedJob>, warnings: &mut Vec<String>, failed: &mut Vec<String>) -> Option<ImportedJob> {
    let furthest = |job: &ImportedJob| job.samples_seen.unwrap_or(0.0);
    // The first of those that have come equally far.
    of.sort_by(|a, b| furthest(b).total_cmp(&furthest(a)));
    let kept = of.remove(0);
    for other in of {
        match contradiction(&kept, &other) {
            None => warnings.push(format!(
                "{} holds the run of {} too, no further trained; it is left out",
                other.place, kept.place
            )),
            Some(what) => {
                failed.push(format!(
                    "{} and {} hold one run by its name, seed and settings, but differ: {what}; take one away, or give \
                     `name` in its params.txt another value",
                    kept.place, other.place
                ));
                return None;
            }
        }
    }
    Some(kept)
}

/// What a shorter copy says otherwise.
fn contradiction(kept: &ImportedJob, other: &ImportedJob) -> Option<String> {
    let sizes = |job: &ImportedJob| (job.parameters, job.data_size);
    if sizes(kept) != sizes(other) {
        let said = |job: &ImportedJob| format!("{:?} parameters, {:?} samples", job.parameters, job.data_size);
        return Some(format!("{} and {}", said(kept), said(other)));
    }
    let at =
        |job: &ImportedJob, row: &ImportedEvaluation| row.samples_seen.or(job.samples_seen.map(|d| d.round() as i64));
    let values: HashMap<_, f64> =
        kept.evaluations.iter().map(|row| ((&row.dataset, &row.metric, at(kept, row)), row.value)).collect();
    other.evaluations.iter().find_map(|row| {
        let place = at(other, row);
        let value =
            values.get(&(&row.dataset, &row.metric, place)).filter(|value| value.to_bits() != row.value.to_bits())?;
        let place = place.map_or("the end".to_owned(), |samples| format!("{samples} samples seen"));
        Some(format!("{}/{} at {place} is {value} and {}", row.dataset, row.metric, row.value))
    })
}
