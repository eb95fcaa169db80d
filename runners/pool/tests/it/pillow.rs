//! Pixels against Pillow's: committed ones, and those of the Python environment where there is one.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use flate2::read::GzDecoder;
use pool::{Crop, Dataset, Keep, OpenOptions};
use protocol::{Interpolation, ResizeMode};

use crate::support::options;

/// How pixels differ from Pillow's.
#[derive(Debug, Clone, Copy, Default)]
struct Difference {
    /// Of a value, of 255.
    most: u8,
    mean: f64,
    /// Share of values that differ by more than 4.
    far: f64,
}

impl Difference {
    fn between(found: &[u8], expected: &[u8]) -> Difference {
        assert_eq!(found.len(), expected.len());
        let all: Vec<u8> = found.iter().zip(expected).map(|(a, b)| a.abs_diff(*b)).collect();
        Difference {
            most: all.iter().copied().max().unwrap_or_default(),
            mean: all.iter().map(|&by| f64::from(by)).sum::<f64>() / all.len() as f64,
            far: all.iter().filter(|&&by| by > 4).count() as f64 / all.len() as f64,
        }
    }

    fn worse(self, other: Difference) -> Difference {
        let (most, mean, far) = (self.most.max(other.most), self.mean.max(other.mean), self.far.max(other.far));
        Difference { most, mean, far }
    }

    /// JPEG decoders round differently (by 3, by 4 with chroma at half resolution), and do otherwise at the right edge
    /// of a picture whose chroma is wider than it. All else is the same to the bit.
    fn is_allowed(self, key: &str) -> bool {
        if key.contains("jpeg") || ["cmyk", "turned"].contains(&key) {
            self.most <= 24 && self.mean < 0.6 && self.far < 0.005
        } else {
            self.most == 0
        }
    }
}

/// `KEY/SIZE`, `KEY/SIZE/INTERPOLATION-MODE` or `KEY/SIZE/LEFT,TOP,WIDTH,HEIGHT` to the pixels that are expected.
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

/// From `bilinear-longest`, in the protocol's own words.
fn form_of(name: &str) -> (Interpolation, ResizeMode) {
    let (interpolation, mode) = name.split_once('-').unwrap();
    let word = |word: &str| serde_json::Value::from(word);
    (serde_json::from_value(word(interpolation)).unwrap(), serde_json::from_value(word(mode)).unwrap())
}

/// Compares all pixels, from caches and decoded at each reading.
fn compare(pool: &Path, expected: &Expected) {
    let cache = tempfile::tempdir().unwrap();
    let mut worst: BTreeMap<&str, Difference> = BTreeMap::new();
    for image_size in [32, 224] {
        for (keep, cache_bytes) in [(Keep::Square, 1 << 30), (Keep::Original, 1 << 30), (Keep::Original, 0)] {
            let place = cache.path().join(cache_bytes.to_string());
            let options = OpenOptions { image_size, keep, cache_bytes, ..options(&place) };
            let data = Dataset::open(pool, &options).unwrap();
            assert_eq!((data.skipped(), data.is_streamed()), (&[][..], cache_bytes == 0));
            let at: BTreeMap<&str, usize> = (0..data.len()).map(|i| (data.key(i), i)).collect();
            let mut out = vec![0; data.image_bytes()];
            let mut forms: BTreeMap<String, Dataset> = BTreeMap::new();
            for (name, pixels) in expected {
                let parts: Vec<&str> = name.split('/').collect();
                let crop = parts.get(2).filter(|part| part.contains(','));
                if parts[1] != image_size.to_string() || keep == Keep::Square && crop.is_some() {
                    continue;
                }
                match (parts.get(2), crop) {
                    (None, _) => data.read_image(at[parts[0]], &mut out).unwrap(),
                    (Some(form), None) => {
                        let data = forms.entry((*form).to_owned()).or_insert_with(|| {
                            let (interpolation, resize_mode) = form_of(form);
                            let options = OpenOptions { interpolation, resize_mode, ..options.clone() };
                            Dataset::open(pool, &options).unwrap()
                        });
                        data.read_image(at[parts[0]], &mut out).unwrap();
                    }
                    (Some(_), Some(crop)) => {
                        let numbers: Vec<u32> = crop.split(',').map(|number| number.parse().unwrap()).collect();
                        let [left, top, width, height] = numbers[..] else { panic!("{name}") };
                        data.read_crop(at[parts[0]], |_, _| Crop { left, top, width, height }, &mut out).unwrap();
                    }
                }
                let entry = worst.entry(parts[0]).or_default();
                *entry = entry.worse(Difference::between(&out, pixels));
            }
        }
    }
    assert!(worst.len() > 40, "{}", worst.len());
    let of_form = |form: &str| expected.keys().filter(|name| name.ends_with(form)).count();
    for form in ["bicubic-longest", "bicubic-squash", "bilinear-shortest", "bilinear-longest", "bilinear-squash"] {
        assert!(of_form(form) > 2, "{form}");
    }
    let bad: Vec<_> = worst.iter().filter(|(key, difference)| !difference.is_allowed(key)).collect();
    assert!(bad.is_empty(), "{bad:#?}");
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
        use std::io::Write as _;
        let _ = writeln!(std::io::stderr(), "skipped: no Python environment (scripts/python-venv.sh)");
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
