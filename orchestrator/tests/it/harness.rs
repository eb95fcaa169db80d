//! What tests share: a project folder of their own and the `sweep` binary run in it.

use std::path::Path;
use std::process::{Command, Output};

/// `sweep` as a user would call it in `dir`: no colours, no inherited database.
pub(crate) fn sweep(dir: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sweep"));
    command.args(args).current_dir(dir).env("NO_COLOR", "1").env_remove("DATABASE_URL");
    command
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
