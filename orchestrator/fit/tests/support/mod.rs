//! What tests of whole fits share.

use fit::{Convention, Observation};

/// A job of N, D and its error; all samples are seen once, and compute is 6ND.
pub(crate) fn observation(job: usize, n: f64, d: f64, error: f64) -> Observation {
    Observation {
        job_key: format!("{job:064x}"),
        model: format!("model-{n}"),
        parameters: n,
        samples_seen: d,
        unique_samples: d,
        compute: 6.0 * n * d,
        proxy_loss: f64::NAN,
        convention: Convention::SixNd,
        error,
        standard_error: None,
        chance_error: None,
        count: None,
        gpu_hours: None,
    }
}
