//! How configurations are read and written where serde's derived forms do not do.

use std::fmt;

use serde::de::{self, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Whether a field has the value that is left out.
pub(super) fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// `layers` of an image tower.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layers {
    /// Blocks of a transformer.
    Blocks(u64),
    /// Bottlenecks of a ResNet's four stages.
    Stages([u64; 4]),
}

impl Serialize for Layers {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Layers::Blocks(blocks) => serializer.serialize_u64(*blocks),
            Layers::Stages(stages) => stages.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for Layers {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Layers, D::Error> {
        deserializer.deserialize_any(LayersVisitor)
    }
}

struct LayersVisitor;

impl<'de> Visitor<'de> for LayersVisitor {
    type Value = Layers;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a number of blocks, or those of four stages")
    }

    fn visit_u64<E: de::Error>(self, blocks: u64) -> Result<Layers, E> {
        Ok(Layers::Blocks(blocks))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut stages: A) -> Result<Layers, A::Error> {
        let mut four = [0; 4];
        for (at, stage) in four.iter_mut().enumerate() {
            *stage = stages.next_element()?.ok_or_else(|| de::Error::invalid_length(at, &self))?;
        }
        match stages.next_element::<u64>()? {
            None => Ok(Layers::Stages(four)),
            Some(_) => Err(de::Error::invalid_length(5, &"four stages")),
        }
    }
}
