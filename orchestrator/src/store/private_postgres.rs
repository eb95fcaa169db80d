//! The embedded default: a PostgreSQL cluster that belongs to one project, lives under `.sweep/postgres`, listens on a
//! Unix socket, unless it is told to listen for other machines too, and is started on demand. It outlives the program
//! that started it. Knows nothing of the schema.
//!
//! ```text
//! .sweep/postgres.lock       held while one process creates, starts or stops the cluster
//! .sweep/postgres.crt        the server's certificate, for clients on other machines
//! .sweep/postgres/           a folder, or a link where the server's user can't enter the project
//!     password               of the role `sweep`, which owns the database (mode 0600, the caller's)
//!     password.reader        of `sweep_reader`, as which users' queries run; password.admin: of the superuser
//!     server.lock            locked by the server for its lifetime; says which one that was
//!     data/                  the cluster (the server's user)
//!     socket/                its socket, unless the path is too long for one: then /tmp/sweep-UID-HASH/
//!     server.log             what the server says
//!     listen                 the address for other machines and the name of the folder with key and certificate
//!     pg_hba.conf            who may come in, where it listens
//!     tls-ID/                the key (the server's user's) and the certificate of that address
//!     server/                a copy of the server programs, where the server's user can't enter their folder
//! ```

mod access;
mod binaries;
mod error;
mod folder;
mod listen;
mod postmaster;
mod roles;

use std::fs::{self, File};
use std::io;
use std::net::SocketAddrV4;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

pub use access::Access;
pub use binaries::{Binaries, find as find_binaries};
pub use error::{PrivatePostgresError, Said};
pub use listen::{ListenAddress, listen, listen_no_more};

use folder::Cluster;
pub use folder::check_name;
use postmaster::{LockState, ServerLock};

/// Name of the database and of the role that owns it.
pub(crate) const NAME: &str = "sweep";
/// Role of users' queries: it may read our tables and views, and nothing else.
const READER: &str = "sweep_reader";
/// The superuser, for setting the cluster up. In clusters of older versions that is `sweep`.
const ADMIN: &str = "sweep_admin";

/// How long a server may take to come up: crash recovery replays at most `max_wal_size`.
const START_LIMIT: Duration = Duration::from_mins(5);
/// How long a server, or what a killed one left behind, may take to go away.
const STOP_LIMIT: Duration = Duration::from_mins(1);
/// How long a server that can't be seen, but holds the lock, may take to answer.
const UNSEEN_LIMIT: Duration = Duration::from_secs(30);
/// Between looks at a process that is not our child, so that there is nothing to wait on.
const POLL: Duration = Duration::from_millis(20);

/// Given on the command line, not written to `postgresql.conf`: an older cluster gets the settings of a newer `sweep`.
const SETTINGS: &[&str] = &[
    "listen_addresses=",
    "max_connections=200",
    "shared_buffers=64MB",
    "max_wal_size=512MB",
    "jit=off",
    "timezone=UTC",
    "log_timezone=UTC",
];

/// What `sweep db status` shows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Status {
    /// The cluster's folder; `None`: not made yet.
    pub folder: Option<PathBuf>,
    /// Whether a server answers.
    pub up: bool,
    /// Its process id; `None` also where it runs in another process namespace.
    pub pid: Option<i32>,
    /// Folder of its socket.
    pub socket: Option<PathBuf>,
    /// Where it is to listen for other machines.
    pub listen: Option<SocketAddrV4>,
    /// The user that the server runs as.
    pub user: Option<String>,
    /// Major version of the cluster.
    pub version: Option<String>,
}

/// How to reach the cluster of `home`, which is made and started if need be. Fast when it is up; safe when many ask at
/// once.
pub fn ensure_running(home: &Path) -> Result<Access, PrivatePostgresError> {
    if let Some(cluster) = Cluster::find(home)?
        && let Some(access) = reach(&cluster)?
        && listen::is_as_recorded(&cluster)?
    {
        return Ok(access);
    }
    let _lock = lock(home)?;
    bring_up(&Cluster::find_or_place(home)?)
}

