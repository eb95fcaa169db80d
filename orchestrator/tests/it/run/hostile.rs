//! Runners that misbehave, and a database that refuses: what is said is bounded, what is left is killed, and the reason
//! is told.

use std::fs;
use std::process::Stdio;

use nix::sys::signal::Signal;

use super::bench::{Bench, SHELL_SPEC, SPEC, kill_worker, wait_until};
use crate::harness::transcript;

/// A project whose runner does `body` when it is to train.
fn shell(body: &str) -> Bench {
    Bench::with_shell_runner(&format!("{SHELL_SPEC}limits: {{retries: 0}}\n"), "", body)
}

/// Launches a job that can't work; gives why it failed. It is tried once.
fn reason(bench: &Bench) -> String {
    let output = bench.launch("").wait();
    assert_eq!(output.status.code(), Some(1), "{}\n{}", transcript(&output), bench.story());
    assert_eq!(bench.ask("SELECT count(*)::text FROM attempt"), ["1"], "{}", bench.story());
    bench.ask("SELECT reason FROM job WHERE state = 'failed'").pop().unwrap_or_else(|| panic!("{}", bench.story()))
}

fn reason_of(body: &str) -> String {
    reason(&shell(body))
}

#[test]
fn a_line_without_end_costs_its_attempt_and_no_memory() {
    let bench = shell("started; head -c 300000000 /dev/zero | tr '\\0' x; echo; finished");
    let why = reason(&bench);
    assert!(why.contains("a line of 300000000 bytes, at most 1048576 are read"), "{why}");
    let spools = bench.ask("SELECT folder FROM attempt");
    assert!(fs::metadata(format!("{}/events.jsonl", spools[0])).expect("it is there").len() < 10_000);
}

#[test]
fn what_the_store_could_not_hold_fails_the_attempt_and_says_why() {
    let step = |step: &str, name: &str, seen: &str| {
        format!(
            "started; echo '{{\"event\":\"step\",\"step\":{step},\"samples_seen\":{seen},\"loss\":1,\"metrics\":{{\"{name}\":1}}}}'; finished"
        )
    };
    for (body, word) in [
        (step("1", &"m".repeat(6000), "64"), "6000 bytes, at most 200"),
        (step("18446744073709551615", "lr", "64"), "`step` is 18446744073709551615"),
        (step("1", "lr", "65"), "it is at 65 samples of 64"),
        (step("-1", "lr", "64"), "an event that can't be read"),
        (
            "started; echo '{\"event\": \"eval\", \"samples_seen\": 64, \"dataset\": \"d\", \"measurements\": [{\"metric\": \"acc1\", \"value\": NaN}]}'; finished"
                .to_owned(),
            "`acc1` is NaN",
        ),
        (step("1", "a\\u0000b", "64"), "control characters"),
        (step("1", "a\\u001b[31m", "64"), "control characters"),
    ] {
        let why = reason(&shell(&body));
        assert!(why.contains(word), "{word}: {why}");
        assert!(!why.chars().any(char::is_control), "{why:?}");
    }
}

#[test]
fn numbers_that_are_none_are_stored_and_are_no_noise() {
    let bench = shell(
        "started; echo '{\"event\":\"step\",\"step\":1,\"samples_seen\":64,\"loss\":1,\"metrics\":{\"grad_norm\":\"inf\",\"lr\":null}}'; finished",
    );
    bench.finish();
    let stored = "SELECT concat_ws(' ', name, value) FROM metric JOIN metric_name USING (metric_id) ORDER BY name";
    assert_eq!(bench.ask(stored), ["grad_norm Infinity", "loss 1", "lr NaN"]);
}

#[test]
fn a_reason_of_a_megabyte_ends_its_attempt() {
    let reason = "head -c 900000 /dev/zero | tr '\\0' '\\001'";
    let start = r#"printf '{"event":"failed","kind":"bad_input","reason":"why "#;
    let why = reason_of(&format!("started; {start}'; {reason}; printf '\"}}\\n'; exit 2"));
    assert!(why.starts_with("why ") && why.len() < 10_000, "{} bytes", why.len());
}

