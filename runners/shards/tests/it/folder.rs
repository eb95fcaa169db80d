//! Which files are shards, what `sizes.json` may say, lines of class names.

use std::fs;
use std::path::Path;

use shards::{Counts, Error};

use crate::support::{END, pair};

fn pool(names: &[&str]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for name in names {
        fs::write(dir.path().join(name), [pair("a"), END.to_vec()].concat()).unwrap();
    }
    dir
}

fn names(dir: &Path) -> Vec<String> {
    shards::list(dir).unwrap().iter().map(|shard| shards::file_name(shard)).collect()
}

#[test]
fn shards_are_tar_files_and_none_may_stay_packed() {
    let dir = pool(&["b.tar", "a.tar", "._a.tar", "notes.txt", "a.tar.gz"]);
    assert_eq!(names(dir.path()), ["a.tar", "b.tar"], "a.tar.gz is a.tar once more");
    fs::write(dir.path().join("c.tar.gz"), b"\x1f\x8b").unwrap();
    let error = shards::list(dir.path()).unwrap_err();
    assert!(error.to_string().contains("c.tar.gz` is compressed (gzip)"), "{error}");
    assert!(error.hint().contains("mv NEW ") && error.hint().ends_with("c.tar`"), "{}", error.hint());
    assert!(matches!(shards::list(pool(&[]).path()), Err(Error::NoShards { .. })));
    assert!(matches!(shards::list(&dir.path().join("nowhere")), Err(Error::NoFolder { .. })));
}

#[test]
fn sizes_must_name_the_shards_that_are_there() {
    let dir = pool(&["a.tar", "b.tar"]);
    let sizes = |text: &str| {
        fs::write(dir.path().join("sizes.json"), text).unwrap();
        shards::identify(dir.path(), None, &mut shards::no_progress()).map_err(|error| error.to_string())
    };
    assert_eq!(sizes(r#"{"a.tar": 1, "b.tar": 1}"#).unwrap().counts.pairs, 2);
    let error = sizes(r#"{"a.tar": 1, "b.tar": 2}"#).unwrap_err();
    assert!(error.contains("it gives shard `b.tar` 2 pairs, which holds 1"), "{error}");
    let error = sizes(r#"{"a.tar": 1}"#).unwrap_err();
    assert!(error.contains("shard `b.tar` lies beside it but is not in it"), "{error}");
    let error = sizes(r#"{"a.tar": 1, "b.tar": 1, "c.tar": 1}"#).unwrap_err();
    assert!(error.contains("lists shard `c.tar`, which is not there"), "{error}");
    assert!(sizes("[]").unwrap_err().contains("expected {"));
}

#[test]
fn a_count_must_lie_between_pairs_and_samples() {
    let found = Counts { pairs: 8, skipped: [("no caption".to_owned(), 2)].into() };
    let check = |said| shards::check_count(Path::new("p/sizes.json"), Path::new("p/a.tar"), said, &found);
    assert!((8..=10).all(|said| check(said).is_ok()));
    for said in [7, 11] {
        let error = check(said).unwrap_err().to_string();
        assert!(error.contains(&format!("`a.tar` {said} pairs, which holds 8 and 2 samples")), "{error}");
    }
}

#[test]
fn line_k_names_class_k() {
    let dir = tempfile::tempdir().unwrap();
    assert!(shards::class_names(dir.path()).unwrap().is_empty());
    fs::write(dir.path().join(shards::CLASS_NAMES), "\u{feff}cat\r\n\r\n dog \n\n\n").unwrap();
    assert_eq!(shards::class_names(dir.path()).unwrap(), ["cat", "", "dog"]);
    fs::write(dir.path().join(shards::TEMPLATES), "\u{feff}a {c}\n\nthe {c}\n").unwrap();
    assert_eq!(shards::templates(dir.path()).unwrap(), ["a {c}", "the {c}"]);
    fs::write(dir.path().join(shards::CLASS_NAMES), b"caf\xe9\n").unwrap();
    assert!(shards::class_names(dir.path()).unwrap_err().to_string().contains("byte 4 is not UTF-8"));
}
