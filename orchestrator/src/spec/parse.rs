//! YAML text to a tree of nodes. Positions are not kept: `locate` finds them again from a path.

use std::cell::Cell;
use std::fmt;

use serde::de::{self, DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};

use super::error::{Place, Problem, SpecError};
use super::{Source, locate};

/// A YAML value. Keys of a map stay in order and may repeat: `read` objects.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Node {
    /// Nothing after the colon, `null` or `~`.
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// Digits.
    Integer(i128),
    /// A number with a point or an exponent, `.nan`, `.inf`.
    Float(f64),
    /// Anything else on its own.
    Text(String),
    /// A list.
    List(Vec<Node>),
    /// A map.
    Map(Vec<(String, Node)>),
}

/// Length of a spec, bytes.
const TEXT_MAX: usize = 4 << 20;
/// Values in a spec once aliases are expanded, so that a few lines can't fill the memory.
const NODES_MAX: usize = 500_000;

/// Reads the text of a spec, or says why it is no YAML.
pub(super) fn tree(source: &Source) -> Result<Node, SpecError> {
    node(source)?.ok_or_else(|| SpecError::new(source, vec![empty()]))
}

/// Reads a text, or says why it is no YAML. `None`: there is nothing in it.
pub(super) fn node(source: &Source) -> Result<Option<Node>, SpecError> {
    let text = source.text();
    let one = |problem| SpecError::new(source, vec![problem]);
    if text.len() > TEXT_MAX {
        let message = format!("a file of {} bytes is too long", text.len());
        return Err(one(Problem::new(Place::Nowhere, message, "").help(format!("at most {TEXT_MAX} bytes"))));
    }
    let left = Cell::new(NODES_MAX);
    match (NodeSeed { left: &left }).deserialize(serde_yaml::Deserializer::from_str(text)) {
        Ok(Node::Null) => Ok(None),
        Ok(node) => Ok(Some(node)),
        Err(_) if text.trim().is_empty() => Ok(None),
        Err(error) => Err(one(syntax(text, &error))),
    }
}

fn empty() -> Problem {
    Problem::new(Place::Nowhere, "the spec is empty", "").help("`sweep init` writes a spec to start from")
}

fn syntax(text: &str, error: &serde_yaml::Error) -> Problem {
    let reason = without_positions(&error.to_string());
    let offset = error.location().map(|location| location.index());
    let place = offset.map_or(Place::Nowhere, Place::Byte);
    let problem = Problem::new(place, format!("this can't be read as YAML: {reason}"), "here");
    let line = offset.map_or("", |offset| {
        let range = locate::extent(text, offset);
        let start = text[..range.start].rfind('\n').map_or(0, |newline| newline + 1);
        text[start..].lines().next().unwrap_or_default()
    });
    if line.contains('\t') {
        problem.help("there is a tab in this line: indent with spaces, YAML allows no tabs")
    } else if reason.contains("repetition limit") || reason.contains("too many values") {
        problem.help("write the values out instead of nesting aliases (`*name`)")
    } else if reason.contains("more than one document") {
        problem.help("remove the `---` in the middle: a file holds one")
    } else {
        problem
    }
}

/// `serde_yaml` writes positions into its messages; ours are in the snippet.
fn without_positions(message: &str) -> String {
    let mut words = message.split(' ').peekable();
    let mut kept: Vec<String> = Vec::new();
    while let Some(word) = words.next() {
        if word == "at" && words.peek() == Some(&"line") {
            // `at line 3 column 5,`
            let last = words.by_ref().take(4).last().unwrap_or_default();
            if let (true, Some(before)) = (last.ends_with(','), kept.last_mut()) {
                before.push(',');
            }
        } else {
            kept.push(word.to_owned());
        }
    }
    kept.join(" ")
}

#[derive(Clone, Copy)]
struct NodeSeed<'a> {
    left: &'a Cell<usize>,
}

impl<'de> DeserializeSeed<'de> for NodeSeed<'_> {
    type Value = Node;
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Node, D::Error> {
        let left = self.left.get().checked_sub(1);
        self.left.set(left.ok_or_else(|| de::Error::custom(format!("too many values, at most {NODES_MAX}")))?);
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for NodeSeed<'_> {
    type Value = Node;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("plain YAML without tags")
    }

    fn visit_unit<E>(self) -> Result<Node, E> {
        Ok(Node::Null)
    }

    fn visit_none<E>(self) -> Result<Node, E> {
        Ok(Node::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Node, E> {
        Ok(Node::Bool(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Node, E> {
        Ok(Node::Integer(value.into()))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Node, E> {
        Ok(Node::Integer(value.into()))
    }

    fn visit_u128<E>(self, value: u128) -> Result<Node, E> {
        Ok(i128::try_from(value).map_or(Node::Float(value as f64), Node::Integer))
    }

    fn visit_i128<E>(self, value: i128) -> Result<Node, E> {
        Ok(Node::Integer(value))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Node, E> {
        Ok(Node::Float(value))
    }

    fn visit_str<E>(self, value: &str) -> Result<Node, E> {
        Ok(Node::Text(value.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Node, A::Error> {
        let mut list = Vec::new();
        while let Some(node) = seq.next_element_seed(self)? {
            list.push(node);
        }
        Ok(Node::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Node, A::Error> {
        let mut entries = Vec::new();
        while let Some(key) = map.next_key::<String>()? {
            entries.push((key, map.next_value_seed(self)?));
        }
        Ok(Node::Map(entries))
    }
}
