//! `sweep init`.

use std::fs::OpenOptions;
use std::io::{ErrorKind, Write};
use std::path::PathBuf;

use super::output::{Exit, Failure, data, say};
use crate::spec::TEMPLATE;

/// Options of `sweep init`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// File to write, never over another; `-` prints it.
    #[arg(default_value = "sweep.yaml")]
    path: PathBuf,
}

pub(super) fn run(args: &Args) -> Result<Exit, Failure> {
    if args.path.as_os_str() == "-" {
        data(TEMPLATE.trim_end());
        return Ok(Exit::Done);
    }
    let path = args.path.display();
    let mut file = OpenOptions::new().write(true).create_new(true).open(&args.path).map_err(|error| {
        if error.kind() == ErrorKind::AlreadyExists {
            Failure::bad_input(format!("{path} is there already")).hint("give another name: `sweep init FILE`")
        } else {
            Failure::environment(format!("can't write {path}")).because(&error)
        }
    })?;
    file.write_all(TEMPLATE.as_bytes())
        .map_err(|error| Failure::environment(format!("can't write {path}")).because(&error))?;
    say(&format!("wrote {path}"));
    say(&format!(
        "next: edit it, then `sweep plan {path}`; `sweep schema > sweep.schema.json` lets your editor complete it"
    ));
    Ok(Exit::Done)
}
