//! Cells added to the text of a spec, as entries of `include`. All else stays as it was written, comments too.

use std::fmt::{self, Write};

use super::error::Path;
use super::{Axes, DataSize, Source, Spec, SpecError, locate, parse};

/// A cell to add.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Added {
    /// Model as a spec writes it.
    pub model: String,
    /// Samples to train on.
    pub samples_seen: u64,
    /// Unique samples that it may see.
    pub data_size: u64,
    /// Seed.
    pub seed: u64,
}

impl Added {
    fn axes(&self) -> Axes {
        Axes {
            model: vec![self.model.clone()],
            samples_seen: vec![self.samples_seen],
            data_size: vec![DataSize::Samples(self.data_size)],
            seed: vec![self.seed],
        }
    }
}

/// `{model: ViT-B-32, samples_seen: 128000, data_size: 4000, seed: 1}`, as it stands in a spec.
impl fmt::Display for Added {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Added { samples_seen, data_size, seed, .. } = self;
        let model = quoted(&self.model);
        write!(f, "{{model: {model}, samples_seen: {samples_seen}, data_size: {data_size}, seed: {seed}}}")
    }
}

/// Why cells can't be added.
#[derive(Debug, thiserror::Error)]
pub enum IncludeError {
    /// `include: [...]`.
    #[error("can't add jobs to {name}: its `include` is not a list with one `- {{...}}` a line")]
    NotABlock {
        /// The spec.
        name: String,
    },
    /// The text that came out says something else.
    #[error("can't add jobs to {name}: with the entries added, its text would say something else")]
    Changed {
        /// The spec.
        name: String,
    },
    /// The spec, or what came out, has mistakes.
    #[error(transparent)]
    Spec(#[from] SpecError),
}

/// The text of a spec with cells added. What comes out has been read again: it says what it said, and the cells.
pub fn with_included(source: &Source, added: &[Added]) -> Result<String, IncludeError> {
    let before = parse(source)?;
    if added.is_empty() {
        return Ok(source.text().to_owned());
    }
    let name = || source.name().to_owned();
    let text =
        inserted(source.text(), before.include.len(), added).ok_or_else(|| IncludeError::NotABlock { name: name() })?;
    let after = parse(&Source::new(source.name(), &text))?;
    let mut wanted = Spec { source: after.source.clone(), ..before };
    wanted.include.extend(added.iter().map(Added::axes));
    if after == wanted { Ok(text) } else { Err(IncludeError::Changed { name: name() }) }
}

/// The text with the entries in it; `None` where `include` is there and no block list.
fn inserted(text: &str, entries: usize, added: &[Added]) -> Option<String> {
    let newline = if text.contains("\r\n") { "\r\n" } else { "\n" };
    let path = Path::keys(&["include"]);
    let (at, indent, head) = if let Some(last) = entries.checked_sub(1) {
        let start = locate::value(text, &path.index(last))?.start;
        let line = text[..start].rfind('\n').map_or(0, |newline| newline + 1);
        let lead = &text[line..start];
        if lead.trim() != "-" {
            return None;
        }
        let indent = lead.len() - lead.trim_start().len();
        (end_of_entry(text, line, indent), indent, String::new())
    } else {
        if locate::key(text, &path).is_some_and(|key| text[key].trim_matches(['"', '\'']) == "include") {
            return None;
        }
        (text.len(), 2, format!("{newline}# Added by `sweep advise`.{newline}include:{newline}"))
    };
    let mut out = text[..at].to_owned();
    if !out.is_empty() && !out.ends_with('\n') {
        out.push_str(newline);
    }
    out.push_str(&head);
    for entry in added {
        write!(out, "{:indent$}- {entry}{newline}", "").expect("writing to a string can't fail");
    }
    out.push_str(&text[at..]);
    Some(out)
}

/// Just after the last line of the entry whose `-` stands `indent` columns into the line at `start`.
fn end_of_entry(text: &str, start: usize, indent: usize) -> usize {
    let mut at = start;
    let mut end = start;
    for (index, line) in text[start..].split_inclusive('\n').enumerate() {
        at += line.len();
        let content = line.trim_start_matches(' ');
        if index > 0 {
            if content.trim().is_empty() || content.starts_with('#') {
                continue;
            }
            if line.len() - content.len() <= indent {
                break;
            }
        }
        end = at;
    }
    end
}

/// A text as it is where YAML reads it as that text, else in double quotes.
fn quoted(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '/');
    let word = !matches!(text.to_ascii_lowercase().as_str(), "null" | "true" | "false" | "yes" | "no" | "on" | "off");
    if word && text.starts_with(|c: char| c.is_ascii_alphabetic()) && text.chars().all(plain) {
        return text.to_owned();
    }
    let mut out = String::from('"');
    for c in text.chars() {
        if matches!(c, '"' | '\\') {
            out.push('\\');
        }
        out.push(c);
    }
    out.push('"');
    out
}

