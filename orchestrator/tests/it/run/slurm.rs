//! The Slurm backend on a real cluster (`scripts/slurm-cluster`), and what goes wrong there. Without Slurm on the
//! machine these tests say so and pass; with `SWEEP_TEST_SLURM=1`, as in CI, they fail.

mod faults;
mod keys;
mod limits;
mod listen;
mod many;
mod nodes;
mod ranks;
mod side_by_side;
mod torture;

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use nix::sys::signal::Signal;

use super::bench::{Bench, Launch, SPEC, kill_runner, kill_worker, wait_until};
use crate::harness::{sweep, transcript};

/// Slow enough to be hit in the middle.
const SLOW: &str = "delay@60";

/// A spec for the local backend as one for Slurm.
fn on_slurm(spec: &str, options: &str) -> String {
    let local = spec.lines().find(|line| line.starts_with("backend: ")).expect("it has one");
    spec.replace(local, &format!("backend: {{slurm: {{{options}}}}}"))
}

/// A project on a cluster of its own.
struct SlurmBench {
    /// First, and so gone first: workers go before the folders that they write to.
    cluster: Cluster,
    bench: Bench,
    /// Folder of our `sbatch` and `squeue`, which stand before the real ones and misbehave when told to.
    wrappers: PathBuf,
}

/// A cluster, which ends with it.
struct Cluster {
    folder: tempfile::TempDir,
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.run(&["down"]);
    }
}

impl Cluster {
    /// `None`: there is no Slurm here. What the cluster is told: `scripts/slurm-cluster`.
    fn up(told: &[(&str, &str)]) -> Option<Cluster> {
        let there =
            |program: &&str| ["/usr/bin", "/usr/sbin"].iter().any(|folder| Path::new(folder).join(program).exists());
        if !["sbatch", "slurmctld", "slurmd", "munged"].iter().all(there) {
            assert!(std::env::var_os("SWEEP_TEST_SLURM").is_none(), "SWEEP_TEST_SLURM is set, and there is no Slurm");
            eprintln!("skipped: no Slurm on this machine (make setup-slurm)");
            return None;
        }
        let folder = tempfile::Builder::new().prefix("sweep-slurm-").tempdir().expect("a temporary folder");
        let cluster = Cluster { folder };
        let mut up = cluster.script(&["up"]);
        let output = up.envs(told.iter().copied()).output().expect("the script runs");
        assert!(output.status.success(), "{}", transcript(&output));
        Some(cluster)
    }

    fn script(&self, args: &[&str]) -> Command {
        let mut command = Command::new(Path::new(env!("CARGO_MANIFEST_DIR")).join("../scripts/slurm-cluster"));
        command.args(args).env("SLURM_CLUSTER_DIR", self.path());
        command
    }

    fn run(&self, args: &[&str]) -> Output {
        self.script(args).output().expect("the script runs")
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("cluster")
    }

    fn conf(&self) -> String {
        self.path().join("slurm.conf").display().to_string()
    }

    /// Output of a command of Slurm.
    fn slurm(&self, program: &str, args: &[&str]) -> String {
        let output = Command::new(program).args(args).env("SLURM_CONF", self.conf()).output().expect("Slurm is there");
        assert!(output.status.success(), "{program} {args:?}: {}", transcript(&output));
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }

    /// Lets jobs run that were held.
    fn release(&self, jobs: &[String]) {
        for job in jobs {
            self.slurm("scontrol", &["release", job]);
        }
    }

    /// Jobs that have not ended, in these states.
    fn queue(&self, states: &str) -> Vec<String> {
        let said = self.slurm("squeue", &["--noheader", "--array", "--states", states, "--format", "%i"]);
        said.lines().map(str::to_owned).collect()
    }
}

impl SlurmBench {
    /// [`SPEC`] with these options of the backend.
    fn new(options: &str) -> Option<SlurmBench> {
        SlurmBench::told(options, &[])
    }

    /// With another spec.
    fn with_spec(spec: &str, options: &str) -> Option<SlurmBench> {
        Some(SlurmBench::on(Cluster::up(&[])?, Bench::new(&on_slurm(spec, options))))
    }

