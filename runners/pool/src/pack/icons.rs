//! Icon pools from `@iconify/json`: many sets' drawings of named things.
//!
//! - `train`: sets that pass the filters, one drawing per (set, caption).
//! - `val`: held-out (lineage, caption) groups of the same sets, for loss laws.
//! - `zeroshot`: drawings of the recipe's concepts in held-out *lineages* (sets that copy or continue one another,
//!   listed by hand, since a shared prefix is not a shared origin), for classification.
//! - the recipe's other pool: another distribution.
//!
//! Images of the last three that come close to a training image in pixels are dropped, and what remains near is told in
//! the notes.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::path::Path;

use rayon::prelude::*;
use serde::Deserialize;
use sha2::{Digest as _, Sha256};

use super::iconify::{IconSet, SetInfo};
use super::{Counts, Draft, Error, Pair, Progress, Source, caption, digest, near, render};

/// Recipe of kind `icons`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IconsRecipe {
    /// Side of the square images, pixels; a multiple of 8.
    pub image_size: u32,
    /// Pairs in a full shard.
    pub shard_samples: usize,
    /// `@iconify/json`.
    pub archive: Source,
    /// SPDX licences of sets that may be used.
    pub licenses: BTreeSet<String>,
    /// Categories that are left out: brand names.
    pub dropped_categories: BTreeSet<String>,
    /// Sets that are left out, by the start of their prefix.
    pub dropped_prefixes: Vec<String>,
    /// Sets of one origin, which share a held-out group in `val`; other sets: the prefix up to its first dash.
    pub lineages: Vec<BTreeSet<String>>,
    /// Lineages that never train, all their sets.
    pub held_out: Vec<BTreeSet<String>>,
    /// Groups go to `val` until it has this many pairs, before near-duplicates are dropped.
    pub val_pairs: usize,
    /// Relative squared distance up to which an image is a near-duplicate.
    pub near_duplicate: f32,
    /// Classes of `zeroshot`.
    pub concepts: Vec<String>,
    /// Zero-shot templates; `{c}` is the class name.
    pub templates: Vec<String>,
    /// The other distribution.
    pub other: OtherPool,
}

/// Another distribution, from sets of the same archive.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OtherPool {
    /// Its name.
    pub pool: String,
    /// Its sets.
    pub sets: BTreeSet<String>,
    /// Ends of icon names that are left out (skin tones).
    pub skip_endings: Vec<String>,
}

/// Where an icon may go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Role {
    Train,
    Val,
    HeldOut,
    Other,
}

struct Icon {
    role: Role,
    set: String,
    name: String,
    caption: String,
    svg: String,
}

struct Drawn {
    role: Role,
    pair: Pair,
}

impl IconsRecipe {
    pub(super) fn pools(&self) -> Vec<String> {
        vec!["train".into(), "val".into(), "zeroshot".into(), self.other.pool.clone()]
    }

    pub(super) fn check(&self) -> Result<(), String> {
        if !self.image_size.is_multiple_of(8) {
            return Err(format!("image_size is {}; icons take a multiple of 8 pixels", self.image_size));
        }
        if !(self.near_duplicate > 0.0 && self.near_duplicate < 0.5) {
            return Err(format!("near_duplicate is {}; allowed is above 0 and below 0.5", self.near_duplicate));
        }
        Ok(())
    }

    pub(super) fn draft(&self, archives: &Path, progress: Progress) -> Result<Vec<Draft>, Error> {
        let mut counts = Counts::default();
        let (infos, mut icons) = self.read(archives, &mut counts, progress)?;
        self.pick_val(&mut icons);
        let drawn = draw(&icons, &infos, self.image_size, &mut counts, progress);
        progress("comparing test images with training images");
        let (drawn, residual) = self.drop_near(drawn);
        self.pools().iter().map(|pool| self.pool(pool, &drawn, &infos, &counts, &residual)).collect()
    }

