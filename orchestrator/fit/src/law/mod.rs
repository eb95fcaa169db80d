//! Laws: what an error or a loss does as compute, model and data grow. One file each: formula, source, value, gradient.
//!
//! A law gives `ln y`, not `y`: sums of powers are then sums of exponentials, which stay in range where `A` is 1e30 and
//! `N^-alpha` 1e-30. Inside, a parameter is a number on the whole line ([`Scale`] says how it is held); [`natural`] and
//! [`internal`] translate.
//!
//! | | name | formula | axes | linear part |
//! |---|---|---|---|---|
//! | F1 | `power` * | `beta x^alpha` | x | all, in ln y |
//! | F2 | `saturating` * | `b x^-a + e` | x | b, e |
//! | F3 | `shifted` * | `a (x + c)^-b + e` | x | a, e |
//! | F4 | `m4` * | `(y - e)/(e0 - y)^k = b x^-c` | x | ln b, c, k, given e and e0 |
//! | F5 | `bnsl` * | `a + b x^-c0 (1 + (x/d)^(1/f))^(-c1 f)` | x | a, b |
//! | F6 | `chinchilla` | `E + A/N^alpha + B/D^beta` | N, D | A, B, E |
//! | F6 | `chinchilla-tied` | the same with `beta = alpha` | N, D | A, B, E |
//! | F6 | `gadre` | `E + (a M^eta + b M^-eta) (6ND)^-eta`, `M = D/N` | N, D | a, b, E |
//! | F7 | `repeated` | `E + A/N'^alpha + B/D'^beta`, N' and D' what they are worth | N, D, U | none |
//! | F7 | `repeated-data` | the same with `N' = N` | N, D, U | A, B, E |
//! | F8 | `additive` | `E + A/N^alpha + B/D^beta + G/U^gamma` | N, D, U | A, B, G, E |
//! | F9 | `bounded` | `E + (L0 - E) h/(1 + h)`, `h = A/N^alpha + B/D^beta + G N^gamma/U^delta` | N, D, U | A, B, G |
//! | F9 | `bounded-nd` | the same with `h = A/N^alpha + B/D^beta` | N, D | A, B |
//! | F10 | `downstream` | `e0 - k exp(-g L)` | L | e0, k |
//! | F10 | `sigmoid` | `e + (e0 - e)/(1 + exp(-g (L - l)))` | L | e0, e |
//!
//! C compute, N parameters, D samples seen, U unique samples, L a loss of the same job, L0 the error of guessing. Laws
//! with * are of one axis: C, or with `-n`, `-d`, `-u` behind the name another.

mod additive;
mod bnsl;
mod bounded;
mod chinchilla;
mod downstream;
mod gadre;
mod guess;
mod jet;
mod m4;
mod name;
mod power;
pub mod published;
mod repeated;
mod saturating;
mod shifted;
mod sigmoid;
pub mod terms;

use std::fmt;

use serde::Serialize;

pub use additive::Additive;
pub use bnsl::Bnsl;
pub use bounded::Bounded;
pub use chinchilla::Chinchilla;
pub use downstream::Downstream;
pub use gadre::Gadre;
pub use m4::M4;
pub use name::LawName;
pub use power::Power;
pub use repeated::Repeated;
pub use saturating::Saturating;
pub use shifted::Shifted;
pub use sigmoid::Sigmoid;

/// What a law may depend on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
pub enum Axis {
    /// Compute.
    C,
    /// Parameters.
    N,
    /// Samples seen.
    D,
    /// Unique samples.
    U,
    /// A loss of the same job, nats.
    L,
}

impl Axis {
    /// All of them.
    pub const ALL: [Axis; 5] = [Axis::C, Axis::N, Axis::D, Axis::U, Axis::L];

    /// For people.
    pub fn describe(self) -> &'static str {
        match self {
            Axis::C => "compute",
            Axis::N => "parameters",
            Axis::D => "samples seen",
            Axis::U => "unique samples",
            Axis::L => "proxy loss",
        }
    }
}

impl fmt::Display for Axis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// Where a law is evaluated: natural logarithms of the axes, NaN where a row has none.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Input {
    /// ln C.
    pub ln_c: f64,
    /// ln N.
    pub ln_n: f64,
    /// ln D.
    pub ln_d: f64,
    /// ln U.
    pub ln_u: f64,
    /// ln of the proxy loss.
    pub ln_l: f64,
}

impl Input {
    /// No axis known.
    pub const UNKNOWN: Input = Input { ln_c: f64::NAN, ln_n: f64::NAN, ln_d: f64::NAN, ln_u: f64::NAN, ln_l: f64::NAN };

    /// On one axis only.
    pub fn on(axis: Axis, value: f64) -> Input {
        Input::UNKNOWN.with(axis, value)
    }

    /// The same place with one axis at `value` (not its logarithm).
    #[must_use]
    pub fn with(mut self, axis: Axis, value: f64) -> Input {
        *match axis {
            Axis::C => &mut self.ln_c,
            Axis::N => &mut self.ln_n,
            Axis::D => &mut self.ln_d,
            Axis::U => &mut self.ln_u,
            Axis::L => &mut self.ln_l,
        } = value.ln();
        self
    }

    /// The logarithm on one axis.
    pub fn ln(&self, axis: Axis) -> f64 {
        match axis {
            Axis::C => self.ln_c,
            Axis::N => self.ln_n,
            Axis::D => self.ln_d,
            Axis::U => self.ln_u,
            Axis::L => self.ln_l,
        }
    }
}

/// How a parameter is held inside.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Scale {
    /// As it is.
    Linear,
    /// By its logarithm: above zero.
    Log,
}

