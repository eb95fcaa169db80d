//! The checked tree to a [`Spec`]. Nothing can fail here: `read` has seen to it.

use std::collections::BTreeMap;

use protocol::{
    Alpha, Augmentation, Choose, EvaluationTask, Head, Interpolation, Loss, OnSpike, Precision, Preprocess, ResizeMode,
    Schedule, Shots,
};

use super::evaluation_keys::{FINE_TUNING, PROBE};
use super::read::Value;
use super::recipe_keys::RECIPE;
use super::{
    Amount, Axes, Backend, Companions, Data, DataSize, Evaluation, FineTuning, Limits, Override, Probe, Recipe, Rule,
    Source, Spec, Tune, fits, slurm,
};

/// Seconds for which a worker goes on to the next job. Long enough for its start not to matter, short enough for other
/// sweeps on the machine, and for jobs that are tried again, to get their turn.
const WORK_SECS: u64 = 60;

pub(super) type Section = BTreeMap<&'static str, Value>;

/// Values of some fields of a recipe.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct RecipeChange(Section);

impl RecipeChange {
    /// Whether it sets `field`.
    pub fn sets(&self, field: &str) -> bool {
        self.0.contains_key(field)
    }

    /// Fields that it gives by a rule.
    pub fn rules(&self) -> impl Iterator<Item = (&'static str, &Rule)> {
        self.0.iter().filter_map(|(field, value)| match value {
            Value::Rule(rule) => Some((*field, &**rule)),
            _ => None,
        })
    }

    /// Changes `recipe`.
    pub fn apply(&self, recipe: &mut Recipe) {
        for (field, value) in &self.0 {
            recipe.rules.remove(field);
            match (*field, value.clone()) {
                (field, Value::Rule(rule)) => recipe.rule(field, rule),
                ("global_batch", Value::Count(value)) => recipe.global_batch = value,
                ("lr", Value::Number(value)) => recipe.lr = value,
                ("betas", Value::List(values)) => recipe.betas = [number(&values[0]), number(&values[1])],
                ("eps", Value::Number(value)) => recipe.eps = value,
                ("weight_decay", Value::Number(value)) => recipe.weight_decay = value,
                ("warmup", Value::Amount(value)) => recipe.warmup = value,
                ("schedule", Value::Text(word)) => recipe.schedule = schedule(&word),
                ("cooldown", Value::Amount(value)) => recipe.cooldown = Some(value),
                ("precision", Value::Text(word)) => recipe.precision = precision(&word),
                ("loss", Value::Text(word)) => recipe.loss = loss(&word),
                ("accum_freq", Value::Count(value)) => recipe.accum_freq = value,
                ("grad_checkpointing", Value::Flag(on)) => recipe.grad_checkpointing = on,
                ("augmentation", Value::Text(word)) => recipe.augmentation = augmentation(&word),
                ("alpha", Value::Text(word)) => recipe.alpha = alpha(&word),
                ("image_mean", Value::List(values)) => recipe.preprocess.mean = rgb(&values),
                ("image_std", Value::List(values)) => recipe.preprocess.std = rgb(&values),
                ("interpolation", Value::Text(word)) => recipe.preprocess.interpolation = interpolation(&word),
                ("resize_mode", Value::Text(word)) => recipe.preprocess.resize_mode = resize_mode(&word),
                ("image_size", Value::Count(value)) => recipe.image_size = Some(value),
                ("context_length", Value::Count(value)) => recipe.context_length = Some(value),
                ("grad_clip_norm", Value::Number(value)) => recipe.grad_clip_norm = Some(value),
                ("on_spike", Value::Text(word)) => recipe.on_spike = on_spike(&word),
                ("checkpoint_every", Value::Amount(value)) => recipe.checkpoint_every = Some(value),
                ("keep_checkpoints", Value::DataSize(value)) => recipe.keep_checkpoints = Some(value),
                ("init", Value::Text(path)) => recipe.init = Some(path),
                ("extra", Value::Numbers(numbers)) => recipe.extra.extend(numbers),
                (field, value) => unreachable!("the table of recipes allows {field} to be {value:?}"),
            }
        }
    }
}

