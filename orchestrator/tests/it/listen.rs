//! A private database that listens for other machines: who gets in, that it stays so, that a failure or a kill leaves
//! no half of it. With server programs without TLS these tests say so and pass; with `SWEEP_TEST_SLURM=1`, as in CI,
//! they fail.

use std::fs::{self, Permissions};
use std::net::TcpListener;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::str::FromStr;

use nix::sys::signal::{Signal, kill};
use sqlx::postgres::{PgConnectOptions, PgSslMode};
use sqlx::{Connection, PgConnection};
use sweep::store::private_postgres;

use crate::harness::{Project, own_address, server_has_tls};

/// A project whose database listens, where the server programs can, and the URL for other machines.
fn listening() -> Option<(Project, String)> {
    if !server_has_tls() {
        return None;
    }
    let project = Project::new();
    project.ok(&["db", "start", "--listen", &own_address()]);
    let url = node_url(&project);
    Some((project, url))
}

fn node_url(project: &Project) -> String {
    project.ok(&["db", "url", "--listen"]).trim().to_owned()
}

fn options(url: &str) -> PgConnectOptions {
    PgConnectOptions::from_str(url).expect("sqlx reads it")
}

/// Whether its session is one over TLS, as the server says; `Err`: it did not get in, in words.
async fn over_tls(options: &PgConnectOptions) -> Result<bool, String> {
    let mut connection = PgConnection::connect_with(options).await.map_err(|error| error.to_string())?;
    let ssl = sqlx::query_scalar(
        "SELECT ssl AND inet_client_addr() IS NOT NULL FROM pg_stat_ssl WHERE pid = pg_backend_pid()",
    );
    ssl.fetch_one(&mut connection).await.map_err(|error| error.to_string())
}

fn listen_of(project: &Project) -> serde_json::Value {
    let status: serde_json::Value = serde_json::from_str(&project.ok(&["db", "status", "--json"])).expect("JSON");
    assert_eq!(status["schema"], "sweep.db.status/1");
    status["listen"].clone()
}

fn record(project: &Project) -> PathBuf {
    project.home().join("postgres/listen")
}

fn password(project: &Project, file: &str) -> String {
    fs::read_to_string(project.home().join("postgres").join(file)).expect("it is there")
}

/// The machine's server programs, some behind a script; `REAL` is their folder.
fn programs(project: &Project, wrapped: &[(&str, &str)]) -> PathBuf {
    let folder = project.path().join("programs");
    fs::create_dir(&folder).expect("made");
    let real = private_postgres::find_binaries().expect("a server with TLS was found").remove(0).folder;
    for program in ["initdb", "postgres", "pg_ctl"] {
        let place = folder.join(program);
        match wrapped.iter().find(|(name, _)| *name == program) {
            Some((_, script)) => {
                let text = format!("#!/bin/sh\n{script}\nexec {}/{program} \"$@\"\n", real.display());
                fs::write(&place, text).expect("written");
                fs::set_permissions(&place, Permissions::from_mode(0o755)).expect("ours");
            }
            None => symlink(real.join(program), &place).expect("linked"),
        }
    }
    folder
}

fn transcript_with(project: &Project, args: &[&str], programs: &Path) -> String {
    crate::harness::transcript(&project.sweep(args).env("SWEEP_PG_BIN", programs).output().expect("sweep runs"))
}

