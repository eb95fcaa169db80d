//! State dicts and training checkpoints of `torch.save`: a zip archive with a pickle that names tensors, and a member
//! for each storage.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::FileExt as _;

use super::Stored;
use super::pickle::{self, Heap, Tensor, Value};
use super::zip::{self, Member};

/// Largest pickle; a model of 10,000 tensors with its optimiser needs 3 MB.
const PICKLE_MAX: u64 = 32 << 20;

/// Tensors of the model in a file by name.
pub(super) fn tensors(file: &File, length: u64) -> Result<BTreeMap<String, Stored>, String> {
    let members = zip::members(file, length)?;
    if members.keys().any(|name| name.contains("/code/") || name.ends_with("/constants.pkl")) {
        return Err("it is a TorchScript archive, a program with its weights, as OpenAI published them; with Python: \
                    `torch.save(torch.jit.load(PATH, \"cpu\").state_dict(), \"weights.pt\")`, without its entries \
                    `input_resolution`, `context_length` and `vocab_size`"
            .to_owned());
    }
    if let Some((name, _)) = members.iter().find(|(_, member)| member.is_packed) {
        return Err(format!("its member `{name}` is compressed or encrypted, which `torch.save` never does"));
    }
    let name = members.keys().find(|name| name.ends_with("data.pkl") && name.matches('/').count() <= 1);
    let name = name.ok_or("it is a zip archive, but not of `torch.save`: it has no `data.pkl`")?;
    let root = name.trim_end_matches("data.pkl");
    if let Some(order) = members.get(&format!("{root}byteorder"))
        && read(file, *order, 16)? != b"little"
    {
        return Err("its numbers are big-endian".to_owned());
    }
    let pickle = members[name];
    if pickle.bytes > PICKLE_MAX {
        return Err(format!("its pickle has {} bytes, at most {PICKLE_MAX} are read", pickle.bytes));
    }
    let (heap, value) = pickle::read(&read(file, pickle, PICKLE_MAX)?).map_err(|error| error.to_string())?;
    let entries = state_dict(&heap, &value).ok_or("it holds no dictionary of tensors")?;
    let mut tensors = BTreeMap::new();
    for (key, value) in entries {
        let Value::Text(name) = key else { return Err("a tensor has a name that is no text".to_owned()) };
        let Value::Tensor(tensor) = value else { return Err(format!("its entry `{name}` is no tensor")) };
        let member = members.get(&format!("{root}data/{}", tensor.storage.key));
        let member = member.ok_or_else(|| format!("the numbers of `{name}` are not in it"))?;
        let stored = stored(tensor, *member).ok_or_else(|| format!("`{name}` is larger than what is stored of it"))?;
        if tensors.insert(name.to_string(), stored).is_some() {
            return Err(format!("it has two tensors of the name `{name}`"));
        }
    }
    Ok(tensors)
}

/// The entries of a model: those of `state_dict` in a training checkpoint.
fn state_dict<'a>(heap: &'a Heap, value: &Value) -> Option<&'a [(Value, Value)]> {
    let entries = heap.dict(value)?;
    let inner = entries.iter().find(|(key, _)| matches!(key, Value::Text(name) if &**name == "state_dict"));
    match inner {
        Some((_, inner)) => heap.dict(inner),
        None => Some(entries),
    }
}

/// `None` where it reaches beyond its storage.
fn stored(tensor: &Tensor, member: Member) -> Option<Stored> {
    let size = super::bytes_of(tensor.storage.dtype)?;
    let mut last = 0_u64;
    for (extent, stride) in tensor.shape.iter().zip(&tensor.strides) {
        last = last.checked_add(extent.saturating_sub(1).checked_mul(*stride)?)?;
    }
    let span = if tensor.shape.contains(&0) { 0 } else { last.checked_add(1)? };
    let (from, bytes) = (tensor.offset.checked_mul(size)?, span.checked_mul(size)?);
    (from.checked_add(bytes)? <= member.bytes).then(|| Stored {
        dtype: tensor.storage.dtype.to_owned(),
        shape: tensor.shape.clone(),
        strides: Some(tensor.strides.clone()),
        offset: member.offset + from,
        bytes,
    })
}

/// A member's bytes, up to `most`.
fn read(file: &File, member: Member, most: u64) -> Result<Vec<u8>, String> {
    let mut buffer = vec![0; member.bytes.min(most) as usize];
    file.read_exact_at(&mut buffer, member.offset).map_err(|error| error.to_string())?;
    Ok(buffer)
}
