//! The members of one tar file: ustar, GNU and PAX headers, joined archives. Reads headers and nothing else.
//!
//! Source of the format: POSIX.1-2008 `pax`, and GNU tar's manual, "Basic Tar Format". What members count as data
//! follows Python's `tarfile`, which WebDataset reads with, but for one thing: blocks of zeros between members, as
//! `cat a.tar b.tar` leaves them, do not end the archive.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use crate::error::Error;

pub(crate) const BLOCK: u64 = 512;
/// Bytes read at a time: a header, and mostly the caption behind it.
const WINDOW: usize = 8 << 10;
/// Longest name or PAX header; longer ones are damage, not names.
const META_MAX: u64 = 1 << 20;

/// Bytes of one member within its shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    /// Of its first byte.
    pub offset: u64,
    /// Bytes.
    pub length: u64,
}

/// What a member is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Its bytes lie in the shard.
    File,
    /// A symbolic or hard link: no bytes.
    Link,
    /// A file with holes, whose bytes are not those in the shard.
    Sparse,
    /// A folder, a device, or something a writer keeps for itself.
    Other,
}

/// One member.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// With all folders; bytes that are not UTF-8 replaced.
    pub name: String,
    /// What it is.
    pub kind: Kind,
    /// Where its bytes lie.
    pub span: Span,
}

/// Goes through a shard from the first member to the last.
pub struct Reader<'a> {
    path: &'a Path,
    file: &'a File,
    length: u64,
    /// Where the next header must stand.
    at: u64,
    /// A block of zeros came after the last member.
    marked: bool,
    window: Vec<u8>,
    window_at: u64,
}

/// What a long-name or PAX header says of the member after it.
#[derive(Default)]
struct Ahead {
    pax_name: Option<Vec<u8>>,
    gnu_name: Option<Vec<u8>>,
    size: Option<u64>,
    sparse: bool,
}

