//! The planner itself.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt::Write;
use std::path::PathBuf;
use std::sync::Arc;

use protocol::{DataSource, Description, JobSpec, ModelConfig};
use sha2::{Digest, Sha256};

use super::{
    BackendChoice, Limits, LocalOptions, Plan, PlannedJob, PlannedSpec, PoolInfo, Site, WeightsInfo,
    accepts::not_accepted,
    canonical::canonical,
    companions,
    evaluations::{Measured, evaluations},
    memory::peak_bytes,
    memory_limit::{self, MemoryLimit},
    rollback::no_rollback,
    rules,
    shared::Shared,
    slurm_options,
    trunks::{measured_too_early, with_trunks},
    tune::{self, Ladder},
    weights,
};
use crate::spec::quantity::grouped;
use crate::spec::{Backend, Cell, DataSize, Path, Place, Problem, Spec, SpecError, cells, model_place};

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
    /// Factors on learning rates that ladders have chosen, by the ladder's [`Group::key`](super::Group).
    pub tuned: BTreeMap<String, f64>,
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
    problems.extend(weights::none_taken(spec, inputs).into_iter().chain(no_rollback(spec, inputs)));
    problems.extend(not_accepted(spec, inputs));
    problems.extend(companions::not_measured(spec, inputs));
    let training = training_pool(spec, inputs, &mut problems);
    let measured = evaluations(spec, inputs, &mut problems);
    let (Some(training), Some(measured)) = (training, measured) else {
        return Err(SpecError::new(&spec.source, problems));
    };

    let mut jobs: Vec<PlannedJob> = Vec::new();
    let mut shared = Shared::default();
    let cells = match rules::resolved(spec, inputs, &training, &mut shared) {
        Ok(cells) => cells,
        Err(wrong) => {
            problems.extend(wrong);
            return Err(SpecError::new(&spec.source, problems));
        }
    };
    let mut plan_cell =
        |cell: &Cell, problems: &mut Vec<Problem>| job(spec, inputs, cell, &training, &measured, &mut shared, problems);
    let unique = |cell: &Cell| data_size(spec, inputs, cell, &training).ok();
    let (mut ladder, cells) = tune::tuned(spec, inputs, &measured, cells, unique, &mut plan_cell, &mut problems);
    let mut keys: HashMap<String, usize> = HashMap::with_capacity(cells.len());
    for (index, cell) in cells.iter().enumerate() {
        let Some(job) = plan_cell(cell, &mut problems) else { continue };
        if let Some(twin) = keys.insert(job.job_key.clone(), index) {
            problems.push(same_job(cell, &cells[twin], &job));
        } else {
            jobs.push(job);
        }
    }
    let mut jobs = with_trunks(inputs, jobs);
    problems.extend(measured_too_early(spec, &jobs));
    drop(keys);
    let rungs = ladder.as_ref().map_or_else(Vec::new, |ladder| rungs_alone(ladder, &jobs));
    let total: f64 = jobs.iter().chain(rungs).map(|job| job.own_share() * job.compute.train_flops).sum();
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
    if let Some(ladder) = &mut ladder {
        ladder.plan.pools.clone_from(&pools);
    }
    Ok(Plan { companions, tune: ladder, ..assembled(spec, inputs, pools, jobs) })
}

/// The plan of these jobs, with all else as the spec has it but what measures their checkpoints.
pub(super) fn assembled(spec: &Spec, inputs: &Inputs, pools: Vec<PoolInfo>, jobs: Vec<PlannedJob>) -> Plan {
    let backend = match &spec.backend {
        &Backend::Local { ranks, slots, threads_per_slot, work_secs, spool_only, .. } => {
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
        rules: rules::stated(spec),
        tune: None,
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

/// Unique samples that a cell may see.
pub(super) fn data_size(spec: &Spec, inputs: &Inputs, cell: &Cell, training: &PoolInfo) -> Result<u64, Problem> {
    match cell.data_size {
        DataSize::Samples(size) if inputs.runner.reads_data && size > training.samples => {
            let place = cell.origin.place("data_size");
            let message = format!(
                "`{place}` is {}, but pool `{}` holds {} pairs",
                grouped(size),
                training.source.pool,
                grouped(training.samples)
            );
            Err(Problem::new(Place::Value(place), message, "at most the pool's size, or `all`"))
        }
        DataSize::Samples(size) => Ok(size),
        DataSize::All if inputs.runner.reads_data => Ok(training.samples),
        DataSize::All => {
            let place = cell.origin.place("data_size");
            let message = format!("runner `{}` reads no pool, so `all` of it is no number", spec.runner);
            Err(Problem::new(Place::Value(place), message, "say how many: `500`, `16k`"))
        }
    }
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
    let data_size = match data_size(spec, inputs, cell, training) {
        Ok(size) => size,
        Err(problem) => {
            push_once(problems, problem);
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
    let device = shared.device(spec, inputs);
    let memory_bytes = peak_bytes(config, &size, &planned, device);
    let limited = inputs.memory.as_ref();
    let problem =
        limited.and_then(|limit| memory_limit::problem(spec, limit, cell, &planned, (memory_bytes, device), problems));
    if let Some(problem) = problem {
        push_once(problems, problem);
        return None;
    }
    Some(PlannedJob {
        job_key: job_key(&planned.to_job_spec()),
        compute: config.training_size().compute(samples_seen),
        unique_samples: data_size.min(samples_seen),
        memory_bytes,
        secs: inputs.secs_per_sample.get(&model.name).map(|secs| secs * samples_seen as f64),
        parent: None,
        size,
        spec: planned,
    })
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

/// Jobs of a ladder that are none of the sweep's.
fn rungs_alone<'a>(ladder: &'a Ladder, jobs: &[PlannedJob]) -> Vec<&'a PlannedJob> {
    let known: HashSet<&str> = jobs.iter().map(|job| job.job_key.as_str()).collect();
    ladder.plan.jobs.iter().filter(|rung| !known.contains(rung.job_key.as_str())).collect()
}

pub(super) fn push_once(problems: &mut Vec<Problem>, problem: Problem) {
    if !problems.iter().any(|known| known.place == problem.place && known.message == problem.message) {
        problems.push(problem);
    }
}
