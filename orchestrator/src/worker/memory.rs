//! How many processes of this worker's control group the kernel has killed for want of memory: a runner that ended by
//! SIGKILL does not say why.

use std::fs;
use std::path::{Path, PathBuf};

/// Kills so far in the control group of this process; `None`: the kernel does not count them here.
pub(super) fn kills() -> Option<u64> {
    let groups = fs::read_to_string("/proc/self/cgroup").ok()?;
    let counters = counters(&groups, Path::new("/sys/fs/cgroup"));
    counters.iter().find_map(|path| count(&fs::read_to_string(path).ok()?))
}

/// Files that may hold the count, given `/proc/self/cgroup`: version 1 has a hierarchy for memory, version 2 one for
/// all.
fn counters(groups: &str, root: &Path) -> Vec<PathBuf> {
    let mut paths = Vec::new();
    for line in groups.lines() {
        let mut fields = line.splitn(3, ':');
        let (Some(_), Some(controllers), Some(group)) = (fields.next(), fields.next(), fields.next()) else { continue };
        let group = group.trim_start_matches('/');
        if controllers.split(',').any(|controller| controller == "memory") {
            paths.push(root.join("memory").join(group).join("memory.oom_control"));
        } else if controllers.is_empty() {
            paths.push(root.join(group).join("memory.events"));
        }
    }
    paths
}

/// The line `oom_kill N`.
fn count(text: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix("oom_kill ")?.trim().parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_versions_are_read() {
        let paths = |groups| {
            let paths = counters(groups, Path::new("/r")).into_iter();
            paths.map(|path| path.display().to_string()).collect::<Vec<_>>()
        };
        assert_eq!(paths("0::/slurm/job_1/step_batch/task_0\n"), ["/r/slurm/job_1/step_batch/task_0/memory.events"]);
        assert_eq!(
            paths("9:name=systemd:/\n4:cpu,memory:/slurm/uid_0/job_1\n0::/\n"),
            ["/r/memory/slurm/uid_0/job_1/memory.oom_control", "/r/memory.events"]
        );
        assert_eq!(count("low 0\nhigh 0\nmax 4\noom 2\noom_kill 1\noom_group_kill 0\n"), Some(1));
        assert_eq!(count("oom_kill_disable 0\nunder_oom 0\noom_kill 3\n"), Some(3));
        assert_eq!(count("oom_kill_disable 0\n"), None);
    }
}