    /// The same on a cluster that is told something.
    fn told(options: &str, told: &[(&str, &str)]) -> Option<SlurmBench> {
        Some(SlurmBench::on(Cluster::up(told)?, Bench::new(&on_slurm(SPEC, options))))
    }

    fn on(cluster: Cluster, bench: Bench) -> SlurmBench {
        let wrappers = bench.path().join("bin");
        fs::create_dir(&wrappers).expect("the project can be written to");
        let script = |name: &str, text: String| {
            let path = wrappers.join(name);
            fs::write(&path, text).expect("the project can be written to");
            fs::set_permissions(&path, Permissions::from_mode(0o755)).expect("the file is ours");
        };
        let place = wrappers.display();
        script(
            "sbatch",
            format!(
                "#!/bin/bash
lie=$(cat '{place}/lie' 2>/dev/null); rm -f '{place}/lie'; echo \"$lie\" >>'{place}/lies'
away='sbatch: error: Batch job submission failed: Socket timed out on send/recv operation'
case $lie in
accepted-and-silent) /usr/bin/sbatch \"$@\" >/dev/null 2>&1; exit 1 ;;
accepted-and-denied) /usr/bin/sbatch \"$@\" >/dev/null; echo \"$away\" >&2; exit 1 ;;
accepted-and-killed) /usr/bin/sbatch \"$@\" >/dev/null; kill -9 $$ ;;
garbage) echo 'Welcome to the cluster'; exit 0 ;;
warning) echo 'sbatch: warning: your project ends soon' >&2; echo 'Welcome'; exec /usr/bin/sbatch \"$@\" ;;
away) echo \"$away\" >&2; exit 1 ;;
esac
exec /usr/bin/sbatch \"$@\"
"
            ),
        );
        script(
            "squeue",
            format!(
                "#!/bin/bash
echo >>'{place}/asked'
[ ! -e '{place}/deaf' ] || {{ echo 'slurm_load_jobs error: Unable to contact slurm controller' >&2; exit 1; }}
exec /usr/bin/squeue \"$@\"
"
            ),
        );
        // What accounts say, where a test makes them up.
        script(
            "sacct",
            format!(
                "#!/bin/bash\necho \"$@\" >>'{place}/looked-up'\n[ ! -e '{place}/accounts' ] || exec cat '{place}/accounts'\n\
                 exec /usr/bin/sacct \"$@\"\n"
            ),
        );
        SlurmBench { cluster, bench, wrappers }
    }

    fn launch(&self, fault: &str) -> Launch {
        let conf = self.cluster.conf();
        let path = format!("{}:{}", self.wrappers.display(), std::env::var("PATH").unwrap_or_default());
        self.bench.launch_with("sweep.yaml", fault, &[("SLURM_CONF", &conf), ("PATH", &path)])
    }

    /// Output of a command of Slurm, which may fail.
    fn on_cluster(&self, program: &str, args: &[&str]) -> String {
        let mut command = Command::new(program);
        let output = command.args(args).env("SLURM_CONF", self.cluster.conf()).output().expect("Slurm is there");
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }

    /// `sweep` in the project, on the cluster.
    fn sweep(&self, args: &[&str]) -> Output {
        let mut command = sweep(self.bench.path(), args);
        command.env("SLURM_CONF", self.cluster.conf()).output().expect("sweep runs")
    }

    /// Waits for a launch that has to go well, and for everything to be done once.
    fn finish(&self, launch: Launch) {
        let output = launch.wait();
        assert!(output.status.success(), "{}\n{}", transcript(&output), self.story());
        self.bench.assert_done_once();
        // The last workers leave a moment after their results.
        let left = || self.cluster.queue("PENDING,RUNNING,COMPLETING").is_empty().then_some(());
        wait_until(left).unwrap_or_else(|| panic!("Slurm jobs are left\n{}", self.story()));
    }

    /// Stops a launch, which leaves jobs to be done.
    fn stop(&self, launch: Launch) {
        launch.signal(Signal::SIGTERM);
        let output = launch.wait();
        assert_eq!(output.status.code(), Some(1), "{}\n{}", transcript(&output), self.story());
    }

    /// Stops a launch whose four jobs all wait in the queue.
    fn stop_what_waits(&self, launch: Launch) {
        self.stop(launch);
        assert_eq!(self.cluster.queue("PENDING,RUNNING"), [""; 0], "{}", self.story());
        assert_eq!(self.ends(), ["4 stopped withdrawn before it started"], "{}", self.story());
    }

    /// Waits for a launch after which one job is cancelled and three are done.
    fn finish_with_one_cancelled(&self, launch: Launch) {
        self.finish_with(launch, &["1 cancelled", "3 done"]);
    }

    /// Waits for a launch after which jobs are in these states, and not all done.
    fn finish_with(&self, launch: Launch, states: &[&str]) {
        let output = launch.wait();
        assert_eq!(output.status.code(), Some(1), "{}\n{}", transcript(&output), self.story());
        let jobs = self.bench.ask("SELECT concat_ws(' ', count(*), state) FROM job GROUP BY state ORDER BY 1");
        assert_eq!(jobs, states, "{}", self.story());
    }

    fn attempts(&self) -> usize {
        self.bench.ask("SELECT token FROM attempt").len()
    }

    /// Attempts by state and reason.
    fn ends(&self) -> Vec<String> {
        self.bench.ask(
            "SELECT concat_ws(' ', count(*), state, regexp_replace(reason, 'job \\d+_\\d+', 'job J'))
             FROM attempt GROUP BY state, regexp_replace(reason, 'job \\d+_\\d+', 'job J') ORDER BY 1",
        )
    }

    /// The two jobs that take longer than their time were stopped for it. Slurm may tell workers up to a minute early
    /// (`sbatch --signal`), and the others with them.
    fn assert_stopped_by_time(&self) {
        let ends = self.ends();
        let stopped = ends.iter().find_map(|end| end.strip_suffix(" stopped time limit")?.parse::<usize>().ok());
        let finished = ends.iter().any(|end| end == "4 finished");
        assert!(ends.len() == 2 && finished && stopped.is_some_and(|count| count >= 2), "{}", self.story());
    }

    fn wait_for_all_to_run(&self) {
        self.bench.wait_for("SELECT 'all' FROM attempt HAVING count(*) FILTER (WHERE samples_seen > 0) >= 4");
    }

    /// Four jobs wait in the queue, and their launcher knows; gives their names there.
    fn wait_for_all_to_be_held(&self) -> Vec<String> {
        let held = || {
            let queue = self.cluster.queue("PENDING");
            (queue.len() == 4).then_some(queue)
        };
        let held = wait_until(held).unwrap_or_else(|| panic!("nothing is held\n{}", self.story()));
        self.bench.wait_for("SELECT 'all' FROM attempt WHERE state = 'launched' HAVING count(*) = 4");
        held
    }

    fn story(&self) -> String {
        let queue = self.cluster.slurm("squeue", &["--states=all", "--array", "--format", "%i %T %r %N %j"]);
        format!("{}\n{queue}", self.bench.story())
    }
}

