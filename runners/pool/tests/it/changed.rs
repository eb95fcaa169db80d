//! Pools that change behind the back of who has read them, and pools that look alike.

use std::fs::{self, File};
use std::path::Path;
use std::time::{Duration, SystemTime};

use pool::{Dataset, Error, OpenOptions};

use crate::support::{content, inspect, options, png, small_pool, write_tar};

/// Writes over the first place of `from`, in place, and gives the file the time stamp of an hour ago.
fn patch(shard: &Path, from: &[u8], to: &[u8]) {
    let mut bytes = fs::read(shard).unwrap();
    let at = bytes.windows(from.len()).position(|window| window == from).unwrap();
    bytes[at..at + to.len()].copy_from_slice(to);
    fs::write(shard, bytes).unwrap();
    age(shard);
}

fn age(path: &Path) {
    let hour_ago = SystemTime::now() - Duration::from_hours(1);
    File::options().write(true).open(path).unwrap().set_modified(hour_ago).unwrap();
}

/// A pool whose index hides a change, as one that lies on another machine might.
fn indexed(dir: &Path) -> std::path::PathBuf {
    let pool = dir.join("pool");
    small_pool(&pool, 5);
    age(&pool.join("00000.tar"));
    shards::write_index(&pool, &mut shards::no_progress()).unwrap();
    fs::remove_dir_all(pool.join(".cache")).unwrap();
    pool
}

fn why(opened: Result<Dataset, Error>) -> String {
    let error = opened.err().expect("the pool has changed");
    assert!(matches!(&error, Error::Changed { shard, .. } if shard.ends_with("pool/00000.tar")), "{error}");
    error.to_string()
}

#[test]
fn a_caption_that_changed_behind_an_index_is_noticed_when_the_pool_is_read() {
    let dir = tempfile::tempdir().unwrap();
    let pool = indexed(dir.path());
    let digest = inspect(&pool).unwrap().identity.digest;
    patch(&pool.join("00000.tar"), b"caption 3", b"caption 8");
    assert_eq!(inspect(&pool).unwrap().identity.digest, digest, "nothing was read that could tell");
    let error = why(Dataset::open(&pool, &options(&dir.path().join("cache"))));
    assert!(error.contains("its keys or captions are other ones"), "{error}");
}

#[test]
fn an_image_that_changed_behind_an_index_is_noticed_when_it_is_read() {
    let dir = tempfile::tempdir().unwrap();
    let (before, after) = (png([3, 252, 7]), png([4, 252, 7]));
    assert_eq!(before.len(), after.len());
    let pool = indexed(dir.path());
    patch(&pool.join("00000.tar"), &before, &after);
    let error = why(Dataset::open(&pool, &options(&dir.path().join("cache"))));
    assert!(error.contains("the image of sample `0003` is another one"), "{error}");

    // Not cached: decoded each time, so it is noticed then.
    let pool = indexed(&dir.path().join("streamed"));
    let streamed = OpenOptions { cache_bytes: 0, ..options(&dir.path().join("cache")) };
    let data = Dataset::open(&pool, &streamed).unwrap();
    assert!(data.is_streamed());
    let changed = (0..5).find(|&i| data.key(i) == "0003").unwrap();
    let mut pixels = vec![0; data.image_bytes()];
    data.read_image(changed, &mut pixels).unwrap();
    patch(&pool.join("00000.tar"), &before, &after);
    let error = data.read_image(changed, &mut pixels).unwrap_err().to_string();
    assert!(error.contains("00000.tar") && error.contains("`0003`"), "{error}");
    data.read_image((changed + 1) % 5, &mut pixels).unwrap();
}

#[test]
fn pools_of_the_same_names_and_lengths_share_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let cache = options(&dir.path().join("cache"));
    let one = |name: &str, color: [u8; 3], caption: &str| {
        let pool = dir.path().join(name);
        write_tar(&pool.join("00000.tar"), &[("a.png", &png(color)), ("a.txt", caption.as_bytes())]);
        let data = Dataset::open(&pool, &cache).unwrap();
        (fs::metadata(pool.join("00000.tar")).unwrap().len(), data.caption(0).to_owned(), content(&data))
    };
    let first = one("first", [200, 10, 10], "a dog");
    let recaptioned = one("recaptioned", [200, 10, 10], "a cat");
    let other = one("other", [10, 200, 10], "a dog");
    assert_eq!((first.0, first.0), (recaptioned.0, other.0), "lengths tell nothing");
    assert_eq!((first.1.as_str(), recaptioned.1.as_str(), other.1.as_str()), ("a dog", "a cat", "a dog"));
    assert_eq!(first.2, recaptioned.2);
    assert_ne!(first.2, other.2);
}
