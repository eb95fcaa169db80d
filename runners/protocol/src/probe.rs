//! A linear probe: a linear classifier on image features that stay as they are.

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::DataSource;

/// [`Shots::Vtab1k`] in JSON and behind the `@` of a metric.
const VTAB_1K: &str = "vtab1k";

/// What a probe is trained on, and how. The protocol is that of CLIP_benchmark: AdamW with a cosine to 0, unit
/// features, whole sweeps of learning rates and epochs. Every field has a value here; defaults are the planner's
/// business.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProbePlan {
    /// Images with classes.
    pub train: DataSource,
    /// What learning rate, epochs and weight decay are chosen on; without it, a fifth of `train` is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub validation: Option<DataSource>,
    /// One probe each.
    pub shots: Vec<Shots>,
    /// What settles the choice.
    pub choose: Choose,
    /// Peak learning rates to choose from.
    pub lr: Vec<f64>,
    /// Passes over the training set to choose from.
    pub epochs: Vec<u64>,
    /// Images a step.
    pub batch_size: u64,
    /// Seed of initialisation, order and choice of shots.
    pub seed: u64,
}

/// How much of the training set a probe sees. In JSON a number, `all` or `vtab1k`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Shots {
    /// So many images of each class.
    Each(u64),
    /// All.
    All,
    /// 1,000 images, whatever their classes: 800 to train on and 200 to choose on, then all of them (Zhai et al. 2019).
    Vtab1k,
}

/// What learning rate, epochs and weight decay are chosen by.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Choose {
    /// Accuracy on held-out training images.
    #[default]
    Validation,
    /// Accuracy on the test images themselves, without weight decay, as the study of 2022 did: too high by what the
    /// choice gains.
    Test,
}

impl ProbePlan {
    /// Passes over the training set that one number of shots costs at most: each setting of the grid once, then, where
    /// weight decay is searched for, up to 15 values of it, and the last training.
    pub fn passes_max(&self) -> u64 {
        let grid = self.lr.len() as u64 * self.epochs.iter().sum::<u64>();
        let search = 16 * self.epochs.iter().max().unwrap_or(&0);
        grid + if self.choose == Choose::Validation { search } else { 0 }
    }
}

impl Shots {
    /// Behind the `@` of a metric: `full`, `5shot`, `vtab1k`.
    pub fn suffix(self) -> String {
        match self {
            Shots::All => "full".to_owned(),
            Shots::Each(count) => format!("{count}shot"),
            Shots::Vtab1k => VTAB_1K.to_owned(),
        }
    }
}

impl Serialize for Shots {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        match self {
            Shots::Each(count) => to.serialize_u64(*count),
            Shots::All => to.serialize_str("all"),
            Shots::Vtab1k => to.serialize_str(VTAB_1K),
        }
    }
}

impl<'de> Deserialize<'de> for Shots {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Shots, D::Error> {
        struct Visitor;
        impl de::Visitor<'_> for Visitor {
            type Value = Shots;

            fn expecting(&self, to: &mut std::fmt::Formatter) -> std::fmt::Result {
                to.write_str("a number of images a class, 1 or more, `all` or `vtab1k`")
            }

            fn visit_u64<E: de::Error>(self, count: u64) -> Result<Shots, E> {
                if count == 0 {
                    Err(E::invalid_value(de::Unexpected::Unsigned(0), &self))
                } else {
                    Ok(Shots::Each(count))
                }
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Shots, E> {
                match text {
                    "all" => Ok(Shots::All),
                    VTAB_1K => Ok(Shots::Vtab1k),
                    _ => Err(E::invalid_value(de::Unexpected::Str(text), &self)),
                }
            }
        }
        from.deserialize_any(Visitor)
    }
}
