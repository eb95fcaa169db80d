//! Tests of the choice on studies whose law is known.

use super::*;
use crate::backtest::Split;
use crate::backtest::tests::{curve, study};
use crate::law::Axis;
use crate::observation::{Reason, Response};

fn contest(split: Split) -> Contest {
    // Four laws: what all of them would say costs minutes and tests no more.
    let laws = ["power", "saturating", "chinchilla", "chinchilla-tied"].map(law).to_vec();
    Contest { laws, ..Contest::new(split, Options { starts: 8, ..Options::new(Response::Loss) }) }
}

fn law(name: &str) -> LawName {
    name.parse().unwrap()
}

fn entry<'a>(choice: &'a Choice, law: &str, objective: &str) -> &'a Contender {
    let objective: Objective = objective.parse().unwrap();
    let found = choice.contenders.iter().find(|one| one.law.as_str() == law && one.objective == objective);
    found.unwrap_or_else(|| panic!("no {law} by {objective} in {:#?}", choice.contenders))
}

#[test]
fn the_default_is_kept_where_it_is_right() {
    for seed in 0..3 {
        let choice = choose(&study(0.01, seed), &contest(Split::Rolling(Axis::C))).unwrap();
        assert_eq!((choice.default, choice.law, choice.is_switch()), (law("chinchilla"), law("chinchilla"), false));
        assert_eq!(choice.objective, Objective::LS_LOG);
        assert!(choice.sentence.starts_with("chinchilla by ls-log is kept: RMSLE 0.0"), "{choice}");
        let own = entry(&choice, "chinchilla", "ls-log");
        assert!((own.against_default.unwrap() - 1.0).abs() < 1e-12 && own.cuts_won == 0);
        assert!((own.in_sample_rmsle - 0.01).abs() < 0.005, "{own:?}");
    }
}

#[test]
fn a_rival_that_halves_the_error_takes_its_place() {
    // Errors stop falling at a floor, which a straight line can't know.
    let mut rows = curve(0.002, 1e30, 5);
    for row in &mut rows {
        row.error = 0.3 + 2e3 * row.compute.powf(-0.22) * row.error;
    }
    let contest = Contest {
        laws: vec![law("power"), law("saturating")],
        default: Some(law("power")),
        ..contest(Split::Rolling(Axis::C))
    };
    let choice = choose(&rows, &contest).unwrap();
    assert_eq!(choice.law, law("saturating"), "{choice}");
    assert!(choice.is_switch() && choice.sentence.contains("gives way to saturating"), "{choice}");
    let (power, saturating) = (entry(&choice, "power", "ls-log"), entry(&choice, "saturating", "ls-log"));
    assert!(saturating.against_default.unwrap() <= SWITCH && saturating.cuts_won > saturating.cuts / 2);
    assert!(power.criteria.unwrap().aicc.unwrap() > saturating.criteria.unwrap().aicc.unwrap());
    assert!(power.criteria.unwrap().bic > saturating.criteria.unwrap().bic);
    assert!(power.in_sample_rmsle > saturating.in_sample_rmsle);
    // Least first.
    let rmsle: Vec<f64> = choice.contenders.iter().map(|one| one.held_out.as_ref().unwrap().rmsle).collect();
    assert!(rmsle.is_sorted(), "{rmsle:?}");
}

#[test]
fn a_row_with_its_own_delta_stands_beside() {
    let choice = choose(&study(0.01, 1), &contest(Split::Rolling(Axis::D))).unwrap();
    let own: Vec<&Contender> = choice.contenders.iter().filter(|one| one.auto_delta).collect();
    assert!(own.iter().any(|one| one.law == law("chinchilla")));
    for one in own {
        let share = one.quadratic_share.unwrap();
        assert!((0.5..=1.0).contains(&share), "{one:?}");
    }
    // Of 20 residuals of 1 %, few lie within 1e-3.
    assert!(entry(&choice, "chinchilla", "huber:0.001").quadratic_share.unwrap() < 0.5);
    assert_eq!(entry(&choice, "chinchilla", "lad").quadratic_share, None);
}

