//! Folders in CLIP_benchmark's layout: `classnames.txt` and the like above the splits, `nshards.txt` in them, several
//! captions or several classes an image.

use std::fs;
use std::path::Path;

use shards::{DatasetType, Error, Identity};

use crate::support::{END, JPEG, file};

/// A split of two shards, of what `member` gives for each image.
fn split(dir: &Path, member: impl Fn(u8) -> Vec<u8>) {
    fs::create_dir_all(dir).unwrap();
    for shard in 0..2 {
        let of = |nth: u8| [file(&format!("s{nth:07}.webp"), b"RIFF1234WEBPVP8L"), member(nth)].concat();
        fs::write(dir.join(format!("{shard}.tar")), [of(2 * shard), of(2 * shard + 1), END.to_vec()].concat()).unwrap();
    }
    fs::write(dir.join("nshards.txt"), "2\n").unwrap();
}

fn identify(dir: &Path) -> Result<Identity, Error> {
    shards::identify(dir, None, &mut shards::no_progress())
}

fn captions(dir: &Path) -> Vec<String> {
    let (names, kind) = (shards::class_names(dir).unwrap(), shards::dataset_type(dir).unwrap());
    let samples =
        shards::list(dir).unwrap().into_iter().flat_map(move |path| shards::read(&path, &names, kind).unwrap());
    samples.map(|sample| sample.content.map_or_else(|reason| reason.text, |content| content.caption)).collect()
}

#[test]
fn a_split_has_its_names_in_the_folder_above() {
    let dir = tempfile::tempdir().unwrap();
    let test = dir.path().join("test");
    split(&test, |nth| file(&format!("s{nth:07}.cls"), (nth % 2).to_string().as_bytes()));
    let bare = identify(&test).unwrap();
    assert_eq!(bare.counts.pairs, 0, "a class without a name is no caption");
    fs::write(dir.path().join("classnames.txt"), "cat\ndog\n").unwrap();
    fs::write(dir.path().join("zeroshot_classification_templates.txt"), "a photo of a {c}.\n").unwrap();
    let named = identify(&test).unwrap();
    assert_eq!((named.counts.pairs, &named.class_names[..]), (4, &["cat".to_owned(), "dog".to_owned()][..]));
    assert_eq!((named.templates.len(), named.dataset_type), (1, DatasetType::Pairs));
    assert_ne!(named.digest, bare.digest);
    assert_eq!(captions(&test), ["cat", "dog", "cat", "dog"]);
    fs::write(dir.path().join("dataset_type.txt"), "Classification\n").unwrap();
    assert_eq!(identify(&test).unwrap().digest, named.digest, "the usual kind leaves no trace");
    fs::write(test.join("classnames.txt"), "horse\ncow\n").unwrap();
    assert_eq!(identify(&test).unwrap().class_names[0], "horse", "its own come first");
    fs::remove_file(test.join("classnames.txt")).unwrap();
    fs::remove_file(test.join("nshards.txt")).unwrap();
    assert!(identify(&test).unwrap().class_names.is_empty(), "any other folder has nothing to do with the one above");
}

#[test]
fn a_split_that_is_not_whole_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    split(dir.path(), |nth| file(&format!("s{nth:07}.txt"), b"words"));
    for (count, reason) in
        [("3", "`2.tar` is not there"), ("1", "1 shards, and 2 lie beside it"), ("two", "`two` is no number")]
    {
        fs::write(dir.path().join("nshards.txt"), count).unwrap();
        let error = identify(dir.path()).unwrap_err();
        assert!(error.to_string().contains(reason) && error.hint().contains("delete nshards.txt"), "{error}");
    }
}

#[test]
fn the_kind_of_data_set_is_part_of_what_the_pool_is() {
    let dir = tempfile::tempdir().unwrap();
    let test = dir.path().join("test");
    split(&test, |nth| file(&format!("s{nth:07}.txt"), b"one caption\nanother"));
    let pairs = identify(&test).unwrap();
    fs::write(dir.path().join("dataset_type.txt"), "retrieval\n").unwrap();
    let retrieval = identify(&test).unwrap();
    assert_eq!(retrieval.dataset_type, DatasetType::Retrieval);
    assert_ne!(retrieval.digest, pairs.digest, "the same bytes, read otherwise");
    fs::write(dir.path().join("dataset_type.txt"), "segmentation").unwrap();
    let error = identify(&test).unwrap_err().to_string();
    assert!(error.contains("`segmentation`") && error.contains("classification, retrieval, multilabel"), "{error}");
}

#[test]
fn images_of_several_classes_have_a_vector() {
    let dir = tempfile::tempdir().unwrap();
    let test = dir.path().join("test");
    let header = "{'descr': '|u1', 'fortran_order': False, 'shape': (3,), }\n";
    let vector = |bits: [u8; 3]| {
        [b"\x93NUMPY\x01\x00", &(header.len() as u16).to_le_bytes()[..], header.as_bytes(), &bits].concat()
    };
    let bits = [[1, 0, 1], [0, 0, 0], [0, 1, 0], [0, 3, 0]];
    split(&test, |nth| file(&format!("s{nth:07}.npy"), &vector(bits[usize::from(nth)])));
    fs::write(dir.path().join("classnames.txt"), "cat\ndog\ncow\n").unwrap();
    assert_eq!(identify(&test).unwrap().counts.pairs, 0, "an array is nothing to a pool of another kind");
    fs::write(dir.path().join("dataset_type.txt"), "multilabel\n").unwrap();
    let identity = identify(&test).unwrap();
    assert_eq!((identity.counts.pairs, identity.counts.skipped["classes can't be read"]), (3, 1));
    let said = captions(&test);
    assert_eq!(said[..3], ["cat, cow", "nothing that has a name", "dog"]);
    assert!(said[3].contains("class 1 is neither 0 nor 1"), "{said:?}");
    // One bit is another pool.
    fs::remove_dir_all(test.join(".cache")).ok();
    split(&test, |nth| file(&format!("s{nth:07}.npy"), &vector([1, 0, nth % 2])));
    assert_ne!(identify(&test).unwrap().digest, identity.digest);
    // And a sample without a vector is none.
    fs::write(test.join("1.tar"), [file("x.jpg", JPEG), file("x.txt", b"words"), END.to_vec()].concat()).unwrap();
    assert_eq!(identify(&test).unwrap().counts.skipped["no classes"], 1);
}
