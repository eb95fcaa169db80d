//! What an event may say by itself. One that breaks a bound, or gives a value that can't be, is not stored, and its
//! attempt fails with the reason: a runner that writes nonsense is not to be trusted with a result.

use std::collections::BTreeMap;

use protocol::{DataUsed, Event, Measurement};

use super::Range;

/// Bytes of a name: of a metric, a data set.
const NAME_MAX: usize = 200;
/// Metrics of one step, measurements of one evaluation.
const ENTRIES_MAX: usize = 1000;
/// Bytes of a path, a device, a reason.
const TEXT_MAX: usize = 4096;

/// Why `event` can't be stored for a job of `samples_total` samples, if so.
///
/// A loss may be NaN or infinite: the job has diverged, and that is what it is told as. Metrics of training may be too
/// (a gradient norm that overflowed is a fact); measurements, bounds of time and counts may not.
pub fn problem(event: &Event, samples_total: u64) -> Option<String> {
    let position = |samples_seen: u64| {
        (samples_seen > samples_total)
            .then(|| format!("it is at {samples_seen} samples of {samples_total} that the job has"))
    };
    match event {
        Event::Started { parameters, resumed_from_samples, device, data } => whole("parameters", *parameters)
            .or_else(|| position(*resumed_from_samples))
            .or_else(|| text("device", device))
            .or_else(|| data.as_ref().and_then(pairs)),
        Event::Step { step, samples_seen, loss, metrics } => whole("step", *step)
            .or_else(|| position(*samples_seen))
            .or_else(|| {
                (*loss < 0.0 && loss.is_finite()).then(|| format!("`loss` is {loss}: a loss is in nats, 0 or more"))
            })
            .or_else(|| second_loss(*loss, metrics))
            .or_else(|| entries("metrics", metrics.len()))
            .or_else(|| metrics.keys().find_map(|key| name("metric", key))),
        Event::Eval { samples_seen, dataset, measurements, unmeasured } => position(*samples_seen)
            .or_else(|| name("data set", dataset))
            .or_else(|| entries("measurements", measurements.len()))
            .or_else(|| {
                (measurements.is_empty() && unmeasured.is_empty())
                    .then(|| "`measurements` is empty, and `unmeasured` does not say why".to_owned())
            })
            .or_else(|| unmeasured.values().find_map(|reason| text("unmeasured", reason)))
            .or_else(|| measurements.iter().find_map(measurement)),
        Event::Checkpoint { step, samples_seen, path, sha256 } => whole("step", *step)
            .or_else(|| position(*samples_seen))
            .or_else(|| text("path", &path.to_string_lossy()))
            .or_else(|| name("sha256", sha256)),
        Event::Finished { samples_seen, train_secs, eval_secs, peak_memory_bytes } => {
            whole("samples_seen", *samples_seen)
                .or_else(|| duration("train_secs", *train_secs))
                .or_else(|| duration("eval_secs", *eval_secs))
                .or_else(|| peak_memory_bytes.and_then(|bytes| whole("peak_memory_bytes", bytes)))
        }
        // Its reason is cut, not refused: it is the last word.
        Event::Failed { .. } => None,
    }
}

/// A text as it is stored: without what PostgreSQL has no place for, and no longer than people read.
pub fn short_text(text: &str) -> String {
    let text = text.replace('\0', "\u{fffd}");
    match text.char_indices().nth(TEXT_MAX) {
        Some((end, _)) => format!("{} ... ({} bytes)", &text[..end], text.len()),
        None => text,
    }
}

fn pairs(data: &DataUsed) -> Option<String> {
    if data.pairs == 0 {
        return Some("it trains on no pair".to_owned());
    }
    whole("pairs", data.pairs).or_else(|| entries("reasons", data.skipped.len()))
}

/// The loss has a field of its own; among the metrics it would be a second value for one place.
fn second_loss(loss: f64, metrics: &BTreeMap<String, f64>) -> Option<String> {
    let second = *metrics.get("loss")?;
    let is_same = second.total_cmp(&loss).is_eq() || (second.is_nan() && loss.is_nan());
    (!is_same).then(|| format!("`loss` is {loss}, and `metrics.loss` is {second}"))
}

