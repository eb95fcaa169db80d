//! Small linear problems behind laws' own starts.

use super::{Input, Separable};
use crate::solve::{cholesky_solve, non_negative};

/// Weighted least squares of up to three columns: the sum of squares and the solution (zero for columns that are not
/// `used`). Rows are (columns, target, weight). `None` where the columns do not tell.
pub(super) fn least_squares(
    rows: impl Iterator<Item = ([f64; 3], f64, f64)> + Clone,
    used: usize,
) -> Option<(f64, [f64; 3])> {
    let (mut matrix, mut right) = (vec![0.0; used * used], vec![0.0; used]);
    for (columns, target, weight) in rows.clone() {
        for i in 0..used {
            right[i] += weight * columns[i] * target;
            for j in 0..used {
                matrix[i * used + j] += weight * columns[i] * columns[j];
            }
        }
    }
    for i in 0..used {
        matrix[i * used + i] *= 1.0 + 1e-10;
    }
    let mut solution = [0.0; 3];
    solution[..used].copy_from_slice(&cholesky_solve(&matrix, &right)?);
    let squares = rows
        .map(|(columns, target, weight)| {
            let predicted: f64 = columns.iter().zip(&solution).map(|(column, coefficient)| column * coefficient).sum();
            weight * (predicted - target).powi(2)
        })
        .sum();
    Some((squares, solution))
}

/// Coefficients that a term of nothing is given, as a share of the response: a logarithm needs one.
const NEGLIGIBLE: f64 = 1e-4;

/// Parameters (internal scale) with every combination of `shapes` (values of each shape, in the law's order) and the
/// best coefficients for it, at least zero: the `most` with the least weighted squares of ln y, to first order.
pub(super) fn project(
    law: &dyn Separable,
    parameters: usize,
    shapes: &[&[f64]],
    inputs: &[Input],
    ln_y: &[f64],
    most: usize,
) -> Vec<Vec<f64>> {
    let count: usize = shapes.iter().map(|values| values.len()).product();
    let columns = law.coefficients().len();
    let mut found: Vec<(f64, Vec<f64>)> = Vec::new();
    for combination in 0..count {
        let mut theta = vec![0.0; parameters];
        let mut rest = combination;
        for (index, values) in law.shapes().iter().zip(shapes) {
            theta[*index] = values[rest % values.len()];
            rest /= values.len();
        }
        let mut rows = Vec::with_capacity(inputs.len());
        for (x, ln_y) in inputs.iter().zip(ln_y) {
            let Some((response, slope)) = law.response(&theta, *ln_y) else { continue };
            let mut row = [0.0; COLUMNS_MAX + 1];
            law.basis(&theta, x, &mut row[..columns]);
            row[..columns].iter_mut().for_each(|value| *value /= slope);
            row[COLUMNS_MAX] = response / slope;
            rows.push(row);
        }
        // Rows that the law can't reach, at the error of guessing, say nothing of its shape.
        if 2 * rows.len() < inputs.len() {
            continue;
        }
        let Some((squares, coefficients)) = least_squares_above_zero(&rows, columns) else { continue };
        for (column, index) in law.coefficients().iter().enumerate() {
            let (size, target) = rows
                .iter()
                .fold((0.0, 0.0), |(size, target), row| (size + row[column].abs(), target + row[COLUMNS_MAX].abs()));
            theta[*index] = coefficients[column].max(NEGLIGIBLE * target / size).ln();
        }
        if squares.is_finite() && theta.iter().all(|value| value.is_finite()) {
            found.push((squares, theta));
        }
    }
    found.sort_by(|a, b| a.0.total_cmp(&b.0));
    found.into_iter().take(most).map(|(_, theta)| theta).collect()
}

/// Most columns of [`project`].
const COLUMNS_MAX: usize = 4;

/// Least squares with coefficients of at least zero; `None` where zeros are best. The target is the last of a row.
fn least_squares_above_zero(rows: &[[f64; COLUMNS_MAX + 1]], columns: usize) -> Option<(f64, [f64; COLUMNS_MAX])> {
    let mut products = [[0.0; COLUMNS_MAX + 1]; COLUMNS_MAX + 1];
    for row in rows {
        for i in 0..=COLUMNS_MAX {
            for j in 0..=COLUMNS_MAX {
                products[i][j] += row[i] * row[j];
            }
        }
    }
    let normal: Vec<f64> = products[..columns].iter().flat_map(|row| row[..columns].to_vec()).collect();
    let right: Vec<f64> = products[..columns].iter().map(|row| row[COLUMNS_MAX]).collect();
    let (best, gain) = non_negative(&normal, &right);
    if gain <= 0.0 {
        return None;
    }
    let off = |row: &[f64; COLUMNS_MAX + 1]| {
        row[..columns].iter().zip(&best).map(|(x, coefficient)| x * coefficient).sum::<f64>() - row[COLUMNS_MAX]
    };
    let squares = rows.iter().map(|row| off(row).powi(2)).sum();
    let mut coefficients = [0.0; COLUMNS_MAX];
    coefficients[..columns].copy_from_slice(&best[..columns]);
    Some((squares, coefficients))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn coefficients_stay_above_zero() {
        // y = 2 u - v is best met, above zero, by u alone.
        let rows: Vec<[f64; 5]> = (1..20u8)
            .map(|i| {
                let (u, v) = (f64::from(i), f64::from(i % 3));
                [u, v, 0.0, 0.0, 2.0 * u - v]
            })
            .collect();
        let (_, coefficients) = least_squares_above_zero(&rows, 2).unwrap();
        let alone = rows.iter().map(|r| r[0] * r[4]).sum::<f64>() / rows.iter().map(|r| r[0] * r[0]).sum::<f64>();
        assert!((coefficients[0] - alone).abs() < 1e-9 && coefficients[1] == 0.0, "{coefficients:?}");
    }
}
