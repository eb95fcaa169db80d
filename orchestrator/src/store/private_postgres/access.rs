//! How a client reaches the private cluster. The password is in no command line, log or `Debug` output.

use std::fmt::{self, Write as _};
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use sqlx::postgres::{PgConnectOptions, PgSslMode};

use super::{NAME, PrivatePostgresError, io_error};

/// Socket and password of a server that is up.
#[derive(Clone)]
pub struct Access {
    /// Folder of the socket.
    pub socket: PathBuf,
    password: String,
}

impl fmt::Debug for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Access").field("socket", &self.socket).finish_non_exhaustive()
    }
}

impl Access {
    pub(super) fn new(password_file: &Path, socket: PathBuf) -> Result<Access, PrivatePostgresError> {
        let password = fs::read_to_string(password_file).map_err(io_error("read", password_file))?;
        Ok(Access { socket, password: password.trim_end().to_owned() })
    }

    /// For sqlx. What `PGHOST` and its like say is not used.
    pub fn options(&self) -> PgConnectOptions {
        PgConnectOptions::new_without_pgpass()
            .socket(&self.socket)
            .port(5432)
            .username(NAME)
            .password(&self.password)
            .database(NAME)
            .ssl_mode(PgSslMode::Disable)
    }

    /// For `psql`, `psycopg` and other clients of libpq. It holds the password.
    pub fn url(&self) -> String {
        let mut url = url::Url::parse(&format!("postgresql:///{NAME}")).expect("a constant URL parses");
        url.query_pairs_mut()
            .append_pair("host", &self.socket.to_string_lossy())
            .append_pair("user", NAME)
            .append_pair("password", &self.password);
        url.into()
    }

    /// For `psql`: the environment of a child process, which other users can't read.
    pub fn environment(&self) -> Vec<(&'static str, String)> {
        vec![
            ("PGHOST", self.socket.to_string_lossy().into_owned()),
            ("PGPORT", "5432".to_owned()),
            ("PGUSER", NAME.to_owned()),
            ("PGDATABASE", NAME.to_owned()),
            ("PGPASSWORD", self.password.clone()),
        ]
    }
}

/// The password in `path`, which is made of 256 random bits if there is none.
pub(super) fn make_password(path: &Path) -> Result<String, PrivatePostgresError> {
    match fs::read_to_string(path) {
        Ok(password) if !password.is_empty() => return Ok(password),
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(io_error("read", path)(error)),
        Ok(_) | Err(_) => {}
    }
    let mut bytes = [0_u8; 32];
    let random = Path::new("/dev/urandom");
    File::open(random).and_then(|mut file| file.read_exact(&mut bytes)).map_err(io_error("read", random))?;
    let password = hex(&bytes);
    File::options()
        .create(true)
        .truncate(true)
        .write(true)
        .mode(0o600)
        .open(path)
        .and_then(|mut file| file.write_all(password.as_bytes()))
        .map_err(io_error("write", path))?;
    Ok(password)
}

pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}
