//! What a ladder of learning rates has shown: which one is chosen for a model, with its noise, and what is left open.

use super::tune::{Group, Rung};

/// A measurement at the end of a job.
#[derive(Debug, Clone, PartialEq)]
pub struct RungResult {
    /// The job.
    pub job_key: String,
    /// By the metric of the ladder.
    pub value: f64,
    /// Over test items, where the runner says it.
    pub standard_error: Option<f64>,
}

/// Rungs below which nothing is chosen.
const RUNGS_MIN: usize = 2;

/// A rung that was chosen.
#[derive(Debug, Clone, PartialEq)]
pub struct Chosen {
    /// Of the recipe's learning rate.
    pub factor: f64,
    /// The learning rate at the ladder's budget.
    pub lr: f64,
    /// Mean over its seeds.
    pub value: f64,
    /// Standard error of that mean, and what it is made of.
    pub noise: Option<(f64, NoiseOf)>,
    /// Rungs within noise of the best one, itself among them.
    pub tied: usize,
    /// Where nothing says that the best does not lie further on.
    pub open: Option<Open>,
}

/// Where a standard error comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoiseOf {
    /// Jobs that differ in their seed alone, pooled over rungs.
    Seeds,
    /// Items of the test set, as the runner says: the same for all rungs, so that their differences are known better.
    Items,
}

impl NoiseOf {
    /// As it is stored.
    pub fn as_str(self) -> &'static str {
        match self {
            NoiseOf::Seeds => "seeds",
            NoiseOf::Items => "items",
        }
    }
}

/// Why the best may lie beyond the rung that was chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Open {
    /// It is the lowest of the ladder.
    Lowest,
    /// It is the highest.
    Highest,
    /// The next lower one has not finished.
    LowerFailed,
    /// The next higher one has not finished.
    HigherFailed,
}

impl Open {
    /// As it is stored.
    pub fn as_str(self) -> &'static str {
        match self {
            Open::Lowest => "lowest",
            Open::Highest => "highest",
            Open::LowerFailed => "lower failed",
            Open::HigherFailed => "higher failed",
        }
    }
}

/// Why nothing is chosen.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{finished} of {rungs} rungs have finished and were measured, {RUNGS_MIN} are needed")]
pub struct Unchosen {
    /// Of which all seeds have a measurement.
    pub finished: usize,
    /// All of them.
    pub rungs: usize,
}

/// A rung that has finished.
struct Finished<'a> {
    index: usize,
    rung: &'a Rung,
    values: Vec<f64>,
    mean: f64,
    items: Option<f64>,
}

/// Chooses among the rungs of which all jobs have a measurement: the best mean. With several seeds those within one
/// standard error of the difference are tied with it, and of these the one nearest to the recipe's own learning rate
/// is taken, the lower of two: noise is no reason to leave the recipe.
pub fn choose(group: &Group, results: &[RungResult], lower_is_better: bool) -> Result<Chosen, Unchosen> {
    let finished: Vec<Finished> =
        group.rungs.iter().enumerate().filter_map(|(index, rung)| finished(index, rung, results)).collect();
    let unchosen = Unchosen { finished: finished.len(), rungs: group.rungs.len() };
    let better = |a: f64, b: f64| if lower_is_better { a.total_cmp(&b) } else { b.total_cmp(&a) };
    let best = finished.iter().min_by(|a, b| better(a.mean, b.mean)).filter(|_| finished.len() >= RUNGS_MIN);
    let best = best.ok_or(unchosen)?;
    let sigma = pooled(&finished);
    let error_of = |of: &Finished| sigma.map(|sigma| sigma / (of.values.len() as f64).sqrt());
    let is_tied = |other: &&Finished| {
        let within = error_of(best).zip(error_of(other)).map_or(0.0, |(a, b)| a.hypot(b));
        (other.mean - best.mean).abs() <= within
    };
    let tied: Vec<&Finished> = finished.iter().filter(is_tied).collect();
    let distance = |of: &Finished| of.rung.factor.ln().abs();
    // The first of equals: rungs ascend.
    let chosen = tied.iter().min_by(|a, b| distance(a).total_cmp(&distance(b))).unwrap_or(&best);
    let noise = error_of(chosen).map(|error| (error, NoiseOf::Seeds));
    Ok(Chosen {
        factor: chosen.rung.factor,
        lr: chosen.rung.lr,
        value: chosen.mean,
        noise: noise.or_else(|| chosen.items.map(|error| (error, NoiseOf::Items))),
        tied: tied.len(),
        open: open(group, &finished, chosen.index),
    })
}

fn finished<'a>(index: usize, rung: &'a Rung, results: &[RungResult]) -> Option<Finished<'a>> {
    let of_job = |key: &String| results.iter().find(|result| result.job_key == *key);
    let found = rung.job_keys.iter().map(of_job).collect::<Option<Vec<_>>>()?;
    let values: Vec<f64> = found.iter().map(|result| result.value).collect();
    let count = values.len() as f64;
    let mean = values.iter().sum::<f64>() / count;
    // One test set: its items are the same for all seeds, so that seeds do not average them away.
    let items = found.iter().map(|result| result.standard_error).sum::<Option<f64>>().map(|sum| sum / count);
    Some(Finished { index, rung, values, mean, items })
}

