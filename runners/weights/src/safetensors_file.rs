//! The heading of a safetensors file: names, types, shapes and places, each within the file.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::FileExt as _;

use serde::Deserialize;

use super::Stored;

/// Largest heading, as the format has it.
const HEADER_MAX: u64 = 100_000_000;

#[derive(Deserialize)]
struct Entry {
    dtype: String,
    shape: Vec<u64>,
    data_offsets: [u64; 2],
}

/// Tensors of a file by name.
pub(super) fn tensors(file: &File, length: u64) -> Result<BTreeMap<String, Stored>, String> {
    let neither = || "it is neither a safetensors file nor an archive of `torch.save`".to_owned();
    let mut count = [0; 8];
    file.read_exact_at(&mut count, 0).map_err(|_| neither())?;
    let count = u64::from_le_bytes(count);
    if count > HEADER_MAX || count > length - 8 {
        return Err(neither());
    }
    let mut header = vec![0; count as usize];
    file.read_exact_at(&mut header, 8).map_err(|error| error.to_string())?;
    let mut entries: BTreeMap<String, serde_json::Value> = serde_json::from_slice(&header).map_err(|_| neither())?;
    entries.remove("__metadata__");
    let start = 8 + count;
    let mut tensors = BTreeMap::new();
    for (name, entry) in entries {
        let entry = Entry::deserialize(entry).map_err(|error| format!("its heading says of `{name}`: {error}"))?;
        let [from, to] = entry.data_offsets;
        let bytes = super::bytes_of(&entry.dtype)
            .and_then(|size| entry.shape.iter().try_fold(size, |bytes, extent| bytes.checked_mul(*extent)));
        // Types that are not read have a size that is not known; they are refused by name where they are needed.
        let fits = to.checked_sub(from).is_some_and(|length| bytes.is_none_or(|bytes| bytes == length));
        let offset = start.checked_add(to).filter(|end| fits && *end <= length).map(|_| start + from);
        let offset = offset.ok_or_else(|| format!("`{name}` does not fit into it: the file is cut off or damaged"))?;
        let Entry { dtype, shape, .. } = entry;
        tensors.insert(name, Stored { dtype, shape, strides: None, offset, bytes: to - from });
    }
    Ok(tensors)
}
