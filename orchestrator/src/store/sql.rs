//! A query of the user's: one statement that only reads, with a limit on its time and on its rows.
//!
//! The session is that of a role that may only read (`sweep_reader` of the private database, or `SWEEP_READER_URL`), so
//! nothing that a query does to its session gives it more. Around it: the query becomes the body of a cursor, whose
//! grammar has no writing statement; it travels by the extended protocol, which takes a single statement; its
//! transaction is `READ ONLY`; and this side closes the connection when the time is over. Where a database is named and
//! no role for reading is, these have to do, and a superuser is refused.

use std::time::{Duration, Instant};

use sqlx::postgres::{PgColumn, PgDatabaseError, PgErrorPosition, PgRow};
use sqlx::{AssertSqlSafe, Column as _, Connection, Executor, PgConnection, Row, SqlSafeStr, Statement, ValueRef};

use super::private_postgres::PrivatePostgresError;
use super::{Reader, Store, StoreError, first_connection};

/// Rows fetched at a time.
const BATCH_ROWS: usize = 10_000;

/// What this side waits longer than the server.
pub(super) const GRACE: Duration = Duration::from_secs(5);

const CURSOR: &str = "DECLARE sweep_rows NO SCROLL CURSOR FOR ";

/// What to ask.
#[derive(Debug, Clone)]
pub struct Question<'a> {
    /// One statement.
    pub text: &'a str,
    /// The server gives up after this long, counted for the query and again for each batch of rows.
    pub timeout: Duration,
    /// Rows to fetch at most; `None`: all of them, which have to fit into memory.
    pub rows_max: Option<usize>,
}

/// What came back, column by column.
#[derive(Debug, Clone, PartialEq)]
pub struct Answer {
    /// Columns, in order.
    pub columns: Vec<Column>,
    /// Number of rows.
    pub rows: usize,
    /// There were more rows than `rows_max`.
    pub truncated: bool,
}

/// A named column.
#[derive(Debug, Clone, PartialEq)]
pub struct Column {
    /// As the query names it; a name that comes again gets a number.
    pub name: String,
    /// Its values.
    pub values: Values,
}

/// Values of a column; `None` is NULL.
#[derive(Debug, Clone, PartialEq)]
pub enum Values {
    /// `boolean`.
    Bool(Vec<Option<bool>>),
    /// `smallint`, `integer`, `bigint`, `oid`.
    Int(Vec<Option<i64>>),
    /// `real`, `double precision`, and `numeric`, rounded to the nearest double.
    Float(Vec<Option<f64>>),
    /// `json` and `jsonb`, as text.
    Json(Vec<Option<String>>),
    /// `timestamptz`, as RFC 3339 in UTC.
    Time(Vec<Option<String>>),
    /// Everything else (text, arrays, dates, intervals, ...) as PostgreSQL writes it.
    Text(Vec<Option<String>>),
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum SqlError {
    /// Not the query's fault.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// PostgreSQL refused the query.
    #[error("{message}")]
    Refused {
        /// What it said.
        message: String,
        /// SQLSTATE.
        state: String,
        /// Its own hint or detail.
        hint: Option<String>,
        /// Where in the query, in characters from 1.
        position: Option<usize>,
    },
    /// The statement timeout struck.
    #[error("the query ran for longer than {} s", .0.as_secs_f64())]
    Timeout(Duration),
    /// A statement that does something other than read.
    #[error("only one query can run here: SELECT, WITH, VALUES, TABLE, EXPLAIN or SHOW ({said})")]
    NotAQuery {
        /// What PostgreSQL said.
        said: String,
    },
    /// PostgreSQL sent what its own type rules out.
    #[error("column `{column}` holds `{text}`, which is not of its type")]
    Decode {
        /// Its name.
        column: String,
        /// The value.
        text: String,
    },
}

impl Store {
    /// Runs `question`.
    pub async fn sql(&self, question: &Question<'_>) -> Result<Answer, SqlError> {
        let mut connection = self.reader_connection().await?;
        // The server's own limit can be lifted by the query.
        let limit = question.timeout + GRACE;
        let answer = match tokio::time::timeout(limit, ask(&mut connection, question)).await {
            Ok(answer) => answer,
            Err(_) => Err(SqlError::Timeout(question.timeout)),
        };
        if matches!(answer, Err(SqlError::Timeout(_))) {
            // Without a word: the server may not be listening.
            drop(connection);
        } else {
            let _ = connection.close().await;
        }
        answer
    }

