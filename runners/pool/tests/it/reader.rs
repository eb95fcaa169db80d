//! Reading pools: order, sizes, resizing.

use std::fs;

use pool::{Dataset, Error, OpenOptions};

use crate::support::{content, fixture, inspect, options, picture, png, sha256, small_pool, write_tar};

#[test]
fn the_fixture_is_read_as_it_was_packed() {
    let cache = tempfile::tempdir().unwrap();
    let train = Dataset::open(&fixture("train"), &options(cache.path())).unwrap();
    assert_eq!((train.len(), train.skipped()), (300, &[][..]));
    assert_eq!(train.info().identity.counts.pairs, 300);
    for (i, (key, pixels)) in content(&train).iter().enumerate() {
        assert!(key.starts_with("noto__"), "{key}");
        assert!(!train.caption(i).is_empty() && train.class(i).is_none());
        assert!(pixels.iter().any(|&value| value < 240), "{key} is blank");
    }

    let fluent = Dataset::open(&fixture("fluent"), &options(cache.path())).unwrap();
    assert_eq!((fluent.len(), fluent.class_names().len()), (100, 101));
    assert!(fluent.templates().iter().all(|template| template.contains("{c}")));
    let judge = (0..100).find(|&i| fluent.caption(i) == "woman judge");
    let class = judge.and_then(|i| fluent.class(i)).map(|class| fluent.class_names()[class as usize].as_str());
    assert_eq!(class, Some("person role"));
}

#[test]
fn smaller_data_sizes_lie_in_larger_ones() {
    let [small, large] = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    // A budget of 150 images keeps the first from making the cache that would serve both.
    let limited = OpenOptions { limit: Some(100), cache_bytes: 150 * 32 * 32 * 3, ..options(small.path()) };
    let first = content(&Dataset::open(&fixture("train"), &limited).unwrap());
    let all = content(&Dataset::open(&fixture("train"), &options(large.path())).unwrap());
    assert_eq!(first.len(), 100);
    assert_eq!(first, all[..100]);
    let digests: Vec<String> = all.iter().map(|(key, _)| sha256(key.as_bytes())).collect();
    assert!(digests.is_sorted());
}

#[test]
fn bad_samples_are_skipped_with_their_reason_and_replaced_by_the_next_good_ones() {
    let dir = tempfile::tempdir().unwrap();
    let good = png([1, 2, 3]);
    let members: [(&str, &[u8]); 19] = [
        ("good.png", &good),
        ("good.txt", b" a good one \n"),
        ("cut.png", &good[..good.len() - 20]),
        ("cut.txt", b"an image without its end"),
        ("html.jpg", b"<html>404</html>"),
        ("html.txt", b"not an image"),
        ("silent.png", &good),
        ("blank.png", &good),
        ("blank.txt", b" \n"),
        ("latin1.png", &good),
        ("latin1.txt", b"caf\xe9"),
        ("alone.txt", b"no image"),
        ("class.png", &good),
        ("class.txt", b"a class that is a word"),
        ("class.cls", b"seven"),
        ("fine.png", &good),
        ("fine.txt", b"another good one"),
        ("good.png", &good),
        ("good.txt", b"the key again"),
    ];
    write_tar(&dir.path().join("pool/a.tar"), &members);
    let dataset = Dataset::open(&dir.path().join("pool"), &options(&dir.path().join("cache"))).unwrap();
    // The key that comes twice is qualified by its shard.
    let mut keys: Vec<&str> = (0..dataset.len()).map(|i| dataset.key(i)).collect();
    keys.sort_unstable();
    assert_eq!(keys, ["a.tar/good", "fine"]);
    let mut reasons: Vec<String> =
        dataset.skipped().iter().map(|skip| format!("{}: {}", skip.key, skip.reason)).collect();
    reasons.sort();
    let (cut, rest): (Vec<_>, Vec<_>) = reasons.into_iter().partition(|reason| reason.starts_with("cut: "));
    assert_eq!(cut.len(), 1, "the decoder's own words");
    assert_eq!(
        rest,
        [
            "a.tar/good: its key was there before in this shard",
            "alone: it has no jpg, jpeg, png or webp",
            "blank: its caption is empty",
            "class: its class `seven` is not a whole number",
            "html: not a JPEG, PNG or WebP image",
            "latin1: its caption is not UTF-8",
            "silent: it has no caption (txt)",
        ]
    );
    let one = OpenOptions { limit: Some(2), ..options(&dir.path().join("cache")) };
    assert_eq!(Dataset::open(&dir.path().join("pool"), &one).unwrap().len(), 2);
}

