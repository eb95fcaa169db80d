//! Files that come to be whole.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// Writes a file under a temporary name and renames it, so that nobody sees a part of it; `durable`: it is forced to
/// the disk before.
pub fn write_whole(path: &Path, text: &str, mode: u32, durable: bool) -> io::Result<()> {
    let temporary = path.with_extension(format!("tmp-{:08x}", rand::random::<u32>()));
    let mut file = File::options().write(true).create_new(true).mode(mode).open(&temporary)?;
    file.write_all(text.as_bytes())?;
    if durable {
        file.sync_all()?;
    }
    fs::rename(&temporary, path)
}