/// Standard deviation of one job over seeds, pooled over rungs: a rung has too few to know its own.
fn pooled(finished: &[Finished]) -> Option<f64> {
    let degrees: usize = finished.iter().map(|of| of.values.len() - 1).sum();
    let squares: f64 = finished.iter().flat_map(|of| of.values.iter().map(|value| (value - of.mean).powi(2))).sum();
    (degrees > 0).then(|| (squares / degrees as f64).sqrt())
}

fn open(group: &Group, finished: &[Finished], chosen: usize) -> Option<Open> {
    let has_finished = |index: usize| finished.iter().any(|of| of.index == index);
    if chosen == 0 {
        Some(Open::Lowest)
    } else if chosen + 1 == group.rungs.len() {
        Some(Open::Highest)
    } else if !has_finished(chosen + 1) {
        Some(Open::HigherFailed)
    } else if !has_finished(chosen - 1) {
        Some(Open::LowerFailed)
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A ladder of these factors around 1e-3, its jobs called `FACTOR/SEED`.
    fn group(factors: &[f64], seeds: usize) -> Group {
        let rung = |&factor: &f64| Rung {
            factor,
            lr: factor * 1e-3,
            job_keys: (0..seeds).map(|seed| format!("{factor}/{seed}")).collect(),
        };
        Group {
            model: "m".to_owned(),
            data_size: 1,
            samples_seen: 1,
            key: String::new(),
            rungs: factors.iter().map(rung).collect(),
            factor: None,
        }
    }

    fn results(rows: &[(f64, &[f64])]) -> Vec<RungResult> {
        let of = |(factor, values): &(f64, &[f64])| {
            let factor = *factor;
            let result = move |(seed, value): (usize, &f64)| RungResult {
                job_key: format!("{factor}/{seed}"),
                value: *value,
                standard_error: Some(0.5),
            };
            values.iter().enumerate().map(result).collect::<Vec<_>>()
        };
        rows.iter().flat_map(of).collect()
    }

    fn is(found: f64, wanted: f64) -> bool {
        (found - wanted).abs() < 1e-12
    }

    #[test]
    fn one_seed_takes_the_best_and_says_the_noise_of_the_test() {
        let ladder = group(&[0.5, 1.0, 2.0], 1);
        let measured = results(&[(0.5, &[3.1]), (1.0, &[3.0]), (2.0, &[3.2])]);
        let chosen = choose(&ladder, &measured, true).expect("a choice");
        assert!(is(chosen.factor, 1.0) && is(chosen.lr, 1e-3) && is(chosen.value, 3.0));
        assert_eq!((chosen.noise, chosen.tied, chosen.open), (Some((0.5, NoiseOf::Items)), 1, None));
        let accuracy = choose(&ladder, &measured, false).expect("a choice");
        assert!(is(accuracy.factor, 2.0));
        assert_eq!(accuracy.open, Some(Open::Highest));
    }

    #[test]
    fn what_seeds_cannot_tell_apart_stays_by_the_recipe() {
        let ladder = group(&[0.5, 1.0, 2.0, 4.0], 2);
        // Standard deviation of a job: sqrt(4 x 0.02 / 4) = 0.1414; of a mean of two 0.1, of a difference 0.1414.
        let measured = |of_one: f64| {
            let pair = |mean: f64| [mean - 0.1, mean + 0.1];
            results(&[(0.5, &pair(3.5)), (1.0, &pair(of_one)), (2.0, &pair(3.0)), (4.0, &pair(3.05))])
        };
        let near = choose(&ladder, &measured(3.13), true).expect("a choice");
        assert!(is(near.factor, 1.0) && is(near.value, 3.13), "{near:?}");
        assert_eq!((near.tied, near.open), (3, None));
        let (noise, of) = near.noise.expect("it is known");
        assert!(is(noise, 0.1) && of == NoiseOf::Seeds, "{noise}");
        let far = choose(&ladder, &measured(3.15), true).expect("a choice");
        assert!(is(far.factor, 2.0), "{far:?}");
        assert_eq!(far.tied, 2);
    }

    #[test]
    fn rungs_that_failed_leave_the_choice_open_or_impossible() {
        let ladder = group(&[0.5, 1.0, 2.0, 4.0], 1);
        let of = |rows: &[(f64, &[f64])]| choose(&ladder, &results(rows), true);
        let chosen = of(&[(0.5, &[3.1]), (1.0, &[3.2]), (2.0, &[3.0])]).expect("a choice");
        assert_eq!(chosen.open, Some(Open::HigherFailed));
        let chosen = of(&[(1.0, &[3.0]), (2.0, &[3.1])]).expect("a choice");
        assert_eq!(chosen.open, Some(Open::LowerFailed));
        assert_eq!(of(&[(0.5, &[3.0]), (4.0, &[3.1])]).expect("a choice").open, Some(Open::Lowest));
        assert_eq!(of(&[(1.0, &[3.0])]), Err(Unchosen { finished: 1, rungs: 4 }));
        // A rung of which a seed is missing does not count.
        let two = group(&[0.5, 1.0, 2.0], 2);
        let chosen = choose(&two, &results(&[(0.5, &[3.0, 3.0]), (1.0, &[3.1, 3.1]), (2.0, &[1.0])]), true);
        assert!(is(chosen.expect("a choice").factor, 0.5));
    }
}
