//! Slurm workers on a private database that listens. What is needed is said and skipped as in [`super`].

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;

use super::{SLOW, SlurmBench};
use crate::harness::{own_address, server_has_tls, transcript};

#[test]
fn workers_on_other_machines_reach_a_private_database_that_listens() {
    if !server_has_tls() {
        return;
    }
    let Some(slurm) = SlurmBench::new("worker_time: 0s") else { return };
    // As if the nodes were other machines.
    let sinfo = slurm.wrappers.join("sinfo");
    fs::write(&sinfo, "#!/bin/bash\ncase $* in *%n*) echo node7 ;; *) exec /usr/bin/sinfo \"$@\" ;; esac\n")
        .expect("ours");
    fs::set_permissions(&sinfo, Permissions::from_mode(0o755)).expect("ours");
    let refused = slurm.launch("").wait();
    let said = transcript(&refused);
    assert!(said.starts_with("exit: 3") && said.contains("workers would run on node7"), "{said}");
    assert!(said.contains("`sweep db start --listen ADDRESS`"), "{said}");

    let listening = slurm.sweep(&["db", "start", "--listen", &own_address()]);
    assert!(listening.status.success(), "{}", transcript(&listening));
    let launch = slurm.launch(SLOW);
    slurm.wait_for_all_to_run();
    let sessions = slurm.bench.ask(
        "SELECT concat_ws(' ', client_addr IS NOT NULL, ssl) FROM pg_stat_activity JOIN pg_stat_ssl USING (pid)
         WHERE application_name = 'sweep-worker'",
    );
    assert_eq!(sessions, ["t t"; 4], "{}", slurm.story());
    slurm.finish(launch);

    let url = slurm.bench.path().join(".sweep/slurm/database-url");
    assert_eq!(url.metadata().expect("it is there").permissions().mode() & 0o777, 0o600);
    let printed = slurm.sweep(&["db", "url", "--listen"]);
    assert_eq!(fs::read_to_string(url).expect("ours"), String::from_utf8_lossy(&printed.stdout).trim());
}

#[test]
fn workers_wait_for_a_database_that_is_started_anew() {
    if !server_has_tls() {
        return;
    }
    let Some(slurm) = SlurmBench::new("worker_time: 0s") else { return };
    let ok = |args: &[&str]| {
        let output = slurm.sweep(args);
        assert!(output.status.success(), "{}", transcript(&output));
    };
    ok(&["db", "start", "--listen", &own_address()]);
    let launch = slurm.launch(SLOW);
    slurm.wait_for_all_to_run();
    ok(&["db", "stop"]);
    ok(&["db", "start"]);
    slurm.finish(launch);
    let ends = slurm.bench.ask("SELECT concat_ws(' ', count(*), state, reason) FROM attempt GROUP BY state, reason");
    assert_eq!(ends, ["4 finished"], "{}", slurm.story());
}
