//! A longer axis in the text of a spec: comments and layout stay as they are.

use super::error::Path;
use super::{Source, Spec, SpecError, locate, parse, quantity};

/// Why a value can't be added.
#[derive(Debug, thiserror::Error)]
pub enum EditError {
    /// The spec with it is none.
    #[error(transparent)]
    Spec(#[from] SpecError),
    /// There is no axis to make longer.
    #[error("the spec has no `grid.samples_seen`: its cells are listed one by one")]
    NoAxis,
    /// The layout is not known here.
    #[error("`grid.samples_seen`, line {line}, is written in a way that can't be added to here")]
    Layout {
        /// Line of the value, from 1.
        line: usize,
    },
}

/// The text of `spec` with `values`, as a spec writes them, at the end of `grid.samples_seen`, and the spec that it is.
/// What the axis has already is not added again.
pub fn with_samples_seen(spec: &Spec, values: &[String]) -> Result<Spec, EditError> {
    let mut spec = spec.clone();
    for value in values {
        if quantity::count(value).is_ok_and(|count| spec.grid.samples_seen.contains(&count)) {
            continue;
        }
        let text = appended(&spec, value)?;
        let longer = parse(&Source::new(spec.source.name(), &text))?;
        let (before, after) = (&spec.grid.samples_seen, &longer.grid.samples_seen);
        // Whatever the layout was: one value more, and nothing else has changed.
        let same = after.split_last().is_some_and(|(_, rest)| rest == before)
            && spec == (Spec { source: spec.source.clone(), grid: spec.grid.clone(), ..longer.clone() });
        if !same {
            return Err(EditError::Layout { line: line_of(&spec) });
        }
        spec = longer;
    }
    Ok(spec)
}

fn line_of(spec: &Spec) -> usize {
    let text = spec.source.text();
    let start = locate::value(text, &axis()).map_or(0, |range| range.start);
    text[..start].matches('\n').count() + 1
}

fn axis() -> Path {
    Path::keys(&["grid", "samples_seen"])
}

fn appended(spec: &Spec, value: &str) -> Result<String, EditError> {
    let text = spec.source.text();
    if spec.grid.samples_seen.is_empty() {
        return Err(EditError::NoAxis);
    }
    let unknown = || EditError::Layout { line: line_of(spec) };
    let place = locate::value(text, &axis()).ok_or_else(unknown)?;
    let there = &text[place.clone()];
    let insert = |at: usize, what: &str| format!("{}{what}{}", &text[..at], &text[at..]);
    if let Some(list) = there.strip_suffix(']').filter(|list| list.starts_with('[')) {
        return Ok(insert(place.start + list.trim_end().len(), &format!(", {value}")));
    }
    let line = text[..place.start].rfind('\n').map_or(0, |at| at + 1);
    let last = locate::value(text, &axis().index(spec.grid.samples_seen.len() - 1));
    if text[line..place.start].trim_start().starts_with("- ") || there.starts_with("- ") {
        // A list of lines: one more like the last.
        let last = last.ok_or_else(unknown)?;
        let begins = text[..last.start].rfind('\n').map_or(0, |at| at + 1);
        let indent = &text[begins..last.start];
        let ends = text[last.end..].find('\n').map_or(text.len(), |at| last.end + at);
        return Ok(insert(ends, &format!("\n{indent}{value}")));
    }
    // A number by itself.
    Ok(format!("{}[{there}, {value}]{}", &text[..place.start], &text[place.end..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(axis: &str) -> Spec {
        let text = format!(
            "# why\nname: x\ngrid:\n  model: cpu-w32-l2\n  samples_seen: {axis}\nrecipe: {{global_batch: 128}}  # end\n"
        );
        parse(&Source::new("x.yaml", &text)).unwrap_or_else(|error| panic!("{:?}", error.mistakes))
    }

    fn longer(axis: &str, values: &[&str]) -> String {
        let values: Vec<String> = values.iter().map(|&value| value.to_owned()).collect();
        let longer = with_samples_seen(&spec(axis), &values).unwrap_or_else(|error| panic!("{error}"));
        let text = longer.source.text().to_owned();
        let (head, tail) =
            ("# why\nname: x\ngrid:\n  model: cpu-w32-l2\n  samples_seen: ", "\nrecipe: {global_batch: 128}  # end\n");
        text.strip_prefix(head).and_then(|text| text.strip_suffix(tail)).unwrap_or_else(|| panic!("{text}")).to_owned()
    }

    #[test]
    fn every_layout_gets_one_more() {
        assert_eq!(longer("[8k, 32k]  # two", &["128k"]), "[8k, 32k, 128k]  # two");
        assert_eq!(longer("[ 8k ]", &["32k", "1M"]), "[ 8k, 32k, 1M ]");
        assert_eq!(longer("8k  # one", &["32k", "1M"]), "[8k, 32k, 1M]  # one");
        assert_eq!(longer("\n    - 8k\n    - 32k  # last", &["1M"]), "\n    - 8k\n    - 32k  # last\n    - 1M");
        assert_eq!(longer("[8k, 32k]", &["32000", "8k"]), "[8k, 32k]", "what is there stays as it is");
    }

    #[test]
    fn what_is_no_number_or_has_no_place_is_an_error() {
        let add = |spec: &Spec, value: &str| with_samples_seen(spec, &[value.to_owned()]).expect_err("an error");
        assert!(matches!(add(&spec("8k"), "much"), EditError::Spec(_)));
        assert!(matches!(add(&spec("8k"), "9k], seed: [1"), EditError::Spec(_) | EditError::Layout { .. }));
        let listed = "name: x\ninclude: [{model: cpu-w32-l2, samples_seen: 8k, data_size: all, seed: 0}]\nrecipe: {global_batch: 128}\n";
        assert!(matches!(add(&parse(&Source::new("x", listed)).expect("a spec"), "9k"), EditError::NoAxis));
        let lines = spec("[8k,\n    32k]");
        assert!(
            matches!(add(&lines, "1M"), EditError::Layout { line: 5 } | EditError::Spec(_)),
            "{:?}",
            add(&lines, "1M")
        );
    }
}
