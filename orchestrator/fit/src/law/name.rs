//! Names of the shipped laws, as on the command line and in SQL.

use std::fmt;
use std::str::FromStr;

use serde::{Serialize, Serializer};

use super::{
    Additive, Axis, Bnsl, Bounded, Chinchilla, Downstream, Gadre, Law, M4, Power, Repeated, Saturating, Shifted,
    Sigmoid,
};

/// A shipped law. Those of one axis say which: `power` is along C, `power-d` along D.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum LawName {
    /// F1.
    Power(Axis),
    /// F2.
    Saturating(Axis),
    /// F3.
    Shifted(Axis),
    /// F4.
    M4(Axis),
    /// F5 with one break.
    Bnsl(Axis),
    /// F6.
    Chinchilla,
    /// F6 with `alpha = beta`.
    ChinchillaTied,
    /// F6 with `alpha = beta` in the parameters of over-training.
    Gadre,
    /// F7.
    Repeated,
    /// F7 without its part on parameters in excess.
    RepeatedData,
    /// F8.
    Additive,
    /// F9.
    Bounded,
    /// F9 without unique samples.
    BoundedNd,
    /// F10.
    Downstream,
    /// F10 with two ends.
    Sigmoid,
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
        LawName::Shifted(Axis::C),
        LawName::Shifted(Axis::N),
        LawName::Shifted(Axis::D),
        LawName::Shifted(Axis::U),
        LawName::M4(Axis::C),
        LawName::M4(Axis::N),
        LawName::M4(Axis::D),
        LawName::M4(Axis::U),
        LawName::Bnsl(Axis::C),
        LawName::Bnsl(Axis::N),
        LawName::Bnsl(Axis::D),
        LawName::Bnsl(Axis::U),
        LawName::Chinchilla,
        LawName::ChinchillaTied,
        LawName::Gadre,
        LawName::Repeated,
        LawName::RepeatedData,
        LawName::Additive,
        LawName::Bounded,
        LawName::BoundedNd,
        LawName::Downstream,
        LawName::Sigmoid,
    ];

    /// On the command line and in SQL.
    pub fn as_str(self) -> &'static str {
        match self {
            LawName::Power(axis) => along!(axis, "power"),
            LawName::Saturating(axis) => along!(axis, "saturating"),
            LawName::Shifted(axis) => along!(axis, "shifted"),
            LawName::M4(axis) => along!(axis, "m4"),
            LawName::Bnsl(axis) => along!(axis, "bnsl"),
            LawName::Chinchilla => "chinchilla",
            LawName::ChinchillaTied => "chinchilla-tied",
            LawName::Gadre => "gadre",
            LawName::Repeated => "repeated",
            LawName::RepeatedData => "repeated-data",
            LawName::Additive => "additive",
            LawName::Bounded => "bounded",
            LawName::BoundedNd => "bounded-nd",
            LawName::Downstream => "downstream",
            LawName::Sigmoid => "sigmoid",
        }
    }

    /// The law. `ceiling`: the error of guessing, for laws that end there; 1 where it is not known.
    pub fn law(self, ceiling: f64) -> Box<dyn Law> {
        match self {
            LawName::Power(axis) => Box::new(Power { axis }),
            LawName::Saturating(axis) => Box::new(Saturating { axis }),
            LawName::Shifted(axis) => Box::new(Shifted { axis }),
            LawName::M4(axis) => Box::new(M4 { axis, ceiling }),
            LawName::Bnsl(axis) => Box::new(Bnsl { axis }),
            LawName::Chinchilla => Box::new(Chinchilla { tied: false }),
            LawName::ChinchillaTied => Box::new(Chinchilla { tied: true }),
            LawName::Gadre => Box::new(Gadre),
            LawName::Repeated => Box::new(Repeated { excess: true }),
            LawName::RepeatedData => Box::new(Repeated { excess: false }),
            LawName::Additive => Box::new(Additive),
            LawName::Bounded => Box::new(Bounded { ceiling, repeats: true }),
            LawName::BoundedNd => Box::new(Bounded { ceiling, repeats: false }),
            LawName::Downstream => Box::new(Downstream),
            LawName::Sigmoid => Box::new(Sigmoid),
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
