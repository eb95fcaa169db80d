//! What is part of a pool's digest, what is not, and when a change is noticed.

use std::fs::{self, File};
use std::path::Path;
use std::time::{Duration, SystemTime};

use shards::{Error, INDEX, Identity, identify, no_progress, write_index};

use crate::support::{END, JPEG, file};

/// Files of a pool: name and bytes.
type Pool = Vec<(&'static str, Vec<u8>)>;

fn pair(key: &str, image: &[u8], caption: &str, class: &str) -> Vec<u8> {
    [
        file(&format!("{key}.jpg"), image),
        file(&format!("{key}.txt"), caption.as_bytes()),
        file(&format!("{key}.cls"), class.as_bytes()),
    ]
    .concat()
}

fn plain() -> Pool {
    vec![
        ("00000.tar", [pair("a", JPEG, "a dog", "0"), pair("b", JPEG, "a cat", "1"), END.to_vec()].concat()),
        ("00001.tar", [pair("c", JPEG, "a cow", "1"), END.to_vec()].concat()),
        ("classnames.txt", b"dog\ncat\n".to_vec()),
        ("zeroshot_classification_templates.txt", b"a photo of a {}\n".to_vec()),
    ]
}

fn write(dir: &Path, pool: &Pool) {
    fs::create_dir_all(dir).unwrap();
    for (name, bytes) in pool {
        fs::write(dir.join(name), bytes).unwrap();
    }
}

fn identity(dir: &Path) -> Identity {
    identify(dir, None, &mut no_progress()).unwrap()
}

fn digest(pool: &Pool) -> String {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), pool);
    identity(dir.path()).digest
}

/// Writes over the first place of `from` in a file, in place, so that its length and inode stay.
fn patch(path: &Path, from: &[u8], to: &[u8]) {
    let mut bytes = fs::read(path).unwrap();
    let at = bytes.windows(from.len()).position(|window| window == from).unwrap();
    bytes[at..at + to.len()].copy_from_slice(to);
    fs::write(path, bytes).unwrap();
}

/// As after `cp -p`: the file says that it is an hour old.
fn age(path: &Path) {
    let hour_ago = SystemTime::now() - Duration::from_hours(1);
    File::options().write(true).open(path).unwrap().set_modified(hour_ago).unwrap();
}

#[test]
fn all_that_a_result_can_depend_on_is_in_the_digest() {
    let with = |name: &str, bytes: Vec<u8>| -> Pool {
        plain().into_iter().map(|(known, old)| (known, if known == name { bytes.clone() } else { old })).collect()
    };
    let shard = |a: &[u8], b: &[u8]| with("00000.tar", [a, b, &END].concat());
    let (a, b) = (pair("a", JPEG, "a dog", "0"), pair("b", JPEG, "a cat", "1"));
    let mut image = JPEG.to_vec();
    image[9] ^= 1;
    let mut renamed = plain();
    renamed[1].0 = "00002.tar";
    let variants: Vec<(&str, Pool)> = vec![
        ("a caption of the same length", shard(&pair("a", JPEG, "a hog", "0"), &b)),
        ("one byte of an image", shard(&pair("a", &image, "a dog", "0"), &b)),
        ("a key", shard(&pair("z", JPEG, "a dog", "0"), &b)),
        ("a class", shard(&pair("a", JPEG, "a dog", "1"), &b)),
        ("no class", shard(&[file("a.jpg", JPEG), file("a.txt", b"a dog")].concat(), &b)),
        ("two captions for one another", shard(&pair("a", JPEG, "a cat", "0"), &pair("b", JPEG, "a dog", "1"))),
        ("a pair less", shard(&a, b"")),
        ("a pair that can't be used", shard(&a, &[file("b.jpg", JPEG), file("b.txt", b"\xff")].concat())),
        ("a shard less", plain().into_iter().filter(|(name, _)| *name != "00001.tar").collect()),
        ("a shard's name, which tells keys apart that come twice", renamed),
        ("a class name", with("classnames.txt", b"dog\ncar\n".to_vec())),
        ("the order of class names", with("classnames.txt", b"cat\ndog\n".to_vec())),
        ("a template", with("zeroshot_classification_templates.txt", b"a photo of {}\n".to_vec())),
        ("no templates", plain().into_iter().filter(|(name, _)| !name.starts_with("zero")).collect()),
        ("a template for a class name", {
            let mut pool = with("classnames.txt", b"dog\ncat\na photo of a {}\n".to_vec());
            pool.pop();
            pool
        }),
    ];
    let mut digests = vec![digest(&plain())];
    for (what, pool) in &variants {
        let digest = digest(pool);
        assert!(!digests.contains(&digest), "{what} changes nothing");
        digests.push(digest);
    }
}

