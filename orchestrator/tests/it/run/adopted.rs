//! Job folders that the database does not know: it was lost, or restored from an older copy.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::sys::signal::Signal;

use super::bench::{Bench, SPEC};
use crate::harness::transcript;

/// Both ways in which workers tell what they do.
fn both_ways(check: impl Fn(&Bench)) {
    for spec in [SPEC.to_owned(), SPEC.replace("slots: 2,", "slots: 2, ship: spool,")] {
        check(&Bench::new(&spec));
    }
}

/// The database is gone, and what lies in the jobs' folders is not.
fn lose_database(bench: &Bench) {
    stop_database(bench);
    fs::remove_dir_all(database(bench)).expect("it is ours");
}

fn stop_database(bench: &Bench) {
    let stopped = bench.sweep(&["db", "stop"]);
    assert!(stopped.status.success(), "{}", transcript(&stopped));
}

fn database(bench: &Bench) -> PathBuf {
    bench.path().join(".sweep/postgres")
}

/// Stops in the middle: all workers have left checkpoints and are gone.
fn stop_half_way(bench: &Bench) {
    let launch = bench.launch("delay@40");
    bench.wait_for_checkpoint();
    launch.signal(Signal::SIGINT);
    let text = transcript(&launch.wait());
    assert!(text.starts_with("exit: 1"), "{text}\n{}", bench.story());
}

/// Paths in the jobs' folders that match.
fn in_jobs(bench: &Bench, matches: impl Fn(&Path) -> bool) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![bench.path().join(".sweep/jobs")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).expect("it is there") {
            let path = entry.expect("it is readable").path();
            if path.is_dir() {
                folders.push(path.clone());
            }
            found.extend(matches(&path).then_some(path));
        }
    }
    found
}

fn named(name: &str) -> impl Fn(&Path) -> bool {
    move |path| path.file_name().is_some_and(|of| of == name)
}

const ADOPTED: &str = "SELECT token FROM attempt WHERE backend = 'adopted' ORDER BY token";
const SECONDS: &str =
    "SELECT concat_ws(' ', left(job_key, 12), round(train_secs::numeric, 4), round(eval_secs::numeric, 4))
                       FROM result ORDER BY 1";

#[test]
fn jobs_that_were_done_under_a_lost_database_are_done() {
    both_ways(|bench| {
        bench.finish();
        let before = bench.ask("SELECT token FROM attempt ORDER BY token");
        lose_database(bench);
        bench.finish();
        bench.assert_done_once();
        assert_eq!(bench.ask(ADOPTED), before, "{}", bench.story());
        // Nothing was trained again, and what was is not forgotten.
        assert_eq!(in_jobs(bench, named("job.json")).len(), 4, "{}", bench.story());
        let secs = bench.ask("SELECT sum(train_secs)::text FROM attempt WHERE state = 'finished'");
        assert!(secs[0].parse::<f64>().expect("a number") > 0.0, "{secs:?}");
        assert!(bench.finish().contains("nothing left to do"));
    });
}

#[test]
fn jobs_go_on_from_the_checkpoints_of_a_lost_database() {
    both_ways(|bench| {
        stop_half_way(bench);
        let claimed =
            bench.ask("SELECT token FROM attempt WHERE fence IS NOT NULL AND samples_seen > 0 ORDER BY token");
        lose_database(bench);
        bench.finish();
        bench.assert_done_once();
        assert_eq!(bench.ask(ADOPTED), claimed, "{}", bench.story());
        let resumed = "SELECT token FROM attempt WHERE state = 'finished' AND resumed_from_samples >= 320";
        assert!(!bench.ask(resumed).is_empty(), "{}", bench.story());
        assert!(in_jobs(bench, named("checkpoints-set-aside-1")).is_empty(), "{}", bench.story());
    });
}

#[test]
fn checkpoints_without_their_events_are_set_aside() {
    both_ways(|bench| {
        stop_half_way(bench);
        lose_database(bench);
        for spool in in_jobs(bench, named("events.jsonl")) {
            fs::remove_file(spool).expect("it is ours");
        }
        let before = in_jobs(bench, named("manifest.json")).len();
        assert!(before > 0, "there are checkpoints");
        bench.finish();
        bench.assert_done_once();
        let from = bench.ask("SELECT DISTINCT resumed_from_samples::text FROM attempt");
        assert_eq!(from, ["0"], "{}", bench.story());
        let aside = in_jobs(bench, |path| {
            path.ends_with("manifest.json") && path.to_string_lossy().contains("checkpoints-set-aside-1")
        });
        assert_eq!(aside.len(), before, "none is lost");
        let said = in_jobs(bench, |path| {
            named("worker.log")(path)
                && fs::read_to_string(path)
                    .is_ok_and(|text| text.contains("checkpoints-set-aside-1: the database does not know of it"))
        });
        assert!(!said.is_empty(), "{}", bench.story());
    });
}

#[test]
fn a_course_whose_beginning_is_gone_is_trained_anew() {
    let bench = Bench::new(SPEC);
    stop_half_way(&bench);
    // The second attempts go on from the first ones' checkpoints.
    stop_half_way(&bench);
    let first = bench.ask(
        "SELECT a.token FROM attempt a WHERE EXISTS (SELECT FROM attempt later WHERE later.job_id = a.job_id
                                                     AND later.resumed_from_samples > 0 AND later.fence > a.fence)",
    );
    assert!(!first.is_empty(), "{}", bench.story());
    lose_database(&bench);
    for token in first {
        for folder in in_jobs(&bench, named(&token)) {
            fs::remove_dir_all(folder).expect("it is ours");
        }
    }
    bench.finish();
    bench.assert_done_once();
}

#[test]
fn a_database_restored_from_an_older_copy_learns_what_came_after_it() {
    both_ways(|bench| {
        stop_half_way(bench);
        let copy = bench.path().join("copy");
        stop_database(bench);
        let copied = |from: &Path, to: &Path| {
            let status = Command::new("cp").arg("-a").args([from, to]).status().expect("cp runs");
            assert!(status.success());
        };
        copied(&database(bench), &copy);
        bench.finish();
        lose_database(bench);
        copied(&copy, &database(bench));
        bench.finish();
        bench.assert_done_once();
        assert!(!bench.ask(ADOPTED).is_empty(), "{}", bench.story());
        assert!(bench.ask(SECONDS).iter().all(|line| line.split(' ').count() == 3), "{:?}", bench.ask(SECONDS));
    });
}
