//! For tests and the gallery: made-up data of the shape and size of the 2022 study.

use super::FigureError;
use super::data::{Curve, Law, Picture, Point, Role};
use super::law::LawFigure;
use super::pairs::PairsFigure;
use super::policies::{PoliciesFigure, Policy};
use super::profile::{Profile, ProfileFigure};
use super::residuals::{ResidualsAxis, ResidualsFigure};
use crate::fit::Interval;
use crate::report::number::superscript;

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
                points.push(Point { x, y, model, parameters, data, data_size, role });
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
        noise: Some(0.0123),
    }
}

/// Five parameters, one of them not identified.
pub(super) fn profile() -> ProfileFigure {
    let of = |name: &str, (value, sd): (f64, f64), log: bool, flat: bool| {
        let steps = (0..=48).map(|i| (f64::from(i) - 24.0) / 6.0);
        let place = |z: f64| if log { value * (sd * z).exp() } else { value + sd * z };
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
    ]
}
