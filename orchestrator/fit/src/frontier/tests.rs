//! Tests of frontiers.

use proptest::prelude::*;

use super::*;
use crate::Options;
use crate::law::Chinchilla;
use crate::observation::{Observation, Response};
use crate::solve::Quantity;

/// Besiroglu et al. 2024's law.
const LAW: [f64; 5] = [6.178, 7.643, 0.5971, 0.3478, 0.3659];

fn row(n: f64, d: f64, convention: Convention, per_sample: f64, noise: f64) -> Observation {
    let x = Input::on(Axis::N, n).with(Axis::D, d);
    let error = (Chinchilla { tied: false }.ln_at(&LAW, &x) + noise).exp();
    Observation {
        model: format!("m{n:e}"),
        compute: per_sample * d,
        convention,
        gpu_hours: Some(1e-18 * per_sample * d),
        ..Observation::of(format!("{n:e}-{d:e}"), n, d, error)
    }
}

fn grid(convention: Convention, per_sample: impl Fn(f64) -> f64) -> Vec<Observation> {
    let mut rows = Vec::new();
    for n in [3e7, 1e8, 3e8, 1e9, 3e9] {
        for d in [1e9, 4e9, 16e9, 64e9] {
            let noise = 0.004 * ((rows.len() * 37 % 20) as f64 / 10.0 - 0.95);
            rows.push(row(n, d, convention, per_sample(n), noise));
        }
    }
    rows
}

fn fitted(rows: &[Observation], law: LawName) -> Fit {
    let options = Options { law, resamples: 60, starts: 12, ..Options::new(Response::Loss) };
    crate::fit(rows, &options).unwrap()
}

#[test]
fn six_nd_in_closed_form_and_by_search_agree() {
    let (law, cost) = (Chinchilla { tied: false }, Cost::six_nd());
    for budget in [1e18, 1e21, 5.88e23] {
        let path = Path::new(&law, &cost, budget, Limits::default(), (1e7, 1e10));
        let capped = Limits { samples_max: Some(1e30), ..Limits::default() };
        let searched = Path::new(&law, &cost, budget, capped, (1e7, 1e10)).best(&LAW);
        let closed = path.best(&LAW);
        assert!((closed.at.ln_n - searched.at.ln_n).abs() < 1e-5, "{closed:?} {searched:?}");
        assert!((closed.ln_e - searched.ln_e).abs() < 1e-12 && closed.end.is_none());
        assert!((closed.at.ln_n + closed.at.ln_d + 6f64.ln() - budget.ln()).abs() < 1e-12);
    }
}

proptest! {
    #[test]
    fn gradients_of_the_best_agree_with_differences(ln_budget in 42.0..55.0f64, alpha in 0.2..0.5f64, beta in 0.2..0.5f64) {
        let (law, cost) = (Chinchilla { tied: false }, Cost::six_nd());
        let path = Path::new(&law, &cost, ln_budget.exp(), Limits::default(), (1e6, 1e11));
        let theta = [6.0, 7.5, 0.6, alpha, beta];
        for part in [Part::Parameters, Part::SamplesSeen, Part::Error] {
            let quantity = Best { path, part };
            let (mut gradient, mut other) = ([0.0; 5], [0.0; 5]);
            quantity.at(&theta, &mut gradient);
            for i in 0..5 {
                let (mut up, mut down) = (theta, theta);
                up[i] += 1e-5;
                down[i] -= 1e-5;
                let slope = (quantity.at(&up, &mut other) - quantity.at(&down, &mut other)) / 2e-5;
                prop_assert!((slope - gradient[i]).abs() < 1e-3 * (1.0 + slope.abs()), "{part:?} {i} {slope} {gradient:?}");
            }
        }
    }

    #[test]
    fn no_job_of_the_budget_beats_the_best(ln_budget in 42.0..55.0f64, ln_n in 15.0..27.0f64, cap in 1e8..1e13f64) {
        let law = Chinchilla { tied: false };
        let rows = grid(Convention::GmacsSamples, |n| if n < 2e8 { n.powf(1.3) } else { n });
        let cost = Cost::compute(&rows).unwrap();
        let limits = Limits { samples_max: Some(cap), ..Limits::default() };
        let path = Path::new(&law, &cost, ln_budget.exp(), limits, (3e7, 3e9));
        prop_assert!(path.best(&LAW).ln_e <= law.ln_at(&LAW, &path.at(ln_n)) + 1e-9);
    }
}

