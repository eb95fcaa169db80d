//! The last steps to least absolute deviations: the minimum interpolates as many rows as there are free parameters (a
//! vertex), and is one if the multipliers of those rows are at most their weights (Barrodale and Roberts 1973).

use super::Ending;
use super::descent::Search;
use super::frame::Vector;
use super::linear_algebra::eliminate;
use crate::law::PARAMETERS_MAX;
use crate::objective::Loss;

/// Rows that are exchanged at most.
const EXCHANGES_MAX: usize = 200;

/// Residuals and their derivatives by the free parameters, scaled.
struct Rows {
    residuals: Vec<f64>,
    slopes: Vec<Vector>,
    weights: Vec<f64>,
    index: Vec<usize>,
}

/// Goes from near the minimum to the vertex beside it, and on from vertex to vertex while that goes down; whether it
/// came to a minimum.
pub(super) fn finish(search: &mut Search<'_>) -> bool {
    let was = search.ending;
    search.loss = Loss::Absolute;
    search.local.value = value(search, &search.phi);
    let free: Vec<usize> = (0..search.frame.k).filter(|&i| search.is_free(i)).collect();
    if !search.local.value.is_finite() || free.is_empty() {
        return false;
    }
    let mut here = rows(search, &search.phi);
    let Some(mut basis) = nearest(&here, free.len(), &free) else { return false };
    let mut last: Option<Vec<usize>> = None;
    // Of the rows that may leave, the one that promises most first; the next where the vertex it leads to is no lower.
    let mut rank = 0;
    for _ in 0..EXCHANGES_MAX {
        let vertex = interpolate(search, &here, &basis, &free);
        let lower = vertex.map(|vertex| (vertex, value(search, &vertex)));
        let accepted = match (lower, &last) {
            (Some((vertex, there)), _) if there <= search.local.value => {
                search.phi = vertex;
                search.local.value = there;
                here = rows(search, &search.phi);
                rank = 0;
                last = Some(basis.clone());
                true
            }
            (_, Some(_)) => {
                rank += 1;
                false
            }
            (_, None) => break,
        };
        let from = if accepted { &basis } else { last.as_ref().unwrap_or(&basis) };
        match exchange(&here, from, &free, rank) {
            Exchange::Minimum => {
                search.ending = Ending::Converged;
                return true;
            }
            Exchange::For(next) => basis = next,
            Exchange::None => break,
        }
    }
    search.ending = was;
    false
}

fn value(search: &Search<'_>, phi: &Vector) -> f64 {
    search.frame.at(phi, Loss::Absolute).value
}

fn rows(search: &Search<'_>, phi: &Vector) -> Rows {
    let theta = search.frame.leave(phi);
    let mut rows = Rows { residuals: Vec::new(), slopes: Vec::new(), weights: Vec::new(), index: Vec::new() };
    for (row, &weight) in search.frame.problem.weights.iter().enumerate() {
        if weight > 0.0 {
            let mut slopes = [0.0; PARAMETERS_MAX];
            rows.residuals.push(search.frame.row(&theta, row, &mut slopes));
            rows.slopes.push(slopes);
            rows.weights.push(weight);
            rows.index.push(row);
        }
    }
    rows
}

/// The `count` rows with the least residuals whose slopes are independent.
fn nearest(rows: &Rows, count: usize, free: &[usize]) -> Option<Vec<usize>> {
    let mut order: Vec<usize> = (0..rows.residuals.len()).collect();
    order.sort_by(|&a, &b| rows.residuals[a].abs().total_cmp(&rows.residuals[b].abs()));
    let mut scale = [0.0f64; PARAMETERS_MAX];
    for &i in free {
        scale[i] = rows.slopes.iter().fold(0.0, |most: f64, slopes| most.max(slopes[i].abs()));
        if scale[i] == 0.0 {
            return None;
        }
    }
    let (mut directions, mut chosen): (Vec<Vector>, Vec<usize>) = (Vec::new(), Vec::new());
    for at in order {
        let mut direction: Vector = [0.0; PARAMETERS_MAX];
        for &i in free {
            direction[i] = rows.slopes[at][i] / scale[i];
        }
        let before = dot(&direction, &direction).sqrt();
        for _ in 0..2 {
            for other in &directions {
                let along = dot(&direction, other);
                for i in 0..PARAMETERS_MAX {
                    direction[i] -= along * other[i];
                }
            }
        }
        let left = dot(&direction, &direction).sqrt();
        if left > 1e-6 * before {
            for d in &mut direction {
                *d /= left;
            }
            directions.push(direction);
            chosen.push(at);
            if chosen.len() == count {
                return Some(chosen);
            }
        }
    }
    None
}

