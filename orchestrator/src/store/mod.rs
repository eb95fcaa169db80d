//! All SQL. Queries are checked against the schema at compile time (`.sqlx/` holds what the checks need offline).

mod activity;
mod adopt;
mod attempt;
mod checkpoint;
mod companion;
mod condition;
mod curve;
mod error;
mod evaluation;
mod feed;
pub mod fit;
mod history;
pub mod import;
mod job;
mod launcher;
mod listener;
mod metric;
mod next;
mod nodes;
pub mod observation;
pub mod page;
mod planned;
pub mod private_postgres;
mod progress;
pub mod snapshot;
mod spooled;
pub mod sql;
pub mod study;
mod sweep;
pub mod throughput;
mod tuning;

pub use activity::Activity;
pub use adopt::AdoptedAttempt;
pub use attempt::{Claim, Ending, Energy, Orders, Predecessor};
pub use checkpoint::CheckpointRow;
pub use companion::{CheckpointOf, Companion, CompanionProgress, MeasurementRow};
pub use curve::Point;
pub use error::{StoreError, describe};
pub use feed::{Cursor, FeedEntry, FeedFilter, FeedPage};
pub use history::History;
pub use job::{JobDetail, JobStory, StateCounts, Totals};
pub use launcher::{IntentRequest, KnownAttempt, LiveAttempt, OpenJob, Place, SlotOffer, Window};
pub use listener::EndListener;
pub use metric::{Batch, End, Stored};
pub use next::{LAUNCHER_SECS, NextRequest};
pub use nodes::FailingNode;
pub use progress::{JobProgress, ProgressFilter};
pub use spooled::SeenWorker;
pub use sweep::{StoredPlan, SweepSummary};
pub use tuning::{NewTuning, TunedCell, Tuning};

use std::cmp::Ordering;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::{Duration, Instant};

use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::{Connection, PgConnection, PgPool};

use error::sql_state;
use private_postgres::PrivatePostgresError;

/// Migrations, embedded.
static MIGRATOR: sqlx::migrate::Migrator = sqlx::migrate!("../migrations");

/// Variable with the URL of a role that may only read, for users' queries to a database of `DATABASE_URL`.
const READER_URL: &str = "SWEEP_READER_URL";

/// How long a server that says it is starting up or recovering is waited for.
const RECOVERY_LIMIT: Duration = Duration::from_mins(2);
/// How long a worker waits for the private database where it usually is, before it looks after it.
const USUAL_LIMIT: Duration = Duration::from_secs(5);
/// How long a first connection may take.
const CONNECT_LIMIT: Duration = Duration::from_secs(15);
/// Settings of every session of ours but the first, which migrates. A client that hangs, or is cut off in the middle of
/// a transaction, must not hold rows that others wait for; a client whose host is gone is noticed in a minute, not in
/// two hours. The machine's cores are for training: no query of ours takes several.
const SESSION_SETTINGS: &[(&str, &str)] = &[
    ("idle_in_transaction_session_timeout", "30s"),
    ("lock_timeout", "10s"),
    ("statement_timeout", "5min"),
    ("tcp_keepalives_idle", "20"),
    ("tcp_keepalives_interval", "10"),
    ("tcp_keepalives_count", "3"),
    ("tcp_user_timeout", "50000"),
    ("max_parallel_workers_per_gather", "0"),
];
/// Connections of a launcher or a command.
const POOL_CONNECTIONS: u32 = 4;
/// Between attempts to connect to a server that is starting up.
const POLL: Duration = Duration::from_millis(50);

/// An open, migrated database.
#[derive(Debug, Clone)]
pub struct Store {
    pub(crate) pool: PgPool,
    reader: Reader,
}

