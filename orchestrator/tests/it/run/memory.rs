//! A runner that the kernel kills for want of memory, in a control group of the test's own. Where none can be made the
//! test says so and passes.

use std::fs;
use std::path::{Path, PathBuf};

use super::bench::{Bench, SHELL_SPEC};
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
