//! Packing: deterministic, filtered, held out.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use pool::Dataset;
use pool::pack::{Outcome, RecipeFile, pack};
use serde_json::{Value, json};

use crate::support::{inspect, options, package};

fn quiet(_: &str) {}

/// Archives of two vendors with `count` emoji each, their text, and a recipe over them. Returns the recipe's path.
fn emoji_recipe(dir: &Path, count: u32) -> PathBuf {
    let code = |i: u32| format!("{:x}", 0x1f400 + i);
    let shape =
        |i: u32, fill: &str| json!({"body": format!("<path fill='{fill}' d='M{} {}h9v9h-9z'/>", i % 20, i / 20)});
    let vendor = |name: &str, fill: &str| {
        let mut icons: serde_json::Map<String, Value> =
            (0..count).map(|i| (format!("thing-{i}"), shape(i, fill))).collect();
        icons.insert("white".into(), json!({"body": "<path fill='#fff' d='M0 0h9v9z'/>"}));
        let mut chars: serde_json::Map<String, Value> =
            (0..count).map(|i| (code(i), format!("thing-{i}").into())).collect();
        chars.insert("2764".into(), "white".into());
        let icons = json!({"prefix": name, "icons": icons, "width": 32, "height": 32});
        let info = json!({"name": name, "author": {"name": "A. Painter"}, "license": {"spdx": "MIT"}});
        let files = [
            ("icons.json", icons.to_string()),
            ("chars.json", Value::from(chars).to_string()),
            ("info.json", info.to_string()),
        ];
        package(&dir.join("archives"), name, "MIT", &files)
    };
    let mut emoji: Vec<Value> = (0..count)
        .map(|i| json!({"label": format!("{} thing {}", ["man", "woman"][i as usize % 2], i / 2), "hexcode": code(i).to_uppercase(), "tags": ["a", "b", "c"], "subgroup": i % 3}))
        .collect();
    emoji.push(json!({"label": "white", "hexcode": "2764-FE0F", "subgroup": 1}));
    let messages = json!({"subgroups": [{"key": "c-two", "order": 2}, {"key": "a-zero", "order": 0}, {"key": "b-one", "order": 1}]});
    let text = [("en/data.json", Value::from(emoji).to_string()), ("en/messages.json", messages.to_string())];
    let recipe = json!({
        "kind": "emoji", "image_size": 32, "shard_samples": 25,
        "text": package(&dir.join("archives"), "words", "MIT", &text),
        "train": [vendor("alpha", "#f00"), vendor("beta", "#00f")], "held_out": {"gamma": vendor("gamma", "#0a0")},
        "val_pairs": 20, "tags": 2, "templates": ["{c}"],
    });
    let path = dir.join("recipe.json");
    fs::write(&path, recipe.to_string()).unwrap();
    path
}

/// Names and bytes of all files of a pool.
fn files(dir: &Path) -> Vec<(String, Vec<u8>)> {
    let mut files: Vec<(String, Vec<u8>)> = fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.is_file())
        .map(|path| (path.file_name().unwrap().to_string_lossy().into_owned(), fs::read(&path).unwrap()))
        .collect();
    files.sort();
    files
}

#[test]
fn packing_twice_gives_the_same_bytes_and_a_third_time_does_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let recipe = RecipeFile::read(&emoji_recipe(dir.path(), 60)).unwrap();
    let archives = dir.path().join("archives");
    let [one, two] = ["one", "two"].map(|name| dir.path().join(name));
    let Outcome::Packed(pools) = pack(&recipe, &archives, &one, &quiet).unwrap() else { panic!("nothing was packed") };
    let sizes: Vec<u64> = pools.iter().map(|(_, samples)| *samples).collect();
    assert_eq!(sizes, [100, 20, 60], "60 emoji by two vendors and by a third, 5 families of 2 siblings held out");
    pack(&recipe, &archives, &two, &quiet).unwrap();
    for pool in ["train", "val", "gamma"] {
        assert_eq!(files(&one.join(pool)), files(&two.join(pool)), "{pool}");
    }
    fs::remove_dir_all(&archives).unwrap();
    assert!(
        matches!(pack(&recipe, &archives, &one, &quiet).unwrap(), Outcome::Unchanged(folders) if folders.len() == 3)
    );
    // A shard that was lost is packed again, if the archives are there.
    fs::remove_file(one.join("val/00000.tar")).unwrap();
    let error = pack(&recipe, &archives, &one, &quiet).unwrap_err().to_string();
    assert!(error.contains("npm pack words@1.0.0"), "{error}");
}

#[test]
fn what_is_packed_reads_back_and_families_do_not_leak() {
    let dir = tempfile::tempdir().unwrap();
    let recipe = RecipeFile::read(&emoji_recipe(dir.path(), 60)).unwrap();
    pack(&recipe, &dir.path().join("archives"), dir.path(), &quiet).unwrap();
    let open = |pool: &str| Dataset::open(&dir.path().join(pool), &options(&dir.path().join("cache"))).unwrap();
    let (train, val, gamma) = (open("train"), open("val"), open("gamma"));
    let thing = |dataset: &Dataset, i: usize| {
        let caption = dataset.caption(i).split('.').next().unwrap().to_owned();
        caption.rsplit(' ').next().unwrap().parse::<u32>().unwrap()
    };
    let things = |dataset: &Dataset| -> BTreeSet<u32> { (0..dataset.len()).map(|i| thing(dataset, i)).collect() };
    assert!(things(&train).is_disjoint(&things(&val)));
    assert_eq!(things(&gamma).len(), 30);
    assert!(train.caption(0).ends_with(". a, b"), "{}", train.caption(0));
    assert!(!gamma.caption(0).contains('.'));
    assert_eq!(gamma.class_names(), ["a zero", "b one", "c two"]);
    assert!((0..train.len()).all(|i| train.class(i).is_none()) && (0..val.len()).all(|i| val.class(i).is_some()));

    let manifest = inspect(&dir.path().join("train")).unwrap().manifest.unwrap();
    assert_eq!(manifest.shards.iter().map(|shard| shard.samples).collect::<Vec<_>>(), [25, 25, 25, 25]);
    let sources: Vec<(&str, u64)> =
        manifest.sources.iter().map(|source| (source.package.as_str(), source.samples)).collect();
    assert_eq!(sources, [("words@1.0.0", 100), ("alpha@1.0.0", 50), ("beta@1.0.0", 50)]);
    assert!(manifest.notes.iter().any(|note| note.contains("alpha: dropped while drawing: blank: 1")));
}

