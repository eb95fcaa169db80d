//! For tests and the gallery: made-up data of the shape and size of the 2022 study.

use super::FigureError;
use super::backtest::{BacktestTable, Fan, FanFigure, FanForecast};
use super::budget::{BudgetFigure, BudgetSeries};
use super::comparison::{ComparisonFigure, ComparisonPanel, Family};
use super::data::{Curve, Law, Picture, Point, Role};
use super::frontier::{FrontierFigure, FrontierPanel};
use super::isoflop::{Isoflop, IsoflopFigure};
use super::law::LawFigure;
use super::pairs::PairsFigure;
use super::policies::{PoliciesFigure, Policy};
use super::profile::{Profile, ProfileFigure};
use super::residuals::{ResidualsAxis, ResidualsFigure};
use crate::number::superscript;
use fit::Interval;

/// Numbers that look random and are always the same: uniform in (−1, 1).
pub(super) struct Noise(u64);

impl Noise {
    pub(super) fn new(seed: u64) -> Noise {
        Noise(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    pub(super) fn next(&mut self) -> f64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) as f64 / (1u64 << 52) as f64 - 1.0
    }

    /// Sum of six: close to normal, standard deviation 1.41.
    pub(super) fn bell(&mut self) -> f64 {
        (0..6).map(|_| self.next()).sum()
    }
}

/// Name, parameters, giga multiply-accumulates a sample.
pub(super) const MODELS: [(&str, f64, f64); 5] = [
    ("ViT-B/32", 1.51e8, 7.4),
    ("ViT-B/16", 1.50e8, 20.6),
    ("ViT-L/14", 4.28e8, 87.7),
    ("ViT-H/14", 9.86e8, 190.97),
    ("ViT-g/14", 1.37e9, 290.7),
];
pub(super) const DATA: [(&str, f64); 3] = [("LAION-80M", 8e7), ("LAION-400M", 4.07e8), ("LAION-2B", 2.3e9)];
pub(super) const SAMPLES: [f64; 3] = [3e9, 1.28e10, 3.4e10];

/// Runs of a grid, and their errors by a law with noise.
pub(super) fn grid(factor: f64, seed: u64) -> Vec<Point> {
    let mut noise = Noise::new(seed);
    let mut points = Vec::new();
    for (model, parameters, gmacs) in MODELS {
        for (data, data_size) in DATA {
            for samples in SAMPLES {
                let (x, epochs) = (gmacs * samples, samples / data_size);
                let y = factor * x.powf(-0.111) * (1.0 + 0.0016 * epochs) * (0.035 * noise.next()).exp();
                let held_out = x > 2.5e12 && data_size > 1e9;
                let excluded = epochs > 300.0 && parameters > 5e8;
                let role = if held_out {
                    Role::HeldOut
                } else if excluded {
                    Role::Excluded
                } else {
                    Role::Fitted
                };
                let (model, data) = (model.to_owned(), data.to_owned());
                let job = Some(points.len());
                points.push(Point { x, y, model, parameters, data, data_size, role, job });
            }
        }
    }
    points
}

/// A power law with a band that widens away from `middle`.
pub(super) fn power(beta: f64, alpha: f64, (from, to): (f64, f64), (middle, wide): (f64, f64)) -> Curve {
    let x: Vec<f64> = (0..=60).map(|i| from * (to / from).powf(f64::from(i) / 60.0)).collect();
    let y: Vec<f64> = x.iter().map(|x| beta * x.powf(alpha)).collect();
    let spread = |x: &f64| (wide * (0.3 + (x / middle).ln().abs())).exp();
    let low = x.iter().zip(&y).map(|(x, y)| y / spread(x)).collect();
    let high = x.iter().zip(&y).map(|(x, y)| y * spread(x)).collect();
    Curve { x, y, low, high }
}

/// `law` with the numbers of the ImageNet law.
pub(super) fn law() -> LawFigure {
    LawFigure {
        title: "ImageNet: error against compute".to_owned(),
        x: "C, GMAC × samples".to_owned(),
        y: "ImageNet zero-shot error, 1 − acc1".to_owned(),
        points: grid(6.4, 7),
        laws: vec![Law {
            name: "F1 power law, bins:5".to_owned(),
            formula: "E = 5.86 · C⁻⁰·¹¹¹".to_owned(),
            interval: "α −0.111 [−0.130, −0.095], β 5.86 [3.91, 9.93]".to_owned(),
            curve: power(6.3, -0.111, (1.6e10, 4e13), (4e11, 0.018)),
            fitted_to: 2.5e12,
        }],
    }
}

