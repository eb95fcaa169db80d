//! Whether the server of a data folder is alive. Its socket is asked first, then the lock that it holds for its
//! lifetime. `/proc` comes last and proves life only: what can't be seen (another process namespace, no right to look)
//! is not dead. A process number alone proves nothing: it may have been given to another program since, or mean another
//! process here.

use std::fs::{self, File};
use std::io;
use std::net::SocketAddrV4;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::sys::signal::{Signal, kill};
use nix::sys::socket::{getsockopt, sockopt};
use nix::unistd::Pid;

/// The socket that clients ask for; where a server has another port, it is a link.
pub(super) const SOCKET_FILE: &str = ".s.PGSQL.5432";

/// A server that takes connections.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Postmaster {
    /// As the kernel tells it of the socket's other end; `None`: it runs in another process namespace.
    pub(super) pid: Option<i32>,
    /// Folder of its socket.
    pub(super) socket: PathBuf,
}

impl Postmaster {
    /// A signal to a process that is gone is no error. `false`: it can't be reached from here.
    pub(super) fn signal(&self, signal: Signal) -> bool {
        self.pid.is_some_and(|pid| {
            let _ = kill(Pid::from_raw(pid), signal);
            true
        })
    }
}

/// The server of a data folder that takes connections: at the socket that its lock file names, or else at `socket`. A
/// lock file that speaks of another folder was copied with a project, or the project has another path here than for its
/// server: what is at the place that it names may be another project's.
pub(super) fn answering(data: &Path, socket: &Path) -> Option<Postmaster> {
    let noted = lock_file(data);
    // The socket is there while the server still starts up.
    if noted.as_ref().is_some_and(|noted| !noted.ready) {
        return None;
    }
    let socket = noted.filter(|noted| noted.data == data).map_or_else(|| socket.to_owned(), |noted| noted.socket);
    let stream = UnixStream::connect(socket.join(SOCKET_FILE)).ok()?;
    let peer = getsockopt(&stream, sockopt::PeerCredentials).ok()?;
    Some(Postmaster { pid: Some(peer.pid()).filter(|pid| *pid > 0), socket })
}

/// Whether the server of a data folder listens beside its socket where it is wanted to, by its lock file: on one IPv4
/// address, or not at all. Where that can't be told from here, it counts as such.
pub(super) fn listens_as_wanted(data: &Path, wanted: Option<SocketAddrV4>) -> bool {
    let Some(noted) = lock_file(data).filter(|noted| noted.ready && noted.data == data) else { return true };
    match (noted.address.as_str(), noted.address.parse(), noted.port) {
        ("", ..) => wanted.is_none(),
        (_, Ok(ip), Some(port)) => wanted == Some(SocketAddrV4::new(ip, port)),
        _ => true,
    }
}

/// A server that takes no connections: the lock file's process, if it can be seen to work in this very folder.
pub(super) fn silent(data: &Path) -> Option<Postmaster> {
    let noted = lock_file(data)?;
    processes(data).contains(&noted.pid).then_some(Postmaster { pid: Some(noted.pid), socket: noted.socket })
}

/// What `postmaster.pid` says.
#[derive(Debug, Clone, PartialEq, Eq)]
struct LockFile {
    pid: i32,
    data: PathBuf,
    port: Option<u16>,
    socket: PathBuf,
    /// Empty: none.
    address: String,
    ready: bool,
}

fn lock_file(data: &Path) -> Option<LockFile> {
    parse(&fs::read_to_string(data.join("postmaster.pid")).ok()?)
}

/// Lines: process, data folder, start time, port, socket folder, address, shared memory, status.
fn parse(text: &str) -> Option<LockFile> {
    let lines: Vec<&str> = text.lines().collect();
    let pid = lines.first()?.trim().parse().ok().filter(|pid| *pid > 0)?;
    let data = PathBuf::from(lines.get(1).unwrap_or(&""));
    let port = lines.get(3).and_then(|port| port.trim().parse().ok());
    let socket = PathBuf::from(lines.get(4).unwrap_or(&""));
    let address = lines.get(5).map_or(String::new(), |address| address.trim().to_owned());
    let ready = lines.get(7).is_some_and(|status| status.trim() == "ready");
    Some(LockFile { pid, data, port, socket, address, ready })
}

/// The lines of the lock file that tell one server from another: process, data folder, start time.
fn identity(data: &Path) -> Option<String> {
    let text = fs::read_to_string(data.join("postmaster.pid")).ok()?;
    let lines: Vec<&str> = text.lines().take(3).collect();
    (lines.len() == 3).then(|| lines.join("\n"))
}

