//! Emoji pools: two vendors' drawings with the labels and tags of emojibase for training and validation, a third
//! vendor's as another distribution.
//!
//! The unit that is held out is a *family*: one emoji of all training vendors together with its gendered and mirrored
//! siblings, so that no drawing of `woman climbing` trains a model that is validated on `man climbing`. Families
//! without a subgroup (regional letters) always train.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use rayon::prelude::*;
use serde::Deserialize;

use super::iconify::{IconSet, SetInfo};
use super::{Counts, Draft, Error, Pair, Progress, Source, digest, render};

/// Recipe of kind `emoji`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EmojiRecipe {
    /// Side of the square images, pixels.
    pub image_size: u32,
    /// Pairs in a full shard.
    pub shard_samples: usize,
    /// Write `KEY.json`, too.
    #[serde(default = "yes")]
    pub with_json: bool,
    /// Labels and tags: `emojibase-data`.
    pub text: Source,
    /// Vendors that train and validate.
    pub train: Vec<Source>,
    /// The other distribution: pool name and vendor.
    pub held_out: BTreeMap<String, Source>,
    /// Whole families go to `val` until it has at least this many pairs.
    pub val_pairs: usize,
    /// Tags in a training caption.
    pub tags: usize,
    /// Keep only the first so many pairs (hash order) of a pool.
    #[serde(default)]
    pub limits: BTreeMap<String, usize>,
    /// Zero-shot templates; `{c}` is the class name.
    pub templates: Vec<String>,
}

fn yes() -> bool {
    true
}

/// One line of emojibase's `data.json`; skin tones are nested there and stay out.
#[derive(Debug, Deserialize)]
struct Emoji {
    label: String,
    hexcode: String,
    #[serde(default)]
    tags: Vec<String>,
    subgroup: Option<u32>,
}

#[derive(Debug, Deserialize)]
struct Messages {
    subgroups: Vec<Subgroup>,
}

#[derive(Debug, Deserialize)]
struct Subgroup {
    key: String,
    order: u32,
}

impl EmojiRecipe {
    pub(super) fn sources(&self) -> Vec<&Source> {
        std::iter::once(&self.text).chain(&self.train).chain(self.held_out.values()).collect()
    }

    pub(super) fn pools(&self) -> Vec<String> {
        ["train", "val"].into_iter().map(str::to_owned).chain(self.held_out.keys().cloned()).collect()
    }

    pub(super) fn draft(&self, archives: &Path, progress: Progress) -> Result<Vec<Draft>, Error> {
        let [data, messages] = self.text.read(archives, ["en/data.json", "en/messages.json"])?;
        let emoji: Vec<Emoji> = self.text.parse(archives, "en/data.json", &data)?;
        let messages: Messages = self.text.parse(archives, "en/messages.json", &messages)?;
        let class_names = class_names(messages.subgroups);

        let mut vendors = Vec::new();
        for source in &self.train {
            progress(&format!("drawing {}", source.package));
            vendors.push(self.vendor(archives, source, &emoji, Emoji::full_caption)?);
        }
        let held_out = held_out_families(&emoji, &vendors, self.val_pairs);
        let in_val = |emoji: &Emoji| held_out.contains_key(&family(&emoji.label));
        let mut drafts = vec![
            self.split("train", &vendors, &emoji, |emoji| !in_val(emoji)),
            self.split("val", &vendors, &emoji, in_val),
        ];
        for (name, source) in &self.held_out {
            progress(&format!("drawing {}", source.package));
            let vendor = self.vendor(archives, source, &emoji, |emoji, _| emoji.label.clone())?;
            drafts.push(self.split(name, &[vendor], &emoji, |emoji| emoji.subgroup.is_some()));
        }
        for draft in &mut drafts {
            self.finish(draft, &class_names, held_out.len())?;
        }
        Ok(drafts)
    }

