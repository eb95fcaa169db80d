//! What there is to measure of a sweep: a job for each checkpoint and data set of which something is missing.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use protocol::{
    DataSource, EvaluationPlan, EvaluationTask, JobSpec, NamedModel, ProbePlan, Recipe, RunnerIdentity, Weights,
};

use super::evaluate::{Args, At, Measuring, evaluations, quoted};
use super::output::{Failure, say};
use super::{analysis, checkpoint, hashing, plan, target};
use crate::events::complete::has_task;
use crate::plan::{
    Inputs, Placement, PlannedJob, PoolInfo, file_of, look, measuring_job, measuring_plan, planned_evaluations,
    weights_of,
};
use crate::spec::{self, Axes, Source, Spec};
use crate::store::fit::sha256;
use crate::store::{CheckpointOf, Companion, Store};

/// The jobs that measure what is missing of the checkpoints of `sweep`.
pub(super) async fn plan(args: &Args, sweep: &str, placement: &Placement) -> Result<Measuring, Failure> {
    let store = target::store().await?;
    let Some(sweep_id) = store.sweep_find(sweep).await? else {
        let names = store.study_names().await?;
        return Err(analysis::unknown("sweep", sweep, &names, "`sweep launch SPEC` starts one"));
    };
    let trained = store.sweep_spec(sweep_id).await?;
    let mut spec = of_command_line(args, sweep, trained.as_deref())?;
    let inputs = look(&mut spec, placement, &mut hashing::progress()).map_err(|error| plan::unplannable(&error))?;
    if !inputs.runner.init {
        return Err(Failure::bad_input(format!("runner `{}` can't measure given weights", inputs.runner.name))
            .hint("`--runner clip` measures what clip-runner and open_clip have trained"));
    }
    let asked = planned_evaluations(&spec, &inputs).map_err(|error| Failure::bad_input(plan::rendered(&error)))?;
    let checkpoints = kept(args, sweep, store.companion_checkpoints(sweep_id).await?)?;
    let earlier = Earlier::read(&store, sweep_id).await?;

    let mut jobs = Vec::new();
    let (mut companions, mut shown) = (Vec::new(), Vec::new());
    let (mut datasets, mut places) = (BTreeSet::new(), BTreeSet::new());
    for found in &checkpoints {
        let trained = trained_as(args, found, &inputs)?;
        let weights = weights(found)?;
        let wanted: Vec<EvaluationPlan> = if args.pools.is_empty() {
            trained.evaluations.iter().map(|plan| narrowed(plan, &args.tasks)).collect::<Result<_, _>>()?
        } else {
            asked.iter().map(|(plan, _)| plan.clone()).collect()
        };
        if wanted.is_empty() {
            let message = format!("job {} was not measured on anything", &found.job_key[..12]);
            return Err(Failure::bad_input(message).hint("say on what to measure: `--pool FOLDER`"));
        }
        for plan in wanted {
            datasets.insert(plan.dataset.clone());
            earlier.same_pool(found, &trained, &plan)?;
            let Some(plan) = earlier.missing(found, plan) else { continue };
            let job = measuring_job(&inputs.runner, &trained, weights.clone(), plan);
            companions.push(companion(&job, found));
            jobs.push(job);
        }
        places.insert((found.job_key.clone(), found.samples_seen));
        if shown.last() != Some(&found.job_key) {
            shown.push(found.job_key.clone());
        }
    }
    // Another question is another sweep, so that one which goes on keeps its jobs in sight.
    let plans: Vec<EvaluationPlan> = asked.iter().map(|(plan, _)| plan.identity()).collect();
    let question = serde_json::json!([plans, args.tasks, args.at == At::Final]).to_string();
    let pools = asked.into_iter().flat_map(|(_, pools)| pools).collect::<Vec<PoolInfo>>();
    let mut plan = measuring_plan(&spec, &inputs, pools, jobs);
    if args.name.is_none() {
        plan.name = format!("{sweep}-evaluate-{}", &sha256(&question)[..8]);
        plan.spec_source = text(args, sweep, &spec.runner, &plan.name);
    }
    Ok(Measuring { plan, companions, shown, datasets: datasets.into_iter().collect(), places: Some(places) })
}

fn companion(job: &PlannedJob, of: &CheckpointOf) -> Companion {
    Companion { job_key: job.job_key.clone(), attempt_id: of.attempt_id, samples_seen: of.samples_seen }
}

/// A spec with the evaluations of the command line. Its one cell stands for the checkpoints.
fn text(args: &Args, sweep: &str, runner: &str, name: &str) -> String {
    let evaluations = if args.pools.is_empty() { String::new() } else { evaluations(args) };
    format!(
        "# Made by `sweep evaluate {sweep}`, which measures checkpoints of that sweep.\nname: {}\nrunner: {}\n\
         grid: {{model: cpu-w32-l2, samples_seen: 1, data_size: 1}}\nrecipe: {{global_batch: 1}}\n{evaluations}",
        quoted(name),
        quoted(runner)
    )
}

