//! How much memory a job can have where it is planned to run.

use std::fs;
use std::process::Command;

use super::expand::CLIP_RUNNER;
use super::memory::Device;
use super::memory_limit::{MemoryLimit, device};
use super::{Inputs, slurm_options};
use crate::spec::{Backend, Spec, memory_bytes};

/// Of this machine or its smallest GPU, unless the spec says it; on a cluster what is asked of it for a node's memory.
/// `None`: nobody knows, or what a job needs is not estimated: by another runner than clip-runner, or by several
/// processes, which share a batch.
pub(super) fn memory(spec: &Spec, inputs: &Inputs) -> Option<MemoryLimit> {
    if inputs.runner.name != CLIP_RUNNER || processes(spec, inputs) != 1 {
        return None;
    }
    let (bytes, of) = match (&spec.backend, device(spec, inputs)) {
        (Backend::Local { memory: Some(said), .. }, _) => (memory_bytes(said)?, "`backend.local.memory` is"),
        (Backend::Local { .. }, Device::Cpu) => (of_machine()?, "this machine has"),
        (Backend::Local { .. }, Device::Gpu) => (of_gpus()?, "the GPU here that has least has"),
        (Backend::Slurm(_), Device::Gpu) => return None,
        (Backend::Slurm(keys), Device::Cpu) => {
            let asked = slurm_options(keys, inputs.site.as_ref(), &[]).memory?;
            (memory_bytes(&asked)?, "Slurm is asked for")
        }
    };
    Some(MemoryLimit { bytes, of: of.to_owned() })
}

fn processes(spec: &Spec, inputs: &Inputs) -> usize {
    match &spec.backend {
        &Backend::Local { ranks, .. } => ranks.max(1),
        Backend::Slurm(keys) => slurm_options(keys, inputs.site.as_ref(), &[]).nodes,
    }
}

/// Memory of the machine, or of the control group that this process may use, if that is less.
fn of_machine() -> Option<u64> {
    let text = fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let total = line.split_whitespace().next()?.parse::<u64>().ok()? * 1024;
    let of_group = |path: &str| fs::read_to_string(path).ok()?.trim().parse::<u64>().ok();
    let groups = ["/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"];
    Some(groups.into_iter().filter_map(of_group).fold(total, u64::min))
}

/// Memory of the GPU that has least.
fn of_gpus() -> Option<u64> {
    let mut command = Command::new("nvidia-smi");
    command.args(["--query-gpu=memory.total", "--format=csv,noheader,nounits"]);
    // Those that jobs are given. Parts of GPUs (MIG) are no `--id`: then nobody knows.
    if let Ok(visible) = std::env::var("CUDA_VISIBLE_DEVICES") {
        command.arg(format!("--id={visible}"));
    }
    let output = command.output().ok().filter(|output| output.status.success())?;
    let text = String::from_utf8_lossy(&output.stdout);
    text.lines().filter_map(|line| line.trim().parse::<u64>().ok()).min().map(|mib| mib << 20)
}