/// A server that is up and listens where it is to. The caller holds the start lock.
fn bring_up(cluster: &Cluster) -> Result<Access, PrivatePostgresError> {
    if let Some(access) = reach(cluster)? {
        if listen::is_as_recorded(cluster)? {
            return Ok(access);
        }
        listen::check(cluster, &binaries::for_cluster(cluster)?)?;
        end(cluster)?;
    }
    start(cluster)?;
    reach(cluster)?.ok_or_else(|| stuck(cluster, "answer", START_LIMIT))
}

/// As [`ensure_running`] where there is a cluster; makes none.
pub fn ensure_existing(home: &Path) -> Result<Option<Access>, PrivatePostgresError> {
    match Cluster::find(home)? {
        Some(cluster) if cluster.data().exists() => ensure_running(home).map(Some),
        _ => Ok(None),
    }
}

/// How to reach the cluster of `home` if it is up; starts nothing.
pub fn running(home: &Path) -> Result<Option<Access>, PrivatePostgresError> {
    match Cluster::find(home)? {
        Some(cluster) => reach(&cluster),
        None => Ok(None),
    }
}

/// What there is.
pub fn status(home: &Path) -> Result<Status, PrivatePostgresError> {
    let Some(cluster) = Cluster::find(home)? else {
        return Ok(Status {
            folder: None,
            up: false,
            pid: None,
            socket: None,
            listen: None,
            user: None,
            version: None,
        });
    };
    let server = postmaster::answering(&cluster.data(), &cluster.socket_folder());
    Ok(Status {
        version: cluster.version(),
        user: Some(cluster.user.name.clone()),
        up: server.is_some(),
        pid: server.as_ref().and_then(|server| server.pid),
        socket: server.map(|server| server.socket),
        listen: listen::recorded(&cluster.folder)?.map(|listen| listen.address),
        folder: Some(cluster.folder),
    })
}

/// Stops the server: open connections end, transactions under way are rolled back. `false`: it was not running.
pub fn stop(home: &Path) -> Result<bool, PrivatePostgresError> {
    if Cluster::find(home)?.is_none() {
        return Ok(false);
    }
    let _lock = lock(home)?;
    match Cluster::find(home)? {
        Some(cluster) => end(&cluster),
        None => Ok(false),
    }
}

/// As [`stop`]. The caller holds the start lock.
fn end(cluster: &Cluster) -> Result<bool, PrivatePostgresError> {
    let data = cluster.data();
    // One that starts up, or waits for its clients before it ends, answers nobody.
    let server = postmaster::answering(&data, &cluster.socket_folder()).or_else(|| postmaster::silent(&data));
    match server {
        // SIGINT is PostgreSQL's "fast" shutdown.
        Some(server) if !server.signal(nix::sys::signal::Signal::SIGINT) => {
            return Err(PrivatePostgresError::OtherNamespace { folder: cluster.folder.clone() });
        }
        None if postmaster::processes(&data).is_empty() => {
            return if is_held(cluster)? {
                Err(PrivatePostgresError::Elsewhere { folder: cluster.folder.clone() })
            } else {
                Ok(false)
            };
        }
        // Without a server: children of a killed one, which end when they notice.
        Some(_) | None => {}
    }
    let deadline = Instant::now() + STOP_LIMIT;
    while is_held(cluster)?
        || !postmaster::processes(&data).is_empty()
        || postmaster::answering(&data, &cluster.socket_folder()).is_some()
    {
        if Instant::now() > deadline {
            return Err(stuck(cluster, "stop", STOP_LIMIT));
        }
        std::thread::sleep(POLL);
    }
    Ok(true)
}

/// Whether a server holds the lock.
fn is_held(cluster: &Cluster) -> Result<bool, PrivatePostgresError> {
    let path = cluster.server_lock_file();
    let state = ServerLock::try_take(&path).map_err(io_error("lock", &path))?;
    Ok(matches!(state, LockState::Held))
}

