//! `sweep-worker`: supervises one attempt. Started by a backend, never by hand.

use std::process::ExitCode;

fn main() -> ExitCode {
    sweep::worker::main()
}