#[test]
fn a_runner_can_not_go_on_from_where_nobody_was() {
    let started = r#"echo '{"event":"started","parameters":191873,"resumed_from_samples":32,"device":"sh"}'"#;
    let why = reason_of(&format!("{started}; finished"));
    assert!(why.contains("it went on from 32 samples, and no attempt before it had come further than 0"), "{why}");
}

#[test]
fn a_result_says_what_it_was_trained_on_and_what_was_passed_over() {
    let data = r#""data":{"pairs":60,"skipped":{"undecodable image":3,"no caption":1}}"#;
    let bench = shell(&format!("started | sed 's/}}$/,{data}}}/'; finished"));
    bench.finish();
    let rows = bench.ask("SELECT concat_ws(' ', data_size, unique_samples, skipped) FROM result");
    assert_eq!(rows, [r#"500 60 {"no caption": 1, "undecodable image": 3}"#]);
}

#[test]
fn an_event_that_the_database_refuses_is_set_aside_and_blocks_nothing() {
    let bench = Bench::new(SPEC);
    assert!(bench.sweep(&["db", "start"]).status.success());
    bench.ask("CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS
               $$ BEGIN IF new.step = 7 THEN RAISE EXCEPTION 'not this one' USING ERRCODE = '22000'; END IF; RETURN new; END $$");
    bench.ask("CREATE TRIGGER refuse BEFORE INSERT ON metric FOR EACH ROW EXECUTE FUNCTION refuse()");
    let output = bench.launch("").wait();
    assert_eq!(output.status.code(), Some(1), "{}", transcript(&output));
    let reasons = bench.ask("SELECT DISTINCT reason FROM job WHERE state = 'failed'");
    assert!(reasons.len() == 1 && reasons[0].contains("not this one"), "{reasons:?}\n{}", bench.story());
    for folder in bench.ask("SELECT folder FROM attempt") {
        let refused = fs::read_to_string(format!("{folder}/refused.jsonl")).expect("it says what was refused");
        assert!(refused.lines().count() == 1 && refused.contains("\"step\":7"), "{refused}");
    }
    // All the others are there.
    assert_eq!(bench.ask("SELECT count(DISTINCT step)::text FROM metric WHERE step IN (6, 8)"), ["2"]);
}

#[test]
fn a_database_without_space_is_waited_for_and_training_goes_on() {
    let bench = Bench::new(SPEC);
    assert!(bench.sweep(&["db", "start"]).status.success());
    bench.ask(
        "CREATE FUNCTION full_disk() RETURNS trigger LANGUAGE plpgsql AS
               $$ BEGIN RAISE EXCEPTION 'could not extend file' USING ERRCODE = '53100'; END $$",
    );
    bench.ask("CREATE TRIGGER full_disk BEFORE INSERT ON metric FOR EACH ROW EXECUTE FUNCTION full_disk()");
    let launch = bench.launch("");
    // The runners of both slots have long said their last words; nothing is stored, nobody has failed.
    let finished = || {
        let logs = bench.try_ask("SELECT folder FROM attempt WHERE state = 'running'")?;
        let done = |folder: &String| {
            fs::read_to_string(format!("{folder}/worker.log")).is_ok_and(|log| log.contains("ended: Finished"))
        };
        (logs.len() == 2 && logs.iter().all(done)).then_some(())
    };
    wait_until(finished).unwrap_or_else(|| panic!("{}", bench.story()));
    bench.ask("DROP TRIGGER full_disk ON metric");
    let output = launch.wait();
    assert!(output.status.success(), "{}\n{}", transcript(&output), bench.story());
    bench.assert_done_once();
    assert_eq!(bench.ask("SELECT count(*)::text FROM attempt"), ["4"]);
}

#[test]
fn a_client_that_holds_a_job_holds_up_no_other() {
    let bench = Bench::new(SPEC);
    bench.finish();
    bench.ask("UPDATE job SET state = 'cancelled'");
    assert!(bench.sweep(&["retry", "tiny"]).status.success());
    let held = bench.hold("SELECT job_id FROM job ORDER BY job_id LIMIT 1 FOR UPDATE");
    let launch = bench.launch("");
    bench.wait_for("SELECT 'the others' FROM job WHERE state = 'done' HAVING count(*) = 3");
    drop(held);
    let output = launch.wait();
    assert!(output.status.success(), "{}\n{}", transcript(&output), bench.story());
}

#[test]
fn what_leads_to_the_database_does_not_reach_runners() {
    let bench = shell("env >environment; started; finished");
    let mut launch = std::process::Command::new(env!("CARGO_BIN_EXE_sweep"));
    let url = {
        assert!(bench.sweep(&["db", "start"]).status.success());
        String::from_utf8(bench.sweep(&["db", "url"]).stdout).expect("text")
    };
    launch.args(["launch", "sweep.yaml"]).current_dir(bench.path()).env("DATABASE_URL", url.trim());
    launch.env("PGPASSWORD", "secret").env("PGSERVICE", "secret").env("SWEEP_READER_URL", url.trim());
    let output = launch.stdin(Stdio::null()).output().expect("sweep runs");
    assert!(output.status.success(), "{}", transcript(&output));
    let seen = fs::read_to_string(bench.path().join("environment")).expect("the runner wrote it");
    for secret in ["DATABASE_URL", "PGPASSWORD", "PGSERVICE", "SWEEP_READER_URL", "password"] {
        assert!(!seen.contains(secret), "{secret}");
    }
    assert!(seen.contains("SWEEP_ATTEMPT="), "{seen}");
}

#[test]
fn orphans_of_a_runner_end_with_its_attempt() {
    // Out of the process group, the session and the environment that would give it away.
    let bench = shell("setsid env -i sleep 86399.5 </dev/null >/dev/null 2>&1 & sleep 0.1; started; finished");
    bench.finish();
    assert_eq!(processes("sleep\u{0}86399.5\u{0}"), 0);
}

#[test]
fn a_database_that_a_worker_brought_up_outlives_its_attempt() {
    let bench = Bench::new(SPEC);
    let launch = bench.launch("delay@60");
    bench.wait_for_checkpoint();
    let first = bench.postmaster();
    // Nobody but the workers is left to bring it up again.
    launch.kill();
    nix::sys::signal::kill(first, Signal::SIGKILL).expect("it is ours");
    bench.wait_for("SELECT 'done' FROM job WHERE state = 'done' HAVING count(*) = 2");
    let second = bench.postmaster();
    assert_ne!(first, second);
    wait_until(|| bench.try_ask("SELECT token FROM attempt WHERE state = 'running'")?.is_empty().then_some(()));
    for token in bench.ask("SELECT token FROM attempt") {
        wait_until(|| (!kill_worker(&token, Signal::SIGCONT)).then_some(())).expect("its worker leaves");
    }
    assert_eq!(bench.postmaster(), second, "the server was killed with its attempt");
    bench.finish();
    bench.assert_done_once();
}

#[test]
fn what_a_killed_worker_leaves_is_killed_when_its_attempt_is_lost_and_when_it_is_cancelled() {
    let body = "setsid sleep 86398.5 </dev/null >/dev/null 2>&1 & started; sleep 86397.5";
    let bench = shell(body);
    let launch = bench.launch("");
    let token = bench.wait_for("SELECT token FROM attempt WHERE state = 'running' AND device = 'sh'");
    wait_until(|| (processes("sleep\u{0}86398.5\u{0}") == 1).then_some(())).expect("it was started");
    launch.kill();
    assert!(kill_worker(&token, Signal::SIGKILL));
    assert_eq!(processes("sleep\u{0}86398.5\u{0}"), 1);
    // Nobody hears of the dead worker: its heartbeat is as old as that of one dead for a minute.
    bench.ask(
        "UPDATE attempt SET created_at = created_at - interval '1 min', launched_at = launched_at - interval '1 min',
                      claimed_at = claimed_at - interval '1 min', heartbeat_at = heartbeat_at - interval '1 min'",
    );
    let cancelled = transcript(&bench.sweep(&["cancel", "tiny"]));
    assert!(cancelled.starts_with("exit: 0"), "{cancelled}");
    // What was killed may be seen dying.
    wait_until(|| (processes("sleep\u{0}86398.5\u{0}") == 0).then_some(()))
        .unwrap_or_else(|| panic!("{}", bench.story()));
    assert_eq!(bench.ask("SELECT state FROM attempt"), ["lost"]);
    assert_eq!(bench.ask("SELECT state FROM job"), ["cancelled"]);
}

#[test]
fn half_written_checkpoints_and_those_of_superseded_workers_are_removed() {
    let bench = Bench::new(SPEC);
    let launch = bench.launch("delay@40");
    let token = bench.wait_for_checkpoint();
    launch.kill();
    let folder = bench.ask("SELECT folder FROM attempt a JOIN checkpoint USING (attempt_id) LIMIT 1").remove(0);
    let checkpoints = std::path::Path::new(&folder).parent().expect("the job's folder").join("checkpoints");
    assert!(kill_worker(&token, Signal::SIGKILL));
    for name in [".samples-5-fence-1.tmp", "000000000640-0"] {
        fs::create_dir_all(checkpoints.join(name)).expect("it is ours");
    }
    bench.finish();
    bench.assert_done_once();
    let left: Vec<String> = fs::read_dir(&checkpoints)
        .expect("it is there")
        .map(|entry| entry.expect("it is readable").file_name().into_string().expect("text"))
        .collect();
    assert!(!left.iter().any(|name| name.starts_with('.') || name == "000000000640-0"), "{left:?}");
}

#[test]
fn a_full_disk_is_waited_for_and_costs_no_retry() {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("skipped: only root can mount a small disk");
        return;
    }
    let bench = Bench::new(&format!("{SPEC}limits: {{retries: 0}}\n"));
    let jobs = bench.path().join(".sweep/jobs");
    fs::create_dir_all(&jobs).expect("the project is ours");
    let Some(disk) = SmallDisk::mount(&jobs) else { return };
    let ballast = jobs.join("ballast");
    disk.fill(&ballast);
    let launch = bench.launch("");
    bench.wait_for("SELECT 'twice' FROM attempt WHERE reason LIKE 'no space left on the disk%' HAVING count(*) >= 2");
    fs::remove_file(&ballast).expect("it is ours");
    // They rest for a minute after that; as if it were over.
    bench.ask("UPDATE attempt SET ended_at = ended_at - interval '2 min' WHERE reason LIKE 'no space left%'");
    let output = launch.wait();
    assert!(output.status.success(), "{}\n{}", transcript(&output), bench.story());
    bench.assert_done_once();
    assert_eq!(bench.ask("SELECT count(*)::text FROM attempt WHERE state IN ('failed', 'lost')"), ["0"]);
}

/// A file system of 2 MB in memory.
pub(super) struct SmallDisk(std::path::PathBuf);

impl SmallDisk {
    pub(super) fn mount(place: &std::path::Path) -> Option<SmallDisk> {
        let mut mount = std::process::Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", "size=2m,mode=755", "none"]).arg(place);
        if mount.output().is_ok_and(|output| output.status.success()) {
            return Some(SmallDisk(place.to_owned()));
        }
        eprintln!("skipped: nothing can be mounted here");
        None
    }

    pub(super) fn fill(&self, ballast: &std::path::Path) {
        let _ = fs::write(ballast, vec![0; 4 << 20]);
        assert!(fs::write(self.0.join("one more"), vec![1; 8192]).is_err(), "it is full");
        let _ = fs::remove_file(self.0.join("one more"));
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = std::process::Command::new("umount").arg("-l").arg(&self.0).output();
    }
}

/// Processes with this command line.
fn processes(line: &str) -> usize {
    let entries = fs::read_dir("/proc").expect("this is Linux");
    entries
        .filter_map(|entry| fs::read(entry.ok()?.path().join("cmdline")).ok())
        .filter(|found| found.as_slice() == line.as_bytes())
        .count()
}
