//! What the searches say about the best minimum.

use std::collections::BTreeSet;
use std::fmt;

use serde::Serialize;

use super::frame::{Frame, Vector};
use super::linear_algebra::{eigenvalues, invert};
use super::{Ending, Minimum, Problem};
use crate::distribution::t_two_sided;
use crate::interval::ALPHA;
use crate::law::{Axis, Input, PARAMETERS_MAX, Scale};
use crate::objective::Loss;

/// Condition of the scaled Hessian from which the objective counts as flat.
const CONDITION_FLAT: f64 = 1e10;
/// Standard error of a level (a logarithm, at the middle of the data) from which it counts as not told apart: the
/// parameter is known to a factor of e^2 = 7 either way.
const LEVEL_ERROR_FLAT: f64 = 2.0;
/// Minima within this share of the best are as deep, for practical purposes; of squares, the least share (see
/// [`as_deep`]).
const AS_DEEP: f64 = 1e-3;
/// The same for the other losses, for which no such share is known: so that minima 1.35e-3 apart are as deep.
const AS_DEEP_ELSE: f64 = 2.0 * AS_DEEP;
/// The most: of a small study half as much again would be as deep, and hardly any fit would be of one minimum.
const AS_DEEP_MOST: f64 = 0.02;
/// How far beyond the greatest value of an axis minima are told apart too.
const BEYOND: f64 = 10.0;
/// Predictions that differ by less than this share of the residuals (root mean square) are the same minimum.
const SAME: f64 = 0.02;
/// Predictions that differ by more than this share are different answers.
const DIFFERENT: f64 = 0.05;
/// Distinct minima that are listed.
const OPTIMA_MAX: usize = 10;

/// What to make of the best minimum found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// A minimum, and no other as deep.
    Converged,
    /// The best is at a limit of the law: a term or a coefficient is zero.
    Bound,
    /// The objective hardly changes along some direction: parameters are not told apart by the data.
    Flat,
    /// Different parameters do as well as the best.
    MultiModal,
    /// No search left its start.
    NotMoved,
    /// The searches did not get to the bottom.
    Unfinished,
    /// Searches were cut short by their time limit: a lower minimum may be where they were going.
    TimeLimit,
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Status::Converged => "converged",
            Status::Bound => "at a bound",
            Status::Flat => "flat",
            Status::MultiModal => "multi-modal",
            Status::NotMoved => "not moved",
            Status::Unfinished => "unfinished",
            Status::TimeLimit => "time limit",
        })
    }
}

/// A minimum, and how often searches ended there.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Optimum {
    /// The minimum.
    pub minimum: Minimum,
    /// Searches that ended there.
    pub hits: usize,
}

/// The best minimum, and what the searches say about it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Solution {
    /// The best.
    pub best: Minimum,
    /// How good it is.
    pub status: Status,
    /// Searches.
    pub starts: usize,
    /// Share of the searches that ended within 1e-9 (relative) of the best.
    pub hit_rate: f64,
    /// Distinct minima, best first.
    pub optima: Vec<Optimum>,
    /// Condition number of the Hessian, scaled to a unit diagonal; infinite where it has none.
    pub condition: f64,
    /// Which parameters a bound holds, by index.
    pub at_bound: Vec<usize>,
    /// Covariance of the internal parameters (row-major): the sandwich `H^-1 S H^-1`, S from the scores of jobs (of
    /// rows, where jobs are fewer than two more than the parameters), times `n/(n-1) * (m-1)/(m-p)` for n jobs, m rows,
    /// p free parameters (Liang and Zeger 1986; Cameron and Miller 2015, equation 12). H is the exact Hessian for
    /// squares; for Huber and absolute losses the share of rows within a bandwidth stands for the curvature of the loss
    /// (Powell 1991). Zero for parameters that are held or at a bound. `None` where H can't be inverted.
    pub covariance: Option<Vec<f64>>,
    /// Correlations, from the covariance; zero where a variance is.
    pub correlation: Option<Vec<f64>>,
}

