//! The data of Cherti et al. 2022 ("Reproducible scaling laws for contrastive language-image learning", arXiv
//! 2212.07143), as in the repository LAION-AI/scaling-laws-openclip: 29 models trained on LAION, and 3 of OpenAI's
//! beside them.

mod oddities;

use std::collections::BTreeMap;

use serde_json::json;

use super::benchmarks::measured;
use super::{ReadError, SourceFile, agree, columns, number, pool};
use crate::dataset::table::Table;
use crate::store::import::{Imported, ImportedEvaluation, ImportedJob, ImportedPool, ImportedStudy};

/// Kind of source in the database.
pub const SOURCE: &str = "openclip-2022";

/// Its files, by name.
pub const FILES: [&str; 4] =
    ["zeroshot_results.csv", "arch_info.csv", "trained_models_info.csv", "imagenet_zeroshot_learning_curves.csv"];

const METRICS: [&str; 6] = [
    "acc1",
    "acc5",
    "mean_per_class_recall",
    "image_retrieval_recall@5",
    "text_retrieval_recall@5",
    "mean_average_precision",
];

/// What one model is known by: OpenAI's three share the name `openai`.
type ModelKey = (String, String);

/// A row of trained_models_info.csv.
#[derive(Debug, Clone)]
struct Training {
    row: usize,
    name: String,
    arch: String,
    data: String,
    scale: String,
    lr: f64,
    warmup: f64,
    epochs: f64,
    gpus: f64,
    samples_per_sec: f64,
    samples_per_epoch: f64,
    local_batch: f64,
}

impl Training {
    fn global_batch(&self) -> f64 {
        self.gpus * self.local_batch
    }
}

/// A model of zeroshot_results.csv.
#[derive(Debug, Clone)]
struct Model {
    row: usize,
    place: String,
    name: String,
    arch: String,
    pool: String,
    scale: String,
    samples_seen: f64,
    gmacs: f64,
    gmacs_total: f64,
    /// Data set and metric to the value.
    values: BTreeMap<(String, String), f64>,
    /// The row of the last value of a data set.
    rows: BTreeMap<String, usize>,
}

/// Points of a learning curve: epoch, top-1, and top-5 where it was logged.
type Curves = BTreeMap<String, Vec<(f64, f64, Option<f64>)>>;

/// Reads the four files, in any order. `name` is the sweep of the LAION models; OpenAI's go to `NAME-openai`.
pub fn read(name: &str, folder: &str, files: &[SourceFile]) -> Result<Imported, ReadError> {
    let file = |name: &str| {
        files.iter().find(|file| file.name == name).ok_or_else(|| ReadError::Missing {
            name: name.to_owned(),
            folder: folder.to_owned(),
            wanted: "the folder of LAION-AI/scaling-laws-openclip has four CSV files",
        })
    };
    let [results, arch, trained, curves] = [file(FILES[0])?, file(FILES[1])?, file(FILES[2])?, file(FILES[3])?];
    let mut warnings = Vec::new();
    let results_table = results.table()?;
    let models = models(&results_table, &mut warnings)?;
    let sizes = sizes(&arch.table()?)?;
    let trained_table = trained.table()?;
    let trainings = trainings(&trained_table)?;
    let curves_table = curves.table()?;
    let curves = curves_of(&curves_table, &mut warnings)?;

    let mut laion = ImportedStudy {
        name: name.to_owned(),
        question: "Cherti et al. 2022: how do CLIP models trained on LAION scale with model, samples seen and data?"
            .to_owned(),
        source: SOURCE,
        jobs: Vec::new(),
    };
    let mut openai = ImportedStudy {
        name: format!("{name}-openai"),
        question: "Cherti et al. 2022: OpenAI's CLIP models on the same measurements".to_owned(),
        source: SOURCE,
        jobs: Vec::new(),
    };
    for model in models.values() {
        let training = trainings.iter().find(|training| training.name == model.name);
        if training.is_none() && model.pool != "CLIP-WIT" {
            warnings.push(format!(
                "{}: `{}` is not in {}: no hyper-parameters, GPU-hours or learning curve",
                results_table.place(model.row),
                model.name,
                trained.name
            ));
        }
        let curve = curves.get(&model.name).filter(|_| training.is_some());
        let job = job(model, training, sizes.get(&model.arch), curve, results);
        if model.pool == "CLIP-WIT" { openai.jobs.push(job) } else { laion.jobs.push(job) }
    }
    for names in curves.keys().filter(|name| !models.values().any(|model| model.name == **name)) {
        warnings.push(format!("{}: the curve of `{names}` belongs to no model of {}", curves_table.name, results.name));
    }
    let seen = oddities::Seen {
        models: &models,
        trainings: &trainings,
        curves: &curves,
        results: &results_table,
        trained: &trained_table,
        curves_file: &curves_table.name,
    };
    warnings.extend(oddities::all(&seen));
    let studies = [laion, openai].into_iter().filter(|study| !study.jobs.is_empty()).collect();
    super::or_nothing(folder, Imported { studies, warnings, ..Imported::default() })
}

