//! What there is to measure of a sweep: a job for each checkpoint and data set of which something is missing.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use protocol::{EvaluationPlan, EvaluationTask, JobSpec, ProbePlan, Weights};

use super::evaluate::{Args, At, Measuring, evaluations, quoted};
use super::output::{Failure, say};
use super::trained::trained_as;
use super::{analysis, checkpoint, hashing, plan, target};
use crate::events::complete::has_task;
use crate::plan::memory::measuring_bytes;
use crate::plan::{
    Inputs, Placement, Plan, PlannedJob, PoolInfo, file_of, look, measuring_job, measuring_plan, planned_evaluations,
    weights_of,
};
use crate::spec::{self, Axes, Source, Spec};
use crate::store::fit::sha256;
use crate::store::{CheckpointOf, Companion, Store};

/// What is to be measured of the checkpoints of a sweep.
pub(super) struct Question {
    /// The sweep that they are of.
    pub(super) sweep: String,
    /// Where jobs run, and how many at a time.
    spec: Spec,
    inputs: Inputs,
    asked: Vec<EvaluationPlan>,
    pools: Vec<PoolInfo>,
    /// Whether the data sets that the trained jobs have are measured too, or some tasks of them.
    of_jobs: bool,
    tasks: Vec<EvaluationTask>,
    at: At,
    /// The model of imported runs, in place of what they say.
    model: Option<String>,
    /// Name of the sweep that measures.
    pub(super) name: String,
    spec_source: String,
}

impl Question {
    /// What the command line asks for; without a pool, what the sweep's spec has measured at every checkpoint, and what
    /// its jobs measure themselves.
    pub(super) async fn of_command(
        args: &Args,
        sweep: &str,
        sweep_id: i64,
        placement: &Placement,
    ) -> Result<Question, Failure> {
        let store = target::store().await?;
        let trained = store.sweep_spec(sweep_id).await?;
        let trained = trained.and_then(|text| spec::parse(&Source::new(sweep, &text)).ok());
        let named = trained.as_ref().map_or("clip", |spec| spec.companions.runner.as_ref().unwrap_or(&spec.runner));
        let runner = args.runner.as_deref().unwrap_or(named).to_owned();
        let name = args.name.clone().unwrap_or_else(|| format!("{sweep}-evaluate"));
        let parsed = spec::parse(&Source::new("(the command line)", &text(args, sweep, &runner, &name)));
        let mut spec = parsed.map_err(|error| Failure::bad_input(plan::rendered(&error)))?;
        spec.grid = Axes::default();
        if let Some(mut trained) = trained {
            if args.follow {
                beside(&mut trained);
            }
            (spec.backend, spec.limits) = (trained.backend, trained.limits);
            if args.follow {
                spec.companions = trained.companions;
            }
            if args.pools.is_empty() {
                spec.evaluations.extend(trained.evaluations.into_iter().filter(|entry| entry.every_checkpoint));
            }
        } else if args.follow {
            beside(&mut spec);
        }
        if let Some(parallel) = args.parallel {
            spec.limits.parallel = Some(parallel as usize);
        }
        let mut question = Question::look(spec, sweep, placement)?;
        question.of_jobs = args.pools.is_empty();
        (question.tasks, question.at, question.model) = (args.tasks.clone(), args.at, args.model.clone());
        if args.follow {
            question.at = At::EveryCheckpoint;
        }
        if args.name.is_none() {
            question.name = question.usual_name(args.follow);
            question.spec_source = text(args, sweep, &runner, &question.name);
        }
        Ok(question)
    }

