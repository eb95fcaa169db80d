//! The spec of a sweep with what was advised in its `include`.

use std::fs;
use std::path::Path;

use super::super::output::{Failure, say};
use super::super::plan::rendered;
use super::{Row, Study, planned};
use crate::plan::{Group, Plan};
use crate::spec::quantity::grouped;
use crate::spec::{Added, IncludeError, Source, with_included};

/// Writes the spec with the picks that it does not have yet. `false`: there are none.
pub(super) async fn write(output: &Path, study: &Study, rows: &[Row]) -> Result<bool, Failure> {
    let added: Vec<Added> = rows
        .iter()
        .filter(|row| row.kind != "planned")
        .map(|row| Added {
            model: row.written.clone(),
            samples_seen: row.job.samples_seen.round() as u64,
            data_size: row.data_size.round() as u64,
            seed: row.seed.unwrap_or(0),
        })
        .collect();
    if added.is_empty() {
        return Ok(false);
    }
    let entries: Vec<String> = added.iter().map(|entry| format!("  - {entry}")).collect();
    let by_hand = format!("add these to it yourself:\ninclude:\n{}", entries.join("\n"));
    let text = with_included(&study.spec.source, &added).map_err(|error| match error {
        IncludeError::Spec(error) => Failure::bad_input(rendered(&error)),
        error => Failure::bad_input(error.to_string()).hint(by_hand.clone()),
    })?;
    let source = Source::new(&output.display().to_string(), &text);
    let spec = crate::spec::parse(&source).map_err(|error| Failure::bad_input(rendered(&error)))?;
    // Without what ladders chose: a model that is new to the ladder leaves all cells with the recipe's own rates until
    // it has been run. What was chosen for the others then holds again, as their ladders stay what they are.
    let (old, new) = (planned(&study.spec, None).await?, planned(&spec, None).await?);
    if let Some(moved) = ladders(&old).find(|group| !ladders(&new).any(|other| other.key == group.key)) {
        let (model, unique) = (&moved.model, grouped(moved.data_size));
        let failure = format!(
            "the jobs added have fewer samples seen than the ladder (`tune`) of `{model}` with {unique} unique samples: it \
             would be run anew there, and what it then chooses might plan other jobs than those measured"
        );
        let at = grouped(moved.samples_seen);
        return Err(
            Failure::bad_input(failure).hint(format!("ask for at least {at} by --candidates-samples, or {by_hand}"))
        );
    }
    let has = |key: &String| new.jobs.iter().any(|job| job.job_key == *key);
    if new.jobs.len() != old.jobs.len() + added.len() || !old.jobs.iter().all(|job| has(&job.job_key)) {
        let failure = Failure::bad_input(format!("{} with the jobs added plans other jobs", study.path.display()));
        return Err(failure.hint(by_hand));
    }
    let failed =
        |error: std::io::Error| Failure::environment(format!("can't write {}", output.display())).because(&error);
    let mut temporary = output.as_os_str().to_owned();
    temporary.push(format!(".{}.tmp", std::process::id()));
    fs::write(&temporary, text).and_then(|()| fs::rename(&temporary, output)).map_err(|error| {
        let _ = fs::remove_file(&temporary);
        failed(error)
    })?;
    for group in ladders(&new).filter(|group| !ladders(&old).any(|other| other.key == group.key)) {
        let (model, unique) = (&group.model, grouped(group.data_size));
        say(&format!(
            "`{model}` with {unique} unique samples is new to the ladder (`tune`): a launch runs {} jobs for it first",
            group.job_keys().count()
        ));
    }
    Ok(true)
}

fn ladders(plan: &Plan) -> impl Iterator<Item = &Group> {
    plan.tune.iter().flat_map(|ladder| &ladder.groups)
}
