//! Tar files, images and small package archives, made on the spot; the fixture's folder.

use std::fs;
use std::io::Cursor;
use std::path::{Path, PathBuf};

use pool::{Dataset, Error, OpenOptions, PoolInfo};
use sha2::{Digest as _, Sha256};

/// A pool of the fixture: real emoji, 32 pixels.
pub(crate) fn fixture(pool: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixture").join(pool)
}

/// Options that leave no pixels in the pool's folder.
pub(crate) fn options(cache: &Path) -> OpenOptions {
    OpenOptions { image_size: 32, cache_dir: Some(cache.to_owned()), ..OpenOptions::default() }
}

/// A flat picture.
pub(crate) fn picture(color: [u8; 3], format: image::ImageFormat) -> Vec<u8> {
    let mut bytes = Cursor::new(Vec::new());
    image::RgbImage::from_pixel(32, 32, image::Rgb(color)).write_to(&mut bytes, format).unwrap();
    bytes.into_inner()
}

pub(crate) fn png(color: [u8; 3]) -> Vec<u8> {
    picture(color, image::ImageFormat::Png)
}

/// What a pool's folder holds; nothing is remembered but beside it.
pub(crate) fn inspect(dir: &Path) -> Result<PoolInfo, Error> {
    pool::inspect(dir, None, &mut shards::no_progress())
}

/// A tar file in memory.
pub(crate) fn tar(members: &[(&str, &[u8])]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (name, bytes) in members {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        builder.append_data(&mut header, name, *bytes).unwrap();
    }
    builder.into_inner().unwrap()
}

pub(crate) fn write_tar(path: &Path, members: &[(&str, &[u8])]) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, tar(members)).unwrap();
}

/// A pool of `count` good pairs, `00000.tar`, without a manifest. Captions are `caption N`.
pub(crate) fn small_pool(dir: &Path, count: u8) {
    let samples: Vec<(String, Vec<u8>, String)> =
        (0..count).map(|i| (format!("{i:04}"), png([i, 255 - i, 7]), format!("caption {i}"))).collect();
    let mut members = Vec::new();
    let names: Vec<[String; 2]> =
        samples.iter().map(|(key, ..)| [format!("{key}.png"), format!("{key}.txt")]).collect();
    for ((_, image, caption), [image_name, text_name]) in samples.iter().zip(&names) {
        members.push((image_name.as_str(), image.as_slice()));
        members.push((text_name.as_str(), caption.as_bytes()));
    }
    write_tar(&dir.join("00000.tar"), &members);
}

pub(crate) fn sha256(bytes: &[u8]) -> String {
    format!("{:x}", Sha256::digest(bytes))
}

/// Writes a package archive as npm lays it out and returns its source entry for a recipe.
pub(crate) fn package(dir: &Path, name: &str, license: &str, files: &[(&str, String)]) -> serde_json::Value {
    let names: Vec<String> = files.iter().map(|(name, _)| format!("package/{name}")).collect();
    let members: Vec<(&str, &[u8])> =
        names.iter().zip(files).map(|(name, (_, text))| (name.as_str(), text.as_bytes())).collect();
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    std::io::Write::write_all(&mut encoder, &tar(&members)).unwrap();
    let bytes = encoder.finish().unwrap();
    let file = format!("{name}-1.0.0.tgz");
    fs::create_dir_all(dir).unwrap();
    fs::write(dir.join(&file), &bytes).unwrap();
    serde_json::json!({"package": format!("{name}@1.0.0"), "file": file, "sha256": sha256(&bytes), "license": license})
}

/// All keys and pixels.
pub(crate) fn content(dataset: &Dataset) -> Vec<(String, Vec<u8>)> {
    (0..dataset.len())
        .map(|i| {
            let mut pixels = vec![0; dataset.image_bytes()];
            dataset.read_image(i, &mut pixels).unwrap();
            (dataset.key(i).to_owned(), pixels)
        })
        .collect()
}
