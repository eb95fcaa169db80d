//! Properties of intervals, profiles, forecasts and the noise model.

use fit::law::{Input, LawName};
use fit::solve::Problem;
use fit::{
    Axis, Convention, Coordinate, Evaluation, Identified, IntervalKind, Intervals, NoiseModel, Objective, Observation,
    Options, Points, Prediction, Resampling, Response, Space, Weighting, fit,
};
use proptest::prelude::*;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

fn row(job: usize, compute: f64, error: f64) -> Observation {
    Observation {
        job_key: format!("{job:064x}"),
        model: "B-32".to_owned(),
        parameters: 1e8,
        samples_seen: compute / 10.0,
        unique_samples: 1e6,
        compute,
        proxy_loss: f64::NAN,
        convention: Convention::GmacsSamples,
        error,
        standard_error: None,
        chance_error: None,
        count: None,
        gpu_hours: None,
    }
}

fn normal(random: &mut ChaCha8Rng) -> f64 {
    let (u, v): (f64, f64) = (random.random_range(f64::EPSILON..1.0), random.random());
    (-2.0 * u.ln()).sqrt() * (std::f64::consts::TAU * v).cos()
}

/// `jobs` jobs over three decades of C about `0.9 (C / 1e6)^-0.1`.
fn rows(jobs: usize, sd: f64, seed: u64) -> Vec<Observation> {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    (0..jobs)
        .map(|job| {
            let compute = 1e6 * 1e3f64.powf(job as f64 / (jobs - 1) as f64);
            row(job, compute, 0.9 * (compute / 1e6).powf(-0.1) * (sd * normal(&mut random)).exp())
        })
        .collect()
}

fn options() -> Options {
    Options { resamples: 300, ..Options::new(Response::Fraction) }
}

/// Two-sided 5 % points of Student's t for 3 to 18 degrees of freedom, from tables.
const T: [f64; 16] = [
    3.182_446_305_284_263,
    2.776_445_105_197_799,
    2.570_581_835_636_314,
    2.446_911_851_144_969,
    2.364_624_251_592_785,
    2.306_004_135_204_166,
    2.262_157_162_798_205,
    2.228_138_851_986_274,
    2.200_985_160_091_64,
    2.178_812_829_667_229,
    2.160_368_656_462_792,
    2.144_786_687_917_804,
    2.131_449_545_559_323,
    2.119_905_299_221_011,
    2.109_815_577_833_181,
    2.100_922_040_240_961,
];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// F1 by least squares of ln E is a straight line: slope and prediction have textbook intervals.
    #[test]
    fn a_profile_of_a_straight_line_is_students_interval(seed in 0u64..1000, jobs in 5usize..=20, at in 4.0..12.0f64) {
        let rows = rows(jobs, 0.05, seed);
        let fit = fit(&rows, &Options { resamples: 1, response: Response::Loss, ..options() }).unwrap();
        let n = jobs as f64;
        let x: Vec<f64> = rows.iter().map(|row| row.compute.ln()).collect();
        let mean = x.iter().sum::<f64>() / n;
        let xx: f64 = x.iter().map(|x| (x - mean).powi(2)).sum();
        let s = (fit.solution.best.value / (n - 2.0)).sqrt();
        let t = T[jobs - 5];

        let slope = fit.intervals(Intervals::Profile, &options()).remove(1);
        prop_assert_eq!((slope.name, slope.identified, slope.words), ("alpha", Some(Identified::Both), None));
        let half = t * s / xx.sqrt();
        prop_assert!((slope.interval.value - half - slope.interval.low).abs() < 1e-6 * half, "{:?}", slope.interval);
        prop_assert!((slope.interval.value + half - slope.interval.high).abs() < 1e-6 * half, "{:?}", slope.interval);

        let x = Input::on(Axis::C, 10f64.powf(at));
        let profile = fit.profile_of(&Prediction { law: fit.form().as_ref(), x });
        let half = t * s * (1.0 / n + (x.ln_c - mean).powi(2) / xx).sqrt();
        prop_assert!((profile.value - half - profile.low).abs() < 1e-6 * half);
        prop_assert!((profile.value + half - profile.high).abs() < 1e-6 * half);
        prop_assert!(profile.curve.windows(2).all(|pair| pair[0].0 <= pair[1].0));

        let forecast = fit.forecast_by_profile(&x, Evaluation::AsObserved);
        let half = t * s * (1.0 + 1.0 / n + (x.ln_c - mean).powi(2) / xx).sqrt();
        prop_assert!((forecast.prediction.low.ln() - (profile.value - half)).abs() < 1e-6);
    }

    #[test]
    fn every_interval_holds_its_estimate(seed in 0u64..1000, jobs in 3usize..16, sd in 0.0..0.3f64) {
        let rows = rows(jobs, sd, seed);
        for (interval, resampling) in IntervalKind::ALL.into_iter().zip([Resampling::Pairs, Resampling::Wild].repeat(2)) {
            let options = Options { interval, resampling, resamples: 40, ..options() };
            let Ok(fit) = fit(&rows, &options) else { continue };
            for by in [Intervals::Bootstrap(Resampling::SeedNoise), Intervals::Profile] {
                for stated in fit.intervals(by, &options) {
                    prop_assert!(stated.interval.holds(stated.interval.value), "{by} {stated:?}");
                }
            }
            prop_assert!(fit.parameters.iter().all(|parameter| parameter.interval.holds(parameter.interval.value)));
            let forecast = fit.forecast(&Input::on(Axis::C, 1e11), Evaluation::Count(50_000.0));
            prop_assert!(forecast.law.holds(forecast.law.value) && forecast.prediction.holds(forecast.law.low));
        }
    }
}

