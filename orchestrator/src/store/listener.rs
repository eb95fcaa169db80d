//! Hints of the database that an attempt has ended. They may be lost (a cut connection, a pooler between us): whoever
//! listens looks by itself now and then.

use sqlx::PgConnection;
use sqlx::postgres::PgListener;

use super::{Store, StoreError, doing};

/// Channel of the hints.
const CHANNEL: &str = "sweep_attempt_ended";

/// Channel of the hints that a checkpoint was reported.
const CHECKPOINTS: &str = "sweep_checkpoint";

/// Hears of attempts that end.
#[derive(Debug)]
pub struct EndListener {
    listener: PgListener,
}

impl Store {
    /// Starts to listen, on a connection of its own.
    pub async fn listen_for_ends(&self) -> Result<EndListener, StoreError> {
        let failed = doing("can't listen to the database");
        let mut listener = PgListener::connect_with(&self.pool).await.map_err(&failed)?;
        listener.listen(CHANNEL).await.map_err(&failed)?;
        Ok(EndListener { listener })
    }

    /// The same, of checkpoints too.
    pub async fn listen_for_checkpoints(&self) -> Result<EndListener, StoreError> {
        let mut ends = self.listen_for_ends().await?;
        ends.listener.listen(CHECKPOINTS).await.map_err(doing("can't listen to the database"))?;
        Ok(ends)
    }
}

/// Says that a checkpoint was reported, once the caller's transaction is committed.
pub(super) async fn tell_of_checkpoint(tx: &mut PgConnection) -> Result<(), sqlx::Error> {
    sqlx::query_scalar!("SELECT 1 AS told FROM pg_notify($1, '')", CHECKPOINTS).fetch_one(tx).await.map(drop)
}

/// Says that an attempt has ended, once the caller's transaction is committed.
pub(super) async fn tell(tx: &mut PgConnection) -> Result<(), sqlx::Error> {
    sqlx::query_scalar!("SELECT 1 AS told FROM pg_notify($1, '')", CHANNEL).fetch_one(tx).await.map(drop)
}

impl EndListener {
    /// Resolves with the next hint and all that have come with it, or when the connection was lost, which may have lost
    /// hints too.
    pub async fn next(&mut self) -> Result<(), StoreError> {
        match self.listener.try_recv().await {
            Ok(_) => {
                while self.listener.next_buffered().is_some() {}
                Ok(())
            }
            Err(error) => Err(doing("can't listen to the database")(error)),
        }
    }
}
