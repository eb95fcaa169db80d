//! SIGTERM, SIGINT and SIGUSR1, for as long as the worker lives.

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use super::WorkerError;

/// What a signal means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Told {
    /// SIGTERM, SIGINT: stop.
    Stop,
    /// SIGUSR1: the time that a queue gave this process is nearly over (`sbatch --signal`).
    TimeOver,
}

/// Whether this worker was asked to stop.
#[derive(Debug)]
pub(super) struct StopSignal(watch::Receiver<Option<Told>>);

impl StopSignal {
    /// Starts to listen.
    pub(super) fn listen() -> Result<StopSignal, WorkerError> {
        let handler = |kind| signal(kind).map_err(|source| WorkerError::Process { doing: "handle signals", source });
        let (mut terminate, mut interrupt) = (handler(SignalKind::terminate())?, handler(SignalKind::interrupt())?);
        let mut time_over = handler(SignalKind::user_defined1())?;
        let (sender, told) = watch::channel(None);
        tokio::spawn(async move {
            let told = tokio::select! {
                _ = terminate.recv() => Told::Stop,
                _ = interrupt.recv() => Told::Stop,
                _ = time_over.recv() => Told::TimeOver,
            };
            let _ = sender.send(Some(told));
            // Nobody is told twice; the sender lives on so that waiters can tell that from no signal.
            std::future::pending::<()>().await;
        });
        Ok(StopSignal(told))
    }

    /// Whether it was.
    pub(super) fn asked(&self) -> bool {
        self.0.borrow().is_some()
    }

    /// Resolves when it is, at once if it was.
    pub(super) async fn wait(&self) -> Told {
        let told = self.0.clone().wait_for(Option::is_some).await.ok().and_then(|told| *told);
        match told {
            Some(told) => told,
            None => std::future::pending().await,
        }
    }
}