#[test]
fn archives_must_be_the_pinned_ones() {
    let dir = tempfile::tempdir().unwrap();
    let recipe = RecipeFile::read(&emoji_recipe(dir.path(), 4)).unwrap();
    let archives = dir.path().join("archives");
    fs::write(archives.join("beta-1.0.0.tgz"), b"half a download").unwrap();
    let error = pack(&recipe, &archives, dir.path(), &quiet).unwrap_err().to_string();
    assert!(error.contains("beta-1.0.0.tgz` has sha256") && error.contains("fetch it again"), "{error}");
    assert!(!dir.path().join("train").exists());
    fs::write(dir.path().join("recipe.json"), r#"{"kind": "emojis"}"#).unwrap();
    let error = RecipeFile::read(&dir.path().join("recipe.json")).unwrap_err().to_string();
    assert!(error.contains("unknown variant `emojis`, expected `emoji` or `icons`"), "{error}");
}

#[test]
fn icons_are_filtered_held_out_by_lineage_and_cleared_of_near_duplicates() {
    let dir = tempfile::tempdir().unwrap();
    let square = |x: u32, y: u32, side: u32| json!({"body": format!("<path fill='currentColor' d='M{x} {y}h{side}v{side}h-{side}z'/>")});
    let mut train: serde_json::Map<String, Value> = (0..40)
        .map(|i| {
            (
                format!("shape-{}", (b'a' + i as u8 % 26) as char).repeat(1 + i as usize / 26),
                square(i % 8, i / 8, 6 + i % 4),
            )
        })
        .collect();
    train.insert("home-24-outline".into(), square(2, 2, 20));
    train.insert("home-outline".into(), square(2, 2, 21));
    let set = |prefix: &str, icons: Value, suffixes: Value| {
        (
            format!("json/{prefix}.json"),
            json!({"prefix": prefix, "icons": icons, "suffixes": suffixes, "width": 24, "height": 24}).to_string(),
        )
    };
    let unseen =
        json!({"home": {"body": "<path d='M2 12h20v2h-20z'/>"}, "star": square(2, 2, 20), "unasked": square(1, 1, 3)});
    let sets = [
        set("plain", train.into(), json!({"outline": "Outline"})),
        set("copyleft", json!({"home": square(0, 0, 24)}), json!({})),
        set("held", unseen, json!({})),
        set("far", json!({"kiwi": square(18, 0, 3), "kiwi-dark": square(20, 0, 3)}), json!({})),
    ];
    let info =
        |spdx: &str| json!({"name": "Set", "author": {"name": "A"}, "license": {"spdx": spdx}, "category": "UI 24px"});
    let collections =
        json!({"plain": info("MIT"), "copyleft": info("GPL-3.0"), "held": info("CC-BY-4.0"), "far": info("MIT")});
    let mut files: Vec<(&str, String)> = sets.iter().map(|(name, text)| (name.as_str(), text.clone())).collect();
    files.push(("collections.json", collections.to_string()));
    let recipe = json!({
        "kind": "icons", "image_size": 32, "shard_samples": 100, "archive": package(&dir.path().join("archives"), "icons", "per set", &files),
        "licenses": ["MIT", "CC-BY-4.0"], "dropped_categories": ["Logos"], "dropped_prefixes": [], "lineages": [], "held_out": [["held"]],
        "val_pairs": 8, "near_duplicate": 0.1, "concepts": ["star", "home"], "templates": ["{c}"],
        "other": {"pool": "far", "sets": ["far"], "skip_endings": ["-dark"]},
    });
    fs::write(dir.path().join("recipe.json"), recipe.to_string()).unwrap();
    let recipe = RecipeFile::read(&dir.path().join("recipe.json")).unwrap();
    pack(&recipe, &dir.path().join("archives"), dir.path(), &quiet).unwrap();

    let keys = |pool: &str| -> Vec<String> {
        let dataset = Dataset::open(&dir.path().join(pool), &options(&dir.path().join("cache"))).unwrap();
        (0..dataset.len()).map(|i| dataset.key(i).to_owned()).collect()
    };
    // `star` of the held-out set has the body of a training icon and goes; `unasked` is no concept.
    assert_eq!(keys("zeroshot"), ["held__home"]);
    assert_eq!(keys("far"), ["far__kiwi"]);
    let train = keys("train");
    assert!(
        train.contains(&"plain__home-outline".into()) && !train.contains(&"plain__home-24-outline".into()),
        "one drawing per caption"
    );
    assert!(train.iter().all(|key| key.starts_with("plain__")) && train.len() <= 33);
    let manifest = inspect(&dir.path().join("zeroshot")).unwrap().manifest.unwrap();
    assert_eq!(manifest.sources[0].license, "CC-BY-4.0");
    assert!(manifest.notes.iter().any(|note| note.contains("residual: ")), "{:?}", manifest.notes);
}
