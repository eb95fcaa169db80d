//! A shard: its samples, or an error that says where it is damaged.

use std::fs;

use shards::DatasetType;

/// As they are, and with checksums that hold, so that what lies behind them is reached.
pub(super) fn check(bytes: &[u8]) {
    reads(bytes);
    let mut signed = bytes.to_vec();
    for block in signed.chunks_exact_mut(512).filter(|block| block[257..262] == *b"ustar") {
        block[148..156].fill(b' ');
        let sum: u32 = block.iter().map(|&byte| u32::from(byte)).sum();
        block[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
    }
    if signed != bytes {
        reads(&signed);
    }
}

/// Samples lie within the file, two readings agree, and counts add up, whatever kind of data set it is said to be of.
fn reads(bytes: &[u8]) {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("00000.tar");
    fs::write(&path, bytes).expect("it can be written");
    let classes = ["cat".to_owned(), "dog".to_owned()];
    for kind in [DatasetType::Pairs, DatasetType::Retrieval, DatasetType::Multilabel] {
        let samples = match shards::read(&path, &classes, kind) {
            Ok(samples) => samples,
            Err(error) => {
                assert!(error.to_string().contains("00000.tar"), "{error}");
                assert!(!error.hint().is_empty());
                continue;
            }
        };
        assert_eq!(shards::read(&path, &classes, kind).expect("as before"), samples);
        let counts = shards::count(&samples);
        assert_eq!(counts.samples(), samples.len() as u64);
        for content in samples.iter().filter_map(|sample| sample.content.as_ref().ok()) {
            let end = content.image.offset.checked_add(content.image.length).expect("no overflow");
            assert!(end <= bytes.len() as u64 && content.image.length > 0);
            assert!(!content.caption.is_empty() && content.caption.trim() == content.caption);
            assert_eq!(content.classes.is_some(), kind == DatasetType::Multilabel);
            assert!(content.classes.iter().all(|classes| classes.is_sorted_by(|a, b| a < b)));
        }
    }
}
