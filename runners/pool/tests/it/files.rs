//! Images in folders and tables, packed in CLIP_benchmark's layout, and pools laid out for it.

use std::fs;
use std::path::Path;
use std::process::Command;

use pool::{Dataset, DatasetType};

use crate::support::{fixture, inspect, options, png, write_tar};

/// Standard output, or standard error of what fails.
fn sweep_pool(arguments: &[&str]) -> Result<String, String> {
    let output = Command::new(env!("CARGO_BIN_EXE_sweep-pool")).args(arguments).output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) }
}

fn open(dir: &Path) -> Dataset {
    Dataset::open(dir, &options(&dir.join(".cache"))).unwrap()
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap()
}

#[test]
fn folders_become_classes_as_image_folder_numbers_them() {
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, bytes: &[u8]| {
        let path = dir.path().join("images").join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    };
    for (name, shade) in [("dog/2.png", 20), ("cat/b.old/10.png", 11), ("cat/9.PNG", 10), ("Zebra/a.jpeg", 30)] {
        write(name, &png([shade, 0, 0]));
    }
    write("dog/notes.txt", b"nothing");
    write("dog/3.bmp", b"BM");
    let (images, out) = (dir.path().join("images"), dir.path().join("set"));
    let (images, to) = (images.to_str().unwrap(), out.to_str().unwrap());
    let said = sweep_pool(&["pack", "images", images, "--out", to]).unwrap();
    assert!(said.contains("set/test: 4 images\nnot packed: 1 (bmp: "), "{said}");
    assert_eq!(read(&out.join("classnames.txt")), "Zebra\ncat\ndog\n", "capitals first, as Python sorts");
    assert_eq!(read(&out.join("zeroshot_classification_templates.txt")), "a photo of a {c}.\n");
    assert_eq!((read(&out.join("test/nshards.txt")), out.join("dataset_type.txt").exists()), ("1\n".into(), false));
    assert_eq!(read(&out.join("test/sizes.json")), "{\"0.tar\":4}\n");

    let data = open(&out.join("test"));
    let mut seen: Vec<(&str, u32, &str)> =
        (0..4).map(|i| (data.key(i), data.class(i).unwrap(), data.caption(i))).collect();
    seen.sort_unstable();
    let expected = [("s0000000", 0, "Zebra"), ("s0000001", 1, "cat"), ("s0000002", 1, "cat"), ("s0000003", 2, "dog")];
    assert_eq!(seen, expected);

    let error = sweep_pool(&["pack", "images", images, "--out", to]).unwrap_err();
    assert!(error.contains("set/test`: it is there already: delete it"), "{error}");
    // Another split shares the names; other names are another data set.
    sweep_pool(&["pack", "images", images, "--out", to, "--split", "train"]).unwrap();
    assert_eq!(inspect(&out.join("train")).unwrap().identity.digest, data.info().identity.digest);
    fs::create_dir(dir.path().join("images/empty")).unwrap();
    let error = sweep_pool(&["pack", "images", images, "--out", to, "--split", "new"]).unwrap_err();
    assert!(error.contains("folder `empty` holds no jpg"), "{error}");
    write("empty/1.png", &png([1, 1, 1]));
    let error = sweep_pool(&["pack", "images", images, "--out", to, "--split", "new"]).unwrap_err();
    assert!(error.contains("classnames.txt`: another split has another one"), "{error}");
    assert!(!out.join("new").exists());
}

#[test]
fn a_table_becomes_pairs_or_images_of_several_captions() {
    let dir = tempfile::tempdir().unwrap();
    for (name, shade) in [("1.png", 1), ("2.png", 2)] {
        fs::write(dir.path().join(name), png([shade; 3])).unwrap();
    }
    let path = |name: &str| dir.path().join(name).display().to_string();
    let rows = [("1.png", "a cat"), ("2.png", "\"a \"\"big\"\"\ndog\""), ("1.png", "the cat")];
    let lines: Vec<String> = rows.iter().map(|(name, title)| format!("7\t{}\t{title}\n", path(name))).collect();
    fs::write(dir.path().join("t.csv"), format!("id\tfilepath\ttitle\n{}", lines.concat())).unwrap();
    let pack = |out: &str, more: &[&str]| {
        let (table, out) = (path("t.csv"), path(out));
        sweep_pool(&[&["pack", "csv", &table, "--out", &out], more].concat())
    };
    assert!(pack("pairs", &[]).unwrap().contains("pairs/test: 3 images"));
    let data = open(&dir.path().join("pairs/test"));
    let mut captions: Vec<&str> = (0..3).map(|i| data.caption(i)).collect();
    captions.sort_unstable();
    assert_eq!(captions, ["a \"big\"\ndog", "a cat", "the cat"], "a row a pair, as open_clip trains on it");
    assert_eq!(data.captions(0).len(), 1);

    assert!(pack("retrieval", &["--retrieval"]).unwrap().contains("retrieval/test: 2 images"));
    let data = open(&dir.path().join("retrieval/test"));
    assert_eq!((data.len(), data.dataset_type()), (2, DatasetType::Retrieval));
    let mut captions: Vec<Vec<&str>> = (0..2).map(|i| data.captions(i)).collect();
    captions.sort_unstable();
    assert_eq!(captions, [vec!["a \"big\" dog"], vec!["a cat", "the cat"]]);

    let error = pack("x", &["--csv-separator", ","]).unwrap_err();
    assert!(error.contains("no column `filepath`; there are `id\tfilepath\ttitle`: see --csv-separator"), "{error}");
    fs::write(dir.path().join("t.csv"), "filepath\ttitle\nnowhere.png\twords\n").unwrap();
    let error = pack("x", &[]).unwrap_err();
    assert!(error.contains("cannot read `nowhere.png`"), "{error}");
    fs::write(dir.path().join("t.csv"), format!("filepath\ttitle\n{}\twords\n", path("t.csv"))).unwrap();
    assert!(pack("x", &[]).unwrap_err().contains("it is no JPEG, PNG or WebP image"));
}

#[test]
fn a_pool_is_laid_out_for_clip_benchmark_without_a_copy() {
    let dir = tempfile::tempdir().unwrap();
    let (val, out) = (fixture("val"), dir.path().join("set"));
    let layout = |kind: &str, out: &Path| {
        let (pool, out) = (val.to_str().unwrap(), out.to_str().unwrap());
        sweep_pool(&["benchmark", pool, "--out", out, "--type", kind])
    };
    layout("classification", &out).unwrap();
    assert!(out.join("test/0.tar").is_symlink());
    assert_eq!(read(&out.join("classnames.txt")), read(&val.join("classnames.txt")));
    let (data, own) = (open(&out.join("test")), Dataset::open(&val, &options(&dir.path().join("cache"))).unwrap());
    let all = |data: &Dataset| -> Vec<(String, Option<u32>)> {
        (0..data.len()).map(|i| (data.key(i).to_owned(), data.class(i))).collect()
    };
    assert_eq!(all(&data), all(&own));
    layout("retrieval", &dir.path().join("pairs")).unwrap();
    assert_eq!(read(&dir.path().join("pairs/dataset_type.txt")), "retrieval\n");

    let bare = dir.path().join("bare");
    write_tar(&bare.join("00000.tar"), &[("a.png", &png([1; 3])), ("a.txt", b"words")]);
    let error = sweep_pool(&["benchmark", bare.to_str().unwrap(), "--out", out.to_str().unwrap()]).unwrap_err();
    assert!(error.contains("bare`: it has no classnames.txt or no zeroshot"), "{error}");
}
