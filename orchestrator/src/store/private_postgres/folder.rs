//! Where the cluster lives and whose it is. Run by root, the server gets a user of its own, and all that this user
//! needs to reach is put where it can.

use std::fs::{self, File, Metadata, Permissions};
use std::io::{self, Write as _};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, symlink};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::unistd::{Gid, Uid, User, chown, getegid, geteuid};
use sha2::{Digest, Sha256};

use super::access::hex;
use super::{PrivatePostgresError, io_error};

/// Longest path of a Unix socket, without the closing zero.
const SOCKET_PATH_MAX: usize = 107;

/// The user that the server runs as.
#[derive(Debug, Clone)]
pub(super) struct ServerUser {
    uid: Uid,
    gid: Gid,
    pub(super) name: String,
}

/// A cluster and its place.
#[derive(Debug, Clone)]
pub(super) struct Cluster {
    /// Links resolved.
    pub(super) folder: PathBuf,
    /// The project's folder of all state, by the path that clients use.
    pub(super) home: PathBuf,
    pub(super) user: ServerUser,
}

impl ServerUser {
    fn of(uid: Uid) -> ServerUser {
        if let Some(user) = User::from_uid(uid).ok().flatten() {
            return ServerUser { uid, gid: user.gid, name: user.name };
        }
        // A container may run as a number that has no name.
        let gid = if uid == geteuid() { getegid() } else { Gid::from_raw(uid.as_raw()) };
        ServerUser { uid, gid, name: uid.to_string() }
    }

    /// The caller; for root, `postgres` or `nobody`.
    fn new() -> Result<ServerUser, PrivatePostgresError> {
        if !geteuid().is_root() {
            return Ok(ServerUser::of(geteuid()));
        }
        ["postgres", "nobody"]
            .iter()
            .find_map(|name| User::from_name(name).ok().flatten())
            .map(|user| ServerUser { uid: user.uid, gid: user.gid, name: user.name })
            .ok_or(PrivatePostgresError::NoUser)
    }

    /// Root's extra groups are dropped with its user.
    pub(super) fn become_in(&self, command: &mut Command) {
        if self.uid != geteuid() {
            command.uid(self.uid.as_raw()).gid(self.gid.as_raw());
        }
    }

    /// Gives a file to this user.
    pub(super) fn own(&self, path: &Path) -> Result<(), PrivatePostgresError> {
        if self.uid == geteuid() {
            return Ok(());
        }
        chown(path, Some(self.uid), Some(self.gid)).map_err(|errno| io_error("give away", path)(errno.into()))
    }

    /// Whether this user can read and enter `path` and every folder on the way to it.
    pub(super) fn reaches(&self, path: &Path) -> bool {
        let Ok(path) = path.canonicalize() else { return false };
        path.ancestors().all(|ancestor| ancestor.metadata().is_ok_and(|metadata| self.may_enter(&metadata)))
    }

    fn may_enter(&self, metadata: &Metadata) -> bool {
        let mode = metadata.mode();
        if self.uid.is_root() || metadata.uid() == self.uid.as_raw() {
            mode & 0o100 != 0
        } else if metadata.gid() == self.gid.as_raw() {
            mode & 0o010 != 0
        } else {
            mode & 0o001 != 0
        }
    }
}

/// Whether the name of a folder of state can be written where it has to be: in lines, as text.
pub fn check_name(home: &Path) -> Result<(), PrivatePostgresError> {
    let plain = home.to_str().is_some_and(|name| !name.chars().any(char::is_control));
    if plain { Ok(()) } else { Err(PrivatePostgresError::FolderName { folder: home.to_owned() }) }
}

impl Cluster {
    /// The cluster of `home`, if one was ever placed.
    pub(super) fn find(home: &Path) -> Result<Option<Cluster>, PrivatePostgresError> {
        check_name(home)?;
        let Ok(folder) = home.join("postgres").canonicalize() else { return Ok(None) };
        let user = match folder.join("data").metadata() {
            // Root runs the server of whoever made the cluster.
            Ok(data) if geteuid().is_root() => ServerUser::of(Uid::from_raw(data.uid())),
            Ok(data) if data.uid() != geteuid().as_raw() => {
                let owner = folder.metadata().map_or(data.uid(), |metadata| metadata.uid());
                return Err(PrivatePostgresError::NotOurs {
                    folder,
                    owner: user_name(owner),
                    user: user_name(geteuid().as_raw()),
                });
            }
            _ => ServerUser::new()?,
        };
        Ok(Some(Cluster { folder, home: home.to_owned(), user }))
    }

    /// The cluster of `home`; its folder is made where there is none. The caller holds the start lock.
    pub(super) fn find_or_place(home: &Path) -> Result<Cluster, PrivatePostgresError> {
        if let Some(cluster) = Cluster::find(home)? {
            return Ok(cluster);
        }
        let user = ServerUser::new()?;
        let place = home.join("postgres");
        if place.is_symlink() {
            fs::remove_file(&place).map_err(io_error("remove the dangling link", &place))?;
        }
        if user.reaches(home) {
            make_folder(&place, 0o755)?;
        } else {
            let elsewhere = place_elsewhere(home)?;
            symlink(&elsewhere, &place).map_err(io_error("link", &place))?;
        }
        let folder = place.canonicalize().map_err(io_error("find", &place))?;
        Ok(Cluster { folder, home: home.to_owned(), user })
    }