/// Eight policies that give eight answers.
pub(super) fn policies() -> PoliciesFigure {
    let of = |name: &str, beta: f64, alpha: f64, (value, low, high): (f64, f64, f64)| Policy {
        law: Law {
            name: name.to_owned(),
            formula: format!("E = {beta:.2} · C{}", superscript(&format!("{alpha:.3}"))),
            interval: String::new(),
            curve: power(beta * 1.08, alpha, (1.6e10, 4e13), (4e11, 0.02)).without_band(),
            fitted_to: 1e13,
        },
        forecast: Interval { value, low, high },
    };
    PoliciesFigure {
        title: "ImageNet: the choice of points moves the forecast".to_owned(),
        x: "C, GMAC × samples".to_owned(),
        y: "ImageNet zero-shot error, 1 − acc1".to_owned(),
        forecast: "ViT-G/14 at 68B samples, acc1 in %".to_owned(),
        points: grid(6.4, 7),
        policies: vec![
            of("all", 4.54, -0.10125, (80.42, 78.81, 81.77)),
            of("pareto", 5.61, -0.1098, (81.35, 80.72, 82.06)),
            of("bins:3", 5.12, -0.1062, (81.02, 79.71, 82.51)),
            of("bins:4", 5.44, -0.1087, (81.31, 80.23, 82.45)),
            of("bins:5", 5.8581, -0.11139, (81.92, 80.94, 82.83)),
            of("bins:6", 5.66, -0.1101, (81.6, 80.77, 82.31)),
            of("bins:7", 5.31, -0.1074, (81.1, 80.3, 82.01)),
            of("bins:8", 5.49, -0.1089, (81.4, 80.55, 82.2)),
        ],
        reference: Some((81.92, "published".to_owned())),
    }
}

/// Residuals of the law's points against four axes.
pub(super) fn residuals() -> ResidualsFigure {
    let points: Vec<Point> = grid(6.4, 7).into_iter().filter(|point| point.role != Role::Excluded).collect();
    let gmacs = |model: &str| MODELS.iter().find(|(name, ..)| *name == model).map_or(1.0, |(_, _, gmacs)| *gmacs);
    let axis = |title: &str, of: &dyn Fn(&Point) -> f64| ResidualsAxis {
        title: title.to_owned(),
        values: points.iter().map(of).collect(),
    };
    ResidualsFigure {
        title: "Residuals of the ImageNet law".to_owned(),
        law: "F1 power law: E = 5.86 · C⁻⁰·¹¹¹".to_owned(),
        residuals: points.iter().map(|p| (p.y / (6.9 * p.x.powf(-0.111))).ln()).collect(),
        models: points.iter().map(|point| point.model.clone()).collect(),
        held_out: points.iter().map(|point| point.role == Role::HeldOut).collect(),
        axes: vec![
            axis("N, parameters", &|p| p.parameters),
            axis("D, samples seen", &|p| p.x / gmacs(&p.model)),
            axis("U, unique samples", &|p| p.data_size),
            axis("C, GMAC × samples", &|p| p.x),
        ],
        jobs: (0..points.len()).map(Some).collect(),
        noise: Some(0.0123),
    }
}

/// Five parameters, one of them not identified.
pub(super) fn profile() -> ProfileFigure {
    let of = |name: &str, (value, sd): (f64, f64), log: bool, flat: bool| {
        let steps = (0..=48).map(|i| (f64::from(i) - 24.0) / 6.0);
        let place = |z: f64| {
            if log { value * (sd * z).exp() } else { value + sd * z }
        };
        let deviance = |z: f64| {
            let skewed = z * z * (1.0 + 0.09 * z);
            if flat && z < 0.0 { 0.12 * z * z } else { skewed }
        };
        let low = if flat { f64::NEG_INFINITY } else { place(-2.07) };
        Profile {
            name: name.to_owned(),
            log,
            values: steps.clone().map(place).collect(),
            deviance: steps.map(deviance).collect(),
            interval: Interval { value, low, high: place(1.87) },
            identified: !flat,
        }
    };
    ProfileFigure {
        title: "Profiles of E + A/Nᵅ + B/Dᵝ".to_owned(),
        threshold: 3.841,
        parameters: vec![
            of("α", (0.343, 0.0151), false, false),
            of("β", (0.366, 0.0202), false, false),
            of("A", (477.83, 0.27), true, false),
            of("B", (2143.42, 0.43), true, false),
            of("E", (0.052, 0.0261), false, true),
        ],
    }
}

