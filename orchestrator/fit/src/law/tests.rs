//! What every law must pass.

use proptest::prelude::*;

use super::checks::derivatives_agree;
use super::*;
use crate::objective::Objective;
use crate::sample::Sample;
use crate::solve::{Problem, Status, solve};

/// Every axis known, compute as forward GMACs.
fn place(n: f64, d: f64, u: f64, gmacs: f64) -> Input {
    let loss = 0.3 + 20.0 / n.powf(0.2) + 30.0 / d.powf(0.2);
    Input::UNKNOWN.with(Axis::N, n).with(Axis::D, d).with(Axis::U, u).with(Axis::C, gmacs * d).with(Axis::L, loss)
}

/// The 29 cells of the 2022 study: B/32, B/16, L/14 on three data sizes for three samples seen, H/14 and g/14.
fn grid() -> Vec<Input> {
    let mut inputs = Vec::new();
    for (n, gmacs) in [(151.3e6, 7.4), (149.6e6, 20.6), (427.6e6, 87.7)] {
        for u in [80e6, 407e6, 2.32e9] {
            inputs.extend([2.56e9, 13.0e9, 34.2e9].map(|d| place(n, d, u, gmacs)));
        }
    }
    inputs.extend([place(986e6, 34.7e9, 2.32e9, 191.0), place(1367e6, 12.2e9, 2.32e9, 290.7)]);
    inputs
}

/// Natural parameters that give errors between 0 and 1 on the grid.
fn truth(name: LawName) -> Vec<f64> {
    // Shifts the level of a law of C to another axis: where the law gets to half.
    let scaled = |axis: Axis, c: f64, level: f64| level * place(300e6, 13e9, 400e6, 60.0).ln(axis).exp().powf(c);
    match name {
        LawName::Power(axis) => vec![scaled(axis, 0.11, 0.35), -0.11],
        LawName::Saturating(axis) => vec![scaled(axis, 0.3, 0.2), 0.3, 0.15],
        LawName::M4(axis) => vec![scaled(axis, 0.4, 0.5), 0.4, 1.5, 0.2, 0.95],
        LawName::Chinchilla => vec![60.0, 90.0, 0.15, 0.34, 0.28],
        LawName::ChinchillaTied => vec![60.0, 90.0, 0.15, 0.31],
        LawName::Shifted(axis) => {
            let shift = 0.3 * place(150e6, 2.56e9, 80e6, 7.4).ln(axis).exp();
            vec![scaled(axis, 0.35, 0.25), shift, 0.35, 0.12]
        }
        LawName::Bnsl(axis) => {
            let middle = place(300e6, 10e9, 400e6, 40.0).ln(axis).exp();
            vec![0.1, scaled(axis, 0.1, 0.4), 0.1, 0.25, middle, 0.4]
        }
        LawName::Gadre => vec![80.0, 110.0, 0.15, 0.15],
        LawName::Repeated => vec![60.0, 90.0, 0.15, 0.34, 0.28, 12.0, 5.0],
        LawName::RepeatedData => vec![60.0, 90.0, 0.15, 0.34, 0.28, 12.0],
        LawName::Bounded => vec![60.0, 90.0, 0.1, 0.3, 0.28, 0.5, 0.2, 0.25],
        LawName::BoundedNd => vec![60.0, 90.0, 0.1, 0.3, 0.28],
        LawName::Downstream => vec![0.95, 1.8, 1.7],
        LawName::Sigmoid => vec![0.95, 0.15, 4.0, 0.9],
        LawName::Additive => vec![60.0, 90.0, 40.0, 0.1, 0.34, 0.28, 0.3],
    }
}

fn sample(law: &dyn Law, theta: &[f64]) -> Sample {
    let inputs = grid();
    let ln_y: Vec<f64> = inputs.iter().map(|x| law.ln_at(theta, x)).collect();
    Sample { weights: vec![1.0; ln_y.len()], jobs: (0..ln_y.len()).collect(), inputs, ln_y }
}

