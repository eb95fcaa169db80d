//! The planner itself.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Write;
use std::path::PathBuf;
use std::sync::Arc;

use protocol::{
    DataSource, Description, EvaluationPlan, JobSpec, Loss, ModelConfig, NamedModel, Recipe, RunnerIdentity, Schedule,
};
use sha2::{Digest, Sha256};

use super::{
    BackendChoice, Limits, LocalOptions, Plan, PlannedJob, PlannedSpec, PoolInfo, Site, WeightsInfo,
    canonical::canonical,
    companions,
    evaluations::{Measured, evaluations},
    fits::{self, MemoryLimit},
    memory::peak_bytes,
    slurm_options,
    trunks::{measured_too_early, with_trunks},
    weights,
};
use crate::spec::quantity::grouped;
use crate::spec::{
    self, Amount, Backend, Cell, DataSize, Path, Place, Problem, Spec, SpecError, cells, is_model_file, model_place,
    shipped, sized_for, whole_batches,
};

/// The configuration in a folder that open_clip loads.
pub const OPEN_CLIP_CONFIG: &str = "open_clip_config.json";

/// The name by which clip-runner goes in plans.
pub(super) const CLIP_RUNNER: &str = "clip";

/// What a plan needs from outside.
#[derive(Debug, Clone)]
pub struct Inputs {
    /// The runner's answer to `describe`.
    pub runner: Description,
    /// That of whoever measures checkpoints, where the spec names another one.
    pub companion_runner: Option<Description>,
    /// The executable of who trains.
    pub runner_path: PathBuf,
    /// Pools, by folder as the spec writes it.
    pub pools: BTreeMap<String, PoolInfo>,
    /// Configurations of models given as files, by path as the spec writes it.
    pub model_files: BTreeMap<String, ModelConfig>,
    /// Weights to start from, by path as the spec writes it.
    pub weights: BTreeMap<String, WeightsInfo>,
    /// Measured seconds a sample on one slot, by model name, where there are any.
    pub secs_per_sample: BTreeMap<String, f64>,
    /// Memory that a job can have, where it is known.
    pub memory: Option<MemoryLimit>,
    /// Folder that relative paths of the spec start from.
    pub base_dir: PathBuf,
    /// The site's profile, for Slurm.
    pub site: Option<Site>,
}

/// Name of a job everywhere: sha256 of the canonical JSON of what changes its result, 64 hex digits.
pub fn job_key(spec: &JobSpec) -> String {
    let value =
        serde_json::to_value(spec.identity()).expect("a job spec is JSON: it holds no map with other keys than text");
    hex(&Sha256::digest(canonical(&value)))
}

/// Bytes as hex digits.
pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
        write!(text, "{byte:02x}").expect("writing to a string can't fail");
        text
    })
}

/// Expands, sizes, costs and names the jobs of a spec, cheapest first. Pure.
pub fn plan(spec: &Spec, inputs: &Inputs) -> Result<Plan, SpecError> {
    let mut problems = Vec::from_iter(too_many_ranks(spec, inputs));
    problems.extend(side_by_side_over_nodes(spec, inputs));
    problems.extend(weights::none_taken(spec, inputs));
    problems.extend(companions::not_measured(spec, inputs));
    let training = training_pool(spec, inputs, &mut problems);
    let measured = evaluations(spec, inputs, &mut problems);
    let (Some(training), Some(measured)) = (training, measured) else {
        return Err(SpecError::new(&spec.source, problems));
    };

    let mut jobs: Vec<PlannedJob> = Vec::new();
    let cells = cells(spec);
    let mut keys: HashMap<String, usize> = HashMap::with_capacity(cells.len());
    let mut shared = Shared::default();
    for (index, cell) in cells.iter().enumerate() {
        let Some(job) = job(spec, inputs, cell, &training, &measured, &mut shared, &mut problems) else { continue };
        if let Some(twin) = keys.insert(job.job_key.clone(), index) {
            problems.push(same_job(cell, &cells[twin], &job));
        } else {
            jobs.push(job);
        }
    }
    drop(keys);
    let mut jobs = with_trunks(inputs, jobs);
    problems.extend(measured_too_early(spec, &jobs));
    let total: f64 = jobs.iter().map(|job| job.own_share() * job.compute.train_flops).sum();
    if let Some(budget) = spec.limits.compute_flops
        && total > budget
    {
        let place = Path::keys(&["limits", "compute"]);
        let message = format!("the sweep needs {total:.3e} training FLOPs, `{place}` allows {budget:.3e}");
        let label = format!("{:.1} times less than needed", total / budget);
        problems.push(
            Problem::new(Place::Value(place), message, label)
                .help("allow more, or drop cells: `exclude` leaves some out"),
        );
    }
    if !problems.is_empty() {
        problems.dedup();
        return Err(SpecError::new(&spec.source, problems));
    }
    // Stable, so that jobs of one cost keep the order of the spec. A job's parent, which is shorter, stands before it.
    jobs.sort_by(|a, b| a.compute.train_flops.total_cmp(&b.compute.train_flops));

    let companions = companions::planned(spec, &measured);
    let trains = jobs.iter().any(|job| !job.spec.measures_only());
    let mut pools = if trains { vec![training] } else { Vec::new() };
    for pool in measured.into_iter().flat_map(|(_, pools)| pools) {
        if !pools.iter().any(|known| known.source.digest == pool.source.digest) {
            pools.push(pool);
        }
    }
    Ok(Plan { companions, ..assembled(spec, inputs, pools, jobs) })
}

