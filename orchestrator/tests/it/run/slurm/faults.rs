//! Memory and disks that run out, and real training under faults, on a real cluster.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use nix::sys::signal::Signal;

use super::{Cluster, SlurmBench, on_slurm, wait_until};
use crate::harness::transcript;
use crate::run::bench::{Bench, SPEC, clip_runner_is_built, kill_worker};
use crate::run::hostile::SmallDisk;

/// Where there are cgroups, Slurm calls it OUT_OF_MEMORY; here its own watch over processes kills them, and calls it
/// FAILED.
#[test]
fn a_worker_that_is_killed_for_its_memory_is_lost_and_its_job_tried_again() {
    let Some(cluster) = Cluster::up(&[("SLURM_CLUSTER_KILL_OVER_MEMORY", "1")]) else { return };
    let bench = Bench::new(&on_slurm(SPEC, "worker_time: 0s, memory: 256M").replace("synthetic", "./runner.sh"));
    let synthetic = Path::new(env!("CARGO_BIN_EXE_sweep")).with_file_name("synthetic-runner");
    // The first that comes takes 600 MB; it is the shell's child, as a data loader is a trainer's.
    let text = format!(
        "#!/bin/sh
if [ \"$1\" != describe ] && mkdir '{place}/first' 2>/dev/null; then
    (head -c 600M /dev/zero; sleep 100) | tail -n 1 >/dev/null
fi
exec {synthetic} \"$@\"
",
        place = bench.path().display(),
        synthetic = synthetic.display(),
    );
    let runner = bench.path().join("runner.sh");
    fs::write(&runner, text).expect("the project can be written to");
    fs::set_permissions(&runner, Permissions::from_mode(0o755)).expect("the file is ours");
    let slurm = SlurmBench::on(cluster, bench);
    let output = slurm.launch("").wait();
    assert!(output.status.success(), "{}\n{}", transcript(&output), slurm.story());
    slurm.bench.assert_each_done_once();
    let ends = slurm.ends();
    let lost = "1 lost Slurm job J ended as FAILED on node";
    assert!(ends[0].starts_with(lost) && ends[1..] == ["4 finished"], "{ends:?}\n{}", slurm.story());
    let log = fs::read_to_string(slurm.cluster.path().join("log/completed")).expect("it is there");
    assert!(log.contains("JobState=FAILED"), "{log}");
}

#[test]
fn a_disk_that_is_full_on_the_nodes_costs_no_retry() {
    full_disk("worker_time: 0s");
}

#[test]
fn a_disk_that_is_full_on_nodes_without_a_database_costs_no_retry() {
    full_disk("worker_time: 0s, ship: spool");
}

fn full_disk(options: &str) {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("skipped: only root can mount a small disk");
        return;
    }
    let Some(cluster) = Cluster::up(&[]) else { return };
    let slurm = SlurmBench::on(cluster, Bench::new(&on_slurm(&format!("{SPEC}limits: {{retries: 0}}\n"), options)));
    let jobs = slurm.bench.path().join(".sweep/jobs");
    fs::create_dir_all(&jobs).expect("the project is ours");
    let Some(disk) = SmallDisk::mount(&jobs) else { return };
    let launch = slurm.launch(super::SLOW);
    slurm.wait_for_all_to_run();
    let ballast = jobs.join("ballast");
    disk.fill(&ballast);
    // A worker without a database can't even leave word of it, until there is room.
    let met = || {
        let told = slurm.bench.try_ask("SELECT token FROM attempt WHERE reason LIKE 'no space left on the disk%'")?;
        (!told.is_empty() || slurm.bench.story().contains("no space left on the disk")).then_some(())
    };
    wait_until(met).unwrap_or_else(|| panic!("nobody minds\n{}", slurm.story()));
    fs::remove_file(&ballast).expect("it is ours");
    // They rest for a minute after that; as if it were over.
    let rested = || {
        slurm.bench.try_ask(
            "UPDATE attempt SET ended_at = ended_at - interval '2 min'
             WHERE reason LIKE 'no space left%' AND ended_at > now() - interval '1 min' RETURNING token",
        );
        slurm.bench.try_ask("SELECT 'open' FROM job WHERE state <> 'done'")?.is_empty().then_some(())
    };
    wait_until(rested).unwrap_or_else(|| panic!("it does not go on\n{}", slurm.story()));
    slurm.finish(launch);
    assert_eq!(slurm.bench.ask("SELECT count(*)::text FROM attempt WHERE state IN ('failed', 'lost')"), ["0"]);
}

#[test]
fn waiting_jobs_that_are_all_cancelled_by_hand_are_not_tried_again() {
    let Some(slurm) = SlurmBench::new("worker_time: 0s, options: [--hold]") else { return };
    let launch = slurm.launch("");
    // One after the other, until Slurm shows nothing of the array but that it is cancelled.
    for job in slurm.wait_for_all_to_be_held() {
        slurm.cluster.slurm("scancel", &[&job]);
    }
    let output = launch.wait();
    assert_eq!(output.status.code(), Some(1), "{}\n{}", transcript(&output), slurm.story());
    let jobs = slurm.bench.ask("SELECT concat_ws(' ', count(*), state) FROM job GROUP BY state");
    assert_eq!((jobs, slurm.attempts()), (vec!["4 cancelled".to_owned()], 4), "{}", slurm.story());
}