/// A parameter of a law.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Parameter {
    /// As in the formula.
    pub name: &'static str,
    /// What it is.
    pub what: &'static str,
    /// How it is held inside.
    pub scale: Scale,
    /// Plausible range, natural scale, for starts; not a bound.
    pub range: (f64, f64),
}

/// A functional form.
pub trait Law: fmt::Debug + Send + Sync {
    /// Which of the shipped forms.
    fn name(&self) -> LawName;
    /// As printed, in the symbols of [`Law::parameters`].
    fn formula(&self) -> &'static str;
    /// Paper, section, equation.
    fn source(&self) -> &'static str;
    /// Axes that must be known.
    fn axes(&self) -> &'static [Axis];
    /// Parameters in the order of `theta`.
    fn parameters(&self) -> &'static [Parameter];
    /// `ln y` at `x`, and its derivatives by the internal parameters into `gradient`.
    fn log_value(&self, theta: &[f64], x: &Input, gradient: &mut [f64]) -> f64;

    /// Adds `weight` times the second derivatives of `ln y` by the internal parameters to `hessian` (row-major,
    /// symmetric). Unless a law knows better: central differences of the gradient.
    fn add_curvature(&self, theta: &[f64], x: &Input, weight: f64, hessian: &mut [f64]) {
        let k = theta.len();
        let mut at = theta.to_vec();
        let (mut up, mut down) = (vec![0.0; k], vec![0.0; k]);
        for i in 0..k {
            let step = 1e-5 * theta[i].abs().max(1.0);
            at[i] = theta[i] + step;
            self.log_value(&at, x, &mut up);
            at[i] = theta[i] - step;
            self.log_value(&at, x, &mut down);
            at[i] = theta[i];
            for j in 0..k {
                let slope = weight * (up[j] - down[j]) / (4.0 * step);
                hessian[i * k + j] += slope;
                hessian[j * k + i] += slope;
            }
        }
    }

    /// The law at `x` as a sum of exponentials, where it is one: solvers then centre its axes and evaluate it in bulk.
    /// The terms' parameters must be the same at every `x`; only what multiplies the slopes may change.
    fn sum(&self, x: &Input) -> Option<terms::Sum> {
        let _ = x;
        None
    }

    /// The part of the law that is linear, for variable projection.
    fn separable(&self) -> Option<&dyn Separable> {
        None
    }

    /// Starts that the law knows for these rows (`inputs`, `ln_y`), internal scale; besides those of variable
    /// projection and of the parameters' ranges.
    fn starts(&self, inputs: &[Input], ln_y: &[f64]) -> Vec<Vec<f64>> {
        let _ = (inputs, ln_y);
        Vec::new()
    }

    /// `ln y` alone.
    fn ln_at(&self, theta: &[f64], x: &Input) -> f64 {
        let mut gradient = [0.0; PARAMETERS_MAX];
        self.log_value(theta, x, &mut gradient[..theta.len()])
    }
}

/// Most parameters of a law.
pub const PARAMETERS_MAX: usize = 10;

/// `t(y) = sum_j coefficient_j * basis_j(x)`, coefficients at least zero: given the other parameters ("shapes") the
/// best coefficients are a small non-negative least-squares problem (Golub and Pereyra 1973).
pub trait Separable {
    /// Indices in theta of the coefficients, all held by their logarithm, in the order of [`Separable::basis`].
    fn coefficients(&self) -> &'static [usize];
    /// Indices in theta of the shapes.
    fn shapes(&self) -> &'static [usize];
    /// Basis functions at `x`; of `theta` only the shapes count.
    fn basis(&self, theta: &[f64], x: &Input, basis: &mut [f64]);
    /// The transformed response `t` and its derivative by `ln y`; `(y, y)` unless the law says otherwise. `None` where
    /// `y` is out of the law's range.
    fn response(&self, theta: &[f64], ln_y: f64) -> Option<(f64, f64)> {
        let _ = theta;
        Some((ln_y.exp(), ln_y.exp()))
    }
}

/// The axes of a law of one axis.
fn only(axis: Axis) -> &'static [Axis] {
    match axis {
        Axis::C => &[Axis::C],
        Axis::N => &[Axis::N],
        Axis::D => &[Axis::D],
        Axis::U => &[Axis::U],
        Axis::L => &[Axis::L],
    }
}

/// A formula with the name of its one axis in the middle.
macro_rules! spread {
    ($axis:expr, $before:literal, $after:literal) => {
        match $axis {
            Axis::C => concat!($before, "C", $after),
            Axis::N => concat!($before, "N", $after),
            Axis::D => concat!($before, "D", $after),
            Axis::U => concat!($before, "U", $after),
            Axis::L => concat!($before, "L", $after),
        }
    };
}
use spread;

/// `ln(1 + e^z)` without overflow.
fn softplus(z: f64) -> f64 {
    z.max(0.0) + (-z.abs()).exp().ln_1p()
}

/// Internal to natural parameters.
pub fn natural(law: &dyn Law, theta: &[f64]) -> Vec<f64> {
    let scale = |(value, parameter): (&f64, &Parameter)| match parameter.scale {
        Scale::Linear => *value,
        Scale::Log => value.exp(),
    };
    theta.iter().zip(law.parameters()).map(scale).collect()
}

/// Natural to internal parameters.
pub fn internal(law: &dyn Law, values: &[f64]) -> Vec<f64> {
    let scale = |(value, parameter): (&f64, &Parameter)| match parameter.scale {
        Scale::Linear => *value,
        Scale::Log => value.ln(),
    };
    values.iter().zip(law.parameters()).map(scale).collect()
}

#[cfg(test)]
mod checks;
#[cfg(test)]
mod tests;
