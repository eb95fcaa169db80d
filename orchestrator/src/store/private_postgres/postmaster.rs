//! Which server processes of a data folder are alive, by `postmaster.pid` and `/proc`. A process number alone proves
//! nothing: it may have been given to another program since, or belong to a dead process that nobody has reaped.

use std::fs;
use std::io;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// A server that is alive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Postmaster {
    pub(super) pid: i32,
    /// Folder of its socket.
    pub(super) socket: PathBuf,
    ready: bool,
}

impl Postmaster {
    /// Whether it takes connections.
    pub(super) fn answers(&self) -> bool {
        self.ready && UnixStream::connect(self.socket.join(".s.PGSQL.5432")).is_ok()
    }

    /// A signal to a process that is gone is no error.
    pub(super) fn signal(&self, signal: Signal) {
        let _ = kill(Pid::from_raw(self.pid), signal);
    }
}

/// The server of a data folder, if its lock file names one that is alive.
pub(super) fn running(data: &Path) -> Option<Postmaster> {
    let postmaster = parse(&fs::read_to_string(data.join("postmaster.pid")).ok()?)?;
    let alive =
        if has_proc() { works_in(postmaster.pid, data) } else { kill(Pid::from_raw(postmaster.pid), None).is_ok() };
    alive.then_some(postmaster)
}

/// Lines: process, data folder, start time, port, socket folder, address, shared memory, status.
fn parse(text: &str) -> Option<Postmaster> {
    let lines: Vec<&str> = text.lines().collect();
    let pid = lines.first()?.trim().parse().ok().filter(|pid| *pid > 0)?;
    let socket = PathBuf::from(lines.get(4).unwrap_or(&""));
    let ready = lines.get(7).is_some_and(|status| status.trim() == "ready");
    Some(Postmaster { pid, socket, ready })
}

/// Every live process of the server in `data`: each has made that folder its working directory.
pub(super) fn processes(data: &Path) -> Vec<i32> {
    if !has_proc() {
        return running(data).map(|server| server.pid).into_iter().collect();
    }
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    entries
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter(|pid| works_in(*pid, data))
        .collect()
}

/// Removes lock files that no live process stands behind: PostgreSQL takes any process that has got the same number
/// since, or is dead but not reaped, for the old server. The caller holds the start lock and has found no process.
pub(super) fn clear_lock_files(data: &Path, socket: &Path) -> io::Result<()> {
    if !has_proc() {
        return Ok(());
    }
    for path in [data.join("postmaster.pid"), socket.join(".s.PGSQL.5432.lock"), socket.join(".s.PGSQL.5432")] {
        match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            Ok(()) | Err(_) => {}
        }
    }
    Ok(())
}

/// Reading `cwd` fails for the dead.
fn works_in(pid: i32, data: &Path) -> bool {
    fs::read_link(format!("/proc/{pid}/cwd")).is_ok_and(|cwd| cwd == data)
}

fn has_proc() -> bool {
    Path::new("/proc/self/cwd").exists()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lock_file_of_a_server_that_starts_up_and_of_one_that_is_ready() {
        let text = "42\n/p/data\n1764000000\n5432\n/p/socket\n\n  123 4\nstarting\n";
        let server = parse(text).expect("parses");
        assert_eq!((server.pid, server.socket.to_str(), server.ready), (42, Some("/p/socket"), false));
        assert!(parse(&text.replace("starting", "ready   ")).expect("parses").ready);
        assert!(!parse("42\n").expect("a lock file is written line by line").ready);
        assert_eq!(parse(""), None);
        assert_eq!(parse("-42\n"), None);
    }

    #[test]
    fn a_process_of_another_folder_is_not_the_server() {
        let folder = tempfile::tempdir().expect("a folder");
        let me = std::process::id();
        fs::write(folder.path().join("postmaster.pid"), format!("{me}\n/p\n0\n5432\n/s\n\n0 0\nready\n"))
            .expect("written");
        assert_eq!(running(folder.path()), None);
        clear_lock_files(folder.path(), folder.path()).expect("removed");
        clear_lock_files(folder.path(), folder.path()).expect("a second time too");
    }
}
