//! A pool of drawn pairs in a temporary folder, a job for it, and the binary run on it.

use std::fs::File;
use std::io::Write;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use protocol::{
    Augmentation, DataSource, EvaluationPlan, EvaluationTask, Event, Job, JobSpec, Layers, Measurement, ModelConfig,
    NamedModel, Precision, Recipe, Resources, RunnerIdentity, Schedule, ServeRequest, TextConfig, VisionConfig,
};
use tempfile::TempDir;

const COLOURS: [(&str, [u8; 3]); 8] = [
    ("red", [220, 30, 30]),
    ("green", [30, 180, 60]),
    ("blue", [40, 60, 220]),
    ("yellow", [240, 220, 40]),
    ("black", [10, 10, 10]),
    ("purple", [140, 40, 160]),
    ("orange", [250, 140, 20]),
    ("grey", [130, 130, 130]),
];

/// A temporary folder with a pool `pool` of 64 pairs: a square of one of eight colours at one of eight places.
pub(crate) struct Bench {
    pub(crate) dir: TempDir,
}

impl Bench {
    pub(crate) fn new() -> Bench {
        let dir = tempfile::tempdir().expect("a temporary folder");
        write_pool(&dir.path().join("pool"), 0..64);
        Bench { dir }
    }

    /// A job of six steps of 32 samples, evaluated at the end, whose files lie in `name`.
    pub(crate) fn job(&self, name: &str) -> Job {
        let digest = digest(&self.dir.path().join("pool"));
        let data = DataSource { pool: "squares".into(), path: "pool".into(), digest };
        let all = [
            EvaluationTask::ZeroshotClassification,
            EvaluationTask::ZeroshotRetrieval,
            EvaluationTask::ContrastiveLoss,
        ];
        let evaluation = EvaluationPlan {
            dataset: "squares".into(),
            data: data.clone(),
            tasks: all.to_vec(),
            templates: Vec::new(),
            at_samples: vec![96],
            probe: None,
            fine_tuning: None,
        };
        Job {
            protocol: protocol::PROTOCOL_VERSION,
            job_key: "5".repeat(64),
            fence: 1,
            spec: JobSpec {
                runner: RunnerIdentity { name: "clip".into(), version: env!("CARGO_PKG_VERSION").into() },
                model: NamedModel { name: "tiny".into(), config: tiny_model() },
                init: None,
                data,
                data_size: 64,
                skipped_max: None,
                samples_seen: 192,
                seed: 11,
                recipe: recipe(),
                evaluations: vec![evaluation],
            },
            attempt_dir: self.dir.path().join(name),
            checkpoint_dir: self.dir.path().join(name).join("checkpoints"),
            base_dir: self.dir.path().to_owned(),
            resources: Resources { device: "cpu".into(), threads: 1 },
            ranks: None,
            parent: None,
        }
    }
}