    /// What a spec has measured at every checkpoint while its sweep is launched; `None`: nothing.
    pub(super) fn of_plan(launched: &Plan, placement: &Placement) -> Result<Option<Question>, Failure> {
        if launched.companions.is_none() {
            return Ok(None);
        }
        let source = Source::new(&launched.name, &launched.spec_source);
        let mut spec = spec::parse(&source).map_err(|error| Failure::bad_input(plan::rendered(&error)))?;
        let placement = match spec.companions.backend {
            Some(_) => Placement { backend: None, ..placement.clone() },
            None => placement.clone(),
        };
        beside(&mut spec);
        spec.evaluations.retain(|evaluation| evaluation.every_checkpoint);
        if let Some(runner) = spec.companions.runner.take() {
            spec.runner = runner;
        }
        spec.data = None;
        spec.grid = Axes::default();
        spec.include.clear();
        let mut question = Question::look(spec, &launched.name, &placement)?;
        question.name = question.usual_name(true);
        question.spec_source = format!(
            "# Measures the checkpoints of sweep `{}` where its spec, which this is, says `evaluate: every_checkpoint`.\n{}",
            launched.name, launched.spec_source
        );
        Ok(Some(question))
    }

    fn look(mut spec: Spec, sweep: &str, placement: &Placement) -> Result<Question, Failure> {
        let inputs = look(&mut spec, placement, &mut hashing::progress()).map_err(|error| plan::unplannable(&error))?;
        if !inputs.runner.init {
            return Err(Failure::bad_input(format!("runner `{}` can't measure given weights", inputs.runner.name))
                .hint("`--runner clip` measures what clip-runner and open_clip have trained"));
        }
        let asked = planned_evaluations(&spec, &inputs).map_err(|error| Failure::bad_input(plan::rendered(&error)))?;
        let (asked, pools): (Vec<EvaluationPlan>, Vec<Vec<PoolInfo>>) = asked.into_iter().unzip();
        Ok(Question {
            sweep: sweep.to_owned(),
            name: spec.name.clone(),
            spec_source: spec.source.text().to_owned(),
            spec,
            inputs,
            asked,
            pools: pools.into_iter().flatten().collect(),
            of_jobs: false,
            tasks: Vec::new(),
            at: At::EveryCheckpoint,
            model: None,
        })
    }

    /// Another question is another sweep, so that one which goes on keeps its jobs in sight. One that follows training
    /// is another one too: its jobs come in by and by.
    fn usual_name(&self, follows: bool) -> String {
        let plans: Vec<EvaluationPlan> = self.asked.iter().map(EvaluationPlan::identity).collect();
        let mut question = serde_json::json!([plans, self.tasks, self.at == At::Final]);
        if let (true, Some(words)) = (follows, question.as_array_mut()) {
            words.push(serde_json::json!({"follows": true, "of_jobs": self.of_jobs}));
        }
        format!("{}-evaluate-{}", self.sweep, &sha256(&question.to_string())[..8])
    }

    /// A job that needs as much as the largest of these does when it is measured.
    pub(super) fn largest(jobs: &[PlannedJob]) -> Option<PlannedJob> {
        let bytes = |job: &PlannedJob| measuring_bytes(&job.spec.model.config, &job.size);
        let largest = jobs.iter().max_by_key(|job| bytes(job))?;
        Some(PlannedJob { memory_bytes: bytes(largest), secs: None, ..largest.clone() })
    }

    /// The plan of these jobs.
    pub(super) fn plan_of(&self, jobs: Vec<PlannedJob>) -> Plan {
        let mut plan = measuring_plan(&self.spec, &self.inputs, self.pools.clone(), jobs);
        plan.name.clone_from(&self.name);
        plan.spec_source.clone_from(&self.spec_source);
        if self.spec.companions.on_cpu {
            plan.runner_devices = vec!["cpu".to_owned()];
        }
        plan
    }

