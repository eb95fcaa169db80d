//! The solvers side by side, who watches them, and what ends them: all are run by argmin's `Executor`.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use fit::law::internal;
use fit::solve::{Ending, Minimum, Problem, Status, Step, solve};
use fit::solvers::agreement;
use fit::{
    Axis, Input, LawName, Method, Objective, Observation, Options, Response, Sample, SolverKind, Verdict, Watch, fit,
};
use proptest::prelude::*;

/// Rows of `E = 1.2 + 400/N^0.34 + 900/D^0.36` with noise.
fn rows() -> Vec<Observation> {
    (0..48)
        .map(|at: u32| {
            let (n, d) = (10f64.powf(6.0 + 0.4 * f64::from(at % 8)), 10f64.powf(7.0 + 0.5 * f64::from(at / 8)));
            let noise = 0.01 * (f64::from(at * 7919 % 101) / 50.0 - 1.0);
            Observation::of(
                format!("{at:064x}"),
                n,
                d,
                (1.2 + 400.0 / n.powf(0.34) + 900.0 / d.powf(0.36)) * noise.exp(),
            )
        })
        .collect()
}

fn options(law: LawName) -> Options {
    Options { law, starts: 8, resamples: 40, ..Options::new(Response::Loss) }
}

#[derive(Default)]
struct Counts {
    steps: AtomicU64,
    ended: AtomicU64,
    late: AtomicU64,
    /// Calls after which no time is left; 0: there is no limit.
    calls: u64,
    asked: AtomicU64,
}

struct Shared(Arc<Counts>);

impl Watch for Shared {
    fn time_left(&self) -> Option<Duration> {
        let asked = self.0.asked.fetch_add(1, Ordering::Relaxed);
        (self.0.calls > 0).then(|| if asked < self.0.calls { Duration::from_hours(1) } else { Duration::ZERO })
    }

    fn step(&self, step: &Step) {
        assert!(step.iteration > 0 && !step.cost.is_nan());
        self.0.steps.fetch_add(1, Ordering::Relaxed);
    }

    fn ended(&self, minimum: &Minimum) {
        self.0.ended.fetch_add(1, Ordering::Relaxed);
        self.0.late.fetch_add(u64::from(minimum.ending == Ending::TimeLimit), Ordering::Relaxed);
    }
}

#[test]
fn a_watcher_sees_every_step_and_changes_nothing() {
    for solver in SolverKind::ALL {
        let watch = Arc::new(Counts::default());
        let watched = Method::watched(solver, Shared(watch.clone()));
        let alone = Options { method: Method::by(solver), ..options(LawName::Chinchilla) };
        let (plain, seen) = (fit(&rows(), &alone), fit(&rows(), &Options { method: watched, ..alone.clone() }));
        let (plain, seen) = (plain.unwrap(), seen.unwrap());
        assert_eq!((&plain.solution, &plain.replicates), (&seen.solution, &seen.replicates), "{solver}");
        let (steps, ended) = (watch.steps.load(Ordering::Relaxed), watch.ended.load(Ordering::Relaxed));
        assert!(ended >= 8 + 40 && steps > ended, "{solver}: {steps} steps of {ended} searches");
        assert_eq!(watch.late.load(Ordering::Relaxed), 0);
    }
}

#[test]
fn iterations_are_argmins() {
    let watch = Arc::new(Counts::default());
    let method = Method::watched(SolverKind::Newton, Shared(watch.clone()));
    let law = LawName::Chinchilla.law(1.0);
    let sample = Sample::of(&rows(), &fit::select(fit::Points::All, &vec![(1.0, 1.0); rows().len()]));
    for objective in [Objective::LS_LOG, Objective::huber(1e-3), Objective::huber(1e-6), Objective::LAD] {
        let problem = Problem { method: &method, ..Problem::new(law.as_ref(), &sample, objective) };
        watch.steps.store(0, Ordering::Relaxed);
        let minimum = fit::solve::minimise(&problem, &fit::solve::starts(&problem, 1, 0)[0]);
        assert_eq!(watch.steps.load(Ordering::Relaxed), minimum.iterations as u64, "{objective}");
    }
}

#[test]
fn a_time_limit_ends_searches_and_is_said() {
    for solver in SolverKind::ALL {
        let limited = |calls| {
            let watch = Arc::new(Counts { calls, ..Counts::default() });
            let method = Method::watched(solver, Shared(watch.clone()));
            (fit(&rows(), &Options { method, ..options(LawName::Chinchilla) }).unwrap(), watch)
        };
        // No time from the start: each search is cut after an iteration, and what it has is kept.
        let (none, watch) = limited(1);
        assert_eq!((none.solution.status, none.verdict), (Status::TimeLimit, Verdict::TimeLimit), "{solver}");
        assert!(!none.verdict.is_trustworthy() && none.solution.best.value.is_finite());
        assert!(watch.late.load(Ordering::Relaxed) > 0);
        // Time for all searches, but not for the refits.
        let (some, _) = limited(30);
        assert!(some.resamples < some.resamples_asked, "{solver}: {}", some.resamples);
        assert_eq!(some.verdict, Verdict::TimeLimit, "{solver}");
        // What is drawn from it is not given as if it were found.
        let at = fit::Input::on(Axis::N, 1e9).with(Axis::D, 1e10);
        assert!(some.profile_at(&at).low.is_nan() && some.profile_at(&at).words("y").unwrap().contains("time"));
        let again = Options { method: some.method.clone(), ..options(LawName::Chinchilla) };
        let without = fit::influence::influence(&some, &again, None);
        assert!(without.effects.iter().all(|effect| effect.unfit == Some("its time was used up")), "{solver}");
        let split = fit::backtest::Split::Rolling(Axis::C);
        let tested = fit::backtest::backtest(&rows(), &again, &fit::backtest::HoldOut::new(split)).unwrap();
        assert!(
            tested.cuts.is_empty() && tested.skipped.iter().all(|cut| cut.to_string().contains("its time was used up"))
        );
        // Time enough.
        let (all, watch) = limited(u64::MAX);
        assert_eq!(watch.late.load(Ordering::Relaxed), 0);
        let free = fit(&rows(), &Options { method: Method::by(solver), ..options(LawName::Chinchilla) }).unwrap();
        assert_eq!((all.solution, all.verdict), (free.solution, free.verdict), "{solver}");
    }
}