#[tokio::test]
async fn other_machines_get_in_over_tls_as_the_role_sweep_alone() {
    if !server_has_tls() {
        return;
    }
    let project = Project::new();
    project.ok(&["db", "start"]);
    let local = private_postgres::running(&project.home()).expect("it is ours").expect("it is up").options();
    let address = own_address();
    let said = project.transcript(&["db", "start", "--listen", &address]);
    assert!(said.starts_with("exit: 0") && said.contains(&format!("listens on {address}:5433\n")), "{said}");
    assert!(
        said.contains("warning: every machine that reaches") && said.contains("--no-listen` takes it back"),
        "{said}"
    );
    let url = node_url(&project);
    let node = options(&url);
    assert_eq!(over_tls(&node).await, Ok(true));

    let refused = async |what: &str, options: PgConnectOptions, word: &str| {
        let said = over_tls(&options).await.expect_err(what);
        assert!(said.contains(word), "{what}: {said}");
    };
    refused("in the clear", node.clone().ssl_mode(PgSslMode::Disable), "no pg_hba.conf entry").await;
    refused("a wrong password", node.clone().password("guess"), "password authentication failed").await;
    let reader = node.clone().username("sweep_reader").password(&password(&project, "password.reader"));
    refused("the reader", reader, "no pg_hba.conf entry").await;
    let admin = node.clone().username("sweep_admin").password(&password(&project, "password.admin"));
    refused("the superuser", admin, "no pg_hba.conf entry").await;
    refused("another database", node.clone().database("postgres"), "no pg_hba.conf entry").await;

    // Another server that calls itself by the same address, with a certificate of its own.
    let alternative = format!("subjectAltName=IP:{address}");
    let (name, other) = (format!("/CN={address}"), project.path().join("other.crt"));
    let made = Command::new("openssl")
        .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj", &name])
        .args([
            "-addext",
            &alternative,
            "-addext",
            "basicConstraints=CA:FALSE",
            "-keyout",
            "other.key",
            "-out",
            "other.crt",
        ])
        .current_dir(project.path())
        .output();
    assert!(made.expect("openssl runs").status.success());
    refused("another certificate", node.clone().ssl_root_cert(&other), "certificate").await;

    // Whoever knew the socket before finds it, though the port is another.
    assert_eq!(over_tls(&local).await, Ok(false));
    assert!(project.ok(&["sql", "SELECT current_user AS who"]).contains("sweep_reader"));
}

#[tokio::test]
async fn it_listens_until_it_is_told_not_to() {
    let Some((project, url)) = listening() else { return };
    let address = url.split(['@', '/']).nth(3).expect("it has a host").to_owned();
    assert_eq!(listen_of(&project), address.as_str());
    let first = project.postmaster();
    project.ok(&["db", "start", "--listen", &address]);
    assert_eq!((project.postmaster(), node_url(&project)), (first, url.clone()), "it did so already");

    project.ok(&["db", "stop"]);
    assert!(over_tls(&options(&url)).await.is_err());
    project.ok(&["sql", "SELECT 1"]);
    assert_eq!(over_tls(&options(&url)).await, Ok(true), "a start on demand");
    kill(project.postmaster(), Signal::SIGKILL).expect("it is ours");
    project.ok(&["sql", "SELECT 1"]);
    assert_eq!(over_tls(&options(&url)).await, Ok(true), "after a crash");

    let said = project.transcript(&["db", "start", "--no-listen"]);
    assert!(said.starts_with("exit: 0") && !said.contains("listens"), "{said}");
    assert!(over_tls(&options(&url)).await.expect_err("nobody listens").contains("refused"));
    assert_eq!(listen_of(&project), serde_json::Value::Null);
    assert!(!project.home().join("postgres.crt").exists());
    let none = project.transcript(&["db", "url", "--listen"]);
    assert!(none.starts_with("exit: 2") && none.contains("hint: `sweep db start --listen ADDRESS`"), "{none}");
    project.ok(&["sql", "SELECT 1"]);
}

