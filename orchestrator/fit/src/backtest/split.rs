//! Which rows are trained on and which are held out.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use serde::{Serialize, Serializer};

use super::HoldOut;
use crate::law::Axis;
use crate::observation::Observation;

/// Distinct values on its axis that a rolling cut trains on where it can: of two, a slope is known but not how it
/// bends.
const VALUES_MIN: usize = 3;
/// Values of an axis within this share of each other are the same value.
const SAME: f64 = 1e-9;

/// What rows are grouped by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Group {
    /// Model, or family of models.
    Model,
    /// Unique samples.
    DataSize,
    /// Samples seen.
    SamplesSeen,
}

impl Group {
    /// All of them.
    pub const ALL: [Group; 3] = [Group::Model, Group::DataSize, Group::SamplesSeen];

    fn as_str(self) -> &'static str {
        match self {
            Group::Model => "model",
            Group::DataSize => "data-size",
            Group::SamplesSeen => "samples-seen",
        }
    }

    fn axis(self) -> Option<Axis> {
        match self {
            Group::Model => None,
            Group::DataSize => Some(Axis::U),
            Group::SamplesSeen => Some(Axis::D),
        }
    }
}

/// How rows are split, again and again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Split {
    /// Train at or below a value of the axis, test above; for one value after another.
    Rolling(Axis),
    /// Train on all groups but one, test on that one; for one group after another.
    LeaveOut(Group),
}

impl Split {
    /// Axis that rows must have.
    pub fn axis(self) -> Option<Axis> {
        match self {
            Split::Rolling(axis) => Some(axis),
            Split::LeaveOut(group) => group.axis(),
        }
    }
}

impl fmt::Display for Split {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Split::Rolling(axis) => write!(f, "rolling:{axis}"),
            Split::LeaveOut(group) => write!(f, "leave-out:{}", group.as_str()),
        }
    }
}

impl FromStr for Split {
    type Err = String;

    /// `rolling:C` (N, D or U), `leave-out:model` (data-size, samples-seen).
    fn from_str(text: &str) -> Result<Split, String> {
        let axis = |name: &str| Axis::ALL.into_iter().find(|axis| *axis != Axis::L && axis.to_string() == name);
        let group = |name: &str| Group::ALL.into_iter().find(|group| group.as_str() == name);
        match text.split_once(':') {
            Some(("rolling", name)) => axis(name).map(Split::Rolling),
            Some(("leave-out", name)) => group(name).map(Split::LeaveOut),
            _ => None,
        }
        .ok_or_else(|| {
            format!(
                "`{text}` is no way to hold rows out: allowed are rolling:C, rolling:N, rolling:D, rolling:U, \
                 leave-out:model, leave-out:data-size and leave-out:samples-seen"
            )
        })
    }
}

impl Serialize for Split {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// One split.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Place {
    /// Trained at or below `value`.
    AtMost {
        /// On which axis.
        axis: Axis,
        /// The greatest value trained on.
        value: f64,
    },
    /// Trained on all but this model.
    WithoutModel {
        /// The model.
        model: String,
    },
    /// Trained on all but this value.
    Without {
        /// On which axis.
        axis: Axis,
        /// The value left out.
        value: f64,
    },
}

impl Place {
    /// Whether a row is trained on.
    pub fn trains_on(&self, row: &Observation) -> bool {
        match self {
            Place::AtMost { axis, value } => row.on(*axis) <= value * (1.0 + SAME),
            Place::WithoutModel { model } => row.model != *model,
            Place::Without { axis, value } => (row.on(*axis) - value).abs() > value * SAME,
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::AtMost { axis, value } => write!(f, "{axis} <= {value:.4e}"),
            Place::WithoutModel { model } => write!(f, "without {model}"),
            Place::Without { axis, value } => write!(f, "without {axis} = {value:.4e}"),
        }
    }
}

/// Where to cut. Of a rolling back-test: values with `enough` rows at or below and some above, the first two values
/// only if there are no later ones ([`VALUES_MIN`]), thinned to `cuts_max`; the greatest, though it has too few rows,
/// where none has enough, so that it can be said.
pub(super) fn places(hold_out: &HoldOut, rows: &[Observation], enough: impl Fn(&[usize]) -> bool) -> Vec<Place> {
    match hold_out.split {
        Split::Rolling(axis) => {
            let mut values = distinct(rows, axis);
            values.pop();
            let at_most = |value| Place::AtMost { axis, value };
            let last = values.last().copied();
            let has_enough = |place: &Place| {
                let train: Vec<usize> = (0..rows.len()).filter(|&row| place.trains_on(&rows[row])).collect();
                enough(&train)
            };
            let told_apart = values.len().min(VALUES_MIN) - values.len().min(1);
            let eligible: Vec<Place> = values.into_iter().skip(told_apart).map(at_most).filter(has_enough).collect();
            if eligible.is_empty() {
                return last.map(at_most).into_iter().collect();
            }
            thin(eligible, hold_out.cuts_max)
        }
        Split::LeaveOut(group) => match group.axis() {
            None => {
                let models: BTreeSet<&str> = rows.iter().map(|row| row.model.as_str()).collect();
                models.into_iter().map(|model| Place::WithoutModel { model: model.to_owned() }).collect()
            }
            Some(axis) => distinct(rows, axis).into_iter().map(|value| Place::Without { axis, value }).collect(),
        },
    }
}

/// Values on an axis, ascending, each group of nearly equal ones by its least.
fn distinct(rows: &[Observation], axis: Axis) -> Vec<f64> {
    let mut values: Vec<f64> = rows.iter().map(|row| row.on(axis)).collect();
    values.sort_by(f64::total_cmp);
    values.dedup_by(|next, kept| *next <= *kept * (1.0 + SAME));
    values
}

/// At most `most` (at least one), evenly spread by rank, the first and the last among them.
fn thin(places: Vec<Place>, most: usize) -> Vec<Place> {
    let (count, most) = (places.len(), most.max(1));
    if count <= most {
        return places;
    }
    let kept: BTreeSet<usize> = match most {
        1 => BTreeSet::from([count / 2]),
        _ => (0..most).map(|i| (i * (count - 1) + (most - 1) / 2) / (most - 1)).collect(),
    };
    places.into_iter().enumerate().filter(|(index, _)| kept.contains(index)).map(|(_, place)| place).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_split_reads_back_as_written() {
        let axes = [Axis::C, Axis::N, Axis::D, Axis::U].map(Split::Rolling);
        for split in axes.into_iter().chain(Group::ALL.map(Split::LeaveOut)) {
            assert_eq!(split.to_string().parse::<Split>(), Ok(split));
        }
        for text in ["", "rolling", "rolling:", "rolling:L", "rolling:c", "leave-out:C", "model"] {
            assert!(text.parse::<Split>().is_err(), "{text}");
        }
    }

    #[test]
    fn thinning_keeps_the_ends() {
        for count in 1..20 {
            for most in 2..10 {
                let places: Vec<Place> =
                    (0..count).map(|i| Place::AtMost { axis: Axis::C, value: f64::from(i) }).collect();
                let kept = thin(places.clone(), most);
                assert_eq!(kept.len(), most.min(places.len()));
                assert_eq!((kept.first(), kept.last()), (places.first(), places.last()));
            }
        }
    }
}