fn reach(cluster: &Cluster) -> Result<Option<Access>, PrivatePostgresError> {
    match postmaster::answering(&cluster.data(), &cluster.socket_folder()) {
        Some(server) => Access::new(cluster, server.socket).map(Some),
        None => Ok(None),
    }
}

/// One process at a time creates, starts or stops. The kernel lets go of the lock when its holder dies.
fn lock(home: &Path) -> Result<File, PrivatePostgresError> {
    let path = home.join("postgres.lock");
    fs::create_dir_all(home).map_err(io_error("make the folder", home))?;
    let file = File::options().create(true).truncate(false).write(true).open(&path).map_err(io_error("open", &path))?;
    file.lock().map_err(io_error("lock", &path))?;
    Ok(file)
}

fn start(cluster: &Cluster) -> Result<(), PrivatePostgresError> {
    let binaries = binaries::for_cluster(cluster)?;
    let Turn::Start(server_lock) = wait_for_the_last(cluster)? else { return Ok(()) };
    listen::check(cluster, &binaries)?;
    let programs = Programs { cluster, binaries, lock: server_lock.as_ref() };
    if !cluster.data().exists() {
        create(&programs)?;
    }
    let socket = cluster.make_socket_folder()?;
    if let Some(lock) = &server_lock {
        postmaster::clear_lock_files(&cluster.data(), &socket, lock)
            .map_err(io_error("clear the lock files of", &cluster.data()))?;
    }
    if !cluster.reader_password_file().exists() {
        roles::add_reader(&programs, "data")?;
    }
    cluster.make_log()?;
    if server_lock.is_none() {
        // Its end is shown when the server does not start.
        cluster.log(
            "sweep: no file locks (flock) on this file system: a stale postmaster.pid has to be removed by hand",
        )?;
    }
    let mut options = format!("-k {}", socket.display());
    // What comes last holds.
    for setting in SETTINGS.iter().map(|&setting| setting.to_owned()).chain(listen::prepare(cluster, &socket)?) {
        options.push_str(" -c ");
        options.push_str(&setting);
    }
    // `pg_ctl` puts the server into a session of its own, so that Ctrl-C here does not reach it, and waits until it
    // accepts connections. Paths are relative because it hands them to a shell.
    let mut command = programs.command("pg_ctl");
    command.args(["start", "--wait", "--silent", "--pgdata=data", "--log=server.log"]);
    command.arg(format!("--timeout={}", START_LIMIT.as_secs())).arg("-o").arg(options);
    let output = programs.output("pg_ctl", command.stdin(Stdio::null()))?;
    if output.status.success() {
        if let Some(lock) = &server_lock {
            // The server is up; without the note a later start is only more careful.
            let _ = lock.note_holder(&cluster.data());
        }
        return Ok(());
    }
    Err(PrivatePostgresError::Program {
        program: "pg_ctl start",
        status: output.status,
        said: Said(tail(&fs::read_to_string(cluster.log_file()).unwrap_or_default())),
    })
}

/// Whether there is something to start.
enum Turn {
    /// A server is up.
    IsUp,
    /// There is none; the lock is ours, where the file system has locks.
    Start(Option<ServerLock>),
}

/// Waits for what a killed server left behind (its children need a moment to notice) or for one that somebody else is
/// starting.
fn wait_for_the_last(cluster: &Cluster) -> Result<Turn, PrivatePostgresError> {
    let (data, path) = (cluster.data(), cluster.server_lock_file());
    let begun = Instant::now();
    loop {
        if postmaster::answering(&data, &cluster.socket_folder()).is_some() {
            return Ok(Turn::IsUp);
        }
        let state = ServerLock::try_take(&path).map_err(io_error("lock", &path))?;
        // Of a version that knew no lock, or where there are none: as far as can be seen.
        let seen = postmaster::may_be_running(&data);
        match state {
            // Whatever runs under its number now, or works in its folder, is not it.
            LockState::Taken(lock) if lock.was_held_by_the_last(&data) => return Ok(Turn::Start(Some(lock))),
            LockState::Taken(lock) if !seen => return Ok(Turn::Start(Some(lock))),
            // PostgreSQL's own lock file has to do; it is never removed.
            LockState::Unsupported if !seen => return Ok(Turn::Start(None)),
            LockState::Held if !seen && begun.elapsed() > UNSEEN_LIMIT => {
                return Err(PrivatePostgresError::Elsewhere { folder: cluster.folder.clone() });
            }
            _ => {}
        }
        if begun.elapsed() > START_LIMIT {
            return Err(stuck(cluster, "answer", START_LIMIT));
        }
        std::thread::sleep(POLL);
    }
}

