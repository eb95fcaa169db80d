//! From an icon's name to its caption.

use std::collections::BTreeMap;

/// Sizes that sets put at the end of names, pixels.
const SIZES: [&str; 20] = [
    "8", "10", "12", "14", "15", "16", "18", "20", "24", "28", "32", "36", "40", "48", "56", "64", "72", "96", "120",
    "128",
];

/// Words of an icon's name without the set's own style words (`suffixes`, `prefixes`) and without a size or running
/// number at the end: `arrow-left-24-outline` of a set with suffix `outline` is `arrow left`. `None` if no letter is
/// left.
pub(super) fn of_name(
    name: &str,
    suffixes: &BTreeMap<String, String>,
    prefixes: &BTreeMap<String, String>,
) -> Option<String> {
    let mut rest = name;
    // Longest first: `outline-rounded` before `rounded`.
    if let Some(shorter) = longest(suffixes, |suffix| rest.strip_suffix(suffix)?.strip_suffix('-')) {
        rest = shorter;
    }
    if let Some(shorter) = longest(prefixes, |prefix| rest.strip_prefix(prefix)?.strip_prefix('-')) {
        rest = shorter;
    }
    if let Some((shorter, last)) = rest.rsplit_once('-') {
        let running = last.len() == 2 && last.starts_with('0') && last.ends_with(|digit: char| digit.is_ascii_digit());
        if running || SIZES.contains(&last) {
            rest = shorter;
        }
    }
    let words: Vec<&str> = rest.split(['-', '_']).filter(|word| !word.is_empty()).collect();
    let caption = words.join(" ");
    caption.contains(|letter: char| letter.is_alphabetic()).then_some(caption)
}

fn longest<'a>(words: &BTreeMap<String, String>, strip: impl Fn(&str) -> Option<&'a str>) -> Option<&'a str> {
    words
        .keys()
        .filter(|word| !word.is_empty())
        .filter_map(|word| strip(word))
        .filter(|rest| !rest.is_empty())
        .min_by_key(|rest| rest.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn styles(words: &[&str]) -> BTreeMap<String, String> {
        words.iter().map(|&word| (word.to_owned(), String::new())).collect()
    }

    #[test]
    fn style_words_sizes_and_running_numbers_go() {
        let material = styles(&["", "rounded", "outline", "outline-rounded"]);
        let none = styles(&[]);
        assert_eq!(of_name("arrow-left-outline-rounded", &material, &none).as_deref(), Some("arrow left"));
        assert_eq!(of_name("access-time-20-filled", &styles(&["20-filled"]), &none).as_deref(), Some("access time"));
        assert_eq!(of_name("baseline-airline-seat", &none, &styles(&["baseline"])).as_deref(), Some("airline seat"));
        assert_eq!(of_name("ai-folder-01", &none, &none).as_deref(), Some("ai folder"));
        assert_eq!(of_name("beaker-24", &none, &none).as_deref(), Some("beaker"));
        assert_eq!(of_name("dice-6", &none, &none).as_deref(), Some("dice 6"), "a number that means something stays");
        assert_eq!(of_name("outline", &material, &none).as_deref(), Some("outline"), "a style word alone is the name");
        assert_eq!(of_name("360", &none, &none), None);
    }
}
