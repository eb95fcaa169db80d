//! What may lie in a job's folder of checkpoints when an attempt starts: nothing half written, and nothing that a
//! worker wrote whose claim was superseded. Knows no runner's file names.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::supervise::file;
use super::{WorkerError, log};
use crate::store::Claim;

/// The folder that all attempts at a job share.
pub(super) fn folder_of(claim: &Claim) -> PathBuf {
    claim.folder.parent().unwrap_or(&claim.folder).join("checkpoints")
}

/// Leaves in the job's folder what may be resumed from: see [`remove_unreported`].
pub(super) fn clean(claim: &Claim, reported: &[String], example: &[String]) -> Result<(), WorkerError> {
    let folder = folder_of(claim);
    for path in remove_unreported(&folder, reported, example).map_err(file("clean the folder", &folder))? {
        log::line(&format!("removed {}: no valid claim has reported it", path.display()));
    }
    Ok(())
}

/// Removes temporary entries (their names begin with `.`), and those that are named like reported checkpoints, but
/// were not reported under a valid claim. Where none was reported, `example`, those of other jobs, says how they are
/// named. Whatever else a runner keeps there is its own affair.
fn remove_unreported(folder: &Path, reported: &[String], example: &[String]) -> io::Result<Vec<PathBuf>> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let known: BTreeSet<String> = names(reported).collect();
    let patterns: BTreeSet<String> = names(reported).chain(names(example)).map(|name| pattern(&name)).collect();
    let mut removed = Vec::new();
    for entry in entries {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let is_unreported = patterns.contains(&pattern(&name)) && !known.contains(&name);
        if !name.starts_with('.') && !is_unreported {
            continue;
        }
        let path = entry.path();
        if entry.file_type()?.is_dir() {
            fs::remove_dir_all(&path)?;
        } else {
            fs::remove_file(&path)?;
        }
        removed.push(path);
    }
    Ok(removed)
}

/// The last parts of paths.
fn names(paths: &[String]) -> impl Iterator<Item = String> {
    paths.iter().filter_map(|path| Some(Path::new(path).file_name()?.to_string_lossy().into_owned()))
}

/// A name with its numbers left out: `samples-128-fence-2` is `samples-#-fence-#`.
fn pattern(name: &str) -> String {
    let mut pattern = String::new();
    for c in name.chars() {
        if !c.is_ascii_digit() {
            pattern.push(c);
        } else if !pattern.ends_with('#') {
            pattern.push('#');
        }
    }
    pattern
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_reported_stays_and_nothing_temporary() {
        let folder = tempfile::tempdir().expect("a folder");
        let make = || {
            for name in ["64-1", "128-2", ".192-1.tmp"] {
                fs::create_dir_all(folder.path().join(name).join("inside")).expect("folders can be made");
            }
            for name in [".note.tmp", "cache", "vocabulary-8"] {
                fs::write(folder.path().join(name), "").expect("files can be written");
            }
        };
        let left = || {
            let mut names: Vec<String> = fs::read_dir(folder.path())
                .expect("it is there")
                .map(|entry| entry.expect("it is readable").file_name().into_string().expect("text"))
                .collect();
            names.sort();
            names
        };
        make();
        assert_eq!(remove_unreported(folder.path(), &[], &[]).expect("it works").len(), 2);
        assert_eq!(left(), ["128-2", "64-1", "cache", "vocabulary-8"]);
        make();
        let elsewhere = ["/another/base/checkpoints/64-1".to_owned()];
        assert_eq!(remove_unreported(folder.path(), &elsewhere, &[]).expect("it works").len(), 3);
        assert_eq!(left(), ["64-1", "cache", "vocabulary-8"]);
        // Another job's checkpoint of the same name says how they are named, not that this one was reported.
        make();
        assert_eq!(remove_unreported(folder.path(), &[], &elsewhere).expect("it works").len(), 4);
        assert_eq!(left(), ["cache", "vocabulary-8"]);
        assert!(remove_unreported(&folder.path().join("none"), &[], &[]).expect("no folder, nothing to do").is_empty());
    }
}