#[test]
fn jobs_run_as_a_job_array_and_nothing_else_is_different() {
    let Some(slurm) = SlurmBench::new("worker_time: 0s") else { return };
    slurm.finish(slurm.launch(""));
    assert_eq!(slurm.attempts(), 4);
    let handles = slurm.bench.ask("SELECT concat_ws(' ', backend, host, handle) FROM attempt ORDER BY handle");
    assert_eq!(handles, ["slurm test 1_0", "slurm test 1_1", "slurm test 1_2", "slurm test 1_3"]);
    let script = fs::read_dir(slurm.bench.path().join(".sweep/slurm")).expect("it is there").next().expect("one array");
    let script = fs::read_to_string(script.expect("it is readable").path().join("script.sh")).expect("a script");
    assert!(script.contains("\n#SBATCH --no-requeue\n"), "{script}");
}

#[test]
fn workers_go_on_to_further_jobs_within_their_time() {
    let Some(slurm) = SlurmBench::new("worker_time: 5m, jobs: 2") else { return };
    slurm.finish(slurm.launch(""));
    let workers = slurm.bench.ask("SELECT DISTINCT coalesce(worker, token) FROM attempt");
    assert_eq!(workers.len(), 2, "{}", slurm.story());
}

#[test]
fn a_node_that_is_cut_off_keeps_its_jobs_while_they_beat() {
    let Some(slurm) = SlurmBench::new("worker_time: 0s") else { return };
    let launch = slurm.launch("delay@300");
    slurm.wait_for_all_to_run();
    // The steps live on, and the controller will call the node dead: the split brain.
    for node in ["1", "2", "3"] {
        slurm.cluster.run(&["kill-node", node]);
    }
    let down = || slurm.cluster.queue("PENDING,RUNNING,COMPLETING").is_empty().then_some(());
    wait_until(down).unwrap_or_else(|| panic!("the nodes are not missed\n{}", slurm.story()));
    for node in ["1", "2", "3"] {
        slurm.cluster.run(&["start-node", node]);
    }
    slurm.finish(launch);
    assert_eq!(slurm.ends(), ["4 finished"], "{}", slurm.story());
}