fn measurement(measurement: &Measurement) -> Option<String> {
    let Measurement { metric, value, standard_error, chance, count } = measurement;
    if let Some(problem) = name("metric", metric) {
        return Some(problem);
    }
    let range = Range::of(metric);
    // What has diverged is told as such.
    let has_diverged = range == Range::Loss && !value.is_finite();
    if !range.holds(*value) && !has_diverged {
        return Some(format!("`{metric}` is {value}: {}{}", range.allowed(), way_out(metric, *value)));
    }
    if let Some(error) = standard_error.filter(|error| !error.is_finite() || *error < 0.0) {
        return Some(format!("`standard_error` of `{metric}` is {error}, and has to be a number, 0 or more"));
    }
    if let Some(error) = standard_error.filter(|error| range == Range::Fraction && *error > 1.0) {
        return Some(format!("`standard_error` of `{metric}` is {error}, more than that of a fraction can be"));
    }
    if let Some(chance) = chance.filter(|chance| !range.holds(*chance)) {
        return Some(format!("`chance` of `{metric}` is {chance}: {}", range.allowed()));
    }
    match count {
        Some(0) => Some(format!("`count` of `{metric}` is 0: on nothing, nothing is measured")),
        Some(count) => whole("count", *count),
        None => None,
    }
}

/// What may have been meant.
fn way_out(metric: &str, value: f64) -> &'static str {
    if metric.contains("loss") && Range::of(metric) != Range::Loss {
        "; names of losses begin with `loss`"
    } else if value > 1.0 && value <= 100.0 {
        "; percent have to be divided by 100"
    } else if value > 1.0 {
        "; what is no fraction and no loss belongs to the `metrics` of a `step`"
    } else {
        ""
    }
}

fn name(what: &str, text: &str) -> Option<String> {
    if text.is_empty() {
        Some(format!("a {what} has no name"))
    } else if text.len() > NAME_MAX {
        Some(format!("the name of a {what} has {} bytes, at most {NAME_MAX} are stored", text.len()))
    } else if text.chars().any(char::is_control) {
        Some(format!("the name of a {what} holds control characters: {text:?}"))
    } else {
        None
    }
}

fn text(what: &str, text: &str) -> Option<String> {
    if text.len() > TEXT_MAX {
        Some(format!("`{what}` has {} bytes, at most {TEXT_MAX} are stored", text.len()))
    } else if text.contains('\0') {
        Some(format!("`{what}` holds a NUL"))
    } else {
        None
    }
}

fn entries(what: &str, number: usize) -> Option<String> {
    (number > ENTRIES_MAX).then(|| format!("it has {number} {what}, at most {ENTRIES_MAX} are stored"))
}

/// PostgreSQL's largest whole number is that of `i64`.
fn whole(what: &str, number: u64) -> Option<String> {
    i64::try_from(number).is_err().then(|| format!("`{what}` is {number}, at most {} can be stored", i64::MAX))
}

