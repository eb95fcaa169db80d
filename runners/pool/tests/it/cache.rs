//! The decoded cache: shared, budgeted, rebuilt when the pool changes.

use std::fs;
use std::path::Path;

use pool::{Crop, Dataset, Error, Keep, OpenOptions};
use protocol::Alpha;

use crate::support::{content, fixture, options, small_pool, write_tar};

/// Names of the files in a cache folder without locks.
fn files(dir: &Path) -> Vec<String> {
    let paths = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    let paths = paths.filter(|path| path.extension().is_none_or(|extension| extension != "lock"));
    let mut names: Vec<String> = paths.map(|path| path.file_name().unwrap().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

#[test]
fn two_threads_that_start_together_share_one_cache() {
    let cache = tempfile::tempdir().unwrap();
    let start = std::sync::Barrier::new(4);
    let open = || {
        start.wait();
        content(&Dataset::open(&fixture("train"), &options(cache.path())).unwrap())
    };
    let contents: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..4).map(|_| scope.spawn(open)).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert!(contents.iter().all(|content| *content == contents[0]));
    let names = files(cache.path());
    assert!(names.len() == 1 && names[0].ends_with("-32px-all.cache"), "{names:?}");
}

#[test]
fn a_cache_of_the_whole_pool_serves_every_data_size() {
    let dir = tempfile::tempdir().unwrap();
    small_pool(dir.path(), 20);
    let cache = tempfile::tempdir().unwrap();
    for limit in [Some(7), Some(20), None, Some(1)] {
        let dataset = Dataset::open(dir.path(), &OpenOptions { limit, ..options(cache.path()) }).unwrap();
        assert_eq!(dataset.len() as u64, limit.unwrap_or(20));
    }
    assert_eq!(files(cache.path()).len(), 1);
    let larger = OpenOptions { image_size: 48, ..options(cache.path()) };
    assert_eq!(Dataset::open(dir.path(), &larger).unwrap().image_bytes(), 48 * 48 * 3);
    assert_eq!(files(cache.path()).len(), 2);
    let too_many = OpenOptions { limit: Some(21), ..options(cache.path()) };
    assert!(matches!(Dataset::open(dir.path(), &too_many), Err(Error::TooFew { asked: 21, found: 20, .. })));
}

#[test]
fn a_file_in_the_place_of_the_cache_is_said_with_the_way_out() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("cache");
    fs::write(&file, "").unwrap();
    let error = Dataset::open(&fixture("val"), &options(&file)).map(drop).unwrap_err().to_string();
    assert!(error.contains("it is no folder") && error.contains("hint: move it away"), "{error}");
}

#[test]
fn a_cache_that_is_not_whole_is_made_again() {
    let cache = tempfile::tempdir().unwrap();
    let before = content(&Dataset::open(&fixture("val"), &options(cache.path())).unwrap());
    let path = cache.path().join(&files(cache.path())[0]);
    let whole = fs::read(&path).unwrap();
    for cut in [0, 10, 4096, whole.len() / 2, whole.len() - 1] {
        fs::write(&path, &whole[..cut]).unwrap();
        assert_eq!(content(&Dataset::open(&fixture("val"), &options(cache.path())).unwrap()), before);
    }
    assert_eq!(fs::read(&path).unwrap(), whole);
}

#[test]
fn a_pool_larger_than_the_budget_is_streamed_with_the_same_pixels() {
    let [cached, streamed] = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let expected = Dataset::open(&fixture("train"), &options(cached.path())).unwrap();
    let small = OpenOptions { cache_bytes: 10_000, limit: Some(250), ..options(streamed.path()) };
    let dataset = Dataset::open(&fixture("train"), &small).unwrap();
    assert!(dataset.is_streamed() && !expected.is_streamed());
    assert_eq!(content(&dataset), content(&expected)[..250]);
    // The second time only the index is read.
    let index = &files(streamed.path())[0];
    assert!(
        index.contains("-32px-250-") && std::path::Path::new(index).extension().is_some_and(|end| end == "index"),
        "{index}"
    );
    assert_eq!(content(&Dataset::open(&fixture("train"), &small).unwrap()).len(), 250);
}

#[test]
fn originals_that_outgrow_the_budget_are_streamed_with_the_same_pixels() {
    let dir = tempfile::tempdir().unwrap();
    small_pool(dir.path(), 20);
    let [cached, streamed] = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let open = |cache: &Path, cache_bytes| {
        let originals = OpenOptions { keep: Keep::Original, image_size: 24, limit: Some(15), ..options(cache) };
        Dataset::open(dir.path(), &OpenOptions { cache_bytes, ..originals }).unwrap()
    };
    // One byte short of the last.
    let (all, few) = (open(cached.path(), 15 * 3072), open(streamed.path(), 15 * 3072 - 1));
    assert_eq!((all.cached_bytes(), all.is_streamed()), (15 * 3072, false));
    assert_eq!((few.cached_bytes(), few.is_streamed()), (0, true));
    assert!(files(cached.path())[0].ends_with("-original-15.cache"));
    let index = &files(streamed.path())[0];
    assert!(
        index.contains("-original-15-") && std::path::Path::new(index).extension().is_some_and(|end| end == "index"),
        "{index}"
    );
    assert_eq!(content(&all), content(&few));
    let squares = OpenOptions { image_size: 24, ..options(cached.path()) };
    assert_eq!(content(&Dataset::open(dir.path(), &squares).unwrap())[..15], content(&all));
    // Crops are of what the picture really is.
    let mut crops = [vec![0; all.image_bytes()], vec![0; all.image_bytes()]];
    for (data, out) in [&all, &few].into_iter().zip(&mut crops) {
        let choose = |width, height| {
            assert_eq!((width, height), (32, 32));
            Crop { left: 3, top: 1, width: 20, height: 30 }
        };
        data.read_crop(14, choose, out).unwrap();
    }
    assert_eq!(crops[0], crops[1]);
}

#[test]
fn what_becomes_of_alpha_makes_another_cache() {
    let dir = tempfile::tempdir().unwrap();
    let mut clear = std::io::Cursor::new(Vec::new());
    let picture = image::RgbaImage::from_pixel(32, 32, image::Rgba([10, 20, 30, 0]));
    picture.write_to(&mut clear, image::ImageFormat::Png).unwrap();
    write_tar(&dir.path().join("0.tar"), &[("a.png", clear.get_ref()), ("a.txt", b"clear")]);
    let cache = tempfile::tempdir().unwrap();
    for (alpha, pixel) in [(Alpha::Drop, [10, 20, 30]), (Alpha::White, [255; 3]), (Alpha::Drop, [10, 20, 30])] {
        let data = Dataset::open(dir.path(), &OpenOptions { alpha, ..options(cache.path()) }).unwrap();
        assert_eq!(content(&data)[0].1, pixel.repeat(32 * 32));
    }
    assert_eq!(files(cache.path()).len(), 2);
}

#[test]
fn a_buffer_of_another_length_is_refused() {
    let cache = tempfile::tempdir().unwrap();
    let dataset = Dataset::open(&fixture("val"), &options(cache.path())).unwrap();
    let error = dataset.read_image(0, &mut [0; 10]).unwrap_err();
    assert!(matches!(error, Error::Buffer { needed: 3072, given: 10 }));
}