/// 4,000 resamples of five parameters, ln A and α all but the same.
pub(super) fn pairs() -> PairsFigure {
    let mut noise = Noise::new(11);
    let optimum = vec![6.169, 0.3426, 7.67, 0.3659, 1.817];
    let resamples = (0..4000)
        .map(|_| {
            let (a, b, e, one, two) = (noise.bell(), noise.bell(), noise.bell(), noise.bell(), noise.bell());
            let steps = [0.19 * a, 0.0107 * (0.99 * a + 0.1 * one), 0.3 * b, 0.0143 * (0.98 * b + 0.15 * two)];
            let irreducible = 0.0178 * (0.5 * a + 0.4 * b + 0.6 * e) - 0.004 * b * b;
            optimum.iter().zip(steps.into_iter().chain([irreducible])).map(|(best, step)| best + step).collect()
        })
        .collect();
    PairsFigure {
        title: "Bootstrap of E + A/Nᵅ + B/Dᵝ".to_owned(),
        names: ["ln A", "α", "ln B", "β", "E"].map(str::to_owned).to_vec(),
        optimum,
        resamples,
    }
}

/// Seven budgets of a known surface, with an off-centre grid and an optimum at the edge.
pub(super) fn isoflop() -> IsoflopFigure {
    let mut noise = Noise::new(5);
    let error = |c: f64, n: f64| 0.12 + 62.0 * n.powf(-0.34) + 55.0 * (c / (6.0 * n)).powf(-0.29);
    let budgets = (0..6).map(|i| {
        let compute = 10f64.powf(17.0 + f64::from(i) * 0.5);
        let best = 0.45 * compute.powf(0.47);
        let from = if i == 5 { best * 0.9 } else { best / 7.0 };
        let parameters: Vec<f64> = (0..7).map(|k| from * 1.75f64.powi(k)).collect();
        let errors = parameters.iter().map(|n| error(compute, *n) * (0.004 * noise.bell()).exp()).collect();
        let x: Vec<f64> = (0..=60).map(|k| from * 0.8 * (50.0f64).powf(f64::from(k) / 60.0)).collect();
        let smooth = |of: &dyn Fn(f64) -> f64, factor: f64| {
            let near: Vec<f64> = x.iter().copied().filter(|n| (n / best).ln().abs() < factor.ln()).collect();
            Curve { y: near.iter().map(|n| of(*n)).collect(), x: near, low: Vec::new(), high: Vec::new() }
        };
        let least = |of: &dyn Fn(f64) -> f64| {
            x.iter().map(|n| (*n, of(*n))).min_by(|a, b| a.1.total_cmp(&b.1)).filter(|_| !x.is_empty())
        };
        let surface = |n: f64| error(compute, n);
        let bottom = least(&surface).unwrap_or((best, 1.0));
        let parabola = |n: f64| bottom.1 * (1.0 + 0.05 * (n / (bottom.0 * 1.25)).ln().powi(2)) * 0.998;
        let flags = match i {
            1 => vec!["grid off-centre by 2.1x".to_owned()],
            5 => vec!["optimum at the edge".to_owned(), "parabola biased by 18 %".to_owned()],
            _ => Vec::new(),
        };
        Isoflop {
            compute,
            jobs: (0..parameters.len()).map(Some).collect(),
            parameters,
            errors,
            surface: smooth(&surface, 99.0),
            surface_optimum: Some(bottom),
            parabola: smooth(&parabola, 4.0),
            parabola_optimum: least(&parabola),
            flags,
        }
    });
    let line = |name: &str, formula: &str, curve: Curve| Law {
        name: name.to_owned(),
        formula: formula.to_owned(),
        interval: "exponent 0.461 [0.438, 0.487]".to_owned(),
        curve,
        fitted_to: 3.2e19,
    };
    let curve = power(0.425, 0.4715, (6e16, 1e21), (2e18, 0.05));
    IsoflopFigure {
        title: "IsoFLOP curves of the emoji study".to_owned(),
        y: "error, 1 − recall@5".to_owned(),
        compute: "C, FLOPs".to_owned(),
        budgets: budgets.collect(),
        parabola: Some(line("parabola", "N = 0.66 · C⁰·⁴⁶⁶", power(0.66, 0.4665, (6e16, 3.2e19), (2e18, 0.05)))),
        surface: line("surface F6", "N = 0.425 · C⁰·⁴⁷²", curve),
    }
}

fn frontier_line(name: &str, formula: &str, curve: Curve) -> Law {
    let interval = "exponent [0.44, 0.49]".to_owned();
    Law { name: name.to_owned(), formula: formula.to_owned(), interval, curve, fitted_to: 1e20 }
}

