//! The page's style sheet (`style.css`) with the figures' colours: system fonts, light and
//! dark, and a print form that is light whatever the screen was.

use super::Report;
use crate::figures::{css_font, css_variables};

pub(super) fn css(report: &Report) -> String {
    let points = report.panels().map(|panel| panel.fits.len()).max().unwrap_or(0);
    let laws = report.panels().flat_map(|panel| &panel.fits).map(|one| one.others.len() + 1).max().unwrap_or(0);
    format!(
        ":root {{ color-scheme: light dark; {} }}\n@media screen and (prefers-color-scheme: dark) {{ :root {{ {} }} \
         }}\n{}\n{RULES}{}{}",
        css_variables(false),
        css_variables(true),
        css_font(),
        choices("points", 'p', points),
        choices("law", 'l', laws)
    )
}

/// What radio buttons show: `.p1` for `#points-1`, and so on. The first is shown without them.
fn choices(name: &str, class: char, count: usize) -> String {
    let one = |number| format!("main:has(#{name}-{number}:checked) .{class}{number} {{ display: inline; }}\n");
    (1..count).map(one).collect()
}

const RULES: &str = include_str!("style.css");
