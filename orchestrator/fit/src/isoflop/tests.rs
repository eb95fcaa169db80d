//! Tests of the IsoFLOP analysis on surfaces whose optimum is known in closed form.

use super::*;
use crate::backtest::tests::row;
use crate::law::{LawName, internal};

/// A, B, E, alpha, beta.
const UNEQUAL: [f64; 5] = [482.0, 2085.43, 1.8172, 0.3478, 0.3658];
const EQUAL: [f64; 5] = [406.4, 410.7, 1.69, 0.31, 0.31];

fn law() -> Box<dyn Law> {
    LawName::Chinchilla.law(1.0)
}

/// ln N of least loss with C = 6ND.
fn best(p: [f64; 5], c: f64) -> f64 {
    let [a, b, _, alpha, beta] = p;
    ((alpha * a / (beta * b)).ln() + beta * (c / 6.0).ln()) / (alpha + beta)
}

/// Seven budgets of eleven sizes from `1/spread` to `spread` times `shift` times the best.
fn grid(p: [f64; 5], spread: f64, shift: f64) -> Vec<Observation> {
    let [a, b, e, alpha, beta] = p;
    let mut rows = Vec::new();
    for budget in 0..7 {
        let c = 1e18 * 4f64.powi(budget);
        for size in 0..11 {
            let n = (best(p, c) + shift.ln() + spread.ln() * (f64::from(size) / 5.0 - 1.0)).exp();
            let d = c / 6.0 / n;
            rows.push(row(rows.len(), n, d, d, e + a * n.powf(-alpha) + b * d.powf(-beta)));
        }
    }
    rows
}

fn analyse(p: [f64; 5], rows: &[Observation]) -> IsoFlop {
    let (law, cost) = (law(), Cost::six_nd());
    let theta = internal(law.as_ref(), &p);
    isoflop(rows, Some(Surface { law: law.as_ref(), theta: &theta }), Setting::new(&cost))
}

#[test]
fn a_centred_parabola_of_equal_exponents_has_no_bias() {
    let found = analyse(EQUAL, &grid(EQUAL, 8.0, 1.0));
    assert_eq!((found.budgets.len(), found.rows_left_out), (7, 0));
    for budget in &found.budgets {
        let ln_n = best(EQUAL, budget.compute);
        for optimum in [budget.surface.unwrap(), budget.parabola.unwrap(), budget.akima.unwrap()] {
            assert!((optimum.parameters.ln() - ln_n).abs() < 1e-5, "{budget:?}");
            assert!((6.0 * optimum.parameters * optimum.samples_seen / budget.compute - 1.0).abs() < 1e-9);
        }
        assert!(budget.parabola_bias.unwrap().abs() < 1e-6 && budget.flags.is_empty(), "{budget:?}");
    }
    for exponent in [found.surface, found.parabola, found.akima] {
        assert!((exponent.unwrap().a - 0.5).abs() < 1e-6 && exponent.unwrap().budgets == 7);
    }
}

/// With v = alpha (ln N - ln N*) and equal exponents, ln L = ln(E + K cosh v). About v a narrow parabola's vertex is
/// off by `(1 - 3 k) v^3 / 3`, k = K / (E + K): towards the grid where E is most of the loss, away from it where it is
/// least.
#[test]
fn the_bias_of_an_off_centre_parabola_has_the_sign_that_the_surface_says() {
    for (e, towards) in [(20.0, 1.0), (1e-3, -1.0)] {
        let p = [406.4, 410.7, e, 0.31, 0.31];
        for (shift, side) in [(3.0, 1.0), (1.0 / 3.0, -1.0)] {
            for budget in &analyse(p, &grid(p, 2.0, shift)).budgets {
                let bias = budget.parabola_bias.unwrap();
                assert!(side * towards * bias > 0.005, "{e} {shift} {bias}");
                // Noise-free rows: the parabola is wrong by the bias and nothing else.
                let error = budget.parabola.unwrap().parameters.ln() - budget.surface.unwrap().parameters.ln();
                assert!((error - bias).abs() < 1e-6);
                assert!(
                    budget.flags.iter().any(|flag| matches!(flag, Flag::OffCentre { share } if share * side < -1.0))
                );
            }
        }
    }
}

#[test]
fn unequal_exponents_bias_a_centred_parabola_more_the_wider_it_is() {
    let far = [406.4, 410.7, 1.69, 0.5, 0.2];
    let bias = |spread| analyse(far, &grid(far, spread, 1.0)).budgets[3].parabola_bias.unwrap().abs();
    let (narrow, wide) = (bias(2.0), bias(16.0));
    assert!(narrow > 1e-4 && wide > 5.0 * narrow, "{narrow} {wide}");
    let found = analyse(UNEQUAL, &grid(UNEQUAL, 4.0, 1.0));
    let expected = 0.3658 / (0.3478 + 0.3658);
    assert!((found.surface.unwrap().a - expected).abs() < 1e-6);
    // Every budget is wrong by the same factor, so the exponent is right though the level is not.
    assert!((found.parabola.unwrap().a - expected).abs() < 1e-3);
}

#[test]
fn an_optimum_beyond_the_grid_is_flagged_and_not_used() {
    let found = analyse(EQUAL, &grid(EQUAL, 3.0, 20.0));
    for budget in &found.budgets {
        assert!(budget.akima.is_none() && budget.at_edge(Method::Akima) && budget.at_edge(Method::Parabola));
    }
    assert!(found.akima.is_none() && found.parabola.is_none());
    assert!((found.surface.unwrap().a - 0.5).abs() < 1e-6);
}

#[test]
fn what_is_no_budget_is_left_out_and_what_is_thin_is_flagged() {
    let mut rows = grid(EQUAL, 4.0, 1.0);
    rows.truncate(14);
    rows.push(row(99, 1e9, 1e15, 1e9, 2.0));
    rows.push(row(100, f64::NAN, 1e9, 1e9, 2.0));
    let found = analyse(EQUAL, &rows);
    assert_eq!((found.budgets.len(), found.rows_left_out), (2, 2));
    assert_eq!((found.budgets[1].sizes, found.budgets[1].flags[0]), (3, Flag::TooFewSizes { sizes: 3 }));
    assert!(found.budgets[1].parabola.is_none() && found.budgets[1].surface.is_some());
    let cost = Cost::six_nd();
    assert!(isoflop(&[], None, Setting::new(&cost)).budgets.is_empty());
    let mut reversed = rows.clone();
    reversed.reverse();
    assert_eq!(analyse(EQUAL, &reversed), found);
    // A hump has no optimum.
    let losses = [(1e7, 1.0), (1e8, 1.2), (1e9, 1.3), (1e10, 1.2), (1e11, 1.0)];
    let hump: Vec<Observation> =
        losses.iter().map(|&(n, loss)| row((n as usize) % 97, n, 1e20 / n, 1e9, loss)).collect();
    let flags = &isoflop(&hump, None, Setting::new(&cost)).budgets[0].flags;
    assert!(flags.contains(&Flag::NotConvex) && flags.contains(&Flag::Edge { method: Method::Akima }));
}
