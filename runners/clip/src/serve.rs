//! Jobs one after another in one process: libtorch is loaded, data opened and captions encoded once.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use protocol::{ServeRequest, exit};
use signal_hook::consts::{SIGTERM, SIGUSR1};
use signal_hook::flag;

use crate::prepared::Prepared;
use crate::report;
use crate::run;

/// Set by SIGTERM and SIGUSR1. While the process waits for a job they end it.
pub struct StopSignal {
    asked: Arc<AtomicBool>,
    idle: Arc<AtomicBool>,
}

impl StopSignal {
    /// Starts to listen.
    pub fn listen() -> io::Result<StopSignal> {
        let stop = StopSignal { asked: Arc::default(), idle: Arc::default() };
        for signal in [SIGTERM, SIGUSR1] {
            flag::register_conditional_shutdown(signal, exit::FINISHED, Arc::clone(&stop.idle))?;
            flag::register(signal, Arc::clone(&stop.asked))?;
        }
        Ok(stop)
    }

    /// Whether the job that runs is to stop after its step.
    pub fn asked(&self) -> &AtomicBool {
        &self.asked
    }
}

/// Runs one job.
pub fn run_one(path: &Path) -> io::Result<i32> {
    Ok(run::run(path, &mut Prepared::default(), &StopSignal::listen()?))
}

/// Runs the job of each line of `requests` (a [`ServeRequest`]), until they end or a job does not finish: what is left
/// in memory after a failure is nothing to build on. Gives the process's exit code.
pub fn serve(requests: impl Iterator<Item = io::Result<String>>) -> io::Result<i32> {
    let stop = StopSignal::listen()?;
    let mut prepared = Prepared::default();
    let mut requests = requests;
    loop {
        stop.idle.store(true, Ordering::SeqCst);
        let request = requests.next().transpose()?;
        stop.idle.store(false, Ordering::SeqCst);
        let Some(request) = request else { return Ok(exit::FINISHED) };
        let request: ServeRequest = match serde_json::from_str(&request) {
            Ok(request) => request,
            Err(error) => {
                report::say(format_args!("standard input holds no request: {error}"));
                return Ok(exit::BAD_INPUT);
            }
        };
        let code = run::run(&request.job, &mut prepared, &stop);
        if code != exit::FINISHED {
            return Ok(code);
        }
    }
}