/// The evaluations of the command line, and where jobs run as the sweep's spec has it.
fn of_command_line(args: &Args, sweep: &str, trained: Option<&str>) -> Result<Spec, Failure> {
    let trained = trained.and_then(|text| spec::parse(&Source::new(sweep, text)).ok());
    let named = trained.as_ref().map_or("clip", |spec| &spec.runner);
    let runner = args.runner.as_deref().unwrap_or(named);
    let name = args.name.clone().unwrap_or_else(|| format!("{sweep}-evaluate"));
    let parsed = spec::parse(&Source::new("(the command line)", &text(args, sweep, runner, &name)));
    let mut spec = parsed.map_err(|error| Failure::bad_input(plan::rendered(&error)))?;
    spec.grid = Axes::default();
    if let Some(trained) = trained {
        (spec.backend, spec.limits) = (trained.backend, trained.limits);
    }
    Ok(spec)
}

/// The checkpoints that are asked for and still there.
fn kept(args: &Args, sweep: &str, all: Vec<CheckpointOf>) -> Result<Vec<CheckpointOf>, Failure> {
    let reported = all.len();
    let mut last: BTreeMap<String, i64> = BTreeMap::new();
    for found in &all {
        last.insert(found.job_key.clone(), found.samples_total.unwrap_or(found.samples_seen));
    }
    let asked: Vec<CheckpointOf> = all
        .into_iter()
        .filter(|found| args.at == At::EveryCheckpoint || last.get(&found.job_key) == Some(&found.samples_seen))
        .collect();
    let number = asked.len();
    let there: Vec<CheckpointOf> = asked.into_iter().filter(|found| Path::new(&found.path).exists()).collect();
    if there.is_empty() {
        let message = format!("no checkpoint of sweep `{sweep}` is there to be measured");
        let hint = if reported == 0 {
            "its finished jobs have reported none".to_owned()
        } else {
            format!("{reported} were reported, {number} are asked for, and their folders are gone")
        };
        return Err(Failure::bad_input(message).hint(hint));
    }
    if there.len() < number {
        say(&format!("{} of {number} checkpoints are not kept any more: they are left out", number - there.len()));
    }
    Ok(there)
}

/// What a checkpoint's job was trained as; of an imported one, its model, by its name or the command line.
fn trained_as(args: &Args, found: &CheckpointOf, inputs: &Inputs) -> Result<JobSpec, Failure> {
    if let Some(spec) = &found.spec {
        return Ok(spec.clone());
    }
    // An imported run says its model's name, and these change the model or its images.
    if let Some(sees) = found.sees.as_ref().filter(|sees| !sees.is_empty()) {
        let said: Vec<String> = sees.iter().map(|(name, value)| format!("{name}: {value}")).collect();
        let message = format!("job {} was trained with {}", &found.job_key[..12], said.join(", "));
        return Err(Failure::bad_input(message).hint(
            "measure its file by `sweep evaluate --checkpoint FILE` with an `open_clip_config.json` beside it that says so",
        ));
    }
    let name = args.model.as_ref().unwrap_or(&found.model);
    let model = if spec::is_model_file(name) {
        let config = crate::plan::inputs::model_file(Path::new(""), name);
        let config = config.map_err(|error| Failure::bad_input(error.to_string()))?;
        NamedModel { name: found.model.clone(), config }
    } else {
        spec::shipped(name).ok_or_else(|| {
            Failure::bad_input(format!("model `{name}` of job {} is not known here", &found.job_key[..12]))
                .hint("name its configuration: `--model FILE.json`; `sweep model` lists those with a name")
        })?
    };
    let (name, version) = (inputs.runner.name.clone(), inputs.runner.version.clone());
    Ok(JobSpec {
        runner: RunnerIdentity { name, version },
        model,
        init: None,
        data: DataSource { pool: String::new(), path: "".into(), digest: String::new() },
        data_size: 1,
        skipped_max: None,
        samples_seen: 0,
        seed: 0,
        recipe: Recipe::of_nothing(),
        evaluations: Vec::new(),
    })
}

/// The weights of a checkpoint. Its manifest, where it has one, says their hash, and was hashed when it was reported.
fn weights(found: &CheckpointOf) -> Result<Weights, Failure> {
    let folder = Path::new(&found.path);
    if folder.is_file() {
        return Ok(Weights { path: folder.to_owned(), sha256: found.sha256.clone() });
    }
    let nothing = || {
        Failure::bad_input(format!("{} holds no weights that can be measured", folder.display()))
            .hint("allowed: checkpoints of clip-runner and of open_clip")
    };
    let file = file_of(Path::new(""), folder).ok_or_else(nothing)?;
    if folder.join("manifest.json").is_file() {
        let files = checkpoint::listed_files(folder, &found.sha256)?;
        let name = file.file_name().map(|name| name.to_string_lossy().into_owned());
        let entry = files.into_iter().find(|entry| Some(&entry.name) == name.as_ref()).ok_or_else(nothing)?;
        return Ok(Weights { path: file, sha256: entry.sha256 });
    }
    let mut progress = hashing::progress();
    let label = file.display().to_string();
    let hashed = weights_of(Path::new(""), &file, &mut |done, total| progress(&label, done, total));
    hashed.map_err(|error| Failure::environment(format!("can't read {}", file.display())).because(&error))
}

