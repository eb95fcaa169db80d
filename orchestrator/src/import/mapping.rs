//! `--map KEY=COLUMN`: which columns of a table are which quantities.

use std::fmt;

use super::{did_you_mean, list_of};
use crate::dataset::table::Table;
use crate::fit::Convention;
use crate::spec::expression::{Expression, ExpressionError};

/// A quantity.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Key {
    /// N, parameters.
    N,
    /// D, samples seen.
    D,
    /// U, unique samples there are; a row can't see more than D of them.
    U,
    /// C.
    C,
    /// 1 - accuracy.
    Error,
    /// Nats.
    Loss,
    /// Fraction.
    Accuracy,
    /// Any other metric, by name: a fraction, or a loss where the name starts with `loss`.
    Metric(String),
    /// Standard error of the error, loss or accuracy.
    StandardError,
    /// Test items.
    Count,
    /// What guessing gives, as an accuracy (or a loss).
    Chance,
    /// GPU-hours.
    Cost,
    /// Seed.
    Seed,
    /// Model or family.
    Group,
    /// Data set measured on.
    Dataset,
    /// Data set trained on.
    Pool,
    /// Rows of one run are checkpoints of one job.
    Run,
}

const KEYS: &[(&str, Key)] = &[
    ("n", Key::N),
    ("d", Key::D),
    ("u", Key::U),
    ("c", Key::C),
    ("error", Key::Error),
    ("loss", Key::Loss),
    ("accuracy", Key::Accuracy),
    ("se", Key::StandardError),
    ("count", Key::Count),
    ("chance", Key::Chance),
    ("cost", Key::Cost),
    ("seed", Key::Seed),
    ("group", Key::Group),
    ("dataset", Key::Dataset),
    ("pool", Key::Pool),
    ("run", Key::Run),
];

/// Keys for people.
pub const KEYS_HELP: &str =
    "n, d, u, c, error, loss, accuracy, metric:NAME, se, count, chance, cost, seed, group, dataset, pool, run";

impl Key {
    fn parse(text: &str) -> Option<Key> {
        let known = KEYS.iter().find(|(name, _)| *name == text).map(|(_, key)| key.clone());
        let metric = || text.strip_prefix("metric:").filter(|name| !name.is_empty());
        known.or_else(|| Some(Key::Metric(metric()?.to_owned())))
    }

    /// Whether its values are words.
    pub fn is_text(&self) -> bool {
        matches!(self, Key::Group | Key::Dataset | Key::Pool | Key::Run)
    }

    /// Whether it is something measured.
    pub fn is_metric(&self) -> bool {
        matches!(self, Key::Error | Key::Loss | Key::Accuracy | Key::Metric(_))
    }

    /// What it is stored as: an error as its accuracy, since the view `observation` takes 1 - value of fractions.
    pub fn metric_name(&self) -> &str {
        match self {
            Key::Loss => "loss",
            Key::Metric(name) => name,
            _ => "accuracy",
        }
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self, KEYS.iter().find(|(_, key)| key == self)) {
            (Key::Metric(name), _) => write!(f, "metric:{name}"),
            (_, Some((name, _))) => f.write_str(name),
            (_, None) => Ok(()),
        }
    }
}

/// Where a quantity comes from.
#[derive(Debug, Clone, PartialEq)]
pub enum From {
    /// Arithmetic over columns of numbers.
    Numbers(Expression),
    /// A column of words.
    Words(String),
    /// The same word for every row.
    Word(String),
}

/// All of `--map`, checked against a table.
#[derive(Debug, Clone, PartialEq)]
pub struct Mapping {
    /// In the order given.
    pub entries: Vec<(Key, From)>,
    /// How `c` was counted.
    pub compute: Option<Convention>,
}

/// What is wrong with a `--map`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MapError {
    /// No `=`.
    #[error("--map `{0}`: write KEY=COLUMN, for example `n=Parameters`")]
    NoEquals(String),
    /// Not a key.
    #[error("--map `{key}=`: there is no key `{key}`; keys are {KEYS_HELP}")]
    Key {
        /// As given.
        key: String,
    },
    /// The same quantity twice.
    #[error("--map `{first}=` and `{second}=` both give {what}; keep one")]
    Twice {
        /// Key.
        first: String,
        /// Key.
        second: String,
        /// What both are.
        what: String,
    },
    /// Not a column.
    #[error("--map `{key}=`: {table} has no column `{column}`{meant}; it has {there}")]
    Column {
        /// Key.
        key: String,
        /// File.
        table: String,
        /// As given.
        column: String,
        /// A suggestion.
        meant: String,
        /// Columns.
        there: String,
    },
    /// Not arithmetic.
    #[error("--map `{key}={text}`: {source}")]
    Expression {
        /// Key.
        key: String,
        /// As given.
        text: String,
        /// Why.
        source: ExpressionError,
    },
    /// A name that is a column and a key.
    #[error(
        "--map `{key}={text}`: `{name}` is a column of the table, and a quantity that is mapped to `{mapped}`; write \
         `column:{name}` or `axis:{name}`"
    )]
    Ambiguous {
        /// Key.
        key: String,
        /// As given.
        text: String,
        /// The name.
        name: String,
        /// What it is mapped to.
        mapped: String,
    },
    /// Keys that are made of each other.
    #[error("--map `{key}=` is made of itself")]
    Circle {
        /// Key.
        key: String,
    },
    /// Nothing measured.
    #[error("nothing measured is mapped: give one of error=, loss=, accuracy= or metric:NAME=")]
    NoMetric,
    /// `c` of an unknown convention.
    #[error("say how `c` was counted: --compute six_nd, train_flops or gmacs_samples")]
    NoConvention,
    /// A convention of nothing.
    #[error("--compute says how `c` was counted, but no `c` is mapped")]
    NoCompute,
    /// Checkpoints without a position.
    #[error("--map `run=` makes rows checkpoints of a run: map `d` too, the samples seen at each")]
    RunWithoutD,
}

