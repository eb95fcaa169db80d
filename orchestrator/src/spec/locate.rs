//! Where in the text of a spec a value stands.
//!
//! `serde_yaml` gives no spans, but an error carries the position of the node that raised it. So a seed walks the
//! wanted path and fails on purpose at its end.

use std::fmt;
use std::ops::Range;

use serde::de::{self, DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::error::{Path, Step};

/// Bytes of the value at `path`, or of the innermost value on the way there.
pub(super) fn value(text: &str, path: &Path) -> Option<Range<usize>> {
    walk(text, &path.0, false)
}

/// Bytes of the last key of `path`.
pub(super) fn key(text: &str, path: &Path) -> Option<Range<usize>> {
    walk(text, &path.0, true)
}

/// Bytes that make up the scalar, or the first line of the list or map, that starts at `start`.
pub(super) fn extent(text: &str, start: usize) -> Range<usize> {
    let mut start = start.min(text.len());
    while !text.is_char_boundary(start) {
        start -= 1;
    }
    let line = text[start..].split(['\n', '\r']).next().unwrap_or_default();
    let mut chars = line.char_indices();
    let length = match chars.next() {
        None => 0,
        Some((_, quote @ ('"' | '\''))) => {
            chars.find(|(_, c)| *c == quote).map_or(line.len(), |(at, c)| at + c.len_utf8())
        }
        Some((_, open @ ('[' | '{'))) => {
            let close = if open == '[' { ']' } else { '}' };
            let mut depth = 0_usize;
            line.char_indices()
                .find(|(_, c)| {
                    depth += usize::from(*c == open);
                    depth -= usize::from(*c == close && depth > 0);
                    depth == 0
                })
                .map_or(line.len(), |(at, c)| at + c.len_utf8())
        }
        Some(_) => {
            let comment = line.find(" #").unwrap_or(line.len());
            let ends = [", ", "]", "}", ": "].iter().filter_map(|end| line.find(end));
            let end = ends.chain([comment]).min().unwrap_or(line.len());
            line[..end].trim_end().trim_end_matches([',', ':']).len()
        }
    };
    // Never empty inside the text, so that there is something to underline.
    let next = text[start..].chars().next().map_or(0, char::len_utf8);
    start..start + length.max(next)
}

fn walk(text: &str, path: &[Step], at_key: bool) -> Option<Range<usize>> {
    let error = Walk { path, at_key }.deserialize(serde_yaml::Deserializer::from_str(text)).err()?;
    Some(extent(text, error.location()?.index()))
}

/// Walks to the end of `path` and fails there.
struct Walk<'a> {
    path: &'a [Step],
    at_key: bool,
}

impl<'de> DeserializeSeed<'de> for Walk<'_> {
    type Value = ();
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Walk<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("what the path says")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let (name, mut skip) = match self.path.first() {
            Some(Step::Key(name)) => (name, 0),
            Some(Step::Repeated(name, nth)) => (name, *nth),
            _ => return Err(de::Error::custom("here")),
        };
        let stop = self.at_key && self.path.len() == 1;
        while let Some(found) = map.next_key_seed(KeyIs { name, skip: &mut skip, stop })? {
            if found {
                return map.next_value_seed(Walk { path: &self.path[1..], at_key: self.at_key });
            }
            map.next_value::<IgnoredAny>()?;
        }
        Err(de::Error::custom("no such key"))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        let Some(Step::Index(index)) = self.path.first() else { return Err(de::Error::custom("here")) };
        for _ in 0..*index {
            if seq.next_element::<IgnoredAny>()?.is_none() {
                return Err(de::Error::custom("no such entry"));
            }
        }
        seq.next_element_seed(Walk { path: &self.path[1..], at_key: self.at_key })?;
        Err(de::Error::custom("no such entry"))
    }
}

/// Whether a key is the wanted one; fails at it when it is what the path ends at.
struct KeyIs<'a> {
    name: &'a str,
    skip: &'a mut usize,
    stop: bool,
}

impl<'de> DeserializeSeed<'de> for KeyIs<'_> {
    type Value = bool;
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<bool, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for KeyIs<'_> {
    type Value = bool;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_str<E: de::Error>(self, key: &str) -> Result<bool, E> {
        if key != self.name {
            return Ok(false);
        }
        if *self.skip > 0 {
            *self.skip -= 1;
            return Ok(false);
        }
        if self.stop { Err(E::custom("here")) } else { Ok(true) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str =
        "name: \"émoji # 1\" # ü\ngrid:\n  model: [a, 'b c', d]\n  seed: 3\n  seed: 4\nlist:\n  - {x: 1, y: [2]}\n";

    fn found(path: &[Step]) -> &'static str {
        &TEXT[value(TEXT, &Path(path.to_vec())).expect("a place")]
    }

    fn key_of(name: &str) -> Step {
        Step::Key(name.to_owned())
    }

    #[test]
    fn values_are_found() {
        assert_eq!(found(&[key_of("name")]), "\"émoji # 1\"");
        assert_eq!(found(&[key_of("grid"), key_of("model"), Step::Index(1)]), "'b c'");
        assert_eq!(found(&[key_of("grid"), key_of("model"), Step::Index(2)]), "d");
        assert_eq!(found(&[key_of("grid"), key_of("model")]), "[a, 'b c', d]");
        assert_eq!(found(&[key_of("grid"), key_of("seed"), Step::Index(0)]), "3");
        assert_eq!(found(&[key_of("grid"), Step::Repeated("seed".to_owned(), 1)]), "4");
        assert_eq!(found(&[key_of("list"), Step::Index(0), key_of("y"), Step::Index(0)]), "2");
    }

    #[test]
    fn keys_are_found() {
        let place = |steps: &[Step]| &TEXT[key(TEXT, &Path(steps.to_vec())).expect("a place")];
        assert_eq!(place(&[key_of("grid"), key_of("model")]), "model");
        let range = key(TEXT, &Path(vec![key_of("grid"), Step::Repeated("seed".to_owned(), 1)])).expect("a place");
        assert_eq!(TEXT[..range.start].lines().count(), 5);
    }

    #[test]
    fn what_is_missing_points_at_what_is_around_it() {
        assert_eq!(found(&[key_of("list"), Step::Index(0), key_of("z")]), "{x: 1, y: [2]}");
        assert!(value("", &Path::default()).is_none_or(|range| range == (0..0)));
    }
}
