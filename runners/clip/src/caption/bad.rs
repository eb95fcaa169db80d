//! Whether a text looks as if it had been read in another encoding than it was written in: ftfy's `is_bad`.

use std::sync::LazyLock;

use regex::Regex;

use super::tables::TABLES;

/// Neighbours that no writer means. A place is a set: names of classes, and characters for themselves.
const NEIGHBOURS: &[&[&str]] = &[
    &["c1"],
    &["bad lower_accented upper_accented box start_punctuation end_punctuation currency numeric law", "bad"],
    &["a-zA-Z", "lower_common upper_common", "bad"],
    &["bad", "lower_accented upper_accented box start_punctuation end_punctuation currency numeric law"],
    &["lower_accented lower_common box end_punctuation currency numeric", "upper_accented"],
    &["box end_punctuation currency numeric", "lower_accented"],
    &["lower_accented box end_punctuation", "currency"],
    &[r"\s", "upper_accented", "currency"],
    &["upper_accented box", "numeric law"],
    &["lower_accented upper_accented box currency end_punctuation", "start_punctuation", "numeric"],
    &["lower_accented upper_accented currency numeric box law", "end_punctuation", "start_punctuation"],
    &["currency numeric box", "start_punctuation"],
    &["a-z", "upper_accented", "start_punctuation currency"],
    &["box", "kaomoji"],
    &["lower_accented upper_accented currency numeric start_punctuation end_punctuation law", "box"],
    &["box", "end_punctuation"],
    &["lower_accented upper_accented", "start_punctuation end_punctuation", r"\w"],
    &["Œœ", "^A-Za-z"],
    &["upper_accented", "°"],
    &["ÂÃÎÐ", r"€œŠš¢£Ÿž\xa0\xad®©°·» start_punctuation end_punctuation –—´"],
    &["×", "²³"],
    &["ØÙ", ARABIC, "ØÙ", ARABIC],
    &["à", "²µ¹¼½¾"],
    // MacRoman.
    &["√", "±∂†≠®™´≤≥¥µø"],
    &["≈", "°¢"],
    &["‚", "Ä", "ìîïòôúùû†°¢π"],
    &["‚", "âó", "àä°ê"],
    // Windows-1251, 1253 and 1257.
    &["в", "Ђ"],
    &["ВГРС", "c1 bad start_punctuation end_punctuation currency °µ", "ВГРС"],
    &["Г", "ў", "В", "Ђ", "В", r"^\n", r"A-Za-z\x20"],
    &["β", "€", r"™\xa0Ά\xad®°"],
    &["ΒΓΞΟ", "c1 bad start_punctuation end_punctuation currency °", "ΒΓΞΟ"],
    &["ā", "€"],
    // A letter with grave or acute accent, a space that doesn't break, a character after its own first byte.
    &["Ã", r"\xa0¡"],
    &["a-z.,?! end_punctuation", "Â", r"\x20 start_punctuation end_punctuation"],
];

const ARABIC: &str = "common currency bad numeric start_punctuation ŸŠ®°µ»";

/// Neighbours with something between them or before them.
const OTHERS: &str = r"[a-z]\s?[ÃÂ]\x20|^[ÃÂ]\x20";

/// Whether any of them are in it.
pub(super) fn is_bad(text: &str) -> bool {
    static BAD: LazyLock<Regex> = LazyLock::new(|| {
        let set = |names: &&str| {
            let class = |name: &str| TABLES.classes.get(name).cloned().unwrap_or_else(|| name.to_owned());
            format!("[{}]", names.split(' ').map(class).collect::<String>())
        };
        let rules: Vec<String> = NEIGHBOURS.iter().map(|places| places.iter().map(set).collect()).collect();
        Regex::new(&format!("{}|{OTHERS}", rules.join("|"))).expect("classes of the shipped tables")
    });
    BAD.is_match(text)
}
