//! Pixels against Pillow's: committed ones, and those of the Python environment where there is one.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use flate2::read::GzDecoder;
use pool::{Crop, Dataset, Keep, OpenOptions};

use crate::support::options;

/// Most that a value may differ from Pillow's, of 255.
fn allowed(_key: &str) -> u8 {
    1
}

/// `KEY/SIZE` or `KEY/SIZE/LEFT,TOP,WIDTH,HEIGHT` to the pixels that are expected.
type Expected = BTreeMap<String, Vec<u8>>;

fn expected(archive: impl std::io::Read) -> Expected {
    let mut archive = tar::Archive::new(archive);
    let read = |mut entry: tar::Entry<'_, _>| {
        let mut bytes = Vec::new();
        std::io::Read::read_to_end(&mut entry, &mut bytes).unwrap();
        (entry.path().unwrap().to_string_lossy().into_owned(), bytes)
    };
    archive.entries().unwrap().map(|entry| read(entry.unwrap())).collect()
}

/// Compares all pixels, from caches and decoded at each reading.
fn compare(pool: &Path, expected: &Expected) {
    let cache = tempfile::tempdir().unwrap();
    let mut worst: BTreeMap<&str, (u8, f64)> = BTreeMap::new();
    for image_size in [32, 224] {
        for (keep, cache_bytes) in [(Keep::Square, 1 << 30), (Keep::Original, 1 << 30), (Keep::Original, 0)] {
            let place = cache.path().join(cache_bytes.to_string());
            let options = OpenOptions { image_size, keep, cache_bytes, ..options(&place) };
            let data = Dataset::open(pool, &options).unwrap();
            assert_eq!((data.skipped(), data.is_streamed()), (&[][..], cache_bytes == 0));
            let at: BTreeMap<&str, usize> = (0..data.len()).map(|i| (data.key(i), i)).collect();
            let mut out = vec![0; data.image_bytes()];
            for (name, pixels) in expected {
                let parts: Vec<&str> = name.split('/').collect();
                if parts[1] != image_size.to_string() || keep == Keep::Square && parts.len() > 2 {
                    continue;
                }
                match parts.get(2) {
                    None => data.read_image(at[parts[0]], &mut out).unwrap(),
                    Some(crop) => {
                        let numbers: Vec<u32> = crop.split(',').map(|number| number.parse().unwrap()).collect();
                        let [left, top, width, height] = numbers[..] else { panic!("{name}") };
                        data.read_crop(at[parts[0]], |_, _| Crop { left, top, width, height }, &mut out).unwrap();
                    }
                }
                let differences: Vec<u8> = out.iter().zip(pixels).map(|(a, b)| a.abs_diff(*b)).collect();
                let most = *differences.iter().max().unwrap();
                let mean = differences.iter().map(|&d| f64::from(d)).sum::<f64>() / differences.len() as f64;
                let entry = worst.entry(parts[0]).or_default();
                *entry = (entry.0.max(most), entry.1.max(mean));
            }
        }
    }
    for (key, (most, mean)) in &worst {
        println!("{key}: {most} {mean:.3}");
    }
    let bad: Vec<_> = worst.iter().filter(|(key, (most, _))| *most > allowed(key)).collect();
    assert!(bad.is_empty(), "{bad:?}");
}

#[test]
fn pixels_are_those_of_pillow() {
    let dir = tempfile::tempdir().unwrap();
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data");
    let unpacked = |name: &str| GzDecoder::new(File::open(data.join(name)).unwrap());
    let mut pool = Vec::new();
    unpacked("pictures.tar.gz").read_to_end(&mut pool).unwrap();
    fs::write(dir.path().join("pictures.tar"), pool).unwrap();
    let expected = expected(unpacked("expected.tar.gz"));
    assert!(expected.len() > 60, "{}", expected.len());
    compare(dir.path(), &expected);
}

/// The same with larger pictures at two sizes, made on the spot.
#[test]
fn pixels_are_those_of_the_pillow_at_hand() {
    let environment = std::env::var("SWEEP_PYTHON_VENV").unwrap_or_else(|_| "../../.venv-python".into());
    let python = PathBuf::from(environment).join("bin/python");
    if !python.is_file() {
        eprintln!("skipped: no Python environment (make python)");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/pictures.py");
    let made = Command::new(python).arg(script).arg(dir.path()).arg("--large").output().unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let pool = dir.path().join("pool");
    fs::create_dir(&pool).unwrap();
    fs::rename(dir.path().join("pictures.tar"), pool.join("pictures.tar")).unwrap();
    compare(&pool, &expected(File::open(dir.path().join("expected.tar")).unwrap()));
}