#[cfg(test)]
mod tests {
    use super::super::TEMPLATE;
    use super::*;

    const HEAD: &str = "name: x\ngrid: {model: cpu-w32-l2, samples_seen: 8k, data_size: 500}\n";

    fn two() -> Vec<Added> {
        [1, 2].map(|seed| Added { model: "cpu-w64-l3".to_owned(), samples_seen: 8000, data_size: 500, seed }).to_vec()
    }

    fn added_to(text: &str) -> Result<String, IncludeError> {
        with_included(&Source::new("x.yaml", text), &two())
    }

    #[test]
    fn a_section_is_added_where_there_is_none() {
        let text = format!("{HEAD}recipe: {{global_batch: 128}} # last");
        let out = added_to(&text).expect("a spec");
        insta::assert_snapshot!(&out[text.len()..], @"

        # Added by `sweep advise`.
        include:
          - {model: cpu-w64-l3, samples_seen: 8000, data_size: 500, seed: 1}
          - {model: cpu-w64-l3, samples_seen: 8000, data_size: 500, seed: 2}
        ");
        assert!(out.starts_with(&text));
        let more = with_included(
            &Source::new("x.yaml", &out),
            &[Added { model: "cpu-w96-l4".to_owned(), samples_seen: 1024, data_size: 500, seed: 0 }],
        );
        assert!(
            more.expect("a spec")
                .ends_with("seed: 2}\n  - {model: cpu-w96-l4, samples_seen: 1024, data_size: 500, seed: 0}\n")
        );
    }

    #[test]
    fn entries_follow_those_that_are_there() {
        let text = format!(
            "{HEAD}include: # why\n# first\n- {{seed: 3}}   # one\n\n- model: cpu-w64-l3\n\n  # inside\n  seed: [4,\n    5]\n\
             # of the recipe\n\nrecipe: {{global_batch: 128}}\n"
        );
        let out = added_to(&text).expect("a spec");
        let entries: String = two().iter().map(|entry| format!("- {entry}\n")).collect();
        assert_eq!(out, text.replace("    5]\n", &format!("    5]\n{entries}")));
        let indented = format!("{HEAD}recipe: {{global_batch: 128}}\ninclude:\n    - {{seed: 3}}");
        let out = added_to(&indented).expect("a spec");
        assert_eq!(out, format!("{indented}\n{}", entries.replace("- {", "    - {")));
    }

    #[test]
    fn line_ends_stay_as_they_are() {
        let text = format!("{HEAD}include:\n  - {{seed: 3}}\nrecipe: {{global_batch: 128}}\n").replace('\n', "\r\n");
        let out = added_to(&text).expect("a spec");
        assert_eq!(out.matches('\n').count(), out.matches("\r\n").count());
        assert!(out.contains("seed: 3}\r\n  - {model: cpu-w64-l3,"));
    }

    #[test]
    fn what_is_no_block_is_refused() {
        for include in ["include: [{seed: 3}]", "include:\n  [{seed: 3}]", "include: []"] {
            let error = added_to(&format!("{HEAD}{include}\nrecipe: {{global_batch: 128}}\n")).expect_err(include);
            assert!(matches!(error, IncludeError::NotABlock { .. }), "{include}: {error}");
        }
        let flow = "{name: x, grid: {model: cpu-w32-l2, samples_seen: 8k}, recipe: {global_batch: 128}}\n";
        assert!(added_to(flow).is_err());
        assert!(matches!(added_to("name: 1: 2\n"), Err(IncludeError::Spec(_))));
    }

    #[test]
    fn a_cell_that_is_there_already_is_an_error() {
        let text = format!("{HEAD}recipe: {{global_batch: 128}}\ninclude:\n  - {}\n", two()[0]);
        let error = added_to(&text).expect_err("seed 1 is there");
        assert!(matches!(&error, IncludeError::Spec(_)), "{error}");
    }

    #[test]
    fn our_own_specs_can_be_added_to() {
        for text in [TEMPLATE, include_str!("../../../experiments/emoji.yaml")] {
            let out = added_to(text).expect("a spec");
            let left: Vec<&str> = out.lines().filter(|line| !text.lines().any(|old| old == *line)).collect();
            assert!(left.len() <= 4 && text.lines().all(|line| out.lines().any(|new| new == line)), "{left:?}");
        }
    }

    #[test]
    fn odd_names_are_quoted() {
        assert_eq!(quoted("ViT-B-32"), "ViT-B-32");
        assert_eq!(quoted("models/a.json"), "models/a.json");
        assert_eq!(quoted("1e5"), "\"1e5\"");
        assert_eq!(quoted("my \"own\".json"), "\"my \\\"own\\\".json\"");
        assert_eq!(quoted("null"), "\"null\"");
    }
}
