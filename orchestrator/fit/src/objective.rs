//! What a fit minimises: a loss of residuals in a space.
//!
//! `Q(theta) = sum_i w_i rho(r_i)`, `r_i = g(yhat_i) - g(y_i)`: a sum, never a mean, whose scale stops optimisers early
//! (Besiroglu et al. 2024, section 3). `rho(r)` is `r^2`, Huber's `r^2/2` within delta and `delta (|r| - delta/2)`
//! outside, or `|r|`.

use std::fmt;
use std::str::FromStr;

use serde::{Serialize, Serializer};

/// `g`: the space residuals are taken in.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Space {
    /// `g(y) = ln y`.
    Log,
    /// `g(y) = y`.
    Linear,
    /// `g(y) = ln(y / (ceiling - y))`, for a response that ends at `ceiling`, the error of guessing.
    Logit {
        /// The error of guessing.
        ceiling: f64,
    },
}

impl Space {
    /// `g`, `dg/d ln y` and the second derivative by `ln y`, at `ln y`. NaN outside the space.
    pub fn at(self, ln_y: f64) -> (f64, f64, f64) {
        match self {
            Space::Log => (ln_y, 1.0, 0.0),
            Space::Linear => {
                let y = ln_y.exp();
                (y, y, y)
            }
            Space::Logit { ceiling } => {
                let y = ln_y.exp();
                let room = ceiling - y;
                (ln_y - room.ln(), ceiling / room, ceiling * y / (room * room))
            }
        }
    }
}

/// `rho`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Loss {
    /// `r^2`.
    Squares,
    /// Huber 1964, equation 2; delta in the units of the residuals.
    Huber(f64),
    /// `|r|`: least absolute deviations.
    Absolute,
    /// Huber with residuals above zero (predicted too high) weighing `over` times: leans to the lower envelope.
    Asymmetric {
        /// Huber's delta.
        delta: f64,
        /// Weight of a prediction that is too high.
        over: f64,
    },
}

impl Loss {
    /// `rho(r)`, its derivative, and its second derivative (where it has one; 0 else).
    pub fn at(self, r: f64) -> (f64, f64, f64) {
        let huber = |delta: f64, weight: f64| {
            if r.abs() <= delta {
                (weight * 0.5 * r * r, weight * r, weight)
            } else {
                (weight * delta * (r.abs() - 0.5 * delta), weight * delta * r.signum(), 0.0)
            }
        };
        match self {
            Loss::Squares => (r * r, 2.0 * r, 2.0),
            Loss::Huber(delta) => huber(delta, 1.0),
            Loss::Absolute => (r.abs(), if r == 0.0 { 0.0 } else { r.signum() }, 0.0),
            Loss::Asymmetric { delta, over } => huber(delta, if r > 0.0 { over } else { 1.0 }),
        }
    }

    /// Huber's delta, where it has one.
    pub fn delta(self) -> Option<f64> {
        match self {
            Loss::Huber(delta) | Loss::Asymmetric { delta, .. } => Some(delta),
            Loss::Squares | Loss::Absolute => None,
        }
    }

    /// The same with another delta; Huber's loss for the absolute one; squares as they are.
    #[must_use]
    pub fn with_delta(self, delta: f64) -> Loss {
        match self {
            Loss::Squares => Loss::Squares,
            Loss::Huber(_) | Loss::Absolute => Loss::Huber(delta),
            Loss::Asymmetric { over, .. } => Loss::Asymmetric { delta, over },
        }
    }
}

/// A loss in a space.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Objective {
    /// Where residuals are taken.
    pub space: Space,
    /// What of them is summed.
    pub loss: Loss,
}

impl Objective {
    /// Least squares of `ln y`.
    pub const LS_LOG: Objective = Objective { space: Space::Log, loss: Loss::Squares };
    /// Least squares of `y`.
    pub const LS: Objective = Objective { space: Space::Linear, loss: Loss::Squares };
    /// Least absolute deviations of `ln y`.
    pub const LAD: Objective = Objective { space: Space::Log, loss: Loss::Absolute };

    /// Huber of `ln y`; Hoffmann et al. 2022 use delta 1e-3.
    pub fn huber(delta: f64) -> Objective {
        Objective { space: Space::Log, loss: Loss::Huber(delta) }
    }
}

