//! `sweep completions`.

use clap::CommandFactory;

use super::output::Exit;

/// Options of `sweep completions`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Shell to write for.
    shell: clap_complete::Shell,
}

pub(super) fn run(args: &Args) -> Exit {
    clap_complete::generate(args.shell, &mut super::Cli::command(), "sweep", &mut std::io::stdout());
    Exit::Done
}
