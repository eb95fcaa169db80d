//! The page: one file, no script, nothing loaded from elsewhere. Everything that comes from a spec or the database is
//! escaped.

use std::fmt::Write as _;

use super::{Drawn, Named, Report, sections, style};
use crate::text::escape;

/// The whole page.
pub(super) fn page(report: &Report, drawn: &Drawn) -> String {
    let title = escape(&report.study.name);
    format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta name=\"color-scheme\" content=\"light dark\">\n<title>{title}: sweep \
          report</title>\n<style>\n{}\n</style>\n</head>\n\
         <body>\n<main>\n{}\n</main>\n</body>\n</html>\n",
        style::css(),
        sections::all(report, drawn)
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
pub(super) fn figure(Named { file, picture }: &Named) -> String {
    format!(
        "<figure>{}<figcaption><b>{}.</b> {} <span class=\"file\">figures/{}</span></figcaption></figure>\n",
        picture.inline(),
        escape(&picture.title),
        escape(&picture.caption),
        escape(file)
    )
}
