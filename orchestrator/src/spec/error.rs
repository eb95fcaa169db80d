//! Mistakes in a spec and where they are.

use std::fmt;
use std::sync::Arc;

use miette::{Diagnostic, NamedSource, SourceSpan};

use super::{Source, locate};

/// One step into the tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// The value of a key.
    Key(String),
    /// The value of a key that stands there more than once: which one, from 0.
    Repeated(String, usize),
    /// An entry of a list.
    Index(usize),
}

/// The way from the root of a spec to a value: `grid.model[1]`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Path(pub Vec<Step>);

impl Path {
    /// Of nested keys: `Path::keys(&["recipe", "warmup"])`.
    pub fn keys(keys: &[&str]) -> Path {
        Path(keys.iter().map(|key| Step::Key((*key).to_owned())).collect())
    }

    /// One key further.
    #[must_use]
    pub fn key(&self, key: &str) -> Path {
        let mut path = self.clone();
        path.0.push(Step::Key(key.to_owned()));
        path
    }

    /// One entry further.
    #[must_use]
    pub fn index(&self, index: usize) -> Path {
        let mut path = self.clone();
        path.0.push(Step::Index(index));
        path
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (position, step) in self.0.iter().enumerate() {
            match step {
                Step::Key(key) | Step::Repeated(key, _) if position == 0 => write!(f, "{key}")?,
                Step::Key(key) | Step::Repeated(key, _) => write!(f, ".{key}")?,
                Step::Index(index) => write!(f, "[{index}]")?,
            }
        }
        Ok(())
    }
}

/// What to point at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// The name before the colon.
    Key(Path),
    /// The value.
    Value(Path),
    /// A byte of the text, for what is no YAML.
    Byte(usize),
    /// Nothing in particular.
    Nowhere,
}

/// One mistake.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// What is wrong.
    pub message: String,
    /// What is allowed, shown under the value.
    pub label: String,
    /// The way out, if it takes more words.
    pub help: Option<String>,
    /// Where.
    pub place: Place,
}

impl Problem {
    pub(crate) fn new(place: Place, message: impl Into<String>, label: impl Into<String>) -> Problem {
        Problem { message: message.into(), label: label.into(), help: None, place }
    }

    #[must_use]
    pub(crate) fn help(mut self, help: impl Into<String>) -> Problem {
        self.help = Some(help.into());
        self
    }
}

/// Mistakes beyond this many are counted, not shown.
const SHOWN_MAX: usize = 20;

/// All mistakes of a spec, with the text around each.
#[derive(Debug, Clone, thiserror::Error, Diagnostic)]
#[error("{}", self.title())]
pub struct SpecError {
    name: String,
    hidden: usize,
    /// The mistakes.
    #[related]
    pub mistakes: Vec<Mistake>,
}

/// A [`Problem`] with its place in the text.
#[derive(Debug, Clone, thiserror::Error, Diagnostic)]
#[error("{message}")]
pub struct Mistake {
    /// What is wrong.
    pub message: String,
    #[source_code]
    source_code: Arc<NamedSource<String>>,
    label: String,
    #[label("{label}")]
    span: Option<SourceSpan>,
    #[help]
    help: Option<String>,
}

impl SpecError {
    pub(crate) fn new(source: &Source, problems: Vec<Problem>) -> SpecError {
        let hidden = problems.len().saturating_sub(SHOWN_MAX);
        let mut mistakes: Vec<Mistake> = problems
            .into_iter()
            .take(SHOWN_MAX)
            .map(|problem| {
                let range = match &problem.place {
                    Place::Key(path) => locate::key(source.text(), path),
                    Place::Value(path) => locate::value(source.text(), path),
                    Place::Byte(offset) => Some(locate::extent(source.text(), *offset)),
                    Place::Nowhere => None,
                };
                Mistake {
                    message: problem.message,
                    source_code: source.shared(),
                    label: problem.label,
                    span: range.map(SourceSpan::from),
                    help: problem.help,
                }
            })
            .collect();
        mistakes.sort_by_key(|mistake| mistake.span.map_or(0, |span| span.offset()));
        SpecError { name: source.name().to_owned(), hidden, mistakes }
    }

    /// `x.yaml: 3 mistakes`.
    fn title(&self) -> String {
        let count = self.mistakes.len() + self.hidden;
        let plural = if count == 1 { "" } else { "s" };
        let shown = if self.hidden > 0 { format!(", the first {SHOWN_MAX} shown") } else { String::new() };
        format!("{}: {count} mistake{plural}{shown}", self.name)
    }
}
