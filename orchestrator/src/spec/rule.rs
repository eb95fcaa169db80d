//! Rules of the recipe: `lr: {rule: "1e-3 * (width/64)^-1"}` gives each cell a number by its own quantities.
//!
//! A spec says them, the planner resolves them, which knows models and pools. Jobs hold numbers alone, so that their
//! keys are those of a spec that writes the numbers out.

use std::sync::Arc;

use protocol::ModelConfig;

use super::expression::{Expression, ExpressionError};
use super::keys::Need::{Default, Required};
use super::keys::{COUNT_MAX, Key, Kind, Range, key};
use super::models::nearest;
use super::recipe_keys::RECIPE;
use super::{Amount, Recipe};

const EXPRESSION: Key = key(
    "rule",
    Kind::Text,
    Required,
    "Expression over the cell's quantities, with + - * / ^ ( ), `min(x, y)` and `max(x, y)`: `width`, `layers`, \
     `text_width`, `text_layers`, `embed_dim`, `parameters`, `data_size`, `unique_samples`, `samples_seen`, `global_batch`, `steps`",
);

/// Keys of a rule that gives a real number.
pub(super) static RULE: &[Key] = &[EXPRESSION];

/// Keys of one that gives a whole number.
pub(super) static RULE_WHOLE: &[Key] = &[
    EXPRESSION,
    key(
        "round",
        Kind::Count { min: 1, max: 1_000_000_000 },
        Default("1"),
        "The result is rounded to the nearest multiple of this; a batch is at least one of it",
    ),
];

/// Quantities that rules may name.
const QUANTITIES: [&str; 11] = [
    "width",
    "layers",
    "text_width",
    "text_layers",
    "embed_dim",
    "parameters",
    "data_size",
    "unique_samples",
    "samples_seen",
    GLOBAL_BATCH,
    "steps",
];

const GLOBAL_BATCH: &str = "global_batch";

/// Those that follow from the batch.
const OF_BATCH: [&str; 2] = [GLOBAL_BATCH, "steps"];

/// Those that follow from the length of a job.
const OF_LENGTH: [&str; 3] = ["samples_seen", "unique_samples", "steps"];

/// A deep expression is evaluated, and dropped, by recursion.
const TEXT_MAX: usize = 1_000;

/// Digits of a result. Fewer than a number has: powers differ in the last ones between machines, and a job is known by
/// its numbers. So what `sweep plan` shows is the number, not almost it.
const DIGITS: usize = 6;

/// An expression in the place of a number.
#[derive(Debug, Clone, PartialEq)]
pub struct Rule {
    /// As written.
    pub text: String,
    /// Of whole numbers: multiples of this.
    pub round: u64,
    expression: Expression,
}

/// What is wrong with a rule, what is allowed, and the way out.
pub(super) type Refused = (String, String, Option<String>);

impl Rule {
    /// Reads the rule of a field of the recipe.
    pub(super) fn read(field: &str, text: String, round: u64) -> Result<Rule, Refused> {
        if text.len() > TEXT_MAX {
            return Err(("has too many characters".to_owned(), format!("at most {TEXT_MAX}"), None));
        }
        let expression = Expression::parse(&text).map_err(|ExpressionError { at, reason }| {
            (format!("can't be read at character {at}"), reason, Some(format!("names in a rule: {}", names(field))))
        })?;
        for leaf in expression.names() {
            let name = match leaf {
                Expression::Name(name) if allowed(field).any(|allowed| allowed == name) => continue,
                Expression::Name(name) if field == GLOBAL_BATCH && OF_BATCH.contains(&name.as_str()) => {
                    let label = "the batch can't be given by itself, nor by the steps that follow from it".to_owned();
                    return Err((format!("names `{name}`"), label, Some(format!("names here: {}", names(field)))));
                }
                other => other.to_string().replace('`', ""),
            };
            let label = nearest(&name, allowed(field))
                .map_or_else(|| "unknown".to_owned(), |near| format!("did you mean `{near}`?"));
            return Err((format!("names `{name}`"), label, Some(format!("names here: {}", names(field)))));
        }
        Ok(Rule { text, round, expression })
    }