fn duration(what: &str, secs: f64) -> Option<String> {
    (!secs.is_finite() || secs < 0.0).then(|| format!("`{what}` is {secs}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step(step: u64, samples_seen: u64, name: &str) -> Event {
        Event::Step { step, samples_seen, loss: f64::NAN, metrics: BTreeMap::from([(name.to_owned(), f64::INFINITY)]) }
    }

    #[test]
    fn what_the_store_could_not_hold_is_named() {
        assert_eq!(problem(&step(1, 64, "lr"), 64), None);
        let says = |event: &Event, word: &str| {
            let reason = problem(event, 64).unwrap_or_default();
            assert!(reason.contains(word), "{event:?}: {reason:?}");
        };
        says(&step(1, 65, "lr"), "65 samples of 64");
        says(&step(u64::MAX, 64, "lr"), "`step`");
        says(&step(1, 64, &"m".repeat(6000)), "6000 bytes");
        says(&step(1, 64, "a\nb"), "control characters");
        says(&step(1, 64, ""), "no name");
        let finished =
            |train_secs| Event::Finished { samples_seen: 64, train_secs, eval_secs: 0.0, peak_memory_bytes: None };
        assert_eq!(problem(&finished(1.0), 64), None);
        for secs in [f64::NAN, f64::INFINITY, -1.0] {
            says(&finished(secs), "train_secs");
        }
        let many = (0..1001).map(|index| (index.to_string(), 0.0)).collect();
        says(&Event::Step { step: 1, samples_seen: 1, loss: 1.0, metrics: many }, "1001 metrics");
    }

    #[test]
    fn long_texts_are_cut_between_characters() {
        assert_eq!(short_text("a\0b"), "a\u{fffd}b");
        let cut = short_text(&"\u{e9}".repeat(5000));
        assert!(cut.ends_with("(10000 bytes)") && cut.chars().count() < 4200);
    }

    #[test]
    fn values_that_can_not_be_are_told_with_the_way_out() {
        let says = |change: &dyn Fn(&mut Measurement), word: &str| {
            let mut measurement = Measurement {
                metric: "acc1".to_owned(),
                value: 0.31,
                standard_error: Some(0.01),
                chance: Some(0.001),
                count: Some(1000),
            };
            change(&mut measurement);
            let measurements = vec![measurement];
            let unmeasured = BTreeMap::new();
            let event = Event::Eval { samples_seen: 64, dataset: "d".to_owned(), measurements, unmeasured };
            let reason = problem(&event, 64).unwrap_or_default();
            assert!(if word.is_empty() { reason.is_empty() } else { reason.contains(word) }, "{word:?}: {reason:?}");
        };
        let loss = |value: f64| {
            move |m: &mut Measurement| (m.metric, m.value, m.chance) = ("loss@1024".to_owned(), value, Some(6.93))
        };
        says(&|_| {}, "");
        says(
            &|m| m.value = 31.0,
            "`acc1` is 31: a fraction has to lie between 0 and 1; percent have to be divided by 100",
        );
        says(&|m| m.value = -0.1, "`acc1` is -0.1");
        says(&|m| m.value = 1e4, "belongs to the `metrics` of a `step`");
        says(&|m| m.value = f64::NAN, "`acc1` is NaN");
        says(&|m| (m.metric, m.value) = ("val_loss".to_owned(), 3.0), "names of losses begin with `loss`");
        says(&loss(4.2), "");
        says(&loss(f64::NAN), "");
        says(&loss(-4.2), "`loss@1024` is -4.2: a loss has to be above 0");
        says(&|m| m.standard_error = Some(-1.0), "`standard_error` of `acc1` is -1");
        says(&|m| m.standard_error = Some(f64::NAN), "`standard_error` of `acc1` is NaN");
        says(&|m| m.standard_error = Some(1.5), "more than that of a fraction");
        says(&|m| m.chance = Some(1.5), "`chance` of `acc1` is 1.5");
        says(&|m| m.chance = Some(f64::NAN), "`chance` of `acc1` is NaN");
        says(&|m| m.count = Some(0), "`count` of `acc1` is 0");
        says(&|m| m.metric.clear(), "no name");
        let nothing = Event::Eval {
            samples_seen: 64,
            dataset: "d".to_owned(),
            measurements: Vec::new(),
            unmeasured: BTreeMap::new(),
        };
        assert!(problem(&nothing, 64).is_some_and(|reason| reason.contains("`measurements` is empty")));
        let step = |loss: f64, second: f64| {
            let metrics = BTreeMap::from([("loss".to_owned(), second)]);
            problem(&Event::Step { step: 1, samples_seen: 64, loss, metrics }, 64).unwrap_or_default()
        };
        assert_eq!(step(1.5, 1.5), "");
        assert_eq!(step(f64::NAN, f64::NAN), "");
        assert_eq!(step(1.5, 2.5), "`loss` is 1.5, and `metrics.loss` is 2.5");
        assert!(step(-1.5, -1.5).contains("in nats"));
    }
}
