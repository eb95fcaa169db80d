//! Linear probes as the 2022 study published them: a flat record a model, data set, number of shots, learning rate and
//! number of epochs.

use std::collections::BTreeMap;

use serde_json::Value;

use super::super::{SourceFile, list_of};
use super::{Blank, Record, dataset_name, metric_name};

const METRICS: [&str; 3] = ["lp_acc1", "lp_acc5", "lp_mean_per_class_recall"];

/// Model, pretrained tag, data set, shots (-1: the whole training set).
type ProbeKey = (String, String, String, i64);
/// Its accuracy, how many were tried, the record.
type Best<'a> = (f64, usize, &'a Value);

/// What the probes were run on, as the zero-shot results name it.
fn usual_name(dataset: &str) -> String {
    match dataset {
        "imagenet1k-unverified" => "imagenet1k".to_owned(),
        "vtab_svhn" => "vtab/svhn".to_owned(),
        other => dataset_name(other, None),
    }
}

/// One record a model, data set and number of shots: the best of its learning rates and epochs, as the paper took it.
pub(super) fn records(
    file: &SourceFile,
    at: usize,
    list: &[Value],
    blank: &mut Blank,
    warnings: &mut Vec<String>,
) -> Vec<Record> {
    let mut best: BTreeMap<ProbeKey, Best<'_>> = BTreeMap::new();
    let mut renamed: BTreeMap<&str, String> = BTreeMap::new();
    let mut unreadable = Vec::new();
    for (number, value) in list.iter().enumerate() {
        let text = |name: &str| value.get(name).and_then(Value::as_str);
        let shots = ["fewshot_k", "k"].iter().find_map(|name| value.get(*name).and_then(Value::as_f64));
        let (Some(model), Some(dataset), Some(acc1), Some(shots)) =
            (text("model"), text("dataset"), value.get("lp_acc1").and_then(Value::as_f64), shots)
        else {
            unreadable.push(format!("entry {}", number + 1));
            continue;
        };
        let usual = usual_name(dataset);
        if usual != dataset {
            renamed.insert(dataset, usual.clone());
        }
        let key = (model.to_owned(), text("pretrained").unwrap_or_default().to_owned(), usual, shots as i64);
        let entry = best.entry(key).or_insert((acc1, 0, value));
        entry.1 += 1;
        if acc1 > entry.0 {
            (entry.0, entry.2) = (acc1, value);
        }
    }
    if !unreadable.is_empty() {
        warnings.push(format!(
            "{}: left out, without model, dataset, lp_acc1 or fewshot_k: {}",
            file.name,
            list_of(unreadable)
        ));
    }
    if best.values().any(|(_, tried, _)| *tried > 1) {
        let most = best.values().map(|(_, tried, _)| *tried).max().unwrap_or(0);
        warnings.push(format!(
            "{}: of up to {most} learning rates and epochs the best on the test set is taken, as the paper did: these \
             accuracies are too high by the choice, and their noise is more than binomial",
            file.name
        ));
    }
    if !renamed.is_empty() {
        let names = list_of(renamed.iter().map(|(from, to)| format!("`{from}` as `{to}`")));
        warnings.push(format!("{}: stored {names}", file.name));
    }
    best.into_iter()
        .map(|((model, pretrained, dataset, shots), (_, _, value))| {
            let real = |name: &str| value.get(name).and_then(Value::as_f64);
            let mut metrics = Vec::new();
            for metric in METRICS {
                match real(metric) {
                    Some(value) => metrics.push((metric_name(metric, Some(shots as f64)), value)),
                    None => *blank.entry(metric.to_owned()).or_default() += 1,
                }
            }
            Record {
                place: file.name.clone(),
                file: at,
                dataset,
                model,
                pretrained,
                metrics,
                samples_seen: real("samples_seen").filter(|seen| *seen >= 1.0),
                gmacs_total: real("gmacs_total").filter(|gmacs| *gmacs > 0.0),
                pool: value.get("upstream_dataset").and_then(Value::as_str).map(str::to_owned),
                ignored: Vec::new(),
            }
        })
        .collect()
}