fn job(
    model: &Model,
    training: Option<&Training>,
    size: Option<&[f64; 3]>,
    curve: Option<&Vec<(f64, f64, Option<f64>)>>,
    file: &SourceFile,
) -> ImportedJob {
    let pool = pool(&model.pool);
    let data_size = pool.as_ref().and_then(ImportedPool::size);
    let parameters = size.map(|size| size[0]);
    // Means over members are made by the view `observation` from the members.
    let mut evaluations: Vec<ImportedEvaluation> = model
        .values
        .iter()
        .filter(|((dataset, _), _)| !oddities::is_aggregate(dataset, &model.values))
        .map(|((dataset, metric), &value)| measured(dataset, metric, value))
        .collect();
    let per_epoch = training.map(|training| training.samples_per_epoch);
    for &(epoch, top1, top5) in curve.into_iter().flatten() {
        let at = per_epoch.map_or(f64::NAN, |samples| epoch * samples);
        if at < model.samples_seen {
            for (metric, value) in [("acc1", Some(top1)), ("acc5", top5)] {
                let samples_seen = Some(at.round() as i64);
                let row =
                    value.map(|value| ImportedEvaluation { samples_seen, ..measured("imagenet1k", metric, value) });
                evaluations.extend(row);
            }
        }
    }
    ImportedJob {
        identity: json!({ "name": model.name, "arch": model.arch }),
        former: json!({
            "name": model.name, "arch": model.arch, "data": model.pool, "samples_seen": model.samples_seen,
        }),
        place: format!("{} `{}`", model.place, model.name),
        grows: false,
        detail: json!({
            "file": file.name, "sha256": file.sha256(), "name": model.name, "samples_seen_pretty": model.scale,
            "gmacs": model.gmacs, "pretrained": model.name.strip_suffix(".pt").unwrap_or(&model.name),
            "lr": training.map(|t| t.lr), "warmup": training.map(|t| t.warmup), "epochs": training.map(|t| t.epochs),
            "global_batch": training.map(Training::global_batch), "gpus": training.map(|t| t.gpus),
            "samples_per_sec": training.map(|t| t.samples_per_sec), "samples_per_epoch": per_epoch,
        }),
        model: model.arch.clone(),
        parameters,
        image_parameters: size.map(|size| size[1]),
        text_parameters: size.map(|size| size[2]),
        samples_seen: Some(model.samples_seen),
        unique_samples: data_size.map(|size| size.min(model.samples_seen)),
        data_size,
        pool,
        gmacs_samples: Some(model.gmacs_total),
        train_flops: None,
        six_nd: parameters.map(|n| 6.0 * n * model.samples_seen),
        seed: 0,
        // The samples of the training log: where samples_seen disagrees with them, there is a warning.
        train_secs: training.map(|training| training.epochs * training.samples_per_epoch / training.samples_per_sec),
        gpus: training.map(|training| training.gpus as i32),
        evaluations,
        checkpoints: Vec::new(),
    }
}

/// Parameters of both towers, the image tower and the text tower, by architecture.
fn sizes(table: &Table) -> Result<BTreeMap<String, [f64; 3]>, ReadError> {
    let [name, all, image, text] = columns(table, ["model", "mparams", "image_mparams", "text_mparams"])?;
    let millions = |row: usize, column| table.cell(row, Some(column)).and_then(number).map(|m| (m * 1e6).round());
    let rows = (0..table.rows.len()).filter_map(|row| {
        let name = table.cell(row, Some(name))?.to_owned();
        Some((name, [millions(row, all)?, millions(row, image)?, millions(row, text)?]))
    });
    Ok(rows.collect())
}