    pub(super) fn data(&self) -> PathBuf {
        self.folder.join("data")
    }

    pub(super) fn password_file(&self) -> PathBuf {
        self.folder.join("password")
    }

    /// Password of [`super::READER`]; where there is none, the cluster has no such role yet.
    pub(super) fn reader_password_file(&self) -> PathBuf {
        self.folder.join("password.reader")
    }

    /// Password of [`super::ADMIN`].
    pub(super) fn admin_password_file(&self) -> PathBuf {
        self.folder.join("password.admin")
    }

    pub(super) fn log_file(&self) -> PathBuf {
        self.folder.join("server.log")
    }

    /// Major version that made the cluster.
    pub(super) fn version(&self) -> Option<String> {
        fs::read_to_string(self.data().join("PG_VERSION")).ok().map(|text| text.trim().to_owned())
    }

    /// An empty folder that only the server's user (and root) can enter.
    pub(super) fn make_private_folder(&self, path: &Path) -> Result<(), PrivatePostgresError> {
        make_folder(path, 0o700)?;
        self.user.own(path)
    }

    /// The server appends to its log as its own user.
    pub(super) fn make_log(&self) -> Result<(), PrivatePostgresError> {
        let path = self.log_file();
        File::options().create(true).append(true).mode(0o600).open(&path).map_err(io_error("open", &path))?;
        self.user.own(&path)
    }

    /// A line of ours among the server's.
    pub(super) fn log(&self, line: &str) -> Result<(), PrivatePostgresError> {
        let path = self.log_file();
        File::options()
            .append(true)
            .open(&path)
            .and_then(|mut file| writeln!(file, "{line}"))
            .map_err(io_error("write", &path))
    }

    /// A file that the server's user may read, for as long as a program needs it.
    pub(super) fn lend_file(&self, name: &str, text: &str) -> Result<PathBuf, PrivatePostgresError> {
        let path = self.folder.join(name);
        File::options()
            .create(true)
            .truncate(true)
            .write(true)
            .mode(0o600)
            .open(&path)
            .and_then(|mut file| file.write_all(text.as_bytes()))
            .map_err(io_error("write", &path))?;
        self.user.own(&path)?;
        Ok(path)
    }

    /// Held by a server for its lifetime.
    pub(super) fn server_lock_file(&self) -> PathBuf {
        self.folder.join("server.lock")
    }

    /// Where the socket goes: a path that fits.
    pub(super) fn socket_folder(&self) -> PathBuf {
        let inside = self.folder.join("socket");
        if is_plain(&inside) && inside.as_os_str().len() + "/.s.PGSQL.65535".len() <= SOCKET_PATH_MAX {
            inside
        } else {
            PathBuf::from(format!("/tmp/sweep-{}-{}", self.user.uid, short_hash(&self.folder)))
        }
    }

    /// The same as a folder that only the server's user (and root) can enter.
    pub(super) fn make_socket_folder(&self) -> Result<PathBuf, PrivatePostgresError> {
        let path = self.socket_folder();
        match path.symlink_metadata() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => self.make_private_folder(&path)?,
            Err(error) => return Err(io_error("look at", &path)(error)),
            // In /tmp anybody may have put something there.
            Ok(found) if found.is_dir() && found.uid() == self.user.uid.as_raw() && found.mode() & 0o777 == 0o700 => {}
            Ok(_) => return Err(PrivatePostgresError::SocketFolder { folder: path, owner: self.user.name.clone() }),
        }
        Ok(path)
    }
}

/// Root's private folders are closed to the server's user: the cluster then goes to a folder named after the project's.
/// One that exists already was left by a `.sweep` since removed, and is not touched.
fn place_elsewhere(home: &Path) -> Result<PathBuf, PrivatePostgresError> {
    let shared = Path::new("/var/lib/sweep");
    let base = match make_folder(shared, 0o755) {
        Ok(()) => shared.to_owned(),
        Err(_) => PathBuf::from("/var/tmp"),
    };
    let name = format!("sweep-{}", short_hash(home));
    for number in 1_u32.. {
        let path = base.join(if number == 1 { name.clone() } else { format!("{name}-{number}") });
        match fs::create_dir(&path) {
            Ok(()) => {
                fs::set_permissions(&path, Permissions::from_mode(0o755)).map_err(io_error("open up", &path))?;
                return Ok(path);
            }
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(io_error("make the folder", &path)(error)),
        }
    }
    unreachable!("some number is free")
}

fn make_folder(path: &Path, mode: u32) -> Result<(), PrivatePostgresError> {
    match fs::create_dir(path) {
        // Said outright: the umask may have taken bits away.
        Ok(()) => fs::set_permissions(path, Permissions::from_mode(mode)).map_err(io_error("set the mode of", path)),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => Ok(()),
        Err(error) => Err(io_error("make the folder", path)(error)),
    }
}

/// Safe to hand to a shell and to a list in PostgreSQL's settings.
fn is_plain(path: &Path) -> bool {
    path.to_str().is_some_and(|text| text.chars().all(|c| c.is_ascii_alphanumeric() || "/._-".contains(c)))
}

fn short_hash(path: &Path) -> String {
    hex(&Sha256::digest(path.as_os_str().as_encoded_bytes())[..6])
}

fn user_name(uid: u32) -> String {
    User::from_uid(Uid::from_raw(uid)).ok().flatten().map_or_else(|| uid.to_string(), |user| user.name)
}
