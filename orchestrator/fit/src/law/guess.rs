//! Small linear problems behind laws' own starts.

use crate::solve::cholesky_solve;

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
