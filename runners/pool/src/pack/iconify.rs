//! Iconify's JSON form of an icon set. Source: iconify.design, "IconifyJSON" type.

use std::collections::BTreeMap;

use serde::Deserialize;

/// One icon set.
#[derive(Debug, Deserialize)]
pub(super) struct IconSet {
    pub(super) prefix: String,
    pub(super) icons: BTreeMap<String, Icon>,
    #[serde(default)]
    pub(super) aliases: BTreeMap<String, Alias>,
    /// Style words at the end of names, `outline-rounded`; the empty suffix is the plain style.
    #[serde(default)]
    pub(super) suffixes: BTreeMap<String, String>,
    /// Style words at the start of names.
    #[serde(default)]
    pub(super) prefixes: BTreeMap<String, String>,
    left: Option<f64>,
    top: Option<f64>,
    width: Option<f64>,
    height: Option<f64>,
}

/// One icon.
#[derive(Debug, Deserialize)]
pub(super) struct Icon {
    pub(super) body: String,
    #[serde(default)]
    pub(super) hidden: bool,
    left: Option<f64>,
    top: Option<f64>,
    width: Option<f64>,
    height: Option<f64>,
}

/// Another name of an icon, perhaps mirrored.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Alias {
    parent: String,
    #[serde(default)]
    h_flip: bool,
    #[serde(default)]
    v_flip: bool,
    #[serde(default)]
    rotate: u8,
}

/// What `collections.json` and `info.json` say of a set.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct SetInfo {
    pub(super) name: String,
    pub(super) author: Author,
    pub(super) license: License,
    #[serde(default)]
    pub(super) hidden: bool,
    pub(super) category: Option<String>,
}

#[derive(Debug, Clone, Deserialize)]
pub(super) struct Author {
    pub(super) name: String,
    #[serde(default)]
    pub(super) url: String,
}

#[derive(Debug, Clone, Deserialize)]
pub(super) struct License {
    /// SPDX identifier; a few sets have none.
    #[serde(default)]
    pub(super) spdx: String,
    #[serde(default)]
    pub(super) url: String,
}

impl SetInfo {
    /// `prefix, name, author, licence, url, pairs`, tab-separated.
    pub(super) fn attribution(&self, prefix: &str, pairs: u64) -> String {
        let url = if self.author.url.is_empty() { &self.license.url } else { &self.author.url };
        format!("{prefix}\t{}\t{}\t{}\t{url}\t{pairs}", self.name, self.author.name, self.license.spdx)
    }
}

impl IconSet {
    /// The SVG document of icon or alias `name`. `None` if there is no such icon, it is hidden, or an alias turns it.
    pub(super) fn svg(&self, name: &str) -> Option<String> {
        if let Some(icon) = self.icons.get(name) {
            return (!icon.hidden).then(|| self.document(icon, ""));
        }
        let alias = self.aliases.get(name).filter(|alias| alias.rotate == 0)?;
        let icon = self.icons.get(&alias.parent).filter(|icon| !icon.hidden)?;
        let [left, top, width, height] = self.view_box(icon);
        let scale = |flip| if flip { -1 } else { 1 };
        let shift = |flip, start: f64, side: f64| if flip { 2.0 * start + side } else { 0.0 };
        let transform = format!(
            " transform=\"translate({} {}) scale({} {})\"",
            shift(alias.h_flip, left, width),
            shift(alias.v_flip, top, height),
            scale(alias.h_flip),
            scale(alias.v_flip)
        );
        Some(self.document(icon, &transform))
    }

    /// Left, top, width, height: the icon's own, else the set's, else 0 0 16 16.
    fn view_box(&self, icon: &Icon) -> [f64; 4] {
        [
            icon.left.or(self.left).unwrap_or(0.0),
            icon.top.or(self.top).unwrap_or(0.0),
            icon.width.or(self.width).unwrap_or(16.0),
            icon.height.or(self.height).unwrap_or(16.0),
        ]
    }

    fn document(&self, icon: &Icon, transform: &str) -> String {
        let [left, top, width, height] = self.view_box(icon);
        format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" xmlns:xlink=\"http://www.w3.org/1999/xlink\" width=\"{width}\" \
             height=\"{height}\" viewBox=\"{left} {top} {width} {height}\"><g{transform}>{}</g></svg>",
            icon.body
        )
    }
}