/// The plan of these jobs, with all else as the spec has it but what measures their checkpoints.
pub(super) fn assembled(spec: &Spec, inputs: &Inputs, pools: Vec<PoolInfo>, jobs: Vec<PlannedJob>) -> Plan {
    let backend = match &spec.backend {
        &Backend::Local { ranks, slots, threads_per_slot, work_secs, spool_only } => {
            BackendChoice::Local(LocalOptions { ranks, slots, threads_per_slot, work_secs, spool_only })
        }
        Backend::Slurm(keys) => BackendChoice::Slurm(Box::new(slurm_options(keys, inputs.site.as_ref(), &jobs))),
    };
    Plan {
        name: spec.name.clone(),
        question: spec.question.clone(),
        spec_source: spec.source.text().to_owned(),
        pools,
        jobs,
        limits: Limits {
            parallel: spec.limits.parallel,
            retries: spec.limits.retries,
            time_limit_secs: spec.limits.time_secs,
            compute_budget_flops: spec.limits.compute_flops,
        },
        backend,
        runner_path: inputs.runner_path.clone(),
        runner_devices: inputs.runner.devices.clone(),
        runner_serves: inputs.runner.serve,
        base_dir: inputs.base_dir.clone(),
        companions: None,
    }
}

/// Several processes a job for a runner that can't share one, or over nodes in a container.
fn too_many_ranks(spec: &Spec, inputs: &Inputs) -> Option<Problem> {
    let alone = |place: Place, of: &str, count: usize| {
        let message = format!("{of} is {count}, but runner `{}` trains a job in one process", inputs.runner.name);
        Problem::new(place, message, "allowed with this runner: 1")
            .help("a runner that shares a job says `\"ranks\": true` in `describe`: runners/protocol")
    };
    let keys = match &spec.backend {
        Backend::Slurm(keys) => keys,
        &Backend::Local { ranks, .. } => {
            let place = Path::keys(&["backend", "local", "ranks"]);
            let refused = ranks > 1 && !inputs.runner.ranks;
            return refused.then(|| alone(Place::Value(place.clone()), &format!("`{place}`"), ranks));
        }
    };
    let (nodes, place, of) = match (keys.nodes, &inputs.site) {
        (Some(nodes), _) => {
            let place = Path::keys(&["backend", "slurm", "nodes"]);
            (nodes, Place::Value(place.clone()), format!("`{place}`"))
        }
        (None, Some(site)) => (site.keys.nodes?, Place::Nowhere, format!("`nodes` of site `{}`", site.name)),
        (None, None) => return None,
    };
    if nodes == 1 {
        return None;
    }
    if !inputs.runner.ranks {
        return Some(alone(place, &of, nodes));
    }
    let of_site = inputs.site.as_ref().and_then(|site| site.keys.container.as_ref());
    keys.container.as_ref().or(of_site).map(|_| {
        let message = format!("{of} is {nodes}, and `container` would hold the first of them alone");
        Problem::new(place, message, "allowed in a container: 1").help("leave one of the two out")
    })
}

