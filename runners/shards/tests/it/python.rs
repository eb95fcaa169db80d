//! Random shards by Python's `tarfile`, read as WebDataset reads them.

use std::collections::BTreeMap;
use std::fs;
use std::process::Command;

use shards::Counts;

#[test]
fn random_shards_of_tarfile_are_read_as_webdataset_reads_them() {
    let dir = tempfile::tempdir().unwrap();
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/pools.py");
    let made = Command::new("python3").arg(script).arg(dir.path()).args(["7", "400"]).output();
    let made = made.expect("python3 starts (Debian: apt-get install python3)");
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let expected: BTreeMap<String, Vec<(String, bool)>> =
        serde_json::from_slice(&fs::read(dir.path().join("expected.json")).unwrap()).unwrap();
    let shards = shards::list(dir.path()).unwrap();
    assert_eq!(shards.len(), 400);
    let identity = shards::identify(dir.path(), None, &mut shards::no_progress()).unwrap();
    let mut total = Counts::default();
    for shard in &shards {
        let samples = shards::read(shard, &[], shards::DatasetType::Pairs).unwrap();
        let name = shards::file_name(shard);
        let is_link = |kind: &str| kind == "a link";
        // Samples made of links alone come at the end here, and not at all there.
        let seen: Vec<(String, bool)> =
            samples.iter().map(|sample| (sample.key.clone(), sample.content.is_ok())).collect();
        let known = &expected[&name];
        assert_eq!(&seen[..known.len()], known, "{name}");
        assert!(
            samples[known.len()..].iter().all(|sample| matches!(&sample.content, Err(reason) if is_link(reason.kind)))
        );
        let counts = &identity.shards[&name].counts;
        assert_eq!(&shards::count(&samples), counts);
        total.add(counts);
    }
    // The generator reaches what it is for.
    assert!(total.pairs > 500, "{total:?}");
    for kind in ["a link", "empty caption", "key twice in its shard", "members apart", "no caption", "no image"] {
        assert!(total.skipped.get(kind).is_some_and(|&count| count > 5), "{kind}: {total:?}");
    }
}