/// Best N, D, U and error for compute.
pub(super) fn frontier() -> FrontierFigure {
    let range = (1e17, 1e22);
    let panel = |y: &str, formula: &str, counts: bool, curve: Curve| FrontierPanel {
        y: y.to_owned(),
        counts,
        lines: vec![frontier_line("F8", formula, curve)],
        cap: None,
        marks: Vec::new(),
    };
    let mut best_u = panel("best U, unique samples", "U = 0.95 · C⁰·⁴⁸", true, power(0.95, 0.48, range, (1e19, 0.07)));
    best_u.cap = Some((2.3e9, "all of LAION-2B".to_owned()));
    let mut best_n = panel("best N, parameters", "N = 0.107 · C⁰·⁴⁷", true, power(0.107, 0.47, range, (1e19, 0.05)));
    best_n.marks = vec![(2.1e21, 9.86e8, "ViT-H/14 as trained".to_owned())];
    FrontierFigure {
        title: "The frontier by compute".to_owned(),
        budget: "C, FLOPs".to_owned(),
        panels: vec![
            best_n,
            panel("best D, samples seen", "D = 1.56 · C⁰·⁵³", true, power(1.56, 0.53, range, (1e19, 0.05))),
            best_u,
            panel("error, 1 − acc1", "E = 38 · C⁻⁰·¹⁰²", false, power(38.0, -0.102, range, (1e19, 0.012))),
        ],
    }
}

/// Samples per parameter, with and without a cap on unique samples.
pub(super) fn tokens() -> FrontierFigure {
    let range = (1e17, 1e22);
    FrontierFigure {
        title: "Samples per parameter along the frontier".to_owned(),
        budget: "C, FLOPs".to_owned(),
        panels: vec![FrontierPanel {
            y: "samples seen per parameter".to_owned(),
            counts: true,
            lines: vec![
                frontier_line("unlimited data", "D/N = 1.1 · C⁰·⁰⁶", power(1.1, 0.06, range, (1e19, 0.06))),
                frontier_line("U ≤ 400M", "", power(40.0, -0.022, range, (1e19, 0.06))),
            ],
            cap: None,
            marks: vec![(2.1e21, 34.5, "ViT-H/14 as trained".to_owned())],
        }],
    }
}

/// Forecasts by two laws from six cuts.
pub(super) fn fan() -> FanFigure {
    let law = |name: &str, bias: f64, wide: f64| Fan {
        name: name.to_owned(),
        forecasts: (0..6)
            .map(|i| {
                let left = 6.0 - f64::from(i);
                let value = 0.22 * (bias * left * left / 36.0).exp();
                let spread = (wide * left / 6.0 + 0.012).exp();
                let forecast = Interval { value, low: value / spread, high: value * spread };
                FanForecast {
                    cut: 10f64.powf(10.6 + 0.38 * f64::from(i)),
                    runs: 12 + 6 * i as usize,
                    jobs: vec![i as usize],
                    forecast,
                }
            })
            .collect(),
    };
    FanFigure {
        title: "Back-test of ViT-H/14 on 34B samples".to_owned(),
        x: "largest C in the fit, GMAC × samples".to_owned(),
        y: "forecast error of ViT-H/14 at 34B samples, 1 − acc1".to_owned(),
        laws: vec![law("F1 power law", -0.19, 0.12), law("F4 saturating", 0.06, 0.17)],
        truth: Interval { value: 0.22, low: 0.2164, high: 0.2236 },
        truth_job: Some(6),
    }
}

/// Laws by objectives, one of them without a fit.
pub(super) fn table() -> BacktestTable {
    let rmsle = vec![
        vec![0.0466, 0.0481, 0.0459, 0.0702, 0.0498],
        vec![0.0412, 0.0405, 0.0433, 0.0689, 0.0441],
        vec![0.0331, 0.0312, 0.0352, 0.0518, 0.0377],
        vec![0.0398, 0.0402, 0.0404, f64::NAN, 0.0428],
        vec![0.0329, 0.0326, 0.0341, 0.0455, 0.0369],
    ];
    BacktestTable {
        title: "Held-out error of laws by objectives".to_owned(),
        laws: ["F1 power law", "F2 power law with floor", "F4 saturating", "F6 Chinchilla", "F9 logit surface"]
            .map(str::to_owned)
            .to_vec(),
        objectives: ["least squares in ln", "Huber(10⁻³)", "least absolute", "least squares, linear", "asymmetric"]
            .map(str::to_owned)
            .to_vec(),
        aicc: rmsle.iter().map(|row| row.iter().map(|value| -198.0 - (0.0478 - value) * 1000.0).collect()).collect(),
        rmsle,
        default: Some((2, 0)),
    }
}