/// A plan with these tasks in place of its own, if any are given.
fn narrowed(plan: &EvaluationPlan, tasks: &[EvaluationTask]) -> Result<EvaluationPlan, Failure> {
    let mut plan = plan.clone();
    for (task, is_told) in
        [(EvaluationTask::LinearProbe, plan.probe.is_some()), (EvaluationTask::FineTuning, plan.fine_tuning.is_some())]
    {
        if tasks.contains(&task) && !is_told {
            let message = format!("`{}` has nothing to train on for `{}`", task.name(), plan.dataset);
            let hint = format!("name both: `--pool FOLDER --train FOLDER --task {}`", task.name());
            return Err(Failure::bad_input(message).hint(hint));
        }
    }
    if !tasks.is_empty() {
        plan = plan.with_tasks(tasks.to_vec());
    }
    plan.at_samples.clear();
    Ok(plan)
}

/// Whether the metrics of a data set have all that a task of the plan gives.
fn is_measured(task: EvaluationTask, plan: &EvaluationPlan, metrics: &[&str]) -> bool {
    match task {
        // Before clip-runner 0.5.0 there were grouped recalls alone.
        EvaluationTask::ZeroshotRetrieval => metrics.iter().any(|metric| metric.contains("_retrieval_recall@")),
        _ => has_task(plan, task, metrics.iter().copied()),
    }
}

/// What earlier measuring jobs of the sweep were to measure.
struct Earlier(Vec<(Companion, JobSpec)>);

impl Earlier {
    async fn read(store: &Store, sweep_id: i64) -> Result<Earlier, Failure> {
        Ok(Earlier(store.companion_specs(sweep_id).await?))
    }

    fn of<'a>(&'a self, found: &CheckpointOf) -> impl Iterator<Item = &'a EvaluationPlan> {
        let place = (found.attempt_id, found.samples_seen);
        let here = self.0.iter().filter(move |(companion, _)| (companion.attempt_id, companion.samples_seen) == place);
        here.flat_map(|(_, spec)| &spec.evaluations)
    }

    /// One name means one pool, and one way to train a probe: else numbers of two would stand under it.
    fn same_pool(&self, found: &CheckpointOf, trained: &JobSpec, plan: &EvaluationPlan) -> Result<(), Failure> {
        let known = || trained.evaluations.iter().chain(self.of(found)).filter(|known| known.dataset == plan.dataset);
        let job = &found.job_key[..12];
        let hint = "give its results a name of their own: `--dataset NAME`";
        if let Some(known) = known().find(|known| known.data.digest != plan.data.digest) {
            let message = format!(
                "`{}` is the name of another pool in job {job}: {} (digest {}), and {} has {}",
                plan.dataset,
                known.data.path.display(),
                &known.data.digest[..12],
                plan.data.path.display(),
                &plan.data.digest[..12]
            );
            return Err(Failure::bad_input(message).hint(hint));
        }
        let training =
            |plan: &EvaluationPlan| plan.identity().probe.map(|probe| ProbePlan { shots: Vec::new(), ..probe });
        let otherwise = |what: &str| {
            let message = format!("the {what} of `{}` in job {job} was trained otherwise", plan.dataset);
            Err(Failure::bad_input(message).hint(hint))
        };
        if training(plan).is_some_and(|ours| known().filter_map(training).any(|theirs| theirs != ours)) {
            return otherwise("linear probe");
        }
        let tuning = |plan: &EvaluationPlan| plan.identity().fine_tuning;
        if tuning(plan).is_some_and(|ours| known().filter_map(tuning).any(|theirs| theirs != ours)) {
            return otherwise("fine-tuned image tower");
        }
        Ok(())
    }

    /// What of a plan nobody has measured there. An earlier job that was to measure just that is taken again, so that
    /// asking twice starts nothing: some tasks can't be measured, and leave no row.
    fn missing(&self, found: &CheckpointOf, plan: EvaluationPlan) -> Option<EvaluationPlan> {
        let here = found.measured.iter().filter(|(dataset, _)| *dataset == plan.dataset);
        let metrics: Vec<&str> = here.map(|(_, metric)| metric.as_str()).collect();
        let tasks: Vec<EvaluationTask> =
            plan.tasks.iter().copied().filter(|task| !is_measured(*task, &plan, &metrics)).collect();
        let same = |known: &&EvaluationPlan| {
            known.dataset == plan.dataset
                && known.templates == plan.templates
                && known.identity().probe == plan.identity().probe
                && known.identity().fine_tuning == plan.identity().fine_tuning
                && tasks.iter().all(|task| known.tasks.contains(task))
        };
        if tasks.is_empty() {
            return None;
        }
        if let Some(known) = self.of(found).find(same) {
            return Some(known.clone());
        }
        Some(plan.with_tasks(tasks))
    }
}