#[test]
fn the_known_frontier_comes_back_with_intervals() {
    let fit = fitted(&grid(Convention::SixNd, |n| 6.0 * n), LawName::Chinchilla);
    let cost = Cost::compute(&fit.observations).unwrap();
    let found = frontier(&fit, &cost, &[1e20, 1e26], Limits::default()).unwrap();
    let truth = Path::new(&Chinchilla { tied: false }, &cost, 1e20, Limits::default(), (1e7, 1e10)).best(&LAW);
    let first = &found.allocations[0];
    let n = first.parameters.unwrap();
    assert!(n.low < truth.at.ln_n.exp() && truth.at.ln_n.exp() < n.high && n.low <= n.value && n.value <= n.high);
    assert!(first.error.low < first.error.high && first.epochs.is_none());
    assert_eq!((first.edge, found.allocations[1].edge), (Some(Edge::Inside), Some(Edge::AboveObserved)));
    let exponent = found.exponent.unwrap();
    assert!(exponent.low < 0.3659 / 0.7137 && 0.3659 / 0.7137 < exponent.high, "{exponent:?}");
    serde_json::to_string(&found).unwrap();
}

#[test]
fn a_data_budget_and_gpu_hours_bound_the_job() {
    let fit = fitted(&grid(Convention::SixNd, |n| 6.0 * n), LawName::Chinchilla);
    let cost = Cost::gpu_hours(&fit.observations).unwrap();
    let limits = Limits { samples_max: Some(2e9), unique_max: Some(5e8), ..Limits::default() };
    let found = frontier(&fit, &cost, &[100.0], limits).unwrap();
    let job = &found.allocations[0];
    assert!((job.samples_seen.unwrap().value / 2e9 - 1.0).abs() < 1e-6, "{job:?}");
    assert!((job.epochs.unwrap().value - 4.0).abs() < 1e-6);
    // 1e-18 GPU-hours a FLOP: 100 GPU-hours are 1e20 FLOPs, and the best N is what they buy at the cap.
    assert!((job.parameters.unwrap().value / (1e20 / 6.0 / 2e9) - 1.0).abs() < 1e-4);
    assert_eq!(found.notes, [Note::UniqueUnseen { law: LawName::Chinchilla }]);
}

#[test]
fn a_law_of_compute_says_that_it_cannot_split() {
    let fit = fitted(&grid(Convention::SixNd, |n| 6.0 * n), LawName::Power(Axis::C));
    let cost = Cost::six_nd();
    let found = frontier(&fit, &cost, &[1e20], Limits::default()).unwrap();
    assert_eq!(found.notes, [Note::CannotSplit { law: LawName::Power(Axis::C) }]);
    assert!((found.allocations[0].error.value / fit.at_compute(1e20) - 1.0).abs() < 1e-12);
    assert!(found.allocations[0].parameters.is_none());
    let by_size = fitted(&fit.observations, LawName::Power(Axis::N));
    let one_axis = frontier(&by_size, &cost, &[1e20], Limits::default());
    assert_eq!(one_axis.unwrap_err(), FrontierError::OneAxis { law: LawName::Power(Axis::N), axis: Axis::N });
    let hours = Cost::gpu_hours(&fit.observations).unwrap();
    let refused = |cost: &Cost, budget: f64| frontier(&fit, cost, &[budget], Limits::default()).unwrap_err();
    assert!(matches!(refused(&hours, 1.0), FrontierError::ComputeAlone { .. }));
    assert!(matches!(refused(&cost, f64::NAN), FrontierError::NotPositive { .. }));
    let other = Cost::compute(&grid(Convention::GmacsSamples, |n| n)).unwrap();
    assert!(matches!(refused(&other, 1.0), FrontierError::Convention { .. }));
    let models = models_of(&fit.observations);
    let chosen = best_model(&fit, &cost, &models, 1e20, Limits::default());
    assert!(matches!(chosen, Err(FrontierError::NoChoice { .. })));
}

#[test]
fn models_are_chosen_by_name() {
    let fit = fitted(&grid(Convention::SixNd, |n| 6.0 * n), LawName::Chinchilla);
    let models = models_of(&fit.observations);
    let choices = best_model(&fit, &Cost::six_nd(), &models, 1e20, Limits::default()).unwrap();
    assert_eq!((choices.len(), choices[0].model.name.as_str()), (5, "m1e9"));
    let shares: f64 = choices.iter().map(|choice| choice.best).sum();
    assert!((shares - 1.0).abs() < 1e-9 && choices[0].best > 0.5);
    assert!(choices.iter().all(|choice| !choice.far));
    let more = best_model(&fit, &Cost::six_nd(), &models, 1e22, Limits::default()).unwrap();
    assert!(more.iter().any(|choice| choice.far && choice.model.name == "m3e7"));
    assert!((choices[0].samples_seen / (1e20 / 6e9) - 1.0).abs() < 1e-9);
    let bad = [Model { parameters: 0.0, ..models[0].clone() }];
    for models in [&[][..], &bad] {
        let refused = best_model(&fit, &Cost::six_nd(), models, 1e20, Limits::default());
        assert!(matches!(refused, Err(FrontierError::NoChoice { .. })));
    }
}