    /// The jobs that measure what is missing of these checkpoints.
    pub(super) async fn measuring(&self, store: &Store, checkpoints: &[CheckpointOf]) -> Result<Measuring, Failure> {
        let earlier = Earlier::read(store, checkpoints).await?;
        let mut jobs = Vec::new();
        let (mut companions, mut shown) = (Vec::new(), Vec::new());
        let (mut datasets, mut places) = (BTreeSet::new(), BTreeSet::new());
        for found in checkpoints {
            let trained = trained_as(self.model.as_deref(), found, &self.inputs)?;
            let weights = weights(found)?;
            let of_job: &[EvaluationPlan] = if self.of_jobs { &trained.evaluations } else { &[] };
            let mut wanted: Vec<EvaluationPlan> =
                of_job.iter().map(|plan| narrowed(plan, &self.tasks)).collect::<Result<_, _>>()?;
            if self.of_jobs {
                for plan in &self.asked {
                    wanted.push(narrowed(plan, &self.tasks)?);
                }
            } else {
                wanted.extend(self.asked.iter().cloned());
            }
            if wanted.is_empty() && found.is_trunk {
                continue;
            }
            if wanted.is_empty() {
                let message = format!("job {} was not measured on anything", &found.job_key[..12]);
                return Err(Failure::bad_input(message).hint("say on what to measure: `--pool FOLDER`"));
            }
            for plan in wanted {
                datasets.insert(plan.dataset.clone());
                if is_due_in_training(found, &trained, &plan) {
                    continue;
                }
                earlier.same_pool(found, &trained, &plan)?;
                let Some(plan) = earlier.missing(found, plan) else { continue };
                let job = measuring_job(&self.inputs.runner, &trained, weights.clone(), plan);
                companions.push(companion(&job, found));
                jobs.push(job);
            }
            places.insert((found.job_key.clone(), found.samples_seen));
            if shown.last() != Some(&found.job_key) {
                shown.push(found.job_key.clone());
            }
        }
        let plan = self.plan_of(jobs);
        Ok(Measuring { plan, companions, shown, datasets: datasets.into_iter().collect(), places: Some(places) })
    }
}

/// The jobs that measure what is missing of the checkpoints of finished jobs.
pub(super) async fn plan(args: &Args, sweep: &str, placement: &Placement) -> Result<Measuring, Failure> {
    let store = target::store().await?;
    let sweep_id = find(&store, sweep).await?;
    let question = Question::of_command(args, sweep, sweep_id, placement).await?;
    let checkpoints = kept(args, sweep, store.companion_checkpoints(sweep_id, true, &[]).await?)?;
    question.measuring(&store, &checkpoints).await
}

/// Row of the sweep with this name.
pub(super) async fn find(store: &Store, sweep: &str) -> Result<i64, Failure> {
    if let Some(sweep_id) = store.sweep_find(sweep).await? {
        return Ok(sweep_id);
    }
    let names = store.study_names().await?;
    Err(analysis::unknown("sweep", sweep, &names, "`sweep launch SPEC` starts one"))
}

/// Slots of their own, where the spec has the measuring of checkpoints.
fn beside(spec: &mut Spec) {
    spec.limits.parallel = Some(spec.companions.parallel);
    if let Some(backend) = &spec.companions.backend {
        spec.backend = backend.clone();
    }
}

/// Whether a job that still runs is going to measure this itself.
fn is_due_in_training(found: &CheckpointOf, trained: &JobSpec, plan: &EvaluationPlan) -> bool {
    let due = |own: &EvaluationPlan| {
        let at = |at: &u64| at.cast_signed() == found.samples_seen;
        own.dataset == plan.dataset && (own.at_samples.iter().any(at) || at(&trained.samples_seen))
    };
    !found.done && trained.evaluations.iter().any(due)
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

/// The checkpoints that are asked for and still there.
fn kept(args: &Args, sweep: &str, all: Vec<CheckpointOf>) -> Result<Vec<CheckpointOf>, Failure> {
    let reported = all.len();
    let mut last: BTreeMap<String, i64> = BTreeMap::new();
    for found in &all {
        last.insert(found.job_key.clone(), found.samples_total.unwrap_or(found.samples_seen));
    }
    let asked: Vec<CheckpointOf> = all
        .into_iter()
        .filter(|found| {
            args.at == At::EveryCheckpoint || (last.get(&found.job_key) == Some(&found.samples_seen) && !found.is_trunk)
        })
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
    async fn read(store: &Store, checkpoints: &[CheckpointOf]) -> Result<Earlier, Failure> {
        let attempts: BTreeSet<i64> = checkpoints.iter().map(|found| found.attempt_id).collect();
        Ok(Earlier(store.companion_specs(&Vec::from_iter(attempts)).await?))
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
