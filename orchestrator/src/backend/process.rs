//! Processes of this machine as `/proc` shows them. A process id alone is no name: it is reused. What can't be read is
//! not dead: a process may hide (`hidepid`), files may have run out (`RLIMIT_NOFILE`), `/proc` may show another
//! namespace.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;

use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, getpgrp};

/// Rounds in which marked processes are looked for and killed: one that forks meanwhile is found by the next.
const KILL_ROUNDS: usize = 20;

/// What `/proc` says of a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Seen {
    /// The process that was meant is there.
    Alive,
    /// It is not, or is a zombie, or its number belongs to another process by now.
    Gone,
    /// It can't be told.
    Unknown,
}

/// The name of this host.
pub fn host_name() -> io::Result<String> {
    Ok(fs::read_to_string("/proc/sys/kernel/hostname")?.trim().to_owned())
}

/// `pid:start`, start in clock ticks since boot (`/proc/PID/stat`, field 22); `None` if it can't be read.
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
pub fn look_at(handle: &str) -> Seen {
    let Some((pid, start)) = handle
        .split_once(':')
        .and_then(|(pid, start)| Some((pid.parse::<i32>().ok().filter(|pid| *pid > 0)?, start.parse::<u64>().ok()?)))
    else {
        return Seen::Unknown;
    };
    match fs::read_to_string(format!("/proc/{pid}/stat")) {
        Ok(stat) => match state_and_start(&stat) {
            Some((state, begun)) if begun == start && state != 'Z' && state != 'X' => Seen::Alive,
            Some(_) => Seen::Gone,
            None => Seen::Unknown,
        },
        // ESRCH: it ended between open and read.
        Err(error) if error.kind() == io::ErrorKind::NotFound || error.raw_os_error() == Some(nix::libc::ESRCH) => {
            if shows_this_process() {
                Seen::Gone
            } else {
                Seen::Unknown
            }
        }
        Err(_) => Seen::Unknown,
    }
}

/// Handles of the workers (`--attempt TOKEN` on their command line) of these names, by one look at every process.
/// `None`: not every process could be looked at.
pub(super) fn workers_by_name(names: &[&str]) -> Option<BTreeMap<String, String>> {
    let mut found = BTreeMap::new();
    let mut whole = shows_this_process();
    for pid in pids()? {
        match fs::read(format!("/proc/{pid}/cmdline")) {
            Ok(line) => {
                let arguments: Vec<&[u8]> = line.split(|&byte| byte == 0).collect();
                let name = arguments.windows(2).find(|pair| pair[0] == b"--attempt").map(|pair| pair[1]);
                let name = name.and_then(|name| names.iter().find(|wanted| wanted.as_bytes() == name));
                if let (Some(name), Some(handle)) = (name, handle_of(pid)) {
                    found.insert((*name).to_owned(), handle);
                }
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) if error.raw_os_error() == Some(nix::libc::ESRCH) => {}
            Err(_) => whole = false,
        }
    }
    // One that was found is there, whatever else could not be read.
    (whole || names.iter().all(|name| found.contains_key(*name))).then_some(found)
}

/// Kills every process whose environment holds `marker` (`NAME=value`), until none is left or `KILL_ROUNDS` are over.
/// Gives their number.
pub fn kill_marked(marker: &str) -> usize {
    let own = std::process::id().cast_signed();
    let mut killed = BTreeSet::new();
    for _ in 0..KILL_ROUNDS {
        let before = killed.len();
        for pid in pids().into_iter().flatten().filter(|&pid| pid != own) {
            let marked = fs::read(format!("/proc/{pid}/environ"))
                .is_ok_and(|block| block.split(|&byte| byte == 0).any(|entry| entry == marker.as_bytes()));
            if marked
                && let Some(handle) = handle_of(pid)
                && kill(Pid::from_raw(pid), Signal::SIGKILL).is_ok()
            {
                killed.insert(handle);
            }
        }
        if killed.len() == before {
            break;
        }
    }
    killed.len()
}

/// Kills the orphans that fell to this process and gives their numbers, zombies included. Not among them are what it
/// started itself, which shares its process group, and a database server that it brought up on the way, which is to
/// outlive it.
pub fn kill_orphans() -> Vec<i32> {
    let (own, group) = (Pid::this().as_raw(), getpgrp().as_raw());
    let is_orphan = |pid: &i32| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let name = stat.find('(').zip(stat.rfind(')')).map(|(start, end)| &stat[start + 1..end]);
        // Fields 4 and 5: parent and process group.
        let mut fields =
            stat.rfind(')').map(|at| stat[at + 1..].split_ascii_whitespace().skip(1)).into_iter().flatten();
        let mut next = || fields.next().and_then(|field| field.parse::<i32>().ok());
        next() == Some(own) && next() != Some(group) && name != Some("postgres")
    };
    let orphans: Vec<i32> = children().or_else(pids).into_iter().flatten().filter(is_orphan).collect();
    for &pid in &orphans {
        let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
    }
    orphans
}

/// Children of this process, as its threads list them; `None` where the kernel doesn't.
fn children() -> Option<Vec<i32>> {
    let mut found = Vec::new();
    for thread in fs::read_dir("/proc/self/task").ok()? {
        match fs::read_to_string(thread.ok()?.path().join("children")) {
            Ok(list) => found.extend(list.split_ascii_whitespace().filter_map(|pid| pid.parse::<i32>().ok())),
            // The thread has ended meanwhile, or the kernel was built without these files: every process is looked at.
            Err(_) => return None,
        }
    }
    Some(found)
}

/// Whether `/proc` is mounted and is that of our own process namespace.
fn shows_this_process() -> bool {
    fs::read_link("/proc/self").is_ok_and(|own| own.to_str() == Some(&std::process::id().to_string()))
}

fn pids() -> Option<Vec<i32>> {
    let entries = fs::read_dir("/proc").ok()?;
    Some(entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()).collect())
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
    fn this_process_is_alive_an_older_namesake_is_gone_and_nonsense_is_unknown() {
        let pid = std::process::id().cast_signed();
        let handle = handle_of(pid).expect("this process is readable");
        assert_eq!(look_at(&handle), Seen::Alive);
        assert_eq!(look_at(&format!("{pid}:1")), Seen::Gone);
        assert_eq!(look_at(&format!("{}:1", i32::MAX)), Seen::Gone);
        for nonsense in ["", "nonsense", "1", "-1:5", "x:5"] {
            assert_eq!(look_at(nonsense), Seen::Unknown, "{nonsense}");
        }
    }
}