/// Three jobs of real training, each long enough to be hit.
const CLIP: &str = "\
name: clip
runner: clip
data: {pool: data/train, name: fixture}
grid: {model: cpu-w32-l2, samples_seen: 16384, data_size: 256, seed: [0, 1, 2]}
recipe: {global_batch: 64, lr: 1e-3, warmup: 10%, augmentation: flip_shift, context_length: 16, checkpoint_every: 640}
evaluations: [{name: val, pool: data/val, tasks: [contrastive_loss]}]
backend: {local: {slots: 1, threads_per_slot: 1}}
limits: {retries: 20}
";

fn clip(spec: &str) -> Option<Bench> {
    if !clip_runner_is_built() {
        return None;
    }
    let bench = Bench::new(spec);
    for pool in ["train", "val"] {
        let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("../runners/pool/fixture").join(pool);
        let to = bench.path().join("data").join(pool);
        fs::create_dir_all(&to).expect("the project can be written to");
        for file in fs::read_dir(from).expect("the fixture is there") {
            let file = file.expect("it is readable").path();
            if file.is_file() {
                fs::copy(&file, to.join(file.file_name().expect("a name"))).expect("it can be copied");
            }
        }
    }
    Some(bench)
}

/// Every number that training gave, to the bit, and the bytes of the last weights; not how fast it was.
fn trained(bench: &Bench) -> (Vec<String>, Vec<(PathBuf, Vec<u8>)>) {
    let numbers = bench.ask(
        "SELECT concat_ws(' ', job_key, metric, step, samples_seen, encode(float8send(value), 'hex')) FROM curve
         WHERE metric NOT IN ('samples_per_sec', 'data_wait_secs')
         UNION ALL
         SELECT concat_ws(' ', job_key, dataset, metric, m.samples_seen, encode(float8send(value), 'hex'))
         FROM measurement m JOIN job USING (job_id) ORDER BY 1",
    );
    let mut weights = Vec::new();
    let mut jobs: Vec<PathBuf> = fs::read_dir(bench.path().join(".sweep/jobs"))
        .expect("it is there")
        .map(|job| job.expect("it is readable").path())
        .collect();
    jobs.sort();
    for job in jobs {
        let checkpoints = fs::read_dir(job.join("checkpoints")).expect("there are some");
        let names = checkpoints.map(|entry| entry.expect("it is readable").path());
        let last = names.filter(|path| path.join("model.safetensors").exists()).max().expect("one with weights");
        let bytes = fs::read(last.join("model.safetensors")).expect("it is readable");
        weights.push((job.file_name().expect("a name").into(), bytes));
    }
    (numbers, weights)
}

#[test]
fn training_under_faults_ends_with_the_weights_of_training_without() {
    let Some(untouched) = clip(CLIP) else { return };
    untouched.finish();
    let Some(cluster) = Cluster::up(&[]) else { return };
    let Some(bench) = clip(&on_slurm(CLIP, "worker_time: 0s, jobs: 2")) else { return };
    let slurm = SlurmBench::on(cluster, bench);
    let launch = slurm.launch("");
    let token = slurm.bench.wait_for_checkpoint();
    assert!(kill_worker(&token, Signal::SIGKILL));
    // Preempted, with time for a checkpoint.
    slurm.bench.wait_for("SELECT 'again' FROM attempt WHERE state = 'running' AND resumed_from_samples > 0");
    slurm.bench.wait_for_checkpoint();
    let all = ["--parsable", "--partition=high", "--nodes=3", "--exclusive", "--output=/dev/null", "--wrap", "true"];
    slurm.cluster.slurm("sbatch", &all);
    let stopped = "SELECT token FROM attempt WHERE state IN ('stopped', 'lost') AND samples_seen > 640";
    slurm.bench.wait_for(stopped);
    // A node that is cut off, and its worker dies.
    let token = slurm.bench.wait_for("SELECT token FROM attempt WHERE state = 'running' AND samples_seen > 640");
    for node in ["1", "2", "3"] {
        slurm.cluster.run(&["kill-node", node]);
    }
    kill_worker(&token, Signal::SIGKILL);
    slurm.bench.wait_for("SELECT 'lost' FROM attempt WHERE state = 'lost'");
    for node in ["1", "2", "3"] {
        slurm.cluster.run(&["start-node", node]);
    }
    let output = launch.wait();
    assert!(output.status.success(), "{}\n{}", transcript(&output), slurm.story());
    slurm.bench.assert_each_done_once();
    let ends = slurm.ends();
    assert!(ends.len() > 1, "no fault met a job: {ends:?}");
    let ((numbers, weights), (expected_numbers, expected_weights)) = (trained(&slurm.bench), trained(&untouched));
    assert_eq!(numbers, expected_numbers, "{ends:?}");
    assert_eq!(weights.len(), 3);
    assert!(weights == expected_weights, "weights differ: {ends:?}");
}