#[test]
fn what_no_result_depends_on_is_not_in_the_digest() {
    let plain_digest = digest(&plain());
    let with = |name: &'static str, bytes: &[u8]| {
        let mut pool = plain();
        pool.retain(|(known, _)| *known != name);
        pool.push((name, bytes.to_vec()));
        pool
    };
    for (what, pool) in [
        ("counts", with("sizes.json", br#"{"00000.tar": 2, "00001.tar": 1}"#)),
        ("lines of another system", with("classnames.txt", b"\xef\xbb\xbfdog\r\ncat\r\n\r\n")),
        ("another program's files", with("00000_stats.json", b"{}")),
        ("members that are not read, and padding", {
            let json = file("c.json", b"{\"url\": \"...\"}");
            with("00001.tar", &[&pair("c", JPEG, "a cow", "1"), &json, &END[..], &[0; 8192]].concat())
        }),
    ] {
        assert_eq!(digest(&pool), plain_digest, "{what}");
    }
    let dir = tempfile::tempdir().unwrap();
    write(&dir.path().join("here"), &plain());
    assert_eq!(identity(&dir.path().join("here")).digest, plain_digest);
    fs::rename(dir.path().join("here"), dir.path().join("there")).unwrap();
    assert_eq!(identity(&dir.path().join("there")).digest, plain_digest, "a folder was renamed");
    age(&dir.path().join("there/00000.tar"));
    assert_eq!(identity(&dir.path().join("there")).digest, plain_digest, "a time stamp was changed");
}

#[test]
fn shards_are_hashed_once_and_again_when_they_have_changed() {
    // Shards of a fixture are older than a moment, which freshly written ones are not.
    let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("../pool/fixture/train");
    let dir = tempfile::tempdir().unwrap();
    let (pool, elsewhere) = (dir.path().join("pool"), dir.path().join("elsewhere"));
    fs::create_dir(&pool).unwrap();
    for name in ["00000.tar", "00001.tar", "00002.tar"] {
        std::os::unix::fs::symlink(fixture.canonicalize().unwrap().join(name), pool.join(name)).unwrap();
    }
    let hashed = |elsewhere: Option<&Path>| {
        let mut all = 0;
        let identity = identify(&pool, elsewhere, &mut |_, total| all = total).unwrap();
        (identity.digest, all, identity.counts.pairs)
    };
    let (digest, all, pairs) = hashed(Some(&elsewhere));
    assert_eq!((all, pairs), (identity(&pool).shards.values().map(|shard| shard.bytes).sum(), 300));
    assert_eq!(hashed(Some(&elsewhere)), (digest.clone(), 0, 300), "remembered beside the pool");
    // Another process that writes it anew takes nothing from who has read it.
    let read = identify(&pool, None, &mut no_progress()).unwrap();
    let checks = read.checks().unwrap();
    let other = dir.path().join("other");
    write(&other, &plain());
    identity(&other);
    fs::rename(other.join(".cache").join(INDEX), pool.join(".cache").join(INDEX)).unwrap();
    assert_eq!(read.checks().unwrap(), checks);
    // A damaged memory is no error: all is hashed again.
    fs::write(pool.join(".cache").join(INDEX), b"SWINDEX2 and no more").unwrap();
    assert_eq!(hashed(Some(&elsewhere)), (digest.clone(), all, 300));
    // Where the pool's folder can't be written it is remembered elsewhere.
    fs::remove_dir_all(pool.join(".cache")).unwrap();
    fs::write(pool.join(".cache"), b"no folder").unwrap();
    assert_eq!(hashed(Some(&elsewhere)), (digest.clone(), all, 300));
    assert_eq!(hashed(Some(&elsewhere)), (digest.clone(), 0, 300));
    assert_eq!(hashed(None), (digest.clone(), all, 300), "it was not remembered beside the pool");
    // One more shard: it alone is hashed.
    let more = [pair("more", JPEG, "more", "0"), END.to_vec()].concat();
    fs::write(pool.join("00003.tar"), &more).unwrap();
    let (other, only, pairs) = hashed(Some(&elsewhere));
    assert_eq!((only, pairs), (more.len() as u64, 301));
    assert_ne!(other, digest);
    // The checks of all, those that were remembered and those that were not.
    let known = identify(&pool, Some(&elsewhere), &mut no_progress()).unwrap();
    assert_eq!(known.checks().unwrap(), identity(&pool).checks().unwrap());
    assert_eq!(known.checks().unwrap()["00003.tar"], [shards::image_check(JPEG)]);
}

#[test]
fn many_that_come_at_once_all_know_the_pool() {
    let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("../pool/fixture/train").canonicalize().unwrap();
    for _ in 0..20 {
        let dir = tempfile::tempdir().unwrap();
        for name in ["00000.tar", "00001.tar", "00002.tar"] {
            std::os::unix::fs::symlink(fixture.join(name), dir.path().join(name)).unwrap();
        }
        let barrier = std::sync::Barrier::new(8);
        let known: Vec<_> = std::thread::scope(|scope| {
            let one = || {
                barrier.wait();
                let identity = identity(dir.path());
                barrier.wait();
                (identity.digest.clone(), identity.checks().unwrap())
            };
            let threads: Vec<_> = (0..8).map(|_| scope.spawn(one)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        let later = identity(dir.path());
        assert_eq!(later.checks().unwrap().values().map(Vec::len).sum::<usize>(), 300);
        assert!(known.iter().all(|one| *one == (later.digest.clone(), later.checks().unwrap())));
        let mut hashed = 0;
        identify(dir.path(), None, &mut |_, total| hashed = total).unwrap();
        assert_eq!(hashed, 0, "what was remembered last is whole");
    }
}

#[test]
fn a_shard_that_was_changed_in_place_is_named() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), &plain());
    let before = identity(dir.path());
    assert!(before.changed().is_empty());
    patch(&dir.path().join("00001.tar"), b"a cow", b"a sow");
    age(&dir.path().join("00001.tar"));
    let after = identity(dir.path());
    assert_ne!(after.digest, before.digest);
    assert_eq!((after.changed(), &after.noticed[..]), (vec!["00001.tar"], &["00001.tar".to_owned()][..]));
    let later = identity(dir.path());
    assert_eq!((later.changed(), &later.noticed[..]), (vec!["00001.tar"], &[][..]), "noticed once, and known then");
}

#[test]
fn an_index_is_believed_until_a_shard_is_younger_or_of_another_length() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), &plain());
    let shard = dir.path().join("00001.tar");
    for (name, _) in plain() {
        age(&dir.path().join(name));
    }
    let written = write_index(dir.path(), &mut no_progress()).unwrap();
    fs::remove_dir_all(dir.path().join(".cache")).unwrap();
    let mut hashed = 0;
    let read = identify(dir.path(), None, &mut |_, total| hashed = total).unwrap();
    assert_eq!((&read.digest, hashed), (&written.digest, 0));
    assert_eq!(read.checks().unwrap(), written.checks().unwrap());
    assert_eq!(read.counts, written.counts);

    let refused = || identify(dir.path(), None, &mut no_progress()).unwrap_err();
    patch(&shard, b"a cow", b"a sow");
    let error = refused();
    assert!(matches!(&error, Error::Changed { shard: found, .. } if *found == shard), "{error}");
    assert!(error.hint().contains("sweep-pool index"), "{}", error.hint());
    // Meant so: another index, another pool.
    assert_ne!(write_index(dir.path(), &mut no_progress()).unwrap().digest, written.digest);
    assert_eq!(identity(dir.path()).digest, digest_of(dir.path()));

    fs::write(&shard, [pair("c", JPEG, "a cow", "1"), pair("d", JPEG, "d", "0"), END.to_vec()].concat()).unwrap();
    let error = refused().to_string();
    assert!(error.contains("shard `00001.tar` has changed: it has"), "{error}");
    fs::write(dir.path().join("00002.tar"), b"").unwrap();
    write(dir.path(), &plain());
    let error = refused().to_string();
    assert!(error.contains("shard `00002.tar` lies beside it but is not in it"), "{error}");
    fs::remove_file(dir.path().join("00002.tar")).unwrap();
    fs::remove_file(&shard).unwrap();
    let error = refused().to_string();
    assert!(error.contains("it lists shard `00001.tar`, which is not there"), "{error}");
    write(dir.path(), &plain());
    fs::write(dir.path().join("classnames.txt"), b"dog\n").unwrap();
    let error = refused().to_string();
    assert!(error.contains("classnames.txt or dataset_type.txt has changed"), "{error}");
    fs::write(dir.path().join(INDEX), b"cut").unwrap();
    assert!(refused().to_string().contains("it is no index"), "{}", refused());
}

