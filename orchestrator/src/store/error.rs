//! What can go wrong with the database, the way out, and whether to try again.

use sqlx::migrate::MigrateError;

use super::newest_version;
use super::private_postgres::PrivatePostgresError;

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
    /// The private cluster is not up, and is not to be started from here.
    #[error("the private database is not up; it is another machine's to start")]
    NotUp,
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
    /// The database was migrated by an older `sweep`, and this command only reads.
    #[error("the database has schema version {found}; this `sweep` needs version {needed}")]
    SchemaOlder {
        /// Its version.
        found: i64,
        /// The newest one embedded.
        needed: i64,
    },
    /// Users' queries would run as a role that may do anything.
    #[error(
        "the role `{role}` of {variable} is a superuser, or may read files and run programs on the database's host: no query of yours runs as that role"
    )]
    PowerfulReader {
        /// Its name.
        role: String,
        /// Where it was named.
        variable: &'static str,
    },
    /// The name of a plan is that of an imported study.
    #[error("the sweep `{name}` was imported; a launch does not change it")]
    SweepImported {
        /// Name.
        name: String,
    },
    /// The database was restored from a dump of another server: places in its history mean nothing here.
    #[error(
        "the history has entries of transactions that this server has not had yet: the database was restored from another's dump"
    )]
    HistoryOfAnother,
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
            Self::NotUp => Some("`sweep db start` there, or `sweep launch`".to_owned()),
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
            Self::SchemaOlder { .. } => {
                Some("`sweep db migrate` brings it up to date, as `sweep launch` does; or use the older `sweep`".to_owned())
            }
            Self::PowerfulReader { .. } => Some(
                "make a role that may only read, and put its URL into SWEEP_READER_URL: CREATE ROLE reader LOGIN PASSWORD '...'; \
                 GRANT USAGE ON SCHEMA public TO reader; GRANT SELECT ON ALL TABLES IN SCHEMA public TO reader; \
                 ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT SELECT ON TABLES TO reader"
                    .to_owned(),
            ),
            Self::HistoryOfAnother => Some(
                "make them its oldest, as its owner, and begin without `--after`: UPDATE event SET txid = 0; UPDATE metric_batch \
                 SET txid = 0"
                    .to_owned(),
            ),
            Self::SweepImported { .. } => Some("give the spec another `name`".to_owned()),
            Self::Migrate(_) | Self::Query { .. } => None,
        }
    }

    /// Whether it is these very data that the database can't hold (data exception, integrity, program limit): trying
    /// again is of no use.
    pub fn refuses_data(&self) -> bool {
        match self {
            Self::Query { source, .. } => {
                sql_state(source).is_some_and(|state| ["22", "23", "54"].iter().any(|class| state.starts_with(class)))
            }
            _ => false,
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
        // A protocol error: the server left in the middle of an answer.
        sqlx::Error::Io(_)
        | sqlx::Error::PoolTimedOut
        | sqlx::Error::PoolClosed
        | sqlx::Error::WorkerCrashed
        | sqlx::Error::Protocol(_) => true,
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

pub(super) fn sql_state(error: &sqlx::Error) -> Option<String> {
    error.as_database_error()?.code().map(std::borrow::Cow::into_owned)
}

/// An error and its sources in one line.
pub fn describe(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

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