fn models(table: &Table, warnings: &mut Vec<String>) -> Result<BTreeMap<ModelKey, Model>, ReadError> {
    let [arch, seen, total, gmacs, pool, dataset, name, scale] = columns(
        table,
        [
            "arch",
            "samples_seen",
            "gmacs_total",
            "gmacs",
            "upstream_dataset",
            "downstream_dataset",
            "name",
            "samples_seen_pretty",
        ],
    )?;
    let metrics = columns(table, METRICS)?;
    let mut models: BTreeMap<ModelKey, Model> = BTreeMap::new();
    for row in 0..table.rows.len() {
        let text = |column| table.cell(row, Some(column)).unwrap_or_default().to_owned();
        let positive = |column| number(&text(column)).filter(|value| *value > 0.0);
        let (Some(samples_seen), Some(gmacs_total), Some(gmacs)) = (positive(seen), positive(total), positive(gmacs))
        else {
            warnings.push(format!(
                "{}: left out: samples_seen, gmacs_total and gmacs have to be positive numbers",
                table.place(row)
            ));
            continue;
        };
        let model = models.entry((text(name), text(arch))).or_insert_with(|| Model {
            row,
            place: table.place(row),
            name: text(name),
            arch: text(arch),
            pool: text(pool),
            scale: text(scale),
            samples_seen,
            gmacs,
            gmacs_total,
            values: BTreeMap::new(),
            rows: BTreeMap::new(),
        });
        if !agree(model.samples_seen, samples_seen, 1e-12) || !agree(model.gmacs_total, gmacs_total, 1e-12) {
            warnings.push(format!(
                "{}: `{}` has samples_seen {samples_seen}, gmacs_total {gmacs_total} here and {}, {} in {}; the first is used",
                table.place(row),
                model.name,
                model.samples_seen,
                model.gmacs_total,
                table.place(model.row)
            ));
        }
        if model.pool != text(pool) || !agree(model.gmacs, gmacs, 1e-12) {
            warnings.push(format!(
                "{}: `{}` has upstream_dataset {}, gmacs {gmacs} here and {}, {} in {}; the first is used",
                table.place(row),
                model.name,
                text(pool),
                model.pool,
                model.gmacs,
                table.place(model.row)
            ));
        }
        let before = model.rows.insert(text(dataset), row);
        for (metric, column) in METRICS.iter().zip(metrics) {
            let Some(cell) = table.cell(row, Some(column)) else { continue };
            let Some(value) = number(cell).filter(|value| (0.0..=1.0).contains(value)) else {
                warnings
                    .push(format!("{}: {metric}: {cell} is no fraction between 0 and 1; left out", table.place(row)));
                continue;
            };
            let other = model.values.insert((text(dataset), (*metric).to_owned()), value);
            if let Some(other) = other.filter(|other| other.to_bits() != value.to_bits()) {
                warnings.push(format!(
                    "{}: `{}` has {metric} of {} twice, {value} here and {other} in {}; the later is used",
                    table.place(row),
                    model.name,
                    text(dataset),
                    table.place(before.unwrap_or(model.row))
                ));
            }
        }
    }
    Ok(models)
}

fn trainings(table: &Table) -> Result<Vec<Training>, ReadError> {
    let [name, arch, data, scale] = columns(table, ["name", "arch", "data", "samples_seen_pretty"])?;
    let numbers =
        columns(table, ["lr", "warmup", "epochs", "gpus", "samples_per_sec", "samples_per_epoch", "local_bs"])?;
    (0..table.rows.len())
        .map(|row| {
            let text = |column| table.cell(row, Some(column)).unwrap_or_default().to_owned();
            let mut values = [0.0; 7];
            for (value, column) in values.iter_mut().zip(numbers) {
                let bad = || ReadError::Content {
                    name: table.place(row),
                    reason: format!("{}: `{}` is no positive number", table.columns[column], text(column)),
                };
                *value = number(&text(column)).filter(|value| *value > 0.0).ok_or_else(bad)?;
            }
            let [lr, warmup, epochs, gpus, samples_per_sec, samples_per_epoch, local_batch] = values;
            Ok(Training {
                row,
                name: text(name),
                arch: text(arch),
                data: text(data),
                scale: text(scale),
                lr,
                warmup,
                epochs,
                gpus,
                samples_per_sec,
                samples_per_epoch,
                local_batch,
            })
        })
        .collect()
}

fn curves_of(table: &Table, warnings: &mut Vec<String>) -> Result<Curves, ReadError> {
    let [top1, top5, name, epoch] =
        columns(table, ["imagenet-zeroshot-val-top1", "imagenet-zeroshot-val-top5", "name", "epoch"])?;
    let mut curves = Curves::new();
    let mut places = BTreeMap::new();
    for row in 0..table.rows.len() {
        let value = |column| table.cell(row, Some(column)).and_then(number);
        let (Some(name), Some(top1), Some(epoch)) = (table.cell(row, Some(name)), value(top1), value(epoch)) else {
            warnings.push(format!("{}: left out: name, epoch and top1 have to be there", table.place(row)));
            continue;
        };
        let points = curves.entry(name.to_owned()).or_default();
        let again = places.insert((name.to_owned(), epoch.to_bits()), (row, top1, value(top5)));
        if let Some((before, ..)) = again.filter(|(_, one, five)| (*one, *five) != (top1, value(top5))) {
            warnings.push(format!(
                "{}: epoch {epoch} of `{name}` has other values than in {}; the first are used",
                table.place(row),
                table.place(before)
            ));
        }
        points.push((epoch, top1, value(top5)));
    }
    for points in curves.values_mut() {
        points.sort_by(|a, b| a.0.total_cmp(&b.0));
        points.dedup_by_key(|point| point.0.to_bits());
    }
    Ok(curves)
}
