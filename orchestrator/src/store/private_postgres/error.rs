//! What can go wrong with the private cluster, and the way out.

use std::io;
use std::net::SocketAddrV4;
use std::path::PathBuf;
use std::process::ExitStatus;

/// What can go wrong with the private cluster.
#[derive(Debug, thiserror::Error)]
pub enum PrivatePostgresError {
    /// Nothing to run.
    #[error("no PostgreSQL server programs found (`initdb`, `postgres` and `pg_ctl` in one folder)")]
    NoBinaries,
    /// `SWEEP_PG_BIN` is wrong.
    #[error("SWEEP_PG_BIN is {}, where there is no `{missing}` that runs", folder.display())]
    BadBinaries {
        /// Its value.
        folder: PathBuf,
        /// The first program that is not there.
        missing: &'static str,
    },
    /// There are programs, but not for the server's user.
    #[error("user {user}, who is to run the server, can't reach its programs in {}", folder.display())]
    OutOfReach {
        /// Where they are.
        folder: PathBuf,
        /// Who can't.
        user: String,
    },
    /// The cluster was made by another major version.
    #[error("the private database in {} is of PostgreSQL {cluster}; the programs found are of {found}", data.display())]
    Version {
        /// The cluster's data folder.
        data: PathBuf,
        /// Major version that made it.
        cluster: String,
        /// Versions found.
        found: String,
    },
    /// Someone else's cluster.
    #[error("the private database in {} belongs to user {owner}, and this is user {user}", folder.display())]
    NotOurs {
        /// Its folder.
        folder: PathBuf,
        /// Its owner.
        owner: String,
        /// Who is asking.
        user: String,
    },
    /// Root needs another user to run the server as.
    #[error("PostgreSQL refuses to run as root, and there is neither a user `postgres` nor `nobody` to run it as")]
    NoUser,
    /// A name that no line of text can hold, as those of PostgreSQL's lock file and of batch scripts.
    #[error("{folder:?} can't hold the state of sweeps: its name has a control character, or is not UTF-8")]
    FolderName {
        /// The folder.
        folder: PathBuf,
    },
    /// The short folder for the socket is not safe to use.
    #[error("can't use {} for the socket: it exists and is not a folder of mode 0700 owned by user {owner}", folder.display())]
    SocketFolder {
        /// The folder.
        folder: PathBuf,
        /// Who should own it.
        owner: String,
    },
    /// A file operation failed.
    #[error("can't {doing} {}", path.display())]
    Io {
        /// What was being done.
        doing: &'static str,
        /// To what.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A server program failed.
    #[error("`{program}` failed ({status})")]
    Program {
        /// Which.
        program: &'static str,
        /// Exit status.
        status: ExitStatus,
        /// The end of what it, or the server's log, said.
        #[source]
        said: Said,
    },
    /// A server that holds the lock and can't be reached.
    #[error("a server of the private database in {} is running, but does not answer on its socket here", folder.display())]
    Elsewhere {
        /// The cluster's folder.
        folder: PathBuf,
    },
    /// A server that can't be signalled.
    #[error("the server of the private database in {} runs in another process namespace (a container?)", folder.display())]
    OtherNamespace {
        /// The cluster's folder.
        folder: PathBuf,
    },
    /// Users' queries need the role `sweep_reader`, which clusters of older versions get when they are started anew.
    #[error("the private database in {} was started by an older `sweep` and has no role for queries yet", folder.display())]
    NoReader {
        /// The cluster's folder.
        folder: PathBuf,
    },
    /// Passwords and results are not sent over a network in the clear.
    #[error("the PostgreSQL {version} in {} was built without TLS, so it listens for no other machine", programs.display())]
    NoTls {
        /// Folder of the programs.
        programs: PathBuf,
        /// Their version.
        version: String,
        /// Major version of the cluster, where there is one.
        cluster: Option<String>,
    },
    /// In clusters of older versions the role of the workers is a superuser.
    #[error(
        "the private database in {} was made by an older `sweep`, where whoever has its password may run programs: \
         it listens for no other machine",
        folder.display()
    )]
    PowerfulOwner {
        /// The cluster's folder.
        folder: PathBuf,
    },
    /// The address is not this machine's, or taken.
    #[error("the private database can't listen on {address}")]
    CannotListen {
        /// Where.
        address: SocketAddrV4,
        /// Why.
        source: io::Error,
    },
    /// The record of where to listen is not as it was written.
    #[error("{} does not say where the private database is to listen", path.display())]
    BadRecord {
        /// The record.
        path: PathBuf,
    },
    /// Nothing to make a certificate with.
    #[error("can't run `openssl`, which makes the certificate of a database that listens")]
    NoOpenssl {
        /// Why.
        source: io::Error,
    },
    /// A server that neither answers nor goes.
    #[error("the private database in {} did not {what} within {secs} s", data.display())]
    Stuck {
        /// The cluster's data folder.
        data: PathBuf,
        /// What it was to do.
        what: &'static str,
        /// How long it was waited for.
        secs: u64,
    },
}