#[test]
fn threads_do_not_change_a_resample() {
    let one_thread = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
    let rows = rows(14, 0.05, 3);
    for resampling in Resampling::ALL {
        let options = Options { resampling, restarts: 2, interval: IntervalKind::ExpandedBca, ..options() };
        let a = fit(&rows, &options).unwrap();
        let b = one_thread.install(|| fit(&rows, &options).unwrap());
        assert_eq!((a.replicates, a.jackknife, a.parameters), (b.replicates, b.jackknife, b.parameters));
    }
}

#[test]
fn ways_to_an_interval_agree_where_all_are_right() {
    let rows = rows(60, 0.05, 1);
    let options = Options { resamples: 2000, ..options() };
    let fit = fit(&rows, &options).unwrap();
    let pairs = fit.interval("alpha");
    for by in [
        Intervals::Bootstrap(Resampling::Wild),
        Intervals::Bootstrap(Resampling::SeedNoise),
        Intervals::Profile,
        Intervals::Bootstrap(Resampling::Pairs),
    ] {
        let other = fit.intervals(by, &options)[1].interval;
        let ratio = (other.high - other.low) / (pairs.high - pairs.low);
        assert!((0.8..1.25).contains(&ratio), "{by}: {other:?}, pairs: {pairs:?}");
    }
}

#[test]
fn a_limit_that_the_data_do_not_show_is_said_not_to_be_identified() {
    let rows = rows(20, 0.03, 5);
    let options = Options { law: LawName::Saturating(Axis::C), ..options() };
    let fit = fit(&rows, &options).unwrap();
    let stated = fit.intervals(Intervals::Profile, &options);
    let e = stated.iter().find(|stated| stated.name == "e").unwrap();
    assert_eq!(e.identified, Some(Identified::Above), "{e:?}");
    assert!(e.interval.low == 0.0 && (0.01..0.6).contains(&e.interval.high), "{e:?}");
    let words = e.words.as_deref().unwrap();
    assert!(words.starts_with("e is not identified: the data allow anything from 0 to 0."), "{words}");
}