#[test]
fn img2dataset_folders_are_read_as_they_are() {
    let dir = tempfile::tempdir().unwrap();
    let formats = [image::ImageFormat::Jpeg, image::ImageFormat::WebP, image::ImageFormat::Png];
    let [jpeg, webp, png] = formats.map(|format| picture([200, 40, 90], format));
    let json = br#"{"caption":"c","key":"000000000","status":"success"}"#;
    write_tar(
        &dir.path().join("00000.tar"),
        &[
            ("000000000.jpg", &jpeg),
            ("000000000.txt", b"a jpeg"),
            ("000000000.json", json),
            ("./sub/000000001.webp", &webp),
            ("./sub/000000001.txt", b"a webp"),
        ],
    );
    write_tar(&dir.path().join("00001.tar"), &[("000000000.PNG", &png), ("000000000.txt", b"a png")]);
    fs::write(dir.path().join("00000.parquet"), b"img2dataset writes one, too").unwrap();
    fs::write(dir.path().join("sizes.json"), br#"{"00000.tar": 2, "00001.tar": 1}"#).unwrap();
    let cache = tempfile::tempdir().unwrap();
    let dataset = Dataset::open(dir.path(), &options(cache.path())).unwrap();
    let mut seen: Vec<(&str, &str)> = (0..3).map(|i| (dataset.key(i), dataset.caption(i))).collect();
    seen.sort_unstable();
    assert_eq!(
        seen,
        [("00000.tar/000000000", "a jpeg"), ("00001.tar/000000000", "a png"), ("sub/000000001", "a webp")]
    );
    for (key, pixels) in content(&dataset) {
        assert!(pixels[0].abs_diff(200) < 5 && pixels[1].abs_diff(40) < 5, "{key}: {:?}", &pixels[..3]);
    }
    assert_eq!(inspect(dir.path()).unwrap().identity.counts.pairs, 3);
}

#[test]
fn what_cannot_be_a_dataset_is_refused_in_words() {
    let dir = tempfile::tempdir().unwrap();
    let open = |name: &str, limit| {
        let options = OpenOptions { limit, ..options(&dir.path().join("cache")) };
        Dataset::open(&dir.path().join(name), &options).err().map(|error| error.to_string()).unwrap_or_default()
    };
    assert!(open("nowhere", None).starts_with("there is no pool folder"));
    fs::create_dir(dir.path().join("bare")).unwrap();
    assert!(open("bare", None).contains("holds no `*.tar` shards"));
    write_tar(&dir.path().join("mute/0.tar"), &[("a.png", &png([0; 3]))]);
    assert!(open("mute", None).contains("has no usable pair (1 skipped, first: a: it has no caption (txt))"));
    small_pool(&dir.path().join("few"), 5);
    let error = open("few", Some(9));
    assert!(error.contains("data size 9 is larger") && error.contains("it has 5 good pairs"), "{error}");
    fs::write(dir.path().join("few/sizes.json"), b"[]").unwrap();
    assert!(open("few", None).contains("sizes.json"));
    let odd = OpenOptions { image_size: 0, ..options(dir.path()) };
    assert!(matches!(Dataset::open(&dir.path().join("few"), &odd), Err(Error::ImageSize(0))));
}

#[test]
fn classes_must_have_a_name_and_can_stand_in_for_captions() {
    let dir = tempfile::tempdir().unwrap();
    let image = png([9, 9, 9]);
    let members: [(&str, &[u8]); 4] = [("a.png", &image), ("a.cls", b"1"), ("b.png", &image), ("b.cls", b"0\n")];
    write_tar(&dir.path().join("0.tar"), &members);
    fs::write(dir.path().join("classnames.txt"), "cat\ndog\n").unwrap();
    let cache = tempfile::tempdir().unwrap();
    let dataset = Dataset::open(dir.path(), &options(cache.path())).unwrap();
    let mut pairs: Vec<(Option<u32>, &str)> = (0..2).map(|i| (dataset.class(i), dataset.caption(i))).collect();
    pairs.sort_unstable();
    assert_eq!(pairs, [(Some(0), "cat"), (Some(1), "dog")]);

    // Without a name it has no caption either.
    fs::write(dir.path().join("classnames.txt"), "cat\n").unwrap();
    let dataset = Dataset::open(dir.path(), &options(cache.path())).unwrap();
    assert_eq!((dataset.caption(0), dataset.skipped_kinds()), ("cat", [("no caption", 1)].into()));
    write_tar(&dir.path().join("1.tar"), &[("c.png", &image), ("c.cls", b"1"), ("c.txt", b"a caption")]);
    let error = Dataset::open(dir.path(), &options(cache.path())).err().unwrap().to_string();
    assert!(error.contains("has class 1, but there are 1 class names"), "{error}");
}

/// The planner counts with `shards::counts`; every pair it counts is one that the reader hands out.
#[test]
fn planner_and_reader_count_the_same_pairs() {
    let dir = tempfile::tempdir().unwrap();
    let image = png([7, 8, 9]);
    let long = "long".repeat(40);
    let names = |key: &str| [format!("{key}.png"), format!("{key}.txt")];
    let mut shards = Vec::new();
    for (at, keys) in [
        vec![long.clone(), format!("{long}2"), "holiday.0001".into(), "holiday.0002".into()],
        vec!["a".into(), "a".into(), "UPPER".into(), "caf\u{e9}".into(), "deep/er/b".into()],
        vec!["c".into()],
    ]
    .into_iter()
    .enumerate()
    {
        let named: Vec<[String; 2]> = keys.iter().map(|key| names(key)).collect();
        let members: Vec<(&str, &[u8])> =
            named.iter().flat_map(|[png, txt]| [(png.as_str(), &image[..]), (txt.as_str(), &b"words"[..])]).collect();
        let path = dir.path().join(format!("pool/{at}.tar"));
        write_tar(&path, &members);
        shards.push(path);
    }
    // Two archives in one file, and captions that say nothing.
    let joined = [fs::read(&shards[2]).unwrap(), fs::read(&shards[1]).unwrap()].concat();
    fs::write(&shards[2], joined).unwrap();
    write_tar(&dir.path().join("pool/3.tar"), &[("e.png", &image), ("e.txt", "\u{feff}\u{200b}".as_bytes())]);
    let pool = dir.path().join("pool");

    let total = inspect(&pool).unwrap().identity.counts;
    let kinds = total.skipped.iter().map(|(kind, &count)| (kind.as_str(), count)).collect();
    let dataset = Dataset::open(&pool, &options(&dir.path().join("cache"))).unwrap();
    assert_eq!((dataset.len() as u64, dataset.skipped_kinds()), (total.pairs, kinds));
    // `holiday` is one sample whose extensions are `0001.png` and so on: no image.
    assert_eq!(total.pairs, 2 + 4 + 1 + 4);
    assert_eq!(
        dataset.skipped_kinds(),
        [("empty caption", 1), ("key twice in its shard", 2), ("no image, a dot in its name", 1)].into()
    );
}

#[test]
fn a_count_that_does_not_hold_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let pool = dir.path().join("pool");
    small_pool(&pool, 5);
    let open = |sizes: &str| {
        fs::write(pool.join("sizes.json"), sizes).unwrap();
        Dataset::open(&pool, &options(&dir.path().join("cache")))
            .map(|data| data.len())
            .map_err(|error| error.to_string())
    };
    let error = open(r#"{"00000.tar": 6}"#).unwrap_err();
    assert!(error.contains("gives shard `00000.tar` 6 pairs, which holds 5\nhint: "), "{error}");
    let error = open("{}").unwrap_err();
    assert!(error.contains("shard `00000.tar` lies beside it but is not in it"), "{error}");
    assert_eq!(open(r#"{"00000.tar": 5}"#), Ok(5));
    fs::write(pool.join("00001.tar.gz"), b"\x1f\x8b").unwrap();
    assert!(open(r#"{"00000.tar": 5}"#).unwrap_err().contains("`gzip -d < "));
}
