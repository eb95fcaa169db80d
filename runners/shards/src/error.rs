//! Why a pool's files can't be read. A single bad sample is no error: it has a [`crate::Reason`].

use std::io;
use std::path::{Path, PathBuf};

/// Why a shard, or a file beside it, can't be read.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The folder is not there.
    #[error("there is no folder `{}`", .dir.display())]
    NoFolder {
        /// The folder asked for.
        dir: PathBuf,
    },
    /// The folder has no `*.tar`.
    #[error("`{}` holds no shard (*.tar)", .dir.display())]
    NoShards {
        /// The folder asked for.
        dir: PathBuf,
    },
    /// A system call failed.
    #[error("cannot {action} `{}`: {source}", .path.display())]
    Io {
        /// What was being done: `read`, `list`.
        action: &'static str,
        /// To which file or folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A shard ends too early.
    #[error("shard `{}` is cut off at byte {at}: {missing}", .shard.display())]
    Truncated {
        /// The tar file.
        shard: PathBuf,
        /// Length of what is there, bytes.
        at: u64,
        /// What should have followed.
        missing: String,
    },
    /// A shard is not a tar file.
    #[error("shard `{}` is damaged at byte {at}: {reason}", .shard.display())]
    Damaged {
        /// The tar file.
        shard: PathBuf,
        /// Offset of the header that can't be read, bytes.
        at: u64,
        /// What is wrong with it.
        reason: String,
    },
    /// A shard is compressed, whatever it is called.
    #[error("shard `{}` is compressed ({format}); shards are read at random places, so they must be plain tar files", .shard.display())]
    Compressed {
        /// The file.
        shard: PathBuf,
        /// `gzip`, `zstd`, `bzip2` or `xz`.
        format: &'static str,
    },
    /// A shard is not what an index of its pool says.
    #[error("shard `{}` has changed since `{}` was written", .shard.display(), .list.display())]
    Changed {
        /// The tar file.
        shard: PathBuf,
        /// The index.
        list: PathBuf,
    },
    /// Somebody writes to a shard.
    #[error("shard `{}` was written to while it was read", .shard.display())]
    BeingWritten {
        /// The tar file.
        shard: PathBuf,
    },
    /// `sizes.json` or a text file beside the shards says something that does not hold.
    #[error("cannot use `{}`: {reason}", .path.display())]
    Metadata {
        /// The file.
        path: PathBuf,
        /// What is wrong and what is allowed.
        reason: String,
        /// The way out.
        hint: String,
    },
}

impl Error {
    /// The way out.
    pub fn hint(&self) -> String {
        match self {
            Error::NoFolder { .. } => "give a folder of WebDataset shards; the demo's: `make data`".into(),
            Error::NoShards { .. } => {
                "a pool is a folder of WebDataset shards, as img2dataset or `sweep-pool pack` writes it".into()
            }
            Error::Io { .. } => "see that the file is there and can be read by this user".into(),
            Error::Truncated { .. } | Error::Damaged { .. } => {
                "fetch or pack the shard again; `tar tf` on a whole shard ends without an error".into()
            }
            Error::Changed { .. } => {
                "if it is meant, call `sweep-pool index` again: it is another pool then, with jobs of its own".into()
            }
            Error::BeingWritten { .. } => "wait until whoever writes it is done".into(),
            Error::Compressed { shard, format } => {
                let tool = if *format == "gzip" { "gzip -d" } else { format };
                let options = if *format == "gzip" { "" } else { " -d" };
                let plain = plain_name(shard);
                format!("unpack it: `{tool}{options} < {} > NEW && mv NEW {}`", shard.display(), plain.display())
            }
            Error::Metadata { hint, .. } => hint.clone(),
        }
    }

    /// For `map_err`: an I/O error with its action and path.
    pub(crate) fn io(action: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Error {
        let path = path.into();
        move |source| Error::Io { action, path, source }
    }
}

/// `a.tar.gz` and `a.tgz` to `a.tar`.
fn plain_name(shard: &Path) -> PathBuf {
    match crate::folder::uncompressed_name(shard) {
        Some(name) => shard.with_file_name(name),
        None => shard.to_owned(),
    }
}
