//! One server a cluster, whoever looks: without the right to look into other processes, from another process namespace,
//! after `kill -9`, with a child of the server left over.

use std::fs;
use std::process::{Command, Output};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::harness::{Project, transcript};

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

#[test]
fn without_the_right_to_trace_one_server_serves_all() {
    let blind = ["setpriv", "--bounding-set", "-sys_ptrace", "--inh-caps", "-sys_ptrace"];
    if !nix::unistd::geteuid().is_root() || !is_allowed(&blind) {
        return;
    }
    let project = Project::new();
    let first = started_at(&behind(&project, &blind, ASK));
    let lock = lock_file(&project);
    for _ in 0..2 {
        assert_eq!(started_at(&behind(&project, &blind, ASK)), first);
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
fn a_killed_server_is_followed_by_one_and_its_lock_outlives_it_as_long_as_a_child_does() {
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
