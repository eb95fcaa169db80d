//! Where searches begin.

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::Problem;
use crate::law::Scale;

/// At least one start, best guesses first: the law's own, then draws from the parameters' ranges.
pub fn starts(problem: &Problem<'_>, count: usize, seed: u64) -> Vec<Vec<f64>> {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let mut starts = problem.law.starts(&problem.sample.inputs, &problem.sample.ln_y);
    let wanted = count.max(1);
    while starts.len() < wanted {
        let draw = problem.law.parameters().iter().map(|parameter| {
            let at: f64 = random.random();
            let (low, high) = parameter.range;
            match parameter.scale {
                Scale::Linear => low + at * (high - low),
                Scale::Log => low.ln() + at * (high / low).ln(),
            }
        });
        starts.push(draw.collect());
    }
    starts.truncate(wanted);
    for start in &mut starts {
        problem.hold(start);
    }
    starts
}
