//! `sweep submit-script`: a batch script of one job, to be submitted by hand.
//!
//! The attempt is recorded before, as a launcher does, and the script is an array of one task in its own folder, as a
//! launcher's: so a later launcher finds it in the queue, or does what it does about a submission that was lost.

use std::path::PathBuf;

use super::output::{self, Exit, Failure, say};
use super::{plan, site};
use crate::backend::Backend;
use crate::plan::{BackendChoice, PlannedJob};
use crate::schedule::driver::Sweep;
use crate::store::{self, IntentRequest, Place, SlotOffer, Store};

/// Options of `sweep submit-script`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The spec.
    spec: PathBuf,
    /// First digits of the job's key, as `sweep plan` shows it.
    job: String,
    /// Profile of the cluster, from `~/.config/sweep/sites.yaml`.
    #[arg(long, value_name = "NAME")]
    site: Option<String>,
}

pub(super) async fn run(args: Args) -> Result<Exit, Failure> {
    let placement = site::placement(Some(plan::BackendName::Slurm), args.site.as_deref())?;
    let plan = plan::load_plan(&args.spec, &placement).await?;
    if plan.tune.as_ref().is_some_and(|ladder| !ladder.is_chosen) {
        return Err(Failure::bad_input("the spec says `tune`, and no learning rate has been chosen yet").hint(
            format!(
                "`sweep launch {}` runs the ladder first; what it chooses decides what the cells are",
                args.spec.display()
            ),
        ));
    }
    let BackendChoice::Slurm(options) = &plan.backend else { unreachable!("the backend is Slurm by the placement") };
    if options.spool_only {
        return Err(Failure::bad_input(
            "with `ship: spool` a job's claim is given by its launcher, and a script by hand has none",
        )
        .hint("`sweep launch --detach` submits and leaves; or leave `ship` out where nodes reach the database"));
    }
    let job = named(&plan.jobs, &args.job)?;
    let home = store::home();
    let slurm = super::drive::slurm_backend(options, &home).await?;

    let store = Store::connect().await?;
    let mut stored = store.sweep_begin(&plan).await?;
    store.sweep_store_rest(&plan, &mut stored).await?;
    let groups = plan.tune.iter().flat_map(|ladder| &ladder.groups);
    store.tuning_use(stored.sweep_id, &groups.map(|group| group.key.clone()).collect::<Vec<_>>()).await?;
    let detail = super::target::job(&store, &job.job_key).await?;
    let token = format!("{:032x}", rand::random::<u128>());
    let folder = home.join("jobs").join(&job.job_key[..12]).join(&token);
    let place = Place { backend: slurm.name(), host: slurm.host().to_owned(), machine: slurm.machine().to_owned() };
    // One more than are taken: a launcher that fills its slots is no reason to refuse a job of another's hand.
    let slots = usize::try_from(store.slots_taken(&place).await?).unwrap_or(0) + 1;
    let resources = slurm.slot_resources();
    let offer = SlotOffer { place: &place, slots, device: &resources.device, threads: resources.threads };
    let intent = IntentRequest { job_id: detail.job_id, token: token.clone(), folder: folder.clone() };
    let recorded = store.attempt_intend(&offer, &[intent]).await?;
    let Some((_, slot)) = recorded.first() else {
        let key = &job.job_key[..12];
        let failure = match detail.state.as_str() {
            "pending" | "running" => {
                Failure::bad_input(format!("job {key} has an attempt already, recorded, waiting or running"))
            }
            state => Failure::bad_input(format!("job {key} is {state}")),
        };
        return Err(failure.hint(format!("`sweep explain {key}` says what becomes of it")));
    };
    // One job: whoever submits by hand has said which.
    let sweep = Sweep {
        sweep_id: stored.sweep_id,
        runner: plan.runner_path.clone(),
        base_dir: plan.base_dir.clone(),
        home,
        time_limit_secs: plan.limits.time_limit_secs,
        work_secs: 0,
        serve: plan.runner_serves,
        spool_only: false,
        detach: false,
    };
    let request = sweep.request(token, usize::try_from(*slot).unwrap_or(0), folder);
    output::data(slurm.script_by_hand(&request)?.trim_end());
    say(&format!("\nnext: edit it if need be, submit it with `sbatch`, then `sweep status {}`", plan.name));
    Ok(Exit::Done)
}

/// The job of the plan whose key starts so.
fn named<'a>(jobs: &'a [PlannedJob], prefix: &str) -> Result<&'a PlannedJob, Failure> {
    let prefix = prefix.to_ascii_lowercase();
    let mut found = jobs.iter().filter(|job| prefix.len() >= 4 && job.job_key.starts_with(&prefix));
    match (found.next(), found.next()) {
        (Some(job), None) => Ok(job),
        (None, _) => Err(Failure::bad_input(format!("the spec has no job `{prefix}`"))
            .hint("a job is named by 4 or more first digits of its key, as `sweep plan SPEC` shows them")),
        _ => Err(Failure::bad_input(format!("`{prefix}` is the start of several jobs")).hint("write more digits")),
    }
}
