//! Tar headers by hand, images by their first bytes.

use std::fs;
use std::path::{Path, PathBuf};

use shards::{Error, Sample};

/// What a JPEG starts with: nothing here decodes.
pub(crate) const JPEG: &[u8] = b"\xff\xd8\xff\xe0 and so on";

/// A header of type `kind` with a checksum that holds.
pub(crate) fn header(name: &[u8], kind: u8, size: usize) -> [u8; 512] {
    let mut header = [0; 512];
    header[..name.len()].copy_from_slice(name);
    header[100..107].copy_from_slice(b"0000644");
    header[124..135].copy_from_slice(format!("{size:011o}").as_bytes());
    header[136..147].copy_from_slice(b"00000000000");
    header[156] = kind;
    header[257..265].copy_from_slice(b"ustar\x0000");
    sign(&mut header);
    header
}

/// Writes the checksum.
pub(crate) fn sign(header: &mut [u8; 512]) {
    header[148..156].fill(b' ');
    let sum: u32 = header.iter().map(|&byte| u32::from(byte)).sum();
    header[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
}

/// A header and its bytes, filled up to whole blocks.
pub(crate) fn member(name: &[u8], kind: u8, bytes: &[u8]) -> Vec<u8> {
    let mut all = header(name, kind, bytes.len()).to_vec();
    all.extend(bytes);
    all.resize(all.len().next_multiple_of(512), 0);
    all
}

pub(crate) fn file(name: &str, bytes: &[u8]) -> Vec<u8> {
    member(name.as_bytes(), b'0', bytes)
}

/// `KEY.jpg` and `KEY.txt`.
pub(crate) fn pair(key: &str) -> Vec<u8> {
    [file(&format!("{key}.jpg"), JPEG), file(&format!("{key}.txt"), b"words")].concat()
}

/// Two blocks of zeros.
pub(crate) const END: [u8; 1024] = [0; 1024];

/// Members to a shard in `dir`.
pub(crate) fn shard(dir: &Path, parts: &[&[u8]]) -> PathBuf {
    let path = dir.join("00000.tar");
    fs::write(&path, parts.concat()).unwrap();
    path
}

pub(crate) fn read(parts: &[&[u8]]) -> Result<Vec<Sample>, Error> {
    let dir = tempfile::tempdir().unwrap();
    shards::read(&shard(dir.path(), parts), &[], shards::DatasetType::Pairs)
}

/// `KEY` of a pair, `KEY: REASON` of what is none.
pub(crate) fn told(samples: &[Sample]) -> Vec<String> {
    let line = |sample: &Sample| match &sample.content {
        Ok(_) => sample.key.clone(),
        Err(reason) => format!("{}: {}", sample.key, reason.kind),
    };
    samples.iter().map(line).collect()
}
