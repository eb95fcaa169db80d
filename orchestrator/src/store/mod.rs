//! All SQL. Queries are checked against the schema at compile time (`.sqlx/` holds what the checks need offline).

mod attempt;
mod checkpoint;
mod evaluation;
pub mod fit;
pub mod import;
mod job;
mod launcher;
mod listener;
mod metric;
pub mod observation;
pub mod private_postgres;
mod progress;
pub mod sql;
pub mod study;
mod sweep;
pub mod throughput;

pub use attempt::{Claim, Ending, Orders, Predecessor};
pub use job::{JobDetail, StateCounts, Totals};
pub use launcher::{IntentRequest, KnownAttempt, LiveAttempt, OpenJob, Place, SlotOffer, Window};
pub use listener::EndListener;
pub use metric::Batch;
pub use progress::{JobProgress, ProgressFilter};
pub use sweep::SweepSummary;

use std::path::PathBuf;
use std::str::FromStr;
use std::time::{Duration, Instant};

use sqlx::migrate::MigrateError;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::{Connection, PgConnection, PgPool};

use private_postgres::PrivatePostgresError;

/// Migrations, embedded.
static MIGRATOR: sqlx::migrate::Migrator = sqlx::migrate!("../migrations");

/// How long a server that says it is starting up or recovering is waited for.
const RECOVERY_LIMIT: Duration = Duration::from_mins(2);
/// How long a first connection may take.
const CONNECT_LIMIT: Duration = Duration::from_secs(15);
/// Settings of every session of ours but the first, which migrates. A client that hangs, or is cut off in the middle of a
/// transaction, must not hold rows that others wait for; a client whose host is gone is noticed in a minute, not in two
/// hours.
const SESSION_SETTINGS: &[(&str, &str)] = &[
    ("idle_in_transaction_session_timeout", "30s"),
    ("lock_timeout", "10s"),
    ("statement_timeout", "5min"),
    ("tcp_keepalives_idle", "20"),
    ("tcp_keepalives_interval", "10"),
    ("tcp_keepalives_count", "3"),
    ("tcp_user_timeout", "50000"),
];
/// Between attempts to connect to a server that is starting up.
const POLL: Duration = Duration::from_millis(50);

/// An open, migrated database.
#[derive(Debug, Clone)]
pub struct Store {
    pub(crate) pool: PgPool,
}

/// What can go wrong with the database.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// `DATABASE_URL` can't be read. It may hold a password, so it is not repeated.
    #[error("DATABASE_URL is not the URL of a PostgreSQL database: {reason}")]
    Url {
        /// What is wrong with it.
        reason: String,
    },
    /// The private cluster can't be run.
    #[error(transparent)]
    Private(#[from] PrivatePostgresError),
    /// No connection.
    #[error("can't connect to the database {url}")]
    Connect {
        /// Where, without the password.
        url: String,
        /// Why.
        source: sqlx::Error,
    },
    /// The database was migrated by a newer `sweep`.
    #[error("the database has schema version {found}; this `sweep` knows versions up to {known}")]
    SchemaNewer {
        /// Its version.
        found: i64,
        /// The newest one embedded.
        known: i64,
    },
    /// The schema can't be brought up to date.
    #[error("can't migrate the database")]
    Migrate(#[source] MigrateError),
    /// The name of a plan is that of an imported study.
    #[error("the sweep `{name}` was imported; a launch does not change it")]
    SweepImported {
        /// Name.
        name: String,
    },
    /// A query failed.
    #[error("{doing}")]
    Query {
        /// What was being done.
        doing: &'static str,
        /// Why.
        source: sqlx::Error,
    },
}

impl From<MigrateError> for StoreError {
    fn from(error: MigrateError) -> StoreError {
        let known = newest_version();
        match error {
            MigrateError::VersionMissing(found) if found > known => StoreError::SchemaNewer { found, known },
            error => StoreError::Migrate(error),
        }
    }
}

impl StoreError {
    /// The way out.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Url { .. } => Some(
                "write it as postgres://USER:PASSWORD@HOST:PORT/DATABASE, or unset it to use a private database"
                    .to_owned(),
            ),
            Self::Private(error) => error.hint(),
            Self::Connect { source, .. } => Some(match sql_state(source).as_deref() {
                Some("28P01" | "28000") => "check the user and the password in DATABASE_URL".to_owned(),
                Some("3D000") => {
                    "make the database first (`createdb NAME`), or name another one in DATABASE_URL".to_owned()
                }
                Some("53300") => "raise max_connections of the server, or run fewer jobs at a time".to_owned(),
                _ => "start the server that DATABASE_URL names, or unset it to use a private database".to_owned(),
            }),
            Self::SchemaNewer { .. } => Some("use the newer `sweep`, or another database".to_owned()),
            Self::Migrate(MigrateError::VersionMismatch(_)) => Some(
                "the database was made by another build of `sweep`; use that build, or another database".to_owned(),
            ),
            Self::SweepImported { .. } => Some("give the spec another `name`".to_owned()),
            Self::Migrate(_) | Self::Query { .. } => None,
        }
    }

    /// Whether the same call may well succeed a little later: the server is gone, restarting, full, or had to pick a
    /// victim of a deadlock.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Connect { source, .. }
            | Self::Query { source, .. }
            | Self::Migrate(MigrateError::Execute(source)) => is_transient(source),
            _ => false,
        }
    }
}