#[test]
fn the_solver_is_in_what_is_stored() {
    let fitted = fit(&rows(), &Options { method: Method::by(SolverKind::TrustRegion), ..options(LawName::Chinchilla) });
    assert_eq!(serde_json::to_value(fitted.unwrap()).unwrap()["solver"], "trust-region");
    assert_eq!(serde_json::to_value(options(LawName::Chinchilla)).unwrap()["solver"], "newton");
    assert_eq!("lbfgs".parse(), Ok(SolverKind::Lbfgs));
    assert_eq!("adam".parse::<SolverKind>(), Err("allowed are newton, lbfgs and trust-region".to_owned()));
}

#[test]
fn solvers_that_differ_are_told_from_those_that_agree() {
    let by = |solver| {
        let options = Options { method: Method::by(solver), resamples: 0, ..options(LawName::Chinchilla) };
        (fit(&rows(), &options).unwrap(), None)
    };
    let mut fits = SolverKind::ALL.map(by).to_vec();
    let same = agreement(&fits);
    assert!(same.agree, "{same:?}");
    assert_eq!(same.optima[0].hits.iter().filter(|hits| **hits > 0).count(), 3, "{same:?}");
    // The same law with E 1 % off: neither the objective nor the parameters are the same.
    let best = &mut fits[1].0.solution.best;
    best.theta[2] += 0.01;
    best.value *= 1.1;
    let other = agreement(&fits);
    assert_eq!(other.solvers.iter().map(|one| one.agrees).collect::<Vec<_>>(), [true, false, true], "{other:?}");
    assert!(!other.agree && (other.solvers[1].parameter_off - 0.01).abs() < 1e-3);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    /// Random laws, noise, objectives and forms of three to five parameters.
    #[test]
    fn the_solvers_come_to_the_same_optimum(
        alpha in 0.2..0.6f64, beta in 0.2..0.6f64, share_a in 0.2..1.0f64, share_b in 0.2..1.0f64, e in 0.3..3.0f64,
        seed in 0..1000u32, form in 0..3usize, objective in 0..4usize,
    ) {
        let name = [LawName::Chinchilla, LawName::ChinchillaTied, LawName::Saturating(Axis::C)][form];
        let objective = [Objective::LS_LOG, Objective::LS, Objective::huber(1e-3), Objective::huber(1e-2)][objective];
        let law = LawName::Chinchilla.law(1.0);
        let a = share_a * e * 1e6f64.powf(alpha);
        let b = share_b * e * 1e7f64.powf(if form == 1 { alpha } else { beta });
        let truth = internal(law.as_ref(), &[a, b, e, alpha, if form == 1 { alpha } else { beta }]);
        let mut sample = Sample::default();
        for at in 0..64u32 {
            let n = 10f64.powf(6.0 + 3.0 * f64::from(at % 8) / 7.0);
            let d = 10f64.powf(7.0 + 3.0 * f64::from(at / 8) / 7.0);
            let x = Input::on(Axis::N, n).with(Axis::D, d).with(Axis::C, 6.0 * n * d);
            let noise = 0.02 * (f64::from((at * 7919 + seed * 31) % 101) / 50.0 - 1.0);
            sample.inputs.push(x);
            sample.ln_y.push(law.ln_at(&truth, &x) + noise);
            sample.weights.push(1.0);
            sample.jobs.push(at as usize);
        }
        let fitted = name.law(1.0);
        let methods = SolverKind::ALL.map(Method::by);
        let solutions = methods.each_ref().map(|method| {
            solve(&Problem { method, ..Problem::new(fitted.as_ref(), &sample, objective) }, 8, 0)
        });
        let ours = &solutions[0];
        prop_assert!(ours.best.ending.is_minimum(), "{:?}", ours);
        // A form that the data do not hold may run to its limit, where argmin's solvers creep along a flat valley.
        prop_assume!(ours.best.ending == Ending::Converged);
        for (solution, solver) in solutions[1..].iter().zip(&SolverKind::ALL[1..]) {
            let (mine, theirs) = (ours.best.value, solution.best.value);
            prop_assert!((mine - theirs).abs() <= 1e-8 * mine, "{name} {objective} {solver}: {theirs} against {mine}");
            for (mine, theirs) in ours.best.theta.iter().zip(&solution.best.theta) {
                prop_assert!(
                    (mine - theirs).abs() <= 1e-3 * mine.abs().max(1.0),
                    "{name} {objective} {solver}: {theirs} against {mine}"
                );
            }
        }
    }
}