pub(super) fn spec(source: &Source, value: Value) -> Spec {
    let Value::Section(mut root) = value else { unreachable!("a spec is a section") };
    let change = RecipeChange(section(root.remove("recipe")));
    let mut recipe = default_recipe();
    change.apply(&mut recipe);
    let recipe_stated = RECIPE.iter().map(|key| key.name).filter(|name| change.sets(name)).collect();
    let mut grid = axes(section(root.remove("grid")));
    if !grid.model.is_empty() && grid.data_size.is_empty() {
        grid.data_size = vec![DataSize::All];
    }
    if !grid.model.is_empty() && grid.seed.is_empty() {
        grid.seed = vec![0];
    }
    let mut limits = section(root.remove("limits"));
    Spec {
        source: source.clone(),
        name: text(root.remove("name")).expect("required"),
        question: text(root.remove("question")).unwrap_or_default(),
        runner: text(root.remove("runner")).unwrap_or_else(|| "clip".to_owned()),
        data: root.remove("data").map(|data| {
            let mut data = section(Some(data));
            Data { pool: text(data.remove("pool")).expect("required"), name: text(data.remove("name")) }
        }),
        grid,
        include: list(root.remove("include")).into_iter().map(|entry| axes(section(Some(entry)))).collect(),
        exclude: list(root.remove("exclude")).into_iter().map(|entry| axes(section(Some(entry)))).collect(),
        recipe,
        recipe_stated,
        overrides: list(root.remove("overrides"))
            .into_iter()
            .map(|entry| {
                let mut entry = section(Some(entry));
                Override {
                    cells: axes(section(entry.remove("where"))),
                    set: RecipeChange(section(entry.remove("set"))),
                }
            })
            .collect(),
        tune: root.remove("tune").map(|tune| self::tune(section(Some(tune)))),
        evaluations: list(root.remove("evaluations"))
            .into_iter()
            .map(|entry| evaluation(section(Some(entry))))
            .collect(),
        fits: list(root.remove("fits")).into_iter().map(|entry| fits::build(section(Some(entry)))).collect(),
        headline: text(root.remove("headline")),
        states_companions: root.contains_key("companions"),
        companions: companions(section(root.remove("companions"))),
        backend: backend(root.remove("backend")).unwrap_or_else(Backend::local),
        limits: Limits {
            parallel: count(limits.remove("parallel")).map(|count| count as usize),
            retries: count(limits.remove("retries")).unwrap_or(2) as u32,
            time_secs: secs(limits.remove("time")),
            compute_flops: limits.remove("compute").map(|value| number(&value)),
            skipped: limits.remove("skipped").and_then(|value| match value {
                Value::Amount(amount) => Some(amount),
                _ => None,
            }),
        },
    }
}

/// What the table of recipes gives as defaults; a test compares the two.
fn default_recipe() -> Recipe {
    Recipe {
        global_batch: 0,
        lr: 5e-4,
        betas: [0.9, 0.98],
        eps: 1e-6,
        weight_decay: 0.2,
        warmup: Amount::Percent(10.0),
        schedule: Schedule::Cosine,
        cooldown: None,
        precision: Precision::Fp32,
        loss: Loss::Fused,
        accum_freq: 1,
        grad_checkpointing: false,
        augmentation: Augmentation::RandomResizedCrop,
        alpha: Alpha::Drop,
        preprocess: Preprocess::default(),
        image_size: None,
        context_length: None,
        grad_clip_norm: None,
        on_spike: OnSpike::GoOn,
        checkpoint_every: None,
        keep_checkpoints: None,
        init: None,
        extra: BTreeMap::new(),
        rules: BTreeMap::new(),
    }
}

fn axes(mut section: Section) -> Axes {
    Axes {
        model: list(section.remove("model")).into_iter().filter_map(|value| text(Some(value))).collect(),
        samples_seen: list(section.remove("samples_seen")).into_iter().filter_map(|value| count(Some(value))).collect(),
        data_size: list(section.remove("data_size")).into_iter().map(data_size).collect(),
        seed: list(section.remove("seed")).into_iter().filter_map(|value| count(Some(value))).collect(),
    }
}

fn tune(mut section: Section) -> Tune {
    let factors = list(section.remove("lr_factors")).iter().map(number).collect();
    let mut factors = or(factors, vec![0.25, 0.5, 1.0, 2.0, 4.0]);
    factors.sort_by(f64::total_cmp);
    Tune {
        factors,
        evaluation: text(section.remove("evaluation")),
        metric: text(section.remove("metric")).unwrap_or_else(|| "loss@1024".to_owned()),
        seeds: count(section.remove("seeds")).unwrap_or(1),
    }
}