    /// All drawings of one vendor that emojibase knows, with the index of their emoji.
    fn vendor(
        &self,
        archives: &Path,
        source: &Source,
        emoji: &[Emoji],
        caption: impl Fn(&Emoji, usize) -> String + Sync,
    ) -> Result<Vendor, Error> {
        let [icons, chars, info] = source.read(archives, ["icons.json", "chars.json", "info.json"])?;
        let set: IconSet = source.parse(archives, "icons.json", &icons)?;
        let chars: BTreeMap<String, String> = source.parse(archives, "chars.json", &chars)?;
        let info: SetInfo = source.parse(archives, "info.json", &info)?;
        let names: HashMap<String, &str> = chars.iter().map(|(code, name)| (plain_code(code), name.as_str())).collect();
        let drawn: Vec<(usize, Result<Pair, &'static str>)> = emoji
            .par_iter()
            .enumerate()
            .filter_map(|(index, emoji)| {
                let code = plain_code(&emoji.hexcode);
                let name = names.get(&code)?;
                let pixels = match set.svg(name).map(|svg| render::render(&svg, self.image_size)) {
                    Some(Ok(Some(pixels))) => pixels,
                    Some(Ok(None)) => return Some((index, Err("blank"))),
                    Some(Err(_)) => return Some((index, Err("not drawable"))),
                    None => return Some((index, Err("hidden or turned alias"))),
                };
                let key = format!("{}__{code}", set.prefix);
                let caption = caption(emoji, self.tags);
                let class = emoji.subgroup;
                let pair =
                    Pair { key, caption, class, pixels, set: set.prefix.clone(), license: source.license.clone() };
                Some((index, Ok(pair)))
            })
            .collect();
        let mut counts = Counts::default();
        let mut pairs = Vec::new();
        for (index, outcome) in drawn {
            match outcome {
                Ok(pair) => pairs.push((index, pair)),
                Err(reason) => counts.add(reason, 1),
            }
        }
        Ok(Vendor { source: source.clone(), prefix: set.prefix, info, pairs, counts })
    }

    /// The pairs of `vendors` whose emoji passes `keep`, as the pool `name`.
    fn split(&self, name: &str, vendors: &[Vendor], emoji: &[Emoji], keep: impl Fn(&Emoji) -> bool) -> Draft {
        let mut pairs: Vec<Pair> = Vec::new();
        for vendor in vendors {
            pairs.extend(vendor.pairs.iter().filter(|(index, _)| keep(&emoji[*index])).map(|(_, pair)| pair.clone()));
        }
        if let Some(&limit) = self.limits.get(name) {
            pairs.sort_by_cached_key(|pair| digest(&pair.key));
            pairs.truncate(limit);
        }
        let of_set = |prefix: &str| pairs.iter().filter(|pair| pair.set == prefix).count() as u64;
        let mut sources = vec![(self.text.clone(), pairs.len() as u64)];
        let mut attribution = Vec::new();
        let mut notes = Vec::new();
        for vendor in vendors {
            sources.push((vendor.source.clone(), of_set(&vendor.prefix)));
            attribution.push(vendor.info.attribution(&vendor.prefix, of_set(&vendor.prefix)));
            notes.push(format!("{}: dropped while drawing: {}", vendor.prefix, vendor.counts.text()));
        }
        attribution.push(format!(
            "emojibase-data\tEmojibase\tMiles Johnson\t{}\thttps://emojibase.dev\t{}",
            self.text.license,
            pairs.len()
        ));
        let (class_names, templates) = (Vec::new(), Vec::new());
        Draft { name: name.into(), pairs, sources, notes, class_names, templates, attribution }
    }

    /// Notes for people; classes for the pools that evaluate.
    fn finish(&self, draft: &mut Draft, class_names: &[String], families: usize) -> Result<(), Error> {
        if draft.pairs.is_empty() {
            return Err(Error::Empty { pool: draft.name.clone(), counts: draft.notes.join("; ") });
        }
        let full = format!("caption: label, then up to {} tags of emojibase", self.tags);
        draft.notes.push("emoji without skin tones, matched by code point to emojibase-data".into());
        match draft.name.as_str() {
            "train" => {
                draft.pairs.iter_mut().for_each(|pair| pair.class = None);
                draft.notes.push(full);
                draft.notes.push(format!("{families} families (an emoji with its gendered and mirrored siblings, all vendors) are held out as val"));
                return Ok(());
            }
            "val" => {
                draft.notes.push(full);
                draft.notes.push(format!(
                    "{families} whole families by the hash of their name, all training vendors: no drawing of a family that trains; two vendors share each \
                     caption, so in-batch losses have a floor above 0 and retrieval should count equal captions as hits"
                ));
            }
            _ => {
                draft.notes.push("caption: label only".into());
                draft.notes.push(
                    "another vendor: most of its emoji train as other vendors' drawings, and those of val do not"
                        .into(),
                );
            }
        }
        draft.notes.push("classes: subgroups of emojibase".into());
        draft.class_names = class_names.to_vec();
        draft.templates.clone_from(&self.templates);
        Ok(())
    }
}

/// One vendor's drawings.
struct Vendor {
    source: Source,
    prefix: String,
    info: SetInfo,
    /// Index of the emoji, and the pair.
    pairs: Vec<(usize, Pair)>,
    counts: Counts,
}

impl Emoji {
    /// `turtle. animal, terrapin, tortoise`.
    fn full_caption(&self, tags: usize) -> String {
        let tags: Vec<&str> =
            self.tags.iter().map(String::as_str).filter(|&tag| tag != self.label).take(tags).collect();
        if tags.is_empty() { self.label.clone() } else { format!("{}. {}", self.label, tags.join(", ")) }
    }
}

/// Class i = subgroup of order i.
fn class_names(mut subgroups: Vec<Subgroup>) -> Vec<String> {
    subgroups.sort_by_key(|subgroup| subgroup.order);
    subgroups.into_iter().map(|subgroup| subgroup.key.replace('-', " ")).collect()
}

/// Code points in lower case without the variation selector FE0F, which vendors treat differently.
fn plain_code(code: &str) -> String {
    let code = code.to_ascii_lowercase();
    code.split('-').filter(|point| *point != "fe0f").collect::<Vec<_>>().join("-")
}

/// The label without words that tell siblings apart: gender, age and the way a person faces.
fn family(label: &str) -> String {
    const SIBLINGS: [&str; 10] = ["man", "men", "woman", "women", "person", "people", "boy", "girl", "facing", "right"];
    let label = label.to_lowercase();
    let words = label.split(|letter: char| !letter.is_alphanumeric());
    let kept: Vec<&str> = words.filter(|word| !word.is_empty() && !SIBLINGS.contains(word)).collect();
    if kept.is_empty() { label } else { kept.join(" ") }
}

/// Families in the order of their hash until they hold `wanted` pairs, and how many each holds.
fn held_out_families(emoji: &[Emoji], vendors: &[Vendor], wanted: usize) -> BTreeMap<String, usize> {
    let mut sizes: BTreeMap<String, (usize, bool)> = BTreeMap::new();
    for (index, _) in vendors.iter().flat_map(|vendor| &vendor.pairs) {
        let size = sizes.entry(family(&emoji[*index].label)).or_insert((0, true));
        size.0 += 1;
        size.1 &= emoji[*index].subgroup.is_some();
    }
    let mut families: Vec<(String, usize)> =
        sizes.into_iter().filter(|(_, (_, classed))| *classed).map(|(name, (size, _))| (name, size)).collect();
    families.sort_by_cached_key(|(name, _)| digest(name));
    let mut held_out = BTreeMap::new();
    let mut pairs = 0;
    for (name, size) in families {
        if pairs >= wanted {
            break;
        }
        pairs += size;
        held_out.insert(name, size);
    }
    held_out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn siblings_share_a_family() {
        assert_eq!(family("woman walking: facing right"), family("man walking"));
        assert_eq!(family("woman tipping hand"), family("person tipping hand"));
        assert_ne!(family("flag: Germany"), family("flag: Greece"));
        assert_eq!(family("person"), "person");
    }

    #[test]
    fn codes_and_captions() {
        assert_eq!(plain_code("1F481-200D-2640-FE0F"), "1f481-200d-2640");
        let turtle = Emoji {
            label: "turtle".into(),
            hexcode: "1F422".into(),
            tags: vec!["turtle".into(), "animal".into(), "slow".into()],
            subgroup: None,
        };
        assert_eq!(turtle.full_caption(8), "turtle. animal, slow");
        assert_eq!(turtle.full_caption(1), "turtle. animal");
    }
}
