//! Members to samples, and what makes a sample a pair.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::fs::File;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::error::Error;
use crate::folder::DatasetType;
use crate::multilabel;
use crate::tar::{Kind, Member, Reader, Span};

/// Extensions of images. What an image is in truth, its content says.
const IMAGES: [&str; 4] = ["jpg", "jpeg", "png", "webp"];
/// Longest caption and class, bytes: a longer one is another file under a caption's name.
const TEXT_MAX: u64 = 1 << 20;

/// Members of one key that lie side by side.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Group {
    /// Name up to the first dot of its last part, without `./` in front.
    key: String,
    image: Option<(Kind, Span)>,
    caption: Option<(Kind, Span)>,
    class: Option<(Kind, Span)>,
    /// Vector of classes.
    classes: Option<(Kind, Span)>,
    /// The key was there before in this shard.
    repeated: bool,
    /// Extensions so far: one that comes twice starts another sample.
    extensions: BTreeSet<String>,
}

/// One sample of a shard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sample {
    /// Name of its members up to the first dot of the last part, without `./` in front.
    pub key: String,
    /// What it holds, or why it can't be used.
    pub content: Result<Content, Reason>,
}

/// A pair, good as far as it can be told without decoding its image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Content {
    /// Bytes of the image.
    pub image: Span,
    /// Trimmed, never empty. Of [`DatasetType::Retrieval`]: all captions, one a line.
    pub caption: String,
    /// Line of `classnames.txt`, from 0.
    pub class: Option<u32>,
    /// Lines of `classnames.txt`, ascending, of [`DatasetType::Multilabel`] alone.
    pub classes: Option<Vec<u32>>,
}

/// Why a sample is not used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reason {
    /// The same words for all samples with this fault: what is counted.
    pub kind: &'static str,
    /// The fault of this one, `it has no caption (txt)`.
    pub text: String,
}

impl fmt::Display for Reason {
    fn fmt(&self, to: &mut fmt::Formatter) -> fmt::Result {
        to.write_str(&self.text)
    }
}

/// How many samples of a shard or a pool are pairs, and how many are not, by [`Reason::kind`].
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Counts {
    /// Pairs.
    pub pairs: u64,
    /// Samples that are not used.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub skipped: BTreeMap<String, u64>,
}

impl Counts {
    /// Adds those of another shard.
    pub fn add(&mut self, other: &Counts) {
        self.pairs = self.pairs.saturating_add(other.pairs);
        for (kind, &count) in &other.skipped {
            let sum = self.skipped.entry(kind.clone()).or_default();
            *sum = sum.saturating_add(count);
        }
    }

    /// Samples, used or not.
    pub fn samples(&self) -> u64 {
        self.skipped.values().fold(self.pairs, |sum, &count| sum.saturating_add(count))
    }
}

/// Counts samples as [`read`] gave them.
pub fn count(samples: &[Sample]) -> Counts {
    let mut counts = Counts::default();
    for sample in samples {
        match &sample.content {
            Ok(_) => counts.pairs += 1,
            Err(reason) => *counts.skipped.entry(reason.kind.to_owned()).or_default() += 1,
        }
    }
    counts
}

/// Reads the samples of the shard at `path`, in its order. `class_names` stand in for captions where there are classes
/// only.
pub fn read(path: &Path, class_names: &[String], kind: DatasetType) -> Result<Vec<Sample>, Error> {
    let file = File::open(path).map_err(Error::io("read", path))?;
    let mut reader = Reader::new(path, &file)?;
    let mut groups = Grouping { kind, ..Grouping::default() };
    // Texts and an image's first bytes mostly lie in the window that their headers were read in.
    let mut texts = HashMap::new();
    while let Some(member) = reader.member()? {
        let span = member.span;
        let wanted = match groups.add(&member) {
            Some(Role::Image) => span.length.min(16),
            Some(Role::Caption | Role::Class | Role::Classes) if span.length <= TEXT_MAX => span.length,
            _ => continue,
        };
        let bytes = reader.bytes(Span { offset: span.offset, length: wanted })?;
        texts.insert(span.offset, bytes.to_vec());
    }
    let text = |span: Span| texts.get(&span.offset).map(Vec::as_slice).unwrap_or_default();
    Ok(groups
        .finish()
        .into_iter()
        .map(|group| Sample { content: content(&group, text, class_names, kind), key: group.key })
        .collect())
}

