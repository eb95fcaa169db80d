//! Run folders of OpenCLIP's trainer (mlfoundations/open_clip, `open_clip_train`): `params.txt`, a `name: value` line
//! an argument, and `checkpoints/results.jsonl`, a JSON object an evaluated epoch.

mod copies;

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use super::benchmarks::{binomial, measured};
use super::{ReadError, SourceFile, list_of, model_size, number};
use crate::store::import::{Imported, ImportedCheckpoint, ImportedEvaluation, ImportedJob, ImportedStudy};

/// Kind of source in the database.
pub const SOURCE: &str = "open-clip";

/// One run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Run {
    /// Name of its folder.
    pub folder: String,
    /// `params.txt`.
    pub params: SourceFile,
    /// `checkpoints/results.jsonl`.
    pub results: SourceFile,
    /// `checkpoints/epoch_N.pt`, where they are kept.
    pub checkpoints: Vec<Checkpoint>,
}

/// Weights after an epoch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checkpoint {
    /// Which, counted from 1.
    pub epoch: u64,
    /// The file, absolute.
    pub path: String,
    /// sha256 of its bytes.
    pub sha256: String,
}

/// Arguments kept with the job.
const KEPT: [&str; 18] = [
    "name",
    "lr",
    "wd",
    "warmup",
    "batch_size",
    "accum_freq",
    "grad_checkpointing",
    "world_size",
    "epochs",
    "train_num_samples",
    "dataset_resampled",
    "precision",
    "seed",
    "lr_scheduler",
    "train_data",
    "siglip",
    "force_image_size",
    "force_context_length",
];

/// Arguments that change what a model makes of an image, whatever its name says.
const SEES: [&str; 5] = ["image_mean", "image_std", "image_interpolation", "image_resize_mode", "force_quick_gelu"];

/// What tells runs apart beside their name. How far they train and on how many GPUs, and where their data lie, changes
/// when a run goes on.
const TELLING: [&str; 10] = [
    "model",
    "lr",
    "wd",
    "warmup",
    "lr_scheduler",
    "seed",
    "siglip",
    "force_image_size",
    "force_context_length",
    "batch_size",
];

/// `name: value` lines; `None` is Python's for nothing.
struct Params {
    values: BTreeMap<String, String>,
    /// Arguments that are `None`.
    none: BTreeSet<String>,
}

impl Params {
    fn read(file: &SourceFile) -> Params {
        let text = String::from_utf8_lossy(&file.bytes).into_owned();
        let lines = text.lines().filter_map(|line| line.split_once(':'));
        let pairs = lines.map(|(name, value)| (name.trim().to_owned(), value.trim().to_owned()));
        let (none, values): (Vec<_>, Vec<_>) =
            pairs.filter(|(_, value)| !value.is_empty()).partition(|(_, value)| value == "None");
        Params { values: values.into_iter().collect(), none: none.into_iter().map(|(name, _)| name).collect() }
    }

    fn text(&self, name: &str) -> Option<&str> {
        self.values.get(name).map(String::as_str)
    }

    fn positive(&self, name: &str) -> Option<f64> {
        self.text(name).and_then(number).filter(|value| *value > 0.0)
    }

    fn is_true(&self, name: &str) -> bool {
        self.text(name) == Some("True")
    }
}

/// Reads runs into one sweep, a job each.
pub fn read(name: &str, source: &str, runs: &[Run]) -> Result<Imported, ReadError> {
    let mut warnings = Vec::new();
    let mut jobs = Vec::new();
    let mut failed = Vec::new();
    for run in runs {
        match job(run, &mut warnings) {
            Ok(job) => jobs.extend(job),
            Err(error) => {
                let because = std::error::Error::source(&error).map(|source| format!(": {source}")).unwrap_or_default();
                failed.push(format!("{}: {error}{because}", run.folder));
            }
        }
    }
    let jobs = copies::once(jobs, &mut warnings, &mut failed);
    let study = ImportedStudy { name: name.to_owned(), question: "Runs of OpenCLIP".to_owned(), source: SOURCE, jobs };
    super::or_nothing(source, Imported { studies: vec![study], warnings, failed })
}

/// Which run it is, wherever its folder lies: the trainer writes the name that it was started under.
fn identity(params: &Params, folder: &str) -> Value {
    let telling: BTreeMap<&str, &str> = TELLING.iter().filter_map(|name| Some((*name, params.text(name)?))).collect();
    json!({ "run": params.text("name").unwrap_or(folder), "params": telling })
}

