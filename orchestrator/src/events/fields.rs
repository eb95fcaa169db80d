//! From a JSON object to an [`Event`]: every field by name, read as far as it is clear.
//!
//! Counts may be written `1000.0`, `1e3` or `"1000"`; numbers as strings, `NaN`, `"inf"` or `null`; names of events and
//! kinds in any case. Keys that mean nothing here are given back by name. A key that stands there twice with two
//! values, or a value that is none of its kind, is an error that names the field.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use protocol::{DataUsed, EvaluationTask, Event, FailureKind, Measurement};

use super::json::{Text, Value};

/// The key that makes an object an event.
const EVENT: &str = "event";
/// Names of events.
const EVENTS: &[&str] = &["started", "step", "eval", "checkpoint", "finished", "failed"];
/// Keys of events, at the top.
pub(super) const KEYS: &[&str] = &[
    EVENT,
    "parameters",
    "resumed_from_samples",
    "device",
    "data",
    "step",
    "samples_seen",
    "loss",
    "metrics",
    "dataset",
    "measurements",
    "unmeasured",
    "path",
    "sha256",
    "train_secs",
    "eval_secs",
    "peak_memory_bytes",
    "reason",
    "kind",
];
/// 2^53: floats from here on do not count exactly.
const FLOAT_COUNT_END: f64 = 9_007_199_254_740_992.0;

type Entries<'a> = [(String, Value<'a>)];

/// Values of the key that makes an object an event, in whatever case it is written.
pub(super) fn names<'a, 'b>(entries: &'b Entries<'a>) -> Vec<&'b Value<'a>> {
    entries.iter().filter(|(key, _)| key.eq_ignore_ascii_case(EVENT)).map(|(_, value)| value).collect()
}

/// The event's name in lower case.
pub(super) fn name(entries: &Entries<'_>) -> Result<String, String> {
    let names = names(entries);
    match names[..] {
        [Value::Text(Text { text, .. }), ref more @ ..] => match more.iter().find(|other| **other != names[0]) {
            None => Ok(text.trim().to_ascii_lowercase()),
            Some(other) => Err(format!("`event` is given twice, as {} and {other}", names[0])),
        },
        [other, ..] => Err(format!("`event` is {other}, and has to be a name in double quotes")),
        [] => Err("`event` is missing".to_owned()),
    }
}

/// The event of that name, and the keys that were ignored.
pub(super) fn event(name: &str, entries: &Entries<'_>) -> Result<(Event, Vec<String>), String> {
    let mut fields = Fields { entries, place: String::new(), known: Vec::new(), ignored: Vec::new() };
    let event = match name {
        "started" => Event::Started {
            parameters: fields.count("parameters")?,
            resumed_from_samples: fields.count("resumed_from_samples")?,
            device: fields.lossy_text("device")?,
            data: fields.object("data", data_used)?,
        },
        "step" => Event::Step {
            step: fields.count("step")?,
            samples_seen: fields.count("samples_seen")?,
            loss: fields.number("loss")?,
            metrics: fields.map("metrics", number_of)?,
        },
        "eval" => Event::Eval {
            samples_seen: fields.count("samples_seen")?,
            dataset: fields.text("dataset")?,
            measurements: fields.measurements()?,
            unmeasured: fields.unmeasured()?,
        },
        "checkpoint" => Event::Checkpoint {
            step: fields.count("step")?,
            samples_seen: fields.count("samples_seen")?,
            path: fields.text("path")?.into(),
            sha256: fields.text("sha256")?,
        },
        "finished" => Event::Finished {
            samples_seen: fields.count("samples_seen")?,
            train_secs: fields.number("train_secs")?,
            eval_secs: fields.number("eval_secs")?,
            peak_memory_bytes: fields.optional("peak_memory_bytes", count_of)?,
        },
        "failed" => Event::Failed { reason: fields.lossy_text("reason")?, kind: fields.kind()? },
        other => {
            return Err(format!(
                "`event` is {other:?}, and has to be one of {}; names of the runner's own begin with `x-`",
                EVENTS.join(", ")
            ));
        }
    };
    Ok((event, fields.ignored(|key| key.eq_ignore_ascii_case(EVENT))))
}

/// What one object says, field by field.
struct Fields<'a, 'b> {
    entries: &'b Entries<'a>,
    /// Of the object within the event: `measurements[0].`.
    place: String,
    /// Keys that were asked for.
    known: Vec<&'static str>,
    /// Keys that mean nothing, of objects within this one.
    ignored: Vec<String>,
}

