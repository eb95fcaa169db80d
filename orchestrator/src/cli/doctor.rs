//! `sweep doctor`: one line a check, and the way out where one fails.

use std::fs;
use std::path::Path;
use std::process::Command;

use nix::sys::statvfs::statvfs;
use serde::Serialize;

use super::output::{self, Exit, Failure};
use crate::plan::runner::{self, RunnerError};
use crate::store::{self, Store, private_postgres};

const GIB: u64 = 1 << 30;
/// Checkpoints and the database need room; below this a sweep soon fails.
const DISK_MIN: u64 = GIB;
const DISK_WISHED: u64 = 10 * GIB;
const MEMORY_WISHED: u64 = 2 * GIB;

/// Options of `sweep doctor`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// As JSON, schema `sweep.doctor/1`.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Level {
    Ok,
    Warn,
    Fail,
}

#[derive(Debug, Serialize)]
struct Check {
    name: &'static str,
    level: Level,
    found: String,
    hint: Option<String>,
}

#[derive(Debug, Serialize)]
struct Report {
    checks: Vec<Check>,
}

pub(super) async fn run(args: Args) -> Result<Exit, Failure> {
    let home = store::home();
    let checks = vec![
        check_folder(&home),
        check_disk(&home),
        check_server_programs(),
        check_database().await,
        check_runner(
            "clip-runner",
            "clip",
            Level::Fail,
            "build it with `make setup build`; until then only other runners can be used",
        ),
        check_runner(
            "synthetic-runner",
            "synthetic",
            Level::Warn,
            "build it with `make build`; only tests and examples need it",
        ),
        check_cores(),
        check_memory(),
        check_gpu(),
    ];
    let exit = if checks.iter().any(|check| check.level == Level::Fail) { Exit::Environment } else { Exit::Done };
    if args.json {
        output::json("sweep.doctor/1", &Report { checks });
        return Ok(exit);
    }
    for check in checks {
        let level = match check.level {
            Level::Ok => "ok",
            Level::Warn => "warn",
            Level::Fail => "FAIL",
        };
        output::data(&format!("{level:<4}  {:<16}  {}", check.name, check.found));
        if let Some(hint) = check.hint {
            output::data(&format!("      {:<16}  hint: {hint}", ""));
        }
    }
    Ok(exit)
}

impl Check {
    fn ok(name: &'static str, found: impl Into<String>) -> Check {
        Check { name, level: Level::Ok, found: found.into(), hint: None }
    }

    fn bad(name: &'static str, level: Level, found: impl Into<String>, hint: impl Into<String>) -> Check {
        Check { name, level, found: found.into(), hint: Some(hint.into()) }
    }
}

fn check_folder(home: &Path) -> Check {
    let name = "project folder";
    let probe = home.join(format!("probe-{}", std::process::id()));
    let written = fs::create_dir_all(home).and_then(|()| fs::write(&probe, "")).and_then(|()| fs::remove_file(&probe));
    match written {
        Ok(()) => Check::ok(name, format!("{} can be written to", home.display())),
        Err(error) => {
            let hint = "run in a folder of your own, or set SWEEP_HOME to one";
            Check::bad(name, Level::Fail, format!("can't write to {}: {error}", home.display()), hint)
        }
    }
}

fn check_disk(home: &Path) -> Check {
    let name = "disk";
    let place = home.ancestors().find(|ancestor| ancestor.exists()).unwrap_or(Path::new("/"));
    match statvfs(place) {
        Err(error) => Check::bad(name, Level::Warn, format!("can't see what is free: {error}"), "look with `df -h`"),
        Ok(disk) => {
            let free = disk.blocks_available() * disk.fragment_size();
            let found = format!("{:.1} GiB free at {}", free as f64 / GIB as f64, place.display());
            match free {
                DISK_WISHED.. => Check::ok(name, found),
                DISK_MIN.. => Check::bad(name, Level::Warn, found, "checkpoints of larger models need more"),
                _ => Check::bad(name, Level::Fail, found, "make room, or set SWEEP_HOME to a folder on another disk"),
            }
        }
    }
}

fn check_server_programs() -> Check {
    let name = "PostgreSQL";
    if std::env::var("DATABASE_URL").is_ok_and(|url| !url.is_empty()) {
        return Check::ok(name, "not needed here: DATABASE_URL is set");
    }
    match private_postgres::find_binaries() {
        Ok(found) => Check::ok(name, format!("{} in {}", found[0].version, found[0].folder.display())),
        Err(error) => Check::bad(name, Level::Fail, error.to_string(), error.hint().unwrap_or_default()),
    }
}

async fn check_database() -> Check {
    let name = "database";
    let looked = match Store::connect().await {
        Ok(store) => store.schema_version().await,
        Err(error) => Err(error),
    };
    match looked {
        Ok(version) => Check::ok(name, format!("answers; schema {version}")),
        Err(error) => {
            let cause = std::error::Error::source(&error).map_or(String::new(), |source| format!(": {source}"));
            Check::bad(
                name,
                Level::Fail,
                format!("{error}{cause}"),
                error.hint().unwrap_or("see `sweep db status`".to_owned()),
            )
        }
    }
}

fn check_runner(label: &'static str, name: &str, missing: Level, hint: &str) -> Check {
    let described = runner::find(name, Path::new(".")).and_then(|path| runner::describe(&path));
    match described {
        Ok(described) => Check::ok(label, format!("{} on {}", described.version, described.devices.join(", "))),
        Err(error @ RunnerError::NotFound { .. }) => Check::bad(label, missing, error.to_string(), hint),
        Err(error) => Check::bad(label, missing, error.to_string(), error.hint()),
    }
}

fn check_cores() -> Check {
    match std::thread::available_parallelism() {
        Ok(cores) => Check::ok("cores", cores.to_string()),
        Err(error) => {
            Check::bad("cores", Level::Warn, error.to_string(), "say `threads_per_slot` in the spec's backend")
        }
    }
}

fn check_memory() -> Check {
    let name = "memory";
    let kib = |field: &str| {
        let text = fs::read_to_string("/proc/meminfo").ok()?;
        text.lines().find_map(|line| line.strip_prefix(field)?.split_whitespace().next()?.parse::<u64>().ok())
    };
    let (Some(total), Some(available)) = (kib("MemTotal:"), kib("MemAvailable:")) else {
        return Check::bad(name, Level::Warn, "unknown", "look with `free -h`");
    };
    let gib = |kib: u64| kib as f64 * 1024.0 / GIB as f64;
    let found = format!("{:.1} GiB, {:.1} GiB of it free", gib(total), gib(available));
    if available * 1024 >= MEMORY_WISHED {
        Check::ok(name, found)
    } else {
        Check::bad(
            name,
            Level::Warn,
            found,
            "`sweep plan` shows what each job needs; set `slots` in the spec's backend",
        )
    }
}

fn check_gpu() -> Check {
    let name = "GPU";
    let query = ["--query-gpu=name,memory.total", "--format=csv,noheader"];
    match Command::new("nvidia-smi").args(query).output() {
        Ok(output) if output.status.success() => {
            let text = String::from_utf8_lossy(&output.stdout);
            Check::ok(name, text.lines().map(str::trim).collect::<Vec<_>>().join("; "))
        }
        Ok(_) => Check::bad(name, Level::Warn, "`nvidia-smi` is here but fails", "look at what `nvidia-smi` says"),
        Err(_) => Check::ok(name, "none found; training uses the CPU"),
    }
}