impl Mapping {
    /// Reads `KEY=COLUMN` or `KEY=EXPRESSION`, over the columns of `table` and the other keys.
    pub fn parse(maps: &[String], compute: Option<Convention>, table: &Table) -> Result<Mapping, MapError> {
        let mut given = Vec::new();
        for map in maps {
            let (key, value) = map.split_once('=').ok_or_else(|| MapError::NoEquals(map.clone()))?;
            let (key, value) = (key.trim(), value.trim());
            let known = Key::parse(key).ok_or_else(|| MapError::Key { key: key.to_owned() })?;
            given.push((known, value));
        }
        for (at, (key, _)) in given.iter().enumerate() {
            let same = |other: &&(Key, &str)| {
                other.0 == *key || key.is_metric() && other.0.is_metric() && other.0.metric_name() == key.metric_name()
            };
            if let Some((first, _)) = given[..at].iter().find(same) {
                let what = if key.is_metric() { key.metric_name().to_owned() } else { key.to_string() };
                return Err(MapError::Twice { first: first.to_string(), second: key.to_string(), what });
            }
        }
        let has = |wanted: &Key| given.iter().any(|(key, _)| key == wanted);
        match (has(&Key::C), compute) {
            (true, None) => return Err(MapError::NoConvention),
            (false, Some(_)) => return Err(MapError::NoCompute),
            _ => {}
        }
        if !given.iter().any(|(key, _)| key.is_metric()) {
            return Err(MapError::NoMetric);
        }
        if has(&Key::Run) && !has(&Key::D) {
            return Err(MapError::RunWithoutD);
        }
        let entries = given.iter().map(|(key, value)| Ok((key.clone(), source(key, value, &given, table)?)));
        Ok(Mapping { entries: entries.collect::<Result<_, MapError>>()?, compute })
    }

    /// Where a key comes from.
    pub fn of(&self, wanted: &Key) -> Option<&From> {
        self.entries.iter().find(|(key, _)| key == wanted).map(|(_, from)| from)
    }
}

fn source(key: &Key, value: &str, given: &[(Key, &str)], table: &Table) -> Result<From, MapError> {
    if !key.is_text() {
        return numbers(key, value, given, table, 0).map(From::Numbers);
    }
    let quoted = ['"', '\''].iter().find_map(|quote| value.strip_prefix(*quote)?.strip_suffix(*quote));
    if let Some(word) = quoted.filter(|_| table.column(value).is_none()) {
        return Ok(From::Word(word.to_owned()));
    }
    let column = value.strip_prefix('`').and_then(|name| name.strip_suffix('`')).unwrap_or(value);
    match table.column(column) {
        Some(_) => Ok(From::Words(column.to_owned())),
        None => Err(no_column(key, column, table)),
    }
}

/// A column if the whole text is its name, else an expression, in which keys stand for what they are mapped to.
fn numbers(key: &Key, value: &str, given: &[(Key, &str)], table: &Table, depth: usize) -> Result<Expression, MapError> {
    if depth > given.len() {
        return Err(MapError::Circle { key: key.to_string() });
    }
    if table.column(value).is_some() {
        return Ok(Expression::Name(value.to_owned()));
    }
    let expression = Expression::parse(value).map_err(|source| {
        // A plain name that is no column says more as such than as bad arithmetic.
        if value.contains(['+', '*', '/', '(', '`']) {
            MapError::Expression { key: key.to_string(), text: value.to_owned(), source }
        } else {
            no_column(key, value, table)
        }
    })?;
    let mut replacements: Vec<(Expression, Expression)> = Vec::new();
    for leaf in expression.names() {
        let (name, may_be_column, may_be_key) = match leaf {
            Expression::OfTable(name) => (name, true, false),
            Expression::Mapped(name) => (name, false, true),
            Expression::Name(name) => (name, true, true),
            _ => continue,
        };
        let is_column = may_be_column && table.column(name).is_some();
        // In what a key is itself mapped to, its name can only be the column's.
        let other = given.iter().find(|(other, _)| {
            may_be_key && other.to_string() == *name && !other.is_text() && !(is_column && other == key)
        });
        let with = match other {
            Some((_, text)) if is_column && !is_plain(text, name) => {
                return Err(MapError::Ambiguous {
                    key: key.to_string(),
                    text: value.to_owned(),
                    name: name.clone(),
                    mapped: (*text).to_owned(),
                });
            }
            Some((other, text)) if !is_column => numbers(other, text, given, table, depth + 1)?,
            _ if is_column => Expression::Name(name.clone()),
            _ => return Err(no_column(key, name, table)),
        };
        replacements.push((leaf.clone(), with));
    }
    Ok(expression
        .replaced(&|leaf| replacements.iter().find(|(replaced, _)| replaced == leaf).map(|(_, with)| with.clone())))
}

