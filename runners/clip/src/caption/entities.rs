//! References of HTML, such as `&eacute;` and `&#233;`, to characters: Python's `html.unescape`, and ftfy's stricter
//! way.

use std::collections::HashMap;
use std::sync::LazyLock;

use regex::{Captures, Regex};

use super::encoding::windows_1252;
use super::tables::TABLES;

/// As the HTML standard says, also without a semicolon where it allows that.
pub(super) fn unescape(text: &str) -> String {
    static REFERENCE: LazyLock<Regex> =
        LazyLock::new(|| Regex::new(r"&(#[0-9]+;?|#[xX][0-9a-fA-F]+;?|[^\t\n\x0c <&#;]{1,32};?)").expect("references"));
    let meant = |found: &Captures| {
        let name = &found[1];
        if let Some(number) = name.strip_prefix('#') {
            return character(number.trim_end_matches(';'));
        }
        // Else the longest beginning that names something.
        let known = |end: usize| Some(TABLES.entities.get(&name[..end])?.clone() + &name[end..]);
        let ends: Vec<usize> = name.char_indices().map(|(at, _)| at).skip(2).chain([name.len()]).collect();
        ends.into_iter().rev().find_map(known).unwrap_or_else(|| format!("&{name}"))
    };
    REFERENCE.replace_all(text, meant).into_owned()
}

/// Only with a semicolon, and capital letters also where somebody made capitals of a whole text.
pub(super) fn unescape_whole(text: &str) -> String {
    static REFERENCE: LazyLock<Regex> = LazyLock::new(|| Regex::new("&#?[0-9A-Za-z]{1,24};").expect("references"));
    static CAPITALS: LazyLock<HashMap<String, String>> = LazyLock::new(|| {
        let small = TABLES.entities.iter().filter(|(name, _)| name.ends_with(';') && **name == name.to_lowercase());
        small
            .map(|(name, text)| (format!("&{}", name.to_uppercase()), text.to_uppercase()))
            .filter(|(reference, _)| unescape(reference) == *reference)
            .collect()
    });
    let meant = |found: &Captures| {
        let reference = &found[0];
        if reference.starts_with("&#") {
            let text = unescape(reference);
            return if text.contains(';') { reference.to_owned() } else { text };
        }
        let known = CAPITALS.get(reference).or_else(|| TABLES.entities.get(&reference[1..]));
        known.map_or_else(|| reference.to_owned(), String::clone)
    };
    REFERENCE.replace_all(text, meant).into_owned()
}

/// The character of `233` or `xE9`: none for controls, Windows' for those that it has in their place.
fn character(number: &str) -> String {
    let value = match number.strip_prefix(['x', 'X']) {
        Some(digits) => u32::from_str_radix(digits, 16),
        None => number.parse(),
    };
    match value {
        Ok(code @ 0x80..=0x9f) => windows_1252(code as u8).into(),
        Ok(0x1..=0x8 | 0xb | 0xe..=0x1f | 0x7f | 0xfdd0..=0xfdef) => String::new(),
        Ok(code) if code & 0xfffe == 0xfffe && code <= 0x10_ffff => String::new(),
        // Nothing, a surrogate, or too large for any character.
        code => {
            code.ok().filter(|code| *code > 0).and_then(char::from_u32).unwrap_or(char::REPLACEMENT_CHARACTER).into()
        }
    }
}
