//! What is broken is named: cut shards, bad images, missing captions.

use std::fs;

use pool::{Dataset, Error};

use crate::support::{fixture, inspect, options, png, tar};

#[test]
fn a_shard_cut_off_anywhere_is_an_error_with_its_offset() {
    let image = png([1, 2, 3]);
    let long = format!("{}.png", "deep/".repeat(30)); // needs a long-name header
    let whole =
        tar(&[("a.png", &image), ("a.txt", b"one"), (long.as_str(), &image), ("b.png", &image), ("b.txt", b"two")]);
    // Two blocks of zeros close the file; the members are whole as soon as the first is there.
    let complete = whole.len() - 512;
    let dir = tempfile::tempdir().unwrap();
    let shard = dir.path().join("pool/00007.tar");
    fs::create_dir(dir.path().join("pool")).unwrap();
    let mut cuts: Vec<usize> = (0..whole.len()).step_by(97).collect();
    cuts.extend((0..=whole.len()).step_by(512).flat_map(|block| [block.saturating_sub(1), block, block + 1]));
    for cut in cuts.into_iter().filter(|&cut| cut <= whole.len()) {
        fs::write(&shard, &whole[..cut]).unwrap();
        let cache = tempfile::tempdir().unwrap();
        match Dataset::open(&dir.path().join("pool"), &options(cache.path())) {
            Ok(dataset) => assert!(cut >= complete && dataset.len() == 2, "cut at {cut} of {} passed", whole.len()),
            Err(Error::Truncated { at, shard, .. }) => {
                assert_eq!(at, cut as u64);
                assert!(cut < complete && shard.ends_with("00007.tar"));
            }
            Err(error) => panic!("cut at {cut}: {error}"),
        }
    }
}

#[test]
fn a_changed_header_is_damage_not_a_cut() {
    let mut bytes = tar(&[("a.png", &png([1, 2, 3])), ("a.txt", b"one")]);
    bytes[3] ^= 0x40;
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("0.tar"), bytes).unwrap();
    let cache = tempfile::tempdir().unwrap();
    let error = Dataset::open(dir.path(), &options(cache.path())).err().unwrap();
    assert!(matches!(error, Error::Damaged { at: 0, .. }), "{error}");
}

#[test]
fn shards_that_differ_from_the_manifest_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let copy = || {
        for entry in fs::read_dir(fixture("train")).unwrap() {
            let path = entry.unwrap().path();
            if path.is_file() {
                fs::copy(&path, dir.path().join(path.file_name().unwrap())).unwrap();
            }
        }
    };
    copy();
    let shard = dir.path().join("00001.tar");
    let whole = fs::read(&shard).unwrap();
    fs::write(&shard, &whole[..5000]).unwrap();
    assert!(matches!(inspect(dir.path()), Err(Error::Truncated { at: 5000, .. })));
    fs::write(&shard, [whole.as_slice(), &[0; 512]].concat()).unwrap();
    assert!(matches!(inspect(dir.path()), Err(Error::Damaged { .. })));
    fs::remove_file(&shard).unwrap();
    let error = inspect(dir.path()).unwrap_err().to_string();
    assert!(error.contains("lists shard `00001.tar`, which is not there"), "{error}");
    copy();
    fs::copy(&shard, dir.path().join("extra.tar")).unwrap();
    let error = inspect(dir.path()).unwrap_err().to_string();
    assert!(error.contains("`extra.tar` lies beside it but is not in it"), "{error}");
}