/// Whether a server process of this folder can be seen, or may be there without being seen: the lock file's process is
/// a `postgres` that we may not look at.
pub(super) fn may_be_running(data: &Path) -> bool {
    let hidden = |pid: i32| {
        fs::read_link(format!("/proc/{pid}/cwd")).is_err_and(|error| error.kind() == io::ErrorKind::PermissionDenied)
            && fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name.trim() == "postgres")
    };
    !processes(data).is_empty() || lock_file(data).is_some_and(|noted| hidden(noted.pid))
}

/// Server processes of `data` that can be seen: each has made that folder its working directory.
pub(super) fn processes(data: &Path) -> Vec<i32> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    let works_in = |pid: &i32| fs::read_link(format!("/proc/{pid}/cwd")).is_ok_and(|cwd| cwd == data);
    entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()).filter(works_in).collect()
}

/// Removes lock files of a server that is dead: PostgreSQL takes any process that has got the same number since, or is
/// dead but not reaped, for the old server. The caller holds the start lock and `ServerLock`, which proves that no
/// server lives.
pub(super) fn clear_lock_files(data: &Path, socket: &Path, _proof: &ServerLock) -> io::Result<()> {
    let sockets = fs::read_dir(socket)?.filter_map(|entry| {
        let entry = entry.ok()?;
        entry.file_name().to_str()?.starts_with(".s.PGSQL.").then(|| entry.path())
    });
    for path in sockets.chain([data.join("postmaster.pid")]) {
        match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            Ok(()) | Err(_) => {}
        }
    }
    Ok(())
}

/// The kernel's lock on a file beside the cluster. The server and its children inherit the descriptor, so that the lock
/// is held until the last of them is gone, whoever can see them.
#[derive(Debug)]
pub(super) struct ServerLock {
    file: File,
}

/// What came of asking for the lock.
#[derive(Debug)]
pub(super) enum LockState {
    /// Ours: no server lives that knows of the lock.
    Taken(ServerLock),
    /// A server's.
    Held,
    /// The file system has no such locks.
    Unsupported,
}

impl ServerLock {
    /// Asks for the lock, without waiting.
    pub(super) fn try_take(path: &Path) -> io::Result<LockState> {
        let file = File::options().create(true).truncate(false).read(true).write(true).mode(0o600).open(path)?;
        match file.try_lock() {
            Ok(()) => Ok(LockState::Taken(ServerLock { file })),
            Err(fs::TryLockError::WouldBlock) => Ok(LockState::Held),
            Err(fs::TryLockError::Error(error)) => match error.raw_os_error().map(Errno::from_raw) {
                Some(Errno::ENOLCK | Errno::EOPNOTSUPP | Errno::ENOSYS | Errno::EINVAL) => Ok(LockState::Unsupported),
                _ => Err(error),
            },
        }
    }

    /// Writes down which server holds it. One of an older `sweep`, which knows of no lock, is then told from it.
    pub(super) fn note_holder(&self, data: &Path) -> io::Result<()> {
        let holder = identity(data).unwrap_or_default();
        self.file.set_len(0)?;
        self.file.write_all_at(holder.as_bytes(), 0)
    }

    /// Whether the server that the lock file speaks of held this lock: it is dead then, since the lock is ours.
    pub(super) fn was_held_by_the_last(&self, data: &Path) -> bool {
        let mut holder = vec![0; 8192];
        let length = self.file.read_at(&mut holder, 0).unwrap_or(0);
        identity(data).is_some_and(|last| last.as_bytes() == &holder[..length])
    }

