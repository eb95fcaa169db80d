//! Listening for other machines: on one IPv4 address, over TLS, for the role `sweep` and its password alone. What is
//! wanted is in the file `listen`, whole or not at all, and whoever starts the server obeys it. So a start that was
//! killed anywhere is made up for by the next command.

use std::fmt::Write as _;
use std::fs::{self, File, Permissions};
use std::io;
use std::net::{Ipv4Addr, SocketAddrV4, TcpListener};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::str::FromStr;

use super::access::{hex, write_whole};
use super::binaries::{self, Binaries};
use super::folder::Cluster;
use super::postmaster::{self, SOCKET_FILE};
use super::{NAME, PrivatePostgresError, Said, bring_up, io_error, lock, tail};

/// The first that is tried where nobody says a port, and how many.
const PORTS: std::ops::Range<u16> = 5433..5533;
/// Below, only root may listen, and the server is not root.
const FIRST_PORT: u16 = 1024;
/// Name of the record, in the cluster's folder.
const RECORD: &str = "listen";
/// Who may come in over what, while it listens. Read in place of the cluster's own.
const HBA: &str = "pg_hba.conf";
/// Start of the names of the folders with a key and its certificate.
const TLS: &str = "tls-";
/// How long a certificate is good for.
const DAYS: u32 = 3650;

/// Where to listen, as a person says it: `192.0.2.7` or `192.0.2.7:5433`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ListenAddress {
    ip: Ipv4Addr,
    port: Option<u16>,
}

impl FromStr for ListenAddress {
    type Err = String;

    fn from_str(text: &str) -> Result<ListenAddress, String> {
        let (ip, port) = text.split_once(':').map_or((text, None), |(ip, port)| (ip, Some(port)));
        let ip: Ipv4Addr = ip.parse().map_err(|_| {
            "it has to be an IPv4 address of this machine, with a port or without: 192.0.2.7 or 192.0.2.7:5433"
                .to_owned()
        })?;
        if ip.is_unspecified() {
            return Err("it has to be one address: the certificate names it, and nodes connect to it".to_owned());
        }
        if ip == Ipv4Addr::LOCALHOST {
            return Err(
                "it has to be an address that other machines reach: this one is of this machine alone".to_owned()
            );
        }
        let port = port.map(str::parse::<u16>).transpose().ok();
        match port {
            Some(port) if port.is_none_or(|port| port >= FIRST_PORT) => Ok(ListenAddress { ip, port }),
            _ => Err(format!("the port has to be a number from {FIRST_PORT} to 65535")),
        }
    }
}

impl ListenAddress {
    fn is_met_by(self, address: SocketAddrV4) -> bool {
        self.ip == *address.ip() && self.port.is_none_or(|port| port == address.port())
    }
}

/// What the record says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Listen {
    pub(super) address: SocketAddrV4,
    /// Folder with `server.key` and `server.crt`, below the cluster's.
    tls: String,
}

/// Where the cluster in `folder` is to listen.
pub(super) fn recorded(folder: &Path) -> Result<Option<Listen>, PrivatePostgresError> {
    let path = folder.join(RECORD);
    let text = match fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(io_error("read", &path)(error)),
    };
    parse(&text).map(Some).ok_or(PrivatePostgresError::BadRecord { path })
}

/// Lines: address and port, folder of the certificate.
fn parse(text: &str) -> Option<Listen> {
    let mut lines = text.lines();
    let address = lines.next()?.parse().ok()?;
    let tls = lines.next()?.to_owned();
    let plain = tls.strip_prefix(TLS).is_some_and(|id| id.chars().all(|c| c.is_ascii_hexdigit()));
    plain.then_some(Listen { address, tls })
}

/// The certificate, for clients.
pub(super) fn certificate(home: &Path) -> PathBuf {
    home.join("postgres.crt")
}

/// Has the cluster of `home` listen from now on; it is made and started if need be, and started anew if it is up. Gives
/// the address. On failure it goes on as before.
pub fn listen(home: &Path, wanted: ListenAddress) -> Result<SocketAddrV4, PrivatePostgresError> {
    let _lock = lock(home)?;
    let cluster = Cluster::find_or_place(home)?;
    // There the role of workers is a superuser: whoever has its password may run programs here.
    if cluster.data().exists() && !cluster.admin_password_file().exists() {
        return Err(PrivatePostgresError::PowerfulOwner { folder: cluster.folder });
    }
    let before = recorded(&cluster.folder)?;
    if let Some(before) = before.as_ref().filter(|before| wanted.is_met_by(before.address)) {
        bring_up(&cluster)?;
        return Ok(before.address);
    }
    require_tls(&cluster, &binaries::for_cluster(&cluster)?)?;
    let address = free_address(wanted)?;
    let tls = make_certificate(&cluster, *address.ip())?;
    record(&cluster.folder, Some(&Listen { address, tls }))?;
    if let Err(error) = bring_up(&cluster) {
        record(&cluster.folder, before.as_ref())?;
        // What was said first counts.
        let _ = bring_up(&cluster);
        return Err(error);
    }
    tidy(&cluster)?;
    Ok(address)
}

