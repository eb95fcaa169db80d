//! Results of CLIP_benchmark (LAION-AI/CLIP_benchmark): its JSON, one file a model and data set; the CSV that its
//! `build` makes of them; and the linear probes of the 2022 study (`probe_benchmark/scaling_experiment_data2.json`).

pub mod export;

mod probe;

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, BTreeSet, HashMap};

use serde_json::{Map, Value, json};

use super::benchmarks::measured;
use super::{ReadError, SourceFile, agree, list_of, model_size, number, pool};
use crate::store::import::{Imported, ImportedEvaluation, ImportedJob, ImportedPool, ImportedStudy};

/// Kind of source in the database.
pub const SOURCE: &str = "clip-benchmark";

/// Fields that say what a row is, in CSV and in flat JSON; every other number is a metric.
const FIELDS: [&str; 14] = [
    "dataset",
    "model",
    "pretrained",
    "task",
    "language",
    "model_fullname",
    "classnames",
    "templates",
    "fewshot_k",
    "epochs",
    "seed",
    "weight_decay",
    "normalized",
    "verbose",
];

/// Of these, what neither tells rows apart nor is stored.
const IGNORED: [&str; 8] =
    ["task", "model_fullname", "classnames", "templates", "epochs", "seed", "weight_decay", "normalized"];