/// Where the residuals of `basis` are zero; `None` where Newton's method does not get there.
fn interpolate(search: &Search<'_>, all: &Rows, basis: &[usize], free: &[usize]) -> Option<Vector> {
    let mut phi = search.phi;
    let count = free.len();
    let mut before = f64::INFINITY;
    for _ in 0..30 {
        let theta = search.frame.leave(&phi);
        let mut matrix = vec![0.0; count * count];
        let mut right = vec![0.0; count];
        let mut worst: f64 = 0.0;
        for (a, &at) in basis.iter().enumerate() {
            let mut slopes = [0.0; PARAMETERS_MAX];
            right[a] = -search.frame.row(&theta, all.index[at], &mut slopes);
            worst = worst.max(right[a].abs());
            for (b, &i) in free.iter().enumerate() {
                matrix[a * count + b] = slopes[i];
            }
        }
        if !worst.is_finite() {
            return None;
        }
        if worst >= before && worst < 1e-12 {
            return Some(phi);
        }
        if worst > 10.0 * before {
            return None;
        }
        before = worst;
        eliminate(&mut matrix, &mut right)?;
        for (&i, step) in free.iter().zip(&right) {
            phi[i] += step;
        }
    }
    (before < 1e-12).then_some(phi)
}

enum Exchange {
    /// No exchange goes down.
    Minimum,
    /// A basis that goes down, to first order.
    For(Vec<usize>),
    /// The slopes are not independent.
    None,
}

fn exchange(rows: &Rows, basis: &[usize], free: &[usize], rank: usize) -> Exchange {
    let count = free.len();
    // sum over other rows of w sign(r) v + sum over the basis of lambda v = 0.
    let mut transposed = vec![0.0; count * count];
    let mut multipliers = vec![0.0; count];
    for (b, &i) in free.iter().enumerate() {
        for (a, &at) in basis.iter().enumerate() {
            transposed[b * count + a] = rows.slopes[at][i];
        }
        multipliers[b] = -(0..rows.residuals.len())
            .filter(|at| !basis.contains(at))
            .map(|at| rows.weights[at] * sign(rows.residuals[at]) * rows.slopes[at][i])
            .sum::<f64>();
    }
    if eliminate(&mut transposed, &mut multipliers).is_none() {
        return Exchange::None;
    }
    let excess = |a: &usize| multipliers[*a].abs() / rows.weights[basis[*a]];
    let mut order: Vec<usize> = (0..count).collect();
    order.sort_by(|a, b| excess(b).total_cmp(&excess(a)));
    if excess(&order[0]) <= 1.0 + 1e-9 {
        return Exchange::Minimum;
    }
    let Some(&leaving) = order.get(rank).filter(|a| excess(a) > 1.0) else { return Exchange::None };
    let mut matrix = vec![0.0; count * count];
    let mut direction = vec![0.0; count];
    direction[leaving] = multipliers[leaving].signum();
    for (a, &at) in basis.iter().enumerate() {
        for (b, &i) in free.iter().enumerate() {
            matrix[a * count + b] = rows.slopes[at][i];
        }
    }
    if eliminate(&mut matrix, &mut direction).is_none() {
        return Exchange::None;
    }
    let mut breaks: Vec<(f64, f64, usize)> = (0..rows.residuals.len())
        .filter(|at| !basis.contains(at))
        .filter_map(|at| {
            let speed: f64 = free.iter().zip(&direction).map(|(&i, d)| rows.slopes[at][i] * d).sum();
            let when = -rows.residuals[at] / speed;
            (when > 0.0 && when.is_finite()).then_some((when, 2.0 * rows.weights[at] * speed.abs(), at))
        })
        .collect();
    breaks.sort_by(|a, b| a.0.total_cmp(&b.0));
    let mut slope = rows.weights[basis[leaving]] - multipliers[leaving].abs();
    for (_, rise, at) in breaks {
        slope += rise;
        if slope >= 0.0 {
            let mut next = basis.to_vec();
            next[leaving] = at;
            return Exchange::For(next);
        }
    }
    Exchange::None
}

fn sign(r: f64) -> f64 {
    if r.abs() < 1e-14 { 0.0 } else { r.signum() }
}

fn dot(a: &Vector, b: &Vector) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}