fn evaluation(mut section: Section) -> Evaluation {
    let pool = text(section.remove("pool")).expect("required");
    let tasks: Vec<EvaluationTask> = list(section.remove("tasks"))
        .into_iter()
        .map(|value| {
            let name = text(Some(value)).unwrap_or_default();
            EvaluationTask::named(&name).unwrap_or_else(|| unreachable!("no task {name:?} in the table"))
        })
        .collect();
    Evaluation {
        name: text(section.remove("name")),
        pool: text(section.remove("split")).map_or_else(|| pool.clone(), |split| format!("{pool}/{split}")),
        train: text(section.remove("train")),
        probe: probe(&mut section, &tasks),
        fine_tuning: fine_tuning(&mut section, &tasks),
        tasks,
        every_checkpoint: text(section.remove("evaluate")).as_deref() == Some("every_checkpoint"),
        templates: list(section.remove("templates")).into_iter().filter_map(|value| text(Some(value))).collect(),
        at_samples: list(section.remove("at_samples"))
            .into_iter()
            .map(|value| match value {
                Value::Amount(amount) => amount,
                value => unreachable!("an amount is no {value:?}"),
            })
            .collect(),
    }
}

/// The linear probe, where it is asked for or one of its keys is there.
fn probe(section: &mut Section, tasks: &[EvaluationTask]) -> Option<Probe> {
    let is_told = PROBE.iter().any(|key| section.contains_key(key)) || tasks.contains(&EvaluationTask::LinearProbe);
    is_told.then(|| Probe {
        validation: text(section.remove("validation")),
        shots: or(list(section.remove("shots")).into_iter().map(shots).collect(), vec![Shots::All]),
        choose: match text(section.remove("choose")).as_deref() {
            Some("test") => Choose::Test,
            _ => Choose::Validation,
        },
        lr: or(list(section.remove("probe_lr")).into_iter().map(|lr| number(&lr)).collect(), vec![0.1, 0.01, 0.001]),
        epochs: or(
            list(section.remove("probe_epochs")).into_iter().filter_map(|v| count(Some(v))).collect(),
            vec![10, 20, 40],
        ),
        batch_size: count(section.remove("probe_batch")).unwrap_or(256),
        seed: count(section.remove("probe_seed")).unwrap_or(0),
    })
}

/// Fine-tuning, likewise.
fn fine_tuning(section: &mut Section, tasks: &[EvaluationTask]) -> Option<FineTuning> {
    let is_told =
        FINE_TUNING.iter().any(|key| section.contains_key(key)) || tasks.contains(&EvaluationTask::FineTuning);
    is_told.then(|| {
        let steps = count(section.remove("ft_steps")).unwrap_or(2000);
        let mut or = |key: &str, default: f64| section.remove(key).map_or(default, |value| number(&value));
        let [lr, layer_decay] = [or("ft_lr", 1e-5), or("ft_layer_decay", 1.0)];
        let [weight_decay, grad_clip_norm] = [or("ft_weight_decay", 0.1), or("ft_grad_clip_norm", 1.0)];
        FineTuning {
            head: match text(section.remove("ft_head")).as_deref() {
                Some("linear") => Head::Linear,
                _ => Head::Zeroshot,
            },
            steps,
            warmup_steps: count(section.remove("ft_warmup")).unwrap_or(steps / 10),
            batch_size: count(section.remove("ft_batch")).unwrap_or(128),
            lr,
            layer_decay,
            weight_decay,
            grad_clip_norm,
            augmentation: text(section.remove("ft_augmentation"))
                .map_or(Augmentation::RandomResizedCrop, |word| augmentation(&word)),
            seed: count(section.remove("ft_seed")).unwrap_or(0),
        }
    })
}

/// What is there, or the default for nothing.
fn or<T>(given: Vec<T>, default: Vec<T>) -> Vec<T> {
    if given.is_empty() { default } else { given }
}

fn data_size(value: Value) -> DataSize {
    match value {
        Value::DataSize(size) => size,
        value => unreachable!("a data size is no {value:?}"),
    }
}

fn shots(value: Value) -> Shots {
    match value {
        Value::Shots(shots) => shots,
        value => unreachable!("shots are no {value:?}"),
    }
}

pub(super) fn secs(value: Option<Value>) -> Option<u64> {
    value.map(|value| match value {
        Value::Secs(secs) => secs,
        value => unreachable!("a duration is no {value:?}"),
    })
}

