//! The page: one file, nothing loaded from elsewhere. It reads without its script, which adds what needs one: sorting
//! and filtering tables, and the job behind a mark. Everything that comes from a spec or the database is escaped.

use std::fmt::Write as _;

use super::{Drawn, Named, Report, data, sections, style};
use crate::text::escape;

/// The whole page.
pub(super) fn page(report: &Report, drawn: &Drawn) -> String {
    let title = escape(&report.study.name);
    format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta name=\"color-scheme\" content=\"light dark\">\n<title>{title}: sweep \
          report</title>\n<style>\n{}\n</style>\n</head>\n\
         <body>\n<a class=\"skip\" href=\"#metrics\">To the metrics</a>\n<main>\n{}\n</main>\n\
         <aside id=\"card\" role=\"status\" aria-label=\"Job\" hidden></aside>\n\
         <script type=\"application/json\" id=\"data\">{}</script>\n<script>\n{SCRIPT}</script>\n</body>\n</html>\n",
        style::css(report),
        sections::all(report, drawn),
        data::json(report)
    )
}

const SCRIPT: &str = include_str!("script.js");

/// A table of cells that are HTML already. Columns from `numbers_from` on hold numbers and stand to the right.
pub(super) fn table(head: &[&str], numbers_from: usize, rows: &[Vec<String>]) -> String {
    rows_of(head, numbers_from, rows, |_| String::new())
}

/// The same of the study's jobs in their order, each row a mark of its job.
pub(super) fn job_table(head: &[&str], numbers_from: usize, rows: &[Vec<String>]) -> String {
    rows_of(head, numbers_from, rows, |place| format!(" class=\"j\" data-j=\"{place}\""))
}

fn rows_of(head: &[&str], numbers_from: usize, rows: &[Vec<String>], attributes: impl Fn(usize) -> String) -> String {
    let cells = |row: &[String], tag: &str| -> String {
        row.iter().enumerate().fold(String::new(), |mut html, (column, cell)| {
            let class = if column >= numbers_from { " class=\"n\"" } else { "" };
            let _ = write!(html, "<{tag}{class}>{cell}</{}>", tag.split(' ').next().unwrap_or(tag));
            html
        })
    };
    let head: Vec<String> = head
        .iter()
        .map(|name| escape(name).replace('/', "/<wbr>").replace('_', "_<wbr>").replace('@', "<wbr>@"))
        .collect();
    let body = rows.iter().enumerate().fold(String::new(), |mut html, (place, row)| {
        let _ = writeln!(html, "<tr{}>{}</tr>", attributes(place), cells(row, "td"));
        html
    });
    format!(
        "<div class=\"wide\" tabindex=\"0\"><table><thead><tr>{}</tr></thead>\n<tbody>\n{body}</tbody></table></div>\n",
        cells(&head, "th scope=\"col\"")
    )
}

/// A figure with its caption.
pub(super) fn figure(Named { file, picture }: &Named) -> String {
    format!(
        "<figure><div class=\"scroll\">{}</div><figcaption><b>{}.</b> {} <span class=\"file\">figures/{}</span></figcaption></figure>\n",
        picture.in_page().trim_end(),
        escape(&picture.title),
        escape(&picture.caption),
        escape(file)
    )
}