/// Takes it back: the next start of the server, which any command sees to, is one without an address. `false`: it was
/// not to listen.
pub fn listen_no_more(home: &Path) -> Result<bool, PrivatePostgresError> {
    let Some(cluster) = Cluster::find(home)? else { return Ok(false) };
    let _lock = lock(home)?;
    // Whatever it says.
    if !cluster.folder.join(RECORD).exists() {
        return Ok(false);
    }
    record(&cluster.folder, None)?;
    bring_up(&cluster)?;
    tidy(&cluster)?;
    Ok(true)
}

/// Writes the record, or removes it.
fn record(folder: &Path, listen: Option<&Listen>) -> Result<(), PrivatePostgresError> {
    let path = folder.join(RECORD);
    match listen {
        Some(listen) => write_whole(&path, &format!("{}\n{}\n", listen.address, listen.tls), 0o644)?,
        None => fs::remove_file(&path).or_else(ignore_missing).map_err(io_error("remove", &path))?,
    }
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(io_error("write", folder))
}

/// Whether the server that is up listens where it is to. One whose lock file can't be trusted here counts as such.
pub(super) fn is_as_recorded(cluster: &Cluster) -> Result<bool, PrivatePostgresError> {
    let wanted = recorded(&cluster.folder)?.map(|listen| listen.address);
    Ok(postmaster::listens_as_wanted(&cluster.data(), wanted))
}

/// What has to be so before a server is started, or stopped for one that listens.
pub(super) fn check(cluster: &Cluster, binaries: &Binaries) -> Result<(), PrivatePostgresError> {
    let Some(listen) = recorded(&cluster.folder)? else { return Ok(()) };
    require_tls(cluster, binaries)?;
    try_address(listen.address).map_err(cannot_listen(listen.address))
}

/// Sets out what a server needs to listen where it is to, and gives its settings. Clients go on asking for the usual
/// socket, whatever the port.
pub(super) fn prepare(cluster: &Cluster, socket: &Path) -> Result<Vec<String>, PrivatePostgresError> {
    let Some(Listen { address, tls }) = recorded(&cluster.folder)? else { return Ok(Vec::new()) };
    let own = cluster.folder.join(&tls).join("server.crt");
    let text = fs::read_to_string(&own).map_err(io_error("read", &own))?;
    write_whole(&certificate(&cluster.home), &text, 0o644)?;
    cluster.lend_file(
        HBA,
        &format!(
            "# Written by sweep when it starts a server that listens.\nlocal all all scram-sha-256\nhostssl {NAME} {NAME} all scram-sha-256\n"
        ),
    )?;
    let own = format!(".s.PGSQL.{}", address.port());
    if own != SOCKET_FILE {
        let usual = socket.join(SOCKET_FILE);
        fs::remove_file(&usual).or_else(ignore_missing).map_err(io_error("remove", &usual))?;
        symlink(own, &usual).map_err(io_error("link", &usual))?;
    }
    // Relative, as all paths that go through a shell: this one to the cluster's folder, the others to `data`.
    Ok(vec![
        format!("hba_file={HBA}"),
        format!("listen_addresses={}", address.ip()),
        format!("port={}", address.port()),
        "ssl=on".to_owned(),
        format!("ssl_cert_file=../{tls}/server.crt"),
        format!("ssl_key_file=../{tls}/server.key"),
    ])
}

/// Removes certificates that are no longer used.
fn tidy(cluster: &Cluster) -> Result<(), PrivatePostgresError> {
    let current = recorded(&cluster.folder)?.map(|listen| listen.tls);
    if current.is_none() {
        for path in [certificate(&cluster.home), cluster.folder.join(HBA)] {
            fs::remove_file(&path).or_else(ignore_missing).map_err(io_error("remove", &path))?;
        }
    }
    for entry in fs::read_dir(&cluster.folder).map_err(io_error("read", &cluster.folder))?.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.starts_with(TLS) && Some(&name) != current.as_ref() {
            fs::remove_dir_all(entry.path()).map_err(io_error("remove", &entry.path()))?;
        }
    }
    Ok(())
}

/// PyPI's server programs, for one, are built without.
fn require_tls(cluster: &Cluster, binaries: &Binaries) -> Result<(), PrivatePostgresError> {
    let program = binaries.program("postgres");
    let mut command = Command::new(&program);
    command.args(["-C", "ssl_library", "-D", ".", "-c", "config_file=/dev/null"]).current_dir(&cluster.folder);
    cluster.user.become_in(&mut command);
    let output = command.output().map_err(io_error("run", &program))?;
    if output.status.success() && !output.stdout.trim_ascii().is_empty() {
        return Ok(());
    }
    Err(PrivatePostgresError::NoTls {
        programs: binaries.folder.clone(),
        version: binaries.version.clone(),
        cluster: cluster.version(),
    })
}

