//! What `sweep-worker` does: claim, supervise, spool, ship, beat.

use std::process::ExitCode;

/// Entry point of the binary.
pub fn main() -> ExitCode {
    ExitCode::SUCCESS
}
