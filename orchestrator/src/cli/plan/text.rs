//! A plan for people.

use std::collections::{BTreeMap, BTreeSet};

use comfy_table::{CellAlignment, Table, presets};

use super::super::slurm;
use super::{State, epochs, slurm_request, state_of, time, totals, trunks};
use crate::plan::{BackendChoice, Plan, PlannedJob};
use crate::spec::quantity::grouped;

/// Changed shards that are named.
const CHANGED_MAX: usize = 8;
/// Jobs that a table shows before it skips the middle.
const SHOWN_MAX: usize = 60;
/// Columns of what rules give.
const RULED: [(&str, &str); 2] = [("global_batch", "batch"), ("weight_decay", "decay")];
/// Last jobs of a table that skips the middle.
const SHOWN_LAST: usize = 10;

pub(super) fn text(
    plan: &Plan,
    states: Option<&BTreeMap<String, State>>,
    request: Option<&slurm::Request>,
    all: bool,
) -> String {
    let mut lines = vec![format!("{}{}{}", plan.name, if plan.question.is_empty() { "" } else { ": " }, plan.question)];
    if let Some(job) = plan.jobs.first() {
        let runner = &job.spec.runner;
        lines.push(format!("runner {} {} ({})", runner.name, runner.version, plan.runner_path.display()));
    }
    for pool in &plan.pools {
        let source = &pool.source;
        let pairs = grouped(pool.samples);
        lines.push(format!(
            "pool   {} ({pairs} pairs, {}, digest {})",
            source.pool,
            source.path.display(),
            &source.digest[..12]
        ));
        lines.extend(pool.skipped.iter().map(|(kind, &count)| format!("       not used: {} ({kind})", grouped(count))));
        let changed = pool.changed.iter().take(CHANGED_MAX).map(String::as_str).collect::<Vec<_>>().join(", ");
        let more = pool.changed.len().saturating_sub(CHANGED_MAX);
        let more = if more > 0 { format!(" and {more} more") } else { String::new() };
        if !changed.is_empty() {
            lines.push(format!("       changed since it was read before: {changed}{more}; jobs on it are new jobs"));
        }
    }
    for (field, rules) in &plan.rules {
        lines.extend(rules.iter().map(|rule| format!("rule   {field} = {rule}")));
    }
    lines.extend(super::ladder::lines(plan, states));
    lines.extend(super::training::lines(plan));
    lines.extend(super::checkpoints::checkpoints(plan));
    lines.push(String::new());
    let fields = fields(plan);
    if let Some(ladder) = plan.tune.as_ref().filter(|ladder| !ladder.is_chosen) {
        lines.push(format!("{}:", ladder.plan.name));
        lines.extend(table(&ladder.plan, &fields, states, all));
        lines.extend([String::new(), format!("{}:", plan.name)]);
    }
    lines.extend(table(plan, &fields, states, all));
    lines.push(String::new());

    let totals = totals(plan);
    lines.push(format!(
        "{} job{}, {} samples seen; C = {:.3e} GMACs x samples, {:.3e} training FLOPs, {:.3e} as 6ND",
        grouped(totals.jobs as u64),
        if totals.jobs == 1 { "" } else { "s" },
        grouped(totals.samples_seen),
        totals.gmacs_samples,
        totals.train_flops,
        totals.six_nd
    ));
    if let (Some(trunks), Some(alone)) = (totals.trunks, totals.train_flops_alone) {
        lines.push(format!(
            "trunks: {} of the jobs are pieces of trunks that the others share; each trained alone, {} cell{} would take \
             {alone:.3e} training FLOPs: {:.0} % are saved",
            grouped(trunks as u64),
            grouped((totals.jobs - trunks) as u64),
            if totals.jobs - trunks == 1 { "" } else { "s" },
            100.0 * (1.0 - totals.train_flops / alone)
        ));
    }
    let left = plan.jobs.iter().filter(|job| states.is_none_or(|states| state_of(states, job) != State::Done));
    lines.push(match left.map(|job| job.secs).sum::<Option<f64>>() {
        Some(secs) => format!("time: {} left on one slot, evaluations not counted", time(secs)),
        None => "time: not known before a first run on this machine has been measured".to_owned(),
    });
    if let (BackendChoice::Slurm(options), Some(request)) = (&plan.backend, request) {
        lines.extend(request.lines(&slurm_request(options)));
    }
    if let Some(budget) = plan.limits.compute_budget_flops {
        let share = 100.0 * totals.train_flops / budget;
        lines.push(format!("budget: {share:.1} % of {budget:.3e} training FLOPs"));
    }
    if let Some(states) = states {
        let mut counts = BTreeMap::new();
        for job in &plan.jobs {
            *counts.entry(state_of(states, job)).or_insert(0_u64) += 1;
        }
        let words: Vec<String> =
            counts.into_iter().map(|(state, count)| format!("{} {}", grouped(count), word(state))).collect();
        lines.push(format!("in the database: {}", words.join(", ")));
    }
    lines.join("\n")
}