/// The address with its port, or with the first that is free.
fn free_address(wanted: ListenAddress) -> Result<SocketAddrV4, PrivatePostgresError> {
    let mut refused = None;
    for port in wanted.port.map_or(PORTS, |port| port..port.saturating_add(1)) {
        let address = SocketAddrV4::new(wanted.ip, port);
        match try_address(address) {
            Ok(()) => return Ok(address),
            Err(error) => refused = Some((address, error)),
        }
    }
    let (address, error) = refused.unwrap_or((SocketAddrV4::new(wanted.ip, u16::MAX), io::ErrorKind::AddrInUse.into()));
    Err(cannot_listen(address)(error))
}

fn try_address(address: SocketAddrV4) -> io::Result<()> {
    TcpListener::bind(address).map(drop)
}

fn cannot_listen(address: SocketAddrV4) -> impl FnOnce(io::Error) -> PrivatePostgresError {
    move |source| PrivatePostgresError::CannotListen { address, source }
}

/// Makes a key and a certificate that is signed by itself: whoever has it in hand knows this server by it, and it says
/// nothing of any other. Nobody uses them before the record names them. Gives their folder's name.
fn make_certificate(cluster: &Cluster, ip: Ipv4Addr) -> Result<String, PrivatePostgresError> {
    let name = format!("{TLS}{}", hex(&rand::random::<[u8; 8]>()));
    let folder = cluster.folder.join(&name);
    fs::create_dir(&folder).map_err(io_error("make the folder", &folder))?;
    let set_mode = |path: &Path, mode| {
        fs::set_permissions(path, Permissions::from_mode(mode)).map_err(io_error("set the mode of", path))
    };
    set_mode(&folder, 0o700)?;
    let mut request = String::from("[req]\nprompt = no\ndistinguished_name = name\nx509_extensions = extensions\n");
    let _ = write!(
        request,
        "[name]\nCN = {ip}\n[extensions]\nsubjectAltName = IP:{ip}\nbasicConstraints = critical, CA:FALSE\n\
         keyUsage = critical, digitalSignature\nextendedKeyUsage = serverAuth\n"
    );
    let path = folder.join("request.conf");
    fs::write(&path, request).map_err(io_error("write", &path))?;
    let output = Command::new("openssl")
        .args(["req", "-x509", "-config", "request.conf", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"])
        .args(["-nodes", "-sha256", "-days", &DAYS.to_string(), "-keyout", "server.key", "-out", "server.crt"])
        .current_dir(&folder)
        .env_remove("OPENSSL_CONF")
        .output();
    let output = output.map_err(|source| PrivatePostgresError::NoOpenssl { source })?;
    if !output.status.success() {
        let said = Said(tail(&String::from_utf8_lossy(&output.stderr)));
        return Err(PrivatePostgresError::Program { program: "openssl req", status: output.status, said });
    }
    let (key, certificate) = (folder.join("server.key"), folder.join("server.crt"));
    set_mode(&key, 0o600)?;
    set_mode(&certificate, 0o644)?;
    cluster.user.own(&key)?;
    for path in [&key, &certificate, &folder] {
        File::open(path).and_then(|file| file.sync_all()).map_err(io_error("write", path))?;
    }
    // The server's user is another than root, who made it.
    set_mode(&folder, 0o755)?;
    Ok(name)
}

fn ignore_missing(error: io::Error) -> io::Result<()> {
    if error.kind() == io::ErrorKind::NotFound { Ok(()) } else { Err(error) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_as_people_say_them() {
        let parse = |text: &str| text.parse::<ListenAddress>();
        assert_eq!(parse("192.0.2.7"), Ok(ListenAddress { ip: Ipv4Addr::new(192, 0, 2, 7), port: None }));
        assert_eq!(parse("192.0.2.7:6000"), Ok(ListenAddress { ip: Ipv4Addr::new(192, 0, 2, 7), port: Some(6000) }));
        for (wrong, why) in [
            ("login1", "an IPv4 address"),
            ("::1", "an IPv4 address"),
            ("0.0.0.0", "one address"),
            ("127.0.0.1:5433", "of this machine alone"),
            ("192.0.2.7:", "a number from 1024"),
            ("192.0.2.7:80", "a number from 1024"),
            ("192.0.2.7:70000", "a number from 1024"),
        ] {
            let said = parse(wrong).expect_err(wrong);
            assert!(said.contains(why), "{wrong}: {said}");
        }
    }

    #[test]
    fn a_record_is_read_whole_or_refused() {
        let listen = parse("192.0.2.7:5433\ntls-0a1b\n").expect("as it is written");
        assert_eq!((listen.address.to_string(), listen.tls.as_str()), ("192.0.2.7:5433".to_owned(), "tls-0a1b"));
        for wrong in
            ["", "192.0.2.7:5433\n", "192.0.2.7\ntls-0a1b\n", "192.0.2.7:5433\n../etc\n", "192.0.2.7:5433\ntls-/x"]
        {
            assert_eq!(parse(wrong), None, "{wrong:?}");
        }
    }
}