    /// Has the program hold the lock too, and all that it starts.
    #[expect(unsafe_code, reason = "the descriptor is to be inherited by the child alone, so after the fork")]
    pub(super) fn inherit(&self, command: &mut Command) {
        let descriptor = self.file.as_raw_fd();
        // SAFETY: fcntl is async-signal-safe; the descriptor is open as long as `self`, which outlives the fork.
        unsafe {
            command.pre_exec(move || {
                let own = std::os::fd::BorrowedFd::borrow_raw(descriptor);
                fcntl(own, FcntlArg::F_SETFD(FdFlag::empty())).map(drop).map_err(io::Error::from)
            });
        }
    }
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
        assert_eq!((server.port, server.address.as_str()), (Some(5432), ""));
        assert!(!parse("42\n").expect("a lock file is written line by line").ready);
        assert_eq!(parse(""), None);
        assert_eq!(parse("-42\n"), None);
    }

    #[test]
    fn where_a_server_listens_is_told_by_its_own_lock_file_alone() {
        let folder = tempfile::tempdir().expect("a folder");
        let write = |data: &Path, address: &str| {
            let text = format!("42\n{}\n0\n5433\n/s\n{address}\n0 0\nready\n", data.display());
            fs::write(folder.path().join("postmaster.pid"), text).expect("written");
        };
        let address = Some("192.0.2.7:5433".parse().expect("an address"));
        let fits = || [None, address].map(|wanted| listens_as_wanted(folder.path(), wanted));
        assert_eq!(fits(), [true, true], "there is no lock file");
        write(folder.path(), "");
        assert_eq!(fits(), [true, false]);
        write(folder.path(), "192.0.2.7");
        assert_eq!(fits(), [false, true]);
        write(folder.path(), "192.0.2.8");
        assert_eq!(fits(), [false, false]);
        write(folder.path(), "*");
        assert_eq!(fits(), [true, true], "not ours to judge");
        write(Path::new("/another"), "192.0.2.7");
        assert_eq!(fits(), [true, true], "another folder's");
    }

    #[test]
    fn a_process_of_another_folder_is_not_the_server() {
        let folder = tempfile::tempdir().expect("a folder");
        let me = std::process::id();
        fs::write(folder.path().join("postmaster.pid"), format!("{me}\n/p\n0\n5432\n/s\n\n0 0\nready\n"))
            .expect("written");
        assert_eq!(answering(folder.path(), folder.path()), None);
        assert!(!may_be_running(folder.path()));
        let path = folder.path().join("lock");
        let LockState::Taken(lock) = ServerLock::try_take(&path).expect("a lock file") else {
            panic!("nobody holds it")
        };
        clear_lock_files(folder.path(), folder.path(), &lock).expect("removed");
        clear_lock_files(folder.path(), folder.path(), &lock).expect("a second time too");
    }

    #[test]
    fn only_the_server_that_was_noted_is_known_to_be_dead() {
        let folder = tempfile::tempdir().expect("a folder");
        let LockState::Taken(lock) = ServerLock::try_take(&folder.path().join("lock")).expect("a lock file") else {
            panic!("nobody holds it")
        };
        let write = |text: &str| fs::write(folder.path().join("postmaster.pid"), text).expect("written");
        assert!(!lock.was_held_by_the_last(folder.path()), "no server was ever started");
        write("42\n/p/data\n1764000000\n5432\n/s\n\n0 0\nready\n");
        assert!(!lock.was_held_by_the_last(folder.path()), "of an older version");
        lock.note_holder(folder.path()).expect("written");
        write("42\n/p/data\n1764000000\n5432\n/s\n\n0 0\nstopping\n");
        assert!(lock.was_held_by_the_last(folder.path()));
        write("42\n/p/data\n1764000009\n5432\n/s\n\n0 0\nready\n");
        assert!(!lock.was_held_by_the_last(folder.path()), "started later, without the lock");
    }

    /// The socket that a copied lock file names is the original's.
    #[test]
    fn a_lock_file_of_another_folder_leads_nowhere() {
        let (ours, theirs) = (tempfile::tempdir().expect("a folder"), tempfile::tempdir().expect("a folder"));
        let _listener = std::os::unix::net::UnixListener::bind(theirs.path().join(SOCKET_FILE)).expect("bound");
        let write = |data: &Path| {
            let text = format!("42\n{}\n0\n5432\n{}\n\n0 0\nready\n", data.display(), theirs.path().display());
            fs::write(ours.path().join("postmaster.pid"), text).expect("written");
        };
        write(theirs.path());
        assert_eq!(answering(ours.path(), ours.path()), None);
        write(ours.path());
        assert!(answering(ours.path(), ours.path()).is_some());
    }

    #[test]
    fn the_lock_is_held_until_the_last_heir_is_gone() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("lock");
        let LockState::Taken(lock) = ServerLock::try_take(&path).expect("a lock file") else {
            panic!("nobody holds it")
        };
        let mut heir = Command::new("cat");
        lock.inherit(&mut heir);
        let mut heir = heir.stdin(std::process::Stdio::piped()).spawn().expect("cat runs");
        drop(lock);
        assert!(matches!(ServerLock::try_take(&path).expect("a lock file"), LockState::Held));
        drop(heir.stdin.take());
        heir.wait().expect("it ends with its input");
        assert!(matches!(ServerLock::try_take(&path).expect("a lock file"), LockState::Taken(_)));
    }
}