/// As whom users' queries run.
#[derive(Debug, Clone)]
enum Reader {
    /// A role that may only read.
    Role(Box<PgConnectOptions>),
    /// The role of `DATABASE_URL`, whatever it may do: a superuser is refused.
    Owner(Box<PgConnectOptions>),
    /// A private cluster that has no role for it yet.
    Missing(PathBuf),
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

/// The URL by which workers on other machines reach the database: `DATABASE_URL`'s, or that of a private one that
/// listens, which is started if it is there. It holds a password. `None`: they don't.
pub async fn node_url() -> Result<Option<String>, StoreError> {
    match std::env::var("DATABASE_URL") {
        Ok(url) if !url.is_empty() => Ok(Some(url)),
        _ => {
            let url = || match private_postgres::ensure_existing(&home())? {
                Some(access) => access.node_url(),
                None => Ok(None),
            };
            Ok(blocking(url).await?)
        }
    }
}

/// `SWEEP_READER_URL`, or else `DATABASE_URL`, without its password, which has no place on a command line, and the
/// password.
pub fn psql_target() -> Result<Option<(String, Option<String>)>, StoreError> {
    if named_database()?.is_none() {
        return Ok(None);
    }
    let named = |name| std::env::var(name).ok().filter(|url| !url.is_empty());
    let text = named(READER_URL).or_else(|| named("DATABASE_URL")).unwrap_or_default();
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

/// Whether a password may have been cut at a character that ends the authority of a URL, so that its rest looks like a
/// host or a database, which messages would show.
fn has_raw_password(url: &url::Url) -> bool {
    url.fragment().is_some() || url.path().contains('@') || url.query().is_some_and(|query| query.contains('@'))
}

/// An IPv6 address without the brackets that it has in a URL: as a name to look up it has none.
fn without_brackets(options: PgConnectOptions) -> PgConnectOptions {
    let host = options.get_host();
    match host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).map(str::to_owned) {
        Some(host) => options.host(&host),
        None => options,
    }
}

fn parse_url(text: &str) -> Result<PgConnectOptions, StoreError> {
    let reason = match url::Url::parse(text) {
        Err(error) => error.to_string(),
        Ok(url) if !matches!(url.scheme(), "postgres" | "postgresql") => {
            format!("it starts with `{}:`, not with `postgres:`", url.scheme())
        }
        Ok(url) if has_raw_password(&url) => {
            "an `@` or a `#` stands behind its host. In a user name or a password, characters other than letters, digits and \
             `-._~` have to be percent-encoded (`@` as %40, `/` as %2F, `#` as %23, `?` as %3F, `:` as %3A)"
                .to_owned()
        }
        Ok(_) => match PgConnectOptions::from_str(text) {
            Ok(options) => return Ok(without_brackets(options)),
            Err(_) => "one of its parameters has a value that is not allowed".to_owned(),
        },
    };
    Err(StoreError::Url { reason })
}

impl Store {
    /// The database of `DATABASE_URL`, or else the private one, which is started if need be; migrated.
    pub async fn connect() -> Result<Store, StoreError> {
        if let Some(options) = named_database()? {
            return Store::open_as(options.clone(), named_reader(options)?, Migrate::Always).await;
        }
        let access = blocking(|| private_postgres::ensure_running(&home())).await?;
        Store::open_as(access.options(), private_reader(&access), Migrate::Always).await
    }

    /// Like [`Store::connect`] for a worker: one connection, made once, since each costs a process of the server. So
    /// the private database is asked whether it is up by connecting to it, and seen to only if it is not, and
    /// `may_start`: two machines must not start one cluster.
    pub async fn connect_worker(may_start: bool) -> Result<Store, StoreError> {
        if let Some(options) = named_database()? {
            let reader = Reader::Owner(Box::new(options.clone()));
            return Store::open_for_worker(options, reader).await;
        }
        let usual = blocking(|| Ok(private_postgres::Access::usual(&home()))).await?;
        if let Some(access) = usual
            && let Ok(Ok(store)) =
                tokio::time::timeout(USUAL_LIMIT, Store::open_for_worker(access.options(), private_reader(&access)))
                    .await
        {
            return Ok(store);
        }
        let access = if may_start {
            blocking(|| private_postgres::ensure_running(&home())).await?
        } else {
            blocking(|| private_postgres::running(&home())).await?.ok_or(StoreError::NotUp)?
        };
        Store::open_for_worker(access.options(), private_reader(&access)).await
    }

