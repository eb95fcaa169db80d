//! What can go wrong while reading a pool.

use std::path::PathBuf;

/// Why a pool cannot be read. A single bad sample is no error: it is skipped and listed by [`crate::Dataset::skipped`].
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The folder is not there.
    #[error("there is no pool folder `{}`\nhint: fetch and pack the demo's with `scripts/data.sh emoji`, or give a folder of WebDataset shards", .dir.display())]
    NoFolder {
        /// The folder asked for.
        dir: PathBuf,
    },
    /// The folder has no `*.tar`.
    #[error("`{}` holds no `*.tar` shards, so it is not a pool\nhint: a pool is a folder of WebDataset shards (img2dataset layout)", .dir.display())]
    NoShards {
        /// The folder asked for.
        dir: PathBuf,
    },
    /// A system call failed.
    #[error("cannot {action} `{}`: {source}", .path.display())]
    Io {
        /// What was being done: `read`, `write`, `lock`.
        action: &'static str,
        /// To which file or folder.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A shard ends too early.
    #[error(
        "shard `{}` is cut off at byte {at}: {missing}\nhint: fetch or pack it again; `tar tf` on a whole shard ends without an error",
        .shard.display()
    )]
    Truncated {
        /// The tar file.
        shard: PathBuf,
        /// Length of what is there, bytes.
        at: u64,
        /// What should have followed.
        missing: String,
    },
    /// A shard is not a tar file.
    #[error("shard `{}` is damaged at byte {at}: {reason}\nhint: fetch or pack it again", .shard.display())]
    Damaged {
        /// The tar file.
        shard: PathBuf,
        /// Offset of the header that cannot be read, bytes.
        at: u64,
        /// What the tar reader said.
        reason: String,
    },
    /// A shard is compressed, is being written to, or is not what its pool's index says.
    #[error(transparent)]
    Shards(Hinted),
    /// `manifest.json`, `sizes.json` or a class file says something that does not hold.
    #[error("cannot use `{}`: {reason}", .path.display())]
    Metadata {
        /// The file.
        path: PathBuf,
        /// What is wrong and what is allowed.
        reason: String,
    },
    /// Nothing in the pool can be used.
    #[error("pool `{}` has no usable pair ({skipped} skipped{first})\nhint: a pair is KEY.(jpg|jpeg|png|webp) and KEY.txt side by side in one shard", .dir.display())]
    Empty {
        /// The folder.
        dir: PathBuf,
        /// Samples that were looked at.
        skipped: usize,
        /// `, first: KEY: REASON` or nothing.
        first: String,
    },
    /// Fewer good pairs than the data size asked for.
    #[error("data size {asked} is larger than pool `{}`: it has {found} good pairs ({skipped} skipped)\nhint: ask for at most {found}", .dir.display())]
    TooFew {
        /// The folder.
        dir: PathBuf,
        /// The limit asked for.
        asked: u64,
        /// Good pairs there are.
        found: u64,
        /// Bad ones.
        skipped: usize,
    },
    /// `image_size` is out of range.
    #[error("image size {0} is not allowed: give 1 to 4096 pixels")]
    ImageSize(u32),
    /// A caller's mistake: the buffer has another length than an image.
    #[error("an image of this dataset takes {needed} bytes, the buffer has {given}")]
    Buffer {
        /// `image_size^2 * 3`.
        needed: usize,
        /// Length of the buffer.
        given: usize,
    },
    /// A shard is not what it was when the pool was hashed.
    #[error("shard `{}` has changed since its pool was read: {what}\nhint: plan again, it is another pool now; if `sweep.index` lies beside it, call `sweep-pool index` on it first", .shard.display())]
    Changed {
        /// What of it.
        what: String,
        /// The tar file.
        shard: PathBuf,
    },
}

/// An error of the shards' reader with its way out.
#[derive(Debug, thiserror::Error)]
#[error("{inner}\nhint: {}", .inner.hint())]
pub struct Hinted {
    inner: shards::Error,
}

impl From<shards::Error> for Error {
    fn from(error: shards::Error) -> Error {
        match error {
            shards::Error::NoFolder { dir } => Error::NoFolder { dir },
            shards::Error::NoShards { dir } => Error::NoShards { dir },
            shards::Error::Io { action, path, source } => Error::Io { action, path, source },
            shards::Error::Truncated { shard, at, missing } => Error::Truncated { shard, at, missing },
            shards::Error::Damaged { shard, at, reason } => Error::Damaged { shard, at, reason },
            shards::Error::Metadata { path, reason, hint } => {
                Error::Metadata { path, reason: format!("{reason}\nhint: {hint}") }
            }
            inner => Error::Shards(Hinted { inner }),
        }
    }
}

impl Error {
    /// For `map_err`: an I/O error with its action and path.
    pub(crate) fn io(action: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> Error {
        let path = path.into();
        move |source| Error::Io { action, path, source }
    }
}