fn is_transient(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Io(_) | sqlx::Error::PoolTimedOut | sqlx::Error::PoolClosed | sqlx::Error::WorkerCrashed => true,
        // The server left in the middle of an answer.
        sqlx::Error::Protocol(_) => true,
        sqlx::Error::Database(_) => sql_state(error).is_some_and(|state| is_transient_state(&state)),
        _ => false,
    }
}

/// Whether an SQLSTATE speaks of the server's condition, not of what it was asked:
/// <https://www.postgresql.org/docs/current/errcodes-appendix.html>.
fn is_transient_state(state: &str) -> bool {
    // Connection exceptions; insufficient resources (disk full, out of memory, too many connections).
    state.starts_with("08")
        || state.starts_with("53")
        // Operator intervention: shut down, crashed, starting up, idle for too long; a statement timeout of ours.
        || state.starts_with("57P0")
        || matches!(
            state,
            "57014" // statement timeout
                | "58030" // I/O error
                | "25006" // read-only: a standby, or a server that is being moved
                | "25P03" // idle in transaction for too long
                | "55P03" // lock timeout
                | "40001" // serialization failure
                | "40P01" // deadlock
        )
}

fn sql_state(error: &sqlx::Error) -> Option<String> {
    error.as_database_error()?.code().map(std::borrow::Cow::into_owned)
}

/// Where the project keeps its state: `SWEEP_HOME`, or `.sweep` in the current folder. Absolute.
pub fn home() -> PathBuf {
    let folder = std::env::var_os("SWEEP_HOME").filter(|value| !value.is_empty()).unwrap_or_else(|| ".sweep".into());
    std::path::absolute(&folder).unwrap_or_else(|_| folder.into())
}

/// The database that the environment names; `None`: the private one.
pub fn named_database() -> Result<Option<PgConnectOptions>, StoreError> {
    match std::env::var("DATABASE_URL") {
        Ok(url) if !url.is_empty() => parse_url(&url).map(Some),
        _ => Ok(None),
    }
}

/// `DATABASE_URL` without its password, which has no place on a command line, and the password.
pub fn psql_target() -> Result<Option<(String, Option<String>)>, StoreError> {
    if named_database()?.is_none() {
        return Ok(None);
    }
    let text = std::env::var("DATABASE_URL").unwrap_or_default();
    let url = url::Url::parse(&text).map_err(|error| StoreError::Url { reason: error.to_string() })?;
    Ok(Some(without_password(url)))
}

