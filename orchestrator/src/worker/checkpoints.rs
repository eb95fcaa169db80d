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

/// Whether there is anything in it.
pub(super) fn any(claim: &Claim) -> Result<bool, WorkerError> {
    let folder = folder_of(claim);
    entries(&folder).map(|entries| !entries.is_empty()).map_err(file("look into the folder", &folder))
}

/// Leaves in the job's folder what may be resumed from: see [`set_aside`] and [`remove_unreported`].
pub(super) fn clean(
    claim: &Claim,
    sets_aside: bool,
    reported: &[String],
    example: &[String],
) -> Result<(), WorkerError> {
    let folder = folder_of(claim);
    let failed = file("clean the folder", &folder);
    if sets_aside {
        for (from, to) in set_aside(&folder, reported, example).map_err(&failed)? {
            log::line(&format!(
                "moved {} to {}: the database does not know of it, so its curve would have a gap; delete it if nothing else \
                 needs it",
                from.display(),
                to.display()
            ));
        }
    }
    for path in remove_unreported(&folder, reported, example).map_err(&failed)? {
        log::line(&format!("removed {}: no valid claim has reported it", path.display()));
    }
    Ok(())
}

/// Moves what the database does not account for into a folder beside: all there is where it knows no checkpoint of the
/// job, else what is named like one that it knows.
fn set_aside(folder: &Path, reported: &[String], example: &[String]) -> io::Result<Vec<(PathBuf, PathBuf)>> {
    let there = entries(folder)?;
    let is_temporary = |path: &PathBuf| path.file_name().is_none_or(|name| name.to_string_lossy().starts_with('.'));
    if there.iter().all(is_temporary) {
        return Ok(Vec::new());
    }
    let beside = (1..u32::MAX)
        .map(|nth| folder.with_file_name(format!("checkpoints-set-aside-{nth}")))
        .find(|path| !path.exists())
        .expect("there are more numbers than folders");
    if names(reported).next().is_none() {
        fs::rename(folder, &beside)?;
        fs::create_dir(folder)?;
        return Ok(vec![(folder.to_owned(), beside)]);
    }
    let mut moved = Vec::new();
    for path in unreported(there, reported, example).into_iter().filter(|path| !is_temporary(path)) {
        fs::create_dir_all(&beside)?;
        let to = beside.join(path.file_name().unwrap_or_default());
        fs::rename(&path, &to)?;
        moved.push((path, to));
    }
    Ok(moved)
}

/// What is in a folder; nothing if there is none.
fn entries(folder: &Path) -> io::Result<Vec<PathBuf>> {
    match fs::read_dir(folder) {
        Ok(entries) => entries.map(|entry| Ok(entry?.path())).collect(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

/// Removes temporary entries (their names begin with `.`), and those that are named like reported checkpoints, but
/// were not reported under a valid claim. Where none was reported, `example`, those of other jobs, says how they are
/// named. Whatever else a runner keeps there is its own affair.
fn remove_unreported(folder: &Path, reported: &[String], example: &[String]) -> io::Result<Vec<PathBuf>> {
    let unreported = unreported(entries(folder)?, reported, example);
    for path in &unreported {
        if fs::symlink_metadata(path)?.is_dir() {
            fs::remove_dir_all(path)?;
        } else {
            fs::remove_file(path)?;
        }
    }
    Ok(unreported)
}

/// Those of the entries that are temporary, or named like reported checkpoints and not reported.
fn unreported(entries: Vec<PathBuf>, reported: &[String], example: &[String]) -> Vec<PathBuf> {
    let known: BTreeSet<String> = names(reported).collect();
    let patterns: BTreeSet<String> = names(reported).chain(names(example)).map(|name| pattern(&name)).collect();
    let is_unreported = |path: &PathBuf| {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        name.starts_with('.') || patterns.contains(&pattern(&name)) && !known.contains(&name)
    };
    entries.into_iter().filter(is_unreported).collect()
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

    #[test]
    fn what_is_not_accounted_for_is_moved_and_nothing_is_lost() {
        let home = tempfile::tempdir().expect("a folder");
        let folder = home.path().join("checkpoints");
        let make = |name: &str| fs::create_dir_all(folder.join(name)).expect("folders can be made");
        let moved = |reported: &[String]| set_aside(&folder, reported, &[]).expect("it works").len();
        assert_eq!(moved(&[]), 0, "there is no folder");
        make(".64-1.tmp");
        assert_eq!(moved(&[]), 0, "nothing that is whole");
        let _ = ["64-1", "cache"].map(make);
        assert_eq!(moved(&[]), 1);
        assert!(home.path().join("checkpoints-set-aside-1/64-1").exists() && !folder.join("64-1").exists());
        let _ = ["64-1", "128-1", "cache"].map(make);
        assert_eq!(moved(&["/x/checkpoints/64-1".to_owned()]), 1);
        assert!(home.path().join("checkpoints-set-aside-2/128-1").exists());
        assert!(folder.join("64-1").exists() && folder.join("cache").exists());
    }
}
