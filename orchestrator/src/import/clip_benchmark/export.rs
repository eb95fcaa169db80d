//! The other way: measurements as the JSON files that CLIP_benchmark writes, one a model and data set (and, for probes,
//! number of shots).

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

/// A measurement to write.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Measured {
    /// Data set; another language stands behind an `@`.
    pub dataset: String,
    /// Metric.
    pub metric: String,
    /// Model.
    pub model: String,
    /// What tells trainings of the same model apart.
    pub pretrained: String,
    /// Fraction or nats.
    pub value: f64,
    /// D, where it is known.
    pub samples_seen: Option<f64>,
    /// C, forward GMACs x samples, where it is known.
    pub gmacs_total: Option<f64>,
    /// Data set trained on.
    pub pool: Option<String>,
}

/// File names and contents: `{dataset}_{pretrained}_{model}_{language}_{task}.json`, a `/` as `_`. Only what
/// CLIP_benchmark itself gives: see [`is_of_clip_benchmark`].
pub fn files(rows: &[Measured]) -> Vec<(String, Value)> {
    let mut by_run: BTreeMap<(&str, &str, &str, String), Vec<&Measured>> = BTreeMap::new();
    for row in rows.iter().filter(|row| is_of_clip_benchmark(&row.metric)) {
        let task = task(&row.metric);
        by_run.entry((&row.model, &row.pretrained, &row.dataset, task)).or_default().push(row);
    }
    let file = |((model, pretrained, dataset, task), of): ((&str, &str, &str, String), Vec<&Measured>)| {
        let (set, language) = dataset.split_once('@').unwrap_or((dataset, "en"));
        let name = format!("{set}_{pretrained}_{model}_{language}_{task}.json").replace('/', "_");
        (name, content(model, pretrained, set, language, &of))
    };
    by_run.into_iter().map(file).collect()
}

fn content(model: &str, pretrained: &str, dataset: &str, language: &str, of: &[&Measured]) -> Value {
    let mut metrics = Map::new();
    for row in of {
        let (metric, shots) = shots(&row.metric);
        metrics.insert(metric.to_owned(), json!(row.value));
        if let Some(shots) = shots {
            metrics.insert("fewshot_k".to_owned(), json!(shots));
        }
    }
    let first = of[0];
    let mut value = json!({
        "dataset": dataset, "model": model, "pretrained": pretrained, "task": base_task(&first.metric), "metrics": metrics,
        "language": language,
    });
    // Beyond CLIP_benchmark's own fields: what its probes say of a model.
    let more = [
        ("samples_seen", first.samples_seen.map(|seen| json!(seen))),
        ("gmacs_total", first.gmacs_total.map(|gmacs| json!(gmacs))),
        ("upstream_dataset", first.pool.as_ref().map(|pool| json!(pool))),
    ];
    for (name, field) in more {
        if let Some(field) = field {
            value[name] = field;
        }
    }
    value
}

/// Whether CLIP_benchmark gives a metric of that name. It knows no losses, and no retrieval by equal captions.
pub fn is_of_clip_benchmark(metric: &str) -> bool {
    task_of(metric).is_some()
}

fn task_of(metric: &str) -> Option<&'static str> {
    let recall = metric.split_once("_retrieval_recall@").filter(|(of, k)| {
        matches!(*of, "image" | "text") && !k.is_empty() && k.bytes().all(|digit| digit.is_ascii_digit())
    });
    match metric {
        _ if recall.is_some() => Some("zeroshot_retrieval"),
        "acc1" | "acc5" | "mean_per_class_recall" | "mean_average_precision" => Some("zeroshot_classification"),
        "acc" | "image_acc" | "text_acc" => Some("image_caption_selection"),
        "Bleu_1" | "Bleu_2" | "Bleu_3" | "Bleu_4" | "METEOR" | "ROUGE_L" | "CIDEr" | "SPICE" => Some("captioning"),
        _ if matches!(shots(metric).0, "lp_acc1" | "lp_acc5" | "lp_mean_per_class_recall") => Some("linear_probe"),
        _ => None,
    }
}

