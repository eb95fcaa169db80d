//! Matrices of a few rows, row-major.

use super::frame::{Local, Vector};
use crate::law::PARAMETERS_MAX;

/// Coefficients of [`non_negative`] at most.
pub(super) const COEFFICIENTS_MAX: usize = 6;

/// Solves `matrix x = right` by Cholesky; `None` where the matrix is not positive definite.
pub fn cholesky_solve(matrix: &[f64], right: &[f64]) -> Option<Vec<f64>> {
    let k = right.len();
    let lower = cholesky(matrix, k)?;
    let mut x = right.to_vec();
    for i in 0..k {
        let sum: f64 = (0..i).map(|j| lower[i * k + j] * x[j]).sum();
        x[i] = (x[i] - sum) / lower[i * k + i];
    }
    for i in (0..k).rev() {
        let sum: f64 = (i + 1..k).map(|j| lower[j * k + i] * x[j]).sum();
        x[i] = (x[i] - sum) / lower[i * k + i];
    }
    Some(x)
}

/// The inverse; `None` where the matrix is not positive definite.
pub fn invert(matrix: &[f64], k: usize) -> Option<Vec<f64>> {
    let mut inverse = vec![0.0; k * k];
    for column in 0..k {
        let mut unit = vec![0.0; k];
        unit[column] = 1.0;
        for (row, value) in cholesky_solve(matrix, &unit)?.into_iter().enumerate() {
            inverse[row * k + column] = value;
        }
    }
    Some(inverse)
}

fn cholesky(matrix: &[f64], k: usize) -> Option<Vec<f64>> {
    let mut lower = vec![0.0; k * k];
    for i in 0..k {
        for j in 0..=i {
            let sum: f64 = (0..j).map(|m| lower[i * k + m] * lower[j * k + m]).sum();
            let left = matrix[i * k + j] - sum;
            if i == j {
                if left.is_nan() || left <= 0.0 {
                    return None;
                }
                lower[i * k + i] = left.sqrt();
            } else {
                lower[i * k + j] = left / lower[j * k + j];
            }
        }
    }
    Some(lower)
}

/// The step `-(H + lambda (M + diag M))^-1 g` over the `free` parameters (zero elsewhere), and lambda: `damping`, or
/// the least of its multiples that makes the matrix positive definite. `None` where none does.
pub(super) fn damped_step(local: &Local, free: &[bool], k: usize, damping: f64) -> Option<(Vector, f64)> {
    let mut index = [0; PARAMETERS_MAX];
    let mut count = 0;
    for i in (0..k).filter(|&i| free[i]) {
        index[count] = i;
        count += 1;
    }
    let index = &index[..count];
    let mut scale: Vector = [0.0; PARAMETERS_MAX];
    for (scale, &i) in scale.iter_mut().zip(index) {
        *scale = 1.0 / local.majorant[i * k + i].sqrt();
    }
    let mut damping = damping;
    for _ in 0..60 {
        let mut lower = [0.0; PARAMETERS_MAX * PARAMETERS_MAX];
        for (a, &i) in index.iter().enumerate() {
            for (b, &j) in index[..=a].iter().enumerate() {
                let add = if a == b { 2.0 } else { 1.0 } * local.majorant[i * k + j];
                lower[a * count + b] = scale[a] * scale[b] * (local.newton[i * k + j] + damping * add);
            }
        }
        if factor(&mut lower, count) {
            let mut x: Vector = [0.0; PARAMETERS_MAX];
            for (a, &i) in index.iter().enumerate() {
                x[a] = -scale[a] * local.gradient[i];
            }
            substitute(&lower, count, &mut x);
            let mut step: Vector = [0.0; PARAMETERS_MAX];
            for (a, &i) in index.iter().enumerate() {
                step[i] = scale[a] * x[a];
            }
            return step.iter().all(|s| s.is_finite()).then_some((step, damping));
        }
        damping = (4.0 * damping).max(1e-8);
    }
    None
}

/// Cholesky's factor in place, of the lower triangle; false where the matrix is not (numerically) positive definite.
fn factor(lower: &mut [f64], k: usize) -> bool {
    for i in 0..k {
        for j in 0..=i {
            let mut left = lower[i * k + j];
            for m in 0..j {
                left -= lower[i * k + m] * lower[j * k + m];
            }
            if i == j {
                // The diagonal was about 1: what is left of it below rounding is none.
                if left.is_nan() || left <= 1e-15 {
                    return false;
                }
                lower[i * k + i] = left.sqrt();
            } else {
                lower[i * k + j] = left / lower[j * k + j];
            }
        }
    }
    true
}

fn substitute(lower: &[f64], k: usize, x: &mut [f64]) {
    for i in 0..k {
        for j in 0..i {
            x[i] -= lower[i * k + j] * x[j];
        }
        x[i] /= lower[i * k + i];
    }
    for i in (0..k).rev() {
        for j in i + 1..k {
            x[i] -= lower[j * k + i] * x[j];
        }
        x[i] /= lower[i * k + i];
    }
}

