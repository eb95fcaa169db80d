//! npm package archives (`.tgz`), read where they lie.

use std::fs::File;
use std::io::{BufReader, Read as _};
use std::path::{Path, PathBuf};

use flate2::read::GzDecoder;
use serde::Deserialize;
use sha2::{Digest as _, Sha256};

use super::{Error, io};
use crate::layout::hex;

/// An archive that a recipe pins.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Source {
    /// Package and version as `npm pack` takes it, `@iconify-json/noto@1.2.9`.
    pub package: String,
    /// Name of the archive, as `npm pack` writes it.
    pub file: String,
    /// sha256 of the archive, 64 hex digits.
    pub sha256: String,
    /// SPDX licence of what is used of it.
    pub license: String,
}

impl Source {
    pub(super) fn path(&self, archives: &Path) -> PathBuf {
        archives.join(&self.file)
    }

    /// Refuses an archive that is missing or another than the pinned one.
    pub(super) fn verify(&self, archives: &Path) -> Result<(), Error> {
        let path = self.path(archives);
        let mut file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Err(Error::NoArchive { path, package: self.package.clone() });
            }
            Err(error) => return Err(io("read", path)(error)),
        };
        let mut hash = Sha256::new();
        std::io::copy(&mut file, &mut hash).map_err(io("read", &path))?;
        let found = hex(&hash.finalize());
        if found != self.sha256 {
            return Err(Error::Digest { path, found, pinned: self.sha256.clone() });
        }
        Ok(())
    }

    /// Calls `visit` with name and bytes of every file that `wanted` picks, in the archive's order. Names lack the
    /// leading `package/`.
    pub(super) fn for_each(
        &self,
        archives: &Path,
        wanted: impl Fn(&str) -> bool,
        mut visit: impl FnMut(&str, Vec<u8>) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let path = self.path(archives);
        let file = File::open(&path).map_err(io("read", &path))?;
        let mut archive = tar::Archive::new(GzDecoder::new(BufReader::with_capacity(1 << 20, file)));
        for entry in archive.entries().map_err(io("read", &path))? {
            let mut entry = entry.map_err(io("read", &path))?;
            let name = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
            let name = name.strip_prefix("package/").unwrap_or(&name);
            if wanted(name) {
                let mut bytes = Vec::with_capacity(entry.size() as usize);
                entry.read_to_end(&mut bytes).map_err(io("read", &path))?;
                visit(name, bytes)?;
            }
        }
        Ok(())
    }

    /// Parses some JSON files of the archive, in the order of `names`.
    pub(super) fn read<const COUNT: usize>(
        &self,
        archives: &Path,
        names: [&str; COUNT],
    ) -> Result<[Vec<u8>; COUNT], Error> {
        let mut found = [const { Vec::new() }; COUNT];
        self.for_each(
            archives,
            |name| names.contains(&name),
            |name, bytes| {
                let at = names.iter().position(|&wanted| wanted == name).expect("picked above");
                found[at] = bytes;
                Ok(())
            },
        )?;
        match found.iter().position(Vec::is_empty) {
            Some(missing) => Err(self.content(archives, format!("it holds no `{}`", names[missing]))),
            None => Ok(found),
        }
    }

    /// Parses JSON and says which file of which archive is at fault.
    pub(super) fn parse<T: for<'de> Deserialize<'de>>(
        &self,
        archives: &Path,
        name: &str,
        bytes: &[u8],
    ) -> Result<T, Error> {
        serde_json::from_slice(bytes).map_err(|error| self.content(archives, format!("`{name}`: {error}")))
    }

    pub(super) fn content(&self, archives: &Path, reason: String) -> Error {
        Error::Content { path: self.path(archives), reason }
    }
}
