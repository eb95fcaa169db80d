//! The page: one file, no script, nothing loaded from elsewhere. Everything that comes from a spec or the database is
//! escaped.

use std::fmt::Write as _;

use super::figures::Drawn;
use super::{Report, sections, style};

/// The five characters that mean something in HTML and XML, and control characters that XML forbids.
pub(super) fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            '\n' | '\t' => escaped.push(c),
            c if c.is_control() => escaped.push('\u{fffd}'),
            c => escaped.push(c),
        }
    }
    escaped
}

/// The whole page.
pub(super) fn page(report: &Report, figures: &[Drawn]) -> String {
    let title = escape(&report.study.name);
    format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta name=\"color-scheme\" content=\"light dark\">\n<title>{title}: sweep \
          report</title>\n<style>\n{}\n</style>\n</head>\n\
         <body>\n<main>\n{}\n</main>\n</body>\n</html>\n",
        style::css(),
        sections::all(report, figures)
    )
}

/// A table of cells that are HTML already. Columns from `numbers_from` on hold numbers and stand to the right.
pub(super) fn table(head: &[&str], numbers_from: usize, rows: &[Vec<String>]) -> String {
    let cells = |row: &[String], tag: &str| -> String {
        row.iter().enumerate().fold(String::new(), |mut html, (column, cell)| {
            let class = if column >= numbers_from { " class=\"n\"" } else { "" };
            let _ = write!(html, "<{tag}{class}>{cell}</{tag}>");
            html
        })
    };
    let head: Vec<String> = head
        .iter()
        .map(|name| escape(name).replace('/', "/<wbr>").replace('_', "_<wbr>").replace('@', "<wbr>@"))
        .collect();
    let body = rows.iter().fold(String::new(), |mut html, row| {
        let _ = writeln!(html, "<tr>{}</tr>", cells(row, "td"));
        html
    });
    format!(
        "<div class=\"wide\"><table><thead><tr>{}</tr></thead>\n<tbody>\n{body}</tbody></table></div>\n",
        cells(&head, "th")
    )
}

/// A figure with its caption.
pub(super) fn figure(drawn: &Drawn) -> String {
    format!(
        "<figure>{}<figcaption><b>{}.</b> {} <span class=\"file\">figures/{}</span></figcaption></figure>\n",
        drawn.inline(),
        escape(&drawn.title),
        escape(&drawn.caption),
        escape(&drawn.file)
    )
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn nothing_escapes(text in "\\PC*") {
            let escaped = escape(&text);
            prop_assert!(!escaped.contains(['<', '>', '"', '\'']));
        }
    }
}