fn job(run: &Run, warnings: &mut Vec<String>) -> Result<Option<ImportedJob>, ReadError> {
    let params = Params::read(&run.params);
    let Some(model) = params.text("model") else {
        return Err(ReadError::Content {
            name: format!("{}/{}", run.folder, run.params.name),
            reason: "it has no line `model: NAME`; an OpenCLIP run writes one".to_owned(),
        });
    };
    let epochs = by_epoch(run, &params, warnings)?;
    let Some((&last, _)) = epochs.last_key_value() else {
        warnings.push(format!("{}: left out: {} holds no evaluation with an `epoch`", run.folder, run.results.name));
        return Ok(None);
    };
    let planned = params.positive("epochs");
    if let Some(planned) = planned
        && (last as f64) < planned
    {
        warnings.push(format!(
            "{}: the last evaluation is of epoch {last} of {planned}: the run is unfinished, or it was not measured at its \
             end; its learning rate had not reached zero",
            run.folder
        ));
    }
    let per_epoch = params.positive("train_num_samples");
    if per_epoch.is_none() {
        warnings.push(format!(
            "{}: train_num_samples is not in {}, so the samples seen are unknown and only the last epoch is kept",
            run.folder, run.params.name
        ));
    }
    let samples_seen = per_epoch.map(|samples| samples * last as f64);
    // Drawn with replacement from a data set whose size the run does not say.
    let unique = if params.is_true("dataset_resampled") { None } else { per_epoch };
    if params.is_true("dataset_resampled") {
        warnings.push(format!(
            "{}: samples were drawn with replacement (dataset_resampled) from a data set whose size the run does not say: \
             no U",
            run.folder
        ));
    }
    let image_size = params.positive("force_image_size").map(|size| size as u64);
    let context = params.positive("force_context_length").map(|length| length as u64);
    let size = model_size(model, image_size, context);
    if size.is_none() {
        warnings.push(format!("{}: `{model}` is no model that sweep knows: no N and C", run.folder));
    }
    let compute = size.zip(samples_seen).map(|(size, seen)| size.compute(seen.round() as u64));
    let kept: BTreeMap<&str, &str> = KEPT.iter().filter_map(|name| Some((*name, params.text(name)?))).collect();
    let sees: BTreeMap<&str, &str> = SEES
        .iter()
        .filter_map(|name| Some((*name, params.text(name)?)))
        .filter(|(_, value)| *value != "False")
        .collect();
    let batch = params.positive("batch_size");
    let gpus = params.positive("world_size").map(|gpus| gpus as i32);
    let global_batch =
        batch.map(|batch| batch * f64::from(gpus.unwrap_or(1)) * params.positive("accum_freq").unwrap_or(1.0));
    let checkpoints = checkpoints(run, last, per_epoch, global_batch);
    let mut left_out = BTreeSet::new();
    let mut evaluations = Vec::new();
    for (&epoch, values) in &epochs {
        let samples = per_epoch.map(|samples| (samples * epoch as f64).round() as i64);
        if epoch != last && (samples.is_none() || epoch == 0) {
            continue;
        }
        let at = if epoch == last { None } else { samples };
        for (key, value) in values {
            match measurement(key, value, values, batch) {
                Some(row) => evaluations.push(ImportedEvaluation { samples_seen: at, ..row }),
                None => {
                    left_out.insert(key.clone());
                }
            }
        }
    }
    for known in ["epoch", "num_samples", "step"] {
        left_out.remove(known);
    }
    if !left_out.is_empty() {
        warnings.push(format!("{}: left out, no fraction and no loss: {}", run.folder, list_of(left_out)));
    }
    let mut detail = json!({
        "file": format!("{}/{}", run.folder, run.params.name), "sha256": run.params.sha256(),
        "results_sha256": run.results.sha256(), "pretrained": params.text("name").unwrap_or(&run.folder),
        "params": kept, "epoch": last, "global_batch": global_batch,
    });
    if !sees.is_empty() {
        detail["sees"] = json!(sees);
    }
    Ok(Some(ImportedJob {
        identity: identity(&params, &run.folder),
        former: json!({ "model": model, "params": kept, "folder": run.folder, "epoch": last }),
        place: run.folder.clone(),
        grows: samples_seen.is_some(),
        detail,
        model: model.to_owned(),
        parameters: size.map(|size| size.parameters() as f64),
        image_parameters: size.map(|size| size.image_parameters as f64),
        text_parameters: size.map(|size| size.text_parameters as f64),
        samples_seen,
        data_size: unique,
        unique_samples: unique.zip(samples_seen).map(|(unique, seen)| unique.min(seen)),
        gmacs_samples: compute.map(|compute| compute.gmacs_samples),
        train_flops: compute.map(|compute| compute.train_flops),
        six_nd: compute.map(|compute| compute.six_nd),
        seed: params.text("seed").and_then(|seed| seed.parse().ok()).unwrap_or(0),
        gpus,
        evaluations,
        checkpoints,
        ..ImportedJob::default()
    }))
}