#[test]
fn degenerate_data_give_wide_words_not_panics() {
    // One job with many checkpoints.
    let mut checkpoints = rows(8, 0.02, 2);
    for row in &mut checkpoints {
        row.job_key = "a".to_owned();
    }
    // No residuals at all; no noise but in one row; five jobs of one value.
    let exact = rows(8, 0.0, 2);
    let mut one_off = rows(8, 0.0, 2);
    one_off[3].error *= 1.1;
    for rows in [&checkpoints, &exact, &one_off] {
        for law in [LawName::Power(Axis::C), LawName::Saturating(Axis::C)] {
            for objective in [Objective::LS_LOG, Objective::LAD, Objective::LS, Objective::huber(1e-3)] {
                for (resampling, points) in
                    Resampling::ALL.into_iter().zip([Points::All, Points::Pareto, Points::Bins(4)])
                {
                    let options = Options {
                        law,
                        objective,
                        resampling,
                        points,
                        interval: IntervalKind::Bca,
                        weighting: Weighting::Noise,
                        resamples: 20,
                        starts: 4,
                        ..options()
                    };
                    let Ok(fit) = fit(rows, &options) else { continue };
                    for by in [Intervals::Profile, Intervals::Bootstrap(Resampling::SeedNoise)] {
                        assert_eq!(fit.intervals(by, &options).len(), fit.parameters.len());
                    }
                    fit.forecast(&Input::UNKNOWN, Evaluation::AsObserved);
                    fit.forecast_by_profile(&Input::on(Axis::C, f64::NAN), Evaluation::Count(0.0));
                    serde_json::to_string(&fit).unwrap();
                    serde_json::to_string(&fit.intervals(Intervals::Profile, &options)).unwrap();
                }
            }
        }
    }
    let fit = fit(&checkpoints, &options()).unwrap();
    let alpha = fit.interval("alpha");
    assert_eq!((alpha.low, alpha.high), (f64::NEG_INFINITY, f64::INFINITY), "one job tells nothing");
}

/// Twelve cells of three seeds; the noise grows as N falls where `growing`.
fn replicated(growing: bool, seed: u64) -> Vec<Observation> {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let mut rows = Vec::new();
    for cell in 0..24 {
        let parameters = 1e6 * 2f64.powi(cell % 12);
        let sd = if growing { 0.02 * (parameters / 1e6).powf(-0.25) } else { 0.02 };
        for _ in 0..3 {
            let compute = 1e6 * 2f64.powi(cell);
            let mut row = row(rows.len(), compute, 0.5 * 2f64.powf(-0.05 * f64::from(cell)));
            row.parameters = parameters;
            row.error *= (sd * normal(&mut random)).exp();
            rows.push(row);
        }
    }
    rows
}

#[test]
fn seed_noise_is_learnt_from_replicates() {
    let flat = NoiseModel::of(&replicated(false, 1), Response::Loss);
    assert_eq!((flat.groups, flat.degrees, flat.trend), (24, 48, None));
    // 48 degrees of freedom: a standard deviation to 10 %.
    assert!((flat.seed_variance.unwrap().sqrt() - 0.02).abs() < 0.006, "{flat}");
    assert!(flat.weights(&replicated(false, 1), Space::Log).unwrap().iter().all(|weight| (weight - 1.0).abs() < 1e-12));
    assert!(flat.to_string().contains("from 24 groups of replicates (48 degrees of freedom)"), "{flat}");

    let rows = replicated(true, 1);
    let growing = NoiseModel::of(&rows, Response::Loss);
    let trend = growing.trend.unwrap();
    assert!((trend.slope + 0.5).abs() < 0.25, "variance as N^-0.5: {growing}");
    let weights = growing.weights(&rows, Space::Log).unwrap();
    assert!((weights.iter().sum::<f64>() / 72.0 - 1.0).abs() < 1e-12 && weights[0] < weights[35]);
}

#[test]
fn without_replicates_noise_is_of_the_evaluation_or_not_known() {
    let mut rows = rows(8, 0.0, 0);
    let nothing = NoiseModel::of(&rows, Response::Fraction);
    assert_eq!(nothing.to_string(), "no replicates: seed noise is not known; evaluation noise is not known");
    assert_eq!(nothing.weights(&rows, Space::Log), None);
    for row in &mut rows {
        row.count = Some(1000.0);
    }
    let counted = NoiseModel::of(&rows, Response::Fraction);
    assert_eq!(counted.to_string(), "no replicates: seed noise is not known; evaluation noise of every row");
    let (least, y) = (counted.variance(&rows[0]).unwrap(), rows[0].error);
    assert!((least - (1.0 - y) / (y * 1000.0)).abs() < 1e-15);
    // Fewer errors, more noise in ln y.
    let weights = counted.weights(&rows, Space::Log).unwrap();
    assert!(weights.windows(2).all(|pair| pair[1] < pair[0]), "{weights:?}");
    let weighted = fit(&rows, &Options { weighting: Weighting::Noise, ..options() }).unwrap();
    assert!((weighted.interval("alpha").value + 0.1).abs() < 1e-9);
}