/// Makes the cluster beside its place and moves it there when it is whole: a killed `initdb` leaves nothing half done.
fn create(programs: &Programs<'_>) -> Result<(), PrivatePostgresError> {
    let cluster = programs.cluster;
    let password = access::make_password(&cluster.admin_password_file())?;
    let new = cluster.folder.join("data.new");
    if new.exists() {
        fs::remove_dir_all(&new).map_err(io_error("remove", &new))?;
    }
    cluster.make_private_folder(&new)?;
    let password_copy = cluster.lend_file("password.initdb", &password)?;
    let mut initdb = programs.command("initdb");
    initdb
        .args(["--pgdata=data.new", "--auth=scram-sha-256", "--encoding=UTF8", "--locale=C"])
        .arg(format!("--username={ADMIN}"))
        .arg("--pwfile=password.initdb")
        .stdin(Stdio::null());
    let initdb = programs.output("initdb", &mut initdb);
    fs::remove_file(&password_copy).map_err(io_error("remove", &password_copy))?;
    check("initdb", &initdb?)?;
    roles::add_owner(programs, "data.new")?;
    roles::add_reader(programs, "data.new")?;
    let data = cluster.data();
    fs::rename(&new, &data).map_err(io_error("rename", &new))
}

/// What runs server programs on a cluster.
struct Programs<'a> {
    cluster: &'a Cluster,
    binaries: Binaries,
    /// Inherited by each of them: when `sweep` is killed, what it started works on.
    lock: Option<&'a ServerLock>,
}

impl Programs<'_> {
    /// A server program as the server's user, in the cluster's folder, without what the caller's environment says of
    /// databases.
    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(self.binaries.program(program));
        command.current_dir(&self.cluster.folder).env_clear().env("LC_ALL", "C");
        for name in ["PATH", "LD_LIBRARY_PATH", "TZDIR"] {
            if let Some(value) = std::env::var_os(name) {
                command.env(name, value);
            }
        }
        self.cluster.user.become_in(&mut command);
        if let Some(lock) = self.lock {
            lock.inherit(&mut command);
        }
        command
    }

    fn output(&self, program: &str, command: &mut Command) -> Result<Output, PrivatePostgresError> {
        command.output().map_err(io_error("run", &self.binaries.program(program)))
    }
}

/// `postgres --single` ends with 0 whatever happened to the statement.
fn check(program: &'static str, output: &Output) -> Result<(), PrivatePostgresError> {
    let said = [&output.stdout[..], &output.stderr[..]].concat();
    let said = String::from_utf8_lossy(&said);
    if output.status.success() && !said.contains("ERROR:") && !said.contains("FATAL:") {
        return Ok(());
    }
    Err(PrivatePostgresError::Program { program, status: output.status, said: Said(tail(&said)) })
}

fn tail(text: &str) -> String {
    let lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
    lines[lines.len().saturating_sub(8)..].join("\n")
}

fn stuck(cluster: &Cluster, what: &'static str, limit: Duration) -> PrivatePostgresError {
    PrivatePostgresError::Stuck { data: cluster.data(), what, secs: limit.as_secs() }
}

fn io_error(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> PrivatePostgresError {
    let path = path.to_owned();
    move |source| PrivatePostgresError::Io { doing, path, source }
}