    async fn open_for_worker(options: PgConnectOptions, reader: Reader) -> Result<Store, StoreError> {
        let connecting = |source| StoreError::Connect { url: place(&options), source };
        // Few statements, run often, each by keys: planning them anew each time would cost more than running them.
        let named =
            options.clone().application_name("sweep-worker").options([("plan_cache_mode", "force_generic_plan")]);
        let store = Store::with_pool(named, reader, 1);
        let mut connection = store.pool.acquire().await.map_err(connecting)?;
        bring_up_to_date(&mut connection, Migrate::Always).await?;
        drop(connection);
        Ok(store)
    }

    /// Like [`Store::connect`] for commands that only read: a named database is read as it is, or not at all, since
    /// other versions may be at work on it.
    pub async fn connect_to_read() -> Result<Store, StoreError> {
        match named_database()? {
            Some(options) => Store::open_as(options.clone(), named_reader(options)?, Migrate::IfEmpty).await,
            None => Store::connect().await,
        }
    }

    /// Like [`Store::connect_to_read`], but starts and creates nothing: `None` where the private database is not up, or
    /// where nothing has been stored yet.
    pub async fn connect_existing() -> Result<Option<Store>, StoreError> {
        match named_database()? {
            Some(options) => Store::open_existing(options.clone(), named_reader(options)?, Migrate::Never).await,
            None => Store::open_private(blocking(|| private_postgres::running(&home())).await?).await,
        }
    }

    /// Like [`Store::connect_existing`], but starts the private database where there is one that is not up.
    pub async fn connect_stored() -> Result<Option<Store>, StoreError> {
        if named_database()?.is_some() {
            return Store::connect_existing().await;
        }
        Store::open_private(blocking(|| private_postgres::ensure_existing(&home())).await?).await
    }

    async fn open_private(access: Option<private_postgres::Access>) -> Result<Option<Store>, StoreError> {
        let Some(access) = access else { return Ok(None) };
        Store::open_existing(access.options(), private_reader(&access), Migrate::Always).await
    }

    async fn open_existing(
        options: PgConnectOptions,
        reader: Reader,
        migrate: Migrate,
    ) -> Result<Option<Store>, StoreError> {
        let options = options.application_name("sweep");
        let mut connection = first_connection(&options).await?;
        let ready = match schema_exists(&mut connection).await {
            Ok(true) => bring_up_to_date(&mut connection, migrate).await.map(|()| true),
            other => other,
        };
        let _ = connection.close().await;
        Ok(ready?.then(|| Store::with_pool(options, reader, POOL_CONNECTIONS)))
    }

    /// Connects and migrates. Users' queries run as the same role.
    pub async fn open(options: PgConnectOptions) -> Result<Store, StoreError> {
        let reader = Reader::Owner(Box::new(options.clone()));
        Store::open_as(options, reader, Migrate::Always).await
    }

    async fn open_as(options: PgConnectOptions, reader: Reader, migrate: Migrate) -> Result<Store, StoreError> {
        let options = options.application_name("sweep");
        let mut connection = first_connection(&options).await?;
        let ready = bring_up_to_date(&mut connection, migrate).await;
        let _ = connection.close().await;
        ready.map(|()| Store::with_pool(options, reader, POOL_CONNECTIONS))
    }

    fn with_pool(options: PgConnectOptions, reader: Reader, connections: u32) -> Store {
        let pool = PgPoolOptions::new()
            .max_connections(connections)
            .acquire_timeout(CONNECT_LIMIT)
            .connect_lazy_with(options.options(SESSION_SETTINGS.iter().copied()));
        Store { pool, reader }
    }

