//! A thousand attempts that live at once. A thousand workers do not fit two cores, so the cluster is a script that says
//! that all of them run (`tests/it/slurm/fake`), and one statement beats for them; launcher and database are real.
//!
//! `SWEEP_MANY_SECS` is for how long it is watched (default 8; `scripts/bench-orchestrator.sh` takes 60). What it costs
//! is printed, and asserted by nobody: time is not tested here.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::time::{Duration, Instant};

use super::wait_until;
use crate::run::bench::Bench;

const ATTEMPTS: usize = 1000;

#[test]
fn a_thousand_live_attempts_are_one_squeue_a_cycle() {
    let seeds: Vec<String> = (0..ATTEMPTS).map(|seed| seed.to_string()).collect();
    let bench = Bench::new(&format!(
        "name: many\nrunner: synthetic\ngrid: {{model: cpu-w32-l2, samples_seen: 640, data_size: 500, seed: [{}]}}\n\
         recipe: {{global_batch: 64}}\nbackend: {{slurm: {{jobs: {ATTEMPTS}, worker_time: 0s, time: 1h}}}}\n",
        seeds.join(", ")
    ));
    let cluster = bench.path().join("cluster");
    fs::create_dir(&cluster).expect("the project can be written to");
    let fake = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/slurm/fake");
    for program in ["sbatch", "squeue", "scancel", "scontrol", "sinfo"] {
        symlink(&fake, cluster.join(program)).expect("the project can be written to");
    }
    let place = cluster.display().to_string();
    let path = format!("{place}:{}", std::env::var("PATH").unwrap_or_default());
    let launch = bench.launch_with("sweep.yaml", "", &[("PATH", &path), ("FAKE_SLURM", &place)]);

    bench.wait_for("SELECT 'all' FROM attempt WHERE state = 'launched' HAVING count(*) = 1000");
    // Each is claimed, as by its worker.
    bench.ask(
        "WITH a AS (UPDATE attempt SET state = 'running', fence = 1, claimed_at = now(), heartbeat_at = now()
                    WHERE state = 'launched' RETURNING job_id),
              j AS (UPDATE job SET state = 'running', fence = 1 FROM a WHERE job.job_id = a.job_id)
         SELECT count(*)::text FROM a",
    );
    let asked = || fs::read_to_string(cluster.join("asked")).unwrap_or_default().lines().count();
    let secs = std::env::var("SWEEP_MANY_SECS").ok().and_then(|text| text.parse().ok()).unwrap_or(8.0);
    let (begun, asked_before, cpu_before) = (Instant::now(), asked(), launch.cpu_secs());
    let over = || {
        bench.ask("WITH a AS (UPDATE attempt SET heartbeat_at = now() RETURNING 1) SELECT count(*)::text FROM a");
        std::thread::sleep(Duration::from_secs(2));
        (begun.elapsed().as_secs_f64() >= secs).then_some(())
    };
    wait_until(over).expect("less than two minutes");
    let (elapsed, calls) = (begun.elapsed().as_secs_f64(), asked() - asked_before);
    let share = 100.0 * (launch.cpu_secs() - cpu_before) / elapsed;
    eprintln!(
        "launcher of {ATTEMPTS} live attempts: {share:.2} % of a core, {calls} calls of squeue in {elapsed:.0} s"
    );

    assert!(asked_before > 0 && calls as f64 <= elapsed + 1.0, "{calls} calls of squeue in {elapsed} s");
    assert!(!cluster.join("overlaps").exists(), "two at once");
    let states = bench.ask("SELECT concat_ws(' ', count(*), state) FROM attempt GROUP BY state");
    assert_eq!(states, ["1000 running"], "{}", bench.story());
    let arrays = fs::read_to_string(cluster.join("arrays")).expect("sbatch was called");
    let tasks: usize = arrays.lines().filter_map(|line| line.rsplit(' ').next()?.parse::<usize>().ok()).sum();
    assert_eq!(tasks, ATTEMPTS, "each submitted once: {arrays}");
    launch.kill();
}