/// Three ways to spend.
pub(super) fn budget() -> BudgetFigure {
    let series = |name: &str, factor: f64, power: f64, floor: f64, banded: bool| {
        let x: Vec<f64> = (0..7).map(|i| 400.0 * 2f64.powi(i)).collect();
        let y: Vec<f64> = x.iter().map(|x| factor * x.powf(power) + floor).collect();
        let ends = |by: f64| {
            if banded { y.iter().map(|y| y * by).collect() } else { Vec::new() }
        };
        let (low, high) = (ends(0.82), ends(1.25));
        BudgetSeries { name: name.to_owned(), curve: Curve { x, y, low, high } }
    };
    BudgetFigure {
        title: "What a narrower forecast costs".to_owned(),
        cost: "spent on the study, GPU-hours".to_owned(),
        accuracy: "width of the 95 % interval of acc1 at ViT-G/14, 68B; percentage points".to_owned(),
        series: vec![
            series("as run", 220.0, -0.51, 0.4, true),
            series("by advice", 260.0, -0.62, 0.3, true),
            series("largest runs first", 230.0, -0.44, 0.6, false),
        ],
        target: Some((2.0, "good enough: 2 points".to_owned())),
        spent: Some(6200.0),
    }
}

/// Two sources on two benchmarks.
pub(super) fn comparison() -> ComparisonFigure {
    let family = |name: &str, beta: f64, alpha: f64, seed: u64, own: bool| {
        let mut points = grid(beta * 1.05, seed);
        let slope = |point: &Point| point.x.powf(alpha + 0.111);
        for point in &mut points {
            point.y *= slope(point);
        }
        points.retain(|point| point.role != Role::Excluded && (own || point.data_size < 5e8));
        points.retain(|point| own || (point.data_size > 1e8 && point.parameters < 5e8));
        let exponent = superscript(&format!("{alpha:.3}"));
        let law = Law {
            name: name.to_owned(),
            formula: format!("E = {beta:.2} · C{exponent}"),
            interval: format!("α {alpha:.3} [{:.3}, {:.3}]", alpha - 0.012, alpha + 0.011).replace('-', "−"),
            curve: power(beta * 1.05, alpha, (1.6e10, 3e13), (4e11, if own { 0.01 } else { 0.03 })),
            fitted_to: if own { 1e13 } else { 3e12 },
        };
        Family { law, points }
    };
    let panel = |y: &str, ours: (f64, f64), theirs: (f64, f64), crossover: Option<Interval>| ComparisonPanel {
        y: y.to_owned(),
        families: vec![
            family("OpenCLIP on LAION", ours.0, ours.1, 7, true),
            family("CLIP on WIT", theirs.0, theirs.1, 9, false),
        ],
        crossover,
    };
    ComparisonFigure {
        title: "LAION against WIT".to_owned(),
        x: "C, GMAC × samples".to_owned(),
        panels: vec![
            panel("ImageNet zero-shot error, 1 − acc1", (5.86, -0.111), (11.4, -0.139), None),
            panel(
                "MS-COCO retrieval error, 1 − recall@5",
                (2.75, -0.079),
                (1.69, -0.061),
                Some(Interval { value: 4.1e11, low: 1.1e11, high: 2.6e12 }),
            ),
        ],
    }
}

/// A figure's file name and what draws it.
pub(super) type Shown = (&'static str, Box<dyn Fn() -> Result<Picture, FigureError>>);

/// All of them.
pub(super) fn gallery() -> Vec<Shown> {
    vec![
        ("law", Box::new(|| super::law::draw(&law()))),
        ("policies", Box::new(|| super::policies::draw(&policies()))),
        ("residuals", Box::new(|| super::residuals::draw(&residuals()))),
        ("profile", Box::new(|| super::profile::draw(&profile()))),
        ("pairs", Box::new(|| super::pairs::draw(&pairs()))),
        ("isoflop", Box::new(|| super::isoflop::draw(&isoflop()))),
        ("frontier", Box::new(|| super::frontier::draw(&frontier()))),
        ("tokens", Box::new(|| super::frontier::draw(&tokens()))),
        ("fan", Box::new(|| super::backtest::draw_fan(&fan()))),
        ("table", Box::new(|| super::backtest::draw_table(&table()))),
        ("budget", Box::new(|| super::budget::draw(&budget()))),
        ("comparison", Box::new(|| super::comparison::draw(&comparison()))),
    ]
}