/// A share of an allocation is on one node.
fn side_by_side_over_nodes(spec: &Spec, inputs: &Inputs) -> Option<Problem> {
    let Backend::Slurm(keys) = &spec.backend else { return None };
    let of_site = inputs.site.as_ref().map(|site| &site.keys);
    let nodes = keys.nodes.or(of_site.and_then(|keys| keys.nodes)).filter(|nodes| *nodes > 1)?;
    let jobs = keys.side_by_side.or(of_site.and_then(|keys| keys.side_by_side)).filter(|jobs| *jobs > 1)?;
    let place = Path::keys(&["backend", "slurm", "side_by_side"]);
    let (place, of) = match (keys.side_by_side, &inputs.site) {
        (None, Some(site)) => (Place::Nowhere, format!("`side_by_side` of site `{}`", site.name)),
        _ => (Place::Value(place.clone()), format!("`{place}`")),
    };
    let message = format!("{of} is {jobs}, but each job is over {nodes} nodes (`nodes`)");
    let problem = Problem::new(place, message, "allowed with several nodes: 1");
    Some(problem.help("leave one of the two out: jobs side by side share one node"))
}

/// The pool to train on, under the spec's name for it. A runner that reads no data gets a stand-in, known by its name.
fn training_pool(spec: &Spec, inputs: &Inputs, problems: &mut Vec<Problem>) -> Option<PoolInfo> {
    if !inputs.runner.reads_data {
        let name = spec.data.as_ref().and_then(|data| data.name.clone()).unwrap_or_else(|| "none".to_owned());
        let path = spec.data.as_ref().map_or("", |data| &data.pool);
        let sizes = cells(spec).into_iter().filter_map(|cell| match cell.data_size {
            DataSize::Samples(size) => Some(size),
            DataSize::All => None,
        });
        let samples = sizes.max().unwrap_or(1);
        return Some(unread(&name, path, samples));
    }
    let Some(data) = &spec.data else {
        if cells(spec).iter().all(Cell::measures_only) {
            return Some(unread("none", "", 1));
        }
        let message = format!("`data` is missing: runner `{}` reads image-text pairs", spec.runner);
        problems.push(
            Problem::new(Place::Key(Path::keys(&["runner"])), message, "this runner needs a pool")
                .help("add `data:` with `pool: FOLDER` below it"),
        );
        return None;
    };
    let mut pool = inputs.pools.get(&data.pool).expect("inputs hold every pool of the spec").clone();
    if let Some(name) = &data.name {
        pool.source.pool.clone_from(name);
    }
    Some(pool)
}

fn measured_on(measured: &[Measured]) -> u64 {
    measured.iter().flat_map(|(_, pools)| pools).map(|pool| pool.samples).max().unwrap_or_default()
}

pub(super) fn unread(name: &str, path: &str, samples: u64) -> PoolInfo {
    let digest = hex(&Sha256::digest(format!("a pool that nobody reads: {name}")));
    let source = DataSource { pool: name.to_owned(), path: path.into(), digest };
    PoolInfo { source, samples, skipped: BTreeMap::new(), changed: Vec::new(), manifest: None }
}