/// Solves a general square system by elimination with row pivots, in place; `None` where it is singular.
pub(super) fn eliminate(matrix: &mut [f64], right: &mut [f64]) -> Option<()> {
    let k = right.len();
    for column in 0..k {
        let pivot =
            (column..k).max_by(|&a, &b| matrix[a * k + column].abs().total_cmp(&matrix[b * k + column].abs()))?;
        if matrix[pivot * k + column].abs() < 1e-14 || !matrix[pivot * k + column].is_finite() {
            return None;
        }
        for j in 0..k {
            matrix.swap(pivot * k + j, column * k + j);
        }
        right.swap(pivot, column);
        for row in column + 1..k {
            let share = matrix[row * k + column] / matrix[column * k + column];
            for j in column..k {
                matrix[row * k + j] -= share * matrix[column * k + j];
            }
            right[row] -= share * right[column];
        }
    }
    for row in (0..k).rev() {
        for j in row + 1..k {
            right[row] -= matrix[row * k + j] * right[j];
        }
        right[row] /= matrix[row * k + row];
    }
    Some(())
}

/// Eigenvalues of a symmetric matrix (destroyed), by Jacobi's rotations.
pub(super) fn eigenvalues(matrix: &mut [f64], k: usize) -> Vec<f64> {
    for _ in 0..50 {
        let mut off = 0.0;
        for p in 0..k {
            for q in p + 1..k {
                let apart = matrix[p * k + q];
                off += apart.abs();
                if apart == 0.0 || !apart.is_finite() {
                    continue;
                }
                let ratio = (matrix[q * k + q] - matrix[p * k + p]) / (2.0 * apart);
                let tan = 1.0f64.copysign(ratio) / (ratio.abs() + ratio.hypot(1.0));
                let cos = 1.0 / tan.hypot(1.0);
                let sin = tan * cos;
                for i in 0..k {
                    let (ip, iq) = (matrix[i * k + p], matrix[i * k + q]);
                    matrix[i * k + p] = cos * ip - sin * iq;
                    matrix[i * k + q] = sin * ip + cos * iq;
                }
                for j in 0..k {
                    let (pj, qj) = (matrix[p * k + j], matrix[q * k + j]);
                    matrix[p * k + j] = cos * pj - sin * qj;
                    matrix[q * k + j] = sin * pj + cos * qj;
                }
            }
        }
        if off < 1e-300 {
            break;
        }
    }
    (0..k).map(|i| matrix[i * k + i]).collect()
}

/// The `x >= 0` that minimises `x' normal x - 2 right' x`, and minus that minimum. By trying: all coefficients first,
/// then every set of fewer.
pub(crate) fn non_negative(normal: &[f64], right: &[f64]) -> ([f64; COEFFICIENTS_MAX], f64) {
    let count = right.len();
    let all = (1usize << count) - 1;
    let mut best = ([0.0; COEFFICIENTS_MAX], 0.0);
    for set in (1..=all).rev() {
        let Some(x) = unconstrained(normal, right, set) else { continue };
        if x.iter().any(|value| *value < 0.0) {
            continue;
        }
        let gain: f64 = x.iter().zip(right).map(|(x, right)| x * right).sum();
        if gain > best.1 {
            best = (x, gain);
        }
        if set == all {
            break;
        }
    }
    best
}

fn unconstrained(normal: &[f64], right: &[f64], set: usize) -> Option<[f64; COEFFICIENTS_MAX]> {
    let count = right.len();
    let members: Vec<usize> = (0..count).filter(|i| set >> i & 1 == 1).collect();
    if members.iter().any(|&i| normal[i * count + i] <= 0.0) {
        return None;
    }
    let scale: Vec<f64> = members.iter().map(|&i| 1.0 / normal[i * count + i].sqrt()).collect();
    let size = members.len();
    let mut matrix = vec![0.0; size * size];
    for a in 0..size {
        for b in 0..size {
            matrix[a * size + b] = scale[a] * scale[b] * normal[members[a] * count + members[b]];
        }
    }
    let scaled: Vec<f64> = members.iter().zip(&scale).map(|(&i, scale)| scale * right[i]).collect();
    let x = cholesky_solve(&matrix, &scaled)?;
    let mut all = [0.0; COEFFICIENTS_MAX];
    for (a, &i) in members.iter().enumerate() {
        all[i] = scale[a] * x[a];
    }
    Some(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_coefficient_that_would_be_negative_is_zero() {
        // x + y = 1 and x - y = 3: unconstrained (2, -1), constrained (2, 0) with x' (1, 1), (1, -1).
        let (x, gain) = non_negative(&[2.0, 0.0, 0.0, 2.0], &[4.0, -2.0]);
        assert!((x[0] - 2.0).abs() < 1e-15 && x[1] == 0.0 && (gain - 8.0).abs() < 1e-14);
    }
}
