//! A runner that the kernel kills for want of memory, in a control group of the test's own, where one can be made; and
//! what the plan says that a training needs, held against what it took.

use std::fs;
use std::path::{Path, PathBuf};

use super::bench::{Bench, SHELL_SPEC, clip_runner_is_built};
use crate::harness::{transcript, wait_until};

/// A control group of 128 MiB; removed with it.
struct Group(PathBuf);

impl Group {
    fn new() -> Option<Group> {
        let groups = fs::read_to_string("/proc/self/cgroup").ok()?;
        let own = |prefix: &str, root: &str| {
            let group = groups.lines().find_map(|line| line.split_once(prefix).map(|(_, group)| group))?;
            Some(Path::new(root).join(group.trim_start_matches('/')))
        };
        let (parent, limit) = match own(":memory:", "/sys/fs/cgroup/memory") {
            Some(parent) => (parent, "memory.limit_in_bytes"),
            None => (own("0::", "/sys/fs/cgroup")?, "memory.max"),
        };
        let group = Group(parent.join(format!("sweep-test-{}", std::process::id())));
        fs::create_dir(&group.0).ok()?;
        fs::write(group.0.join(limit), "134217728").ok()?;
        Some(group)
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // A folder of the kernel's: only itself can be removed, once its processes have left.
        wait_until(|| fs::remove_dir(&self.0).is_ok().then_some(()));
    }
}

#[test]
fn a_runner_that_is_killed_for_memory_is_tried_thrice() {
    let Some(group) = Group::new() else {
        eprintln!("skipped: no control group can be made here");
        return;
    };
    let bench = Bench::with_shell_runner(
        SHELL_SPEC,
        "",
        "started; head -c 1000000000 /dev/zero | tail -n 1 >/dev/null; exit 3",
    );
    // Outside of the group: only the runner is to be killed.
    assert!(bench.sweep(&["db", "start"]).status.success());
    let output = bench.launch_in_group(&group.0.join("cgroup.procs")).wait();
    assert_eq!(output.status.code(), Some(1), "{}\n{}", transcript(&output), bench.story());
    let reasons =
        bench.ask("SELECT concat_ws(' ', count(*), failure_kind, reason) FROM attempt GROUP BY failure_kind, reason");
    assert_eq!(reasons, ["3 crash out of memory: the runner left with exit code 3"], "{}", bench.story());
    let why = bench.ask("SELECT reason FROM job");
    assert_eq!(why, ["3 attempts ran out of the memory that was asked for; ask for more"]);
}

/// Context lengths that every batch fills, and a process a job: what one has freed another one would find.
const TRAINED: &str = "
name: memory
runner: clip
data: {pool: POOLS/train}
grid: {model: [cpu-w32-l2, cpu-w64-l3], samples_seen: 1024, data_size: all}
recipe: {global_batch: 256, lr: 1e-3, augmentation: flip_shift, context_length: 8}
backend: {local: {slots: 1, threads_per_slot: 1, worker_time: 0s}}
";

#[test]
fn a_training_takes_the_memory_that_the_plan_says() {
    if !clip_runner_is_built() {
        return;
    }
    let pools = concat!(env!("CARGO_MANIFEST_DIR"), "/../runners/pool/fixture");
    let bench = Bench::new(&TRAINED.replace("POOLS", pools));
    let plan = bench.sweep(&["plan", "sweep.yaml", "--json"]);
    let plan: serde_json::Value = serde_json::from_slice(&plan.stdout).expect("a plan as JSON");
    bench.finish();
    let taken = bench.ask("SELECT concat_ws(' ', job_key, peak_memory_bytes) FROM attempt JOIN job USING (job_id)");
    for job in plan["jobs"].as_array().expect("jobs") {
        let (key, said) = (job["job_key"].as_str().expect("a key"), job["memory_bytes"].as_f64().expect("bytes"));
        let of_job = taken.iter().find_map(|row| row.strip_prefix(key)).expect("an attempt of each");
        let found: f64 = of_job.trim().parse().expect("a number");
        // Runs differ by up to 4 %; the rest is what processors and releases of libtorch may differ by.
        assert!((0.9..1.1).contains(&(said / found)), "{}: {said} bytes planned, {found} taken", job["model"]);
    }
}