fn without_password(mut url: url::Url) -> (String, Option<String>) {
    let in_query = url.query_pairs().find(|(key, _)| key == "password").map(|(_, value)| value.into_owned());
    if in_query.is_some() {
        let others: Vec<_> = url.query_pairs().into_owned().filter(|(key, _)| key != "password").collect();
        url.query_pairs_mut().clear().extend_pairs(others);
    }
    // Percent-decoding is what reading a form does, once `+` stands for itself.
    let in_authority = url.password().map(|password| {
        let form = format!("p={}", password.replace('+', "%2B"));
        url::form_urlencoded::parse(form.as_bytes()).map(|(_, value)| value.into_owned()).collect()
    });
    if in_authority.is_some() {
        // Only a URL without a host refuses, and that one has no password either.
        let _ = url.set_password(None);
    }
    (url.into(), in_query.or(in_authority))
}

fn parse_url(text: &str) -> Result<PgConnectOptions, StoreError> {
    let reason = match url::Url::parse(text) {
        Err(error) => error.to_string(),
        Ok(url) if !matches!(url.scheme(), "postgres" | "postgresql") => {
            format!("it starts with `{}:`, not with `postgres:`", url.scheme())
        }
        Ok(_) => match PgConnectOptions::from_str(text) {
            Ok(options) => return Ok(options),
            Err(_) => "one of its parameters has a value that is not allowed".to_owned(),
        },
    };
    Err(StoreError::Url { reason })
}

impl Store {
    /// The database of `DATABASE_URL`, or else the private one, which is started if need be; migrated.
    pub async fn connect() -> Result<Store, StoreError> {
        let options = match named_database()? {
            Some(options) => options,
            None => blocking(|| private_postgres::ensure_running(&home())).await?.options(),
        };
        Store::open(options).await
    }

    /// Like [`Store::connect`], but starts and creates nothing: `None` where the private database is not up, or where
    /// nothing has been stored yet.
    pub async fn connect_existing() -> Result<Option<Store>, StoreError> {
        let options = match named_database()? {
            Some(options) => options,
            None => match blocking(|| private_postgres::running(&home())).await? {
                Some(access) => access.options(),
                None => return Ok(None),
            },
        };
        let mut connection = first_connection(&options).await?;
        let migrated: Option<bool> = sqlx::query_scalar("SELECT to_regclass('_sqlx_migrations') IS NOT NULL")
            .fetch_one(&mut connection)
            .await
            .map_err(|source| StoreError::Query { doing: "looking for the schema", source })?;
        if migrated == Some(true) { Store::open(options).await.map(Some) } else { Ok(None) }
    }

    /// Like [`Store::connect_existing`], but starts the private database where there is one that is not up.
    pub async fn connect_stored() -> Result<Option<Store>, StoreError> {
        if named_database()?.is_none() {
            blocking(|| private_postgres::ensure_existing(&home())).await?;
        }
        Store::connect_existing().await
    }

    /// Connects and migrates. `options` come from `DATABASE_URL` or the private cluster.
    pub async fn open(options: PgConnectOptions) -> Result<Store, StoreError> {
        let options = options.application_name("sweep");
        let mut connection = first_connection(&options).await?;
        if !is_migrated(&mut connection).await? {
            MIGRATOR.run(&mut connection).await?;
        }
        connection
            .close()
            .await
            .map_err(|source| StoreError::Query { doing: "closing the first connection", source })?;
        Ok(Store::with_pool(options))
    }

    fn with_pool(options: PgConnectOptions) -> Store {
        let pool = PgPoolOptions::new()
            .max_connections(4)
            .acquire_timeout(CONNECT_LIMIT)
            .connect_lazy_with(options.options(SESSION_SETTINGS.iter().copied()));
        Store { pool }
    }

    /// Newest migration that the database has had.
    pub async fn schema_version(&self) -> Result<i64, StoreError> {
        sqlx::query_scalar("SELECT coalesce(max(version), 0) FROM _sqlx_migrations WHERE success")
            .fetch_one(&self.pool)
            .await
            .map_err(|source| StoreError::Query { doing: "reading the version of the schema", source })
    }
}

