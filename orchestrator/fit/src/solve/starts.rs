//! Where searches begin: what the law knows, the best cells of a grid over the shapes by variable projection, and
//! points that fill the parameters' ranges evenly (Halton 1960, shifted at random by Cranley and Patterson 1976).

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::Problem;
use super::frame::Vector;
use super::projection::project;
use crate::law::{Law, PARAMETERS_MAX, Scale, Separable};

/// Cells of the grid over the shapes, about.
const CELLS: usize = 600;
/// Cells closer than this in every shape (of the shapes' ranges) are one start.
const APART: f64 = 0.08;
/// Draws looked at for each start where nothing can be projected.
const DRAWS: usize = 16;

const PRIMES: [u32; PARAMETERS_MAX] = [2, 3, 5, 7, 11, 13, 17, 19, 23, 29];

/// At least one start, best guesses first: the law's own; half of the rest the best cells of the grid, the other half
/// spread evenly. `count` of them.
pub fn starts(problem: &Problem<'_>, count: usize, seed: u64) -> Vec<Vec<f64>> {
    let k = problem.len();
    let wanted = count.max(1);
    let shift = shift(seed);
    let mut starts = problem.law.starts(&problem.sample.inputs, &problem.sample.ln_y);
    starts.retain(|start| start.len() == k && start.iter().all(|value| value.is_finite()));
    starts.truncate(wanted);
    let open = wanted - starts.len();
    match problem.law.separable() {
        Some(separable) => {
            starts.extend(best_cells(problem, separable, &shift, open.div_ceil(2)));
            let open = wanted - starts.len();
            starts.extend(spread_shapes(problem, separable, &shift, open));
        }
        None => starts.extend(best_draws(problem, &shift, open)),
    }
    let mut at = 0;
    while starts.len() < wanted {
        starts.push(draw(problem.law, &shift, at)[..k].to_vec());
        at += 1;
    }
    for start in &mut starts {
        problem.hold(start);
    }
    starts
}

fn shift(seed: u64) -> Vector {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    std::array::from_fn(|_| random.random())
}

/// Coordinate `dimension` of point `at` of the sequence, in 0 to 1.
fn halton(at: usize, dimension: usize, shift: &Vector) -> f64 {
    let base = f64::from(PRIMES[dimension]);
    let (mut left, mut digit, mut sum) = (at as f64 + 1.0, 1.0 / base, 0.0);
    while left >= 1.0 {
        sum += digit * (left % base).floor();
        left = (left / base).floor();
        digit /= base;
    }
    (sum + shift[dimension]).fract()
}

/// Parameter `index` at `share` of its range, internal scale.
fn within(law: &dyn Law, index: usize, share: f64) -> f64 {
    let parameter = &law.parameters()[index];
    let (low, high) = parameter.range;
    match parameter.scale {
        Scale::Linear => low + share * (high - low),
        Scale::Log => low.ln() + share * (high / low).ln(),
    }
}

fn draw(law: &dyn Law, shift: &Vector, at: usize) -> Vector {
    let k = law.parameters().len();
    std::array::from_fn(|i| if i < k { within(law, i, halton(at, i, shift)) } else { 0.0 })
}

/// The cells with the least squares left, none close to a better one.
fn best_cells(problem: &Problem<'_>, separable: &dyn Separable, shift: &Vector, count: usize) -> Vec<Vec<f64>> {
    let shapes: Vec<usize> = separable.shapes().iter().copied().filter(|&i| !problem.is_frozen(i)).collect();
    let side: usize = match shapes.len() {
        0 => 1,
        1 => 64,
        2 => 24,
        _ => 0,
    };
    let cells = if side > 0 { side.pow(shapes.len() as u32) } else { CELLS };
    let mut scored: Vec<(f64, Vector, Vector)> = Vec::with_capacity(cells);
    for cell in 0..cells {
        let mut place: Vector = [0.0; PARAMETERS_MAX];
        let mut theta: Vector = [0.0; PARAMETERS_MAX];
        problem.hold(&mut theta[..problem.len()]);
        for (at, &shape) in shapes.iter().enumerate() {
            place[at] = if side > 0 {
                (((cell / side.pow(at as u32)) % side) as f64 + 0.5) / side as f64
            } else {
                halton(cell, at, shift)
            };
            theta[shape] = within(problem.law, shape, place[at]);
        }
        if let Some(left) = project(problem, separable, &mut theta) {
            scored.push((left, place, theta));
        }
    }
    scored.sort_by(|a, b| a.0.total_cmp(&b.0));
    let mut chosen: Vec<(Vector, Vector)> = Vec::new();
    for (_, place, theta) in scored {
        if chosen.len() == count {
            break;
        }
        let far = |(other, _): &(Vector, Vector)| place.iter().zip(other).any(|(a, b)| (a - b).abs() >= APART);
        if chosen.iter().all(far) {
            chosen.push((place, theta));
        }
    }
    chosen.into_iter().map(|(_, theta)| theta[..problem.len()].to_vec()).collect()
}

/// Shapes spread evenly, with the best coefficients for them.
fn spread_shapes(problem: &Problem<'_>, separable: &dyn Separable, shift: &Vector, count: usize) -> Vec<Vec<f64>> {
    let k = problem.len();
    (CELLS..CELLS + count)
        .filter_map(|at| {
            let mut theta = draw(problem.law, shift, at);
            problem.hold(&mut theta[..k]);
            project(problem, separable, &mut theta)?;
            Some(theta[..k].to_vec())
        })
        .collect()
}

/// Of draws from all ranges, levelled to the data, those with the least objective.
fn best_draws(problem: &Problem<'_>, shift: &Vector, count: usize) -> Vec<Vec<f64>> {
    let k = problem.len();
    let mut scored: Vec<(f64, Vec<f64>)> = (0..DRAWS * count)
        .filter_map(|at| {
            let mut theta = draw(problem.law, shift, at)[..k].to_vec();
            problem.hold(&mut theta);
            let value = problem.value(&theta);
            value.is_finite().then_some((value, theta))
        })
        .collect();
    scored.sort_by(|a, b| a.0.total_cmp(&b.0));
    scored.truncate(count);
    scored.into_iter().map(|(_, theta)| theta).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn halton_points_fill_the_unit_interval_evenly() {
        let none = [0.0; PARAMETERS_MAX];
        let three: Vec<f64> = (0..4).map(|at| halton(at, 0, &none)).collect();
        assert_eq!(three, [0.5, 0.25, 0.75, 0.125]);
        for dimension in 0..PARAMETERS_MAX {
            let low = (0..1000).filter(|&at| halton(at, dimension, &shift(3)) < 0.5).count();
            assert!((480..=520).contains(&low), "dimension {dimension}: {low} of 1000 in the lower half");
        }
    }
}
