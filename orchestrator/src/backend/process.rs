//! Processes of this machine as `/proc` shows them. A process id alone is no name: it is reused.

use std::fs;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// `pid:start`, start in clock ticks since boot (`/proc/PID/stat`, field 22); `None` if it is gone or a zombie.
pub(super) fn handle_of(pid: i32) -> Option<String> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (state, start) = state_and_start(&stat)?;
    (state != 'Z' && state != 'X').then(|| format!("{pid}:{start}"))
}

/// Process id in a handle.
pub(super) fn pid_of(handle: &str) -> Option<i32> {
    handle.split_once(':')?.0.parse().ok()
}

/// Whether the process of this handle still is the one that was meant.
pub fn process_alive(handle: &str) -> bool {
    pid_of(handle).and_then(handle_of).as_deref() == Some(handle)
}

/// Handles of the processes started with `--attempt TOKEN`, by a look at every process.
pub(super) fn with_attempt(token: &str) -> Vec<String> {
    let mut found: Vec<String> = pids()
        .filter(|pid| {
            fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|line| {
                let arguments: Vec<&[u8]> = line.split(|&byte| byte == 0).collect();
                arguments.windows(2).any(|pair| pair == [b"--attempt".as_slice(), token.as_bytes()])
            })
        })
        .filter_map(handle_of)
        .collect();
    found.sort();
    found
}

/// Kills what is left of a runner: every process whose environment holds `marker` (`NAME=value`). Gives their number.
pub fn kill_marked(marker: &str) -> usize {
    let own = std::process::id().cast_signed();
    let marked = pids().filter(|&pid| {
        pid != own
            && fs::read(format!("/proc/{pid}/environ"))
                .is_ok_and(|block| block.split(|&byte| byte == 0).any(|entry| entry == marker.as_bytes()))
    });
    marked.filter(|&pid| kill(Pid::from_raw(pid), Signal::SIGKILL).is_ok()).count()
}

fn pids() -> impl Iterator<Item = i32> {
    fs::read_dir("/proc").into_iter().flatten().filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
}

/// Fields 3 and 22. Field 2, the name, may hold spaces and parentheses: count from the last `)`.
fn state_and_start(stat: &str) -> Option<(char, u64)> {
    let mut fields = stat[stat.rfind(')')? + 1..].split_ascii_whitespace();
    let state = fields.next()?.chars().next()?;
    Some((state, fields.nth(18)?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stat_is_read_behind_a_hostile_name() {
        let stat = "12 (a) R 1) S 1 12 12 0 -1 4194304 1 0 0 0 0 0 0 0 20 0 1 0 98765 1 1";
        assert_eq!(state_and_start(stat), Some(('S', 98765)));
        assert_eq!(state_and_start("12 (cut"), None);
    }

    #[test]
    fn this_process_is_alive_and_an_older_namesake_is_not() {
        let pid = std::process::id().cast_signed();
        let handle = handle_of(pid).unwrap();
        assert!(process_alive(&handle));
        assert!(!process_alive(&format!("{pid}:1")));
        assert!(!process_alive("nonsense"));
    }
}
