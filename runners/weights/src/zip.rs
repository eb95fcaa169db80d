//! The members of a zip archive as `torch.save` writes it: stored, never compressed, so that what a member takes is
//! what lies in the file. Reads the directory alone; a compressed member is known by name and never unpacked.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::FileExt as _;

/// Longest comment that may follow the end of the directory.
const COMMENT_MAX: u64 = 0xffff;
/// The directory's end without its comment.
const END_BYTES: u64 = 22;
/// Largest directory: over a million members.
const DIRECTORY_MAX: u64 = 64 << 20;
/// What a size or a place is where the zip64 field has it.
const ELSEWHERE: u64 = 0xffff_ffff;

/// Where a member's bytes lie in the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Member {
    pub(super) offset: u64,
    pub(super) bytes: u64,
    /// Compressed or encrypted.
    pub(super) is_packed: bool,
}

/// The members by name.
pub(super) fn members(file: &File, length: u64) -> Result<BTreeMap<String, Member>, String> {
    let (start, bytes, count) = directory(file, length)?;
    let directory = read(file, start, bytes)?;
    let mut rest = directory.as_slice();
    let mut members = BTreeMap::new();
    for _ in 0..count {
        let (name, stored) = entry(&mut rest)?;
        let member = place(file, length, &name, &stored)?;
        if members.insert(name.clone(), member).is_some() {
            return Err(format!("it has two members of the name `{name}`"));
        }
    }
    Ok(members)
}

/// Start, length and number of entries of the directory.
fn directory(file: &File, length: u64) -> Result<(u64, u64, u64), String> {
    let cut = || "it has no directory at its end: the file is cut off".to_owned();
    let tail_bytes = length.min(END_BYTES + COMMENT_MAX);
    let tail = read(file, length - tail_bytes, tail_bytes)?;
    let end = (0..tail.len().saturating_sub(END_BYTES as usize - 1))
        .rev()
        .find(|at| tail[*at..].starts_with(b"PK\x05\x06"))
        .ok_or_else(cut)?;
    let mut fields = &tail[end + 10..];
    let (mut count, mut bytes, mut start) = (number(&mut fields, 2)?, number(&mut fields, 4)?, number(&mut fields, 4)?);
    // Zip64: a locator stands before the end and says where the long form of it is.
    if let Some(at) = end.checked_sub(20).filter(|at| tail[*at..].starts_with(b"PK\x06\x07")) {
        let long_at = number(&mut &tail[at + 8..], 8)?;
        let long = read_within(file, length, long_at, 56)?;
        if !long.starts_with(b"PK\x06\x06") {
            return Err("its zip64 directory is not where it should be".to_owned());
        }
        let mut fields = &long[32..];
        (count, bytes, start) = (number(&mut fields, 8)?, number(&mut fields, 8)?, number(&mut fields, 8)?);
    }
    let within = start.checked_add(bytes).is_some_and(|end| end <= length);
    if !within {
        return Err("its directory lies beyond the end of the file: the file is cut off".to_owned());
    }
    if bytes > DIRECTORY_MAX {
        return Err(format!("its directory has {bytes} bytes, at most {DIRECTORY_MAX} are read"));
    }
    Ok((start, bytes, count))
}

/// A member as the directory has it.
struct Stored {
    bytes: u64,
    header: u64,
    is_packed: bool,
}

/// Takes one entry off the directory.
fn entry(rest: &mut &[u8]) -> Result<(String, Stored), String> {
    if take(rest, 4)? != b"PK\x01\x02" {
        return Err("its directory has fewer entries than it says".to_owned());
    }
    take(rest, 4)?;
    let flags = number(rest, 2)?;
    let method = number(rest, 2)?;
    take(rest, 8)?;
    let mut packed = number(rest, 4)?;
    let mut bytes = number(rest, 4)?;
    let (name, extra, comment) = (number(rest, 2)?, number(rest, 2)?, number(rest, 2)?);
    take(rest, 8)?;
    let mut header = number(rest, 4)?;
    let name = String::from_utf8(take(rest, name)?.to_vec()).map_err(|_| "a member's name is no UTF-8".to_owned())?;
    let mut extra = take(rest, extra)?;
    take(rest, comment)?;
    while extra.len() >= 4 {
        let (kind, length) = (number(&mut extra, 2)?, number(&mut extra, 2)?);
        let mut field = take(&mut extra, length)?;
        if kind == 1 {
            for value in [&mut bytes, &mut packed, &mut header] {
                if *value == ELSEWHERE {
                    *value = number(&mut field, 8)?;
                }
            }
        }
    }
    let is_packed = method != 0 || packed != bytes || flags & 1 != 0;
    Ok((name, Stored { bytes: packed, header, is_packed }))
}

/// Where the bytes of a member are: behind its own header.
fn place(file: &File, length: u64, name: &str, stored: &Stored) -> Result<Member, String> {
    let header = read_within(file, length, stored.header, 30)?;
    if !header.starts_with(b"PK\x03\x04") {
        return Err(format!("its member `{name}` does not lie where the directory says"));
    }
    let mut fields = &header[26..];
    let offset = stored.header + 30 + number(&mut fields, 2)? + number(&mut fields, 2)?;
    if offset.checked_add(stored.bytes).is_none_or(|end| end > length) {
        return Err(format!("its member `{name}` goes beyond the end of the file: the file is cut off"));
    }
    Ok(Member { offset, bytes: stored.bytes, is_packed: stored.is_packed })
}

/// So many bytes at `offset`, which lie within the file: the caller has compared.
fn read(file: &File, offset: u64, bytes: u64) -> Result<Vec<u8>, String> {
    let mut buffer = vec![0; bytes as usize];
    file.read_exact_at(&mut buffer, offset).map_err(|error| error.to_string())?;
    Ok(buffer)
}

fn read_within(file: &File, length: u64, offset: u64, bytes: u64) -> Result<Vec<u8>, String> {
    if offset.checked_add(bytes).is_none_or(|end| end > length) {
        return Err("its directory points beyond the end of the file: the file is cut off".to_owned());
    }
    read(file, offset, bytes)
}

fn take<'a>(rest: &mut &'a [u8], bytes: u64) -> Result<&'a [u8], String> {
    let (taken, left) =
        usize::try_from(bytes).ok().and_then(|bytes| rest.split_at_checked(bytes)).ok_or("its directory is cut off")?;
    *rest = left;
    Ok(taken)
}

/// A little-endian number.
fn number(rest: &mut &[u8], bytes: u64) -> Result<u64, String> {
    Ok(take(rest, bytes)?.iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte)))
}