fn table(
    plan: &Plan,
    fields: &BTreeSet<&'static str>,
    states: Option<&BTreeMap<String, State>>,
    all: bool,
) -> Vec<String> {
    let many_seeds = plan.jobs.iter().any(|job| job.spec.seed != plan.jobs[0].spec.seed);
    let timed = plan.jobs.iter().any(|job| job.secs.is_some());
    let trunks = trunks(plan);
    let mut header = vec!["job", "model", "N"];
    header.extend((!trunks.is_empty()).then_some("from"));
    header.extend(["seen", "data", "unique", "epochs"]);
    header.extend(many_seeds.then_some("seed"));
    header.extend(fields.iter().map(|field| RULED.iter().find(|(of, _)| of == field).map_or(*field, |(_, of)| of)));
    header.extend(["steps", "GMACs x seen", "train FLOPs", "memory"]);
    header.extend(timed.then_some("time"));
    header.extend(states.is_some().then_some("state"));

    let skip =
        if all || plan.jobs.len() <= SHOWN_MAX { 0..0 } else { SHOWN_MAX - SHOWN_LAST..plan.jobs.len() - SHOWN_LAST };
    let mut table = Table::new();
    table.load_preset(presets::NOTHING).set_header(header);
    for (_, job) in plan.jobs.iter().enumerate().filter(|(index, _)| !skip.contains(index)) {
        let is_trunk = trunks.contains(job.job_key.as_str());
        let mut row = vec![
            job.job_key[..8].to_owned(),
            format!("{}{}", job.spec.model.name, if is_trunk { " (trunk)" } else { "" }),
            short(job.size.parameters() as f64),
        ];
        row.extend((!trunks.is_empty()).then(|| grouped(job.spec.samples_seen - job.own_samples())));
        row.extend([
            grouped(job.spec.samples_seen),
            grouped(job.spec.data_size),
            grouped(job.unique_samples),
            format!("{:.1}", epochs(job)),
        ]);
        row.extend(many_seeds.then(|| job.spec.seed.to_string()));
        row.extend(fields.iter().map(|field| of_recipe(job, field)));
        row.extend([
            grouped(job.spec.steps()),
            format!("{:.3e}", job.compute.gmacs_samples),
            format!("{:.3e}", job.compute.train_flops),
            format!("{}B", short(job.memory_bytes as f64)),
        ]);
        row.extend(timed.then(|| job.secs.map_or_else(|| "?".to_owned(), time)));
        row.extend(states.map(|states| word(state_of(states, job)).to_owned()));
        table.add_row(row);
    }
    for column in table.column_iter_mut().skip(2) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    let mut lines: Vec<String> = table.lines().map(|line| line.trim_end().to_owned()).collect();
    if !skip.is_empty() {
        let note = format!(" ... {} more; `--all` or `--json` shows every job", grouped(skip.len() as u64));
        lines.insert(1 + skip.start, note);
    }
    lines
}

/// Fields of the recipe that are given by rules or by a ladder.
fn fields(plan: &Plan) -> BTreeSet<&'static str> {
    plan.rules.keys().copied().chain(plan.tune.as_ref().map(|_| "lr")).collect()
}

/// What a job has there.
fn of_recipe(job: &PlannedJob, field: &str) -> String {
    let recipe = &job.spec.recipe;
    match field {
        "global_batch" => grouped(recipe.global_batch),
        "lr" => number(recipe.lr),
        "weight_decay" => number(recipe.weight_decay),
        "warmup" => grouped(recipe.warmup_samples),
        other => unreachable!("no rule gives {other}"),
    }
}

/// All digits of a number that a rule gives, which are few.
fn number(value: f64) -> String {
    if (1e-2..1e4).contains(&value) || value == 0.0 { value.to_string() } else { format!("{value:e}") }
}

fn word(state: State) -> &'static str {
    match state {
        State::New => "new",
        State::Done => "done (reused)",
        State::Running => "running",
        State::Failed => "failed",
        State::Cancelled => "cancelled",
    }
}

/// 1234567 as `1.23M`.
fn short(value: f64) -> String {
    for (unit, letter) in [(1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")] {
        if value >= unit {
            let value = value / unit;
            return if value < 10.0 { format!("{value:.2}{letter}") } else { format!("{value:.1}{letter}") };
        }
    }
    format!("{value:.0}")
}
