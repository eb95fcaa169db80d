//! What a page was drawn from, kept beside it: a report of the same inputs need not be drawn again.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::{PAGE_FILE, Rendered};

/// Name of the file in a report's folder.
pub const STAMP_FILE: &str = ".inputs.json";

/// Inputs and files of a report that was written whole.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stamp {
    /// sha256 of everything that went in.
    inputs: String,
    /// Bytes of each file, by its path in the folder.
    files: BTreeMap<String, u64>,
}

impl Stamp {
    /// That of a report as rendered.
    pub fn of(rendered: &Rendered, inputs: String) -> Stamp {
        let figures = rendered.figures.iter().map(|figure| (format!("figures/{}", figure.file), figure.svg.len()));
        let files = figures.chain([(PAGE_FILE.to_owned(), rendered.html.len())]);
        Stamp { inputs, files: files.map(|(path, length)| (path, length as u64)).collect() }
    }

    /// That of the report in `folder`; `None`: there is none that can be read.
    pub fn read(folder: &Path) -> Option<Stamp> {
        serde_json::from_slice(&std::fs::read(folder.join(STAMP_FILE)).ok()?).ok()
    }

    /// Whether the report is one of these inputs and its files are there in their lengths.
    pub fn holds(&self, folder: &Path, inputs: &str) -> bool {
        let whole = |(path, length): (&String, &u64)| {
            std::fs::metadata(folder.join(path)).is_ok_and(|file| file.is_file() && file.len() == *length)
        };
        self.inputs == inputs && self.files.iter().all(whole)
    }

    /// Writes it, whole or not at all.
    pub fn write(&self, folder: &Path) -> io::Result<()> {
        let new = folder.join(".inputs.json.new");
        std::fs::write(&new, serde_json::to_vec_pretty(self)?)?;
        std::fs::rename(new, folder.join(STAMP_FILE))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_holds_while_its_inputs_and_files_do() {
        let folder = tempfile::tempdir().expect("a folder");
        let rendered = Rendered { html: "<html>".to_owned(), figures: Vec::new() };
        assert_eq!(Stamp::read(folder.path()), None);
        let stamp = Stamp::of(&rendered, "a".to_owned());
        assert!(!stamp.holds(folder.path(), "a"), "the page is not there");
        std::fs::write(folder.path().join(PAGE_FILE), &rendered.html).expect("written");
        stamp.write(folder.path()).expect("written");
        let read = Stamp::read(folder.path()).expect("it is there");
        assert!(read.holds(folder.path(), "a") && !read.holds(folder.path(), "b"));
        std::fs::write(folder.path().join(PAGE_FILE), "<ht").expect("cut off");
        assert!(!read.holds(folder.path(), "a"));
    }
}
