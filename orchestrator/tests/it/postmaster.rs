//! One server a cluster, whoever looks: without the right to look into other processes, from another process namespace,
//! after `kill -9`, with a child of the server left over.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::process::{Command, Output, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::sys::stat::Mode;
use nix::unistd::{Pid, mkfifo};
use sqlx::Connection;

use crate::harness::{Project, transcript, wait_until};

/// The last connection's server process, and how often a server has been started: what two servers could not agree on.
const SERVER: &str = "SELECT pg_postmaster_start_time()::text || ' ' || pg_backend_pid()::text AS server";

/// `sweep` behind another program, which takes the command line after its own arguments.
fn behind(project: &Project, program: &[&str], args: &[&str]) -> Output {
    let plain = project.sweep(args);
    let mut command = Command::new(program[0]);
    command.args(&program[1..]).arg(plain.get_program()).args(plain.get_args()).current_dir(project.path());
    for (name, value) in plain.get_envs() {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    command.output().expect("the program runs")
}

/// Whether a program does what its own arguments ask for here; a container may forbid it.
fn is_allowed(program: &[&str]) -> bool {
    let allowed =
        Command::new(program[0]).args(&program[1..]).arg("true").output().is_ok_and(|out| out.status.success());
    if !allowed {
        eprintln!("skipped: `{}` is not allowed here", program.join(" "));
    }
    allowed
}

fn started_at(output: &Output) -> String {
    assert!(output.status.success(), "{}", transcript(output));
    let text = String::from_utf8_lossy(&output.stdout);
    text.lines().nth(1).and_then(|line| line.rsplit_once(' ')).expect("a time and a number").0.to_owned()
}

fn lock_file(project: &Project) -> String {
    fs::read_to_string(project.home().join("postgres/data/postmaster.pid")).expect("a server is running")
}

const ASK: &[&str] = &["sql", "--format", "csv", SERVER];

const BLIND: &[&str] = &["setpriv", "--bounding-set", "-sys_ptrace", "--inh-caps", "-sys_ptrace"];

#[test]
fn without_the_right_to_trace_one_server_serves_all() {
    if !nix::unistd::geteuid().is_root() || !is_allowed(BLIND) {
        return;
    }
    let project = Project::new();
    let first = started_at(&behind(&project, BLIND, ASK));
    let lock = lock_file(&project);
    for _ in 0..2 {
        assert_eq!(started_at(&behind(&project, BLIND, ASK)), first);
    }
    assert_eq!(started_at(&project.output(ASK)), first);
    assert_eq!(lock_file(&project), lock, "the server's own lock file was touched");
}

#[test]
fn another_process_namespace_uses_the_server_that_is_there_and_cannot_stop_it() {
    let elsewhere = ["unshare", "--pid", "--ipc", "--fork", "--mount-proc"];
    if !is_allowed(&elsewhere) {
        return;
    }
    let project = Project::new();
    let first = started_at(&project.output(ASK));
    let lock = lock_file(&project);
    for _ in 0..2 {
        assert_eq!(started_at(&behind(&project, &elsewhere, ASK)), first);
    }
    let stopped = transcript(&behind(&project, &elsewhere, &["db", "stop"]));
    assert!(stopped.starts_with("exit: 3") && stopped.contains("another process namespace"), "{stopped}");
    assert_eq!(lock_file(&project), lock);
    assert_eq!(started_at(&project.output(ASK)), first);
}

#[test]
fn a_killed_server_is_followed_by_one_and_the_lock_is_that_servers() {
    let project = Project::new();
    let first = started_at(&project.output(ASK));
    kill(project.postmaster(), Signal::SIGKILL).expect("it is ours");
    let second = started_at(&project.output(ASK));
    assert_ne!(first, second);
    // The lock is the running server's: nobody else gets it.
    let lock = fs::File::options().write(true).open(project.home().join("postgres/server.lock")).expect("it is there");
    assert!(matches!(lock.try_lock(), Err(fs::TryLockError::WouldBlock)));
    project.ok(&["db", "stop"]);
    assert!(lock.try_lock().is_ok(), "freed with the last process of the server");
}

#[test]
fn a_child_that_outlives_its_server_keeps_the_next_one_waiting() {
    let project = Project::new();
    let first = started_at(&project.output(ASK));
    let postmaster = project.postmaster();
    let child = children(postmaster).into_iter().next().expect("a server has children");
    // Stopped, it does not notice that its server is gone.
    kill(child, Signal::SIGSTOP).expect("it is ours");
    kill(postmaster, Signal::SIGKILL).expect("it is ours");
    let lock = fs::File::options().write(true).open(project.home().join("postgres/server.lock")).expect("it is there");
    let asking = project.sweep(ASK).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("sweep runs");
    // All other children leave by themselves; the lock is held on.
    let alone = || (children_of_server(&project) == [child]).then_some(());
    wait_until(alone).expect("the other children leave");
    assert!(matches!(lock.try_lock(), Err(fs::TryLockError::WouldBlock)), "a server's child lives");
    assert_eq!(children_of_server(&project), [child], "no other server was started");
    kill(child, Signal::SIGCONT).expect("it is ours");
    let output = asking.wait_with_output().expect("it ends");
    assert_ne!(started_at(&output), first);
}

/// Processes whose parent is `pid`.
fn children(pid: Pid) -> Vec<Pid> {
    processes().into_iter().filter(|&(_, parent, _)| parent == pid).map(|(child, ..)| child).collect()
}

/// Processes that have the server's lock file open.
fn children_of_server(project: &Project) -> Vec<Pid> {
    let lock = project.home().join("postgres/server.lock");
    let holds = |pid: Pid| {
        let files = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().filter_map(Result::ok);
        files.map(|file| fs::read_link(file.path())).any(|target| target.is_ok_and(|target| target == lock))
    };
    let postgres = processes().into_iter().filter(|(_, _, name)| name == "postgres").map(|(pid, ..)| pid);
    postgres.filter(|&pid| holds(pid)).collect()
}

/// Number, parent and name of every process.
fn processes() -> Vec<(Pid, Pid, String)> {
    let numbers = fs::read_dir("/proc").expect("this is Linux").filter_map(|entry| {
        let number: i32 = entry.ok()?.file_name().to_str()?.parse().ok()?;
        let stat = fs::read_to_string(format!("/proc/{number}/stat")).ok()?;
        let (start, end) = (stat.find('(')?, stat.rfind(')')?);
        let parent = stat[end + 1..].split_ascii_whitespace().nth(1)?.parse().ok()?;
        Some((Pid::from_raw(number), Pid::from_raw(parent), stat[start + 1..end].to_owned()))
    });
    numbers.collect()
}

#[test]
fn a_number_that_was_given_to_another_process_does_not_keep_the_server_from_starting() {
    let project = Project::new();
    let first = started_at(&project.output(ASK));
    let postmaster = project.postmaster();
    let lock = lock_file(&project);
    kill(postmaster, Signal::SIGKILL).expect("it is ours");
    // As if the number had gone to this test, which lives and is no server.
    let ours = lock.replacen(&postmaster.to_string(), &Pid::this().to_string(), 1);
    fs::write(project.home().join("postgres/data/postmaster.pid"), ours).expect("root or the owner may write");
    assert_ne!(started_at(&project.output(ASK)), first);
}

/// Its number went to a server of another project, which can't be looked into.
#[test]
fn a_number_that_was_given_to_another_server_does_not_keep_a_dead_one_from_starting() {
    if !nix::unistd::geteuid().is_root() || !is_allowed(BLIND) {
        return;
    }
    let (project, other) = (Project::new(), Project::new());
    let first = started_at(&project.output(ASK));
    other.ok(&["db", "start"]);
    let number = project.postmaster();
    kill(number, Signal::SIGKILL).expect("it is ours");
    let lock_path = project.home().join("postgres/server.lock");
    let lock = fs::File::options().write(true).open(&lock_path).expect("it is there");
    lock.lock().expect("its children end too");
    for path in [project.home().join("postgres/data/postmaster.pid"), lock_path] {
        let text = fs::read_to_string(&path).expect("it is there");
        fs::write(&path, text.replacen(&number.to_string(), &other.postmaster().to_string(), 1)).expect("root writes");
    }
    drop(lock);
    let before = lock_file(&other);
    assert_ne!(started_at(&behind(&project, BLIND, ASK)), first);
    assert_eq!(lock_file(&other), before);
}

/// A copy holds the original's lock file, which names its process and its socket.
#[test]
fn a_copied_project_has_no_hold_on_the_original_s_server() {
    let (original, copy) = (Project::new(), Project::new());
    let first = started_at(&original.output(ASK));
    let copied = Command::new("cp").arg("-a").arg(original.home()).arg(copy.home()).status().expect("cp runs");
    assert!(copied.success());
    assert!(copy.ok(&["db", "status"]).contains("state       down"));
    assert!(copy.transcript(&["db", "stop"]).contains("was not running"));
    assert_eq!(started_at(&original.output(ASK)), first, "the copy stopped the original's server");
}

/// As where a container has the same folder at another path.
#[test]
fn a_project_at_another_path_uses_its_server() {
    let project = Project::new_below("here");
    let there = project.path().with_file_name("there");
    let first = started_at(&project.output(ASK));
    fs::rename(project.path(), &there).expect("it can be moved");
    let found = crate::harness::sweep(&there, ASK).output().expect("sweep runs");
    fs::rename(&there, project.path()).expect("it can be moved back");
    assert_eq!(started_at(&found), first);
}

#[tokio::test]
async fn a_server_that_waits_for_its_clients_is_stopped() {
    let project = Project::new();
    project.ok(&["db", "start"]);
    let options = sweep::store::private_postgres::ensure_running(&project.home()).expect("it is up").options();
    let client = sqlx::PgConnection::connect_with(&options).await.expect("it answers");
    // SIGTERM is PostgreSQL's "smart" shutdown: no new clients, the old ones may finish.
    kill(project.postmaster(), Signal::SIGTERM).expect("it is ours");
    while !lock_file(&project).contains("stopping") {
        std::thread::yield_now();
    }
    let said = project.transcript(&["db", "stop"]);
    assert!(said.contains("stopped the private database"), "{said}");
    assert!(!project.home().join("postgres/data/postmaster.pid").exists(), "it is gone in order");
    drop(client);
}

/// `initdb` outlives a `sweep` that is killed; nothing may work in the cluster's folder beside it.
#[test]
fn a_program_that_a_killed_start_left_behind_holds_the_lock() {
    let project = Project::new();
    let programs = project.path().join("programs");
    fs::create_dir(&programs).expect("made");
    let real = sweep::store::private_postgres::find_binaries().map(|found| found[0].folder.clone());
    let Ok(real) = real.or_else(|error| std::env::var("SWEEP_PG_BIN").map(Into::into).map_err(|_| error)) else {
        eprintln!("skipped: no server programs but those of the repository's environment");
        return;
    };
    for program in ["postgres", "pg_ctl"] {
        symlink(real.join(program), programs.join(program)).expect("linked");
    }
    let pipe = |name: &str| {
        let path = project.path().join(name);
        mkfifo(&path, Mode::S_IRWXU).expect("made");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o666)).expect("ours");
        path
    };
    let (begun, end) = (pipe("begun"), pipe("end"));
    let script = format!("#!/bin/sh\necho > {}\nread line < {}\nexit 1\n", begun.display(), end.display());
    fs::write(programs.join("initdb"), script).expect("written");
    fs::set_permissions(programs.join("initdb"), fs::Permissions::from_mode(0o755)).expect("ours");

    let mut killed = project.sweep(&["db", "start"]).env("SWEEP_PG_BIN", &programs).spawn().expect("sweep runs");
    fs::read(&begun).expect("initdb runs");
    killed.kill().expect("it waits for initdb");
    killed.wait().expect("it ends");
    let lock = fs::File::options().write(true).open(project.home().join("postgres/server.lock")).expect("it is there");
    let held = matches!(lock.try_lock(), Err(fs::TryLockError::WouldBlock));
    fs::write(&end, "\n").expect("initdb ends");
    assert!(held, "a second start would have run beside it");
    drop(lock);
    assert!(project.output(ASK).status.success());
}