#[test]
fn laws_that_cannot_take_part_are_named() {
    let mut rows = study(0.01, 1);
    let of =
        |choice: &Choice, name: &str| choice.left_out.iter().find(|left| left.law == law(name)).map(|left| left.why);
    for row in rows.iter_mut().take(15) {
        row.samples_seen = f64::NAN;
    }
    let choice = choose(&rows, &contest(Split::Rolling(Axis::C))).unwrap();
    assert_eq!(of(&choice, "chinchilla"), Some(WhyNot::Lacks { axis: Axis::D, lacking: 15, of: 20 }));
    assert_eq!((of(&choice, "power"), choice.rows), (None, 20));
    let one_model: Vec<_> = curve(0.01, 1e30, 0);
    let choice = choose(&one_model, &contest(Split::Rolling(Axis::C))).unwrap();
    assert_eq!(of(&choice, "chinchilla"), Some(WhyNot::OneValue { axis: Axis::N }));
    let few = choose(&study(0.01, 1)[..6], &contest(Split::Rolling(Axis::C))).unwrap();
    assert_eq!(of(&few, "chinchilla"), Some(WhyNot::TooFewPoints { parameters: 5, points: 6, needed: 10 }));
    assert_eq!(few.left_out[0].to_string().split(':').next(), Some(few.left_out[0].law.as_str()));
    let none = choose(&[], &contest(Split::Rolling(Axis::C))).unwrap();
    assert!(none.contenders.is_empty() && none.sentence.contains("is kept untested"), "{none}");
}

#[test]
fn rows_that_some_law_cannot_use_are_used_by_none() {
    let mut rows = study(0.01, 1);
    rows[3].samples_seen = f64::NAN;
    let choice = choose(&rows, &contest(Split::Rolling(Axis::C))).unwrap();
    assert_eq!((choice.rows, choice.excluded.len()), (19, 1));
    let cuts: Vec<usize> = choice.contenders.iter().map(|one| one.cuts + one.skipped.len()).collect();
    assert!(cuts.iter().all(|count| *count == cuts[0]));
}

fn between_two() -> Contest {
    Contest { laws: vec![law("chinchilla"), law("bounded-nd")], ..contest(Split::Rolling(Axis::C)) }
}

#[test]
fn laws_that_end_at_guessing_want_to_know_where_it_is() {
    let mut rows = study(0.01, 1);
    let unknown = choose(&rows, &between_two()).unwrap();
    assert_eq!(unknown.left_out, [LeftOut { law: law("bounded-nd"), why: WhyNot::NoCeiling }]);
    assert_eq!(
        unknown.left_out[0].to_string(),
        "bounded-nd: it ends at the loss of guessing, which the rows do not say"
    );
    assert_eq!((unknown.rows, unknown.law), (20, law("chinchilla")));
    // A space leaves no law to compare.
    let by = |objective: &str| Contest { objectives: vec![objective.parse().unwrap()], ..between_two() };
    assert!(matches!(choose(&rows, &by("ls-logit")), Err(FitError::NeedsCeiling { .. })));
    // Of a fraction it is at most 1.
    for row in &mut rows {
        row.error /= 10.0;
    }
    let mut fractions = between_two();
    fractions.options.response = Response::Fraction;
    assert_eq!(choose(&rows, &fractions).unwrap().left_out, []);
}

#[test]
fn rows_beyond_guessing_are_used_by_none_where_a_law_ends_there() {
    let mut rows = study(0.01, 1);
    // Said by a row alone that no law can use.
    rows.push(Observation { compute: f64::NAN, chance_error: Some(8.0), job_key: "f".repeat(64), ..rows[0].clone() });
    rows[3].error = 8.5;
    let choice = choose(&rows, &between_two()).unwrap();
    assert_eq!((choice.left_out.len(), choice.rows), (0, 19));
    let beyond = choice.excluded.iter().find(|out| out.job_key == rows[3].job_key).unwrap();
    assert!(matches!(beyond.reason, Reason::AtCeiling(_)), "{beyond:?}");
    let cuts = |one: &Contender| one.cuts + one.skipped.len();
    assert!(choice.contenders.iter().all(|one| one.cuts > 0 && cuts(one) == cuts(&choice.contenders[0])));
    let open = Contest { laws: vec![law("chinchilla")], ..between_two() };
    assert_eq!(choose(&rows, &open).unwrap().rows, 20);
    // Too few are left for the one: the other keeps them all.
    for row in rows.iter_mut().take(11) {
        row.error = 8.5;
    }
    let few = choose(&rows, &between_two()).unwrap();
    assert_eq!(few.left_out[0].why, WhyNot::TooFewPoints { parameters: 5, points: 9, needed: 10 });
    assert_eq!(few.rows, 20);
}

#[test]
fn the_default_follows_the_axes() {
    assert_eq!(default_law(&study(0.0, 0)), law("chinchilla"));
    assert_eq!(default_law(&[]), law("power"));
    let mut rows = curve(0.0, 1e30, 0);
    rows.truncate(8);
    assert_eq!(default_law(&rows), law("power"));
}

#[test]
fn order_changes_nothing() {
    let rows = study(0.01, 2);
    let mut reversed = rows.clone();
    reversed.reverse();
    let contest = contest(Split::Rolling(Axis::N));
    let (a, b) = (choose(&rows, &contest).unwrap(), choose(&reversed, &contest).unwrap());
    assert_eq!((a.sentence, a.contenders), (b.sentence, b.contenders));
}