#[tokio::test]
async fn a_command_that_was_killed_is_made_up_for_by_the_next() {
    let Some((project, url)) = listening() else { return };
    let (record, aside) = (record(&project), project.path().join("aside"));
    // Killed when the record was gone, and the server still listened.
    fs::rename(&record, &aside).expect("ours");
    assert_eq!(over_tls(&options(&url)).await, Ok(true));
    project.ok(&["sql", "SELECT 1"]);
    assert!(over_tls(&options(&url)).await.is_err());
    // Killed when the record was written, and the server did not listen yet.
    fs::rename(&aside, &record).expect("ours");
    assert!(over_tls(&options(&url)).await.is_err());
    project.ok(&["sql", "SELECT 1"]);
    assert_eq!(over_tls(&options(&url)).await, Ok(true));
    // Somebody wrote into it.
    fs::write(&record, "everywhere\n").expect("ours");
    let said = project.transcript(&["sql", "SELECT 1"]);
    assert!(said.starts_with("exit: 3") && said.contains("hint: `sweep db start --no-listen`"), "{said}");
    project.ok(&["db", "start", "--no-listen"]);
    assert!(over_tls(&options(&url)).await.is_err());
}

#[test]
fn an_address_that_can_not_be_had_is_refused_and_the_server_goes_on() {
    if !server_has_tls() {
        return;
    }
    let project = Project::new();
    project.ok(&["db", "start"]);
    let server = project.postmaster();
    let address = own_address();
    let other = TcpListener::bind((address.as_str(), 0)).expect("any address of loopback is this machine's");
    let taken = other.local_addr().expect("it has one");
    for (wrong, why, way) in [
        // Of documentation, and so of no machine.
        ("203.0.113.7".to_owned(), "Cannot assign requested address", "with one of this machine's"),
        (taken.to_string(), "Address already in use", "names another port"),
    ] {
        let said = project.transcript(&["db", "start", "--listen", &wrong]);
        assert!(said.starts_with("exit: 3") && said.contains(why) && said.contains(way), "{said}");
    }
    let said = project.transcript(&["db", "start", "--listen", "login1"]);
    assert!(said.starts_with("exit: 2") && said.contains("an IPv4 address of this machine"), "{said}");
    assert_eq!((project.postmaster(), record(&project).exists()), (server, false));
}

#[test]
fn a_server_without_tls_does_not_listen() {
    if !server_has_tls() {
        return;
    }
    let project = Project::new();
    // As PyPI's answer.
    let without = programs(&project, &[("postgres", "case $* in *ssl_library*) echo; exit 0 ;; esac")]);
    let said = transcript_with(&project, &["db", "start", "--listen", &own_address()], &without);
    assert!(said.starts_with("exit: 3") && said.contains("was built without TLS"), "{said}");
    assert!(said.contains("hint: `apt-get install postgresql`"), "{said}");
    project.ok(&["db", "start"]);
    let server = project.postmaster();
    let said = transcript_with(&project, &["db", "start", "--listen", &own_address()], &without);
    assert!(said.starts_with("exit: 3") && said.contains("opens this database: set SWEEP_PG_BIN"), "{said}");
    assert_eq!((project.postmaster(), record(&project).exists()), (server, false));
}

#[tokio::test]
async fn a_server_that_does_not_start_so_is_started_as_before() {
    let Some((project, url)) = listening() else { return };
    let address = own_address();
    let script = format!("case $* in *listen_addresses={address}*) exit 1 ;; esac");
    let failing = programs(&project, &[("pg_ctl", &script)]);
    let said = transcript_with(&project, &["db", "start", "--listen", &address], &failing);
    assert!(said.starts_with("exit: 3") && said.contains("`pg_ctl start` failed"), "{said}");
    assert_eq!((node_url(&project), over_tls(&options(&url)).await), (url, Ok(true)));
}

/// Its role `sweep` is a superuser.
#[test]
fn a_database_of_an_older_version_does_not_listen() {
    if !server_has_tls() {
        return;
    }
    let project = Project::new();
    project.ok(&["db", "start"]);
    fs::remove_file(project.home().join("postgres/password.admin")).expect("ours");
    let said = project.transcript(&["db", "start", "--listen", &own_address()]);
    assert!(said.starts_with("exit: 3") && said.contains("made by an older `sweep`"), "{said}");
    assert!(!record(&project).exists());
}