impl Backend {
    /// This machine, with nothing said of it.
    pub fn local() -> Backend {
        Backend::Local {
            ranks: 1,
            slots: None,
            threads_per_slot: None,
            work_secs: WORK_SECS,
            spool_only: false,
            memory: None,
        }
    }
}

fn companions(mut section: Section) -> Companions {
    Companions {
        parallel: count(section.remove("parallel")).unwrap_or(1) as usize,
        backend: backend(section.remove("backend")),
        runner: text(section.remove("runner")),
        on_cpu: text(section.remove("device")).as_deref() == Some("cpu"),
    }
}

fn backend(value: Option<Value>) -> Option<Backend> {
    Some(match value? {
        Value::Variant("local", mut options) => Backend::Local {
            ranks: count(options.remove("ranks")).map_or(1, |count| count as usize),
            slots: count(options.remove("slots")).map(|count| count as usize),
            threads_per_slot: count(options.remove("threads_per_slot")).map(|count| count as usize),
            work_secs: secs(options.remove("worker_time")).unwrap_or(WORK_SECS),
            spool_only: is_spool(options.remove("ship")).unwrap_or(false),
            memory: text(options.remove("memory")),
        },
        Value::Variant("slurm", options) => Backend::Slurm(Box::new(slurm::build(options))),
        value => unreachable!("no backend {value:?} in the table"),
    })
}

/// Whether `ship` is `spool`, if it is said.
pub(super) fn is_spool(value: Option<Value>) -> Option<bool> {
    text(value).map(|word| word == "spool")
}

fn schedule(word: &str) -> Schedule {
    match word {
        "cosine" => Schedule::Cosine,
        "constant" => Schedule::Constant,
        "constant-cooldown" => Schedule::ConstantCooldown,
        word => unreachable!("no schedule {word} in the table"),
    }
}

fn precision(word: &str) -> Precision {
    match word {
        "fp32" => Precision::Fp32,
        "amp_bf16" => Precision::AmpBf16,
        word => unreachable!("no precision {word} in the table"),
    }
}

fn loss(word: &str) -> Loss {
    match word {
        "fused" => Loss::Fused,
        "reference" => Loss::Reference,
        "siglip" => Loss::Siglip,
        word => unreachable!("no loss {word} in the table"),
    }
}

fn augmentation(word: &str) -> Augmentation {
    match word {
        "none" => Augmentation::None,
        "random_resized_crop" => Augmentation::RandomResizedCrop,
        "flip_shift" => Augmentation::FlipShift,
        word => unreachable!("no augmentation {word} in the table"),
    }
}

fn alpha(word: &str) -> Alpha {
    if word == "white" { Alpha::White } else { Alpha::Drop }
}

fn on_spike(word: &str) -> OnSpike {
    if word == "rollback" { OnSpike::Rollback } else { OnSpike::GoOn }
}

fn rgb(values: &[Value]) -> [f64; 3] {
    std::array::from_fn(|channel| number(&values[channel]))
}

fn interpolation(word: &str) -> Interpolation {
    if word == "bilinear" { Interpolation::Bilinear } else { Interpolation::Bicubic }
}

fn resize_mode(word: &str) -> ResizeMode {
    match word {
        "shortest" => ResizeMode::Shortest,
        "longest" => ResizeMode::Longest,
        "squash" => ResizeMode::Squash,
        word => unreachable!("no resize mode {word} in the table"),
    }
}

fn section(value: Option<Value>) -> Section {
    match value {
        Some(Value::Section(section)) => section,
        None => Section::new(),
        Some(value) => unreachable!("a section is no {value:?}"),
    }
}

pub(super) fn list(value: Option<Value>) -> Vec<Value> {
    match value {
        Some(Value::List(list)) => list,
        None => Vec::new(),
        Some(value) => unreachable!("a list is no {value:?}"),
    }
}

pub(super) fn text(value: Option<Value>) -> Option<String> {
    value.map(|value| match value {
        Value::Text(text) => text,
        value => unreachable!("text is no {value:?}"),
    })
}

pub(super) fn count(value: Option<Value>) -> Option<u64> {
    value.map(|value| match value {
        Value::Count(count) => count,
        value => unreachable!("a count is no {value:?}"),
    })
}

fn number(value: &Value) -> f64 {
    match value {
        Value::Number(number) => *number,
        value => unreachable!("a number is no {value:?}"),
    }
}
