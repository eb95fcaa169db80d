//! Commands of Slurm: in which environment, and for how long at most.

use std::io;
use std::process::Stdio;
use std::time::Duration;

use tokio::process::Command;

use crate::backend::is_secret;

/// `sbatch` tries for 120 s by itself.
pub(super) const SBATCH_LIMIT: Duration = Duration::from_secs(150);
/// Every other command.
pub(super) const COMMAND_LIMIT: Duration = Duration::from_mins(1);

/// What a command said.
#[derive(Debug)]
pub(super) struct Output {
    pub success: bool,
    pub stdout: String,
    pub stderr: String,
}

/// A command of Slurm, without what our environment says of the job that we may be in ourselves, of formats, and of
/// databases: `sbatch` hands its environment on.
pub(super) fn command(program: &str) -> Command {
    let mut command = Command::new(program);
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        let of_slurm = ["SLURM_", "SBATCH_", "SQUEUE_", "SCANCEL_", "SINFO_", "SACCT_", "SCONTROL_"]
            .iter()
            .any(|prefix| text.starts_with(prefix));
        if is_secret(&name) || (of_slurm && text != "SLURM_CONF") {
            command.env_remove(&name);
        }
    }
    command.env("SLURM_BITSTR_LEN", "0").stdin(Stdio::null()).kill_on_drop(true);
    command
}

/// Runs a command to its end, or ends it after `limit`.
pub(super) async fn run(command: &mut Command, limit: Duration) -> io::Result<Output> {
    let name = command.as_std().get_program().to_string_lossy().into_owned();
    let named = |error: io::Error| io::Error::new(error.kind(), format!("{name}: {error}"));
    match tokio::time::timeout(limit, command.output()).await {
        Ok(output) => {
            let output = output.map_err(named)?;
            Ok(Output {
                success: output.status.success(),
                stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
                stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
            })
        }
        Err(_) => {
            Err(io::Error::new(io::ErrorKind::TimedOut, format!("{name}: no answer within {} s", limit.as_secs())))
        }
    }
}
