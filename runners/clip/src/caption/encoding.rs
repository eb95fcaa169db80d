//! Undoes that UTF-8 was read as a single-byte encoding: `Ã©` was `é`. ftfy's `fix_encoding`.

use std::collections::{HashMap, HashSet};
use std::sync::LazyLock;

use regex::bytes::Regex;

use super::bad::is_bad;
use super::tables::TABLES;

/// Encodings, those first that are met most. The *sloppy* ones have all bytes, and byte 1A for a character that was
/// lost.
const NAMES: [&str; 10] = [
    "latin-1",
    "sloppy-windows-1252",
    "sloppy-windows-1251",
    "sloppy-windows-1250",
    "sloppy-windows-1253",
    "sloppy-windows-1254",
    "sloppy-windows-1257",
    "iso-8859-2",
    "macroman",
    "cp437",
];

/// One of them.
struct Encoding {
    name: &'static str,
    upper: Vec<char>,
    bytes: HashMap<char, u8>,
}

static ENCODINGS: LazyLock<Vec<Encoding>> = LazyLock::new(|| {
    let encoding = |name: &'static str| {
        let upper: Vec<char> = TABLES.maps[name].chars().collect();
        let bytes = upper.iter().zip(128..=255).map(|(c, byte)| (*c, byte)).collect();
        Encoding { name, upper, bytes }
    };
    NAMES.map(encoding).into()
});

impl Encoding {
    fn is_sloppy(&self) -> bool {
        self.name.starts_with("sloppy")
    }

    /// The bytes that would have been read as this text.
    fn encode(&self, text: &str) -> Option<Vec<u8>> {
        let byte = |c: char| match c {
            '\u{1a}' if self.is_sloppy() => None,
            char::REPLACEMENT_CHARACTER if self.is_sloppy() => Some(0x1a),
            c if c.is_ascii() => Some(c as u8),
            c => self.bytes.get(&c).copied(),
        };
        text.chars().map(byte).collect()
    }
}

/// The character that Windows has for a byte, or the C1 control where it has none.
pub(super) fn windows_1252(byte: u8) -> char {
    if byte < 128 { char::from(byte) } else { ENCODINGS[1].upper[usize::from(byte - 128)] }
}

/// One step after another until none changes anything.
pub(super) fn fix(text: &str) -> String {
    let mut text = text.to_owned();
    loop {
        let fixed = fix_once(&text);
        if fixed == text {
            return text;
        }
        text = fixed;
    }
}

fn fix_once(text: &str) -> String {
    if text.is_ascii() || !is_bad(text) {
        return text.to_owned();
    }
    for encoding in ENCODINGS.iter() {
        let Some(mut bytes) = encoding.encode(text) else { continue };
        // In MacRoman an n-dash and a space look like it.
        if encoding.name != "macroman" {
            bytes = restore_spaces(bytes);
        }
        if encoding.is_sloppy() {
            bytes = replace_lost(&bytes);
        }
        if let Some(decoded) = decode(&bytes) {
            return decoded;
        }
    }
    let embedded = fix_embedded(text);
    if embedded != text {
        return embedded;
    }
    // Latin-1's controls were meant to be Windows' characters.
    let windows = |c: char| if ('\u{80}'..='\u{9f}').contains(&c) { windows_1252(c as u8) } else { c };
    text.chars().map(windows).collect()
}

/// Puts back spaces that do not break (A0) where a space would be one of UTF-8's bytes.
fn restore_spaces(bytes: Vec<u8>) -> Vec<u8> {
    static ALTERED: LazyLock<Regex> = LazyLock::new(|| {
        let likely = r"(?-u)[\xc2\xc3\xc5\xce\xd0\xd9]\x20|[\xe2\xe3]\x20[\x80-\x84\x86-\x9f\xa1-\xbf]|[\xe0-\xe3][\x80-\x84\x86-\x9f\xa1-\xbf]\x20|\xf0\x20[\x80-\xbf]{2}|\xf0[\x80-\xbf]\x20[\x80-\xbf]|\xf0[\x80-\xbf]{2}\x20";
        Regex::new(likely).expect("bytes")
    });
    if !ALTERED.is_match(&bytes) {
        return bytes;
    }
    let bytes = keep_a_grave(&bytes);
    let restored = ALTERED.replace_all(&bytes, |found: &regex::bytes::Captures| {
        found[0].iter().map(|&byte| if byte == b' ' { 0xa0 } else { byte }).collect::<Vec<u8>>()
    });
    restored.into_owned()
}

/// `Ã ` is most often the word `à`, whose own space went: `Ã la mode`. Not in Portuguese words that begin with it.
fn keep_a_grave(bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let rest = &bytes[at..];
        let follows = |words: &[&[u8]]| words.iter().any(|word| rest[2..].starts_with(word));
        if rest.starts_with(b"\xc3 ") && !follows(&[b" ", b"quele", b"quela", b"quilo", b"s "]) {
            out.extend(b"\xc3\xa0 ");
            at += 2;
        } else {
            out.push(rest[0]);
            at += 1;
        }
    }
    out
}

