//! One tar file: where each sample's members lie. Decodes nothing.

use std::collections::HashSet;
use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use crate::error::Error;

const BLOCK: u64 = 512;
const IMAGE_EXTENSIONS: [&str; 4] = ["jpg", "jpeg", "png", "webp"];

/// Bytes of one member within its shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Span {
    pub(crate) offset: u64,
    pub(crate) length: u64,
}

/// Members of one key, as far as they are of use here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Sample {
    pub(crate) key: String,
    pub(crate) image: Option<Span>,
    pub(crate) caption: Option<Span>,
    pub(crate) class: Option<Span>,
    /// The key was there before in this shard, members not adjacent.
    pub(crate) repeated: bool,
}

/// `dir/0001.png` -> (`dir/0001`, `png`): the name ends at the first dot of its last part, as in `webdataset`. `None`
/// for names that carry no sample: no dot, hidden files.
pub(crate) fn split_name(name: &str) -> Option<(&str, String)> {
    let name = name.strip_prefix("./").unwrap_or(name);
    let base = name.rfind('/').map_or(0, |slash| slash + 1);
    let dot = base + name[base..].find('.')?;
    (dot > base && dot + 1 < name.len()).then(|| (&name[..dot], name[dot + 1..].to_ascii_lowercase()))
}

/// Groups adjacent members of one key: `(name, span)` in the order of the tar file.
pub(crate) fn group(members: impl IntoIterator<Item = (String, Span)>) -> Vec<Sample> {
    let mut samples: Vec<Sample> = Vec::new();
    let mut seen = HashSet::new();
    for (name, span) in members {
        let Some((key, extension)) = split_name(&name) else { continue };
        if samples.last().is_none_or(|sample| sample.key != key) {
            let repeated = !seen.insert(key.to_owned());
            samples.push(Sample { key: key.to_owned(), image: None, caption: None, class: None, repeated });
        }
        let sample = samples.last_mut().expect("pushed above");
        let slot = match extension.as_str() {
            "txt" => &mut sample.caption,
            "cls" => &mut sample.class,
            other if IMAGE_EXTENSIONS.contains(&other) => &mut sample.image,
            _ => continue,
        };
        slot.get_or_insert(span);
    }
    samples
}

/// Reads the headers of the tar file at `path`.
pub(crate) fn scan(path: &Path) -> Result<Vec<Sample>, Error> {
    let file = File::open(path).map_err(Error::io("read", path))?;
    let length = file.metadata().map_err(Error::io("read", path))?.len();
    let truncated = |missing: String| Error::Truncated { shard: path.to_owned(), at: length, missing };
    if length == 0 {
        return Err(truncated("it is empty".into()));
    }
    let mut members = Vec::new();
    // Offset after the last whole member: where the next header, or the end mark, must stand.
    let mut end = 0;
    let mut archive = tar::Archive::new(&file);
    let entries = archive.entries_with_seek().map_err(Error::io("read", path))?;
    for entry in entries {
        let damaged = |error: std::io::Error| {
            if ends_with_mark(&file, length) {
                Error::Damaged { shard: path.to_owned(), at: end, reason: error.to_string() }
            } else {
                truncated(format!("the header at byte {end} is not whole"))
            }
        };
        let entry = entry.map_err(damaged)?;
        let name = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
        let span = Span { offset: entry.raw_file_position(), length: entry.size() };
        end = span.offset.saturating_add(span.length).div_ceil(BLOCK).saturating_mul(BLOCK);
        if span.offset.saturating_add(span.length) > length {
            let missing = format!("member `{name}` should reach byte {}", span.offset.saturating_add(span.length));
            return Err(truncated(missing));
        }
        if entry.header().entry_type().is_file() {
            members.push((name, span));
        }
    }
    // Every tar writer closes with zero blocks. Without one, a cut between two members would pass for a smaller shard.
    if length < end + BLOCK {
        return Err(truncated(format!("the end mark is missing after byte {end}")));
    }
    Ok(group(members))
}

/// Every whole tar file ends in a block of zeros.
fn ends_with_mark(file: &File, length: u64) -> bool {
    let mut block = [1; BLOCK as usize];
    length >= BLOCK
        && length.is_multiple_of(BLOCK)
        && file.read_exact_at(&mut block, length - BLOCK).is_ok()
        && block.iter().all(|&byte| byte == 0)
}

/// Reads one member.
pub(crate) fn read(file: &File, span: Span) -> std::io::Result<Vec<u8>> {
    let mut bytes = vec![0; span.length as usize];
    file.read_exact_at(&mut bytes, span.offset)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const EXTENSIONS: [&str; 6] = ["png", "txt", "cls", "json", "JPG", "seg.png"];

    proptest! {
        #[test]
        fn a_key_and_its_extension_make_up_the_name(name in "[a-z./_ -]{0,20}") {
            if let Some((key, extension)) = split_name(&name) {
                let shown = name.strip_prefix("./").unwrap_or(&name);
                prop_assert_eq!(format!("{key}.{extension}"), shown);
                let base = key.rsplit('/').next().unwrap_or_default();
                prop_assert!(!base.is_empty() && !base.contains('.'), "{}", key);
                prop_assert!(!extension.is_empty());
            }
        }

        #[test]
        fn adjacent_members_become_one_sample(
            samples in prop::collection::btree_map("[a-z0-9_/-]{0,8}[a-z0-9_-]", prop::collection::btree_set(0..EXTENSIONS.len(), 1..6), 0..20),
        ) {
            let mut offset = 0;
            let members: Vec<(String, Span)> = samples
                .iter()
                .flat_map(|(key, extensions)| extensions.iter().map(move |&index| format!("{key}.{}", EXTENSIONS[index])))
                .map(|name| { offset += 512; (name, Span { offset, length: 7 }) })
                .collect();
            let grouped = group(members.clone());
            prop_assert_eq!(grouped.len(), samples.len());
            for (sample, (key, extensions)) in grouped.iter().zip(&samples) {
                prop_assert_eq!(&sample.key, key);
                prop_assert!(!sample.repeated);
                prop_assert_eq!(sample.image.is_some(), extensions.contains(&0) || extensions.contains(&4));
                prop_assert_eq!(sample.caption.is_some(), extensions.contains(&1));
                prop_assert_eq!(sample.class.is_some(), extensions.contains(&2));
                if let Some(span) = sample.caption {
                    let name = &members.iter().find(|member| member.1 == span).expect("a member has this span").0;
                    prop_assert_eq!(name, &format!("{key}.txt"));
                }
            }
        }
    }

    #[test]
    fn a_key_that_comes_back_later_is_marked() {
        let span = Span { offset: 0, length: 1 };
        let grouped =
            group(["a.png", "a.txt", "b.png", "a.png", ".DS_Store", "readme"].map(|name| (name.to_owned(), span)));
        let seen: Vec<(&str, bool)> = grouped.iter().map(|sample| (sample.key.as_str(), sample.repeated)).collect();
        assert_eq!(seen, [("a", false), ("b", false), ("a", true)]);
    }
}
