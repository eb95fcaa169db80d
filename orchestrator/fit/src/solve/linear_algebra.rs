//! Symmetric positive definite matrices of a few rows, row-major.

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