/// Whether a key is mapped to the column of its own name, so that both readings are one.
fn is_plain(text: &str, name: &str) -> bool {
    text == name || text == format!("`{name}`") || text == format!("column:{name}")
}

fn no_column(key: &Key, column: &str, table: &Table) -> MapError {
    MapError::Column {
        key: key.to_string(),
        table: table.name.clone(),
        column: column.to_owned(),
        meant: did_you_mean(column, table.columns.iter().map(String::as_str)),
        there: list_of(table.columns.iter().map(|name| format!("`{name}`"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(maps: &[&str], compute: Option<Convention>) -> Result<Mapping, String> {
        let table = Table::read("t.csv", b"Model Size,Training FLOP,loss,acc\n1,2,3,4\n").expect("a table");
        let maps: Vec<String> = maps.iter().map(|&map| map.to_owned()).collect();
        Mapping::parse(&maps, compute, &table).map_err(|error| error.to_string())
    }

    #[test]
    fn columns_expressions_and_keys() {
        let maps = ["n=Model Size", "c=Training FLOP", "d=c/(6*n)", "loss=loss", "dataset='c4'"];
        let mapping = parse(&maps, Some(Convention::SixNd)).expect("a mapping");
        let Some(From::Numbers(d)) = mapping.of(&Key::D) else { panic!("d is numbers") };
        assert_eq!(d.to_string(), "(`Training FLOP` / (6.0 * `Model Size`))");
        assert_eq!(mapping.of(&Key::Dataset), Some(&From::Word("c4".to_owned())));
    }

    #[test]
    fn a_name_of_a_column_and_of_a_key_is_asked_about() {
        let table = Table::read("t.csv", b"n,c,loss\n1,2,3\n").expect("a table");
        let parse = |maps: &[&str]| {
            let maps: Vec<String> = maps.iter().map(|&map| map.to_owned()).collect();
            Mapping::parse(&maps, Some(Convention::SixNd), &table).map_err(|error| error.to_string())
        };
        let d = |maps: &[&str]| match parse(maps).expect("a mapping").of(&Key::D) {
            Some(From::Numbers(d)) => d.to_string(),
            other => panic!("{other:?}"),
        };
        let with = |d: &'static str| ["n=n*1e6", "c=c", d, "loss=loss"];
        let said = parse(&with("d=c/(6*n)")).expect_err("it may be either");
        assert!(said.contains("`n` is a column of the table, and a quantity that is mapped to `n*1e6`"), "{said}");
        assert!(said.contains("`column:n` or `axis:n`"), "{said}");
        assert_eq!(d(&with("d=c/(6*axis:n)")), "(`c` / (6.0 * (`n` * 1000000.0)))");
        assert_eq!(d(&with("d=c/(6*column:n)")), "(`c` / (6.0 * `n`))");
        // Both readings are one.
        assert_eq!(d(&["n=n", "c=c", "d=c/(6*n)", "loss=loss"]), "(`c` / (6.0 * `n`))");
        let said = parse(&with("d=axis:u")).expect_err("no such key is mapped");
        assert!(said.contains("has no column `u`"), "{said}");
    }

    #[test]
    fn mistakes() {
        let six = Some(Convention::SixNd);
        for (maps, compute, said) in [
            (&["n"][..], None, "--map `n`: write KEY=COLUMN"),
            (&["x=loss"], None, "there is no key `x`; keys are n, d, u"),
            (&["loss=los"], None, "t.csv has no column `los`; did you mean `loss`?; it has `Model Size`"),
            (&["n=Model  Size", "loss=loss"], None, "has no column `Model  Size`; did you mean `Model Size`?"),
            (&["loss=loss*"], None, "--map `loss=loss*`: at character 6"),
            (&["error=acc", "accuracy=acc"], None, "`error=` and `accuracy=` both give accuracy"),
            (&["n=d", "d=n", "loss=loss"], None, "is made of itself"),
            (&["n=acc"], None, "nothing measured is mapped"),
            (&["c=acc", "loss=loss"], None, "say how `c` was counted"),
            (&["loss=loss"], six, "no `c` is mapped"),
            (&["loss=loss", "run=acc"], None, "map `d` too"),
        ] {
            let error = parse(maps, compute).expect_err(said);
            assert!(error.contains(said), "{error}");
        }
    }
}
