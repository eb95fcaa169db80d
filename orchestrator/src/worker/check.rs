//! What an event may say. An event that breaks a bound is not stored, and its attempt fails with the reason: a runner
//! that writes nonsense is not to be trusted with a result. Pure.

use protocol::{DataUsed, Event, Measurement};

/// Bytes of a name: of a metric, a data set.
const NAME_MAX: usize = 200;
/// Metrics of one step, measurements of one evaluation.
const ENTRIES_MAX: usize = 1000;
/// Bytes of a path, a device, a reason.
const TEXT_MAX: usize = 4096;

/// Why `event` can't be stored for a job of `samples_total` samples, if so.
///
/// A loss may be NaN or infinite: the job has diverged, and that is what it is told as. Other metrics and measurements
/// may be too (a gradient norm that overflowed is a fact); bounds of time and counts may not.
pub(super) fn problem(event: &Event, samples_total: u64) -> Option<String> {
    let position = |samples_seen: u64| {
        (samples_seen > samples_total)
            .then(|| format!("it is at {samples_seen} samples of {samples_total} that the job has"))
    };
    match event {
        Event::Started { parameters, resumed_from_samples, device, data } => whole("parameters", *parameters)
            .or_else(|| position(*resumed_from_samples))
            .or_else(|| text("device", device))
            .or_else(|| data.as_ref().and_then(pairs)),
        Event::Step { step, samples_seen, metrics, .. } => whole("step", *step)
            .or_else(|| position(*samples_seen))
            .or_else(|| entries("metrics", metrics.len()))
            .or_else(|| metrics.keys().find_map(|key| name("metric", key))),
        Event::Eval { samples_seen, dataset, measurements } => position(*samples_seen)
            .or_else(|| name("data set", dataset))
            .or_else(|| entries("measurements", measurements.len()))
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
pub(super) fn short_text(text: &str) -> String {
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

fn measurement(measurement: &Measurement) -> Option<String> {
    name("metric", &measurement.metric).or_else(|| measurement.count.and_then(|count| whole("count", count))).or_else(
        || {
            measurement
                .standard_error
                .filter(|error| error.is_nan() || *error < 0.0)
                .map(|error| format!("its standard error is {error}"))
        },
    )
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
    use std::collections::BTreeMap;

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
        let measurement = Measurement {
            metric: "acc1".to_owned(),
            value: f64::NAN,
            standard_error: Some(-1.0),
            chance: None,
            count: None,
        };
        says(
            &Event::Eval { samples_seen: 64, dataset: "d".to_owned(), measurements: vec![measurement] },
            "standard error",
        );
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
    fn numbers_below_zero_are_no_events() {
        for line in [
            r#"{"event":"step","step":-1,"samples_seen":64,"loss":1.0}"#,
            r#"{"event":"step","step":1,"samples_seen":-64,"loss":1.0}"#,
            r#"{"event":"step","step":1e400,"samples_seen":64,"loss":1.0}"#,
            r#"{"event":"step","step":18446744073709551616,"samples_seen":64,"loss":1.0}"#,
        ] {
            assert!(serde_json::from_str::<Event>(line).is_err(), "{line}");
        }
    }
}
