//! What a runner writes to standard output, one JSON object a line.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use serde::de::{self, Deserializer, Visitor};
use serde::{Deserialize, Serialize, Serializer};

use crate::EvaluationTask;

/// One line of a runner's standard output, as our runners write it; `sweep` reads what others write more leniently (see
/// the README). Positions are samples seen *before* the event's own work is repeated: an event with `samples_seen: 256`
/// speaks of the state after 256 samples.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case", deny_unknown_fields)]
pub enum Event {
    /// First line: who runs, and from where.
    Started {
        /// Parameters N as counted on the built model; the worker checks them against the closed form.
        parameters: u64,
        /// Samples seen at the checkpoint this attempt resumed from; 0 for a fresh start.
        resumed_from_samples: u64,
        /// For example `cpu (2 threads)` or `NVIDIA H100 80GB HBM3`.
        device: String,
        /// What it trains on, where the runner reads a pool and knows: U of the result is what was there, not what was
        /// planned.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        data: Option<DataUsed>,
    },
    /// Training went on. Runners report every so many steps; the last step is always reported.
    Step {
        /// Optimiser steps taken.
        step: u64,
        /// Samples seen.
        samples_seen: u64,
        /// Training loss over the steps since the last report. NaN fails the job.
        #[serde(serialize_with = "number_or_name", deserialize_with = "any_number")]
        loss: f64,
        /// Anything else: `lr`, `logit_scale`, `samples_per_sec`, ...
        #[serde(default, skip_serializing_if = "BTreeMap::is_empty", with = "numbers")]
        metrics: BTreeMap<String, f64>,
    },
    /// Something was measured on held-out data.
    Eval {
        /// Samples seen.
        samples_seen: u64,
        /// The evaluation's data set.
        dataset: String,
        /// Results.
        measurements: Vec<Measurement>,
        /// Planned tasks of which nothing could be measured, and why. A task that is neither measured nor named here
        /// fails the job.
        #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
        unmeasured: BTreeMap<EvaluationTask, String>,
    },
    /// A checkpoint is complete on disk under its final name.
    Checkpoint {
        /// Optimiser steps taken.
        step: u64,
        /// Samples seen.
        samples_seen: u64,
        /// Folder of the checkpoint.
        path: PathBuf,
        /// sha256 of its manifest, which names and hashes the other files.
        sha256: String,
    },
    /// Last line of a job that is done.
    Finished {
        /// Samples seen, equal to what the job asked for.
        samples_seen: u64,
        /// Seconds this attempt spent in training steps.
        train_secs: f64,
        /// Seconds this attempt spent in evaluations.
        eval_secs: f64,
        /// Most memory at once, bytes, if known: what tensors take on a GPU, else what is resident of the process.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        peak_memory_bytes: Option<u64>,
    },
    /// Last line of a job that can't go on.
    Failed {
        /// One sentence for people.
        reason: String,
        /// Whether to try again.
        kind: FailureKind,
    },
}

/// What of the pool is trained on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DataUsed {
    /// Distinct pairs.
    pub pairs: u64,
    /// Samples that were passed over to find them, by what is wrong with them.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub skipped: BTreeMap<String, u64>,
}

/// Why a runner gave up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FailureKind {
    /// The loss is no longer a number. Trying the same again gives the same: no retry.
    Diverged,
    /// The job or its data can't work: no retry.
    BadInput,
    /// Anything else: retried up to the limit.
    Crash,
}

/// One number measured on one data set.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Measurement {
    /// For example `acc1` or `image_retrieval_recall@5`.
    pub metric: String,
    /// The number; accuracies are fractions.
    #[serde(serialize_with = "number_or_name", deserialize_with = "any_number")]
    pub value: f64,
    /// Its standard error over the test items (binomial for accuracies).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub standard_error: Option<f64>,
    /// What guessing gives.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub chance: Option<f64>,
    /// Test items.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub count: Option<u64>,
}