fn job(
    spec: &Spec,
    inputs: &Inputs,
    cell: &Cell,
    training: &PoolInfo,
    measured: &[Measured],
    shared: &mut Shared,
    problems: &mut Vec<Problem>,
) -> Option<PlannedJob> {
    let data_size = match cell.data_size {
        DataSize::Samples(size) if inputs.runner.reads_data && size > training.samples => {
            let place = cell.origin.place("data_size");
            let message = format!(
                "`{place}` is {}, but pool `{}` holds {} pairs",
                grouped(size),
                training.source.pool,
                grouped(training.samples)
            );
            push_once(problems, Problem::new(Place::Value(place), message, "at most the pool's size, or `all`"));
            return None;
        }
        DataSize::Samples(size) => size,
        DataSize::All if inputs.runner.reads_data => training.samples,
        DataSize::All => {
            let place = cell.origin.place("data_size");
            let message = format!("runner `{}` reads no pool, so `all` of it is no number", spec.runner);
            push_once(problems, Problem::new(Place::Value(place), message, "say how many: `500`, `16k`"));
            return None;
        }
    };
    let recipe = &cell.recipe;
    if data_size < recipe.global_batch && !cell.measures_only() {
        let place = cell.origin.place("data_size");
        let message = format!(
            "pool `{}` holds {} pairs: a global batch of {} would hold a pair twice",
            training.source.pool,
            grouped(data_size),
            grouped(recipe.global_batch)
        );
        push_once(problems, Problem::new(Place::Value(place), message, "at least `recipe.global_batch`"));
        return None;
    }
    let model = shared.model(inputs, cell);
    let config = &model.config;
    let mut wrong = config.check();
    if wrong.is_empty() && inputs.runner.name == CLIP_RUNNER {
        wrong = config.check_trained_by_clip();
    }
    if !wrong.is_empty() {
        for problem in wrong {
            let place = Place::Value(model_place(spec, cell, &problem));
            let message = format!("`{}` can't be built: {problem}", cell.model);
            push_once(problems, Problem::new(place, message, "change this, or the file"));
        }
        return None;
    }

    let init = recipe.init.as_ref().and_then(|init| inputs.weights.get(init));
    if let Some(problem) = init.and_then(|init| weights::problem(spec, cell, config, init)) {
        push_once(problems, problem);
        return None;
    }

    let samples_seen = cell.samples_rounded();
    // A job that only measures has no data size: the limit is then one of the largest pool that is measured on.
    let limited = if samples_seen > 0 { data_size } else { measured_on(measured).max(1) };
    let skipped_max = spec.limits.skipped.map(|amount| amount.of(limited));
    let planned = PlannedSpec {
        runner: shared.runner(inputs),
        init: init.map(|init| init.weights.clone()),
        data: shared.data(training),
        data_size: limited,
        skipped_max,
        samples_seen,
        seed: cell.seed,
        recipe: shared.recipe(spec, &cell.recipe, samples_seen),
        evaluations: shared.evaluations(spec, measured, samples_seen, recipe.global_batch),
        model: Arc::clone(&model),
    };
    let size = config.size();
    if let Some(problem) = fits::problem(spec, inputs, cell, &planned, &size) {
        push_once(problems, problem);
        return None;
    }
    Some(PlannedJob {
        job_key: job_key(&planned.to_job_spec()),
        compute: config.training_size().compute(samples_seen),
        unique_samples: data_size.min(samples_seen),
        memory_bytes: peak_bytes(config, &size, &planned, fits::device(spec, inputs)),
        secs: inputs.secs_per_sample.get(&model.name).map(|secs| secs * samples_seen as f64),
        parent: None,
        size,
        spec: planned,
    })
}

/// Name in the spec, image size, context length, and whether the loss is the sigmoid one.
type ModelInputs = (String, Option<u64>, Option<u64>, bool);

/// What many jobs have in common, made once.
#[derive(Default)]
struct Shared {
    runner: Option<Arc<RunnerIdentity>>,
    data: Option<Arc<DataSource>>,
    models: HashMap<ModelInputs, Arc<NamedModel>>,
    /// By recipe of the spec and samples seen.
    recipes: HashMap<(usize, u64), Arc<Recipe>>,
    /// By samples seen and global batch.
    evaluations: HashMap<(u64, u64), Arc<Vec<EvaluationPlan>>>,
}

impl Shared {
    fn runner(&mut self, inputs: &Inputs) -> Arc<RunnerIdentity> {
        let (name, version) = (&inputs.runner.name, &inputs.runner.version);
        let make = || Arc::new(RunnerIdentity { name: name.clone(), version: version.clone() });
        Arc::clone(self.runner.get_or_insert_with(make))
    }

    fn data(&mut self, training: &PoolInfo) -> Arc<DataSource> {
        Arc::clone(self.data.get_or_insert_with(|| Arc::new(training.source.clone())))
    }

    fn model(&mut self, inputs: &Inputs, cell: &Cell) -> Arc<NamedModel> {
        let (image_size, context_length) = (cell.recipe.image_size, cell.recipe.context_length);
        let sigmoid = cell.recipe.loss == Loss::Siglip;
        let make = || {
            let model = model(inputs, &cell.model);
            let mut config = sized_for(model.config, image_size, context_length);
            if sigmoid {
                // As `open_clip_train --siglip` does, where the model does not say.
                config.init_logit_scale.get_or_insert(10_f64.ln());
                config.init_logit_bias.get_or_insert(-10.0);
            }
            Arc::new(NamedModel { config, name: model.name })
        };
        Arc::clone(self.models.entry((cell.model.clone(), image_size, context_length, sigmoid)).or_insert_with(make))
    }

