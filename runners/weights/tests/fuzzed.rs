//! The body of the fuzz target `weights` (`fuzz/`), with valid files that are changed at random.

use proptest::prelude::*;

#[path = "../../../fuzz/bodies/mutate.rs"]
mod mutate;
#[path = "../../../fuzz/bodies/weights.rs"]
mod weights_body;

/// A training checkpoint that torch wrote, and the pickle in it.
const TORCH: &[u8] = include_bytes!("../../clip/tests/weights.pt");

const HEADING: &str = r#"{"__metadata__":{"format":"pt"},"a":{"dtype":"F32","shape":[2,3],"data_offsets":[0,24]}}"#;

/// From the protocol's mark to the instruction that ends it.
fn pickle() -> Vec<u8> {
    let start = TORCH.windows(2).position(|bytes| bytes == b"\x80\x02").expect("it has a pickle");
    let last = TORCH[start..].windows(3).position(|bytes| bytes == b".PK").expect("and something behind it");
    TORCH[start..=start + last].to_vec()
}

fn safetensors() -> Vec<u8> {
    [&(HEADING.len() as u64).to_le_bytes()[..], HEADING.as_bytes(), &[0; 24]].concat()
}

fn tensors(bytes: &[u8]) -> usize {
    use std::io::Write as _;
    let mut file = tempfile::tempfile().expect("a file");
    file.write_all(bytes).expect("it can be written");
    weights::tensors(&file, bytes.len() as u64).expect("it is valid").len()
}

#[test]
fn what_is_changed_is_valid_before() {
    assert!(tensors(TORCH) > 1);
    assert_eq!(tensors(&safetensors()), 1);
    let numbers: Vec<(String, Vec<u8>)> = (0..8).map(|key| (format!("a/data/{key}"), vec![0; 64])).collect();
    let pickle = pickle();
    let mut members = vec![("a/data.pkl", &pickle[..])];
    members.extend(numbers.iter().map(|(name, bytes)| (name.as_str(), &bytes[..])));
    assert_eq!(tensors(&weights_body::archive(&members)), tensors(TORCH));
}

proptest! {
    #[test]
    fn files(bytes in mutate::mutated(vec![TORCH.to_vec(), safetensors()])) {
        weights_body::check(&bytes);
    }

    #[test]
    fn parts(bytes in mutate::mutated(vec![pickle(), HEADING.as_bytes().to_vec()])) {
        weights_body::check(&bytes);
    }
}
