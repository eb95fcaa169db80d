//! Every kind of line, alone and after others; and bytes at random.

use std::collections::BTreeMap;

use proptest::prelude::*;
use protocol::{Event, JobSpec, Measurement};

use super::*;

fn step(step: u64, samples_seen: u64, loss: f64) -> Event {
    Event::Step { step, samples_seen, loss, metrics: BTreeMap::new() }
}

/// The event of a line, which has to be one.
fn event(line: &[u8]) -> Event {
    match read_line(line) {
        Reading::Event { event, .. } => event,
        other => panic!("{}: {other:?}", quote(line)),
    }
}

#[test]
fn what_is_clear_is_read() {
    let plain = r#"{"event":"step","step":10,"samples_seen":1000,"loss":2.5}"#;
    let expected = step(10, 1000, 2.5);
    assert_eq!(event(plain.as_bytes()), expected);
    for line in [
        format!("{plain}\r\n"),
        format!("\u{feff}{plain}"),
        format!("\r 25%|##        | 10/40 [00:01<00:03]{plain}"),
        format!("INFO:root: {plain} "),
        format!("[rank 0] \x1b[32m{plain}\x1b[0m"),
        format!("{plain} 25%|##"),
        format!(r#"{{"lr":0.1}} {plain}"#),
        plain.replace("1000", "1e3").replace(":10,", ":10.0,"),
        plain.replace(":10,", r#":"10","#).replace("2.5", r#"" 2.5 ""#),
        plain.replace("step\",", "STEP\",").replace("event", "Event"),
        r#"{ "loss" : 2.5, "samples_seen" : 1000.0 , "step" : 10 , "event" : "step" }"#.to_owned(),
        r#"{"samples_seen":1000,"loss":2.5,"step":10,"ev\u0065nt":"step"}"#.to_owned(),
        plain.replace("2.5", "2.5,\"metrics\":null"),
        plain.replace("2.5", "2.5,\"loss\":2.5"),
    ] {
        assert_eq!(event(line.as_bytes()), expected, "{line}");
    }
    // Bytes that are no UTF-8, in what stands around it and in words for people.
    assert_eq!(event(&[b"\xff\xfe ", plain.as_bytes()].concat()), expected);
    let Event::Failed { reason, .. } = event(b"{\"event\":\"failed\",\"reason\":\"no \xff\",\"kind\":\"Crash\"}")
    else {
        panic!("failed")
    };
    assert_eq!(reason, "no \u{fffd}");
    // A line of megabytes.
    let long = format!("{}{plain}", "#".repeat(4 << 20));
    assert_eq!(event(long.as_bytes()), expected);
}

#[test]
fn what_is_no_number_is_none() {
    for written in ["NaN", "null", "\"NaN\"", "nan", "\"nan\""] {
        let line = format!(
            r#"{{"event":"step","step":1,"samples_seen":8,"loss":{written},"metrics":{{"grad_norm":{written}}}}}"#
        );
        let Event::Step { loss, metrics, .. } = event(line.as_bytes()) else { panic!("{line}") };
        assert!(loss.is_nan() && metrics["grad_norm"].is_nan(), "{line}");
    }
    for (written, value) in [
        ("Infinity", f64::INFINITY),
        ("-Infinity", f64::NEG_INFINITY),
        ("\"inf\"", f64::INFINITY),
        ("\"-inf\"", f64::NEG_INFINITY),
    ] {
        let line = format!(r#"{{"event":"step","step":1,"samples_seen":8,"loss":{written}}}"#);
        assert_eq!(event(line.as_bytes()), step(1, 8, value));
        assert!(diverged(&event(line.as_bytes())).is_some_and(|reason| reason == "loss is infinite at step 1"));
    }
    let eval = |value: &str| {
        let line = format!(
            r#"{{"event":"eval","samples_seen":8,"dataset":"d","measurements":[{{"metric":"loss@1024","value":{value},"chance":null}}]}}"#
        );
        diverged(&event(line.as_bytes()))
    };
    assert_eq!(eval("NaN").as_deref(), Some("loss@1024 of d is NaN at 8 samples"));
    assert_eq!(eval("4.2"), None);
}

#[test]
fn keys_that_mean_nothing_are_named() {
    let line = br#"{"event":"eval","epoch":3,"samples_seen":8,"dataset":"d","measurements":[
        {"metric":"acc1","value":0.5,"n":9},{"metric":"acc5","value":0.5,"n":9}],"note":{"event":"x"}}"#;
    let Reading::Event { ignored, .. } = read_line(line) else { panic!("an event") };
    assert_eq!(ignored, ["epoch", "measurements.n", "note"]);
}

#[test]
fn words_are_words() {
    for line in [
        "epoch 3: loss 2.5",
        " 25%|##        | 10/40",
        "{'loss': 0.3, 'lr': 0.1}",
        r#"{"loss": 0.3, "epoch": 1}"#,
        r#"{"a", "b"}"#,
        "an \"event\" happened",
        "event: started",
        "{}",
        "{",
        "[1, 2]",
        "null",
        r#"{"event":"x-gpu","temperature":80}"#,
        r#"{"event":"X-note"}"#,
        "eventually: {",
    ] {
        assert_eq!(read_line(line.as_bytes()), Reading::Words, "{line}");
    }
    for line in ["", " ", "\r\n", "\t"] {
        assert_eq!(read_line(line.as_bytes()), Reading::Empty, "{line:?}");
    }
}

#[test]
fn what_is_meant_as_an_event_and_is_not_clear_is_told() {
    for (line, word) in [
        (r#"{"event":"step","step":10,"lo"#, "no whole JSON object: a string does not end (byte 30)"),
        (r#"{"event":"#, "it ends too soon"),
        (r#"{"ev"#, "no whole JSON object"),
        (r#"{"evhello world"#, "no whole JSON object"),
        (r#"{"step":10,"samples_seen":64,"lo"#, "no whole JSON object"),
        (r#"{"event":"step","step":1,"hello"#, "no whole JSON object"),
        (r#"","event":"step","step":1}"#, "an object of its own"),
        (r#""event":"step","step":1}"#, "an object of its own"),
        (r#"    "event": "step","#, "whole, on one line"),
        (r#"{"event":"st{"event":"failed","reason":"r","kind":"crash"}"#, "part of another event"),
        (r#"{"event":"failed","reason":"r","kind":"crash"}{"event":"st"#, "part of another event"),
        ("{'event': 'step', 'step': 1}", "`json.dumps`"),
        (r#"{event: "step"}"#, "no quotes"),
        (r#""{\"event\": \"step\"}""#, "within a string"),
        (r#"[{"event":"failed","reason":"r","kind":"crash"}]"#, "part of a list"),
        (r#"{"data":{"event":"failed","reason":"r","kind":"crash"}}"#, "not within another"),
        (r#"{"event":"x-a"} {"event":"x-b"}"#, "several events"),
        (r#"{"event":"step","event":"eval"}"#, "`event` is given twice"),
        (r#"{"event":3}"#, "`event` is 3"),
        (r#"{"event":null}"#, "`event` is null"),
        (r#"{"event":"progress"}"#, "one of started, step, eval, checkpoint, finished, failed"),
        (r#"{"event":"loaded model","level":"info"}"#, "begin with `x-`"),
        (r#"{"event":"step","step":1,"samples_seen":8}"#, "`loss` is missing"),
        (r#"{"event":"step","step":1,"samples_seen":8,"loss":true}"#, "`loss` is true"),
        (r#"{"event":"step","step":1,"samples_seen":8,"loss":""}"#, "`loss` is \"\""),
        (r#"{"event":"step","step":1,"samples_seen":8,"loss":None}"#, "no whole JSON object"),
        (r#"{"event":"step","step":1,"samples_seen":8,"loss":1e400}"#, "`loss` is 1e400"),
        (r#"{"event":"step","step":1,"samples_seen":8,"loss":1,"loss":2}"#, "`loss` is given twice"),
        (r#"{"event":"step","step":-1,"samples_seen":8,"loss":1}"#, "`step` is -1"),
        (r#"{"event":"step","step":1.5,"samples_seen":8,"loss":1}"#, "`step` is 1.5"),
        (r#"{"event":"step","step":null,"samples_seen":8,"loss":1}"#, "`step` is null"),
        (r#"{"event":"step","step":"ten","samples_seen":8,"loss":1}"#, "`step` is \"ten\""),
        (r#"{"event":"step","step":18446744073709551616,"samples_seen":8,"loss":1}"#, "`step` is 18446744073709551616"),
        (r#"{"event":"step","step":9007199254740993.0,"samples_seen":8,"loss":1}"#, "`step` is 9007199254740993.0"),
        (r#"{"event":"step","step":1,"samples_seen":8,"loss":1,"metrics":{"lr":"fast"}}"#, "`metrics.lr` is \"fast\""),
        (
            r#"{"event":"step","step":1,"samples_seen":8,"loss":1,"metrics":{"lr":1,"lr":2}}"#,
            "`metrics.lr` is given twice",
        ),
        (r#"{"event":"step","step":1,"samples_seen":8,"loss":1,"metrics":[]}"#, "`metrics` is a list"),
        (r#"{"event":"eval","samples_seen":8,"dataset":"d","measurements":{}}"#, "`measurements` is an object"),
        (r#"{"event":"eval","samples_seen":8,"dataset":"d","measurements":[3]}"#, "`measurements[0]` is 3"),
        (
            r#"{"event":"eval","samples_seen":8,"dataset":"d","measurements":[{"metric":"acc1"}]}"#,
            "`measurements[0].value` is missing",
        ),
        (
            r#"{"event":"eval","samples_seen":8,"dataset":"d","measurements":[],"unmeasured":{"acc":"why"}}"#,
            "zeroshot_classification, zeroshot_retrieval, contrastive_loss",
        ),
        (r#"{"event":"started","parameters":"many","resumed_from_samples":0,"device":"cpu"}"#, "`parameters`"),
        (r#"{"event":"failed","reason":"r","kind":"oom"}"#, "diverged, bad_input or crash"),
    ] {
        match read_line(line.as_bytes()) {
            Reading::Unclear { problem } => assert!(problem.contains(word), "{line}: {word:?}: {problem}"),
            other => panic!("{line}: {other:?}"),
        }
    }
    let lossy = b"{\"event\":\"eval\",\"samples_seen\":8,\"dataset\":\"d\xff\",\"measurements\":[]}";
    assert!(matches!(read_line(lossy), Reading::Unclear { problem } if problem.contains("no UTF-8")));
}

#[test]
fn a_quote_is_the_start_of_the_line_and_steers_nothing() {
    assert_eq!(quote(b" a\x1b[2J\xff\r\n"), "a\\u{1b}[2J\u{fffd}");
    assert_eq!(quote("\u{e9}".repeat(200).as_bytes()), "\u{e9}".repeat(200));
    assert_eq!(quote("\u{e9}".repeat(201).as_bytes()), format!("{} ...", "\u{e9}".repeat(200)));
    assert!(quote(&vec![b'x'; 4 << 20]).len() < 210);
}

/// A job of 640 samples that measures `held` at 320 and at the end.
pub(super) fn spec() -> JobSpec {
    let text = include_str!("../../../runners/protocol/README.md");
    let job = text.split("\n## job.json\n```json\n").nth(1).and_then(|rest| rest.split("```").next()).unwrap();
    let mut spec = serde_json::from_str::<protocol::Job>(job).unwrap().spec;
    spec.samples_seen = 640;
    spec.evaluations[0].dataset = "held".to_owned();
    spec.evaluations[0].tasks = vec![task("zeroshot_classification"), task("contrastive_loss")];
    spec.evaluations[0].at_samples = vec![320];
    spec
}

fn task(name: &str) -> protocol::EvaluationTask {
    protocol::EvaluationTask::named(name).unwrap()
}

const STARTED: &str = r#"{"event":"started","parameters":1,"resumed_from_samples":0,"device":"cpu"}"#;
const FINISHED: &str = r#"{"event":"finished","samples_seen":640,"train_secs":1,"eval_secs":0}"#;

fn eval(dataset: &str, at: u64, more: &str) -> String {
    format!(
        r#"{{"event":"eval","samples_seen":{at},"dataset":"{dataset}","measurements":[{{"metric":"acc1","value":0.31}}]{more}}}"#
    )
}

const SMALL: &str = r#","unmeasured":{"contrastive_loss":"it has 500 pairs"}"#;

/// What comes of the last of these lines; those before it have to be taken.
fn last(lines: &[&str]) -> Taken {
    let spec = spec();
    let mut attempt = Attempt::new(&spec);
    let (last, before) = lines.split_last().unwrap();
    for line in before {
        let taken = attempt.take(line.as_bytes());
        assert!(!matches!(taken, Taken::Refused(_)), "{line}: {taken:?}");
    }
    attempt.take(last.as_bytes())
}

#[test]
fn a_job_is_done_when_all_that_it_plans_was_measured() {
    let (half, end) = (eval("held", 320, SMALL), eval("held", 640, SMALL));
    assert!(matches!(last(&[STARTED, &half, &end, FINISHED]), Taken::Event { .. }));
    let unmeasured = end.replace(SMALL, "");
    let resumed = STARTED.replace(":0,", ":320,");
    assert!(matches!(last(&[&resumed, &end, FINISHED]), Taken::Event { .. }), "the database knows of what was before");
    for (lines, word) in [
        (&[STARTED, FINISHED][..], "`held` at 320 samples: zeroshot_classification (`acc1`"),
        (&[STARTED, &end, FINISHED], "are missing: `held` at 320 samples: "),
        (&[STARTED, &half, FINISHED], "are missing: `held` at 640 samples: "),
        (&[&resumed, &half, FINISHED], "`held` at 640 samples"),
        (&[STARTED, &half, &unmeasured, FINISHED], "`held` at 640 samples: contrastive_loss (`loss@1024`)."),
        (&[STARTED, &eval("Held", 640, "")], "of the data set `Held`; the job plans `held`"),
        (&[STARTED, &eval("held", 384, "")], "of `held` at 384 samples; the job plans it at 320, 640"),
        (&[STARTED, &eval("held", 704, "")], "704 samples of 640"),
        (&[STARTED, &half.replace("0.31", "31.0")], "`acc1` is 31: a fraction has to lie between 0 and 1; percent"),
    ] {
        let taken = last(lines);
        assert!(matches!(&taken, Taken::Refused(reason) if reason.contains(word)), "{word:?}: {taken:?}");
    }
    // Metrics of each task, under either definition.
    for (metric, name) in [
        ("mean_average_precision", "zeroshot_classification"),
        ("image_retrieval_recall_grouped@5", "zeroshot_retrieval"),
        ("lp_acc1@5shot", "linear_probe"),
        ("ft_mean_per_class_recall", "fine_tuning"),
    ] {
        assert_eq!(super::complete::task_of(metric), Some(task(name)), "{metric}");
    }
    // Finished with other samples: told as that, and tried again.
    let early = FINISHED.replace("640", "320");
    assert!(matches!(last(&[STARTED, &early]), Taken::Event { .. }));
}

#[test]
fn a_place_has_one_value_and_an_attempt_goes_forward() {
    let at = |step: u64, loss: &str| {
        format!(r#"{{"event":"step","step":{step},"samples_seen":{},"loss":{loss}}}"#, step * 64)
    };
    let half = eval("held", 320, "");
    let other = half.replace("0.31", "0.32");
    let resumed = STARTED.replace(":0,", ":320,");
    let failed = r#"{"event":"failed","reason":"r","kind":"crash"}"#;
    for lines in [
        &[STARTED, &at(1, "2.5"), &at(1, "2.50")][..],
        &[STARTED, &at(1, "2.5"), &at(2, "2.5")],
        &[STARTED, &half, &half],
        &[STARTED, &half, &half.replace("acc1", "acc5")],
        &[STARTED, &eval("held", 640, ""), &half],
        &[&resumed, &at(6, "1")],
        &[failed],
    ] {
        assert!(matches!(last(lines), Taken::Event { .. }), "{lines:?}: {:?}", last(lines));
    }
    for (lines, word) in [
        (&[STARTED, &at(1, "2.5"), &at(1, "2.6")][..], "1 with two values of `loss`: 2.5 and 2.6"),
        (&[STARTED, &at(2, "2.5"), &at(1, "2.5")], "1 at 64 samples after step 2 at 128 samples"),
        (&[STARTED, &at(1, "2.5"), &at(1, "2.5").replace(":64", ":128")], "an attempt only goes forward"),
        (&[STARTED, &at(1, "2.5"), &at(2, "2.5").replace(":128", ":64")], "an attempt only goes forward"),
        (&[&resumed, &at(4, "1")], "of 256 samples, and this attempt resumed from 320"),
        (&[STARTED, &half, &other], "two values of `acc1` of `held` at 320 samples: 0.31 and 0.32"),
        (&[STARTED, &half, &half.replace("0.31}", "0.31,\"count\":9}")], "two values of `acc1`"),
        (&[&at(1, "2.5")], "said `step` before `started`"),
        (&[FINISHED], "said `finished` before `started`"),
        (&[STARTED, STARTED], "said `started` twice"),
        (&[STARTED, &at(1, "-2.5")], "`loss` is -2.5: a loss is in nats, 0 or more"),
        (&[STARTED, &FINISHED.replace("640", "320"), &at(1, "2.5")], "after `finished`, which is the last word"),
        (
            &[STARTED, r#"{"event":"step","#],
            "can't be read: it is no whole JSON object: it ends too soon (byte 17); the line: ",
        ),
    ] {
        let taken = last(lines);
        assert!(matches!(&taken, Taken::Refused(reason) if reason.contains(word)), "{word:?}: {taken:?}");
    }
    assert_eq!(last(&[failed, &at(1, "2.5")]), Taken::Nothing);
    let early = FINISHED.replace("640", "320");
    assert_eq!(last(&[STARTED, &early, &early]), Taken::Nothing, "the last word twice is one");
    assert_eq!(last(&["epoch 1"]), Taken::Words);
}

#[test]
fn a_last_line_may_be_cut_off_and_a_whole_one_counts() {
    let spec = spec();
    let mut attempt = Attempt::new(&spec);
    let cut = &STARTED.as_bytes()[..20];
    assert!(
        matches!(attempt.take_last(cut), Taken::CutOff(reason) if reason.contains("the line: {\"event\":\"started"))
    );
    assert!(matches!(attempt.take_last(STARTED.as_bytes()), Taken::Event { .. }));
    assert!(matches!(attempt.take(FINISHED.replace("640", "320").as_bytes()), Taken::Event { .. }));
    assert!(matches!(attempt.take_last(cut), Taken::Refused(_)), "more was said after the last word");
}

#[test]
fn a_key_that_is_ignored_is_named_once() {
    let line = r#"{"event":"step","step":1,"samples_seen":64,"loss":1,"epoch":1}"#;
    assert!(matches!(last(&[STARTED, line]), Taken::Event { ignored, .. } if ignored == ["epoch"]));
    assert!(matches!(last(&[STARTED, line, line]), Taken::Event { ignored, .. } if ignored.is_empty()));
}

/// An event as its bits, for which NaN is NaN.
fn bits(event: &Event) -> String {
    format!("{event:?}")
}

fn any_event() -> impl Strategy<Value = Event> {
    let number = prop_oneof![any::<f64>(), Just(f64::NAN), Just(f64::INFINITY), Just(f64::NEG_INFINITY)];
    let finite = any::<f64>().prop_filter("a number", |number| number.is_finite());
    let measurement = (".*", number.clone(), prop::option::of(finite.clone()), prop::option::of(any::<u64>()))
        .prop_map(|(metric, value, chance, count)| Measurement { metric, value, standard_error: None, chance, count });
    let unmeasured = prop::option::of(".*").prop_map(|reason| {
        reason.into_iter().map(|reason| (protocol::EvaluationTask::ContrastiveLoss, reason)).collect::<BTreeMap<_, _>>()
    });
    prop_oneof![
        (any::<u64>(), any::<u64>(), ".*", prop::option::of(prop::collection::btree_map(".*", any::<u64>(), 0..4)))
            .prop_map(|(parameters, resumed_from_samples, device, skipped)| Event::Started {
                parameters,
                resumed_from_samples,
                device,
                data: skipped.map(|skipped| protocol::DataUsed { pairs: parameters, skipped }),
            }),
        (any::<u64>(), any::<u64>(), number.clone(), prop::collection::btree_map(".*", number, 0..4))
            .prop_map(|(step, samples_seen, loss, metrics)| Event::Step { step, samples_seen, loss, metrics }),
        (any::<u64>(), ".*", prop::collection::vec(measurement, 0..4), unmeasured).prop_map(
            |(samples_seen, dataset, measurements, unmeasured)| Event::Eval {
                samples_seen,
                dataset,
                measurements,
                unmeasured
            }
        ),
        (any::<u64>(), any::<u64>(), ".*", ".*").prop_map(|(step, samples_seen, path, sha256)| {
            Event::Checkpoint { step, samples_seen, path: path.into(), sha256 }
        }),
        (any::<u64>(), finite.clone(), finite, prop::option::of(any::<u64>())).prop_map(
            |(samples_seen, train_secs, eval_secs, peak_memory_bytes)| Event::Finished {
                samples_seen,
                train_secs,
                eval_secs,
                peak_memory_bytes
            }
        ),
        ".*".prop_map(|reason| Event::Failed { reason, kind: protocol::FailureKind::Crash }),
    ]
}

/// Bytes that are like events, more often than not.
fn any_line() -> impl Strategy<Value = Vec<u8>> {
    const PIECES: &[&str] = &[
        "{",
        "}",
        "[",
        "]",
        "\"",
        "'",
        ":",
        ",",
        "\\",
        " ",
        "\r",
        "event",
        "\"event\":",
        "\"step\"",
        "x-",
        "NaN",
        "1e3",
        "\"loss\":",
        "null",
        "-1",
        "\u{feff}",
        "\"samples_seen\":8",
        "\\u0065",
        "{\"event\":\"step\",\"step\":1,",
        "{\"event\":\"failed\",\"reason\":\"r\",\"kind\":\"crash\"}",
    ];
    let piece = prop_oneof![
        4 => prop::sample::select(PIECES).prop_map(|piece| piece.as_bytes().to_vec()),
        1 => prop::collection::vec(any::<u8>(), 0..4),
    ];
    prop::collection::vec(piece, 0..24).prop_map(|pieces| pieces.concat())
}

proptest! {
    #[test]
    fn every_line_is_something(line in any_line()) {
        let is_blank = line.trim_ascii().is_empty();
        let reading = read_line(&line);
        prop_assert_eq!(reading == Reading::Empty, is_blank);
        if let Reading::Unclear { problem } = &reading {
            prop_assert!(!problem.is_empty());
        }
        prop_assert!(!quote(&line).chars().any(char::is_control));
        let spec = spec();
        let mut attempt = Attempt::new(&spec);
        attempt.take(STARTED.as_bytes());
        // What is read is taken or refused, never passed over.
        match (reading, attempt.take(&line)) {
            (Reading::Empty, Taken::Nothing)
            | (Reading::Words, Taken::Words)
            | (Reading::Event { .. }, Taken::Event { .. }) => {}
            (Reading::Event { .. } | Reading::Unclear { .. }, Taken::Refused(reason)) => {
                prop_assert!(!reason.chars().any(char::is_control), "{}", reason);
            }
            other => prop_assert!(false, "{other:?}"),
        }
    }

    #[test]
    fn what_we_write_is_read_back(event in any_event()) {
        let line = serde_json::to_string(&event).expect("it serialises");
        match read_line(line.as_bytes()) {
            Reading::Event { event: read, ignored } => {
                prop_assert_eq!(bits(&read), bits(&event));
                prop_assert!(ignored.is_empty());
            }
            other => prop_assert!(false, "{line}: {other:?}"),
        }
    }

    #[test]
    fn no_part_of_an_event_is_words(event in any_event(), cut in any::<prop::sample::Index>()) {
        let line = serde_json::to_string(&event).expect("it serialises");
        // From the quote of the key on: a brace alone says nothing.
        let cut = cut.index(line.len() - 2) + 2;
        let start = &line.as_bytes()[..cut];
        prop_assert!(matches!(read_line(start), Reading::Unclear { .. }), "{}", quote(start));
    }
}