    pub(super) async fn reader_connection(&self) -> Result<PgConnection, StoreError> {
        let (options, variable) = match &self.reader {
            Reader::Role(options) => (options, "SWEEP_READER_URL"),
            Reader::Owner(options) => (options, "DATABASE_URL"),
            Reader::Missing(folder) => return Err(PrivatePostgresError::NoReader { folder: folder.clone() }.into()),
        };
        let options = options.as_ref().clone().application_name("sweep sql");
        // A server that is cut off from its client ends the query within seconds.
        let mut connection = first_connection(&options).await?;
        let _ = sqlx::raw_sql("SET client_connection_check_interval = '2s'").execute(&mut connection).await;
        let powerful: Option<String> = sqlx::query_scalar(
            "SELECT rolname::text FROM pg_roles
             WHERE rolname = session_user
                   AND (rolsuper OR pg_has_role(oid, 'pg_execute_server_program', 'MEMBER')
                        OR pg_has_role(oid, 'pg_read_server_files', 'MEMBER')
                        OR pg_has_role(oid, 'pg_write_server_files', 'MEMBER'))",
        )
        .fetch_optional(&mut connection)
        .await
        .map_err(|source| StoreError::Query { doing: "looking at what the role may do", source })?;
        match powerful {
            Some(role) => Err(StoreError::PowerfulReader { role, variable }),
            None => Ok(connection),
        }
    }
}

async fn ask(connection: &mut PgConnection, question: &Question<'_>) -> Result<Answer, SqlError> {
    begin(connection, question.timeout, "BEGIN READ ONLY").await.map_err(unopened)?;
    rows(connection, question).await
}

pub(super) fn unopened(source: sqlx::Error) -> StoreError {
    StoreError::Query { doing: "opening a read-only transaction", source }
}

/// In the transaction that is open.
pub(super) async fn rows(connection: &mut PgConnection, question: &Question<'_>) -> Result<Answer, SqlError> {
    let begun = Instant::now();
    let refused = |error| refusal(error, question);
    let statement = (&mut *connection).prepare(AssertSqlSafe(question.text).into_sql_str()).await.map_err(refused)?;
    let mut columns: Vec<Column> = statement.columns().iter().map(Column::like).collect();
    drop(statement);
    number_repeated_names(&mut columns);
    let mut answer = Answer { columns, rows: 0, truncated: false };
    if matches!(&*first_word(question.text).to_ascii_lowercase(), "explain" | "show") {
        // `query` (not `raw_sql`) is the extended protocol; all columns of these two are text or json.
        let query = sqlx::query(AssertSqlSafe(question.text)).persistent(false);
        let rows = query.fetch_all(connection).await.map_err(refused)?;
        answer.extend(&rows, question.rows_max)?;
        return Ok(answer);
    }
    let declare = sqlx::query(AssertSqlSafe(format!("{CURSOR}{}", question.text))).persistent(false);
    declare.execute(&mut *connection).await.map_err(|error| not_a_query(error, question))?;
    loop {
        // The simple protocol sends every type as text.
        let fetch = AssertSqlSafe(format!("FETCH FORWARD {BATCH_ROWS} FROM sweep_rows"));
        let rows = sqlx::raw_sql(fetch).fetch_all(&mut *connection).await.map_err(refused)?;
        answer.extend(&rows, question.rows_max)?;
        if rows.len() < BATCH_ROWS || answer.truncated {
            sqlx::raw_sql("CLOSE sweep_rows").execute(&mut *connection).await.map_err(refused)?;
            return Ok(answer);
        }
        if begun.elapsed() > question.timeout {
            return Err(SqlError::Timeout(question.timeout));
        }
    }
}

pub(super) async fn begin(connection: &mut PgConnection, timeout: Duration, begin: &str) -> Result<(), sqlx::Error> {
    let script = format!(
        "SET default_transaction_read_only = on; SET timezone = 'UTC'; SET datestyle = 'ISO'; SET extra_float_digits = 1;
         SET standard_conforming_strings = on;
         SET statement_timeout = {}; {begin}",
        timeout.as_millis().min(i32::MAX as u128),
    );
    sqlx::raw_sql(AssertSqlSafe(script)).execute(connection).await?;
    Ok(())
}

impl Answer {
    fn extend(&mut self, rows: &[PgRow], rows_max: Option<usize>) -> Result<(), SqlError> {
        for row in rows {
            if rows_max.is_some_and(|rows_max| self.rows == rows_max) {
                self.truncated = true;
                return Ok(());
            }
            for (index, column) in self.columns.iter_mut().enumerate() {
                let reading = |source| StoreError::Query { doing: "reading a row", source };
                let value = row.try_get_raw(index).map_err(reading)?;
                let text = if value.is_null() {
                    None
                } else {
                    Some(value.as_str().map_err(|error| reading(sqlx::Error::Decode(error)))?)
                };
                if !column.values.push(text) {
                    let (column, text) = (column.name.clone(), text.unwrap_or_default().to_owned());
                    return Err(SqlError::Decode { column, text });
                }
            }
            self.rows += 1;
        }
        Ok(())
    }
}

impl Column {
    fn like(column: &PgColumn) -> Column {
        let oid = column.type_info().oid().map(|oid| oid.0);
        Column { name: column.name().to_owned(), values: Values::of_type(oid) }
    }
}

impl Values {
    /// Numbers of built-in types never change: `src/include/catalog/pg_type.dat` of PostgreSQL.
    fn of_type(oid: Option<u32>) -> Values {
        match oid {
            Some(16) => Values::Bool(Vec::new()),
            Some(20 | 21 | 23 | 26) => Values::Int(Vec::new()),
            Some(700 | 701 | 1700) => Values::Float(Vec::new()),
            Some(114 | 3802) => Values::Json(Vec::new()),
            Some(1184) => Values::Time(Vec::new()),
            _ => Values::Text(Vec::new()),
        }
    }

