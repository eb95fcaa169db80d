//! What is said rests on more than rounding: errors that do not change, or only in their last digits.

use fit::compare::{CompareOptions, compare};
use fit::cost::Cost;
use fit::isoflop::{Setting, isoflop};
use fit::{Axis, LawName, Observation, Options, Response, Verdict, fit};

fn options(law: LawName) -> Options {
    Options { law, starts: 8, resamples: 40, ..Options::new(Response::Loss) }
}

#[test]
fn what_does_not_change_beyond_rounding_is_no_scaling() {
    // One number, and one number but for its last digits, rising and falling.
    for slope in [0.0, 1e-16, -1e-16, 1e-12, -1e-12] {
        let rows: Vec<Observation> = (0..12)
            .map(|job: u32| {
                let n = 10f64.powf(6.0 + 0.3 * f64::from(job));
                Observation::of(format!("{job:064x}"), n, 20.0 * n, 0.3 * (1.0 + slope * f64::from(job)))
            })
            .collect();
        for law in [LawName::Power(Axis::C), LawName::Power(Axis::N)] {
            let fitted = fit(&rows, &Options { resamples: 200, ..options(law) }).unwrap();
            assert_eq!(fitted.verdict, Verdict::NoScaling, "{slope}: {:?}", fitted.parameters);
        }
    }
    // A hundredth of a per cent over the range is an effect, if it is certain.
    let rows: Vec<Observation> = (0..12)
        .map(|job: u32| {
            let n = 10f64.powf(6.0 + 0.3 * f64::from(job));
            Observation::of(format!("{job:064x}"), n, 20.0 * n, 0.3 * (1e-5 * f64::from(job)).exp())
        })
        .collect();
    assert_eq!(fit(&rows, &options(LawName::Power(Axis::C))).unwrap().verdict, Verdict::WrongWay);
}

#[test]
fn sizes_that_do_as_well_to_the_last_digit_have_no_best() {
    // Five sizes at each of three computes, all of error 0.3; once with a parabola of a part in 1e12.
    let rows = |bend: f64| -> Vec<Observation> {
        (0..15)
            .map(|job: u32| {
                let (n, c) = (10f64.powf(6.0 + 0.5 * f64::from(job % 5)), 10f64.powi(17 + (job / 5).cast_signed()));
                Observation::of(
                    format!("{job:064x}"),
                    n,
                    c / (6.0 * n),
                    0.3 * (1.0 + bend * (f64::from(job % 5) - 2.0).powi(2)),
                )
            })
            .collect()
    };
    let cost = Cost::six_nd();
    for bend in [0.0, 1e-16, 1e-12] {
        let found = isoflop(&rows(bend), None, Setting::new(&cost));
        assert_eq!(found.budgets.len(), 3);
        for budget in &found.budgets {
            assert!(budget.parabola.is_none() && budget.akima.is_none(), "{bend}: {budget:?}");
        }
    }
    let found = isoflop(&rows(1e-3), None, Setting::new(&cost));
    assert!(found.budgets.iter().all(|budget| budget.parabola.is_some() && budget.akima.is_some()), "{found:?}");
}

#[test]
fn of_two_families_that_do_as_well_none_is_better() {
    let family = |off: f64| {
        let rows: Vec<Observation> = (0..8)
            .map(|job: u32| {
                let n = 10f64.powf(6.0 + 0.3 * f64::from(job));
                Observation::of(format!("{job:064x}"), n, 20.0 * n, (2.0 - 0.1 * n.ln()).exp() * (1.0 + off))
            })
            .collect();
        fit(&rows, &options(LawName::Power(Axis::C))).unwrap()
    };
    let a = family(0.0);
    for off in [1e-15, -1e-15, 1e-10] {
        let found =
            compare(&a, &family(off), &CompareOptions { draws: 200, ..CompareOptions::new(vec![1e18]) }).unwrap();
        assert_eq!((found.at[0].a_better, found.crossover.compute), (0.0, None), "{off}: {found:?}");
        assert_eq!((found.crossover.share, found.crossover.a_throughout), (0.0, 0.0), "{off}: {found:?}");
    }
    let better = compare(&a, &family(1e-3), &CompareOptions { draws: 200, ..CompareOptions::new(vec![1e18]) }).unwrap();
    assert!((better.at[0].a_better - 1.0).abs() < 1e-12, "{better:?}");
}
