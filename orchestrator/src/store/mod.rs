//! All SQL. Queries are checked against the schema at compile time (`.sqlx/` holds what the checks need offline).

pub mod fit;
pub mod observation;
pub mod study;

use sqlx::PgPool;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};

/// Migrations, embedded.
static MIGRATOR: sqlx::migrate::Migrator = sqlx::migrate!("../migrations");

/// An open, migrated database.
#[derive(Debug, Clone)]
pub struct Store {
    pub(crate) pool: PgPool,
}

/// What can go wrong with the database.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// No connection.
    #[error("can't connect to the database {url}")]
    Connect {
        /// Where, without the password.
        url: String,
        /// Why.
        source: sqlx::Error,
    },
    /// The schema can't be brought up to date.
    #[error("can't migrate the database")]
    Migrate(#[from] sqlx::migrate::MigrateError),
    /// A query failed.
    #[error("{doing}")]
    Query {
        /// What was being done.
        doing: &'static str,
        /// Why.
        source: sqlx::Error,
    },
}

impl Store {
    /// Connects and migrates. `options` come from `DATABASE_URL` or the private cluster.
    pub async fn open(options: PgConnectOptions) -> Result<Store, StoreError> {
        let url = format!("{}/{}", options.get_host(), options.get_database().unwrap_or("postgres"));
        let pool = PgPoolOptions::new()
            .max_connections(4)
            .connect_with(options)
            .await
            .map_err(|source| StoreError::Connect { url, source })?;
        MIGRATOR.run(&pool).await?;
        Ok(Store { pool })
    }
}
