//! Which job to run next, for a page's answer: `sweep advise` on the models and samples seen of the study itself.

use fit::advise::{Advice, AdviseOptions, Candidate, advise};
use fit::{Axis, Convention, Fit, Input};

use super::subject::BEYOND;
use crate::number::compact;
use crate::study::{Study, StudyJob};

/// A job and what it is expected to do.
#[derive(Debug, Clone, PartialEq)]
pub struct Next {
    /// `ViT-L-14 on 12.8B samples`
    pub job: String,
    /// Whether the study has a job of this cell already.
    pub is_replicate: bool,
    /// Share of the forecast's variance that it takes away.
    pub gain: f64,
}

/// The first of the advised jobs at the price of the largest run or less; `None` where the law tells nothing of it, or
/// where no such job narrows the forecast noticeably.
pub fn next(study: &Study, compute: Convention, law: &Fit) -> Option<Next> {
    let cells = cells(study, compute);
    let most = cells.iter().map(|(_, c)| *c).fold(f64::NAN, f64::max);
    let candidates: Vec<Candidate> =
        cells.iter().map(|(name, c)| Candidate { name: name.clone(), at: Input::on(Axis::C, *c), cost: *c }).collect();
    let options = AdviseOptions { picks_max: 1, ..AdviseOptions::new(most) };
    let target = Input::on(Axis::C, most * BEYOND);
    let Advice { picks, .. } = advise(&[law], &[target], &candidates, &options).ok()?;
    let pick = picks.into_iter().next()?;
    Some(Next { job: pick.name, is_replicate: pick.replicate_of > 0, gain: pick.gain })
}

/// Every model on every number of samples that some job has seen, with C.
fn cells(study: &Study, compute: Convention) -> Vec<(String, f64)> {
    let cells = || study.jobs.iter().filter(|job| !job.is_trunk);
    let mut models: Vec<(&str, f64)> =
        cells().filter_map(|job| Some((job.model.as_str(), per_sample(job, compute)?))).collect();
    models.sort_by(|a, b| a.0.cmp(b.0).then(a.1.total_cmp(&b.1)));
    models.dedup_by(|a, b| a.0 == b.0);
    let mut samples: Vec<i64> = cells().filter_map(|job| job.samples_seen).collect();
    samples.sort_unstable();
    samples.dedup();
    let cell = |(model, price): &(&str, f64), seen: i64| {
        (format!("{model} on {} samples", compact(seen as f64)), price * seen as f64)
    };
    models.iter().flat_map(|model| samples.iter().map(move |seen| cell(model, *seen))).collect()
}

fn per_sample(job: &StudyJob, compute: Convention) -> Option<f64> {
    let price = job.compute_in(compute)? / job.samples_seen? as f64;
    (price.is_finite() && price > 0.0).then_some(price)
}
