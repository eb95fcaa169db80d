//! `sweep`: parse, dispatch, print the error, exit code.

use std::process::ExitCode;

fn main() -> ExitCode {
    sweep::cli::main()
}