/// Where in training the checkpoints of a run were taken: where an epoch's samples are not known, only the last
/// evaluated one has a place.
fn checkpoints(run: &Run, last: u64, per_epoch: Option<f64>, global_batch: Option<f64>) -> Vec<ImportedCheckpoint> {
    let placed = run.checkpoints.iter().filter(|checkpoint| checkpoint.epoch == last || per_epoch.is_some());
    placed
        .map(|checkpoint| {
            let samples = per_epoch.map(|samples| samples * checkpoint.epoch as f64);
            ImportedCheckpoint {
                samples_seen: samples.filter(|_| checkpoint.epoch != last).map(|samples| samples.round() as i64),
                step: samples.zip(global_batch).map_or(0, |(samples, batch)| (samples / batch).round() as i64),
                path: checkpoint.path.clone(),
                sha256: checkpoint.sha256.clone(),
            }
        })
        .collect()
}

/// Values by epoch; of an epoch that was evaluated again the later line counts.
fn by_epoch(
    run: &Run,
    params: &Params,
    warnings: &mut Vec<String>,
) -> Result<BTreeMap<u64, BTreeMap<String, Value>>, ReadError> {
    let mut epochs: BTreeMap<u64, BTreeMap<String, Value>> = BTreeMap::new();
    let mut again = BTreeSet::new();
    let mut without = Vec::new();
    let lines = run.results.json_lines()?;
    let untold = !lines.is_empty() && lines.iter().all(|line| line.get("epoch").is_none());
    let in_one_piece = is_never_resumed(params);
    let counted = if untold && in_one_piece { counted_epochs(lines.len(), params) } else { None };
    if untold && !in_one_piece {
        warnings.push(format!(
            "{}/{}: {} does not say `resume: None`, so the run may have been resumed and lines stand twice: of which epochs \
             those without an `epoch` are is not known",
            run.folder, run.results.name, run.params.name
        ));
    }
    if counted.is_some() {
        warnings.push(format!(
            "{}/{}: no line has an `epoch` (the trainer writes it only with validation data): taken as those that \
             zeroshot_frequency and epochs of {} ask for, in order",
            run.folder, run.results.name, run.params.name
        ));
    }
    for (number, line) in lines.into_iter().enumerate() {
        let epoch = line.get("epoch").and_then(Value::as_f64).filter(|epoch| *epoch >= 0.0 && epoch.fract() == 0.0);
        let epoch = epoch.or_else(|| counted.as_ref()?.get(number).copied());
        let (Value::Object(values), Some(epoch)) = (line, epoch) else {
            without.push(format!("line {}", number + 1));
            continue;
        };
        let entry = epochs.entry(epoch as u64).or_default();
        for (key, value) in values {
            if entry.insert(key.clone(), value.clone()).is_some_and(|before| before != value) {
                again.insert(epoch as u64);
            }
        }
    }
    if !again.is_empty() {
        let list = list_of(again.iter().map(u64::to_string));
        warnings.push(format!("{}: epoch {list} was evaluated more than once; the last values are used", run.folder));
    }
    if !without.is_empty() {
        let list = list_of(without);
        warnings.push(format!("{}/{}: left out, without `epoch`: {list}", run.folder, run.results.name));
    }
    Ok(epochs)
}

/// Whether the trainer, which writes down every argument, says that the run did not go on from a checkpoint.
fn is_never_resumed(params: &Params) -> bool {
    params.none.contains("resume")
}