pub(super) fn judge(problem: &Problem<'_>, begun: &[Vec<f64>], searches: Vec<Minimum>) -> Solution {
    let starts = searches.len();
    let moved = searches.iter().zip(begun).any(|(minimum, start)| {
        let mut start = start.clone();
        problem.hold(&mut start);
        minimum.theta != start || minimum.ending.is_minimum()
    });
    let cut = searches.iter().any(|minimum| minimum.ending == Ending::TimeLimit);
    let mut minima = searches;
    minima.sort_by(|a, b| a.value.total_cmp(&b.value));
    // Of minima as deep as rounding can tell, one that ended is the best.
    let frame = Frame::new(problem);
    let lowest = frame.at(&frame.enter(&minima[0].theta), problem.objective.loss);
    let as_good = minima[0].value + 1e-9 * minima[0].value.abs() + lowest.rounding + frame.floor();
    let hits = minima.iter().filter(|minimum| minimum.value <= as_good).count().max(1);
    let best =
        minima[..hits.min(starts)].iter().find(|minimum| minimum.ending.is_minimum()).unwrap_or(&minima[0]).clone();
    let optima = cluster(problem, &best, minima);

    let loose: Vec<usize> =
        (0..problem.len()).filter(|&i| !problem.is_frozen(i) && !best.at_bound.contains(&i)).collect();
    let phi = frame.enter(&best.theta);
    let bread = bread(&frame, &phi);
    let k = problem.len();
    // A parameter of a term that went to nothing does nothing either.
    let largest = loose.iter().map(|&i| bread[i * k + i]).fold(0.0, f64::max);
    let free: Vec<usize> = loose.iter().copied().filter(|&i| bread[i * k + i] > 1e-24 * largest).collect();
    let condition =
        if best.at_bound.is_empty() && free.len() < loose.len() { f64::INFINITY } else { condition(&bread, k, &free) };
    let centred = sandwich(&frame, &phi, &bread, &free);
    let covariance = centred.as_ref().map(|centred| frame.leave_matrix(centred));
    let correlation = covariance.as_ref().map(|covariance| correlation(covariance, k));

    let unsure = |covariance: &Vec<f64>| {
        free.iter().any(|&i| {
            problem.law.parameters()[i].scale == Scale::Log && covariance[i * k + i].sqrt() > LEVEL_ERROR_FLAT
        })
    };
    let rival = optima.iter().skip(1).any(|optimum| {
        optimum.minimum.ending.is_minimum()
            && optimum.minimum.value <= best.value + as_deep(problem) * best.value.abs()
            && distance(problem, &optimum.minimum.theta, &best.theta) > DIFFERENT * spread(problem, &best)
    });
    let flat = condition.is_nan() || condition > CONDITION_FLAT || centred.as_ref().is_none_or(unsure);
    let status = match best.ending {
        _ if cut => Status::TimeLimit,
        _ if !moved => Status::NotMoved,
        Ending::Unfinished | Ending::TimeLimit => Status::Unfinished,
        _ if rival => Status::MultiModal,
        Ending::Bound => Status::Bound,
        Ending::Converged if flat => Status::Flat,
        Ending::Converged => Status::Converged,
    };
    Solution {
        status,
        starts,
        hit_rate: hits as f64 / starts as f64,
        optima,
        condition,
        at_bound: best.at_bound.clone(),
        covariance,
        correlation,
        best,
    }
}

/// By what share of the best minimum another may be higher and count as deep. Of squares, as much as the data allow:
/// their sum within `1 + t^2 / (n - p)` times the least, t Student's two-sided 5 % point, n jobs and p free parameters
/// (`F(1, n - p)`; Seber and Wild 2003, section 5.2), so that the interval of one number would hold both; at most
/// [`AS_DEEP_MOST`].
fn as_deep(problem: &Problem<'_>) -> f64 {
    if problem.objective.loss != Loss::Squares {
        return AS_DEEP_ELSE;
    }
    let jobs = problem.sample.jobs.iter().zip(problem.weights).filter(|(_, weight)| **weight > 0.0);
    let jobs = jobs.map(|(job, _)| job).collect::<BTreeSet<_>>().len();
    let free = (0..problem.len()).filter(|&index| !problem.is_frozen(index)).count();
    let degrees = jobs.saturating_sub(free).max(1);
    (t_two_sided(ALPHA, degrees).powi(2) / degrees as f64).clamp(AS_DEEP, AS_DEEP_MOST)
}

/// Groups minima by what they predict for the rows and beyond: parameters may differ where predictions do not.
fn cluster(problem: &Problem<'_>, best: &Minimum, minima: Vec<Minimum>) -> Vec<Optimum> {
    let same = SAME * spread(problem, best);
    let mut optima = vec![Optimum { minimum: best.clone(), hits: 0 }];
    for minimum in minima {
        let near = optima.iter().position(|o| distance(problem, &o.minimum.theta, &minimum.theta) <= same);
        match near {
            Some(at) => optima[at].hits += 1,
            None if !minimum.ending.is_minimum() || !minimum.value.is_finite() => {}
            None if optima.len() < OPTIMA_MAX => optima.push(Optimum { minimum, hits: 1 }),
            None => {}
        }
    }
    optima[0].hits = optima[0].hits.max(1);
    optima
}

