//! Keys of the places where jobs run.

use super::keys::Need::{Default, Optional};
use super::keys::{Key, Kind, key};

pub(super) static BACKENDS: &[Key] = &[
    key("local", Kind::Section(LOCAL), Optional, "This machine"),
    key("slurm", Kind::Section(SLURM), Optional, "A Slurm cluster, with `sbatch` and `squeue` on PATH"),
];

static LOCAL: &[Key] = &[
    key(
        "memory",
        Kind::Text,
        Optional,
        "Memory that a job of one process may take by estimate, such as `500M` or `64G`; else what this machine has, or its smallest GPU",
    ),
    key(
        "ranks",
        Kind::Count { min: 1, max: 4_096 },
        Default("1"),
        "Processes of one job, each with its share of every batch; a job's threads are divided among them",
    ),
    key("slots", Kind::Count { min: 1, max: 4_096 }, Optional, "Jobs at one time; else one a GPU, or by cores"),
    key("threads_per_slot", Kind::Count { min: 1, max: 4_096 }, Optional, "Threads of each; else cores over slots"),
    key(
        "worker_time",
        Kind::Duration { min: 0 },
        Default("1m"),
        "A worker goes on to the next job until it is so old; `0s`: a worker process a job",
    ),
    key(
        "ship",
        Kind::Choice(&["database", "spool"]),
        Default("database"),
        "Who stores results: the worker; or, where it reaches no database, the launcher, from the job's folder",
    ),
];

/// What is asked of a Slurm cluster, in a spec and in a site's profile.
pub(super) static SLURM: &[Key] = &[
    key("partition", Kind::Text, Optional, "`sbatch --partition`; else the cluster's default"),
    key("account", Kind::Text, Optional, "`sbatch --account`"),
    key("qos", Kind::Text, Optional, "`sbatch --qos`"),
    key("constraint", Kind::Text, Optional, "`sbatch --constraint`: features that nodes must have"),
    key("gpus", Kind::Count { min: 0, max: 1_024 }, Default("0"), "GPUs of one job (`--gres=gpu:N`)"),
    key("cpus", Kind::Count { min: 1, max: 4_096 }, Default("1"), "CPUs of one job, which are its threads"),
    key(
        "memory",
        Kind::Text,
        Optional,
        "Memory of one job, such as `500M` or `16G` (`--mem`); else by estimate, without GPUs",
    ),
    key(
        "time",
        Kind::Duration { min: 60 },
        Optional,
        "Wall-clock time of one submission; longer jobs go on from their checkpoints in the next; else by measured speed, else 1h",
    ),
    key(
        "nodes",
        Kind::Count { min: 1, max: 4_096 },
        Default("1"),
        "Nodes of one job, a process of the runner on each; CPUs, GPUs and memory are those of one node",
    ),
    key(
        "side_by_side",
        Kind::Count { min: 1, max: 1_024 },
        Default("1"),
        "Jobs at one time in one Slurm job, each with its share of it; CPUs, GPUs and memory stay those of one of them",
    ),
    key("jobs", Kind::Count { min: 1, max: 100_000 }, Default("100"), "Slurm jobs in the queue at one time"),
    key(
        "worker_time",
        Kind::Duration { min: 0 },
        Optional,
        "A worker goes on to the next job until it is so old; else for half of `time`; `0s`: a Slurm job a job",
    ),
    key(
        "ship",
        Kind::Choice(&["database", "spool"]),
        Default("database"),
        "Who stores results: the worker; or, where it reaches no database, the launcher, from the job's folder",
    ),
    key("setup", Kind::List(&Kind::Text), Default("[]"), "Shell lines before the worker, such as `module load cuda`"),
    key("options", Kind::List(&Kind::Text), Default("[]"), "Further options of `sbatch`, such as `--exclusive`"),
    key("environment", Kind::Texts, Optional, "Variables of workers, exported before `setup`; no secrets"),
    key(
        "container",
        Kind::List(&Kind::Text),
        Optional,
        "Words before `sweep-worker`, such as `[apptainer, exec, --nv, image.sif]`",
    ),
];
