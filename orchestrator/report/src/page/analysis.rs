//! The analysis of one metric as HTML.

use std::fmt::Write as _;

use super::html::table as html_table;
use crate::analysis::Table;
use crate::analysis::section::Analysis;
use crate::text::escape;

/// The metric's part of the page. `subject`: `DATASET-METRIC`, as in the names of the files.
pub(super) fn html(analysis: &Analysis, title: &str, subject: &str) -> String {
    let mut html = format!("<h4>{}</h4>\n", escape(title));
    if let Some(forecasts) = &analysis.forecasts {
        let missed = analysis.missed.as_ref().map_or(String::new(), |missed| format!(" {}", escape(missed)));
        let _ = write!(html, "<p>Forecasts, with 95 % intervals.{missed}</p>\n{}", table(forecasts));
    }
    for part in &analysis.parts {
        let open = if part.is_open() { " open" } else { "" };
        let _ = writeln!(html, "<details class=\"part\"{open}><summary>{}</summary>", part.title());
        match &part.drawn {
            Ok(drawing) => {
                for words in &drawing.words {
                    let _ = writeln!(html, "<p>{}</p>", escape(words));
                }
                let _ = writeln!(
                    html,
                    "<figure><div class=\"scroll\">{}</div><figcaption><b>{}.</b> {} <span class=\"file\">figures/{}</span></figcaption></figure>",
                    drawing.picture.in_page(),
                    escape(&drawing.picture.title),
                    escape(&drawing.picture.caption),
                    escape(&part.file(subject))
                );
                if let Some(numbers) = drawing.table.as_ref().filter(|numbers| !numbers.rows.is_empty()) {
                    html.push_str(&table(numbers));
                }
            }
            Err(why) => {
                let _ = writeln!(html, "<p class=\"quiet\">Not drawn: {}.</p>", escape(why));
            }
        }
        html.push_str("</details>\n");
    }
    html
}

fn table(table: &Table) -> String {
    let head: Vec<&str> = table.head.iter().map(String::as_str).collect();
    let rows: Vec<Vec<String>> = table.rows.iter().map(|row| row.iter().map(|cell| escape(cell)).collect()).collect();
    html_table(&head, table.numbers_from, &rows)
}