impl fmt::Display for Objective {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.loss {
            Loss::Squares => f.write_str("ls")?,
            Loss::Huber(delta) => write!(f, "huber:{delta}")?,
            Loss::Absolute => f.write_str("lad")?,
            Loss::Asymmetric { delta, over } => write!(f, "asymmetric:{delta}:{over}")?,
        }
        match (self.space, self.loss) {
            (Space::Log, Loss::Squares) => f.write_str("-log"),
            (Space::Log, _) | (Space::Linear, Loss::Squares) => Ok(()),
            (Space::Linear, _) => f.write_str("-linear"),
            (Space::Logit { .. }, _) => f.write_str("-logit"),
        }
    }
}

impl FromStr for Objective {
    type Err = String;

    /// `ls-log`, `ls`, `ls-logit`, `huber:DELTA`, `lad`, `asymmetric:DELTA:OVER`, the last three with `-linear` or
    /// `-logit` behind. A logit's ceiling is 1 until [`Objective::with_ceiling`].
    fn from_str(text: &str) -> Result<Objective, String> {
        let allowed = || {
            format!(
                "`{text}` is no objective: allowed are ls-log, ls, ls-logit, huber:DELTA, lad, asymmetric:DELTA:OVER, the \
                 last three in ln y or with -linear or -logit behind; for example huber:1e-3"
            )
        };
        let (rest, space) = if let Some(rest) = text.strip_suffix("-logit") {
            (rest, Space::Logit { ceiling: 1.0 })
        } else if let Some(rest) = text.strip_suffix("-linear") {
            (rest, Space::Linear)
        } else if let Some(rest) = text.strip_suffix("-log") {
            (rest, Space::Log)
        } else {
            (text, if text == "ls" { Space::Linear } else { Space::Log })
        };
        let positive = |text: &str| text.parse::<f64>().ok().filter(|value| value.is_finite() && *value > 0.0);
        let parts: Vec<&str> = rest.split(':').collect();
        let loss = match parts.as_slice() {
            ["ls"] => Loss::Squares,
            ["lad"] => Loss::Absolute,
            ["huber", delta] => Loss::Huber(positive(delta).ok_or_else(allowed)?),
            ["asymmetric", delta, over] => Loss::Asymmetric {
                delta: positive(delta).ok_or_else(allowed)?,
                over: positive(over).ok_or_else(allowed)?,
            },
            _ => return Err(allowed()),
        };
        Ok(Objective { space, loss })
    }
}

impl Objective {
    /// The same, with a logit that ends at `ceiling`.
    #[must_use]
    pub fn with_ceiling(self, ceiling: f64) -> Objective {
        match self.space {
            Space::Logit { .. } => Objective { space: Space::Logit { ceiling }, ..self },
            Space::Log | Space::Linear => self,
        }
    }
}

impl Serialize for Objective {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_space_and_a_loss_know_their_derivatives(ln_y in -4.0..-0.2f64, r in -2.0..2.0f64, delta in 0.1..1.0f64) {
            let step = 1e-5;
            for space in [Space::Log, Space::Linear, Space::Logit { ceiling: 0.95 }] {
                let ((up, up1, _), (down, down1, _)) = (space.at(ln_y + step), space.at(ln_y - step));
                let (_, first, second) = space.at(ln_y);
                prop_assert!(((up - down) / (2.0 * step) - first).abs() < 1e-6 * (1.0 + first.abs() + second.abs()));
                prop_assert!(((up1 - down1) / (2.0 * step) - second).abs() < 1e-5 * (1.0 + second.abs() * 20.0));
            }
            prop_assume!(r.abs() > 1e-3 && (r.abs() - delta).abs() > 1e-3);
            for loss in [Loss::Squares, Loss::Huber(delta), Loss::Absolute, Loss::Asymmetric { delta, over: 10.0 }] {
                let ((up, up1, _), (down, down1, _)) = (loss.at(r + step), loss.at(r - step));
                let (_, first, second) = loss.at(r);
                prop_assert!(((up - down) / (2.0 * step) - first).abs() < 1e-6 * (1.0 + first.abs()));
                prop_assert!(((up1 - down1) / (2.0 * step) - second).abs() < 1e-6 * (1.0 + second.abs()));
            }
        }
    }

    #[test]
    fn an_objective_reads_back_as_written() {
        for text in
            ["ls-log", "ls", "ls-logit", "huber:0.001", "lad", "lad-linear", "huber:0.01-logit", "asymmetric:0.001:10"]
        {
            assert_eq!(text.parse::<Objective>().unwrap().to_string(), text);
        }
        assert_eq!("huber:1e-3".parse::<Objective>().unwrap(), Objective::huber(1e-3));
        for text in ["", "huber", "huber:0", "huber:-1", "huber:nan", "l2", "asymmetric:1", "ls:1"] {
            assert!(text.parse::<Objective>().is_err(), "{text}");
        }
    }
}
