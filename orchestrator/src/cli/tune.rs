//! Ladders of learning rates: runs one before the cells of its sweep, records what it has chosen, says so.

use super::launch::{Ended, Launch, execute};
use super::output::{Failure, say};
use crate::plan::{Group, Ladder, Plan, RungResult, choose};
use crate::report::number::significant;
use crate::schedule::driver::Outcome;
use crate::spec::Tune;
use crate::spec::quantity::grouped;
use crate::store::observation::MeasuredMetric;
use crate::store::{NewTuning, Store, Tuning};

/// What came of a ladder that a launch began with.
pub(super) enum Climbed {
    /// The plan of the cells with what it has chosen.
    Tuned(Box<Plan>),
    /// It has not ended.
    Left(Ended),
}

/// Runs the ladder of a plan whose choice is not known, records the choice, and plans the cells with it. Killed at any
/// time and called again it comes to the same: jobs that are done stay, and so does what was recorded.
pub(super) async fn climb(
    launch: &Launch<'_>,
    ladder: &Ladder,
    replan: impl Future<Output = Result<Plan, Failure>>,
) -> Result<Climbed, Failure> {
    let mut plan = Plan::clone(&ladder.plan);
    super::slurm::fit_to_cluster(&mut plan).await?;
    if is_another(&plan).await? {
        let failure = format!("sweep `{}` exists, and is not the ladder of `{}`", plan.name, launch.plan.name);
        return Err(
            Failure::bad_input(failure).hint("a ladder is a sweep called NAME-tune: give this spec another `name`")
        );
    }
    let ended = execute(&Launch { plan: &plan, heading: "the ladder: ", ..*launch }).await?;
    if ended.outcome != Outcome::Complete {
        return Ok(Climbed::Left(ended));
    }
    if ended.counts.cancelled > 0 {
        // A choice is meant to stay: not among what somebody has left of it.
        say(&format!("\nhint: `sweep retry {}` takes its cancelled jobs up again", plan.name));
        return Ok(Climbed::Left(ended));
    }
    record(&Store::connect().await?, ladder).await?;
    let plan = replan.await?;
    if plan.tune.as_ref().is_some_and(|ladder| ladder.is_chosen) {
        return Ok(Climbed::Tuned(Box::new(plan)));
    }
    Err(Failure::environment("the spec, its data or its runner changed while the ladder was running")
        .hint(format!("`{}` begins with what they are now", launch.again)))
}

/// Whether a sweep of the ladder's name is something else.
async fn is_another(ladder: &Plan) -> Result<bool, Failure> {
    let store = Store::connect().await?;
    let Some(sweep_id) = store.sweep_find(&ladder.name).await? else { return Ok(false) };
    let heading = ladder.spec_source.lines().next();
    Ok(store.sweep_spec(sweep_id).await?.is_none_or(|spec| spec.lines().next() != heading))
}

/// Chooses for each model what is not recorded yet, and records it before any cell is planned with it.
async fn record(store: &Store, ladder: &Ladder) -> Result<(), Failure> {
    let Ladder { groups, dataset, metric, .. } = ladder;
    let keys: Vec<String> = groups.iter().map(|group| group.key.clone()).collect();
    let known = store.tuning_factors(&keys).await?;
    let jobs: Vec<String> = groups.iter().flat_map(Group::job_keys).cloned().collect();
    let results: Vec<RungResult> = store.tuning_results(&jobs, dataset, metric).await?;
    let (mut chosen, mut unchosen) = (Vec::new(), Vec::new());
    for group in groups.iter().filter(|group| !known.contains_key(&group.key)) {
        match choose(group, &results, ladder.lower_is_better) {
            Ok(choice) => chosen.push((group, choice)),
            Err(why) => {
                let unique = grouped(group.data_size);
                unchosen.push(format!("`{}` with {unique} unique samples: {why}", group.model));
            }
        }
    }
    let rows: Vec<NewTuning> =
        chosen.iter().map(|(group, chosen)| NewTuning { group, dataset, metric, chosen, results: &results }).collect();
    store.tuning_record(&rows).await?;
    if unchosen.is_empty() {
        return Ok(());
    }
    let sweep = &ladder.plan.name;
    let measured = store.observation_metrics(sweep).await?;
    let names: Vec<String> = measured.iter().filter(|row| row.dataset == *dataset).map(MeasuredMetric::name).collect();
    let name = format!("{dataset}/{metric}");
    let failure = Failure::failed(format!("no learning rate can be chosen by `{name}`: {}", unchosen.join("; ")));
    Err(if names.is_empty() || names.contains(&name) {
        failure
            .hint(format!("`sweep status {sweep}` says why jobs failed, `sweep retry {sweep}` gives them another go"))
    } else {
        failure.hint(format!("measured is {}: name one as `tune.metric`, without its data set", names.join(", ")))
    })
}

/// Says what the cells of a plan are tuned by, and what speaks against it.
pub(super) fn say_choices(sweep: &str, rows: &[Tuning]) {
    for row in rows {
        say(&line(row));
        if let Some(warning) = warning(row) {
            say(&warning);
        }
    }
    if rows.iter().any(|row| row.rungs_failed > 0) {
        let ladder = Tune::ladder_name(sweep);
        say(&format!(
            "hint: a rung that failed for want of memory or a node: `sweep retry {ladder}`, and the next launch chooses anew"
        ));
    }
}

/// `tuned: cpu-w32-l2, 500 unique: lr 2e-3, 2 x the recipe's; val/loss@1024 is 3.21 +- 0.02 (...)`.
pub(super) fn line(row: &Tuning) -> String {
    let noise = match (row.noise, row.noise_of.as_deref()) {
        (Some(noise), Some("seeds")) => format!(" +- {} (over seeds)", significant(noise, 2)),
        (Some(noise), _) => format!(" +- {} (over test items, one seed)", significant(noise, 2)),
        (None, _) => " (noise not known: one seed)".to_owned(),
    };
    let failed = if row.rungs_failed > 0 { format!(", {} failed", row.rungs_failed) } else { String::new() };
    let tied = if row.tied > 1 { format!(", {} of them within noise of the best", row.tied) } else { String::new() };
    format!(
        "tuned: {} with {} unique samples: lr {:e}, {} x the recipe's, at {} samples seen; {}/{} is {}{noise}, of {} \
         rungs{failed}{tied}",
        row.model,
        grouped(row.data_size.unsigned_abs()),
        row.value,
        row.factor,
        grouped(row.samples_seen.unsigned_abs()),
        row.dataset,
        row.metric,
        significant(row.measured, 4),
        row.rungs
    )
}

/// Why the best learning rate may be another one.
pub(super) fn warning(row: &Tuning) -> Option<String> {
    let why = match row.open.as_deref()? {
        "lowest" => "is the lowest of its ladder: the best may lie below, so add smaller `lr_factors`",
        "highest" => "is the highest of its ladder: the best may lie above, so add larger `lr_factors`",
        "lower failed" => "has no finished rung below it: the best may lie between it and the one that failed",
        _ => "has no finished rung above it: the best may lie between it and the one that failed",
    };
    Some(format!("warning: the lr of `{}`, {:e}, {why}", row.model, row.value))
}
