//! `sweep extend`: longer cells of a spec, which go on from what there is where the schedule allows it.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use protocol::Schedule;

use super::output::{Exit, Failure, say};
use super::plan::{self, rendered, unplannable};
use crate::files::write_whole;
use crate::plan::{Placement, Plan, read_spec};
use crate::spec::{self, EditError, Spec, whole_batches};

/// Options of `sweep extend`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
With `schedule: constant-cooldown` a longer cell trains only what its trunk does not have yet, and its cooldown:

  sweep extend mine.yaml --samples-seen 1M
  sweep launch mine.yaml")]
pub(super) struct Args {
    /// Spec to extend; its comments and layout stay.
    #[arg(value_name = "SPEC")]
    spec: PathBuf,
    /// Samples seen to add to the grid's axis, as a spec writes them (`1M`); again for several.
    #[arg(long, value_name = "SAMPLES", required = true, value_delimiter = ',')]
    samples_seen: Vec<String>,
    /// Say what it would come to, and leave the spec as it is.
    #[arg(long)]
    dry_run: bool,
    /// Print the plan as JSON, schema `sweep.plan/1`.
    #[arg(long)]
    json: bool,
}

pub(super) async fn run(args: Args) -> Result<Exit, Failure> {
    let shown = args.spec.display();
    let before = read_spec(&args.spec).map_err(|error| unplannable(&error))?;
    let after = spec::with_samples_seen(&before, &args.samples_seen).map_err(|error| match &error {
        EditError::Spec(error) => Failure::bad_input(rendered(error)),
        EditError::NoAxis => Failure::bad_input(error.to_string()).hint("add the cells below `include`"),
        EditError::Layout { .. } => Failure::bad_input(error.to_string())
            .hint(format!("write it as `samples_seen: [8k, 32k]`, or add {} there", args.samples_seen.join(", "))),
    })?;
    if after == before {
        say(&format!("{shown} has these samples seen already"));
        return Ok(Exit::Done);
    }
    let placement = Placement { elsewhere: true, ..Placement::default() };
    let plan = plan::show(after.clone(), &placement, args.json, false).await?;
    for line in from_where(&before, &after, &plan) {
        say(&line);
    }
    if args.dry_run {
        say(&format!("\n{shown} is as it was: `--dry-run`"));
        return Ok(Exit::Done);
    }
    // Through links, to the file itself.
    let path = fs::canonicalize(&args.spec).unwrap_or_else(|_| args.spec.clone());
    let failed = |error: std::io::Error| Failure::environment(format!("can't write {shown}")).because(&error);
    let mode = fs::metadata(&path).map_err(failed)?.permissions().mode() & 0o7777;
    write_whole(&path, after.source.text(), mode, true).map_err(failed)?;
    say(&format!("\n{shown} has them now\nnext: `sweep launch {shown}`"));
    Ok(Exit::Done)
}

/// Where the new cells begin, and why not further on.
fn from_where(before: &Spec, after: &Spec, plan: &Plan) -> Vec<String> {
    let is_new = |samples: u64| !before.grid.samples_seen.contains(&samples);
    let new: Vec<_> = plan
        .jobs
        .iter()
        .filter(|job| {
            let of = |samples: &u64| whole_batches(*samples, job.spec.recipe.global_batch) == job.spec.samples_seen;
            after.grid.samples_seen.iter().filter(|samples| is_new(**samples)).any(of)
        })
        .collect();
    let going_on = new.iter().filter(|job| job.parent.is_some()).count();
    let mut lines = Vec::new();
    if going_on > 0 {
        lines.push(format!("\n{going_on} of the new cells go on from a trunk"));
    }
    let afresh: Vec<_> = new.iter().filter(|job| job.parent.is_none()).collect();
    if let Some(job) = afresh.first() {
        let why = match job.spec.recipe.schedule {
            Schedule::Cosine => {
                "`schedule: cosine` has another learning rate at every step of a longer training; \
                 with `schedule: constant-cooldown` they would go on from a trunk"
            }
            Schedule::Constant => {
                "`schedule: constant` plans no trunk; with `schedule: constant-cooldown` they would go on from one"
            }
            Schedule::ConstantCooldown => "the runner can't go on from another job's checkpoint",
        };
        lines.push(format!("\n{} of the new cells begin at the beginning: {why}", afresh.len()));
    }
    lines
}
