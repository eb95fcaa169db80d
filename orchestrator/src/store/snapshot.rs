//! What a page shows: several queries in one snapshot, side by side where they take long, over connections that are
//! kept. The queries are ours, and conditions in them are parsed and printed again, so that nothing in them changes a
//! session; one that failed or was given up closes its connection all the same.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use sqlx::{Connection, PgConnection};

use super::Store;
use super::sql::{Answer, GRACE, Question, SqlError, begin, rows, unopened};

/// All rows are read, so a plan that is quick to give the first ones is of no use, and compiling one takes longer than
/// running it.
const BEGIN: &str = "SET jit = off; SET cursor_tuple_fraction = 1; BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY";
/// Of the transaction whose snapshot others have.
const ISOLATED: &str = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY";

/// Connections that are kept: each is a process of the server.
const KEPT: usize = 8;
/// How long one is kept that nobody needs.
const KEPT_FOR: Duration = Duration::from_mins(1);

/// Connections of the role that may only read.
#[derive(Debug)]
pub struct Readers {
    store: Store,
    idle: Mutex<Vec<(PgConnection, Instant)>>,
}

impl Readers {
    /// None yet.
    pub fn new(store: Store) -> Readers {
        Readers { store, idle: Mutex::default() }
    }

    /// Runs queries in one snapshot, so that their answers agree; `lanes` at a time, in their order: the longest first
    /// is best. Each has `timeout`, and all of them four times that.
    pub async fn snapshot(
        &self,
        texts: &[String],
        timeout: Duration,
        rows_max: Option<usize>,
        lanes: usize,
    ) -> Result<Vec<Answer>, SqlError> {
        let work = async {
            let connections = self.open(lanes.clamp(1, texts.len().max(1)), timeout).await?;
            let next = AtomicUsize::new(0);
            let lanes = connections.into_iter().map(|connection| lane(connection, texts, &next, timeout, rows_max));
            let mut answers: Vec<Option<Answer>> = vec![None; texts.len()];
            let mut refused = None;
            for (connection, answered) in join_all(lanes).await {
                match answered {
                    Ok(answered) => {
                        self.keep(connection);
                        for (index, answer) in answered {
                            answers[index] = Some(answer);
                        }
                    }
                    Err(error) => {
                        // Without a word after a timeout: the server may not be listening.
                        if !matches!(error, SqlError::Timeout(_)) {
                            let _ = connection.close().await;
                        }
                        refused.get_or_insert(error);
                    }
                }
            }
            match refused {
                Some(error) => Err(error),
                None => Ok(answers.into_iter().map(|answer| answer.expect("every query was answered")).collect()),
            }
        };
        match tokio::time::timeout(4 * timeout + GRACE, work).await {
            Ok(answers) => answers,
            Err(_) => Err(SqlError::Timeout(timeout)),
        }
    }

    /// Closes connections that nobody has needed for a while.
    pub async fn tidy(&self) {
        let mut old = Vec::new();
        {
            let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
            let all = std::mem::take(&mut *idle);
            for (connection, since) in all {
                if since.elapsed() < KEPT_FOR { idle.push((connection, since)) } else { old.push(connection) }
            }
        }
        for connection in old {
            let _ = connection.close().await;
        }
    }

    fn keep(&self, connection: PgConnection) {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.len() < KEPT {
            idle.push((connection, Instant::now()));
        }
    }

    /// Connections in transactions of one snapshot. Our own role exports it, since that of readers may not; where they
    /// can't have it, as on a standby that they read, there is one connection.
    async fn open(&self, count: usize, timeout: Duration) -> Result<Vec<PgConnection>, SqlError> {
        if count > 1
            && let Ok(connections) = self.side_by_side(count, timeout).await
        {
            return Ok(connections);
        }
        Ok(vec![self.begun(timeout, BEGIN).await?])
    }

    async fn side_by_side(&self, count: usize, timeout: Duration) -> Result<Vec<PgConnection>, SqlError> {
        let mut exporting = self.store.pool.begin_with(ISOLATED).await.map_err(unopened)?;
        let snapshot: String =
            sqlx::query_scalar("SELECT pg_export_snapshot()").fetch_one(&mut *exporting).await.map_err(unopened)?;
        let same = format!("{BEGIN}; SET TRANSACTION SNAPSHOT '{snapshot}'");
        let connections = join_all((0..count).map(|_| self.begun(timeout, &same))).await;
        exporting.rollback().await.map_err(unopened)?;
        connections.into_iter().collect()
    }

    /// A connection that is kept, or else a new one, in a transaction.
    async fn begun(&self, timeout: Duration, text: &str) -> Result<PgConnection, SqlError> {
        loop {
            let kept = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
            let Some((mut connection, _)) = kept else { break };
            // The server may have been started anew since.
            if begin(&mut connection, timeout, text).await.is_ok() {
                return Ok(connection);
            }
        }
        let mut connection = self.store.reader_connection().await?;
        begin(&mut connection, timeout, text).await.map_err(unopened)?;
        Ok(connection)
    }
}

/// Takes queries in their order until there are no more, then ends the transaction.
async fn lane(
    mut connection: PgConnection,
    texts: &[String],
    next: &AtomicUsize,
    timeout: Duration,
    rows_max: Option<usize>,
) -> (PgConnection, Result<Vec<(usize, Answer)>, SqlError>) {
    let mut answers = Vec::new();
    loop {
        let index = next.fetch_add(1, Ordering::Relaxed);
        let Some(text) = texts.get(index) else { break };
        match rows(&mut connection, &Question { text, timeout, rows_max }).await {
            Ok(answer) => answers.push((index, answer)),
            Err(error) => return (connection, Err(error)),
        }
    }
    match sqlx::raw_sql("COMMIT").execute(&mut connection).await {
        Ok(_) => (connection, Ok(answers)),
        Err(error) => (connection, Err(unopened(error).into())),
    }
}
