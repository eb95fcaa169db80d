//! Tests of advice.

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::*;
use crate::Options;
use crate::compare::normal;
use crate::law::{Chinchilla, Law};
use crate::observation::{Convention, Observation, Response};

const SIZES: [f64; 6] = [63e6, 151e6, 428e6, 986e6, 1.37e9, 2.54e9];
const SAMPLES: [f64; 4] = [1e9, 3e9, 13e9, 34e9];

fn at(n: f64, d: f64) -> Input {
    Input::on(Axis::N, n).with(Axis::D, d).with(Axis::C, 6.0 * n * d)
}

fn observed(job: usize, n: f64, d: f64, ln_e: f64) -> Observation {
    Observation {
        job_key: format!("{job:04}"),
        model: format!("{n:e}"),
        parameters: n,
        samples_seen: d,
        unique_samples: d,
        compute: 6.0 * n * d,
        proxy_loss: f64::NAN,
        convention: Convention::SixNd,
        error: ln_e.exp(),
        standard_error: None,
        chance_error: None,
        count: None,
        gpu_hours: None,
    }
}

/// A study with a truth of its own: cells by cost, the law, and the noise of each cell's job.
struct Study {
    theta: [f64; 5],
    cells: Vec<(f64, f64)>,
    noise: Vec<f64>,
}

const TARGET: (f64, f64) = (2.54e9, 68e9);

fn study(seed: u64) -> Study {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let mut between = |low: f64, high: f64| random.random_range(low..high);
    let (alpha, beta) = (between(0.25, 0.5), between(0.2, 0.45));
    // At the middle of the grid the terms of N and D are 0.15 to 0.35 each, on an irreducible 0.05 to 0.2.
    let theta = [
        between(0.15f64, 0.35).ln() + alpha * 4e8f64.ln(),
        between(0.15f64, 0.35).ln() + beta * 6e9f64.ln(),
        between(0.05f64, 0.2).ln(),
        alpha,
        beta,
    ];
    let mut cells: Vec<(f64, f64)> = SIZES.iter().flat_map(|&n| SAMPLES.map(|d| (n, d))).collect();
    cells.sort_by(|a, b| (a.0 * a.1).total_cmp(&(b.0 * b.1)));
    let noise = (0..4 * cells.len()).map(|_| 0.01 * normal(&mut random)).collect();
    Study { theta, cells, noise }
}

impl Study {
    /// The `repeat`-th job of a cell.
    fn job(&self, cell: usize, repeat: usize) -> Observation {
        let (n, d) = self.cells[cell];
        let law = Chinchilla { tied: false };
        let noise = self.noise[cell + self.cells.len() * (repeat % 4)];
        observed(cell + self.cells.len() * repeat, n, d, law.ln_at(&self.theta, &at(n, d)) + noise)
    }

    fn fit(&self, jobs: &[(usize, usize)]) -> Fit {
        let rows: Vec<Observation> = jobs.iter().map(|&(cell, repeat)| self.job(cell, repeat)).collect();
        let options = Options { law: LawName::Chinchilla, starts: 12, resamples: 0, ..Options::new(Response::Loss) };
        crate::fit(&rows, &options).unwrap()
    }

    fn cost(&self, cell: usize) -> f64 {
        6.0 * self.cells[cell].0 * self.cells[cell].1
    }

    /// Squared error of the forecast of ln E.
    fn miss(&self, jobs: &[(usize, usize)]) -> f64 {
        let target = at(TARGET.0, TARGET.1);
        (self.fit(jobs).value(&target).ln() - Chinchilla { tied: false }.ln_at(&self.theta, &target)).powi(2)
    }

    fn candidates(&self, cells: std::ops::Range<usize>) -> Vec<Candidate> {
        let of = |cell: usize| Candidate {
            name: format!("cell {cell}"),
            at: at(self.cells[cell].0, self.cells[cell].1),
            cost: self.cost(cell),
        };
        cells.map(of).collect()
    }
}

/// Jobs that every strategy starts with, the cheapest; and cells that it may add.
const FIRST: usize = 8;
const LAST: usize = 21;

#[test]
fn advice_beats_chance_and_thrift() {
    let studies = 60;
    let (mut advised, mut random_picks, mut thrifty, mut spent) = (0.0, 0.0, 0.0, 0.0);
    for seed in 0..studies {
        let study = study(seed);
        let first: Vec<(usize, usize)> = (0..FIRST).map(|cell| (cell, 0)).collect();
        let budget = 0.2 * (FIRST..LAST).map(|cell| study.cost(cell)).sum::<f64>();
        let in_order = |order: &[usize]| {
            let (mut jobs, mut left) = (first.clone(), budget);
            for &cell in order {
                if study.cost(cell) <= left {
                    left -= study.cost(cell);
                    jobs.push((cell, 0));
                }
            }
            study.miss(&jobs)
        };
        let all: Vec<usize> = (FIRST..LAST).collect();
        thrifty += in_order(&all);
        let mut random = ChaCha8Rng::seed_from_u64(seed + 1000);
        for _ in 0..3 {
            let mut order = all.clone();
            for i in (1..order.len()).rev() {
                order.swap(i, random.random_range(0..=i));
            }
            random_picks += in_order(&order) / 3.0;
        }
        let fit = study.fit(&first);
        let candidates = study.candidates(0..LAST);
        let advice = advise(&[&fit], &[at(TARGET.0, TARGET.1)], &candidates, &AdviseOptions::new(budget)).unwrap();
        assert!(advice.spent <= budget * (1.0 + 1e-9));
        let mut jobs = first.clone();
        jobs.extend(advice.picks.iter().map(|pick| (pick.candidate, pick.replicate_of)));
        advised += study.miss(&jobs);
        spent += advice.spent / budget;
        if std::env::var("SHOW").is_ok() {
            let names: Vec<String> =
                advice.picks.iter().map(|p| format!("{}x{} {:.2}", p.candidate, p.replicate_of, p.gain)).collect();
            eprintln!("{seed} {:?} {names:?} {:?} modes {}", advice.before[0], advice.stop, advice.modes.len());
        }
    }
    let [advised, random_picks, thrifty] =
        [advised, random_picks, thrifty].map(|sum: f64| (sum / studies as f64).sqrt());
    eprintln!("{advised} {random_picks} {thrifty} spent {}", spent / studies as f64);
    assert!(advised < random_picks && advised < thrifty);
}
