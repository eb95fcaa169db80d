//! Attempts that lie in a job's folder and that the database does not know, since it is new or was restored from an
//! older copy. Their events say what was trained; they are taken over as attempts of the job before it goes on from
//! their checkpoints. What their events do not account for is not resumed from: a result has its whole curve.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use protocol::{Event, Job};

use super::ship::{BATCH_EVENTS, RetryingStore};
use super::spool::{self, Tail};
use super::supervise::{file, ship_predecessors};
use super::{WorkerError, log, runner, ticket};
use crate::store::{AdoptedAttempt, Claim, Ending, Store};

/// What earlier attempts have left to a claim.
#[derive(Debug)]
pub(super) struct Inheritance {
    /// One of them had finished.
    pub(super) finished: Option<Ending>,
    /// Checkpoints that the database does not know are kept beside the folder, since another database may. Else they
    /// are of a worker whose claim was superseded, and removed.
    pub(super) sets_aside: bool,
}

/// An attempt in the job's folder.
#[derive(Debug)]
struct Found {
    token: String,
    folder: PathBuf,
    fence: i64,
}

/// What the events of an attempt say of its place in the job.
#[derive(Debug, Default, PartialEq)]
struct Course {
    /// Where it began; `None`: it never did.
    resumed_from: Option<u64>,
    checkpoints: BTreeSet<u64>,
}

/// Stores what earlier attempts have left, those that the database does not know too; the claim's fence may grow by
/// that. `None`: the claim is superseded.
pub(super) async fn take_over(
    database: &mut RetryingStore,
    claim: &mut Claim,
) -> Result<Option<Inheritance>, WorkerError> {
    let mut known = Vec::new();
    if claim.fence > 1 {
        let finished = ship_predecessors(database, claim).await?;
        if finished.is_some() {
            return Ok(Some(Inheritance { finished, sets_aside: false }));
        }
        known = database.run(None, async |store| store.attempt_predecessors(claim).await).await?;
    }
    let job_folder = claim.folder.parent().unwrap_or(&claim.folder);
    let looking = file("look for earlier attempts in", job_folder);
    let all = attempts_in(job_folder, claim).map_err(&looking)?;
    let is_known = |found: &Found| known.iter().any(|known| known.token == found.token);
    let (ours, mut found): (Vec<Found>, Vec<Found>) = all.into_iter().partition(is_known);
    // Where no attempt of this database had a runner, or others did, checkpoints may be another database's.
    let mut inheritance = Inheritance { finished: None, sets_aside: ours.is_empty() || !found.is_empty() };
    let fence_known = known.iter().map(|known| known.fence).max().unwrap_or(0);
    let given = ticket::highest_fence(&claim.folder).map_err(&looking)?;
    let fence_max = found.iter().map(|found| found.fence).chain(given).max().unwrap_or(0);
    // Those before what is known were passed over by an earlier claim.
    found.retain(|found| found.fence > fence_known);
    if found.is_empty() && fence_max < claim.fence {
        return Ok(Some(inheritance));
    }
    let adopted = accounted_for(database, claim, found).await?;
    let call = async |store: &Store| store.attempt_adopt(claim, &adopted, fence_max + 1).await;
    let Some(fence) = database.run(None, call).await? else { return Ok(None) };
    if fence != claim.fence {
        log::line(&format!("the fence of the claim is {fence} now: the job's folder knows of lower ones"));
        claim.fence = fence;
    }
    if !adopted.is_empty() {
        let tokens: Vec<&str> = adopted.iter().map(|adopted| adopted.token.as_str()).collect();
        log::line(&format!(
            "took over {} attempts that the database did not know: {}",
            tokens.len(),
            tokens.join(", ")
        ));
        inheritance.finished = ship_predecessors(database, claim).await?;
    }
    Ok(Some(inheritance))
}

/// Checkpoints of the job that may be resumed from, and one of another job: how this runner names them is known from
/// those too.
pub(super) async fn known_checkpoints(
    database: &mut RetryingStore,
    claim: &Claim,
    inheritance: &Inheritance,
) -> Result<(Vec<String>, Vec<String>), WorkerError> {
    let (job_id, current_only) = (claim.job_id, inheritance.sets_aside);
    let reported = database.run(None, async |store| store.checkpoint_paths(job_id, current_only).await).await?;
    let example = database.run(None, async |store| store.checkpoint_example(job_id).await).await?;
    Ok((reported, example))
}