/// One replacement character for what was a sequence of UTF-8 before bytes of it were lost (1A, or one question mark).
fn replace_lost(bytes: &[u8]) -> Vec<u8> {
    static LOST: LazyLock<Regex> = LazyLock::new(|| {
        let forms = [
            r"[\xc2-\xdf]\x1a",
            r"[\xc2\xc3]\?",
            r"\xed[\xa0-\xaf][\x1a?]\xed[\xb0-\xbf][\x1a?\x80-\xbf]",
            r"\xed[\xa0-\xaf][\x1a?\x80-\xbf]\xed[\xb0-\xbf][\x1a?]",
            r"[\xe0-\xef][\x1a?][\x1a\x80-\xbf]",
            r"[\xe0-\xef][\x1a\x80-\xbf][\x1a?]",
            r"[\xf0-\xf4][\x1a?][\x1a\x80-\xbf]{2}",
            r"[\xf0-\xf4][\x1a\x80-\xbf][\x1a?][\x1a\x80-\xbf]",
            r"[\xf0-\xf4][\x1a\x80-\xbf]{2}[\x1a?]",
            r"\x1a",
        ];
        Regex::new(&format!("(?-u){}", forms.join("|"))).expect("bytes")
    });
    LOST.replace_all(bytes, &b"\xef\xbf\xbd"[..]).into_owned()
}

/// UTF-8, also with two surrogates for a character and with C0 80 for 0.
fn decode(bytes: &[u8]) -> Option<String> {
    if !bytes.contains(&0xed) && !bytes.contains(&0xc0) {
        return String::from_utf8(bytes.to_vec()).ok();
    }
    let mut text = String::new();
    let mut at = 0;
    while at < bytes.len() {
        let (c, length) = match bytes[at..] {
            [0xc0, 0x80, ..] => ('\0', 2),
            [0xed, a @ 0xa0..=0xaf, b @ 0x80..=0xbf, 0xed, c @ 0xb0..=0xbf, d @ 0x80..=0xbf, ..] => {
                let [a, c] = [a, c].map(|byte| u32::from(byte & 0x0f));
                let [b, d] = [b, d].map(|byte| u32::from(byte & 0x3f));
                (char::from_u32(0x10000 + (a << 16 | b << 10 | c << 6 | d))?, 6)
            }
            [first, ..] => {
                let length = match first {
                    0..=0x7f => 1,
                    0x80..=0xdf => 2,
                    0xe0..=0xef => 3,
                    _ => 4,
                };
                (std::str::from_utf8(bytes.get(at..at + length)?).ok()?.chars().next()?, length)
            }
            [] => return None,
        };
        text.push(c);
        at += length;
    }
    Some(text)
}

/// Fixes parts that look like UTF-8 read wrong in a text that is not that as a whole.
fn fix_embedded(text: &str) -> String {
    static CLUES: LazyLock<[HashSet<char>; 5]> = LazyLock::new(|| {
        ["utf8_first_of_2", "utf8_first_of_3", "utf8_first_of_4", "utf8_continuation", "utf8_continuation_strict"]
            .map(|name| characters(&TABLES.clues[name]))
    });
    let [of_2, of_3, of_4, continuation, strict] = &*CLUES;
    let chars: Vec<char> = text.chars().collect();
    let sequence = |at: usize| {
        [(of_2, 1), (of_3, 2), (of_4, 3)].into_iter().find_map(|(first, more)| {
            let rest = chars.get(at + 1..at + 1 + more)?;
            (first.contains(&chars[at]) && rest.iter().all(|c| continuation.contains(c))).then_some(at + 1 + more)
        })
    };
    let mut out = String::new();
    let mut at = 0;
    while at < chars.len() {
        // Not in the middle of a larger garble.
        let mut end = at;
        if at == 0 || !strict.contains(&chars[at - 1]) {
            while let Some(next) = (end < chars.len()).then(|| sequence(end)).flatten() {
                end = next;
            }
        }
        let part: String = chars[at..end].iter().collect();
        if end == at {
            out.push(chars[at]);
            at += 1;
            continue;
        }
        if end - at < chars.len() && is_bad(&part) {
            out.push_str(&fix(&part));
        } else {
            out.push_str(&part);
        }
        at = end;
    }
    out
}

/// The members of a regex's class: characters and ranges.
fn characters(class: &str) -> HashSet<char> {
    let chars: Vec<char> = class.chars().collect();
    let mut set: HashSet<char> = chars.iter().copied().filter(|c| *c != '-').collect();
    set.extend(chars.windows(3).filter(|part| part[1] == '-').flat_map(|part| part[0]..=part[2]));
    set
}