    /// Newest migration that the database has had.
    pub async fn schema_version(&self) -> Result<i64, StoreError> {
        sqlx::query_scalar("SELECT coalesce(max(version), 0) FROM _sqlx_migrations WHERE success")
            .fetch_one(&self.pool)
            .await
            .map_err(|source| StoreError::Query { doing: "reading the version of the schema", source })
    }
}

/// When a connection may change the schema.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Migrate {
    Always,
    /// Only where there is none.
    IfEmpty,
    Never,
}

fn private_reader(access: &private_postgres::Access) -> Reader {
    match access.reader_options() {
        Ok(options) => Reader::Role(Box::new(options)),
        Err(_) => Reader::Missing(home().join("postgres")),
    }
}

/// The role of `SWEEP_READER_URL`, or else that of `DATABASE_URL`.
fn named_reader(options: PgConnectOptions) -> Result<Reader, StoreError> {
    match std::env::var(READER_URL) {
        Ok(url) if !url.is_empty() => Ok(Reader::Role(Box::new(parse_url(&url)?))),
        _ => Ok(Reader::Owner(Box::new(options))),
    }
}

async fn schema_exists(connection: &mut PgConnection) -> Result<bool, StoreError> {
    sqlx::query_scalar("SELECT to_regclass('_sqlx_migrations') IS NOT NULL")
        .fetch_one(connection)
        .await
        .map_err(doing("can't look for the schema"))
}

/// Migrates where that is allowed and needed. A cheap look comes first: the migrator takes a lock that all wait for.
async fn bring_up_to_date(connection: &mut PgConnection, migrate: Migrate) -> Result<(), StoreError> {
    let had: Result<Vec<(i64, bool, Vec<u8>)>, sqlx::Error> =
        sqlx::query_as("SELECT version, success, checksum FROM _sqlx_migrations ORDER BY version")
            .fetch_all(&mut *connection)
            .await;
    let had = match had {
        Ok(had) => had,
        // No table: no schema.
        Err(error) if sql_state(&error).as_deref() == Some("42P01") => {
            return if migrate == Migrate::Never { Ok(()) } else { Ok(MIGRATOR.run(connection).await?) };
        }
        // A role that may read our tables, but not this one.
        Err(error) if migrate != Migrate::Always && sql_state(&error).as_deref() == Some("42501") => return Ok(()),
        Err(error) => return Err(doing("can't read the version of the schema")(error)),
    };
    let embedded: Vec<_> =
        MIGRATOR.iter().map(|migration| (migration.version, true, migration.checksum.to_vec())).collect();
    if had == embedded {
        return Ok(());
    }
    if migrate == Migrate::Always {
        return Ok(MIGRATOR.run(connection).await?);
    }
    let (found, known) = (had.iter().map(|(version, ..)| *version).max().unwrap_or(0), newest_version());
    match found.cmp(&known) {
        Ordering::Greater => Err(StoreError::SchemaNewer { found, known }),
        Ordering::Less => Err(StoreError::SchemaOlder { found, needed: known }),
        Ordering::Equal => Ok(()),
    }
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
    fn a_password_that_is_not_encoded_is_not_taken_for_a_host() {
        for text in [
            "postgres://u:p@ss/w#x@host/d",
            "postgres://u:p@ss/w@host/d",
            "postgres://u:1#ss@host/d",
            "postgres://u:1?ss@host/d",
            "postgres://u:1/ss@host/d",
        ] {
            let said = parse_url(text).expect_err(text).to_string();
            assert!(said.contains("percent-encoded"), "{said}");
            assert!(!said.contains("ss") || !said.contains("host/"), "{said}");
        }
        let options = parse_url("postgres://u:p%40ss%2Fw%23@host/d?sslmode=disable").expect("a URL");
        assert_eq!((options.get_host(), options.get_database()), ("host", Some("d")));
    }

    #[test]
    fn an_ipv6_address_is_looked_up_without_brackets() {
        let options = parse_url("postgres://u:p@[::1]:5433/d").expect("a URL");
        assert_eq!((options.get_host(), options.get_port()), ("::1", 5433));
    }

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
}