#[test]
fn a_forecast_says_how_far_out_it_is_and_keeps_within_what_is_possible() {
    let fit = fit(&rows(12, 0.05, 4), &options()).unwrap();
    let far = fit.forecast(&Input::on(Axis::C, 1e11), Evaluation::AsObserved);
    assert!((far.extrapolation[0].ln - 100f64.ln()).abs() < 1e-9);
    assert_eq!(far.extrapolation[0].to_string(), "100.0 times the most compute");
    assert!(far.prediction.low < far.law.low && far.law.high < far.prediction.high);
    let few = fit.forecast(&Input::on(Axis::C, 1e11), Evaluation::Count(20.0));
    assert!(few.prediction.high > far.prediction.high && few.law == far.law);
    let near = fit.forecast(&Input::on(Axis::C, 1e3), Evaluation::AsObserved);
    assert!(near.extrapolation[0].ln < 0.0 && near.prediction.high <= 1.0);
    let inside = fit.forecast(&Input::on(Axis::C, 1e8), Evaluation::AsObserved);
    assert_eq!(inside.extrapolation[0].to_string(), "within the range of compute");
}

#[test]
fn names_read_back_as_written() {
    for text in ["bootstrap", "wild", "seed-noise", "profile"] {
        assert_eq!(text.parse::<Intervals>().unwrap().to_string(), text);
    }
    for kind in IntervalKind::ALL {
        assert_eq!(kind.to_string().parse::<IntervalKind>(), Ok(kind));
    }
    for kind in Resampling::ALL {
        assert_eq!(kind.to_string().parse::<Resampling>(), Ok(kind));
    }
    for kind in [Weighting::Equal, Weighting::Noise] {
        assert_eq!(kind.to_string().parse::<Weighting>(), Ok(kind));
    }
    assert!("mean".parse::<IntervalKind>().is_err() && "".parse::<Intervals>().is_err());
    assert!("x".parse::<Resampling>().is_err() && "x".parse::<Weighting>().is_err());
}

#[test]
fn repeated_rows_and_the_scale_of_weights_do_not_narrow_a_profile() {
    let once = rows(10, 0.05, 2);
    // Checkpoints that say the same again: the same job at a hair's breadth, so that they are no duplicates.
    let mut often = once.clone();
    for copy in 1..4 {
        often.extend(
            once.iter().map(|row| Observation {
                samples_seen: row.samples_seen * (1.0 + 1e-9 * f64::from(copy)),
                ..row.clone()
            }),
        );
    }
    let of = |rows: &[Observation]| {
        let fit = fit(rows, &options()).unwrap();
        fit.intervals(Intervals::Profile, &options())[1].interval
    };
    let (one, four) = (of(&once), of(&often));
    assert!((one.low - four.low).abs() < 1e-6 && (one.high - four.high).abs() < 1e-6, "{one:?} {four:?}");

    let fit = fit(&once, &options()).unwrap();
    let (law, mut sample) = (fit.form(), fit.sample());
    let slope = Coordinate(1);
    let by = |sample: &fit::Sample| {
        let problem = Problem::new(law.as_ref(), sample, Objective::LS_LOG);
        fit::profile(&problem, &fit::solve::solve(&problem, 4, 0).best, &slope).interval()
    };
    let equal = by(&sample);
    sample.weights.iter_mut().for_each(|weight| *weight *= 3.0);
    let heavy = by(&sample);
    assert!((equal.low - heavy.low).abs() < 1e-6 && (equal.high - heavy.high).abs() < 1e-6, "{equal:?} {heavy:?}");
}