#[test]
fn a_controller_that_has_forgotten_everything() {
    let Some(slurm) = SlurmBench::new("worker_time: 0s, jobs: 8") else { return };
    let launch = slurm.launch(SLOW);
    slurm.wait_for_all_to_run();
    // It gives the same job ids again, and ends what it does not know.
    slurm.cluster.run(&["restart-controller", "--wipe"]);
    slurm.finish(launch);
}

#[test]
fn whatever_sbatch_says_each_job_is_done_once() {
    let lies = ["accepted-and-silent", "accepted-and-denied", "accepted-and-killed", "garbage", "warning", "away"];
    be_lied_to("worker_time: 0s", &lies);
}

fn be_lied_to(options: &str, lies: &[&str]) {
    let Some(slurm) = SlurmBench::new(options) else { return };
    for lie in lies {
        fs::write(slurm.wrappers.join("lie"), lie).expect("the project can be written to");
        slurm.finish(slurm.launch(""));
        let lies = fs::read_to_string(slurm.wrappers.join("lies")).expect("sbatch was called");
        assert!(lies.lines().any(|told| told == *lie), "{lies}");
        slurm.bench.ask("TRUNCATE attempt CASCADE");
        slurm.bench.ask("UPDATE job SET state = 'pending', done_at = NULL, fence = 0");
        for job in fs::read_dir(slurm.bench.path().join(".sweep/jobs")).expect("it is there") {
            fs::remove_dir_all(job.expect("it is readable").path()).expect("it is ours");
        }
    }
}

#[test]
fn a_queue_that_does_not_answer_costs_no_attempt() {
    let Some(slurm) = SlurmBench::new("worker_time: 0s") else { return };
    let launch = slurm.launch(SLOW);
    slurm.wait_for_all_to_run();
    fs::write(slurm.wrappers.join("deaf"), "").expect("the project can be written to");
    // One job ends and is followed by none, one worker dies: nothing can be said of either.
    slurm.bench.wait_for("SELECT 'one' FROM job WHERE state = 'done'");
    fs::remove_file(slurm.wrappers.join("deaf")).expect("it is there");
    slurm.finish(launch);
    assert_eq!(slurm.attempts(), 4, "{}", slurm.story());
}

#[test]
fn preempted_jobs_go_on_from_their_checkpoints() {
    preempt("worker_time: 0s");
}

fn preempt(options: &str) {
    let Some(slurm) = SlurmBench::new(options) else { return };
    let launch = slurm.launch(SLOW);
    slurm.wait_for_all_to_run();
    slurm.bench.wait_for_checkpoint();
    let urgent = slurm.cluster.slurm(
        "sbatch",
        &["--parsable", "--partition=high", "--nodes=3", "--exclusive", "--output=/dev/null", "--wrap", "sleep 2"],
    );
    slurm.finish(launch);
    assert!(!slurm.cluster.queue("all").is_empty(), "{urgent}");
    let resumed = "SELECT count(*)::text FROM attempt WHERE state = 'finished' AND resumed_from_samples > 0";
    assert_ne!(slurm.bench.ask(resumed), ["0"], "{}", slurm.story());
}

#[test]
fn a_job_longer_than_its_time_is_a_chain_of_submissions() {
    // The worker stops 30 s before the minute is over, after 30 of 40 steps of a second each.
    let Some(slurm) = SlurmBench::new("worker_time: 0s, time: 60s") else { return };
    slurm.finish(slurm.launch("delay@1000"));
    slurm.assert_stopped_by_time();
}

