//! Captions as OpenCLIP cleans them before they become tokens: `ftfy.fix_text`, `html.unescape` twice, white space
//! collapsed, lower case.
//!
//! ftfy (6.3.1, by Robyn Speer, Apache 2.0) undoes what bad software did to a text. Its steps and heuristics are
//! followed here, its classes of characters are data in `tables.json.gz`; its choices are explained in its own source
//! and documentation. `tests/captions.tsv.gz` compares 4,000 awkward lines.

mod bad;
mod encoding;
mod entities;
mod tables;

use std::borrow::Cow;
use std::sync::LazyLock;

use protocol::Clean;
use regex::Regex;
use unicode_normalization::UnicodeNormalization as _;

/// What a tokenizer splits into words, by OpenCLIP's name of the cleaning.
pub fn cleaning(clean: Clean) -> fn(&str) -> String {
    match clean {
        Clean::Lower => |caption| spaced(&repaired(caption)).to_lowercase(),
        Clean::Whitespace => |caption| spaced(&repaired(caption)),
        Clean::Canonicalize => |caption| {
            let text = repaired(caption).replace('_', " ");
            let text: String = text.chars().filter(|c| !c.is_ascii_punctuation()).collect();
            spaced(&text.to_lowercase())
        },
    }
}

/// Single spaces between words.
fn spaced(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn repaired(caption: &str) -> Cow<'_, str> {
    let plain = |byte: u8| (0x20..0x7f).contains(&byte) && byte != b'&';
    if caption.bytes().all(plain) {
        Cow::Borrowed(caption)
    } else {
        Cow::Owned(entities::unescape(&entities::unescape(&repair(caption))))
    }
}

/// ftfy's `fix_text`: line by line.
fn repair(text: &str) -> String {
    // A tag says that the text is HTML, whose references are meant; this holds for the lines behind it, too.
    let mut unescape = true;
    text.split_inclusive('\n')
        .map(|line| {
            unescape &= !line.contains('<');
            repair_line(line, unescape)
        })
        .collect()
}

/// All steps, again and again until none changes anything.
fn repair_line(line: &str, unescape: bool) -> String {
    static ESCAPE: LazyLock<Regex> = LazyLock::new(|| Regex::new("\x1b\\[[\\d;]*[a-zA-Z]").expect("terminal escapes"));
    let mut text = line.to_owned();
    loop {
        let before = text.clone();
        if unescape {
            text = entities::unescape_whole(&text);
        }
        text = encoding::fix(&text);
        let mut replaced = String::with_capacity(text.len());
        for c in text.chars() {
            replace(c, &mut replaced);
        }
        let lines = replaced.replace("\r\n", "\n").replace(['\r', '\u{2028}', '\u{2029}', '\u{85}'], "\n");
        text = ESCAPE.replace_all(&lines, "").chars().filter(|c| !is_removed(*c)).nfc().collect();
        if text == before {
            return text;
        }
    }
}

/// Windows' characters for C1 controls, letters for ligatures, the usual width, straight quotes.
fn replace(c: char, out: &mut String) {
    let letters = match c {
        '\u{80}'..='\u{9f}' => return out.push(encoding::windows_1252(c as u8)),
        '\u{3000}' => " ",
        '\u{ff01}'..='\u{ffef}' => return replace_wide(c, out),
        '\u{2bc}' | '\u{2018}'..='\u{201b}' => "'",
        '\u{201c}'..='\u{201f}' => "\"",
        // Dutch, an Afrikaans article, digraphs for Cyrillic letters, typographic ligatures.
        '\u{132}' => "IJ",
        '\u{133}' => "ij",
        '\u{149}' => "'n",
        '\u{1c4}' => "D\u{17d}",
        '\u{1c5}' => "D\u{17e}",
        '\u{1c6}' => "d\u{17e}",
        '\u{1c7}' => "LJ",
        '\u{1c8}' => "Lj",
        '\u{1c9}' => "lj",
        '\u{1ca}' => "NJ",
        '\u{1cb}' => "Nj",
        '\u{1cc}' => "nj",
        '\u{1f1}' => "DZ",
        '\u{1f2}' => "Dz",
        '\u{1f3}' => "dz",
        '\u{fb00}' => "ff",
        '\u{fb01}' => "fi",
        '\u{fb02}' => "fl",
        '\u{fb03}' => "ffi",
        '\u{fb04}' => "ffl",
        '\u{fb05}' => "\u{17f}t",
        '\u{fb06}' => "st",
        c => return out.push(c),
    };
    out.push_str(letters);
}

/// Full-width and half-width forms.
fn replace_wide(c: char, out: &mut String) {
    out.extend(std::iter::once(c).nfkc());
}

/// Controls and marks that draw nothing and were not meant.
fn is_removed(c: char) -> bool {
    matches!(c,
        '\0'..='\u{8}' | '\u{b}' | '\u{e}'..='\u{1f}' | '\u{7f}' | '\u{206a}'..='\u{206f}' | '\u{feff}'
        | '\u{fff9}'..='\u{fffc}')
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;
    use crate::tokenizer::Tokenizer;

    /// Made by `tests/captions.py` with ftfy 6.3.1 and open_clip 3.3.0: a line, what `_clean_lower` makes of it (both
    /// JSON) and its ids.
    const GOLDEN: &[u8] = include_bytes!("../../tests/captions.tsv.gz");

    #[test]
    fn awkward_captions_are_cleaned_as_open_clip_does() {
        let mut text = String::new();
        flate2::read::GzDecoder::new(GOLDEN).read_to_string(&mut text).expect("a gzip of UTF-8");
        let usual = protocol::TextConfig::default();
        let tokenizer = Tokenizer::new(&usual, std::path::Path::new("")).expect("OpenAI's encoding");
        let mut different = Vec::new();
        for line in text.lines() {
            let fields: Vec<&str> = line.split('\t').collect();
            let [caption, cleaned] =
                [fields[0], fields[1]].map(|json| -> String { serde_json::from_str(json).expect("JSON") });
            let ids: Vec<u32> = fields[2].split_whitespace().map(|id| id.parse().expect("an id")).collect();
            let (found, tokens) =
                (cleaning(Clean::Lower)(&caption), tokenizer.encode(&caption, 10_000).expect("any text has tokens"));
            if found != cleaned || tokens[1..tokens.len() - 1] != ids {
                different.push(format!("{caption:?}\n  {found:?}\n  {cleaned:?}"));
            }
        }
        assert_eq!(text.lines().count(), 4000);
        assert!(different.is_empty(), "{} differ:\n{}", different.len(), different.join("\n"));
    }

    /// As open_clip 3.3.0's `get_clean_fn` has them.
    #[test]
    fn other_cleanings() {
        let caption = " A_photo of  \u{201c}Caf\u{e9}s\u{201d} &amp; BARS, 2-for-1! \u{2014}_\n";
        for (clean, expected) in [
            (Clean::Whitespace, "A_photo of \"Caf\u{e9}s\" & BARS, 2-for-1! \u{2014}_"),
            (Clean::Lower, "a_photo of \"caf\u{e9}s\" & bars, 2-for-1! \u{2014}_"),
            (Clean::Canonicalize, "a photo of caf\u{e9}s bars 2for1 \u{2014}"),
        ] {
            assert_eq!(cleaning(clean)(caption), expected);
        }
    }
}