/// Root mean square difference of ln y over the rows, or the greatest difference [`BEYOND`] them, if that is more.
fn distance(problem: &Problem<'_>, a: &[f64], b: &[f64]) -> f64 {
    let off = |x: &Input| problem.law.ln_at(a, x) - problem.law.ln_at(b, x);
    let among = mean_square(problem, |row| off(&problem.sample.inputs[row]));
    beyond(problem).iter().map(|x| off(x).abs()).fold(among, f64::max)
}

/// The row that is greatest on each axis of the law, moved out along it. Not along a proxy loss, in which laws are
/// extrapolated downwards, to their ends.
fn beyond(problem: &Problem<'_>) -> Vec<Input> {
    let farthest = |&axis: &Axis| {
        let known = problem.sample.inputs.iter().filter(|x| x.ln(axis).is_finite());
        let most = known.max_by(|a, b| a.ln(axis).total_cmp(&b.ln(axis)))?;
        Some(most.with(axis, BEYOND * most.ln(axis).exp()))
    };
    problem.law.axes().iter().filter(|axis| **axis != Axis::L).filter_map(farthest).collect()
}

/// Root mean square residual of ln y, at least what rounding leaves.
fn spread(problem: &Problem<'_>, minimum: &Minimum) -> f64 {
    let sample = problem.sample;
    mean_square(problem, |row| problem.law.ln_at(&minimum.theta, &sample.inputs[row]) - sample.ln_y[row]).max(1e-6)
}

fn mean_square(problem: &Problem<'_>, of: impl Fn(usize) -> f64) -> f64 {
    let (mut sum, mut total) = (0.0, 0.0);
    for (row, &weight) in problem.weights.iter().enumerate().filter(|(_, weight)| **weight > 0.0) {
        sum += weight * of(row).powi(2);
        total += weight;
    }
    (sum / total).sqrt()
}

/// The Hessian that intervals rest on, in the frame's coordinates.
fn bread(frame: &Frame<'_>, phi: &Vector) -> Vec<f64> {
    let k = frame.k;
    let problem = frame.problem;
    let smooth = match problem.objective.loss {
        Loss::Squares => return frame.at(phi, Loss::Squares).newton[..k * k].to_vec(),
        loss => loss.delta().unwrap_or(0.0),
    };
    let theta = frame.leave(phi);
    let mut slopes: Vector = [0.0; PARAMETERS_MAX];
    let mut residuals: Vec<(f64, f64, Vector)> = Vec::new();
    for (row, &weight) in problem.weights.iter().enumerate().filter(|(_, weight)| **weight > 0.0) {
        let residual = frame.row(&theta, row, &mut slopes);
        residuals.push((residual, weight, slopes));
    }
    let mut sizes: Vec<f64> = residuals.iter().map(|(residual, ..)| residual.abs()).collect();
    sizes.sort_by(f64::total_cmp);
    let typical = sizes.get(sizes.len() / 2).copied().unwrap_or(0.0);
    // Of the order of Hall and Sheather's (1988) for a median, for normal residuals: about half of 240 rows.
    let wide = 7.2 * typical * (residuals.len() as f64).powf(-1.0 / 3.0);
    let bandwidth = smooth.max(wide).max(1e-12);
    let slope = match problem.objective.loss {
        Loss::Absolute => 1.0 / bandwidth,
        _ => smooth / bandwidth,
    };
    let mut bread = vec![0.0; k * k];
    for (residual, weight, slopes) in residuals.iter().filter(|(residual, ..)| residual.abs() <= bandwidth) {
        let lean = match problem.objective.loss {
            Loss::Asymmetric { over, .. } if *residual > 0.0 => over,
            _ => 1.0,
        };
        for i in 0..k {
            for j in 0..k {
                bread[i * k + j] += weight * lean * slope * slopes[i] * slopes[j];
            }
        }
    }
    bread
}