/// Whether the database has had exactly the migrations that are embedded: a cheap look, where the migrator takes a lock
/// that all wait for. Whatever else it finds is the migrator's to say.
async fn is_migrated(connection: &mut PgConnection) -> Result<bool, StoreError> {
    let failed = doing("can't read the version of the schema");
    let there: Option<bool> = sqlx::query_scalar("SELECT to_regclass('_sqlx_migrations') IS NOT NULL")
        .fetch_one(&mut *connection)
        .await
        .map_err(&failed)?;
    if there != Some(true) {
        return Ok(false);
    }
    let had: Vec<(i64, bool, Vec<u8>)> =
        sqlx::query_as("SELECT version, success, checksum FROM _sqlx_migrations ORDER BY version")
            .fetch_all(connection)
            .await
            .map_err(&failed)?;
    let embedded = MIGRATOR.iter().map(|migration| (migration.version, true, migration.checksum.to_vec()));
    Ok(had == embedded.collect::<Vec<_>>())
}

/// Newest migration that is embedded.
pub fn newest_version() -> i64 {
    MIGRATOR.iter().map(|migration| migration.version).max().unwrap_or(0)
}

/// One connection, made without the pool: it fails at once where the pool would go on trying. A server that says it is
/// starting up is waited for.
pub(crate) async fn first_connection(options: &PgConnectOptions) -> Result<PgConnection, StoreError> {
    let begun = Instant::now();
    loop {
        let result = match tokio::time::timeout(CONNECT_LIMIT, PgConnection::connect_with(options)).await {
            Ok(result) => result,
            Err(_) => Err(sqlx::Error::Io(std::io::ErrorKind::TimedOut.into())),
        };
        match result {
            Err(error) if sql_state(&error).as_deref() == Some("57P03") && begun.elapsed() < RECOVERY_LIMIT => {
                tokio::time::sleep(POLL).await;
            }
            Err(source) => return Err(StoreError::Connect { url: place(options), source }),
            Ok(connection) => return Ok(connection),
        }
    }
}

/// Where `options` lead, without user and password.
pub fn place(options: &PgConnectOptions) -> String {
    let name = options.get_database().unwrap_or_else(|| options.get_username());
    match options.get_socket() {
        Some(socket) => format!("{name} at {}", socket.display()),
        None => format!("{name} at {}:{}", options.get_host(), options.get_port()),
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, PrivatePostgresError> + Send + 'static,
) -> Result<T, PrivatePostgresError> {
    tokio::task::spawn_blocking(work).await.expect("the work does not panic")
}

/// For `map_err`: what was being done when a query failed.
fn doing(doing: &'static str) -> impl Fn(sqlx::Error) -> StoreError {
    move |source| StoreError::Query { doing, source }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_password_leaves_the_url() {
        let split = |text: &str| without_password(url::Url::parse(text).expect("a URL"));
        assert_eq!(split("postgres://me:a%40b+c@host:1/db"), ("postgres://me@host:1/db".into(), Some("a@b+c".into())));
        assert_eq!(split("postgres:///db?host=/s&password=p"), ("postgres:///db?host=%2Fs".into(), Some("p".into())));
        assert_eq!(split("postgres://me@host/db"), ("postgres://me@host/db".into(), None));
    }

    #[test]
    fn a_bad_url_is_not_repeated() {
        for text in ["mysql://me:secret@host/db", "postgres//me:secret@host", "postgres://me:secret@host:99999/db"] {
            let error = parse_url(text).expect_err("it is refused");
            assert!(!format!("{error:?} {error}").contains("secret"), "{error:?}");
            assert!(error.hint().is_some());
        }
    }

    #[test]
    fn states_of_the_server_are_transient_and_refusals_are_not() {
        for state in [
            "08006", "53100", "53200", "53300", "57P01", "57P02", "57P03", "57P05", "57014", "58030", "25006", "25P03",
            "55P03",
        ] {
            assert!(is_transient_state(state), "{state}");
        }
        for state in ["23505", "42703", "22P05", "54000", "42501", "3D000", "28P01", "0A000", "58P01"] {
            assert!(!is_transient_state(state), "{state}");
        }
    }

    #[test]
    fn a_lost_connection_is_transient_and_a_missing_column_is_not() {
        let io = sqlx::Error::Io(std::io::ErrorKind::ConnectionReset.into());
        assert!(StoreError::Query { doing: "testing", source: io }.is_transient());
        assert!(!StoreError::Query { doing: "testing", source: sqlx::Error::RowNotFound }.is_transient());
    }
}
