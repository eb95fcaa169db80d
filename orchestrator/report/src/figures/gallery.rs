//! Every analysis figure from made-up data, as files to look at: `SWEEP_FIGURES=folder cargo nextest run gallery`.

use std::path::PathBuf;

use super::data::Picture;
use super::{check, sample};

#[test]
fn gallery_is_sound_and_nothing_overlaps() {
    let folder = std::env::var_os("SWEEP_FIGURES").map(PathBuf::from);
    let mut crowded = Vec::new();
    for (name, draw) in sample::gallery() {
        let picture: Picture = check::sound(draw);
        let png = picture.png().expect("it can be drawn");
        assert!(png.starts_with(b"\x89PNG"), "{name}");
        if let Some(folder) = &folder {
            std::fs::create_dir_all(folder).expect("the folder can be made");
            std::fs::write(folder.join(name).with_extension("svg"), picture.standalone()).expect("it can be written");
            std::fs::write(folder.join(name).with_extension("png"), png).expect("it can be written");
        }
        crowded.extend(check::crowded(&picture).into_iter().map(|pair| format!("{name}: {pair:?}")));
    }
    assert!(crowded.is_empty(), "{}", crowded.join("\n"));
}