/// Answer to `RUNNER describe`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[expect(clippy::struct_excessive_bools, reason = "each is a key of JSON of its own, left out where it is false")]
pub struct Description {
    /// Name, for example `clip`.
    pub name: String,
    /// Version that is part of every job key: see [`crate::RunnerIdentity`].
    pub version: String,
    /// [`crate::PROTOCOL_VERSION`] it speaks.
    pub protocol: u32,
    /// Whether it reads a pool; a runner that doesn't is not checked for data.
    pub reads_data: bool,
    /// Devices it can use here, best first, for example `["cuda:0", "cpu"]`.
    pub devices: Vec<String>,
    /// Whether it answers `RUNNER serve`: jobs one after another in one process.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub serve: bool,
    /// Whether several processes can train one job: [`crate::Ranks`].
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub ranks: bool,
    /// Whether it can start from given weights, and only measure them: [`crate::JobSpec::init`].
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub init: bool,
    /// Whether it can go on from a checkpoint of another job: [`crate::Job::parent`].
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub branches: bool,
    /// Whether it can go back to a checkpoint after a loss spike: [`crate::OnSpike::Rollback`].
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub rolls_back: bool,
    /// Of settings by their names in `job.json` (`augmentation`, `loss`, `precision`, `schedule`, names in `extra`, and
    /// `tasks` of evaluations) the values that it takes; of those left out, all. Others are refused when a spec is
    /// planned.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub accepts: BTreeMap<String, Vec<String>>,
}

/// One line on standard input of `RUNNER serve`: train this job next.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServeRequest {
    /// File of the job, absolute, as for `RUNNER run --job`.
    pub job: PathBuf,
}

/// A map of numbers that may be none.
mod numbers {
    use super::{BTreeMap, Deserialize, Deserializer, Serialize, Serializer};

    #[derive(Serialize, Deserialize)]
    struct Number(#[serde(serialize_with = "super::number_or_name", deserialize_with = "super::any_number")] f64);

    pub(super) fn serialize<S: Serializer>(map: &BTreeMap<String, f64>, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(map.iter().map(|(name, &value)| (name, Number(value))))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<BTreeMap<String, f64>, D::Error> {
        let map = BTreeMap::<String, Number>::deserialize(deserializer)?;
        Ok(map.into_iter().map(|(name, number)| (name, number.0)).collect())
    }
}

/// JSON has no NaN: `null`, `"NaN"`, `"inf"` and `"-inf"` stand for what is no finite number.
fn any_number<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
    struct AnyNumber;
    impl Visitor<'_> for AnyNumber {
        type Value = f64;
        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a number, null, \"NaN\", \"inf\" or \"-inf\"")
        }
        fn visit_f64<E>(self, value: f64) -> Result<f64, E> {
            Ok(value)
        }
        fn visit_u64<E>(self, value: u64) -> Result<f64, E> {
            Ok(value as f64)
        }
        fn visit_i64<E>(self, value: i64) -> Result<f64, E> {
            Ok(value as f64)
        }
        fn visit_unit<E>(self) -> Result<f64, E> {
            Ok(f64::NAN)
        }
        fn visit_str<E: de::Error>(self, value: &str) -> Result<f64, E> {
            match value.to_ascii_lowercase().as_str() {
                "nan" => Ok(f64::NAN),
                "inf" | "+inf" | "infinity" => Ok(f64::INFINITY),
                "-inf" | "-infinity" => Ok(f64::NEG_INFINITY),
                _ => Err(E::invalid_value(de::Unexpected::Str(value), &self)),
            }
        }
    }
    deserializer.deserialize_any(AnyNumber)
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes fields by reference")]
fn number_or_name<S: Serializer>(value: &f64, serializer: S) -> Result<S::Ok, S::Error> {
    if value.is_finite() {
        serializer.serialize_f64(*value)
    } else if value.is_nan() {
        serializer.serialize_str("NaN")
    } else {
        serializer.serialize_str(if *value > 0.0 { "inf" } else { "-inf" })
    }
}
