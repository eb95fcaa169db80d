//! Names of the shipped laws, as on the command line and in SQL.

use std::fmt;
use std::str::FromStr;

use serde::{Serialize, Serializer};

use super::{Additive, Axis, Chinchilla, Law, M4, Power, Saturating};

/// A shipped law. Those of one axis say which: `power` is along C, `power-d` along D.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum LawName {
    /// F1.
    Power(Axis),
    /// F2.
    Saturating(Axis),
    /// F4.
    M4(Axis),
    /// F6.
    Chinchilla,
    /// F6 with `alpha = beta`.
    ChinchillaTied,
    /// F8.
    Additive,
}

/// A name along each axis.
macro_rules! along {
    ($axis:expr, $name:literal) => {
        match $axis {
            Axis::C => $name,
            Axis::N => concat!($name, "-n"),
            Axis::D => concat!($name, "-d"),
            Axis::U => concat!($name, "-u"),
            Axis::L => concat!($name, "-l"),
        }
    };
}

impl LawName {
    /// All of them, in the order of the documentation; laws of one axis along C, N, D and U.
    pub const ALL: &[LawName] = &[
        LawName::Power(Axis::C),
        LawName::Power(Axis::N),
        LawName::Power(Axis::D),
        LawName::Power(Axis::U),
        LawName::Saturating(Axis::C),
        LawName::Saturating(Axis::N),
        LawName::Saturating(Axis::D),
        LawName::Saturating(Axis::U),
        LawName::M4(Axis::C),
        LawName::M4(Axis::N),
        LawName::M4(Axis::D),
        LawName::M4(Axis::U),
        LawName::Chinchilla,
        LawName::ChinchillaTied,
        LawName::Additive,
    ];

    /// On the command line and in SQL.
    pub fn as_str(self) -> &'static str {
        match self {
            LawName::Power(axis) => along!(axis, "power"),
            LawName::Saturating(axis) => along!(axis, "saturating"),
            LawName::M4(axis) => along!(axis, "m4"),
            LawName::Chinchilla => "chinchilla",
            LawName::ChinchillaTied => "chinchilla-tied",
            LawName::Additive => "additive",
        }
    }

    /// The law. `ceiling`: the error of guessing, for laws that end there; 1 where it is not known.
    pub fn law(self, ceiling: f64) -> Box<dyn Law> {
        match self {
            LawName::Power(axis) => Box::new(Power { axis }),
            LawName::Saturating(axis) => Box::new(Saturating { axis }),
            LawName::M4(axis) => Box::new(M4 { axis, ceiling }),
            LawName::Chinchilla => Box::new(Chinchilla { tied: false }),
            LawName::ChinchillaTied => Box::new(Chinchilla { tied: true }),
            LawName::Additive => Box::new(Additive),
        }
    }
}

impl fmt::Display for LawName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for LawName {
    type Err = String;

    fn from_str(text: &str) -> Result<LawName, String> {
        LawName::ALL.iter().copied().find(|law| law.as_str() == text).ok_or_else(|| {
            let names: Vec<&str> = LawName::ALL.iter().map(|law| law.as_str()).collect();
            format!("allowed are {}", names.join(", "))
        })
    }
}

impl Serialize for LawName {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}