#[test]
fn workers_and_launchers_are_killed() {
    let Some(slurm) = SlurmBench::new("worker_time: 0s") else { return };
    let launch = slurm.launch(SLOW);
    slurm.wait_for_all_to_run();
    let tokens = slurm.bench.ask("SELECT token FROM attempt ORDER BY attempt_id");
    assert!(kill_worker(&tokens[0], Signal::SIGKILL));
    assert!(kill_runner(&tokens[1]) > 0);
    launch.kill();
    // Two at once.
    let launches = [slurm.launch(""), slurm.launch("")];
    for launch in launches {
        slurm.finish(launch);
    }
}

#[test]
fn workers_that_reach_no_database_leave_the_same_rows() {
    let Some(slurm) = SlurmBench::new("worker_time: 0s, ship: spool") else { return };
    slurm.finish(slurm.launch(""));
    let ends = slurm.bench.ask("SELECT concat_ws(' ', count(*), ship, state) FROM attempt GROUP BY ship, state");
    assert_eq!(ends, ["4 spool finished"], "{}", slurm.story());
}

#[test]
fn what_workers_without_a_database_leave_is_stored_by_the_next_launch() {
    let Some(slurm) = SlurmBench::new("worker_time: 0s, ship: spool, options: [--hold]") else { return };
    let output = slurm.sweep(&["launch", "sweep.yaml", "--detach"]);
    assert!(output.status.success(), "{}", transcript(&output));
    slurm.cluster.release(&slurm.cluster.queue("PENDING"));
    let left = || slurm.cluster.queue("PENDING,RUNNING,COMPLETING").is_empty().then_some(());
    wait_until(left).unwrap_or_else(|| panic!("the workers don't end\n{}", slurm.story()));
    let done = "SELECT count(*)::text FROM job WHERE state = 'done'";
    assert_eq!(slurm.bench.ask(done), ["0"], "nobody can have told the database");
    slurm.finish(slurm.launch(""));
    assert_eq!(slurm.attempts(), 4, "{}", slurm.story());
}

#[test]
fn a_worker_without_a_database_that_comes_back_too_late_changes_nothing() {
    let Some(slurm) = SlurmBench::new("worker_time: 0s, ship: spool") else { return };
    let launch = slurm.launch("delay@100");
    slurm.wait_for_all_to_run();
    let token = slurm.bench.ask("SELECT token FROM attempt WHERE handle = '1_0'").pop().expect("it has one");
    // Silent on a node that the controller misses, and its step lives on.
    assert!(kill_worker(&token, Signal::SIGSTOP));
    for node in ["1", "2", "3"] {
        slurm.cluster.run(&["kill-node", node]);
    }
    slurm.bench.wait_for("SELECT 'lost' FROM attempt WHERE state = 'lost'");
    for node in ["1", "2", "3"] {
        slurm.cluster.run(&["start-node", node]);
    }
    slurm.bench.wait_for("SELECT 'again' FROM attempt WHERE fence = 2 AND state IN ('running', 'finished')");
    kill_worker(&token, Signal::SIGCONT);
    slurm.finish(launch);
    let gone = || (!kill_worker(&token, Signal::SIGCONT)).then_some(());
    wait_until(gone).unwrap_or_else(|| panic!("it goes on\n{}", slurm.story()));
    let lost = slurm.bench.ask("SELECT token FROM attempt WHERE state = 'lost'");
    assert!(lost.contains(&token), "{lost:?}\n{}", slurm.story());
}

#[test]
fn a_held_job_waits_and_a_waiting_job_cancelled_by_hand_is_not_tried_again() {
    let Some(slurm) = SlurmBench::new("worker_time: 0s, options: [--hold]") else { return };
    let launch = slurm.launch("");
    let held = slurm.wait_for_all_to_be_held();
    let key = slurm.bench.ask("SELECT left(job_key, 12) FROM job JOIN attempt USING (job_id) WHERE handle = '1_0'");
    let explained = slurm.sweep(&["explain", &key[0]]);
    let said = transcript(&explained);
    assert!(said.contains("Slurm job 1_0 is PENDING, JobHeldUser") && said.contains("scontrol release"), "{said}");
    slurm.cluster.slurm("scancel", &[&held[0]]);
    slurm.cluster.release(&held[1..]);
    slurm.finish_with_one_cancelled(launch);
    assert_eq!(slurm.attempts(), 4, "{}", slurm.story());
}