    /// One icon per (set, caption) of all sets in use, bodies that a set before has left out.
    fn read(
        &self,
        archives: &Path,
        counts: &mut Counts,
        progress: Progress,
    ) -> Result<(BTreeMap<String, SetInfo>, Vec<Icon>), Error> {
        let [collections] = self.archive.read(archives, ["collections.json"])?;
        let mut infos: BTreeMap<String, SetInfo> = self.archive.parse(archives, "collections.json", &collections)?;
        let total = infos.len();
        infos.retain(|prefix, info| self.role(prefix, info).is_some());
        counts.add("sets left out by licence, category, hidden or prefix", (total - infos.len()) as u64);

        let mut sets: Vec<(Role, String, Vec<Icon>)> = Vec::new();
        self.archive.for_each(
            archives,
            |name| set_of(name).is_some_and(|prefix| infos.contains_key(prefix)),
            |name, bytes| {
                let set: IconSet = self.archive.parse(archives, name, &bytes)?;
                let Some(role) = infos.get(&set.prefix).and_then(|info| self.role(&set.prefix, info)) else {
                    return Ok(());
                };
                let icons = self.icons_of(&set, role, counts);
                sets.push((role, set.prefix, icons));
                if sets.len().is_multiple_of(30) {
                    progress(&format!("read {} of {} sets", sets.len(), infos.len()));
                }
                Ok(())
            },
        )?;
        // Training sets first: a drawing that a held-out set shares with them is no test.
        sets.sort_by(|a, b| (a.0, &a.1).cmp(&(b.0, &b.1)));
        let mut bodies = HashSet::new();
        let mut icons = Vec::new();
        for (_, _, set) in sets {
            let mut captions: HashSet<String> = HashSet::new();
            for icon in set {
                if captions.contains(&icon.caption) {
                    counts.add("style variants of a (set, caption) that is in", 1);
                } else if bodies.insert(<[u8; 32]>::from(Sha256::digest(&icon.svg))) {
                    captions.insert(icon.caption.clone());
                    icons.push(icon);
                } else {
                    counts.add("same SVG as an icon that is in", 1);
                }
            }
        }
        Ok((infos, icons))
    }

    /// Icons that may be used, plainest name first.
    fn icons_of(&self, set: &IconSet, role: Role, counts: &mut Counts) -> Vec<Icon> {
        let mut icons = Vec::new();
        for name in set.icons.keys() {
            if role == Role::Other && self.other.skip_endings.iter().any(|ending| name.ends_with(ending)) {
                continue;
            }
            let Some(svg) = set.svg(name) else {
                counts.add("hidden icons", 1);
                continue;
            };
            match caption::of_name(name, &set.suffixes, &set.prefixes) {
                Some(caption) => icons.push(Icon { role, set: set.prefix.clone(), name: name.clone(), caption, svg }),
                None => counts.add("names without a letter", 1),
            }
        }
        icons.sort_by(|a, b| (a.name.len(), &a.name).cmp(&(b.name.len(), &b.name)));
        icons
    }

    fn role(&self, prefix: &str, info: &SetInfo) -> Option<Role> {
        if self.other.sets.contains(prefix) {
            return Some(Role::Other);
        }
        let dropped = info.hidden
            || !self.licenses.contains(&info.license.spdx)
            || info.category.as_ref().is_some_and(|category| self.dropped_categories.contains(category))
            || self.dropped_prefixes.iter().any(|start| prefix.starts_with(start));
        let held_out = self.held_out.iter().any(|lineage| lineage.contains(prefix));
        (!dropped).then_some(if held_out { Role::HeldOut } else { Role::Train })
    }

    fn lineage<'a>(&'a self, set: &'a str) -> &'a str {
        let listed = self.lineages.iter().find(|lineage| lineage.contains(set));
        match listed.and_then(BTreeSet::first) {
            Some(first) => first,
            None => set.split('-').next().unwrap_or(set),
        }
    }

    /// Moves whole (lineage, caption) groups from training to `val`, in the order of their hash.
    fn pick_val(&self, icons: &mut [Icon]) {
        let mut groups: HashMap<String, Vec<usize>> = HashMap::new();
        for (index, icon) in icons.iter().enumerate().filter(|(_, icon)| icon.role == Role::Train) {
            groups.entry(format!("{}/{}", self.lineage(&icon.set), icon.caption)).or_default().push(index);
        }
        let mut groups: Vec<(String, Vec<usize>)> = groups.into_iter().collect();
        groups.sort_by_cached_key(|(name, _)| digest(name));
        let mut taken = 0;
        for (_, members) in groups {
            if taken >= self.val_pairs {
                break;
            }
            taken += members.len();
            for index in members {
                icons[index].role = Role::Val;
            }
        }
    }

    /// Drops test images near a training image, and held-out ones that draw no concept. Returns what remains near, in
    /// words, by role.
    fn drop_near(&self, drawn: Vec<Drawn>) -> (Vec<Drawn>, BTreeMap<Role, String>) {
        let (mut kept, mut test): (Vec<Drawn>, Vec<Drawn>) =
            drawn.into_iter().partition(|drawn| drawn.role == Role::Train);
        test.retain(|drawn| drawn.role != Role::HeldOut || self.class(&drawn.pair.caption).is_some());
        let distances = {
            let train: Vec<&[u8]> = kept.iter().map(|drawn| drawn.pair.pixels.as_slice()).collect();
            let images: Vec<&[u8]> = test.iter().map(|drawn| drawn.pair.pixels.as_slice()).collect();
            near::nearest(&train, &images, self.image_size, 2.0 * self.near_duplicate)
        };
        let mut tallies: BTreeMap<Role, [usize; 4]> = BTreeMap::new();
        for (drawn, distance) in test.into_iter().zip(distances) {
            let tally = tallies.entry(drawn.role).or_default();
            tally[0] += 1;
            match distance {
                Some(distance) if distance <= self.near_duplicate => {
                    tally[1] += 1;
                    tally[2] += usize::from(distance <= self.near_duplicate / 2.0);
                }
                near => {
                    tally[3] += usize::from(near.is_some());
                    kept.push(drawn);
                }
            }
        }
        let words = |[all, dropped, close, left]: [usize; 4]| {
            let (near, half, far) = (self.near_duplicate, self.near_duplicate / 2.0, 2.0 * self.near_duplicate);
            format!(
                "near-duplicates of training images (relative squared distance of the ink up to {near}) dropped: {dropped} of {all}, {close} of \
                 them within {half}; residual: {left} of the {} that stay are within {far} of a training image",
                all - dropped
            )
        };
        (kept, tallies.into_iter().map(|(role, tally)| (role, words(tally))).collect())
    }

