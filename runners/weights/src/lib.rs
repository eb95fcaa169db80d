//! Where tensors lie in files of weights that others wrote, found without running anything of them.
//!
//! A file is a safetensors file or what `torch.save` wrote of a state dict or a training checkpoint. Both come down to
//! tensors by name, each at a place in the file. Every length is compared with the file's before anything is allocated.
//! It needs no libtorch, so that it is fuzzed (`fuzz/`).

mod pickle;
mod safetensors_file;
mod torch_file;
mod zip;

use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::FileExt as _;

/// A tensor in a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    /// Its name in safetensors.
    pub dtype: String,
    /// Extents.
    pub shape: Vec<u64>,
    /// In numbers; `None`: one after another.
    pub strides: Option<Vec<u64>>,
    /// Its first number's place in the file.
    pub offset: u64,
    /// From there to behind its last number.
    pub bytes: u64,
}

/// Bytes of a number of that type; `None`: it is not read.
pub fn bytes_of(dtype: &str) -> Option<u64> {
    match dtype {
        "F64" | "I64" => Some(8),
        "F32" | "I32" => Some(4),
        "F16" | "BF16" | "I16" => Some(2),
        "I8" | "U8" | "BOOL" => Some(1),
        _ => None,
    }
}

/// Tensors of a file of that length by name.
pub fn tensors(file: &File, length: u64) -> Result<BTreeMap<String, Stored>, String> {
    let mut start = [0; 8];
    let read = file.read_at(&mut start, 0).map_err(|error| error.to_string())?;
    if start.starts_with(b"PK\x03\x04") {
        return torch_file::tensors(file, length);
    }
    if start.starts_with(b"\x80\x02\x8a\x0a") {
        return Err("it was saved in PyTorch's old form, without a zip archive; with Python: \
                    `torch.save(torch.load(PATH, \"cpu\", weights_only=True), \"weights.pt\")`"
            .to_owned());
    }
    if read < 8 {
        return Err(format!("it has {length} bytes"));
    }
    safetensors_file::tensors(file, length)
}

/// Names without the `module.` that DistributedDataParallel puts before all of them.
pub fn without_module(tensors: BTreeMap<String, Stored>) -> BTreeMap<String, Stored> {
    if !tensors.keys().all(|name| name.starts_with("module.")) {
        return tensors;
    }
    tensors.into_iter().map(|(name, tensor)| (name["module.".len()..].to_owned(), tensor)).collect()
}
