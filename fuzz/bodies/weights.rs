//! A file of weights: its tensors, each within the file, or an error in words.

use std::fs::{self, File};

/// As it is; as a pickle in an archive of `torch.save`, and as the heading of a safetensors file, so that what lies
/// behind checksums and lengths is reached.
pub(super) fn check(bytes: &[u8]) {
    reads(bytes);
    reads(&archive(&[("a/data.pkl", bytes), ("a/data/0", &[0; 24])]));
    reads(&[&(bytes.len() as u64).to_le_bytes()[..], bytes, &[0; 24]].concat());
}

fn reads(bytes: &[u8]) {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("weights");
    fs::write(&path, bytes).expect("it can be written");
    let file = File::open(&path).expect("it is there");
    let length = bytes.len() as u64;
    let found = weights::tensors(&file, length);
    assert_eq!(weights::tensors(&file, length), found, "two readings agree");
    match found {
        Err(reason) => assert!(!reason.is_empty()),
        Ok(tensors) => {
            for tensor in weights::without_module(tensors).values() {
                let end = tensor.offset.checked_add(tensor.bytes).expect("no overflow");
                assert!(end <= length, "{tensor:?} of {length} bytes");
                let Some(size) = weights::bytes_of(&tensor.dtype) else { continue };
                assert_eq!(tensor.bytes % size, 0);
                // The last number that the shape reaches lies within what is read.
                let empty = tensor.shape.contains(&0);
                if let (Some(strides), false) = (&tensor.strides, empty) {
                    let last: u64 =
                        tensor.shape.iter().zip(strides).map(|(extent, stride)| (extent - 1) * stride).sum();
                    assert!((last + 1) * size <= tensor.bytes, "{tensor:?}");
                }
            }
        }
    }
}

/// A zip archive that stores these members, without checksums, which nobody compares.
pub(super) fn archive(members: &[(&str, &[u8])]) -> Vec<u8> {
    let (mut file, mut directory) = (Vec::new(), Vec::new());
    for (name, content) in members {
        let start = u32::try_from(file.len()).expect("a small file");
        let sizes = [0_u32, content.len() as u32, content.len() as u32].map(u32::to_le_bytes).concat();
        let names = [name.len() as u16, 0].map(u16::to_le_bytes).concat();
        file.extend([b"PK\x03\x04", &[0; 10][..], &sizes, &names, name.as_bytes(), content].concat());
        let nothing = [0; 12];
        directory.extend(
            [b"PK\x01\x02", &nothing[..], &sizes, &names, &nothing[..10], &start.to_le_bytes(), name.as_bytes()]
                .concat(),
        );
    }
    let (count, start) = (members.len() as u16, file.len() as u32);
    let end = [&[0; 4][..], &count.to_le_bytes(), &count.to_le_bytes()].concat();
    let size = (directory.len() as u32).to_le_bytes();
    [&file[..], &directory, b"PK\x05\x06", &end, &size, &start.to_le_bytes(), &[0; 2]].concat()
}