    fn class(&self, caption: &str) -> Option<u32> {
        self.concepts.iter().position(|concept| concept == caption).map(|class| class as u32)
    }

    fn pool(
        &self,
        name: &str,
        drawn: &[Drawn],
        infos: &BTreeMap<String, SetInfo>,
        counts: &Counts,
        residual: &BTreeMap<Role, String>,
    ) -> Result<Draft, Error> {
        let (role, about) = match name {
            "train" => (Role::Train, "sets that pass the filters, one drawing per (set, caption)".to_owned()),
            "val" => (Role::Val, "(lineage, caption) groups of the training sets, picked by hash; their captions may train in other lineages".into()),
            "zeroshot" => (Role::HeldOut, format!("drawings of {} concepts by held-out lineages", self.concepts.len())),
            _ => (Role::Other, "another distribution, never in train in any style".into()),
        };
        let mut pairs: Vec<Pair> =
            drawn.iter().filter(|drawn| drawn.role == role).map(|drawn| drawn.pair.clone()).collect();
        if pairs.is_empty() {
            return Err(Error::Empty { pool: name.into(), counts: counts.text() });
        }
        let mut notes = vec![about, "caption: icon name without style words and sizes".into()];
        let (mut class_names, mut templates) = (Vec::new(), Vec::new());
        if role == Role::HeldOut {
            for pair in &mut pairs {
                pair.class = self.class(&pair.caption);
            }
            let seen: BTreeSet<u32> = pairs.iter().filter_map(|pair| pair.class).collect();
            notes.push(format!(
                "{} of {} classes have an image; chance is 1 in {}",
                seen.len(),
                self.concepts.len(),
                self.concepts.len()
            ));
            class_names.clone_from(&self.concepts);
            templates.clone_from(&self.templates);
        }
        let lineages: Vec<String> =
            self.held_out.iter().map(|sets| sets.iter().cloned().collect::<Vec<_>>().join(" ")).collect();
        notes.push(format!("lineages that never train: {}", lineages.join("; ")));
        notes.extend(residual.get(&role).cloned());
        notes.push(format!("over all pools: {}", counts.text()));

        let mut per_set: BTreeMap<&str, u64> = BTreeMap::new();
        for pair in &pairs {
            *per_set.entry(&pair.set).or_default() += 1;
        }
        let attribution = per_set.iter().map(|(&set, &count)| infos[set].attribution(set, count)).collect();
        let licenses: BTreeSet<&str> = pairs.iter().map(|pair| pair.license.as_str()).collect();
        let license = licenses.into_iter().collect::<Vec<_>>().join(" AND ");
        let sources = vec![(Source { license, ..self.archive.clone() }, pairs.len() as u64)];
        Ok(Draft { name: name.into(), pairs, sources, notes, class_names, templates, attribution })
    }
}

/// `json/lucide.json` -> `lucide`.
fn set_of(name: &str) -> Option<&str> {
    name.strip_prefix("json/")?.strip_suffix(".json")
}

/// Draws the icons in parallel, a slice at a time to tell how far it is.
fn draw(
    icons: &[Icon],
    infos: &BTreeMap<String, SetInfo>,
    size: u32,
    counts: &mut Counts,
    progress: Progress,
) -> Vec<Drawn> {
    let total = icons.len();
    let mut drawn = Vec::with_capacity(total);
    for (index, slice) in icons.chunks(20_000).enumerate() {
        progress(&format!("drawing icons: {} of {total}", index * 20_000));
        let pixels: Vec<_> = slice.par_iter().map(|icon| render::render(&icon.svg, size)).collect();
        for (icon, pixels) in slice.iter().zip(pixels) {
            match pixels {
                Ok(Some(pixels)) => drawn.push(Drawn {
                    role: icon.role,
                    pair: Pair {
                        key: format!("{}__{}", icon.set, icon.name),
                        caption: icon.caption.clone(),
                        class: None,
                        pixels,
                        set: icon.set.clone(),
                        license: infos[&icon.set].license.spdx.clone(),
                    },
                }),
                Ok(None) => counts.add("blank on white", 1),
                Err(_) => counts.add("not drawable", 1),
            }
        }
    }
    drawn
}
