//! What does not add up in the 2022 study's files, said before anybody fits a law to it.

use std::collections::BTreeMap;

use super::super::{agree, list_of};
use super::{Curves, Model, ModelKey, Training};
use crate::dataset::table::Table;

/// Means over members that the file brings along: name, members where they can be told from the file.
const AGGREGATES: [&str; 3] = ["imagenet_robustness", "vtab", "vtab+"];
const ROBUSTNESS: [&str; 5] = ["imagenetv2", "imagenet_sketch", "imagenet-a", "imagenet-r", "objectnet"];
/// Beside the 18 sets that all of VTAB's versions share.
const NOT_VTAB: [&str; 1] = ["vtab/cifar10"];

/// What is looked at.
pub(super) struct Seen<'a> {
    pub(super) models: &'a BTreeMap<ModelKey, Model>,
    pub(super) trainings: &'a [Training],
    pub(super) curves: &'a Curves,
    pub(super) results: &'a Table,
    pub(super) trained: &'a Table,
    pub(super) curves_file: &'a str,
}

/// Whether a data set is a mean over others that are there too.
pub(super) fn is_aggregate(dataset: &str, values: &BTreeMap<(String, String), f64>) -> bool {
    AGGREGATES.contains(&dataset) && mean_of(dataset, "acc1", values).is_some()
}

pub(super) fn all(seen: &Seen<'_>) -> Vec<String> {
    [
        aggregates(seen),
        compute(seen),
        samples(seen),
        scales(seen),
        throughput(seen),
        recipes(seen),
        batches(seen),
        curves(seen),
    ]
    .concat()
}

/// Mean over the members of an aggregate, where there are as many as there should be.
fn mean_of(aggregate: &str, metric: &str, values: &BTreeMap<(String, String), f64>) -> Option<f64> {
    let (count, is_member): (usize, &dyn Fn(&str) -> bool) = match aggregate {
        "imagenet_robustness" => (5, &|name| ROBUSTNESS.contains(&name)),
        "vtab" => (19, &|name| name == "sun397" || name.starts_with("vtab/") && !NOT_VTAB.contains(&name)),
        _ => (35, &|name| {
            let others = ["voc2007_multilabel", "mscoco_captions", "flickr30k", "flickr8k"];
            !AGGREGATES.contains(&name) && !others.contains(&name)
        }),
    };
    let members: Vec<f64> = values
        .iter()
        .filter(|((dataset, of), _)| of == metric && is_member(dataset))
        .map(|(_, value)| *value)
        .collect();
    (members.len() == count).then(|| members.iter().sum::<f64>() / count as f64)
}

fn aggregates(seen: &Seen<'_>) -> Vec<String> {
    let mut warnings = Vec::new();
    for model in seen.models.values() {
        for aggregate in AGGREGATES {
            let given = model.values.get(&(aggregate.to_owned(), "acc1".to_owned()));
            let (Some(&given), Some(ours)) = (given, mean_of(aggregate, "acc1", &model.values)) else { continue };
            if (given - ours).abs() > 1e-9 {
                warnings.push(format!(
                    "{}: `{}` has {aggregate} {given}, its members have mean {ours}, which is used",
                    seen.results.name, model.name
                ));
            }
        }
    }
    warnings
}

fn compute(seen: &Seen<'_>) -> Vec<String> {
    let odd = seen.models.values().filter(|m| !agree(m.gmacs_total, m.gmacs * m.samples_seen, 1e-9));
    odd.map(|m| {
        format!(
            "{}: `{}`: gmacs_total {:e} is not gmacs x samples_seen = {:e}; gmacs_total is used",
            seen.results.place(m.row),
            m.name,
            m.gmacs_total,
            m.gmacs * m.samples_seen
        )
    })
    .collect()
}

/// samples_seen of the results against epochs x samples_per_epoch of the trainings.
fn samples(seen: &Seen<'_>) -> Vec<String> {
    let mut warnings = Vec::new();
    for training in seen.trainings {
        let Some(model) = seen.models.values().find(|model| model.name == training.name) else {
            warnings.push(format!(
                "{}: `{}` has no row in {}; it is not imported",
                seen.trained.place(training.row),
                training.name,
                seen.results.name
            ));
            continue;
        };
        let trained = training.epochs * training.samples_per_epoch;
        if !agree(trained, model.samples_seen, 1e-6) {
            warnings.push(format!(
                "{}: `{}`: {} epochs x {} samples are {:.3}e9, {} says {:.3}e9, which is used",
                seen.trained.place(training.row),
                training.name,
                training.epochs,
                training.samples_per_epoch,
                trained / 1e9,
                seen.results.place(model.row),
                model.samples_seen / 1e9
            ));
        }
    }
    warnings
}

/// One label, several values.
fn scales(seen: &Seen<'_>) -> Vec<String> {
    let mut by_label: BTreeMap<&str, Vec<(f64, &str)>> = BTreeMap::new();
    for model in seen.models.values().filter(|model| model.pool != "CLIP-WIT") {
        by_label.entry(&model.scale).or_default().push((model.samples_seen, &model.name));
    }
    let mut warnings = Vec::new();
    for (label, mut of) in by_label {
        of.sort_by(|a, b| a.0.total_cmp(&b.0));
        if let (Some(least), Some(most)) = (of.first(), of.last())
            && !agree(least.0, most.0, 0.01)
        {
            warnings.push(format!(
                "{}: \"{label}\" stands for {:.2}e9 (`{}`) to {:.2}e9 (`{}`) samples; the numbers are used, not the label",
                seen.results.name,
                least.0 / 1e9,
                least.1,
                most.0 / 1e9,
                most.1
            ));
        }
    }
    warnings
}

