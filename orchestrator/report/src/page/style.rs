//! The page's style sheet (`style.css`) with the figures' colours: system fonts, light and
//! dark, and a print form that is light whatever the screen was.

use crate::figures::{css_font, css_variables};

pub(super) fn css() -> String {
    format!(
        ":root {{ color-scheme: light dark; {} }}\n@media screen and (prefers-color-scheme: dark) {{ :root {{ {} }} \
         }}\n{}\n{RULES}",
        css_variables(false),
        css_variables(true),
        css_font()
    )
}

const RULES: &str = include_str!("style.css");