fn sandwich(frame: &Frame<'_>, phi: &Vector, bread: &[f64], free: &[usize]) -> Option<Vec<f64>> {
    let k = frame.k;
    let problem = frame.problem;
    let size = free.len();
    let scale: Vec<f64> = free.iter().map(|&i| 1.0 / bread[i * k + i].sqrt()).collect();
    let mut matrix = vec![0.0; size * size];
    for a in 0..size {
        for b in 0..size {
            matrix[a * size + b] = scale[a] * scale[b] * bread[free[a] * k + free[b]];
        }
    }
    let inverse = invert(&matrix, size)?;
    let rows: Vec<usize> = (0..problem.weights.len()).filter(|&row| problem.weights[row] > 0.0).collect();
    let mut groups: Vec<usize> = rows.iter().filter_map(|&row| problem.sample.jobs.get(row).copied()).collect();
    groups.sort_unstable();
    groups.dedup();
    let by_job = groups.len() > size + 1 && problem.sample.jobs.len() == problem.weights.len();
    let count = if by_job { groups.len() } else { rows.len() };
    if rows.len() <= size {
        return None;
    }
    let theta = frame.leave(phi);
    let mut slopes: Vector = [0.0; PARAMETERS_MAX];
    let mut scores = vec![vec![0.0; size]; count];
    for (at, &row) in rows.iter().enumerate() {
        let residual = frame.row(&theta, row, &mut slopes);
        let (_, rho1, _) = problem.objective.loss.at(residual);
        let group = if by_job { groups.binary_search(&problem.sample.jobs[row]).unwrap_or(0) } else { at };
        for (a, &i) in free.iter().enumerate() {
            scores[group][a] += problem.weights[row] * rho1 * slopes[i] * scale[a];
        }
    }
    let (n, m, p) = (count as f64, rows.len() as f64, size as f64);
    let few = n / (n - 1.0) * (m - 1.0) / (m - p);
    let influence: Vec<Vec<f64>> = scores
        .iter()
        .map(|score| (0..size).map(|a| (0..size).map(|b| inverse[a * size + b] * score[b]).sum()).collect())
        .collect();
    let mut covariance = vec![0.0; k * k];
    for row in &influence {
        for a in 0..size {
            for b in 0..size {
                covariance[free[a] * k + free[b]] += few * row[a] * row[b] * scale[a] * scale[b];
            }
        }
    }
    covariance.iter().all(|value| value.is_finite()).then_some(covariance)
}

fn condition(matrix: &[f64], k: usize, free: &[usize]) -> f64 {
    let size = free.len();
    let mut scaled = vec![0.0; size * size];
    for (a, &i) in free.iter().enumerate() {
        for (b, &j) in free.iter().enumerate() {
            scaled[a * size + b] = matrix[i * k + j] / (matrix[i * k + i] * matrix[j * k + j]).sqrt();
        }
    }
    let values = eigenvalues(&mut scaled, size);
    let (low, high) = values.iter().fold((f64::INFINITY, 0.0f64), |(low, high), &v| (low.min(v), high.max(v)));
    if low > 0.0 { high / low } else { f64::INFINITY }
}

fn correlation(covariance: &[f64], k: usize) -> Vec<f64> {
    let mut correlation = vec![0.0; k * k];
    for i in 0..k {
        for j in 0..k {
            let both = (covariance[i * k + i] * covariance[j * k + j]).sqrt();
            if both > 0.0 {
                correlation[i * k + j] = covariance[i * k + j] / both;
            }
        }
    }
    correlation
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Sample;
    use crate::law::LawName;
    use crate::objective::Objective;

    fn line(jobs: usize, times: usize) -> Sample {
        let rows = || (0..times).flat_map(|_| 0..jobs);
        Sample {
            inputs: rows().map(|job| Input::on(Axis::C, (job as f64).exp2())).collect(),
            ln_y: rows().map(|job| -0.1 * job as f64).collect(),
            weights: vec![1.0; jobs * times],
            jobs: rows().collect(),
        }
    }

    #[test]
    fn minima_are_as_deep_as_the_jobs_can_tell() {
        let law = "power".parse::<LawName>().unwrap().law(1.0);
        let of = |jobs, times, objective| as_deep(&Problem::new(law.as_ref(), &line(jobs, times), objective));
        // Student's t of 1,000 degrees of freedom is 1.962339, however many rows a job has.
        for times in [1, 3] {
            assert!((of(1002, times, Objective::LS_LOG) - 1.962_339_08f64.powi(2) / 1000.0).abs() < 1e-6);
        }
        assert!((of(12, 1, Objective::LS_LOG) - AS_DEEP_MOST).abs() < 1e-12);
        assert!((of(9000, 1, Objective::LS_LOG) - AS_DEEP).abs() < 1e-12);
        assert!(of(12, 1, Objective::huber(1e-3)) > 1.35e-3 && of(12, 1, Objective::LAD) > 1.35e-3);
    }

    #[test]
    fn minima_that_part_beyond_the_rows_are_apart() {
        let law = "power".parse::<LawName>().unwrap().law(1.0);
        let sample = line(3, 1);
        let problem = Problem::new(law.as_ref(), &sample, Objective::LS_LOG);
        // Lines through one point amid the rows, C = 2: at ten times the most, 40, they are 0.1 ln 20 apart.
        let (a, b) = ([0.0, -0.1], [0.1 * 2f64.ln(), -0.2]);
        assert!((distance(&problem, &a, &b) - 0.1 * 20f64.ln()).abs() < 1e-9);
    }
}