/// Parameters at `shares` of their ranges, internal scale.
fn within(law: &dyn Law, shares: &[f64]) -> Vec<f64> {
    let between = |(parameter, share): (&Parameter, &f64)| {
        let (low, high) = parameter.range;
        match parameter.scale {
            Scale::Linear => low + share * (high - low),
            Scale::Log => low.ln() + share * (high / low).ln(),
        }
    };
    law.parameters().iter().zip(shares).map(between).collect()
}

/// Whether differences can tell derivatives: not next to a kink, nor where the law ends.
fn differences_tell(law: &dyn Law, theta: &[f64], x: &Input) -> bool {
    match law.name() {
        LawName::Repeated => {
            let best = (theta[3] + theta[0] - theta[4] - theta[1] + theta[4].exp() * x.ln_u) / theta[3].exp();
            (best - x.ln_n).abs() > 0.05
        }
        LawName::Downstream => law.ln_at(theta, x) > -2.0,
        _ => true,
    }
}

proptest! {
    #[test]
    fn gradients_and_curvatures_are_those_of_the_value(
        shares in proptest::collection::vec(0.0..1.0f64, PARAMETERS_MAX), n in 1e6..1e10f64, d in 1e7..1e11f64,
        u in 1e6..1e10f64, gmacs in 1.0..500.0f64,
    ) {
        let x = place(n, d, u, gmacs);
        for &name in LawName::ALL {
            let law = name.law(0.999);
            let near = |&at: &f64, &share: &f64| at + 0.2 * (share - 0.5);
            let true_theta = internal(law.as_ref(), &truth(name));
            let around: Vec<f64> = true_theta.iter().zip(&shares).map(|(at, share)| near(at, share)).collect();
            for theta in [within(law.as_ref(), &shares), around] {
                if differences_tell(law.as_ref(), &theta, &x) {
                    derivatives_agree(law.as_ref(), &theta, &x).map_err(TestCaseError::fail)?;
                }
            }
        }
    }

    #[test]
    fn a_separable_law_is_the_sum_of_its_basis(
        shares in proptest::collection::vec(0.0..1.0f64, PARAMETERS_MAX), n in 1e6..1e10f64, d in 1e7..1e11f64,
        u in 1e6..1e10f64,
    ) {
        let x = place(n, d, u, 50.0);
        for &name in LawName::ALL {
            let law = name.law(0.999);
            let Some(separable) = law.separable() else { continue };
            let theta = within(law.as_ref(), &shares);
            let ln_y = law.ln_at(&theta, &x);
            if name == LawName::Downstream && ln_y.is_nan() {
                continue;
            }
            let Some((response, slope)) = separable.response(&theta, ln_y) else { continue };
            // So close to an end of the law that ln y no longer tells how close.
            if slope.abs() > 1e4 * response.abs() {
                continue;
            }
            let mut basis = [0.0; PARAMETERS_MAX];
            separable.basis(&theta, &x, &mut basis);
            let terms: Vec<f64> =
                separable.coefficients().iter().zip(basis).map(|(&index, basis)| theta[index].exp() * basis).collect();
            let size: f64 = terms.iter().map(|term| term.abs()).sum();
            let sum: f64 = terms.iter().sum();
            let rounding = 1e-9 * size * (1.0 + slope.abs() / response.abs());
            prop_assert!((sum - response).abs() <= rounding, "{name}: {sum} {response}");
            let step = 1e-6;
            if let (Some(up), Some(down)) =
                (separable.response(&theta, ln_y + step), separable.response(&theta, ln_y - step))
            {
                let measured = (up.0 - down.0) / (2.0 * step);
                prop_assert!((measured - slope).abs() <= 1e-3 * slope.abs(), "{name}: {measured} {slope}");
            }
        }
    }

    #[test]
    fn values_stay_finite_far_out(
        shares in proptest::collection::vec(-3.0..4.0f64, PARAMETERS_MAX), n in 1.0..1e15f64, d in 1.0..1e15f64,
        u in 1.0..1e15f64,
    ) {
        let x = place(n, d, u, 1e3);
        for &name in LawName::ALL {
            let law = name.law(0.999);
            let theta = within(law.as_ref(), &shares);
            let mut gradient = vec![0.0; theta.len()];
            let ln_y = law.log_value(&theta, &x, &mut gradient);
            if name == LawName::Downstream && ln_y.is_nan() {
                continue;
            }
            prop_assert!(ln_y.is_finite(), "{name} at {theta:?}: {ln_y}");
            prop_assert!(gradient.iter().all(|slope| slope.is_finite()), "{name} at {theta:?}: {gradient:?}");
        }
    }
}

