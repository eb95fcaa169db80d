//! Speed of the two things that a study waits for, on the 240 points of Besiroglu et al. 2024: the best-of-many-starts
//! optimum, and 4,000 bootstrap refits. `make bench-fit` runs it beside SciPy.
//!
//! `FIT_BENCH_DATA` is the path of the points (CSV; `../shared/data/epoch_chinchilla_svg_extracted.csv` otherwise);
//! without them points of the same shape are made up.

use std::path::PathBuf;

use criterion::{Criterion, criterion_group, criterion_main};
use fit::solve::{Problem, refit, solve};
use fit::{Axis, Input, LawName, Objective, Sample};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;

/// Rows with the highest losses that are left out.
const DROPPED: usize = 5;
const RESAMPLES: usize = 4000;
const STARTS: usize = 32;
/// Huber's objective at the optimum (Besiroglu et al. 2024, best of 4,500 starts, solved on to machine precision).
const OPTIMUM: f64 = 1.018_274_017_801e-3;

fn data() -> Option<Vec<(f64, f64, f64)>> {
    let beside = "../../../../shared/data/epoch_chinchilla_svg_extracted.csv";
    let path = std::env::var_os("FIT_BENCH_DATA")
        .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(beside), PathBuf::from);
    let text = std::fs::read_to_string(path).ok()?;
    let mut lines = text.lines();
    let names: Vec<&str> = lines.next()?.split(',').collect();
    let at = |name: &str| names.iter().position(|n| *n == name);
    let (n, c, loss) = (at("Model Size")?, at("Training FLOP")?, at("loss")?);
    let row = |line: &str| {
        let cells: Vec<f64> = line.split(',').map(|cell| cell.parse().unwrap_or(f64::NAN)).collect();
        (cells[n], cells[c] / (6.0 * cells[n]), cells[loss])
    };
    let mut rows: Vec<(f64, f64, f64)> = lines.map(row).collect();
    rows.sort_by(|a, b| a.2.total_cmp(&b.2));
    rows.truncate(rows.len() - DROPPED);
    Some(rows)
}

fn made_up() -> Vec<(f64, f64, f64)> {
    let mut random = ChaCha8Rng::seed_from_u64(0);
    let row = |_| {
        let n = 10f64.powf(random.random_range(7.6..10.2));
        let d = 10f64.powf(random.random_range(8.5..11.5));
        let noise =
            0.007 * (random.random::<f64>() + random.random::<f64>() - random.random::<f64>() - random.random::<f64>());
        (n, d, (1.82 + 478.0 / n.powf(0.347) + 2143.0 / d.powf(0.367)) * f64::exp(noise))
    };
    (0..240).map(row).collect()
}

fn fits(criterion: &mut Criterion) {
    let found = data();
    let real = found.is_some();
    let mut sample = Sample::default();
    for (job, (n, d, loss)) in found.unwrap_or_else(made_up).into_iter().enumerate() {
        sample.inputs.push(Input::on(Axis::N, n).with(Axis::D, d));
        sample.ln_y.push(loss.ln());
        sample.weights.push(1.0);
        sample.jobs.push(job);
    }
    let law = LawName::Chinchilla.law(1.0);
    let problem = Problem::new(law.as_ref(), &sample, Objective::huber(1e-3));
    let best = solve(&problem, STARTS, 0).best;
    assert!(!real || (best.value / OPTIMUM - 1.0).abs() < 1e-9, "{} is not the optimum", best.value);
    let weights: Vec<Vec<f64>> = (0..RESAMPLES)
        .map(|resample| {
            let mut random = ChaCha8Rng::seed_from_u64(42);
            random.set_stream(resample as u64);
            let mut weights = vec![0.0; sample.len()];
            for _ in 0..sample.len() {
                weights[random.random_range(0..sample.len())] += 1.0;
            }
            weights
        })
        .collect();
    let one = |weights: &Vec<f64>| refit(&Problem { weights, ..problem }, &best.theta);
    let pool = |threads| rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("threads can be had");
    let alone = pool(1);

    let mut group = criterion.benchmark_group("fit");
    group.sample_size(10);
    group.bench_function("optimum of 32 starts, 1 thread", |bencher| {
        bencher.iter(|| alone.install(|| solve(&problem, STARTS, 0)));
    });
    for threads in [1, 2, 4, 8, 16] {
        if threads > std::thread::available_parallelism().map_or(1, usize::from) {
            break;
        }
        let pool = pool(threads);
        group.bench_function(
            format!("4,000 refits, {threads} thread{}", if threads > 1 { "s" } else { "" }),
            |bencher| {
                bencher.iter(|| pool.install(|| weights.par_iter().map(one).map(|minimum| minimum.value).sum::<f64>()));
            },
        );
    }
    group.finish();
}

criterion_group!(benches, fits);
criterion_main!(benches);
