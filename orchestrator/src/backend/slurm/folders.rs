//! Folders of arrays that nobody needs any more.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use super::shares::{ATTEMPTS, Attempts};

/// An array's folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ArrayFolder {
    /// Where it is.
    pub path: PathBuf,
    /// Names of its attempts.
    pub tokens: Vec<String>,
}

/// Arrays in `folder` in whose folders nothing was made for `age`. Those that can't be read are left out.
pub(super) fn old(folder: &Path, age: Duration) -> io::Result<Vec<ArrayFolder>> {
    let Some(before) = SystemTime::now().checked_sub(age) else { return Ok(Vec::new()) };
    let mut found = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let is_old = fs::metadata(&path).and_then(|data| data.modified()).is_ok_and(|at| at < before);
        if !is_old {
            continue;
        }
        if let Ok(text) = fs::read_to_string(path.join(ATTEMPTS)) {
            let tokens = Attempts::read(&text).members.into_iter().map(|member| member.token).collect();
            found.push(ArrayFolder { path, tokens });
        }
    }
    Ok(found)
}