/// One measured model and data set.
#[derive(Debug, Clone, Default)]
struct Record {
    /// Where it stands, for messages.
    place: String,
    file: usize,
    dataset: String,
    model: String,
    pretrained: String,
    /// Metric, value.
    metrics: Vec<(String, f64)>,
    samples_seen: Option<f64>,
    gmacs_total: Option<f64>,
    pool: Option<String>,
    /// Fields that neither tell rows apart nor are stored.
    ignored: Vec<(&'static str, String)>,
}

/// Metrics that were no numbers, by name.
type Blank = BTreeMap<String, usize>;

/// Reads files of any of the three forms into one sweep, a job for each model and pretrained tag.
pub fn read(name: &str, source: &str, files: &[SourceFile]) -> Result<Imported, ReadError> {
    let mut warnings = Vec::new();
    let mut records = Vec::new();
    let mut blank = Blank::new();
    for (at, file) in files.iter().enumerate() {
        let before = records.len();
        if file.name.to_ascii_lowercase().ends_with(".json") || file.name.to_ascii_lowercase().ends_with(".jsonl") {
            json_records(file, at, &mut records, &mut blank, &mut warnings)?;
        } else {
            csv_records(file, at, &mut records, &mut blank, &mut warnings)?;
        }
        if records.len() == before {
            warnings.push(format!("{}: holds no results", file.name));
        }
    }
    if !blank.is_empty() {
        let list = list_of(blank.iter().map(|(metric, count)| format!("{metric} {count} times")));
        warnings.push(format!("left out where empty, null or NaN (a metric that does not apply): {list}"));
    }
    let jobs = jobs(&records, files, &mut warnings);
    let question = "Results of CLIP_benchmark".to_owned();
    let studies = vec![ImportedStudy { name: name.to_owned(), question, source: SOURCE, jobs }];
    super::or_nothing(source, Imported { studies, warnings, ..Imported::default() })
}

fn jobs(records: &[Record], files: &[SourceFile], warnings: &mut Vec<String>) -> Vec<ImportedJob> {
    let mut by_model: BTreeMap<(&str, &str, Option<u64>), Vec<&Record>> = BTreeMap::new();
    for record in records {
        let key = (&*record.model, &*record.pretrained, record.samples_seen.map(f64::to_bits));
        by_model.entry(key).or_default().push(record);
    }
    // Trainings of one model and tag to several lengths are numbered by length: one that is corrected is no other row.
    let mut lengths: BTreeMap<(&str, &str, bool), u64> = BTreeMap::new();
    let hashes: Vec<String> = files.iter().map(SourceFile::sha256).collect();
    let mut jobs = Vec::new();
    for ((model, tag, seen), of) in by_model {
        let nth = lengths.entry((model, tag, seen.is_some())).or_default();
        *nth += 1;
        jobs.push(job(&of, *nth, files, &hashes, warnings));
    }
    jobs
}

fn job(of: &[&Record], nth: u64, files: &[SourceFile], hashes: &[String], warnings: &mut Vec<String>) -> ImportedJob {
    let first = of[0];
    let place = format!("`{} {}`", first.model, first.pretrained).replace(" `", "`");
    let size = model_size(&first.model, None, None);
    let parameters = size.map(|size| size.parameters() as f64);
    let pool = first.pool.as_deref().and_then(pool);
    let data_size = pool.as_ref().and_then(ImportedPool::size);
    if let (Some(size), Some(total), Some(seen)) = (size, first.gmacs_total, first.samples_seen)
        && !agree(total, size.gmacs() * seen, 0.01)
    {
        warnings.push(format!(
            "{}: `{} {}`: gmacs_total / samples_seen is {:.3e}, {} has {:.3e} GMACs; gmacs_total is used",
            first.place,
            first.model,
            first.pretrained,
            total / seen,
            first.model,
            size.gmacs()
        ));
    }
    let evaluations = evaluations(of, &place, warnings);
    for other in of.iter().filter(|other| (&other.pool, other.gmacs_total) != (&first.pool, first.gmacs_total)) {
        warnings.push(format!(
            "{}: {place} has upstream_dataset {:?}, gmacs_total {:?} here and {:?}, {:?} in {}; the first is used",
            other.place,
            other.pool.as_deref().unwrap_or_default(),
            other.gmacs_total.unwrap_or(f64::NAN),
            first.pool.as_deref().unwrap_or_default(),
            first.gmacs_total.unwrap_or(f64::NAN),
            first.place
        ));
    }
    let mut names: Vec<&str> = of.iter().map(|record| files[record.file].name.as_str()).collect();
    names.sort_unstable();
    names.dedup();
    if first.pretrained.is_empty() && names.len() > 1 {
        warnings.push(format!(
            "{} files say nothing of how {place} was trained (`pretrained` is empty) and are taken as one model: {}",
            names.len(),
            list_of(names.iter().map(|name| (*name).to_owned()))
        ));
    }
    ImportedJob {
        identity: json!({
            "model": first.model, "pretrained": first.pretrained, "has_samples_seen": first.samples_seen.is_some(),
            "nth": nth,
        }),
        former: json!({
            "model": first.model, "pretrained": first.pretrained, "samples_seen": first.samples_seen,
        }),
        place,
        detail: json!({
            "file": names[0], "files": names.len(), "sha256": hashes[first.file],
            "model": first.model, "pretrained": first.pretrained, "gmacs_total": first.gmacs_total,
            "upstream_dataset": first.pool,
        }),
        model: first.model.clone(),
        parameters,
        image_parameters: size.map(|size| size.image_parameters as f64),
        text_parameters: size.map(|size| size.text_parameters as f64),
        samples_seen: first.samples_seen,
        unique_samples: data_size.zip(first.samples_seen).map(|(size, seen)| size.min(seen)),
        data_size,
        pool,
        gmacs_samples: first.gmacs_total.or_else(|| Some(size?.gmacs() * first.samples_seen?)),
        train_flops: size.zip(first.samples_seen).map(|(size, seen)| 3.0 * size.gflops() * 1e9 * seen),
        six_nd: parameters.zip(first.samples_seen).map(|(n, seen)| 6.0 * n * seen),
        evaluations,
        ..ImportedJob::default()
    }
}

/// The measurements of a model. What stands twice is stored once, and said unless it is the same throughout.
fn evaluations(of: &[&Record], place: &str, warnings: &mut Vec<String>) -> Vec<ImportedEvaluation> {
    let mut evaluations: Vec<ImportedEvaluation> = Vec::new();
    let mut there: HashMap<(&str, &str), (&Record, f64)> = HashMap::new();
    let mut other_fields: BTreeMap<(&str, &str), BTreeSet<&str>> = BTreeMap::new();
    for record in of {
        for (metric, value) in &record.metrics {
            let (first, before) = match there.entry((&record.dataset, metric)) {
                Entry::Vacant(entry) => {
                    entry.insert((record, *value));
                    evaluations.push(measured(&record.dataset, metric, *value));
                    continue;
                }
                Entry::Occupied(entry) => *entry.get(),
            };
            if before.to_bits() != value.to_bits() {
                warnings.push(format!(
                    "{}: {place} has {}/{metric} twice, {before} in {} and {value} here; the first is used",
                    record.place, record.dataset, first.place
                ));
            } else if first.ignored != record.ignored {
                let differing = record.ignored.iter().filter(|field| !first.ignored.contains(field));
                let fields = other_fields.entry((&first.place, &record.place)).or_default();
                fields.extend(differing.map(|(name, _)| *name));
            }
        }
    }
    for ((first, second), fields) in other_fields {
        let fields = list_of(fields.iter().map(|name| format!("`{name}`")));
        warnings
            .push(format!("{second}: {place} has the values of {first}, with other {fields}; they are stored once"));
    }
    evaluations
}

fn json_records(
    file: &SourceFile,
    at: usize,
    records: &mut Vec<Record>,
    blank: &mut Blank,
    warnings: &mut Vec<String>,
) -> Result<(), ReadError> {
    let lines = file.name.to_ascii_lowercase().ends_with(".jsonl");
    let list = if lines { file.json_lines()? } else { vec![file.json()?] };
    let list: Vec<Value> = list
        .into_iter()
        .flat_map(|value| match value {
            Value::Array(list) => list,
            one => vec![one],
        })
        .collect();
    if list.iter().any(|value| value.get("lp_acc1").is_some() && value.get("metrics").is_none()) {
        records.extend(probe::records(file, at, &list, blank, warnings));
        return Ok(());
    }
    for (number, value) in list.iter().enumerate() {
        let place = if list.len() > 1 { format!("{} entry {}", file.name, number + 1) } else { file.name.clone() };
        let Value::Object(fields) = value else {
            warnings.push(format!("{place}: left out: it is no object with `dataset`, `model`, `metrics`"));
            continue;
        };
        match record(&place, at, fields, blank, warnings) {
            Ok(record) => records.push(record),
            Err(reason) => warnings.push(format!("{place}: left out: {reason}")),
        }
    }
    Ok(())
}

/// A run of CLIP_benchmark: {"dataset", "model", "pretrained", "task", "metrics": {...}, "language"}.
fn record(
    place: &str,
    file: usize,
    fields: &Map<String, Value>,
    blank: &mut Blank,
    warnings: &mut Vec<String>,
) -> Result<Record, String> {
    let text = |name: &str| fields.get(name).and_then(Value::as_str).map(str::to_owned);
    let wanted = |name: &str| text(name).ok_or_else(|| format!("it has no text `{name}`"));
    let Some(Value::Object(metrics)) = fields.get("metrics") else {
        return Err("it has no object `metrics`".to_owned());
    };
    let shots = metrics.get("fewshot_k").or_else(|| fields.get("fewshot_k")).and_then(Value::as_f64);
    let (mut kept, mut odd) = (Vec::new(), Vec::new());
    for (metric, value) in metrics.iter().filter(|(metric, _)| !FIELDS.contains(&metric.as_str())) {
        match value.as_f64() {
            Some(value) => kept.push((metric_name(metric, shots), value)),
            None if value.is_null() => *blank.entry(metric.clone()).or_default() += 1,
            None => odd.push(format!("{metric} is {}", kind(value))),
        }
    }
    if !odd.is_empty() {
        warnings.push(format!("{place}: left out, no numbers: {}", list_of(odd)));
    }
    if kept.is_empty() {
        return Err("none of its metrics is a number".to_owned());
    }
    Ok(Record {
        place: place.to_owned(),
        file,
        dataset: dataset_name(&wanted("dataset")?, text("language").as_deref()),
        model: wanted("model")?,
        pretrained: text("pretrained").unwrap_or_default(),
        metrics: kept,
        samples_seen: fields.get("samples_seen").and_then(Value::as_f64).filter(|seen| *seen >= 1.0),
        gmacs_total: fields.get("gmacs_total").and_then(Value::as_f64).filter(|gmacs| *gmacs > 0.0),
        pool: text("upstream_dataset"),
        ignored: ignored(|name| {
            let value = metrics.get(name).or_else(|| fields.get(name))?;
            Some(value.as_str().map_or_else(|| value.to_string(), str::to_owned))
        }),
    })
}

fn ignored(text: impl Fn(&str) -> Option<String>) -> Vec<(&'static str, String)> {
    IGNORED.iter().map(|name| (*name, text(name).unwrap_or_default())).collect()
}

/// A JSON value as people call it.
fn kind(value: &Value) -> String {
    match value {
        Value::Array(items) => format!("a list of {}", items.len()),
        Value::Object(_) => "an object".to_owned(),
        Value::String(text) => format!("the text \"{text}\""),
        other => other.to_string(),
    }
}

/// The CSV of `clip_benchmark build`: a row a model and data set, a column a metric.
fn csv_records(
    file: &SourceFile,
    at: usize,
    records: &mut Vec<Record>,
    blank: &mut Blank,
    warnings: &mut Vec<String>,
) -> Result<(), ReadError> {
    let table = file.table()?;
    let [dataset, model] = super::columns(&table, ["dataset", "model"])?;
    let optional = |name: &str| table.column(name);
    let metrics: Vec<(usize, &String)> =
        table.columns.iter().enumerate().filter(|(_, name)| !FIELDS.contains(&name.as_str())).collect();
    for row in 0..table.rows.len() {
        let place = table.place(row);
        let text = |column| table.cell(row, column).unwrap_or_default().to_owned();
        let shots = table.cell(row, optional("fewshot_k")).and_then(number);
        let mut kept = Vec::new();
        for (column, metric) in &metrics {
            match table.cell(row, Some(*column)).map(|cell| (cell, number(cell))) {
                Some((_, Some(value))) => kept.push((metric_name(metric, shots), value)),
                Some((cell, None)) if !cell.eq_ignore_ascii_case("nan") => {
                    warnings.push(format!("{place}: {metric}: `{cell}` is no number; left out"));
                }
                _ => *blank.entry((*metric).clone()).or_default() += 1,
            }
        }
        let (dataset, model) = (text(Some(dataset)), text(Some(model)));
        if dataset.is_empty() || model.is_empty() || kept.is_empty() {
            warnings.push(format!("{place}: left out: a row needs `dataset`, `model` and a metric"));
            continue;
        }
        records.push(Record {
            place,
            file: at,
            dataset: dataset_name(&dataset, table.cell(row, optional("language"))),
            model,
            pretrained: text(optional("pretrained")),
            metrics: kept,
            ignored: ignored(|name| table.cell(row, optional(name)).map(str::to_owned)),
            ..Record::default()
        });
    }
    Ok(())
}

/// `wds/vtab/cifar10` is `vtab/cifar10` read from another format; another language is another data set.
fn dataset_name(name: &str, language: Option<&str>) -> String {
    let name = name.strip_prefix("wds/").unwrap_or(name);
    match language.filter(|language| !language.is_empty() && *language != "en") {
        Some(language) => format!("{name}@{language}"),
        None => name.to_owned(),
    }
}

/// Probes are told apart by their shots: `lp_acc1@10shot`, or `lp_acc1@full`.
fn metric_name(metric: &str, shots: Option<f64>) -> String {
    match shots.filter(|_| metric.starts_with("lp_") && !metric.contains('@')) {
        Some(shots) if shots > 0.0 => format!("{metric}@{shots}shot"),
        Some(_) => format!("{metric}@full"),
        None => metric.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(name: &str, text: &str) -> SourceFile {
        SourceFile { name: name.to_owned(), bytes: text.as_bytes().to_vec() }
    }

    const RUN: &str = r#"{"dataset": "wds/imagenet1k", "model": "ViT-B-32", "pretrained": "laion2b_e16", "task": "zeroshot_classification",
        "metrics": {"acc1": 0.6, "acc5": NaN, "mean_per_class_recall": 0.59}, "language": "en"}"#;

    #[test]
    fn a_run_is_a_job() {
        let imported = read("cb", "x", &[file("a.json", RUN)]).expect("a run");
        let job = &imported.studies[0].jobs[0];
        assert_eq!((job.model.as_str(), job.parameters), ("ViT-B-32", Some(151_277_313.0)));
        assert_eq!(job.samples_seen, None, "a tag's name is no measurement");
        let names: Vec<_> = job.evaluations.iter().map(|row| (&*row.dataset, &*row.metric, row.value)).collect();
        assert_eq!(names, [("imagenet1k", "acc1", 0.6), ("imagenet1k", "mean_per_class_recall", 0.59)]);
        assert_eq!(
            imported.warnings,
            ["left out where empty, null or NaN (a metric that does not apply): acc5 1 times"]
        );
    }

    #[test]
    fn files_of_one_model_are_one_job_and_contradictions_are_said() {
        let other = RUN.replace("wds/imagenet1k", "cars");
        let again = RUN.replace("0.6,", "0.7,");
        let files = [file("a.json", RUN), file("b.json", &other), file("c.json", &again)];
        let imported = read("cb", "x", &files).expect("runs");
        assert_eq!(imported.studies[0].jobs.len(), 1);
        assert_eq!(imported.studies[0].jobs[0].evaluations.len(), 4);
        assert!(
            imported.warnings.contains(
                &"c.json: `ViT-B-32 laion2b_e16` has imagenet1k/acc1 twice, 0.6 in a.json and 0.7 here; the first is used"
                    .to_owned()
            ),
            "{:?}",
            imported.warnings
        );
    }

    #[test]
    fn bad_files_are_said() {
        let error = read("cb", "x", &[file("a.json", "{")]).expect_err("no JSON");
        assert_eq!(error.to_string(), "a.json is not JSON");
        let error = read("cb", "x", &[file("a.csv", "model,acc1\nm,0.5\n")]).expect_err("no data set");
        assert_eq!(error.to_string(), "a.csv has no column `dataset`; it has `model`, `acc1`");
        let Err(ReadError::Nothing { warnings, .. }) = read("cb", "x", &[file("a.json", r#"[{"model": "m"}, 3]"#)])
        else {
            panic!("there is nothing to import");
        };
        assert_eq!(warnings[0], "a.json entry 1: left out: it has no object `metrics`");
        assert_eq!(warnings[1], "a.json entry 2: left out: it is no object with `dataset`, `model`, `metrics`");
    }

    #[test]
    fn names() {
        assert_eq!(dataset_name("wds/vtab/cifar10", Some("en")), "vtab/cifar10");
        assert_eq!(dataset_name("multilingual_mscoco_captions", Some("de")), "multilingual_mscoco_captions@de");
        assert_eq!(metric_name("lp_acc1", Some(10.0)), "lp_acc1@10shot");
        assert_eq!(metric_name("lp_acc1", Some(-1.0)), "lp_acc1@full");
        assert_eq!(metric_name("acc1", Some(10.0)), "acc1");
    }
}