#[test]
fn names_read_back_and_say_what_they_are() {
    for &name in LawName::ALL {
        assert_eq!(name.to_string().parse::<LawName>(), Ok(name));
        let law = name.law(1.0);
        assert_eq!(law.name(), name);
        assert!(law.parameters().len() <= PARAMETERS_MAX && !law.axes().is_empty(), "{name}");
        for axis in law.axes().iter().filter(|axis| **axis != Axis::C || law.axes().len() == 1) {
            assert!(law.formula().contains(&axis.to_string()), "{name}: {} lacks {axis}", law.formula());
        }
        for (index, parameter) in law.parameters().iter().enumerate() {
            assert!(law.formula().contains(parameter.name), "{name}: {} lacks {}", law.formula(), parameter.name);
            assert!(parameter.range.0 < parameter.range.1, "{name} {}", parameter.name);
            assert!(law.parameters()[..index].iter().all(|other| other.name != parameter.name), "{name}");
        }
        let values = truth(name);
        let back = natural(law.as_ref(), &internal(law.as_ref(), &values));
        assert!(values.iter().zip(&back).all(|(a, b)| (a - b).abs() <= 1e-12 * a.abs()), "{name}");
        if let Some(separable) = law.separable() {
            let mut indices = [separable.coefficients(), separable.shapes()].concat();
            indices.sort_unstable();
            assert_eq!(indices, (0..law.parameters().len()).collect::<Vec<_>>(), "{name}");
            assert!(
                separable.coefficients().iter().all(|&index| law.parameters()[index].scale == Scale::Log),
                "{name}"
            );
        }
    }
    assert!("power-x".parse::<LawName>().is_err() && "".parse::<LawName>().is_err());
    assert_eq!("power".parse::<LawName>(), Ok(LawName::Power(Axis::C)));
    assert_eq!("m4-d".parse::<LawName>(), Ok(LawName::M4(Axis::D)));
}

#[test]
fn starts_are_in_the_laws_domain() {
    for &name in LawName::ALL {
        let law = name.law(0.999);
        let sample = sample(law.as_ref(), &internal(law.as_ref(), &truth(name)));
        let starts = law.starts(&sample.inputs, &sample.ln_y);
        assert!(law.separable().is_some() || !starts.is_empty(), "{name} has no starts");
        for start in starts {
            assert_eq!(start.len(), law.parameters().len(), "{name}");
            assert!(start.iter().all(|value| value.is_finite()), "{name}: {start:?}");
            let value = Problem::new(law.as_ref(), &sample, Objective::LS_LOG).value(&start);
            assert!(value.is_finite(), "{name}: {start:?} gives {value}");
        }
    }
}

#[test]
fn noise_free_data_give_every_law_back() {
    for &name in LawName::ALL {
        let law = name.law(0.999);
        let theta = internal(law.as_ref(), &truth(name));
        let sample = sample(law.as_ref(), &theta);
        assert!(sample.ln_y.iter().all(|ln_y| (-4.0..0.0).contains(ln_y)), "{name}: {:?}", sample.ln_y);
        let solution = solve(&Problem::new(law.as_ref(), &sample, Objective::LS_LOG), 16, 0);
        let rms = (solution.best.value / sample.len() as f64).sqrt();
        assert!(rms < 1e-5 && solution.status != Status::NotMoved, "{name}: off by {rms}, {:?}", solution.status);
    }
}
