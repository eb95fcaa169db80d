//! One line of a runner's standard output: an event, words, or something that was meant as an event and can't be read.

use protocol::Event;

use super::fields;
use super::json::{self, SyntaxError, Value};

/// What a line is.
#[derive(Debug, Clone, PartialEq)]
pub enum Reading {
    /// Nothing but space.
    Empty,
    /// Words for people, or an event of the runner's own (`x-...`).
    Words,
    /// An event.
    Event {
        /// What it says.
        event: Event,
        /// Keys that mean nothing here, each with its place: `step.epoch`.
        ignored: Vec<String>,
    },
    /// Meant as an event, and not clear.
    Unclear {
        /// What is wrong, and the way out.
        problem: String,
    },
}

/// Characters of a line that a message shows.
const QUOTED_CHARS: usize = 200;
/// What an event's name begins with if it is the runner's own.
const OWN_PREFIX: &str = "x-";

/// Reads a line, with or without its line break. Whatever the bytes, it gives an answer.
///
/// An event is one JSON object with the key `event`. What stands around it on the line is words: a progress bar, the
/// prefix of a logger, a byte order mark, colours. What is clear is read, as [`fields`] says; a line that speaks of an
/// event in any other way (in a list, in single quotes, twice, cut off) is unclear, and never words.
pub fn read_line(line: &[u8]) -> Reading {
    if line.trim_ascii().is_empty() {
        return Reading::Empty;
    }
    let found = objects(line);
    let events: Vec<&Found<'_>> =
        found.objects.iter().filter(|object| !fields::names(&object.entries).is_empty()).collect();
    match events[..] {
        [] => match without_event(line, &found) {
            None => Reading::Words,
            Some(problem) => Reading::Unclear { problem },
        },
        [event] => match around(line, event, found.torn.as_ref()) {
            None => interpret(event),
            Some(problem) => Reading::Unclear { problem },
        },
        [..] => {
            Reading::Unclear { problem: "several events stand on one line: each needs a line of its own".to_owned() }
        }
    }
}

/// A line as messages show it: its first characters, nothing that steers a terminal.
pub fn quote(line: &[u8]) -> String {
    let line = line.trim_ascii();
    // A character has at most four bytes: no more of a line of megabytes has to be looked at.
    let start = &line[..line.len().min(4 * QUOTED_CHARS)];
    let text = String::from_utf8_lossy(start);
    let mut chars = text.chars();
    let mut shown: String = chars.by_ref().take(QUOTED_CHARS).flat_map(shown_char).collect();
    if chars.next().is_some() || start.len() < line.len() {
        shown.push_str(" ...");
    }
    shown
}

fn shown_char(c: char) -> impl Iterator<Item = char> {
    let is_hidden =
        c.is_control() || matches!(c, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    let escaped = is_hidden.then(|| c.escape_default());
    let plain = (!is_hidden).then_some(c);
    escaped.into_iter().flatten().chain(plain)
}

/// A JSON object within a line.
struct Found<'a> {
    entries: Vec<(String, Value<'a>)>,
    start: usize,
    end: usize,
}

struct Objects<'a> {
    /// The outermost ones.
    objects: Vec<Found<'a>>,
    /// What begins like an event and is no JSON.
    torn: Option<SyntaxError>,
}

fn objects(line: &[u8]) -> Objects<'_> {
    let mut found = Objects { objects: Vec::new(), torn: None };
    let mut at = 0;
    while let Some(start) = line[at..].iter().position(|&byte| byte == b'{').map(|offset| at + offset) {
        match json::value_at(line, start) {
            Ok((Value::Object(entries), end)) => {
                found.objects.push(Found { entries, start, end });
                at = end;
            }
            Ok(_) => at = start + 1,
            Err(error) => {
                if found.torn.is_none() && begins_like_event(&line[start..]) {
                    found.torn = Some(error);
                }
                at = start + 1;
            }
        }
    }
    found
}

/// Whether an object that is no JSON begins with a key of the protocol, or is cut off within one.
fn begins_like_event(object: &[u8]) -> bool {
    let Some(key) = object[1..].trim_ascii_start().strip_prefix(b"\"") else { return false };
    let length = key.iter().position(|byte| !byte.is_ascii_alphanumeric() && *byte != b'_').unwrap_or(key.len());
    let (word, rest) = key.split_at(length);
    let is_cut = rest.is_empty();
    let is_key = |known: &str| match rest.first() {
        Some(b'"') => known.as_bytes() == word,
        _ => is_cut && known.as_bytes().starts_with(word),
    };
    // Another process's words may stand where the line was cut.
    fields::KEYS.iter().any(|known| is_key(known)) || word.starts_with(b"ev")
}

/// What is wrong with a line that holds no event, if it was meant as one.
fn without_event(line: &[u8], found: &Objects<'_>) -> Option<String> {
    if let Some(error) = &found.torn {
        return Some(format!("it is no whole JSON object: {} (byte {})", error.problem, error.at + 1));
    }
    let problem = match mention(line)? {
        Quote::Single => "its keys stand in single quotes, as Python prints a dict: write it with `json.dumps`",
        Quote::None => "its keys have no quotes: write it as JSON",
        Quote::Escaped => "it stands within a string: write the object itself (`json.dumps` once)",
        Quote::Double => "an event has to be an object of its own, whole, on one line, and not within another",
    };
    Some(problem.to_owned())
}

/// What is wrong with the rest of a line that holds one event.
fn around(line: &[u8], event: &Found<'_>, torn: Option<&SyntaxError>) -> Option<String> {
    let (before, after) = (line[..event.start].trim_ascii_end(), line[event.end..].trim_ascii_start());
    if before.ends_with(b"[") || after.first().is_some_and(|byte| b"],}".contains(byte)) {
        return Some("it is part of a list or of something else: an event has to be an object of its own".to_owned());
    }
    (torn.is_some() || mention(before).is_some() || mention(after).is_some())
        .then(|| "part of another event stands on the same line: each needs a line of its own".to_owned())
}

/// How a word stands in quotes.
enum Quote {
    Double,
    Single,
    /// Within a JSON string.
    Escaped,
    /// `{event: ...}`.
    None,
}

/// Whether `event` stands somewhere as a key.
fn mention(line: &[u8]) -> Option<Quote> {
    const WORD: &[u8] = b"event";
    line.windows(WORD.len()).enumerate().filter(|(_, window)| window.eq_ignore_ascii_case(WORD)).find_map(|(at, _)| {
        let (before, after) = (&line[..at], &line[at + WORD.len()..]);
        let closed = |closing: &[u8]| after.strip_prefix(closing)?.trim_ascii_start().strip_prefix(b":").map(|_| ());
        if before.ends_with(b"\\\"") {
            return closed(b"\\\"").map(|()| Quote::Escaped);
        }
        match before.last() {
            Some(b'"') => closed(b"\"").map(|()| Quote::Double),
            Some(b'\'') => closed(b"'").map(|()| Quote::Single),
            _ => closed(b"").filter(|()| before.trim_ascii_end().ends_with(b"{")).map(|()| Quote::None),
        }
    })
}

fn interpret(found: &Found<'_>) -> Reading {
    let named = match fields::name(&found.entries) {
        Ok(name) => name,
        Err(problem) => return Reading::Unclear { problem },
    };
    if named.starts_with(OWN_PREFIX) {
        return Reading::Words;
    }
    match fields::event(&named, &found.entries) {
        Ok((event, ignored)) => Reading::Event { event, ignored },
        Err(problem) => Reading::Unclear { problem },
    }
}