    /// Appends a value as PostgreSQL writes it; `false` if it is not of the type.
    fn push(&mut self, text: Option<&str>) -> bool {
        fn parsed<T>(values: &mut Vec<Option<T>>, text: Option<&str>, parse: impl FnOnce(&str) -> Option<T>) -> bool {
            let value = text.and_then(parse);
            let fits = value.is_some() == text.is_some();
            values.push(value);
            fits
        }
        match self {
            Values::Bool(values) => parsed(values, text, |text| match text {
                "t" => Some(true),
                "f" => Some(false),
                _ => None,
            }),
            Values::Int(values) => parsed(values, text, |text| text.parse().ok()),
            // `NaN`, `Infinity` and `-Infinity` are read too.
            Values::Float(values) => parsed(values, text, |text| text.parse().ok()),
            Values::Time(values) => parsed(values, text, |text| Some(rfc3339(text))),
            Values::Json(values) | Values::Text(values) => parsed(values, text, |text| Some(text.to_owned())),
        }
    }

    /// Name of the type in what `sweep sql --format json` says of its columns.
    pub fn type_name(&self) -> &'static str {
        match self {
            Values::Bool(_) => "boolean",
            Values::Int(_) => "integer",
            Values::Float(_) => "float",
            Values::Json(_) => "json",
            Values::Time(_) => "time",
            Values::Text(_) => "text",
        }
    }
}

/// `2026-11-23 12:00:00.5+00` to `2026-11-23T12:00:00.5Z`.
fn rfc3339(text: &str) -> String {
    match text.strip_suffix("+00") {
        Some(text) => format!("{}Z", text.replacen(' ', "T", 1)),
        None => text.to_owned(),
    }
}

fn number_repeated_names(columns: &mut [Column]) {
    for index in 1..columns.len() {
        let name = columns[index].name.clone();
        let taken = |name: &str| columns[..index].iter().any(|column| column.name == name);
        if taken(&name) {
            let free = (2..=index + 1).map(|number| format!("{name}_{number}")).find(|name| !taken(name));
            columns[index].name = free.expect("some number is free");
        }
    }
}

