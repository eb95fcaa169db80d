//! How a client reaches the private cluster. The password is in no command line, log or `Debug` output.

use std::fmt::{self, Write as _};
use std::fs::{self, File, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use sqlx::postgres::{PgConnectOptions, PgSslMode};

use super::folder::Cluster;
use super::{NAME, PrivatePostgresError, READER, io_error, listen};

/// Socket and passwords of a server that is up.
#[derive(Clone)]
pub struct Access {
    /// Folder of the socket.
    pub socket: PathBuf,
    folder: PathBuf,
    home: PathBuf,
    password: String,
    reader_password: Option<String>,
}

impl fmt::Debug for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Access").field("socket", &self.socket).finish_non_exhaustive()
    }
}

impl Access {
    /// How to reach the cluster of `home` where it usually listens, without asking whether it does: a connection tells.
    /// `None`: it does not listen there.
    pub fn usual(home: &Path) -> Option<Access> {
        let cluster = Cluster::find(home).ok()??;
        let socket = cluster.socket_folder();
        if socket.join(".s.PGSQL.5432").exists() { Access::new(&cluster, socket).ok() } else { None }
    }

    pub(super) fn new(cluster: &Cluster, socket: PathBuf) -> Result<Access, PrivatePostgresError> {
        let read = |path: &Path| fs::read_to_string(path).map(|password| password.trim_end().to_owned());
        let (owner, reader) = (cluster.password_file(), cluster.reader_password_file());
        let reader_password = match read(&reader) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(io_error("read", &reader)(error)),
            found => found.ok(),
        };
        let password = read(&owner).map_err(io_error("read", &owner))?;
        Ok(Access { socket, folder: cluster.folder.clone(), home: cluster.home.clone(), password, reader_password })
    }

    /// For sqlx, as the owner of the database. What `PGHOST` and its like say is not used.
    pub fn options(&self) -> PgConnectOptions {
        self.options_of(NAME, &self.password)
    }

    /// For sqlx, as the role of users' queries.
    pub fn reader_options(&self) -> Result<PgConnectOptions, PrivatePostgresError> {
        Ok(self.options_of(READER, self.reader_password()?))
    }

    fn reader_password(&self) -> Result<&str, PrivatePostgresError> {
        let missing = || PrivatePostgresError::NoReader { folder: self.folder.clone() };
        self.reader_password.as_deref().ok_or_else(missing)
    }

    fn options_of(&self, user: &str, password: &str) -> PgConnectOptions {
        PgConnectOptions::new_without_pgpass()
            .socket(&self.socket)
            .port(5432)
            .username(user)
            .password(password)
            .database(NAME)
            .ssl_mode(PgSslMode::Disable)
    }

    /// For `psql`, `psycopg` and other clients of libpq, as the owner. It holds the password.
    pub fn url(&self) -> String {
        let mut url = url::Url::parse(&format!("postgresql:///{NAME}")).expect("a constant URL parses");
        url.query_pairs_mut()
            .append_pair("host", &self.socket.to_string_lossy())
            .append_pair("user", NAME)
            .append_pair("password", &self.password);
        plain_spaces(url)
    }

    /// For workers on other machines, as the owner, where the server listens for them. It holds the password. They know
    /// the server by its certificate alone, which lies in the project's folder.
    pub fn node_url(&self) -> Result<Option<String>, PrivatePostgresError> {
        let Some(listen) = listen::recorded(&self.folder)? else { return Ok(None) };
        let mut url = url::Url::parse(&format!("postgres://{NAME}@{}/{NAME}", listen.address)).expect("it parses");
        // 64 hexadecimal digits: only a URL without a host refuses.
        let _ = url.set_password(Some(&self.password));
        url.query_pairs_mut()
            .append_pair("sslmode", "verify-full")
            .append_pair("sslrootcert", &listen::certificate(&self.home).to_string_lossy());
        Ok(Some(plain_spaces(url)))
    }

    /// For `psql`, as the role of users' queries: the environment of a child process, which other users can't read.
    pub fn reader_environment(&self) -> Result<Vec<(&'static str, String)>, PrivatePostgresError> {
        Ok(vec![
            ("PGHOST", self.socket.to_string_lossy().into_owned()),
            ("PGPORT", "5432".to_owned()),
            ("PGUSER", READER.to_owned()),
            ("PGDATABASE", NAME.to_owned()),
            ("PGPASSWORD", self.reader_password()?.to_owned()),
        ])
    }
}

/// libpq takes `+` for itself.
fn plain_spaces(url: url::Url) -> String {
    let text = String::from(url);
    match text.split_once('?') {
        Some((start, query)) => format!("{start}?{}", query.replace('+', "%20")),
        None => text,
    }
}

/// The password in `path`, which is made of 256 random bits if there is none.
pub(super) fn make_password(path: &Path) -> Result<String, PrivatePostgresError> {
    match fs::read_to_string(path) {
        Ok(password) if !password.is_empty() => return Ok(password),
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(io_error("read", path)(error)),
        Ok(_) | Err(_) => {}
    }
    let password = random_password()?;
    write_password(path, &password)?;
    Ok(password)
}

/// 256 random bits in hex.
pub(super) fn random_password() -> Result<String, PrivatePostgresError> {
    let mut bytes = [0_u8; 32];
    let random = Path::new("/dev/urandom");
    File::open(random).and_then(|mut file| file.read_exact(&mut bytes)).map_err(io_error("read", random))?;
    Ok(hex(&bytes))
}

/// For the caller alone.
pub(super) fn write_password(path: &Path, password: &str) -> Result<(), PrivatePostgresError> {
    write_whole(path, password, 0o600)
}

/// Whole or not at all. The caller holds the start lock: there is one at a time.
pub(super) fn write_whole(path: &Path, text: &str, mode: u32) -> Result<(), PrivatePostgresError> {
    let new = path.with_extension("new");
    let written = File::options().create(true).truncate(true).write(true).mode(mode).open(&new).and_then(|mut file| {
        // Said outright: the umask may have taken bits away.
        file.set_permissions(Permissions::from_mode(mode))?;
        file.write_all(text.as_bytes())?;
        file.sync_all()
    });
    written.and_then(|()| fs::rename(&new, path)).map_err(io_error("write", path))
}

pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}