/// What a program wrote before it failed.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Said(pub(super) String);

impl PrivatePostgresError {
    /// The way out.
    pub fn hint(&self) -> Option<String> {
        let text = match self {
            Self::NoBinaries => "install PostgreSQL (`apt-get install postgresql`, or `make setup`; `sweep setup` where `sweep` was unpacked), \
                                 set SWEEP_PG_BIN to the folder of its programs, or set DATABASE_URL to a database of yours"
                .to_owned(),
            Self::BadBinaries { .. } => {
                "set it to a folder that holds `initdb`, `postgres` and `pg_ctl`, or unset it to search for one".to_owned()
            }
            Self::OutOfReach { folder, .. } => {
                format!("open {} to everybody, or set SWEEP_PG_BIN to a copy elsewhere", folder.display())
            }
            Self::Version { cluster, .. } => {
                format!("set SWEEP_PG_BIN to the programs of PostgreSQL {cluster}, or move `.sweep/postgres` away to start afresh")
            }
            Self::NotOurs { owner, .. } => {
                format!("run as {owner}, or set SWEEP_HOME to a folder of your own, or DATABASE_URL to a shared database")
            }
            Self::NoUser => "add a user `postgres`, or set DATABASE_URL to a database of yours".to_owned(),
            Self::FolderName { .. } => "rename the folder, or set SWEEP_HOME to another one".to_owned(),
            Self::SocketFolder { folder, .. } => format!("remove {}", folder.display()),
            Self::Io { source, .. } if source.kind() == io::ErrorKind::PermissionDenied => {
                "set SWEEP_HOME to a folder that you may write to, or DATABASE_URL to a database of yours".to_owned()
            }
            Self::Io { source, .. } if source.kind() == io::ErrorKind::StorageFull => "make room on the disk".to_owned(),
            Self::Io { .. } => return None,
            Self::Program { program: "openssl req", .. } => "OpenSSL 1.1 or newer has to be first on PATH".to_owned(),
            Self::Program { .. } => "see `.sweep/postgres/server.log`; `sweep doctor` checks what a sweep needs".to_owned(),
            Self::Elsewhere { .. } => {
                "it may run in a container or on a machine that shares this folder: use it from there, or stop it there; \
                 or a process of a killed server is left that can't be seen from here: end that"
                    .to_owned()
            }
            Self::OtherNamespace { .. } => "stop it where it was started: `sweep db stop` there".to_owned(),
            Self::NoReader { .. } => "`sweep db stop`, then the same again; workers wait for it".to_owned(),
            Self::NoTls { cluster: Some(cluster), .. } => format!(
                "only PostgreSQL {cluster} opens this database: set SWEEP_PG_BIN to the programs of one that was built with OpenSSL; \
                 or start afresh with Debian's (`apt-get install postgresql`): `sweep db stop`, and move `.sweep/postgres` away"
            ),
            Self::NoTls { cluster: None, .. } => {
                "`apt-get install postgresql`, or set SWEEP_PG_BIN to the programs of one that was built with OpenSSL".to_owned()
            }
            Self::PowerfulOwner { .. } => {
                "start afresh: `sweep db stop`, and move `.sweep/postgres` away; or use a database of yours in DATABASE_URL".to_owned()
            }
            Self::CannotListen { source, .. } => match source.kind() {
                io::ErrorKind::AddrInUse => "something else listens there: `sweep db start --listen ADDRESS:PORT` names \
                                             another port, `sweep db start --no-listen` leaves it"
                    .to_owned(),
                _ => "use it from the machine that has this address, or `sweep db start --listen ADDRESS` with one of this \
                      machine's (`ip -4 address`); `sweep db start --no-listen`: for this machine alone"
                    .to_owned(),
            },
            Self::BadRecord { .. } => {
                "`sweep db start --no-listen`, then `sweep db start --listen ADDRESS` again".to_owned()
            }
            Self::NoOpenssl { .. } => "`apt-get install openssl`".to_owned(),
            Self::Stuck { data, .. } => format!("see `.sweep/postgres/server.log` and the processes of {}", data.display()),
        };
        Some(text)
    }
}