fn base_task(metric: &str) -> &'static str {
    task_of(metric).unwrap_or("zeroshot_classification")
}

/// The task, and the shots of a probe, so that files of one data set don't overwrite each other.
fn task(metric: &str) -> String {
    let base = base_task(metric);
    match shots(metric).1 {
        Some(-1) => format!("{base}_full"),
        Some(shots) => format!("{base}_{shots}shot"),
        None => base.to_owned(),
    }
}

/// `lp_acc1@10shot` is `lp_acc1` at 10; -1 is the whole training set.
fn shots(metric: &str) -> (&str, Option<i64>) {
    let probe = metric.split_once('@').filter(|(base, _)| base.starts_with("lp_"));
    match probe {
        Some((base, "full")) => (base, Some(-1)),
        Some((base, at)) => {
            at.strip_suffix("shot").and_then(|k| k.parse().ok()).map_or((metric, None), |k| (base, Some(k)))
        }
        None => (metric, None),
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::SourceFile;
    use super::*;

    #[test]
    fn what_is_written_reads_back() {
        let row = |dataset: &str, metric: &str, value| Measured {
            dataset: dataset.to_owned(),
            metric: metric.to_owned(),
            model: "ViT-B-32".to_owned(),
            pretrained: "openai".to_owned(),
            value,
            samples_seen: Some(12.8e9),
            gmacs_total: Some(9.472e10),
            pool: Some("CLIP-WIT".to_owned()),
        };
        let rows = [
            row("vtab/cifar10", "acc1", 0.9),
            row("vtab/cifar10", "lp_acc1@10shot", 0.925),
            row("vtab/cifar10", "lp_acc1@full", 0.95),
            row("mscoco_captions@de", "image_retrieval_recall@5", 0.1 + 0.2),
        ];
        // What CLIP_benchmark does not give is in no file of its form.
        let ours = ["loss@1024", "image_retrieval_recall_grouped@5", "text_retrieval_recall_grouped@1", "loss"];
        let ours = [&ours[..], &["ft_acc1", "ft_mean_per_class_recall", "lp_acc1@vtab1k"]].concat();
        let ours: Vec<Measured> = ours.into_iter().map(|metric| row("mscoco_captions@de", metric, 0.5)).collect();
        let files = files(&[&rows[..], &ours].concat());
        let names: Vec<&str> = files.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(
            names,
            [
                "mscoco_captions_openai_ViT-B-32_de_zeroshot_retrieval.json",
                "vtab_cifar10_openai_ViT-B-32_en_linear_probe_10shot.json",
                "vtab_cifar10_openai_ViT-B-32_en_linear_probe_full.json",
                "vtab_cifar10_openai_ViT-B-32_en_zeroshot_classification.json",
            ]
        );
        let files: Vec<SourceFile> =
            files.into_iter().map(|(name, value)| SourceFile { name, bytes: value.to_string().into_bytes() }).collect();
        let imported = super::super::read("cb", "x", &files).expect("it reads back");
        let [job] = &imported.studies[0].jobs[..] else { panic!("one model is one job") };
        let mut back: Vec<Measured> = job
            .evaluations
            .iter()
            .map(|evaluation| Measured { value: evaluation.value, ..row(&evaluation.dataset, &evaluation.metric, 0.0) })
            .collect();
        back.sort_by(|a, b| (&a.dataset, &a.metric).cmp(&(&b.dataset, &b.metric)));
        let mut wanted = rows.to_vec();
        wanted.sort_by(|a, b| (&a.dataset, &a.metric).cmp(&(&b.dataset, &b.metric)));
        assert_eq!(back, wanted);
        assert_eq!((job.samples_seen, job.gmacs_samples), (Some(12.8e9), Some(9.472e10)));
    }
}