#[test]
fn an_index_does_not_speak_for_a_shard_that_was_put_in_its_place_later() {
    let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("../pool/fixture/train").canonicalize().unwrap();
    let dir = tempfile::tempdir().unwrap();
    for name in ["00000.tar", "00001.tar"] {
        std::os::unix::fs::symlink(fixture.join(name), dir.path().join(name)).unwrap();
    }
    write_index(dir.path(), &mut no_progress()).unwrap();
    // The same length, and older than the index.
    let shard = dir.path().join("00001.tar");
    let other = dir.path().join("recaptioned");
    fs::copy(&shard, &other).unwrap();
    let sample = shards::read(&shard, &[], shards::DatasetType::Pairs).unwrap().remove(0);
    let caption = sample.content.unwrap().caption;
    let changed = caption.to_uppercase();
    patch(&other, caption.as_bytes(), changed.as_bytes());
    age(&other);
    fs::rename(&other, &shard).unwrap();
    let error = identify(dir.path(), None, &mut no_progress()).unwrap_err();
    assert!(matches!(&error, Error::Changed { shard: found, .. } if *found == shard), "{error}");
}

#[test]
fn names_that_are_no_text_are_refused() {
    use std::os::unix::ffi::OsStrExt as _;
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), &plain());
    fs::copy(dir.path().join("00000.tar"), dir.path().join(std::ffi::OsStr::from_bytes(b"a\xff.tar"))).unwrap();
    let error = identify(dir.path(), None, &mut no_progress()).unwrap_err();
    assert!(error.to_string().contains("its name is not UTF-8"), "{error}");
}

/// Of the same files without an index.
fn digest_of(dir: &Path) -> String {
    let copy = tempfile::tempdir().unwrap();
    for (name, _) in plain() {
        fs::copy(dir.join(name), copy.path().join(name)).unwrap();
    }
    identity(copy.path()).digest
}