fn throughput(seen: &Seen<'_>) -> Vec<String> {
    let mut by_value: BTreeMap<u64, Vec<&Training>> = BTreeMap::new();
    for training in seen.trainings {
        by_value.entry(training.samples_per_sec.to_bits()).or_default().push(training);
    }
    let repeated = by_value.values().filter(|same| same.len() > 1);
    repeated
        .map(|same| {
            format!(
                "{}: samples_per_sec {} stands in {} rows, so it is one measurement at most: {}; their GPU-hours are \
                 approximate",
                seen.trained.name,
                same[0].samples_per_sec,
                same.len(),
                list_of(same.iter().map(|t| format!("{} (`{}`)", seen.trained.place(t.row), t.name)))
            )
        })
        .collect()
}

/// Learning rate, batch and warm-up that change within the cells of one architecture.
fn recipes(seen: &Seen<'_>) -> Vec<String> {
    let mut by_arch: BTreeMap<&str, BTreeMap<String, Vec<&Training>>> = BTreeMap::new();
    for training in seen.trainings {
        let recipe = format!(
            "lr {:e}, warmup {}, batch {}k",
            training.lr,
            training.warmup,
            (training.global_batch() / 1e3).round()
        );
        by_arch.entry(&training.arch).or_default().entry(recipe).or_default().push(training);
    }
    let mixed = by_arch.into_iter().filter(|(_, recipes)| recipes.len() > 1);
    mixed
        .map(|(arch, recipes)| {
            let cells = |of: &[&Training]| list_of(of.iter().map(|t| format!("{}/{}", t.data, t.scale)));
            let list: Vec<String> = recipes.iter().map(|(recipe, of)| format!("{recipe}: {}", cells(of))).collect();
            format!(
                "{}: the recipe of {arch} changes over the grid (data/samples), which is confounded with scale: {}",
                seen.trained.name,
                list.join("; ")
            )
        })
        .collect()
}

/// The batch in a model's name (`_bs-88k`) against GPUs x local batch.
fn batches(seen: &Seen<'_>) -> Vec<String> {
    let mut warnings = Vec::new();
    for training in seen.trainings {
        let named = training.name.split("_bs-").nth(1).and_then(|rest| rest.split('k').next()).and_then(super::number);
        // Some names count in 1,000, some in 1,024.
        let agrees = |named: f64| [1e3, 1024.0].iter().any(|k| agree(named * k, training.global_batch(), 0.01));
        if let Some(named) = named
            && !agrees(named)
        {
            warnings.push(format!(
                "{}: `{}` has {named}k in its name, {} GPUs x {} are a batch of {}",
                seen.trained.place(training.row),
                training.name,
                training.gpus,
                training.local_batch,
                training.global_batch()
            ));
        }
    }
    warnings
}

fn curves(seen: &Seen<'_>) -> Vec<String> {
    let mut warnings = Vec::new();
    for training in seen.trainings {
        let Some(points) = seen.curves.get(&training.name) else {
            warnings.push(format!("{}: `{}` has no learning curve", seen.curves_file, training.name));
            continue;
        };
        if (points.len() as f64) < training.epochs {
            let missing = (1..=training.epochs as u64)
                .filter(|epoch| !points.iter().any(|point| point.0.to_bits() == (*epoch as f64).to_bits()));
            warnings.push(format!(
                "{}: the curve of `{}` has {} of {} epochs; without {}",
                seen.curves_file,
                training.name,
                points.len(),
                training.epochs,
                list_of(missing.map(|epoch| epoch.to_string()))
            ));
        }
        let Some(model) = seen.models.values().find(|model| model.name == training.name) else { continue };
        let without = points.iter().filter(|point| point.2.is_none()).count();
        if without > 0 {
            warnings.push(format!(
                "{}: the curve of `{}` has no top-5 at {without} of {} epochs",
                seen.curves_file,
                training.name,
                points.len()
            ));
        }
        // The last epoch is the final measurement, which zeroshot_results.csv has.
        let beyond = points
            .iter()
            .filter(|point| point.0 < training.epochs && point.0 * training.samples_per_epoch >= model.samples_seen)
            .map(|point| point.0.to_string());
        let beyond: Vec<String> = beyond.collect();
        if !beyond.is_empty() {
            warnings.push(format!(
                "{}: `{}`: epoch {} lies beyond its samples_seen {:.3}e9 and is left out",
                seen.curves_file,
                training.name,
                list_of(beyond),
                model.samples_seen / 1e9
            ));
        }
        let last = points.iter().find(|point| point.0.to_bits() == training.epochs.to_bits());
        if let (Some(last), Some(&end)) = (last, model.values.get(&("imagenet1k".to_owned(), "acc1".to_owned())))
            && (last.1 - end).abs() > 0.0015
        {
            warnings.push(format!(
                "{}: `{}` ends at {} there and at {end} in {}, which is used",
                seen.curves_file, training.name, last.1, seen.results.name
            ));
        }
    }
    warnings
}
