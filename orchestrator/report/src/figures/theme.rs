//! Colours. A figure is drawn in the light ones; on the page each becomes a CSS variable with a dark value too.

use std::fmt::Write as _;

use plotters::style::RGBColor;

/// What a colour is for.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Ink {
    /// Words and laws.
    Text,
    /// Ticks and notes.
    Muted,
    /// Grid lines.
    Grid,
    /// Fine grid lines.
    FineGrid,
    /// Background.
    Paper,
    /// A model.
    Series(usize),
    /// A colour that is the same on any page.
    Literal(u8, u8, u8),
}

/// (variable, light, dark). Series: Okabe and Ito's colour-blind safe set without yellow, two of Tol's muted added; the
/// dark ones lifted.
const THEME: [(&str, [u8; 3], [u8; 3]); 12] = [
    ("text", [0x1b, 0x1e, 0x23], [0xe8, 0xea, 0xed]),
    ("muted", [0x5b, 0x62, 0x6c], [0xa3, 0xab, 0xb6]),
    ("grid", [0xd3, 0xd7, 0xdc], [0x3d, 0x44, 0x4d]),
    ("finegrid", [0xec, 0xee, 0xf1], [0x29, 0x2f, 0x37]),
    ("paper", [0xff, 0xff, 0xff], [0x15, 0x19, 0x1f]),
    ("s0", [0x00, 0x72, 0xb2], [0x4f, 0xa8, 0xf0]),
    ("s1", [0xd5, 0x5e, 0x00], [0xff, 0x8c, 0x42]),
    ("s2", [0x00, 0x9e, 0x73], [0x2f, 0xcf, 0xa0]),
    ("s3", [0x88, 0x22, 0x55], [0xe0, 0x77, 0xae]),
    ("s4", [0xd8, 0x94, 0x00], [0xff, 0xc8, 0x4d]),
    ("s5", [0x4a, 0xa8, 0xdc], [0x9b, 0xdc, 0xff]),
    ("s6", [0x8a, 0x8a, 0x2a], [0xcc, 0xcc, 0x66]),
];
const SERIES_FROM: usize = 5;

/// Colours before they repeat.
pub(super) const SERIES: usize = THEME.len() - SERIES_FROM;

impl Ink {
    /// The light value.
    pub(super) fn rgb(self) -> RGBColor {
        let [r, g, b] = match self {
            Ink::Text => THEME[0].1,
            Ink::Muted => THEME[1].1,
            Ink::Grid => THEME[2].1,
            Ink::FineGrid => THEME[3].1,
            Ink::Paper => THEME[4].1,
            Ink::Series(number) => THEME[SERIES_FROM + number % SERIES].1,
            Ink::Literal(r, g, b) => [r, g, b],
        };
        RGBColor(r, g, b)
    }
}

/// Replaces the light colours of an SVG by the page's variables.
pub(super) fn with_variables(svg: &str) -> String {
    let mut text = svg.to_owned();
    for (name, [r, g, b], _) in THEME {
        text = text.replace(&format!("\"#{r:02X}{g:02X}{b:02X}\""), &format!("\"var(--{name})\""));
    }
    text
}

/// `--name: #rrggbb;` of the light or the dark theme.
pub fn css_variables(dark: bool) -> String {
    let mut css = String::new();
    for (name, light, dark_value) in THEME {
        let [r, g, b] = if dark { dark_value } else { light };
        let _ = write!(css, "--{name}:#{r:02x}{g:02x}{b:02x};");
    }
    css
}

/// Viridis from dark violet to yellow at `share` of the way, and the ink for text on it.
pub(super) fn viridis(share: f64) -> (Ink, Ink) {
    const ANCHORS: [[f64; 3]; 6] = [
        [68.0, 1.0, 84.0],
        [65.0, 68.0, 135.0],
        [42.0, 120.0, 142.0],
        [34.0, 168.0, 132.0],
        [122.0, 209.0, 81.0],
        [253.0, 231.0, 37.0],
    ];
    let at = share.clamp(0.0, 1.0) * (ANCHORS.len() - 1) as f64;
    let below = (at.floor() as usize).min(ANCHORS.len() - 2);
    let mix = |i: usize| (ANCHORS[below][i] + (ANCHORS[below + 1][i] - ANCHORS[below][i]) * (at - below as f64)) as u8;
    let text = if share > 0.55 { Ink::Literal(0x10, 0x10, 0x11) } else { Ink::Literal(0xfd, 0xfd, 0xfe) };
    (Ink::Literal(mix(0), mix(1), mix(2)), text)
}