impl<'a> Reader<'a> {
    /// Starts at the first byte of `file`, which lies at `path`.
    pub fn new(path: &'a Path, file: &'a File) -> Result<Reader<'a>, Error> {
        let length = file.metadata().map_err(Error::io("read", path))?.len();
        let mut reader = Reader { path, file, length, at: 0, marked: false, window: Vec::new(), window_at: 0 };
        if length == 0 {
            return Err(reader.truncated("it is empty".into()));
        }
        let start = reader.peek(0, length.min(10) as usize)?;
        if let Some(format) = compression(start) {
            return Err(Error::Compressed { shard: path.to_owned(), format });
        }
        Ok(reader)
    }

    /// The next member; `None` after the last one of a whole archive.
    pub fn member(&mut self) -> Result<Option<Member>, Error> {
        let mut ahead = Ahead::default();
        let mut asked = false;
        loop {
            let at = self.at;
            if at + BLOCK > self.length {
                return self.end(asked).map(|()| None);
            }
            let block = self.peek(at, BLOCK as usize)?;
            let header: [u8; BLOCK as usize] = block.try_into().expect("a whole block was asked for");
            if header == [0; BLOCK as usize] {
                if asked {
                    return Err(self.damaged(at, "a long name or PAX header has no member behind it"));
                }
                (self.at, self.marked) = (at + BLOCK, true);
                continue;
            }
            if !checksum_holds(&header) {
                return Err(self.damaged(at, "the header's checksum does not hold, so this is no tar header"));
            }
            let Some(mut size) = number(&header[124..136]) else {
                return Err(self.damaged(at, "the header's size is no number"));
            };
            let kind = header[156];
            let meta = matches!(kind, b'L' | b'K' | b'x' | b'X' | b'g');
            if !meta {
                size = ahead.size.unwrap_or(size);
            }
            // Links, devices and folders have no bytes behind them, whatever their size says.
            if matches!(kind, b'1'..=b'6') {
                size = 0;
            }
            let span = Span { offset: at + BLOCK, length: size };
            let end = span.offset.saturating_add(size);
            if meta && size > META_MAX {
                return Err(self.damaged(at, "the name of a member is longer than 1 MiB"));
            }
            let name = |ahead: &Ahead| match (&ahead.pax_name, &ahead.gnu_name) {
                (Some(name), _) | (None, Some(name)) => String::from_utf8_lossy(name).into_owned(),
                (None, None) => String::from_utf8_lossy(&ustar_name(&header)).into_owned(),
            };
            if end > self.length {
                let what = if meta { "the name of a member".to_owned() } else { format!("member `{}`", name(&ahead)) };
                return Err(self.truncated(format!("{what} should reach byte {end}")));
            }
            (self.at, self.marked) = (end.div_ceil(BLOCK).saturating_mul(BLOCK), false);
            if meta {
                asked |= kind != b'g';
                self.look_ahead(kind, span, &mut ahead)?;
                continue;
            }
            let name = name(&ahead);
            let kind = match kind {
                _ if ahead.sparse => Kind::Sparse,
                // The oldest writers marked a folder by its name alone.
                0 | b'0' | b'7' if name.ends_with('/') => Kind::Other,
                0 | b'0' | b'7' => Kind::File,
                b'1' | b'2' => Kind::Link,
                b'S' => {
                    self.pass_holes(&header, span.offset)?;
                    Kind::Sparse
                }
                _ => Kind::Other,
            };
            return Ok(Some(Member { name, kind, span }));
        }
    }

    /// Reads the bytes of a member.
    pub fn bytes(&mut self, span: Span) -> Result<&[u8], Error> {
        self.peek(span.offset, span.length as usize)
    }

    /// A window that holds `length` bytes from `at` on, which are known to be there.
    fn peek(&mut self, at: u64, length: usize) -> Result<&[u8], Error> {
        let held = self.window_at..self.window_at + self.window.len() as u64;
        if at < held.start || at + length as u64 > held.end {
            let wanted = length.max(WINDOW.min(self.length.saturating_sub(at) as usize));
            self.window.resize(wanted, 0);
            self.window_at = at;
            if let Err(error) = self.file.read_exact_at(&mut self.window, at) {
                self.window.clear();
                return Err(Error::io("read", self.path)(error));
            }
        }
        let start = (at - self.window_at) as usize;
        Ok(&self.window[start..start + length])
    }

    fn look_ahead(&mut self, kind: u8, span: Span, ahead: &mut Ahead) -> Result<(), Error> {
        let bytes = self.bytes(span)?.to_vec();
        match kind {
            b'L' => ahead.gnu_name = Some(until_nul(&bytes).to_vec()),
            b'x' | b'X' => {
                let Some(records) = pax_records(&bytes) else {
                    return Err(self.damaged(span.offset, "a PAX header is not made of `LENGTH KEY=VALUE` lines"));
                };
                for (key, value) in records {
                    match key {
                        b"path" if !ahead.sparse => ahead.pax_name = Some(value.to_vec()),
                        b"size" => match str::from_utf8(value).ok().and_then(|text| text.parse().ok()) {
                            Some(size) => ahead.size = Some(size),
                            None => return Err(self.damaged(span.offset, "the size in a PAX header is no number")),
                        },
                        b"GNU.sparse.name" => (ahead.pax_name, ahead.sparse) = (Some(value.to_vec()), true),
                        key if key.starts_with(b"GNU.sparse.") => ahead.sparse = true,
                        _ => (),
                    }
                }
            }
            _ => (),
        }
        Ok(())
    }

    /// The list of an old GNU sparse file's parts may go on in blocks of its own, between header and bytes.
    fn pass_holes(&mut self, header: &[u8; BLOCK as usize], mut next: u64) -> Result<(), Error> {
        let mut more = header[482] != 0;
        let mut block_at = self.at;
        // The bytes begin after those blocks, so the end moves by as many.
        while more {
            if next + BLOCK > self.length || block_at + BLOCK > self.length {
                return Err(self.truncated("the parts of a sparse member are not all there".into()));
            }
            more = self.peek(next, BLOCK as usize)?[504] != 0;
            (next, block_at) = (next + BLOCK, block_at + BLOCK);
        }
        self.at = block_at;
        Ok(())
    }

    /// Whether what is left, less than a block, may end the file. Every tar writer closes with blocks of zeros. Without
    /// one, a cut between two members would pass for a smaller shard.
    fn end(&mut self, asked: bool) -> Result<(), Error> {
        let left = self.length.saturating_sub(self.at) as usize;
        let zeros = left == 0 || self.peek(self.at, left)?.iter().all(|&byte| byte == 0);
        if self.marked && zeros {
            return Ok(());
        }
        if left > 0 && !zeros || asked {
            return Err(self.truncated(format!("the header at byte {} is not whole", self.at)));
        }
        Err(self.truncated(format!("the end mark is missing after byte {}", self.at.min(self.length))))
    }

    fn truncated(&self, missing: String) -> Error {
        Error::Truncated { shard: self.path.to_owned(), at: self.length, missing }
    }

    fn damaged(&self, at: u64, reason: &str) -> Error {
        Error::Damaged { shard: self.path.to_owned(), at, reason: reason.to_owned() }
    }
}