/// Epochs of the lines of a run in one piece where none says its own: every `zeroshot_frequency`-th and the last.
fn counted_epochs(lines: usize, params: &Params) -> Option<Vec<f64>> {
    let every = params.positive("zeroshot_frequency").filter(|every| every.fract() == 0.0)? as u64;
    let last = params.positive("epochs")? as u64;
    let epochs: Vec<f64> =
        (1..=last).filter(|epoch| epoch % every == 0 || *epoch == last).map(|epoch| epoch as f64).collect();
    (lines <= epochs.len()).then_some(epochs)
}

/// What a key of results.jsonl measures, in our words (CLIP_benchmark's).
fn measurement(
    key: &str,
    value: &Value,
    of_epoch: &BTreeMap<String, Value>,
    batch: Option<f64>,
) -> Option<ImportedEvaluation> {
    let value = value.as_f64()?;
    if let Some((dataset, top)) = key.split_once("-zeroshot-val-top") {
        let dataset = if dataset == "imagenet" { "imagenet1k" } else { dataset };
        return Some(measured(dataset, &format!("acc{top}"), value));
    }
    let items = of_epoch.get("num_samples").and_then(Value::as_f64).filter(|items| *items >= 1.0);
    for (prefix, metric) in
        [("image_to_text_R@", "text_retrieval_recall@"), ("text_to_image_R@", "image_retrieval_recall@")]
    {
        if let Some(k) = key.strip_prefix(prefix) {
            let count = items.map(|items| items as i64);
            return Some(ImportedEvaluation {
                standard_error: count.and_then(|count| binomial(value, count)),
                count,
                chance: items.zip(number(k)).map(|(items, k)| (k / items).min(1.0)),
                ..measured("val", &format!("{metric}{k}"), value)
            });
        }
    }
    // The contrastive loss depends on the number of pairs it is taken over: a batch of one GPU.
    let contrast = batch.map_or_else(|| "batch".to_owned(), |batch| batch.to_string());
    match key {
        "clip_val_loss" | "val_loss" => Some(measured("val", &format!("loss@{contrast}"), value)),
        "siglip_val_loss" => Some(measured("val", &format!("loss_siglip@{contrast}"), value)),
        "val_generative_loss" => Some(measured("val", "loss_generative", value)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(params: &str, results: &str) -> Run {
        let file = |name: &str, text: &str| SourceFile { name: name.to_owned(), bytes: text.as_bytes().to_vec() };
        let (params, results) = (file("params.txt", params), file("results.jsonl", results));
        Run { folder: "r".to_owned(), params, results, checkpoints: Vec::new() }
    }

    const PARAMS: &str = "batch_size: 256\ndataset_resampled: False\nepochs: 3\nlr: 0.001\nmodel: ViT-B-32\nname: a\nseed: 7\n\
                          train_data: /x/{00..10}.tar\ntrain_num_samples: 1000\nval_data: None\nwarmup: 10\nworld_size: 8\n";

    #[test]
    fn a_run_with_checkpoints() {
        let results = "{\"imagenet-zeroshot-val-top1\": 0.1, \"epoch\": 1}\n\
                       {\"imagenet-zeroshot-val-top1\": 0.2, \"epoch\": 2}\n\
                       {\"imagenet-zeroshot-val-top1\": 0.25, \"clip_val_loss\": NaN, \"epoch\": 2}\n\n\
                       {\"imagenet-zeroshot-val-top1\": 0.3, \"image_to_text_R@5\": 0.5, \"text_to_image_mean_rank\": 12.5, \
                        \"clip_val_loss\": 2.5, \"epoch\": 3, \"num_samples\": 100}\n{\"x\": 1}\n";
        let imported = read("oc", "x", &[run(PARAMS, results)]).expect("a run");
        let job = &imported.studies[0].jobs[0];
        assert_eq!(
            (job.samples_seen, job.unique_samples, job.gpus, job.seed),
            (Some(3000.0), Some(1000.0), Some(8), 7)
        );
        assert_eq!(job.detail["global_batch"], 2048.0);
        let rows: Vec<_> = job.evaluations.iter().map(|row| (row.samples_seen, &*row.metric, row.value)).collect();
        assert_eq!(
            rows,
            [
                (Some(1000), "acc1", 0.1),
                (Some(2000), "acc1", 0.25),
                (None, "loss@256", 2.5),
                (None, "text_retrieval_recall@5", 0.5),
                (None, "acc1", 0.3),
            ]
        );
        assert_eq!(
            imported.warnings,
            [
                "r: epoch 2 was evaluated more than once; the last values are used",
                "r/results.jsonl: left out, without `epoch`: line 5",
                "r: left out, no fraction and no loss: clip_val_loss, text_to_image_mean_rank",
            ]
        );
    }

    #[test]
    fn lines_without_an_epoch_are_counted() {
        let params = format!("{PARAMS}resume: None\nzeroshot_frequency: 2\n");
        let results = "{\"imagenet-zeroshot-val-top1\": 0.1}\n{\"imagenet-zeroshot-val-top1\": 0.2}\n";
        let imported = read("oc", "x", &[run(&params, results)]).expect("a run");
        let job = &imported.studies[0].jobs[0];
        let rows: Vec<_> = job.evaluations.iter().map(|row| (row.samples_seen, row.value)).collect();
        assert_eq!((job.samples_seen, rows), (Some(3000.0), vec![(Some(2000), 0.1), (None, 0.2)]));
        assert!(imported.warnings[0].contains("no line has an `epoch`"), "{:?}", imported.warnings);
        // A run that went on from a checkpoint may have measured an epoch twice.
        for resumed in ["", "resume: latest\n"] {
            let params = format!("{PARAMS}{resumed}zeroshot_frequency: 2\n");
            let error = read("oc", "x", &[run(&params, results)]).expect_err("nothing is known of its lines");
            let ReadError::Nothing { warnings, .. } = error else { panic!("{error}") };
            assert!(warnings[0].contains("does not say `resume: None`"), "{warnings:?}");
        }
    }

    #[test]
    fn a_run_that_cant_be_read_keeps_no_other_out() {
        let good = "{\"imagenet-zeroshot-val-top1\": 0.1, \"epoch\": 3}\n";
        let cut = format!("{good}{{\"imagenet-zeroshot-v");
        let runs = [Run { folder: "cut".to_owned(), ..run(PARAMS, &cut) }, run(PARAMS, good)];
        let imported = read("oc", "x", &runs).expect("one run");
        assert_eq!(imported.studies[0].jobs.len(), 1);
        assert!(imported.failed[0].starts_with("cut: results.jsonl:2 is not JSON"), "{:?}", imported.failed);
    }

    #[test]
    fn what_a_run_lacks_is_said() {
        let params = PARAMS.replace("train_num_samples: 1000", "train_num_samples: None").replace("ViT-B-32", "RN50");
        let results = "{\"imagenet-zeroshot-val-top1\": 0.1, \"epoch\": 2}";
        let imported = read("oc", "x", &[run(&params, results)]).expect("a run");
        let job = &imported.studies[0].jobs[0];
        assert_eq!((job.samples_seen, job.parameters, job.evaluations.len()), (None, None, 1));
        assert_eq!(imported.warnings.len(), 3, "{:?}", imported.warnings);
        let error = read("oc", "x", &[run("lr: 1", results)]).expect_err("no model");
        let ReadError::Nothing { warnings, .. } = error else { panic!("{error}") };
        assert!(warnings[0].contains("no line `model: NAME`"), "{warnings:?}");
    }

    #[test]
    fn checkpoints_have_their_places_in_training() {
        let results = "{\"imagenet-zeroshot-val-top1\": 0.3, \"epoch\": 3}\n";
        let checkpoint = |epoch: u64| Checkpoint { epoch, path: format!("/r/{epoch}"), sha256: epoch.to_string() };
        let places = |params: &str| {
            let run = Run { checkpoints: [1, 3, 4].map(checkpoint).to_vec(), ..run(params, results) };
            let imported = read("oc", "x", &[run]).expect("a run");
            let all = imported.studies[0].jobs[0].checkpoints.iter();
            all.map(|found| (found.samples_seen, found.step, found.path.clone())).collect::<Vec<_>>()
        };
        let (one, three, four) = ("/r/1".to_owned(), "/r/3".to_owned(), "/r/4".to_owned());
        assert_eq!(places(PARAMS), [(Some(1000), 0, one), (None, 1, three.clone()), (Some(4000), 2, four)]);
        // Without the samples of an epoch, the last evaluated one stands at the end.
        assert_eq!(places(&PARAMS.replace("train_num_samples: 1000\n", "")), [(None, 0, three)]);
    }
}