/// The attempts of this job in its folder, without the claim's own: those that had a runner.
fn attempts_in(job_folder: &Path, claim: &Claim) -> io::Result<Vec<Found>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(job_folder)? {
        let folder = entry?.path();
        if folder.file_name() == claim.folder.file_name() || !folder.is_dir() {
            continue;
        }
        // Other jobs may share the folder's name, which is the beginning of their keys; a file that was cut off by a
        // power failure tells nothing.
        let job: Option<Job> = match fs::read(folder.join(runner::JOB_FILE)) {
            Ok(bytes) => serde_json::from_slice(&bytes).ok(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(error),
        };
        let Some(job) = job.filter(|job| job.job_key == claim.job_key) else { continue };
        let Some(token) = folder.file_name().map(|name| name.to_string_lossy().into_owned()) else { continue };
        found.push(Found { token, folder, fence: job.fence });
    }
    found.sort_by(|a, b| (a.fence, &a.token).cmp(&(b.fence, &b.token)));
    Ok(found)
}

/// Those of the attempts whose events begin where the job begins or where a known checkpoint is.
async fn accounted_for(
    database: &mut RetryingStore,
    claim: &Claim,
    found: Vec<Found>,
) -> Result<Vec<AdoptedAttempt>, WorkerError> {
    let mut resumable: BTreeSet<u64> = claim.parent.iter().map(|parent| parent.samples_seen).collect();
    if claim.fence > 1 && !found.is_empty() {
        let call = async |store: &Store| store.checkpoint_positions(claim.job_id).await;
        resumable.extend(database.run(None, call).await?.into_iter().map(i64::cast_unsigned));
    }
    let mut adopted = Vec::new();
    for found in found {
        let course =
            course_of(&found.folder, claim.spec.samples_seen).map_err(file("read the events in", &found.folder))?;
        match follows(&course, &mut resumable) {
            Ok(()) => adopted.push(AdoptedAttempt {
                begun_secs: modified_secs(&found.folder.join(runner::JOB_FILE)),
                ended_secs: modified_secs(&found.folder.join(spool::FILE)),
                token: found.token,
                folder: found.folder,
                fence: found.fence,
            }),
            Err(why) => log::line(&format!("passed over the earlier attempt {}: {why}", found.token)),
        }
    }
    Ok(adopted)
}

/// Whether the course of an attempt goes on from what came before it, whose checkpoints are `resumable`; then its own
/// are too, and those that it did again are not.
fn follows(course: &Course, resumable: &mut BTreeSet<u64>) -> Result<(), String> {
    let Some(from) = course.resumed_from else { return Err("it has said nothing".to_owned()) };
    if from > 0 && !resumable.contains(&from) {
        return Err(format!("it went on from a checkpoint at {from} samples of which nothing else is known"));
    }
    resumable.retain(|position| *position <= from);
    resumable.extend(&course.checkpoints);
    Ok(())
}

fn course_of(folder: &Path, samples_total: u64) -> io::Result<Course> {
    let mut course = Course::default();
    let mut tail = Tail::new(folder, samples_total);
    loop {
        let before = tail.lines();
        for (_, event) in tail.read(BATCH_EVENTS)? {
            match event {
                Event::Started { resumed_from_samples, .. } => {
                    course.resumed_from.get_or_insert(resumed_from_samples);
                }
                Event::Checkpoint { samples_seen, .. } => {
                    course.checkpoints.insert(samples_seen);
                }
                _ => {}
            }
        }
        if tail.unread().is_some() {
            // The curve has a gap there, so nothing behind it is to be gone on from.
            course.checkpoints.clear();
            return Ok(course);
        }
        if tail.lines() == before {
            return Ok(course);
        }
    }
}

/// When a file was last written, seconds since 1970.
fn modified_secs(path: &Path) -> Option<f64> {
    let modified: SystemTime = fs::metadata(path).ok()?.modified().ok()?;
    modified.duration_since(UNIX_EPOCH).ok().map(|since| since.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chain_of_attempts_has_no_gap() {
        let course = |from, checkpoints: &[u64]| Course {
            resumed_from: from,
            checkpoints: checkpoints.iter().copied().collect(),
        };
        let mut resumable = BTreeSet::new();
        assert!(follows(&course(None, &[]), &mut resumable).is_err());
        assert!(follows(&course(Some(320), &[640]), &mut resumable).is_err(), "its beginning is gone");
        assert_eq!(follows(&course(Some(0), &[320, 640, 960]), &mut resumable), Ok(()));
        assert_eq!(follows(&course(Some(640), &[800]), &mut resumable), Ok(()));
        // What was at 960 was done again from 640 on.
        assert!(follows(&course(Some(960), &[]), &mut resumable).is_err());
        assert_eq!(resumable.into_iter().collect::<Vec<_>>(), [320, 640, 800]);
    }
}