    fn recipe(&mut self, spec: &Spec, recipe: &Arc<spec::Recipe>, samples_seen: u64) -> Arc<Recipe> {
        let make = || {
            Arc::new(Recipe {
                global_batch: recipe.global_batch,
                lr: recipe.lr,
                betas: recipe.betas,
                eps: recipe.eps,
                weight_decay: recipe.weight_decay,
                warmup_samples: recipe.warmup.of(samples_seen),
                schedule: recipe.schedule,
                cooldown_samples: match recipe.schedule {
                    Schedule::ConstantCooldown => recipe.cooldown_of(samples_seen),
                    Schedule::Cosine | Schedule::Constant => 0,
                },
                precision: recipe.precision,
                loss: recipe.loss,
                accum_freq: recipe.accum_freq,
                augmentation: recipe.augmentation,
                alpha: recipe.alpha,
                preprocess: recipe.preprocess,
                grad_clip_norm: recipe.grad_clip_norm,
                checkpoint_every_samples: recipe.checkpoint_every.map(|every| every.of(samples_seen)),
                keep_checkpoints: companions::kept(spec, recipe),
                extra: recipe.extra.clone(),
            })
        };
        // By address: the cells keep their recipes until all are planned.
        Arc::clone(self.recipes.entry((Arc::as_ptr(recipe) as usize, samples_seen)).or_insert_with(make))
    }

    fn evaluations(
        &mut self,
        spec: &Spec,
        measured: &[Measured],
        samples_seen: u64,
        global_batch: u64,
    ) -> Arc<Vec<EvaluationPlan>> {
        let make = || {
            let in_training = measured
                .iter()
                .zip(&spec.evaluations)
                .filter(|(_, entry)| samples_seen == 0 || !entry.every_checkpoint);
            let plans = in_training.map(|((plan, _), evaluation)| EvaluationPlan {
                at_samples: points(&evaluation.at_samples, samples_seen, global_batch),
                ..plan.clone()
            });
            Arc::new(plans.collect())
        };
        Arc::clone(self.evaluations.entry((samples_seen, global_batch)).or_insert_with(make))
    }
}

/// Points of measurement before the end, on whole batches, ascending. The end is measured anyway.
fn points(at_samples: &[Amount], samples_seen: u64, global_batch: u64) -> Vec<u64> {
    let mut points: Vec<u64> = at_samples
        .iter()
        .map(|at| whole_batches(at.of(samples_seen), global_batch))
        .filter(|at| *at < samples_seen)
        .collect();
    points.sort_unstable();
    points.dedup();
    points
}

fn model(inputs: &Inputs, name: &str) -> NamedModel {
    if !is_model_file(name) {
        return shipped(name).expect("a spec names models that are shipped");
    }
    let file = std::path::Path::new(name);
    // A model's folder gives its name to what lies in it under open_clip's fixed name.
    let named = match (file.file_name(), file.parent()) {
        (Some(name), Some(folder)) if name == OPEN_CLIP_CONFIG && folder.file_name().is_some() => folder.file_name(),
        _ => file.file_stem(),
    };
    let stem = named.map_or_else(|| name.to_owned(), |stem| stem.to_string_lossy().into_owned());
    NamedModel { name: stem, config: inputs.model_files.get(name).expect("inputs hold every model file").clone() }
}

fn same_job(cell: &Cell, twin: &Cell, job: &PlannedJob) -> Problem {
    let axis = if cell.samples_seen != twin.samples_seen {
        "samples_seen"
    } else if cell.data_size != twin.data_size {
        "data_size"
    } else {
        "model"
    };
    let place = cell.origin.place(axis);
    let message = format!(
        "`{place}` gives a job that is there already: {} with {} samples seen of {} unique, seed {}",
        job.spec.model.name,
        grouped(job.spec.samples_seen),
        grouped(job.spec.data_size),
        cell.seed
    );
    Problem::new(Place::Value(place), message, "after rounding and names, this is the same")
}

fn push_once(problems: &mut Vec<Problem>, problem: Problem) {
    if !problems.iter().any(|known| known.place == problem.place && known.message == problem.message) {
        problems.push(problem);
    }
}