/// What a member is to its sample.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Role {
    Image,
    Caption,
    Class,
    Classes,
}

fn role(extension: &str, kind: DatasetType) -> Option<Role> {
    match extension {
        "txt" => Some(Role::Caption),
        "cls" => Some(Role::Class),
        "npy" => (kind == DatasetType::Multilabel).then_some(Role::Classes),
        other => IMAGES.contains(&other).then_some(Role::Image),
    }
}

/// `dir/0001.png` -> (`dir/0001`, `png`). `None` for names that carry no sample: no dot, hidden files.
fn split_name(name: &str) -> Option<(&str, String)> {
    let name = name.strip_prefix("./").unwrap_or(name);
    let base = name.rfind('/').map_or(0, |slash| slash + 1);
    let dot = base + name[base..].find('.')?;
    (dot > base).then(|| (&name[..dot], name[dot + 1..].to_ascii_lowercase()))
}

#[derive(Default)]
struct Grouping {
    kind: DatasetType,
    groups: Vec<Group>,
    /// Key to its first group.
    first: HashMap<String, usize>,
    /// Links in a place where a file should be: WebDataset reads past them, so they part no sample.
    links: Vec<(String, Role, Span)>,
}

impl Grouping {
    /// Adds the next member and says what it is to its sample, where it is a file that its sample did not have.
    fn add(&mut self, member: &Member) -> Option<Role> {
        let (key, extension) = split_name(&member.name)?;
        let role = role(&extension, self.kind);
        match member.kind {
            Kind::Other => return None,
            Kind::Link => {
                self.links.extend(role.map(|role| (key.to_owned(), role, member.span)));
                return None;
            }
            Kind::File | Kind::Sparse => (),
        }
        let goes_on =
            self.groups.last().is_some_and(|group| group.key == key && !group.extensions.contains(&extension));
        if !goes_on {
            self.start(key);
        }
        let group = self.groups.last_mut().expect("started above");
        group.extensions.insert(extension);
        let role = role?;
        let slot = group.slot(role);
        if slot.is_some() {
            return None;
        }
        *slot = Some((member.kind, member.span));
        (member.kind == Kind::File).then_some(role)
    }

    fn start(&mut self, key: &str) {
        let at = self.groups.len();
        let repeated = *self.first.entry(key.to_owned()).or_insert(at) != at;
        let (key, extensions) = (key.to_owned(), BTreeSet::new());
        let (image, caption, class, classes) = (None, None, None, None);
        self.groups.push(Group { key, image, caption, class, classes, repeated, extensions });
    }

    /// Links go to the sample that lacks what they stand for, or make one that can't be used.
    fn finish(mut self) -> Vec<Group> {
        for (key, role, span) in std::mem::take(&mut self.links) {
            if !self.first.contains_key(&key) {
                self.start(&key);
            }
            let at = self.first[&key];
            self.groups[at].slot(role).get_or_insert((Kind::Link, span));
        }
        self.groups
    }
}

impl Group {
    fn is_without_text(&self) -> bool {
        self.caption.is_none() && self.class.is_none() && self.classes.is_none()
    }

    fn slot(&mut self, role: Role) -> &mut Option<(Kind, Span)> {
        match role {
            Role::Image => &mut self.image,
            Role::Caption => &mut self.caption,
            Role::Class => &mut self.class,
            Role::Classes => &mut self.classes,
        }
    }
}

