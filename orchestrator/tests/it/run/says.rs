//! What runners say: read where it is clear, refused with the reason where it is not, and never passed over. A job is
//! done when all that it plans was measured, whichever attempt did, and whoever stores it.

use super::bench::Bench;
use crate::harness::transcript;

/// One job of two steps that plans `held` half-way and at the end.
const SPEC: &str = "\
name: tiny
runner: ./runner.sh
grid: {model: cpu-w32-l2, samples_seen: 128, data_size: 500}
recipe: {global_batch: 64}
evaluations: [{pool: held, tasks: [zeroshot_classification], at_samples: [50%]}]
backend: {local: {slots: 1, threads_per_slot: 1}}
limits: {retries: 0}
";

/// Shell functions of a runner of that job.
const SAYS: &str = r#"
start() { echo "{\"event\":\"started\",\"parameters\":191873,\"resumed_from_samples\":$1,\"device\":\"sh\"}"; }
step() { echo "{\"event\":\"step\",\"step\":$1,\"samples_seen\":$(($1 * 64)),\"loss\":$2}"; }
eval_() { echo "{\"event\":\"eval\",\"samples_seen\":$1,\"dataset\":\"held\",\"measurements\":[$2]}"; }
acc() { echo "{\"metric\":\"acc1\",\"value\":$1}"; }
end() { echo '{"event":"finished","samples_seen":128,"train_secs":1,"eval_secs":0}'; }
"#;

fn bench(spec: &str, body: &str) -> Bench {
    Bench::with_shell_runner(spec, "", &format!("{SAYS}\n{body}"))
}

/// The same with a job for each of `bodies`, by its seed; in shell, `$seed` is the body's number.
fn bench_of_many(spec: &str, bodies: &[String]) -> Bench {
    let seeds: Vec<String> = (0..bodies.len()).map(|seed| seed.to_string()).collect();
    let spec = spec.replace("data_size: 500}", &format!("data_size: 500, seed: [{}]}}", seeds.join(", ")));
    let cases: Vec<String> = bodies.iter().enumerate().map(|(seed, body)| format!("{seed})\n{body}\n;;")).collect();
    let seed = r#"seed=$(grep -o '"seed": *[0-9]*' "$3" | grep -o '[0-9]*$')"#;
    bench(&spec, &format!("{seed}\ncase $seed in\n{}\nesac", cases.join("\n")))
}

/// Launches jobs that can't work; asserts that each was tried once, and failed with a reason that holds the words.
fn assert_reasons(cases: &[(String, &str)]) {
    let bodies: Vec<String> = cases.iter().map(|(body, _)| body.clone()).collect();
    let bench = bench_of_many(SPEC, &bodies);
    let output = bench.launch("").wait();
    assert_eq!(output.status.code(), Some(1), "{}\n{}", transcript(&output), bench.story());
    assert_eq!(bench.ask("SELECT metric FROM observation"), [""; 0], "nothing of it is a result");
    let reasons = bench.ask(
        "SELECT concat_ws(' ', job.state, count(*), job.reason) FROM job JOIN attempt USING (job_id)
         GROUP BY job_id ORDER BY seed",
    );
    assert_eq!(reasons.len(), cases.len(), "{}", bench.story());
    for ((body, words), reason) in cases.iter().zip(reasons) {
        assert!(reason.starts_with("failed 1 ") && reason.contains(words), "{body}: {words:?}: {reason}");
    }
}

#[test]
fn what_is_clear_is_stored() {
    // A byte order mark, a progress bar, CRLF, counts as floats and strings, an unknown key, no newline at the end.
    let bench = bench(
        SPEC,
        r#"printf '\357\273\277'; start 0
           printf '\r 25%%|##|\r 50%%|####| {"event":"step","step":1.0,"samples_seen":"64","loss":2.5,"epoch":1}\r\n'
           eval_ 64 "$(acc 0.25)"; echo '{"event":"x-gpu","celsius":80}'
           printf '{ "step" : 2, "loss":1.5, "epoch":2, "metrics":{"grad_norm":NaN}, "samples_seen":128e0, "event":"step"}\n'
           eval_ 128 "$(acc 0.5)"; end | tr -d '\n'"#,
    );
    bench.finish();
    let curve = "SELECT concat_ws(' ', metric, step, samples_seen, value) FROM curve ORDER BY 1";
    assert_eq!(bench.ask(curve), ["grad_norm 2 128 NaN", "loss 1 64 2.5", "loss 2 128 1.5"]);
    let measured = "SELECT concat_ws(' ', dataset, metric, samples_seen, value) FROM measurement ORDER BY samples_seen";
    assert_eq!(bench.ask(measured), ["held acc1 64 0.25", "held acc1 128 0.5"]);
    let story = bench.story();
    assert_eq!(story.matches("ignored `epoch` of `step`").count(), 1, "{story}");
    assert!(story.contains("no event: 25%|##|") && story.contains("no event: {\"event\":\"x-gpu\""), "{story}");
}