    /// A quantity in it that is another one for each length of training.
    pub(super) fn by_length(&self) -> Option<&'static str> {
        let is_named = |quantity: &str| {
            self.expression.names().iter().any(|leaf| matches!(leaf, Expression::Name(name) if name == quantity))
        };
        OF_LENGTH.into_iter().find(|quantity| is_named(quantity))
    }

    /// Its value for a cell, rounded.
    fn value(&self, field: &'static str, cell: &Quantities<'_>, batch: Option<u64>) -> Result<f64, RuleError> {
        let Ok(exact) =
            self.expression.value(&mut |name: &str| Ok::<f64, std::convert::Infallible>(cell.of(name, batch)));
        let refused = |allowed: String| RuleError { field, value: exact, allowed };
        let kind = &RECIPE.iter().find(|key| key.name == field).expect("rules stand at keys of the recipe").kind;
        match kind {
            Kind::Ruled(Kind::Number(range), _) => {
                let value = six_digits(exact);
                let is_good = value.is_finite() && range.contains(value);
                if is_good { Ok(value) } else { Err(refused(kind_allowed(*range))) }
            }
            Kind::Ruled(kind, _) => {
                let is_count = matches!(kind, Kind::Count { .. });
                let round = self.round as f64;
                // Whole numbers up to 1e15 are exact; the digits behind are those that differ between machines.
                let value = (digits(exact, 12) / round).round() * round;
                let value = if is_count { value.max(round) } else { value };
                let above = if is_count { exact > 0.0 } else { exact >= 0.0 };
                if above && value <= COUNT_MAX as f64 {
                    Ok(value)
                } else {
                    let least = if is_count { "above 0" } else { "at least 0" };
                    Err(refused(format!("a number {least} and at most 1e15")))
                }
            }
            other => unreachable!("`{field}` is {other:?}, which has no rule"),
        }
    }
}

fn kind_allowed(range: Range) -> String {
    Kind::Number(range).allowed()
}

/// Rounded as a rule's result is.
pub fn six_digits(value: f64) -> f64 {
    digits(value, DIGITS)
}

/// Rounded to so many significant digits.
fn digits(value: f64, count: usize) -> f64 {
    format!("{value:.*e}", count - 1).parse().unwrap_or(value)
}

fn allowed(field: &str) -> impl Iterator<Item = &'static str> {
    let is_batch = field == GLOBAL_BATCH;
    QUANTITIES.into_iter().filter(move |name| !(is_batch && OF_BATCH.contains(name)))
}

fn names(field: &str) -> String {
    allowed(field).map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}

/// What rules know of a cell.
#[derive(Debug, Clone, Copy)]
pub struct Quantities<'a> {
    /// The model as it is trained.
    pub config: &'a ModelConfig,
    /// Unique samples that the cell may see; `all` counted.
    pub data_size: u64,
    /// As asked for.
    pub samples_seen: u64,
}

impl Quantities<'_> {
    /// `batch` is known to all rules but its own.
    fn of(&self, name: &str, batch: Option<u64>) -> f64 {
        let (vision, text) = (&self.config.vision_cfg, &self.config.text_cfg);
        let samples = batch.map_or(self.samples_seen, |batch| super::whole_batches(self.samples_seen, batch));
        let value = match name {
            "width" => vision.width,
            "layers" => vision.blocks(),
            "text_width" => text.width,
            "text_layers" => text.layers,
            "embed_dim" => self.config.embed_dim,
            "parameters" => self.config.size().parameters(),
            "data_size" => self.data_size,
            "unique_samples" => self.data_size.min(samples),
            "samples_seen" => samples,
            GLOBAL_BATCH => batch.expect("no rule of the batch names it"),
            "steps" => samples / batch.expect("no rule of the batch names steps"),
            other => unreachable!("no quantity `{other}` in the list"),
        };
        value as f64
    }
}

/// A rule that gives what its field can't be.
#[derive(Debug, Clone, PartialEq)]
pub struct RuleError {
    /// Of the recipe.
    pub field: &'static str,
    /// What the rule gives.
    pub value: f64,
    /// What is allowed there.
    pub allowed: String,
}

impl Recipe {
    /// With numbers in the place of rules.
    pub fn resolved(&self, cell: &Quantities<'_>) -> Result<Recipe, RuleError> {
        let mut recipe = Recipe { rules: std::collections::BTreeMap::new(), ..self.clone() };
        if let Some(rule) = self.rules.get(GLOBAL_BATCH) {
            recipe.global_batch = rule.value(GLOBAL_BATCH, cell, None)? as u64;
        }
        let batch = Some(recipe.global_batch);
        for (&field, rule) in self.rules.iter().filter(|(field, _)| **field != GLOBAL_BATCH) {
            let value = rule.value(field, cell, batch)?;
            match field {
                "lr" => recipe.lr = value,
                "weight_decay" => recipe.weight_decay = value,
                "warmup" => recipe.warmup = Amount::Samples(value as u64),
                other => unreachable!("the table of recipes allows no rule for {other}"),
            }
        }
        Ok(recipe)
    }

    /// Notes that a rule gives this field.
    pub(super) fn rule(&mut self, field: &'static str, rule: Arc<Rule>) {
        if field == GLOBAL_BATCH {
            // A stand-in, in whose batches all lengths are whole.
            self.global_batch = 1;
        }
        self.rules.insert(field, rule);
    }
}
