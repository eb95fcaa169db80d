//! Checkpoints: `<checkpoint_dir>/<samples>-<fence>/` with `state.json` and a manifest that hashes it, renamed into
//! place.

use std::fs;
use std::io::Write;
use std::path::Path;

use anyhow::{Context, Result};
use protocol::{Event, Job};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// All that training carries from step to step.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct State {
    /// Optimiser steps taken.
    pub(crate) step: u64,
    /// Sum of losses since the last report.
    pub(crate) loss_sum: f64,
    /// Steps since the last report.
    pub(crate) loss_count: u64,
}

#[derive(Debug, Serialize, Deserialize)]
struct Manifest {
    step: u64,
    samples_seen: u64,
    state_sha256: String,
    /// What there is to copy; manifests of before have none.
    #[serde(default)]
    files: Vec<FileEntry>,
}

#[derive(Debug, Serialize, Deserialize)]
struct FileEntry {
    name: String,
    sha256: String,
}

/// Writes a checkpoint; a reader sees all of it or nothing.
pub(crate) fn write(job: &Job, state: State) -> Result<Event> {
    let samples_seen = state.step * job.spec.recipe.global_batch;
    let path = job.checkpoint_dir.join(format!("{samples_seen:012}-{}", job.fence));
    let temporary = job.checkpoint_dir.join(format!(".{samples_seen:012}-{}", job.fence));
    let state = serde_json::to_vec(&state)?;
    let files = vec![FileEntry { name: "state.json".to_owned(), sha256: hex(&state) }];
    let manifest = Manifest { step: step_of(&state)?, samples_seen, state_sha256: hex(&state), files };
    let manifest = serde_json::to_vec(&manifest)?;
    let doing = || format!("can't write the checkpoint {}", path.display());
    fs::create_dir_all(&temporary).with_context(doing)?;
    for (name, bytes) in [("state.json", &state), ("manifest.json", &manifest)] {
        let mut file = fs::File::create(temporary.join(name)).with_context(doing)?;
        file.write_all(bytes).and_then(|()| file.sync_all()).with_context(doing)?;
    }
    if path.exists() {
        fs::remove_dir_all(&path).with_context(doing)?;
    }
    fs::rename(&temporary, &path).with_context(doing)?;
    Ok(Event::Checkpoint { step: step_of(&state)?, samples_seen, path, sha256: hex(&manifest) })
}

/// The newest checkpoint that verifies and that no later claim wrote.
pub(crate) fn newest(folder: &Path, fence: i64) -> Option<State> {
    let mut found: Vec<State> = fs::read_dir(folder)
        .ok()?
        .filter_map(|entry| {
            let entry = entry.ok()?;
            let name = entry.file_name().into_string().ok()?;
            let (_, written_by) = name.split_once('-')?;
            let own = !name.starts_with('.') && written_by.parse::<i64>().is_ok_and(|by| by <= fence);
            if own { read(&entry.path()) } else { None }
        })
        .collect();
    found.sort_by_key(|state| state.step);
    found.pop()
}

/// Where the job's parent left it, if that is there and what it should be.
pub(crate) fn of_parent(job: &Job) -> Option<State> {
    let parent = job.parent.as_ref()?;
    let path = job.base_dir.join(&parent.path);
    let manifest = fs::read(path.join("manifest.json")).ok()?;
    let state = if hex(&manifest) == parent.sha256 { read(&path)? } else { return None };
    // Losses since the parent's last report are its own.
    Some(State { loss_sum: 0.0, loss_count: 0, ..state })
}

fn read(path: &Path) -> Option<State> {
    let manifest: Manifest = serde_json::from_slice(&fs::read(path.join("manifest.json")).ok()?).ok()?;
    let state = fs::read(path.join("state.json")).ok()?;
    if hex(&state) == manifest.state_sha256 { serde_json::from_slice(&state).ok() } else { None }
}

fn step_of(state: &[u8]) -> Result<u64> {
    Ok(serde_json::from_slice::<State>(state)?.step)
}

fn hex(bytes: &[u8]) -> String {
    format!("{:x}", Sha256::digest(bytes))
}