impl<'a, 'b> Fields<'a, 'b> {
    /// The value of a field; `None`: it is not there.
    fn get(&mut self, key: &'static str) -> Result<Option<&'b Value<'a>>, String> {
        self.known.push(key);
        let mut values = self.entries.iter().filter(|(name, _)| name == key).map(|(_, value)| value);
        let first = values.next();
        match values.find(|other| Some(*other) != first) {
            Some(_) => Err(format!("`{}{key}` is given twice, with two values", self.place)),
            None => Ok(first),
        }
    }

    fn required<T>(&mut self, key: &'static str, read: impl Fn(&Value<'a>) -> Result<T, String>) -> Result<T, String> {
        let value = self.get(key)?.ok_or_else(|| format!("`{}{key}` is missing", self.place))?;
        read(value).map_err(|problem| format!("`{}{key}` is {problem}", self.place))
    }

    /// Left out and `null` are the same.
    fn optional<T>(
        &mut self,
        key: &'static str,
        read: impl Fn(&Value<'a>) -> Result<T, String>,
    ) -> Result<Option<T>, String> {
        let value = self.get(key)?.filter(|value| **value != Value::Null);
        value.map(read).transpose().map_err(|problem| format!("`{}{key}` is {problem}", self.place))
    }

    fn count(&mut self, key: &'static str) -> Result<u64, String> {
        self.required(key, count_of)
    }

    fn number(&mut self, key: &'static str) -> Result<f64, String> {
        self.required(key, number_of)
    }

    fn text(&mut self, key: &'static str) -> Result<String, String> {
        self.required(key, text_of)
    }

    /// Words for people.
    fn lossy_text(&mut self, key: &'static str) -> Result<String, String> {
        self.required(key, |value| match value {
            Value::Text(text) => Ok(text.text.clone()),
            other => text_of(other),
        })
    }

    fn kind(&mut self) -> Result<FailureKind, String> {
        self.required("kind", |value| match text_of(value)?.trim().to_ascii_lowercase().as_str() {
            "diverged" => Ok(FailureKind::Diverged),
            "bad_input" => Ok(FailureKind::BadInput),
            "crash" => Ok(FailureKind::Crash),
            _ => Err(format!("{value}, and has to be diverged, bad_input or crash")),
        })
    }

    /// A map from names to values of one kind.
    fn map<T: Clone + PartialEq>(
        &mut self,
        key: &'static str,
        read: impl Fn(&Value<'a>) -> Result<T, String>,
    ) -> Result<BTreeMap<String, T>, String> {
        let entries = match self.get(key)? {
            None | Some(Value::Null) => return Ok(BTreeMap::new()),
            Some(Value::Object(entries)) => entries,
            Some(other) => return Err(format!("`{key}` is {other}, and has to be an object of names and values")),
        };
        let mut map: BTreeMap<String, (&Value<'a>, T)> = BTreeMap::new();
        for (name, value) in entries {
            let field = || format!("`{}{key}.{}`", self.place, short(name));
            let read = read(value).map_err(|problem| format!("{} is {problem}", field()))?;
            if map.get(name).is_some_and(|(before, _)| *before != value) {
                return Err(format!("{} is given twice, with two values", field()));
            }
            map.insert(name.clone(), (value, read));
        }
        Ok(map.into_iter().map(|(name, (_, value))| (name, value)).collect())
    }

    /// An object within this one.
    fn object<T>(
        &mut self,
        key: &'static str,
        read: impl Fn(&mut Fields<'a, 'b>) -> Result<T, String>,
    ) -> Result<Option<T>, String> {
        let place = format!("{}{key}", self.place);
        match self.get(key)? {
            None | Some(Value::Null) => Ok(None),
            Some(Value::Object(entries)) => self.within(entries, format!("{place}."), read).map(Some),
            Some(other) => Err(format!("`{place}` is {other}, and has to be an object")),
        }
    }

    fn within<T>(
        &mut self,
        entries: &'b Entries<'a>,
        place: String,
        read: impl Fn(&mut Fields<'a, 'b>) -> Result<T, String>,
    ) -> Result<T, String> {
        let mut inner = Fields { entries, place, known: Vec::new(), ignored: Vec::new() };
        let value = read(&mut inner)?;
        self.ignored.extend(inner.ignored(|_| false));
        Ok(value)
    }

    fn measurements(&mut self) -> Result<Vec<Measurement>, String> {
        let list = match self.get("measurements")? {
            None => return Err("`measurements` is missing".to_owned()),
            Some(Value::List(list)) => list,
            Some(other) => return Err(format!("`measurements` is {other}, and has to be a list of objects")),
        };
        let mut measurements = Vec::with_capacity(list.len());
        for (index, value) in list.iter().enumerate() {
            let Value::Object(entries) = value else {
                return Err(format!("`measurements[{index}]` is {value}, and has to be an object"));
            };
            measurements.push(self.within(entries, format!("measurements[{index}]."), measurement)?);
        }
        Ok(measurements)
    }

    fn unmeasured(&mut self) -> Result<BTreeMap<EvaluationTask, String>, String> {
        let reasons = self.map("unmeasured", text_of)?;
        let task = |(name, reason): (String, String)| match EvaluationTask::named(&name) {
            Some(task) => Ok((task, reason)),
            None => Err(format!(
                "`unmeasured` names {:?}, and has to name tasks of the job: {}",
                short(&name),
                EvaluationTask::ALL.map(EvaluationTask::name).join(", ")
            )),
        };
        reasons.into_iter().map(task).collect()
    }

    /// Keys that mean nothing here; `is_known`: beside those that were asked for.
    fn ignored(self, is_known: impl Fn(&str) -> bool) -> Vec<String> {
        let mut ignored = self.ignored;
        for (key, _) in self.entries {
            if !self.known.contains(&key.as_str()) && !is_known(key) {
                // Of the list's entries only the kind matters.
                let place = self.place.split('[').next().unwrap_or_default();
                let dot = if place.len() < self.place.len() { "." } else { "" };
                ignored.push(format!("{place}{dot}{}", short(key)));
            }
        }
        ignored.sort();
        ignored.dedup();
        ignored
    }
}

fn data_used(fields: &mut Fields<'_, '_>) -> Result<DataUsed, String> {
    Ok(DataUsed { pairs: fields.count("pairs")?, skipped: fields.map("skipped", count_of)? })
}

fn measurement(fields: &mut Fields<'_, '_>) -> Result<Measurement, String> {
    Ok(Measurement {
        metric: fields.text("metric")?,
        value: fields.number("value")?,
        standard_error: fields.optional("standard_error", number_of)?,
        chance: fields.optional("chance", number_of)?,
        count: fields.optional("count", count_of)?,
    })
}

/// A whole number that is not negative, however it is written.
fn count_of(value: &Value<'_>) -> Result<u64, String> {
    let text = match value {
        Value::Number(text) => text,
        Value::Text(text) => text.text.trim(),
        _ => "",
    };
    let whole = |number: &f64| *number >= 0.0 && number.fract() == 0.0 && *number < FLOAT_COUNT_END;
    text.parse::<u64>()
        .ok()
        .or_else(|| text.parse::<f64>().ok().filter(whole).map(|number| number as u64))
        .ok_or_else(|| format!("{}, and has to be a whole number, 0 or more", short(&value.to_string())))
}

/// Any number, or a word for what is none.
fn number_of(value: &Value<'_>) -> Result<f64, String> {
    let expected = || format!("{}, and has to be a number (or NaN, Infinity, null)", short(&value.to_string()));
    let text = match value {
        Value::Null => return Ok(f64::NAN),
        Value::Number(text) => text,
        Value::Text(text) => text.text.trim(),
        _ => return Err(expected()),
    };
    let number: f64 = text.parse().map_err(|_| expected())?;
    // Written in digits, it is no infinity that the runner has computed.
    if number.is_infinite() && text.contains(|c: char| c.is_ascii_digit()) {
        return Err(format!("{}, more than a number of 64 bits holds", short(text)));
    }
    Ok(number)
}

fn text_of(value: &Value<'_>) -> Result<String, String> {
    match value {
        Value::Text(Text { text, is_lossy: false }) => Ok(text.clone()),
        Value::Text(text) => Err(format!("{:?}, with bytes that are no UTF-8", short(&text.text))),
        other => Err(format!("{other}, and has to be a text in double quotes")),
    }
}

/// The start of a text of the runner's, for messages.
fn short(text: &str) -> String {
    const SHOWN: usize = 60;
    let mut start: String = text.chars().take(SHOWN).collect();
    if start.len() < text.len() {
        let _ = write!(start, "... ({} bytes)", text.len());
    }
    start
}