/// Writes the pool of pairs `indices`, squares of eight colours at nine places, and gives its digest.
pub(crate) fn write_pool(pool: &Path, indices: Range<usize>) -> String {
    std::fs::create_dir_all(pool).expect("pool folder");
    let mut tar = tar::Builder::new(File::create(pool.join("00000.tar")).expect("shard"));
    let pairs = indices.len();
    for index in indices {
        let (colour, place) = (index % 8, index / 8);
        let key = format!("{index:05}");
        append(&mut tar, &format!("{key}.png"), &picture(index));
        append(&mut tar, &format!("{key}.txt"), format!("a {} square at {place}", COLOURS[colour].0).as_bytes());
        append(&mut tar, &format!("{key}.cls"), colour.to_string().as_bytes());
    }
    tar.finish().expect("shard");
    std::fs::write(pool.join("sizes.json"), format!(r#"{{"00000.tar": {pairs}}}"#)).expect("sizes");
    std::fs::write(pool.join("classnames.txt"), COLOURS.map(|(name, _)| name).join("\n")).expect("class names");
    std::fs::write(pool.join("zeroshot_classification_templates.txt"), "a {} square\n{c}\n").expect("templates");
    digest(pool)
}

pub(crate) fn digest(pool: &Path) -> String {
    pool::inspect(pool, None, &mut |_, _| ()).expect("a pool").identity.digest
}

/// The square of pair `index`.
pub(crate) fn picture(index: usize) -> Vec<u8> {
    drawn(COLOURS[index % 8].1, index / 8 % 9)
}

/// What was measured at a position.
pub(crate) fn measured(events: &[Event], at: u64) -> Vec<Measurement> {
    let found = events.iter().find_map(|event| match event {
        Event::Eval { samples_seen, measurements, .. } if *samples_seen == at => Some(measurements.clone()),
        _ => None,
    });
    found.unwrap_or_else(|| panic!("an evaluation at {at}"))
}

/// The binary; `CLIP_RUNNER` names another on machines that did not build it.
pub(crate) fn runner() -> PathBuf {
    std::env::var_os("CLIP_RUNNER").map_or_else(|| env!("CARGO_BIN_EXE_clip-runner").into(), PathBuf::from)
}

/// Starts the binary on a job.
pub(crate) fn start(job: &Job) -> Child {
    std::fs::create_dir_all(&job.attempt_dir).expect("attempt folder");
    let path = job.attempt_dir.join("job.json");
    std::fs::write(&path, serde_json::to_vec(job).expect("JSON")).expect("job file");
    start_file(&path)
}

/// Runs the binary on a job to its end.
pub(crate) fn run(job: &Job) -> (Vec<Event>, i32) {
    events(&start(job).wait_with_output().expect("clip-runner ends"))
}

pub(crate) fn start_file(path: &Path) -> Child {
    let mut command = Command::new(runner());
    command.args(["run", "--job"]).arg(path).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.spawn().expect("clip-runner starts")
}

/// Starts the binary to serve, and tells it jobs; it ends when it is done with them.
pub(crate) fn start_serving(jobs: &[&Job]) -> Child {
    let mut command = Command::new(runner());
    command.arg("serve").stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("clip-runner starts");
    let mut stdin = child.stdin.take().expect("it is piped");
    for job in jobs {
        std::fs::create_dir_all(&job.attempt_dir).expect("attempt folder");
        let path = job.attempt_dir.join("job.json");
        std::fs::write(&path, serde_json::to_vec(job).expect("JSON")).expect("job file");
        let request = serde_json::to_string(&ServeRequest { job: path }).expect("JSON");
        writeln!(stdin, "{request}").expect("clip-runner reads");
    }
    child
}

/// Events and exit code.
pub(crate) fn events(output: &Output) -> (Vec<Event>, i32) {
    let text = String::from_utf8(output.stdout.clone()).expect("UTF-8");
    let parse = |line: &str| serde_json::from_str(line).unwrap_or_else(|error| panic!("{line}: {error}"));
    (text.lines().map(parse).collect(), output.status.code().expect("an exit code"))
}

/// The newest checkpoint in an event list.
pub(crate) fn last_checkpoint(events: &[Event]) -> PathBuf {
    let path = events.iter().rev().find_map(|event| match event {
        Event::Checkpoint { path, .. } => Some(path.clone()),
        _ => None,
    });
    path.expect("a checkpoint")
}

fn tiny_model() -> ModelConfig {
    ModelConfig {
        embed_dim: 32,
        vision_cfg: VisionConfig {
            image_size: 16,
            layers: Layers::Blocks(2),
            width: 32,
            head_width: 16,
            patch_size: 8,
            ..VisionConfig::default()
        },
        text_cfg: TextConfig {
            context_length: 12,
            vocab_size: 1024,
            width: 32,
            heads: 2,
            layers: 2,
            ..TextConfig::default()
        },
        ..ModelConfig::default()
    }
}

fn recipe() -> Recipe {
    Recipe {
        global_batch: 32,
        lr: 2e-3,
        betas: [0.9, 0.98],
        eps: 1e-6,
        weight_decay: 0.1,
        warmup_samples: 64,
        schedule: Schedule::Cosine,
        cooldown_samples: 0,
        precision: Precision::Fp32,
        loss: protocol::Loss::Fused,
        accum_freq: 1,
        grad_checkpointing: false,
        augmentation: Augmentation::FlipShift,
        alpha: protocol::Alpha::Drop,
        preprocess: protocol::Preprocess::default(),
        grad_clip_norm: Some(1.0),
        on_spike: protocol::OnSpike::GoOn,
        checkpoint_every_samples: None,
        keep_checkpoints: None,
        extra: std::collections::BTreeMap::new(),
    }
}

fn drawn(colour: [u8; 3], place: usize) -> Vec<u8> {
    let corner = (4 * (place as u32 % 3), 5 * (place as u32 / 3));
    let inside = |at: u32, from: u32| (from..from + 6).contains(&at);
    let image = image::RgbImage::from_fn(16, 16, |x, y| {
        image::Rgb(if inside(x, corner.0) && inside(y, corner.1) { colour } else { [255; 3] })
    });
    let mut bytes = std::io::Cursor::new(Vec::new());
    image.write_to(&mut bytes, image::ImageFormat::Png).expect("PNG");
    bytes.into_inner()
}

pub(crate) fn append(tar: &mut tar::Builder<File>, name: &str, bytes: &[u8]) {
    let mut header = tar::Header::new_ustar();
    header.set_size(bytes.len() as u64);
    header.set_mode(0o644);
    tar.append_data(&mut header, name, bytes).expect("tar entry");
}