#[test]
fn a_loss_that_is_no_number_is_a_divergence_however_it_is_written() {
    let said = |loss: &str, words| {
        (format!("start 0; step 1 {loss}; eval_ 64 \"$(acc 0.5)\"; eval_ 128 \"$(acc 0.5)\"; end"), words)
    };
    assert_reasons(&[
        said("NaN", "loss is NaN at step 1"),
        said("-Infinity", "loss is infinite at step 1"),
        said("null", "loss is NaN at step 1"),
        said("'\"nan\"'", "loss is NaN at step 1"),
        (
            r#"start 0; eval_ 64 '{"metric":"acc1","value":0.5},{"metric":"loss@1024","value":NaN}'; end"#.to_owned(),
            "loss@1024 of held is NaN at 64 samples",
        ),
    ]);
}

#[test]
fn what_is_not_clear_and_what_can_not_be_fails_the_attempt() {
    let (half, whole) = (r#"eval_ 64 "$(acc 0.25)""#, r#"eval_ 128 "$(acc 0.5)""#);
    assert_reasons(&[
        // An event that another process has cut.
        (
            format!("start 0; printf '{{\"event\":\"step\",\"st'; echo hello; {half}; {whole}; end"),
            "the line: {\"event\":\"step\",\"sthello",
        ),
        (format!("start 0; echo \"{{'event': 'step', 'step': 1}}\"; {half}; {whole}; end"), "`json.dumps`"),
        (format!("start 0; echo '{{\"event\":\"progress\"}}'; {half}; {whole}; end"), "begin with `x-`"),
        (format!("start 0; step 1 1; step 1 2; {half}; {whole}; end"), "two values of `loss`: 1 and 2"),
        (format!("start 0; step 2 1; step 1 1; {half}; {whole}; end"), "only goes forward"),
        (format!("start 0; {half}; eval_ 64 \"$(acc 0.3)\"; {whole}; end"), "two values of `acc1` of `held` at 64"),
        (format!("{half}; {whole}; end"), "`eval` before `started`"),
        (format!("start 0; {half}; {whole}; end; step 2 1"), "`step` after `finished`"),
        (format!("start 0; {whole}; end"), "planned measurements are missing: `held` at 64 samples"),
        (format!("start 0; {half}; end"), "planned measurements are missing: `held` at 128 samples"),
        (format!("start 0; {half}; {whole} | sed s/held/Held/; end"), "`Held`; the job plans `held`"),
        (format!("start 0; {half} | sed s/64/100/; {whole}; end"), "at 100 samples; the job plans it at 64, 128"),
        (format!("start 0; {half}; eval_ 128 \"$(acc 31.0)\"; end"), "percent have to be divided by 100"),
        (format!("start 0; step 1 -1; {half}; {whole}; end"), "a loss is in nats"),
    ]);
}

#[test]
fn a_runner_that_is_killed_within_a_line_is_tried_again() {
    let bench = bench(
        &SPEC.replace("retries: 0", "retries: 1"),
        r#"if [ ! -e killed ]; then touch killed; start 0; printf '{"event":"step","st'; kill -9 $$; fi
           start 0; step 1 1; eval_ 64 "$(acc 0.25)"; step 2 1; eval_ 128 "$(acc 0.5)"; end"#,
    );
    bench.finish();
    let attempts = "SELECT concat_ws(' ', state, failure_kind, reason) FROM attempt ORDER BY attempt_id";
    assert_eq!(bench.ask(attempts), ["failed crash the runner was killed by SIGKILL", "finished"], "{}", bench.story());
    let story = bench.story();
    assert!(story.contains("the runner's last line is cut off: it is no whole JSON object"), "{story}");
}

#[test]
fn what_an_earlier_attempt_has_measured_counts_and_what_none_has_fails_the_job() {
    // Each stops itself after the first step, and is resumed.
    let in_two_attempts = |first: &str| {
        format!(
            r#"if [ -e stopped-$seed ]; then start 64; step 2 1; eval_ 128 "$(acc 0.5)"; end; exit; fi
               touch stopped-$seed; start 0; step 1 2; {first}
               echo '{{"event":"checkpoint","step":1,"samples_seen":64,"path":"checkpoints/64","sha256":"0"}}'; exit 75"#
        )
    };
    let unmeasured = r#""unmeasured":{"zeroshot_classification":"no class has a name yet"}"#;
    let unmeasured =
        format!(r#"echo '{{"event":"eval","samples_seen":64,"dataset":"held","measurements":[],{unmeasured}}}'"#);
    let bodies = [in_two_attempts(r#"eval_ 64 "$(acc 0.25)""#), in_two_attempts(&unmeasured), in_two_attempts("")];
    for ship in ["database", "spool"] {
        let bench = bench_of_many(&SPEC.replace("slots: 1,", &format!("slots: 1, ship: {ship},")), &bodies);
        let output = bench.launch("").wait();
        assert_eq!(output.status.code(), Some(1), "{ship}\n{}\n{}", transcript(&output), bench.story());
        let ends = bench.ask(
            "SELECT concat_ws(', ', job.state, string_agg(concat_ws(' ', a.state, failure_kind, ship), ', '
                                                          ORDER BY attempt_id), left(job.reason, 104))
             FROM job JOIN attempt a USING (job_id) GROUP BY job_id ORDER BY seed",
        );
        let why =
            "the runner said `finished` too soon: planned measurements are missing: `held` at 64 samples: zeroshot_cl";
        let done = format!("done, stopped {ship}, finished {ship}");
        let failed = format!("failed, stopped {ship}, failed bad_input {ship}, {why}");
        assert_eq!(ends, [done.clone(), done, failed], "{}", bench.story());
        let history = "SELECT detail FROM event WHERE kind = 'unmeasured'";
        let told = "zeroshot_classification of held at 64 samples: no class has a name yet";
        assert_eq!(bench.ask(history), [told], "{ship}");
    }
}

#[test]
fn a_runner_is_checked_line_by_line() {
    let check = |bench: &Bench, more: &[&str]| transcript(&bench.sweep(&[&["runner", "check"], more].concat()));
    let good = r#"start 0; step 1 2; echo epoch 1; eval_ 64 "$(acc 0.25)"; step 2 1; eval_ 128 "$(acc 0.5)"; end"#;
    let bench = bench(SPEC, good);
    let text = check(&bench, &["./runner.sh", "--spec", "sweep.yaml"]);
    assert!(text.starts_with("exit: 0"), "{text}");
    for words in [
        "describe    shell 1, on cpu",
        "job         cpu-w32-l2, 128 samples in batches of 64, on cpu; to be measured: held",
        "understood  step: {\"event\":\"step\",\"step\":1,",
        "ignored     epoch 1",
        "verdict     the job would be done",
    ] {
        assert!(text.contains(words), "{words}: {text}");
    }
    // A file here need not be written with its folder; the job that is made up has other samples.
    let text = check(&bench, &["runner.sh"]);
    assert!(text.starts_with("exit: 1"), "{text}");
    assert!(text.contains("verdict     the job would not be done (tried again, up to the limit)"), "{text}");
    assert!(text.contains("after 128 of 256 samples"), "{text}");
    assert!(!bench.path().join(".sweep").exists(), "nothing is stored");

    let torn = Bench::with_shell_runner(SPEC, "", &format!("{SAYS} start 0; echo '{{\"event\":\"step\",'; sleep 600"));
    let text = check(&torn, &["./runner.sh", "--json"]);
    assert!(text.starts_with("exit: 1"), "{text}");
    for words in [
        "\"schema\": \"sweep.runner.check/1\"",
        "\"is\": \"fails\"",
        "can't be read: it is no whole JSON object",
        "\"done\": false",
        "\"kind\": \"bad_input\"",
    ] {
        assert!(text.contains(words), "{words}: {text}");
    }

    let silent = Bench::with_shell_runner(SPEC, "", "echo no GPU here >&2; exit 3");
    let text = check(&silent, &["./runner.sh"]);
    assert!(text.starts_with("exit: 1") && text.contains("stderr      no GPU here"), "{text}");
    assert!(text.contains("the runner left with exit code 3"), "{text}");
    let slow = Bench::with_shell_runner(SPEC, "", "sleep 600");
    let text = check(&slow, &["./runner.sh", "--time-limit", "1"]);
    assert!(text.starts_with("exit: 1") && text.contains("time limit of 1 s"), "{text}");
    assert!(check(&slow, &["./none.sh"]).starts_with("exit: 3"));
    let reads = Bench::with_shell_runner(SPEC, "", "");
    let runner = std::fs::read_to_string(reads.path().join("runner.sh")).expect("it was written");
    std::fs::write(reads.path().join("runner.sh"), runner.replace("\"reads_data\": false", "\"reads_data\": true"))
        .expect("it is ours");
    let text = check(&reads, &["./runner.sh"]);
    assert!(text.starts_with("exit: 2") && text.contains("--pool FOLDER"), "{text}");
}

#[test]
fn our_own_runner_passes() {
    let spec = SPEC.replace("./runner.sh", "synthetic").replace("classification]", "classification, contrastive_loss]");
    let bench = Bench::new(&spec);
    let text = transcript(&bench.sweep(&["runner", "check", "synthetic", "--spec", "sweep.yaml"]));
    assert!(text.starts_with("exit: 0") && text.contains("understood  eval: "), "{text}");
    let text = transcript(&bench.sweep(&["runner", "check", "synthetic"]));
    assert!(text.starts_with("exit: 0") && text.contains("to be measured: nothing"), "{text}");
    bench.finish();
    bench.assert_each_done_once();
}