/// What the sample holds, where `text` gives the bytes of its texts and the first ones of its image.
fn content<'a>(
    group: &Group,
    text: impl Fn(Span) -> &'a [u8],
    class_names: &[String],
    kind: DatasetType,
) -> Result<Content, Reason> {
    let because = |kind: &'static str, text: &str| Err(Reason { kind, text: text.to_owned() });
    if group.repeated && (group.image.is_none() || group.is_without_text()) {
        return because(
            "members apart",
            "its key was there before in this shard: members of one sample must lie side by side",
        );
    }
    if group.repeated {
        return because("key twice in its shard", "its key was there before in this shard");
    }
    let members = [
        ("image", group.image),
        ("caption", group.caption),
        ("class", group.class),
        ("list of classes", group.classes),
    ];
    for (name, member) in members {
        match member {
            Some((Kind::Link, _)) => {
                return because("a link", &format!("its {name} is a link, and links in shards are not followed"));
            }
            Some((Kind::Sparse, _)) => {
                return because("a sparse file", &format!("its {name} is stored as a sparse file"));
            }
            Some((_, span)) if name != "image" && span.length > TEXT_MAX => {
                return because("too long a text", &format!("its {name} has {} bytes", span.length));
            }
            _ => (),
        }
    }
    let Some((_, image)) = group.image else {
        let dotted = |extension: &&String| extension.rsplit_once('.').is_some_and(|(_, last)| IMAGES.contains(&last));
        return match group.extensions.iter().find(dotted) {
            None => because("no image", "it has no jpg, jpeg, png or webp"),
            Some(extension) => because(
                "no image, a dot in its name",
                &format!("it has no jpg, jpeg, png or webp but `{extension}`: a key ends at its name's first dot"),
            ),
        };
    };
    let class = match group.class {
        None => None,
        Some((_, span)) => {
            let text = String::from_utf8_lossy(text(span));
            let text = trim(&text);
            match text.parse::<u32>() {
                Ok(class) => Some(class),
                Err(_) => {
                    return because("class is no number", &format!("its class `{text}` is not a whole number"));
                }
            }
        }
    };
    let classes = match group.classes {
        None if kind == DatasetType::Multilabel => return because("no classes", "it has no classes (npy)"),
        None => None,
        Some((_, span)) => match multilabel::classes(text(span)) {
            Ok(classes) => Some(classes),
            Err(reason) => return because("classes can't be read", &format!("its classes (npy): {reason}")),
        },
    };
    let named = classes.as_ref().map(|classes| multilabel::caption(classes, class_names));
    let caption = match (group.caption, class.and_then(|class| class_names.get(class as usize))) {
        (Some((_, span)), _) => match str::from_utf8(text(span)) {
            Ok(text) => trim(text),
            Err(_) => return because("caption is not UTF-8", "its caption is not UTF-8"),
        },
        (None, Some(name)) => name,
        (None, None) if named.is_some() => named.as_deref().unwrap_or_default(),
        (None, None) => return because("no caption", "it has no caption (txt)"),
    };
    if caption.chars().all(invisible) {
        return because("empty caption", "its caption is empty");
    }
    if image.length == 0 {
        return because("not an image", "the image is empty");
    }
    if !is_image(text(image)) {
        return because("not an image", "not a JPEG, PNG or WebP image");
    }
    Ok(Content { image, caption: caption.to_owned(), class, classes })
}

/// Told by its first bytes, as a decoder does.
fn is_image(start: &[u8]) -> bool {
    start.starts_with(b"\xff\xd8\xff")
        || start.starts_with(b"\x89PNG\r\n\x1a\n")
        || start.starts_with(b"RIFF") && start.get(8..12) == Some(b"WEBP")
}

/// Without white space, byte-order marks and NULs around it.
pub(crate) fn trim(text: &str) -> &str {
    text.trim_matches(|c: char| c.is_whitespace() || c == '\u{feff}' || c == '\0')
}

/// White space, controls, and characters that draw nothing: a caption of these alone says nothing.
fn invisible(c: char) -> bool {
    c.is_whitespace()
        || c.is_control()
        || matches!(c,
            '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}' | '\u{1160}' | '\u{17b4}' | '\u{17b5}' | '\u{180b}'..='\u{180f}'
            | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{2800}' | '\u{3164}'
            | '\u{fe00}'..='\u{fe0f}' | '\u{feff}' | '\u{ffa0}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e0fff}')
}
