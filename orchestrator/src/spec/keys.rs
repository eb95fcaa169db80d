//! Every key of a spec: its name, what it may be, its default and what it means. The parser, the JSON Schema and the
//! errors all read these tables, so they can't disagree.

use super::backend_keys::BACKENDS;
use super::evaluation_keys::EVALUATION;
use super::fits::{FITS, METRIC};
use super::recipe_keys::RECIPE;
use super::tune::TUNE;

/// One key.
#[derive(Debug)]
pub struct Key {
    /// As written in the YAML.
    pub name: &'static str,
    /// What its value may be.
    pub kind: Kind,
    /// Whether it must be there.
    pub need: Need,
    /// What it means, one sentence.
    pub doc: &'static str,
}

/// Whether a key must be there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Need {
    /// It must.
    Required,
    /// Left out, it does nothing.
    Optional,
    /// Left out, it is this (YAML).
    Default(&'static str),
}

/// What a value may be.
#[derive(Debug)]
pub enum Kind {
    /// Any text.
    Text,
    /// Letters, digits, `-`, `_` and `.`: goes into paths and SQL.
    Name,
    /// Name of a shipped model or path of a JSON file.
    Model,
    /// Whole number.
    Count {
        /// Smallest.
        min: u64,
        /// Largest.
        max: u64,
    },
    /// Whole number of samples, or `all`.
    DataSize,
    /// Whole number of images a class, `all` or `vtab1k`.
    Shots,
    /// Whole number from 1, or `all`.
    CountOrAll {
        /// Largest.
        max: u64,
    },
    /// Whole number of samples, or a share such as `10%`.
    Amount,
    /// Real number.
    Number(Range),
    /// One value of that kind, or a map with these keys: an expression that gives it.
    Ruled(&'static Kind, &'static [Key]),
    /// Time with a unit.
    Duration {
        /// Seconds at least.
        min: u64,
    },
    /// Text that another module reads: whether it can, or why not; and what is allowed.
    Checked(fn(&str) -> Result<(), String>, &'static str),
    /// One of these words.
    Choice(&'static [&'static str]),
    /// `true` or `false`.
    Flag,
    /// Map of one's own names to numbers.
    Numbers,
    /// Map of one's own names to text, which may be empty.
    Texts,
    /// List of exactly so many.
    Tuple(&'static Kind, usize),
    /// List, perhaps empty.
    List(&'static Kind),
    /// One value, or a list of at least one without repeats.
    OneOrMore(&'static Kind),
    /// Map with these keys.
    Section(&'static [Key]),
    /// Map with some of these keys, at least one; none is required and no default applies.
    Some(&'static [Key]),
    /// One of these names, alone or with a map of options: `local` or `{local: {slots: 2}}`.
    Variant(&'static [Key]),
}

/// Bounds of a real number.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Range {
    /// Lower bound.
    pub min: f64,
    /// Whether the lower bound itself is allowed.
    pub min_allowed: bool,
    /// Values lie below this.
    pub below: f64,
}

impl Range {
    pub(super) const fn positive() -> Range {
        Range { min: 0.0, min_allowed: false, below: f64::INFINITY }
    }

    /// Whether `value` lies inside.
    pub fn contains(&self, value: f64) -> bool {
        (value > self.min || (self.min_allowed && value >= self.min)) && value < self.below
    }
}

/// Largest count: every whole number up to here is exact as a 64-bit float too.
pub const COUNT_MAX: u64 = 1_000_000_000_000_000;

pub(super) const SAMPLES: Kind = Kind::Count { min: 1, max: COUNT_MAX };

pub(super) const fn key(name: &'static str, kind: Kind, need: Need, doc: &'static str) -> Key {
    Key { name, kind, need, doc }
}

use Need::{Default, Optional, Required};

/// The whole spec.
pub const SPEC: Kind = Kind::Section(SPEC_KEYS);

/// Keys of the root.
pub static SPEC_KEYS: &[Key] = &[
    key("name", Kind::Name, Required, "Name of the sweep, by which every other command knows it"),
    key("question", Kind::Text, Optional, "What the sweep is to answer"),
    key("runner", Kind::Text, Default("clip"), "Who trains: a name (`clip` is the executable `clip-runner`) or a path"),
    key("data", Kind::Section(DATA), Optional, "Image-text pairs to train on; needed by runners that read data"),
    key("grid", Kind::Section(GRID), Optional, "Values on each axis; every combination is a cell"),
    key(
        "exclude",
        Kind::List(&Kind::Some(GRID)),
        Optional,
        "Cells of the grid to leave out: those that match all an entry names",
    ),
    key(
        "include",
        Kind::List(&Kind::Some(GRID)),
        Optional,
        "Cells beside the grid, after `exclude`; axes an entry leaves out are the grid's",
    ),
    key("recipe", Kind::Section(RECIPE), Required, "How to train"),
    key(
        "overrides",
        Kind::List(&Kind::Section(OVERRIDE)),
        Optional,
        "Changes of the recipe for some cells; later ones win",
    ),
    key(
        "tune",
        Kind::Section(TUNE),
        Optional,
        "A ladder of learning rates for each model at its fewest samples seen: the best is taken for its cells",
    ),
    key("evaluations", Kind::List(&Kind::Section(EVALUATION)), Optional, "What to measure, in order"),
    key(
        "companions",
        Kind::Section(COMPANIONS),
        Optional,
        "How checkpoints are measured that say `evaluate: every_checkpoint`",
    ),
    key(
        "fits",
        Kind::List(&Kind::Section(FITS)),
        Optional,
        "Laws that `sweep launch` fits when the last result is there",
    ),
    key(
        "headline",
        METRIC,
        Optional,
        "What `sweep report` opens with: DATASET/METRIC; else the law that is known best",
    ),
    key("backend", Kind::Variant(BACKENDS), Default("local"), "Where jobs run"),
    key("limits", Kind::Section(LIMITS), Optional, "How far to go"),
];

static DATA: &[Key] = &[
    key("pool", Kind::Text, Required, "Folder of WebDataset shards with sizes.json or manifest.json"),
    key("name", Kind::Name, Optional, "Name to store it under; else the manifest's, else the folder's"),
];

/// Axes of the grid.
pub static GRID: &[Key] = &[
    key(
        "model",
        Kind::OneOrMore(&Kind::Model),
        Required,
        "Models: OpenCLIP names (`sweep model` lists them) or JSON files",
    ),
    key(
        "samples_seen",
        Kind::OneOrMore(&Kind::Count { min: 0, max: COUNT_MAX }),
        Required,
        "Samples to train on, repeats counted; rounded up to whole global batches. 0, with `recipe.init`: only measure",
    ),
    key(
        "data_size",
        Kind::OneOrMore(&Kind::DataSize),
        Default("all"),
        "Unique samples of the pool, or `all`; smaller sizes lie in larger ones",
    ),
    key(
        "seed",
        Kind::OneOrMore(&Kind::Count { min: 0, max: COUNT_MAX }),
        Default("0"),
        "Seeds of initialisation, order and augmentation",
    ),
];

/// Of the jobs that measure checkpoints while training goes on.
static COMPANIONS: &[Key] = &[
    key(
        "parallel",
        Kind::Count { min: 1, max: 100_000 },
        Default("1"),
        "Checkpoints measured at one time, beside training",
    ),
    key("backend", Kind::Variant(BACKENDS), Optional, "Where that happens; else where training does"),
    key("runner", Kind::Text, Optional, "Who measures; else who trains"),
    key(
        "device",
        Kind::Choice(&["any", "cpu"]),
        Default("any"),
        "On this machine: `cpu` leaves its GPUs to training; else they are shared",
    ),
];

static OVERRIDE: &[Key] = &[
    key("where", Kind::Some(GRID), Required, "Which cells: all axes named must match"),
    key("set", Kind::Some(RECIPE), Required, "Fields of the recipe and their values there"),
];

static LIMITS: &[Key] = &[
    key("parallel", Kind::Count { min: 1, max: 100_000 }, Optional, "Jobs at one time, whatever the backend could do"),
    key("retries", Kind::Count { min: 0, max: 1_000 }, Default("2"), "New attempts at a job that crashed"),
    key("time", Kind::Duration { min: 1 }, Optional, "Longest time for one attempt"),
    key(
        "compute",
        Kind::Number(Range::positive()),
        Optional,
        "Training FLOPs of the whole sweep; a plan that needs more is refused",
    ),
    key(
        "skipped",
        Kind::Amount,
        Default("1%"),
        "Pairs of `data_size` that may turn out unusable; a job that lacks more fails",
    ),
];

impl Kind {
    /// What is allowed, for errors: completes "allowed: ...".
    pub fn allowed(&self) -> String {
        match self {
            Kind::Text => "text".to_owned(),
            Kind::Name => "letters, digits, `-`, `_` and `.`, at most 64".to_owned(),
            Kind::Model => "a name that `sweep model` lists, or the path of a JSON file".to_owned(),
            Kind::Count { min, max: COUNT_MAX } => {
                format!("a whole number from {min} to 1e15, such as `500`, `128k`, `3e6` or `2B`")
            }
            Kind::Count { min, max } => format!("a whole number from {min} to {max}"),
            Kind::CountOrAll { max } => format!("a whole number from 1 to {max}, or `all`"),
            Kind::DataSize => "a number of samples such as `500`, `16k` or `2B`, or `all`".to_owned(),
            Kind::Shots => "a number of images of each class, `all` or `vtab1k`".to_owned(),
            Kind::Amount => "a number of samples such as `10k`, or a share such as `10%`".to_owned(),
            Kind::Number(range) => {
                let min = match (range.min_allowed, range.below.is_finite()) {
                    (true, _) => format!("a number, at least {}", range.min),
                    (false, _) => format!("a number above {}", range.min),
                };
                if range.below.is_finite() { format!("{min} and below {}", range.below) } else { min }
            }
            Kind::Ruled(kind, _) => format!("{}; or `{{rule: \"...\"}}` with an expression", kind.allowed()),
            Kind::Duration { min } => {
                let least = if *min > 1 { format!(", at least {min}s") } else { String::new() };
                format!("a time with its unit, such as `90s`, `30m`, `2h` or `1d`{least}")
            }
            Kind::Checked(_, allowed) => (*allowed).to_owned(),
            Kind::Choice(words) => one_of(words.iter().copied()),
            Kind::Flag => "`true` or `false`".to_owned(),
            Kind::Numbers => "a map of names to numbers".to_owned(),
            Kind::Texts => "a map of names to text".to_owned(),
            Kind::Tuple(kind, count) => format!("a list of {count}, each {}", kind.allowed()),
            Kind::List(kind) => format!("a list, each entry {}", kind.allowed()),
            Kind::OneOrMore(kind) => format!("{}; or a list of them", kind.allowed()),
            Kind::Section(keys) | Kind::Some(keys) => format!("a map with the keys {}", names(keys)),
            Kind::Variant(keys) => one_of(keys.iter().map(|key| key.name)),
        }
    }
}

/// `a`, `b` or `c`.
pub(super) fn one_of<'a>(words: impl Iterator<Item = &'a str>) -> String {
    let mut words: Vec<String> = words.map(|word| format!("`{word}`")).collect();
    match words.pop() {
        Some(last) if words.is_empty() => last,
        Some(last) => format!("{} or {last}", words.join(", ")),
        None => String::new(),
    }
}

/// Names of keys in order.
pub(super) fn names(keys: &[Key]) -> String {
    keys.iter().map(|key| format!("`{}`", key.name)).collect::<Vec<_>>().join(", ")
}
