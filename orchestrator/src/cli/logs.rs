//! `sweep logs`: what a job's runner wrote.

use std::fs::File;
use std::io::{ErrorKind, IsTerminal, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::output::{self, Exit, Failure, say};
use super::target;
use crate::store::{JobDetail, Store};

/// Between two looks at a file that is followed.
const LOOK_EVERY: Duration = Duration::from_millis(300);

/// Options of `sweep logs`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// First digits of the job's key.
    job: String,
    /// Go on until the job has ended.
    #[arg(short, long)]
    follow: bool,
    /// Which attempt, from 1; without it, the last.
    #[arg(long)]
    attempt: Option<usize>,
    /// The events of the protocol, instead of standard error.
    #[arg(long)]
    events: bool,
}

pub(super) async fn run(args: Args) -> Result<Exit, Failure> {
    let store = target::store().await?;
    let mut job = target::job(&store, &args.job).await?;
    let mut shown = pick(&job, args.attempt)?;
    let name = if args.events { "events.jsonl" } else { "stderr.log" };
    let mut offset = 0;
    loop {
        // The state first: what is written before an end is read after it.
        let (state, folder) = job.attempts[shown].clone();
        let path = Path::new(&folder).join(name);
        offset = copy(&path, offset)?;
        if !args.follow {
            return Ok(Exit::Done);
        }
        let live = ["intent", "launched", "running"].contains(&state.as_str());
        if !live && shown + 1 < job.attempts.len() && args.attempt.is_none() {
            shown += 1;
            offset = 0;
            say(&format!("--- attempt {} ---", shown + 1));
            continue;
        }
        if !live && (args.attempt.is_some() || ["done", "failed", "cancelled"].contains(&job.state.as_str())) {
            return Ok(Exit::Done);
        }
        tokio::time::sleep(LOOK_EVERY).await;
        job = again(&store, &job).await?;
    }
}

fn pick(job: &JobDetail, attempt: Option<usize>) -> Result<usize, Failure> {
    let count = job.attempts.len();
    match attempt {
        _ if count == 0 => Err(Failure::bad_input(format!("job {} has not been started yet", &job.job_key[..12]))),
        None => Ok(count - 1),
        Some(nth) if (1..=count).contains(&nth) => Ok(nth - 1),
        Some(nth) => Err(Failure::bad_input(format!("job {} has no attempt {nth}", &job.job_key[..12]))
            .hint(format!("attempts are counted from 1 to {count}"))),
    }
}

async fn again(store: &Store, job: &JobDetail) -> Result<JobDetail, Failure> {
    target::job(store, &job.job_key).await
}

/// Copies what is behind `offset` to standard output; gives the new offset. A file that is not there yet is empty.
fn copy(path: &PathBuf, offset: u64) -> Result<u64, Failure> {
    let failed = |error: std::io::Error| Failure::environment(format!("can't read {}", path.display())).because(&error);
    let mut file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(offset),
        Err(error) => return Err(failed(error)),
    };
    file.seek(SeekFrom::Start(offset)).map_err(failed)?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes).map_err(failed)?;
    let mut stdout = std::io::stdout().lock();
    let length = bytes.len() as u64;
    // A terminal obeys what it is sent; a file or a pipe gets what the runner wrote.
    let bytes = if stdout.is_terminal() {
        output::visible(&String::from_utf8_lossy(&bytes)).into_owned().into_bytes()
    } else {
        bytes
    };
    if stdout.write_all(&bytes).and_then(|()| stdout.flush()).is_err() {
        std::process::exit(0);
    }
    Ok(offset + length)
}
