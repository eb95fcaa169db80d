//! SIGTERM and SIGINT, for as long as the worker lives.

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use super::WorkerError;

/// Whether this worker was asked to stop.
#[derive(Debug)]
pub(super) struct StopSignal(watch::Receiver<bool>);

impl StopSignal {
    /// Starts to listen.
    pub(super) fn listen() -> Result<StopSignal, WorkerError> {
        let handler = |kind| signal(kind).map_err(|source| WorkerError::Process { doing: "handle signals", source });
        let (mut terminate, mut interrupt) = (handler(SignalKind::terminate())?, handler(SignalKind::interrupt())?);
        let (sender, asked) = watch::channel(false);
        tokio::spawn(async move {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            let _ = sender.send(true);
            // Nobody is told twice; the sender lives on so that waiters can tell that from no signal.
            std::future::pending::<()>().await;
        });
        Ok(StopSignal(asked))
    }

    /// Whether it was.
    pub(super) fn asked(&self) -> bool {
        *self.0.borrow()
    }

    /// Resolves when it is, at once if it was.
    pub(super) async fn wait(&self) {
        if self.0.clone().wait_for(|asked| *asked).await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}