#[test]
fn a_running_job_cancelled_by_hand_is_not_tried_again() {
    let Some(slurm) = SlurmBench::new("worker_time: 0s") else { return };
    let launch = slurm.launch(SLOW);
    slurm.wait_for_all_to_run();
    slurm.cluster.slurm("scancel", &["1_2"]);
    slurm.finish_with_one_cancelled(launch);
    // Until it is asked for again.
    let retried = slurm.bench.sweep(&["retry", "tiny"]);
    assert!(retried.status.success(), "{}", transcript(&retried));
    slurm.finish(slurm.launch(""));
}

#[test]
fn a_launch_that_detaches_leaves_only_slurm_jobs_behind() {
    let Some(slurm) = SlurmBench::new("worker_time: 0s, options: [--hold]") else { return };
    let output = slurm.sweep(&["launch", "sweep.yaml", "--detach"]);
    assert!(output.status.success(), "{}", transcript(&output));
    let held = slurm.cluster.queue("PENDING");
    assert_eq!(held.len(), 4, "{}", slurm.story());
    slurm.cluster.release(&held);
    slurm.bench.wait_for("SELECT 'all' FROM job HAVING bool_and(state = 'done')");
    slurm.finish(slurm.launch(""));
    assert_eq!(slurm.attempts(), 4, "{}", slurm.story());
}

#[test]
fn cancel_takes_jobs_out_of_the_queue() {
    let Some(slurm) = SlurmBench::new("worker_time: 0s, options: [--hold]") else { return };
    let output = slurm.sweep(&["launch", "sweep.yaml", "--detach"]);
    assert!(output.status.success(), "{}", transcript(&output));
    let one = slurm.cluster.queue("PENDING").pop().expect("four are held");
    slurm.cluster.slurm("scontrol", &["release", &one]);
    slurm.bench.wait_for("SELECT 'done' FROM job WHERE state = 'done'");
    let output = slurm.sweep(&["cancel", "tiny"]);
    assert!(output.status.success(), "{}", transcript(&output));
    assert_eq!(slurm.cluster.queue("PENDING,RUNNING"), [""; 0], "{}", slurm.story());
    let jobs = slurm.bench.ask("SELECT concat_ws(' ', count(*), state) FROM job GROUP BY state ORDER BY 1");
    assert_eq!(jobs, ["1 done", "3 cancelled"]);
    let live = "SELECT token FROM attempt WHERE state IN ('intent', 'launched', 'running')";
    assert!(slurm.bench.ask(live).is_empty(), "{}", slurm.story());
    let retried = slurm.sweep(&["retry", "tiny"]);
    assert!(retried.status.success(), "{}", transcript(&retried));
    slurm.bench.change_spec(&[(", options: [--hold]", "")]);
    slurm.finish(slurm.launch(""));
}

#[test]
fn a_stop_takes_waiting_jobs_out_of_the_queue_and_costs_nothing() {
    let Some(slurm) = SlurmBench::new("worker_time: 0s, options: [--hold]") else { return };
    let launch = slurm.launch("");
    slurm.wait_for_all_to_be_held();
    slurm.stop_what_waits(launch);
}

#[test]
fn a_dry_run_asks_slurm_and_submits_nothing() {
    let Some(slurm) = SlurmBench::new("time: 2h") else { return };
    let output = slurm.sweep(&["launch", "sweep.yaml", "--dry-run"]);
    let said = transcript(&output);
    assert!(output.status.success() && said.contains("to start at"), "{said}");
    let script = slurm.bench.path().join(".sweep/slurm/dry-run/script.sh");
    assert!(fs::read_to_string(script).is_ok_and(|text| text.contains("#SBATCH --array=0-3\n")), "{said}");
    slurm.bench.change_spec(&[("time: 2h", "memory: 900G")]);
    let output = slurm.sweep(&["launch", "sweep.yaml", "--dry-run"]);
    assert_eq!(output.status.code(), Some(2), "{}", transcript(&output));
    assert!(slurm.cluster.queue("all").is_empty());
}