/// Told by the first ten bytes. A tar file starts with a name, which starts with none of these.
fn compression(start: &[u8]) -> Option<&'static str> {
    // `BZh` alone may be a name.
    if start.starts_with(b"BZh") && start.ends_with(b"1AY&SY") {
        return Some("bzip2");
    }
    let magics: [(&[u8], &str); 3] = [(b"\x1f\x8b", "gzip"), (b"\x28\xb5\x2f\xfd", "zstd"), (b"\xfd7zXZ\0", "xz")];
    magics.into_iter().find(|(magic, _)| start.starts_with(magic)).map(|(_, name)| name)
}

/// The sum of all bytes, the sum's own field taken as spaces. Some old writers summed signed bytes.
fn checksum_holds(header: &[u8; BLOCK as usize]) -> bool {
    let Some(expected) = number(&header[148..156]) else { return false };
    let (mut unsigned, mut signed) = (0_u64, 0_i64);
    for (at, &byte) in header.iter().enumerate() {
        let byte = if (148..156).contains(&at) { b' ' } else { byte };
        unsigned += u64::from(byte);
        signed += i64::from(byte.cast_signed());
    }
    expected == unsigned || i64::try_from(expected).is_ok_and(|expected| expected == signed)
}

/// Octal digits between spaces or NULs; or, with the first bit set, big-endian binary.
fn number(field: &[u8]) -> Option<u64> {
    if field[0] & 0x80 != 0 {
        let mut value = u64::from(field[0] & 0x7f);
        for &byte in &field[1..] {
            value = value.checked_mul(256)?.checked_add(u64::from(byte))?;
        }
        return Some(value);
    }
    let text = str::from_utf8(until_nul(field)).ok()?.trim();
    if text.is_empty() { Some(0) } else { u64::from_str_radix(text, 8).ok() }
}

fn until_nul(bytes: &[u8]) -> &[u8] {
    bytes.split(|&byte| byte == 0).next().unwrap_or_default()
}

/// The name in the header itself: 100 bytes, and in POSIX's form a prefix of 155.
fn ustar_name(header: &[u8; BLOCK as usize]) -> Vec<u8> {
    let name = until_nul(&header[..100]);
    let prefix = until_nul(&header[345..500]);
    if &header[257..263] == b"ustar\0" && !prefix.is_empty() {
        return [prefix, b"/", name].concat();
    }
    name.to_vec()
}

/// `LENGTH KEY=VALUE\n`, where the length counts itself.
fn pax_records(mut bytes: &[u8]) -> Option<Vec<(&[u8], &[u8])>> {
    let mut records = Vec::new();
    while !bytes.is_empty() && bytes[0] != 0 {
        let space = bytes.iter().position(|&byte| byte == b' ')?;
        let length: usize = str::from_utf8(&bytes[..space]).ok()?.parse().ok()?;
        let record = bytes.get(space + 1..length)?.strip_suffix(b"\n")?;
        let equals = record.iter().position(|&byte| byte == b'=')?;
        records.push((&record[..equals], &record[equals + 1..]));
        bytes = &bytes[length..];
    }
    Some(records)
}
