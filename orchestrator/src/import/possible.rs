//! Which values can be: one check for every way in, so that no percent is stored as an accuracy.

use std::collections::BTreeMap;

use super::list_of;
use crate::events::Range;
use crate::store::import::{ImportedJob, ImportedStudy};

/// The way out where one is left out.
fn hint(range: Range) -> &'static str {
    match range {
        Range::Loss => "",
        Range::Fraction => " (percent has to be divided by 100, as in `sweep import csv --map 'accuracy=COLUMN/100'`)",
    }
}

/// The largest whole number that the database holds is 2^63 - 1.
const WHOLE_MAX: f64 = 9.2e18;

/// Takes out values and jobs that can't be, and says which.
pub(super) fn keep(studies: &mut [ImportedStudy]) -> Vec<String> {
    let mut left_out: BTreeMap<(Range, String), Vec<String>> = BTreeMap::new();
    let mut warnings = Vec::new();
    for study in studies {
        study.jobs.retain_mut(|job| {
            if let Some((what, value)) = too_large(job) {
                warnings
                    .push(format!("{}: left out: {what} is {value:e}, more than the database holds (2^63)", job.model));
                return false;
            }
            let before = job.evaluations.len();
            let model = &job.model;
            job.evaluations.retain(|row| {
                let range = Range::of(&row.metric);
                let holds = range.holds(row.value);
                if !holds {
                    let place = format!("{model} {}/{} {:?}", row.dataset, row.metric, row.value);
                    left_out.entry((range, row.metric.clone())).or_default().push(place);
                }
                holds
            });
            before == 0 || !job.evaluations.is_empty()
        });
    }
    warnings.extend(
        left_out
            .into_iter()
            .map(|((range, _), places)| format!("left out: {}{}: {}", range.allowed(), hint(range), list_of(places))),
    );
    warnings
}

fn too_large(job: &ImportedJob) -> Option<(&'static str, f64)> {
    let whole = [
        ("N", job.parameters),
        ("D", job.samples_seen),
        ("U", job.unique_samples),
        ("the size of its data", job.data_size),
    ];
    whole.into_iter().find_map(|(what, value)| Some((what, value.filter(|value| value.abs() >= WHOLE_MAX)?)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::import::ImportedEvaluation;

    #[test]
    fn percents_negative_numbers_and_what_the_database_would_clamp_are_left_out() {
        let row = |metric: &str, value| ImportedEvaluation {
            dataset: "d".to_owned(),
            metric: metric.to_owned(),
            samples_seen: None,
            value,
            standard_error: None,
            chance: None,
            count: None,
        };
        let job =
            |model: &str, evaluations| ImportedJob { model: model.to_owned(), evaluations, ..ImportedJob::default() };
        let large = ImportedJob { parameters: Some(1e19), ..job("large", vec![row("acc1", 0.5)]) };
        let good = job("good", vec![row("acc1", 1.0), row("loss", 7.5), row("acc5", 0.0)]);
        let mixed = job("mixed", vec![row("acc1", 63.2), row("acc5", 0.9), row("loss@64", -0.1)]);
        let bad = job("bad", vec![row("acc1", -0.1)]);
        let mut studies = [ImportedStudy {
            name: "s".to_owned(),
            question: String::new(),
            source: "csv",
            jobs: vec![large, good.clone(), mixed, bad],
        }];
        let warnings = keep(&mut studies);
        assert_eq!(studies[0].jobs.len(), 2);
        assert_eq!((&studies[0].jobs[0], studies[0].jobs[1].evaluations.len()), (&good, 1));
        assert_eq!(warnings.len(), 3, "{warnings:?}");
        assert!(warnings[0].contains("large: left out: N is 1e19"), "{warnings:?}");
        assert!(warnings[1].contains("a loss has to be above 0: mixed d/loss@64 -0.1"), "{warnings:?}");
        assert!(warnings[2].contains("divided by 100") && warnings[2].contains("mixed d/acc1 63.2, bad d/acc1 -0.1"));
    }
}