#[test]
fn what_slurm_will_never_accept_ends_the_launch_at_once() {
    let Some(slurm) = SlurmBench::new("worker_time: 0s, options: [--reservation=nowhere]") else { return };
    let output = slurm.launch("").wait();
    assert_eq!(output.status.code(), Some(3), "{}", transcript(&output));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("Requested reservation is invalid"), "{said}");
}

#[test]
fn a_launch_refuses_what_no_partition_has_before_it_records_anything() {
    let Some(slurm) = SlurmBench::new("worker_time: 0s, partition: nowhere") else { return };
    let output = slurm.launch("").wait();
    let said = transcript(&output);
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(said.contains("there is no partition `nowhere`; there are low, high"), "{said}");
    assert!(!slurm.bench.path().join(".sweep/postgres").exists(), "nothing was started for it");
}

#[test]
fn a_script_submitted_by_hand_is_adopted_and_never_runs_twice() {
    let Some(slurm) = SlurmBench::new("worker_time: 0s") else { return };
    let planned = slurm.sweep(&["plan", "sweep.yaml", "--json"]);
    assert!(planned.status.success(), "{}", transcript(&planned));
    let plan: serde_json::Value = serde_json::from_slice(&planned.stdout).expect("JSON");
    let keys: Vec<&str> =
        plan["jobs"].as_array().expect("jobs").iter().filter_map(|job| job["job_key"].as_str()).collect();
    let script = |key: &str| {
        let output = slurm.sweep(&["submit-script", "sweep.yaml", key]);
        assert!(output.status.success(), "{}", transcript(&output));
        let path = slurm.bench.path().join(format!("{}.sh", &key[..8]));
        fs::write(&path, output.stdout).expect("the project can be written to");
        path.display().to_string()
    };
    // One waits when the launcher comes, one is never submitted, one has ended before.
    let (waits, forgotten, ended) = (script(keys[0]), script(keys[1]), script(keys[2]));
    let again = slurm.sweep(&["submit-script", "sweep.yaml", keys[0]]);
    assert_eq!(again.status.code(), Some(2), "{}", transcript(&again));
    slurm.cluster.slurm("sbatch", &["--hold", &waits]);
    slurm.cluster.slurm("sbatch", &[&ended]);
    slurm.bench.wait_for("SELECT 'done' FROM job WHERE state = 'done'");
    // As if its three minutes were over.
    slurm
        .bench
        .ask("UPDATE attempt SET created_at = created_at - interval '1 h' WHERE state = 'intent' RETURNING 'old'");
    let launch = slurm.launch("");
    let all_but_one = "SELECT 'three' FROM job WHERE state = 'done' HAVING count(*) = 3";
    slurm.bench.wait_for(all_but_one);
    slurm.bench.wait_for("SELECT 'adopted' FROM attempt WHERE state = 'launched' AND handle IS NOT NULL");
    slurm.cluster.release(&slurm.cluster.queue("PENDING"));
    slurm.finish(launch);
    assert_eq!(slurm.ends(), ["4 finished"], "{}", slurm.story());
    // Too late: its attempt has ended.
    slurm.cluster.slurm("sbatch", &[&forgotten]);
    let over = || slurm.cluster.queue("PENDING,RUNNING,COMPLETING").is_empty().then_some(());
    wait_until(over).unwrap_or_else(|| panic!("it stays\n{}", slurm.story()));
    assert_eq!(slurm.ends(), ["4 finished"], "{}", slurm.story());
    slurm.bench.assert_done_once();
}

#[test]
fn a_plan_refuses_what_no_partition_has() {
    let Some(slurm) = SlurmBench::new("gpus: 3") else { return };
    let output = slurm.sweep(&["plan", "sweep.yaml"]);
    let said = transcript(&output);
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(said.contains("`gpus`: 3 is asked, and the most there is is 2 on a node, in partition low"), "{said}");
    slurm.bench.change_spec(&[("gpus: 3", "gpus: 2, jobs: 3")]);
    let said = transcript(&slurm.sweep(&["plan", "sweep.yaml"]));
    assert!(said.contains("submitted at first as 1 job array of at most 11 tasks"), "{said}");
    assert!(!said.contains("not checked"), "{said}");
}