/// The first word that is not in a comment, or what stands in its place.
fn first_word(text: &str) -> &str {
    let text = &text[skip_comments(text)..];
    let end = text.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(text.len());
    &text[..end]
}

/// Bytes of blanks and comments that `text` begins with, as PostgreSQL reads them: comments nest, and a carriage return
/// ends a line too.
fn skip_comments(text: &str) -> usize {
    let bytes = text.as_bytes();
    let mut at = 0;
    loop {
        match &bytes[at..] {
            [b' ' | b'\t' | b'\n' | b'\r' | 0x0b | 0x0c, ..] => at += 1,
            [b'-', b'-', rest @ ..] => {
                at += 2 + rest.iter().position(|byte| matches!(byte, b'\n' | b'\r')).unwrap_or(rest.len());
            }
            [b'/', b'*', ..] => at += nested_comment(&bytes[at..]),
            _ => return at,
        }
    }
}

/// Length of the comment that `bytes` begin with; all of them if it is not closed.
fn nested_comment(bytes: &[u8]) -> usize {
    let (mut at, mut depth) = (0, 0);
    while at < bytes.len() {
        match &bytes[at..] {
            [b'/', b'*', ..] => (at, depth) = (at + 2, depth + 1),
            [b'*', b'/', ..] => (at, depth) = (at + 2, depth - 1),
            _ => at += 1,
        }
        if depth == 0 {
            return at;
        }
    }
    bytes.len()
}

fn refusal(error: sqlx::Error, question: &Question<'_>) -> SqlError {
    let Some(said) = error.as_database_error().and_then(|error| error.try_downcast_ref::<PgDatabaseError>()) else {
        return StoreError::Query { doing: "running the query", source: error }.into();
    };
    let message = said.message();
    match said.code() {
        "57014" => SqlError::Timeout(question.timeout),
        "25006" => SqlError::NotAQuery { said: message.to_owned() },
        "42601" if message.contains("multiple commands") => {
            SqlError::NotAQuery { said: "these are several statements".to_owned() }
        }
        state => SqlError::Refused {
            message: message.to_owned(),
            state: state.to_owned(),
            hint: said.hint().or(said.detail()).map(str::to_owned),
            position: match said.position() {
                Some(PgErrorPosition::Original(position)) => Some(position),
                _ => None,
            },
        },
    }
}

/// The statement by itself was all right, so what is wrong is that it is no query.
fn not_a_query(error: sqlx::Error, question: &Question<'_>) -> SqlError {
    match refusal(error, question) {
        SqlError::Refused { message, state, .. } if matches!(&*state, "42601" | "0A000") => {
            SqlError::NotAQuery { said: message.replace("DECLARE CURSOR", "a query") }
        }
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn first_word_looks_past_comments() {
        assert_eq!(first_word(" -- a\n /* b */ EXPLAIN select"), "EXPLAIN");
        assert_eq!(first_word("(select 1)"), "");
        assert_eq!(first_word("-- only a comment"), "");
        assert_eq!(first_word("/* open"), "");
        assert_eq!(first_word("/* /* */ explain */ do"), "do");
        assert_eq!(first_word("--\rdo\nexplain"), "do");
    }

    #[test]
    fn a_name_that_comes_again_gets_a_number() {
        let column = |name: &str| Column { name: name.to_owned(), values: Values::Int(Vec::new()) };
        let mut columns = ["a", "b", "a", "a_2", "a"].map(column);
        number_repeated_names(&mut columns);
        assert_eq!(columns.map(|column| column.name), ["a", "b", "a_2", "a_2_2", "a_3"]);
    }

    proptest! {
        #[test]
        fn comments_are_skipped_in_any_text(text in "[-/* \nS\u{e9}]{0,20}") {
            prop_assert!(text.is_char_boundary(skip_comments(&text)));
        }

        #[test]
        fn doubles_survive(value: f64) {
            let mut values = Values::Float(Vec::new());
            let text = format!("{value:?}");
            prop_assert!(values.push(Some(&text)));
            prop_assert_eq!(values, Values::Float(vec![Some(value)]));
        }
    }
}
