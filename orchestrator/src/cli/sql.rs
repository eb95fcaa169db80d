//! `sweep sql`: a read-only query, or psql.

use std::fs::File;
use std::io::{self, BufWriter, IsTerminal, Read, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use comfy_table::{CellAlignment, ContentArrangement, Table, presets};

use super::output::{self, Exit, Failure};
use crate::dataset::{self, DatasetError};
use crate::store::sql::{Answer, Question, SqlError, Values};
use crate::store::{self, Store, private_postgres};

/// Rows shown as a table unless asked otherwise.
const TABLE_ROWS: usize = 1_000;
/// Rows written in the other formats unless asked otherwise: they are held in memory.
const FILE_ROWS: usize = 1_000_000;

const EXAMPLES: &str = "\
Views to start from: result (one row a sweep and job), curve, measurement, observation; `sweep sql` then `\\d+ result` explains columns.

  sweep sql 'SELECT model, samples_seen, train_loss FROM result ORDER BY gmacs_samples'
  sweep sql 'SELECT * FROM observation' -o observations.parquet";

/// Options of `sweep sql`.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    /// One statement that reads; `-` reads it from standard input. Without it psql opens, as a role that may only read;
    /// with DATABASE_URL as the role of SWEEP_READER_URL, or else as its own.
    query: Option<String>,
    /// How to write the rows [default: by the name of the file, else table].
    #[arg(long, short, value_enum)]
    format: Option<Format>,
    /// File to write to instead of standard output.
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Seconds that the query may run.
    #[arg(long, default_value_t = 30.0, value_name = "SECS", value_parser = parse_secs)]
    timeout: f64,
    /// Rows to fetch at most, 0 for all; they are held in memory [default: 1000 for a table, else 1000000].
    #[arg(long, value_name = "N")]
    limit: Option<usize>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Format {
    /// For people.
    Table,
    /// With a header; NULL is an empty field.
    Csv,
    /// One object with columns and rows, schema `sweep.sql/1`.
    Json,
    /// For data frames; needs `-o`.
    Parquet,
}

pub(super) async fn run(args: Args) -> Result<Exit, Failure> {
    let Some(query) = &args.query else { return open_psql().await };
    let format = choose_format(&args)?;
    let query = if query == "-" { read_query()? } else { query.clone() };
    if query.trim().is_empty() {
        return Err(Failure::bad_input("the query is empty").hint("`sweep sql` without a query opens psql"));
    }
    let rows_max = match args.limit {
        Some(0) => None,
        Some(limit) => Some(limit),
        None => Some(if format == Format::Table { TABLE_ROWS } else { FILE_ROWS }),
    };
    let store = Store::connect_to_read().await?;
    let question = Question { text: &query, timeout: Duration::from_secs_f64(args.timeout), rows_max };
    let answer = store.sql(&question).await.map_err(|error| explain(error, &query))?;
    match &args.output {
        Some(path) => write_file(path, format, &answer)?,
        None => write_stdout(format, &answer)?,
    }
    if answer.truncated {
        output::say(&format!("stopped after {} rows; `--limit 0` fetches all", answer.rows));
    }
    Ok(Exit::Done)
}

fn parse_secs(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(secs) if (0.001..=86_400.0).contains(&secs) => Ok(secs),
        _ => Err("give seconds from 0.001 to 86400".to_owned()),
    }
}

fn choose_format(args: &Args) -> Result<Format, Failure> {
    let by_name = args.output.as_deref().and_then(Path::extension).and_then(|extension| match extension.to_str()? {
        "csv" => Some(Format::Csv),
        "json" => Some(Format::Json),
        "parquet" => Some(Format::Parquet),
        _ => None,
    });
    let format = args.format.or(by_name).unwrap_or(Format::Table);
    if format == Format::Parquet && args.output.is_none() {
        return Err(Failure::bad_input("Parquet can't go to standard output").hint("name a file: `-o rows.parquet`"));
    }
    Ok(format)
}

fn read_query() -> Result<String, Failure> {
    let mut query = String::new();
    match io::stdin().lock().read_to_string(&mut query) {
        Ok(_) => Ok(query),
        Err(error) => Err(Failure::bad_input("can't read the query from standard input").because(&error)),
    }
}

/// What PostgreSQL said, with the place marked as psql marks it.
fn explain(error: SqlError, query: &str) -> Failure {
    match error {
        SqlError::Store(error) => error.into(),
        SqlError::Refused { message, hint, position, .. } => {
            let failure = Failure::bad_input(match position {
                // A message of several lines is printed as it is.
                Some(position) => format!("error: {message}{}", mark(query, position)),
                None => message,
            });
            match hint {
                Some(hint) => failure.hint(hint),
                None => failure,
            }
        }
        SqlError::Timeout(_) => Failure::bad_input(error.to_string()).hint("give it longer: `--timeout SECS`"),
        SqlError::NotAQuery { .. } => Failure::bad_input(error.to_string())
            .hint("`psql \"$(sweep db url)\"` opens the database as a role that may write"),
        SqlError::Decode { .. } => Failure::environment(error.to_string()),
    }
}

/// The line of the query that holds character `position` (from 1), and a caret below it.
fn mark(query: &str, position: usize) -> String {
    let mut rest = position.saturating_sub(1);
    for (number, line) in query.split('\n').enumerate() {
        let length = line.chars().count();
        if rest <= length {
            let head = format!("line {}: ", number + 1);
            return format!("\n  {head}{line}\n  {}^", " ".repeat(head.len() + rest));
        }
        rest -= length + 1;
    }
    String::new()
}

fn write_stdout(format: Format, answer: &Answer) -> Result<(), Failure> {
    let mut stdout = BufWriter::new(io::stdout().lock());
    let width = io::stdout().is_terminal();
    match write(format, answer, &mut stdout, width).and_then(|()| Ok(stdout.flush()?)) {
        // `head` closes the pipe when it has enough.
        Err(DatasetError::Write(error)) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        Err(error) => Err(Failure::environment(error.to_string()).because(&error)),
        Ok(()) => Ok(()),
    }
}

fn write_file(path: &Path, format: Format, answer: &Answer) -> Result<(), Failure> {
    let failed =
        |error: &dyn std::error::Error| Failure::environment(format!("can't write {}", path.display())).because(error);
    let mut file = BufWriter::new(File::create(path).map_err(|error| failed(&error))?);
    write(format, answer, &mut file, false).map_err(|error| failed(&error))?;
    file.flush().map_err(|error| failed(&error))?;
    output::say(&format!("wrote {} rows to {}", answer.rows, path.display()));
    Ok(())
}

fn write(format: Format, answer: &Answer, to: &mut impl Write, fit_terminal: bool) -> Result<(), DatasetError> {
    match format {
        Format::Table => Ok(writeln!(to, "{}", table(answer, fit_terminal))?),
        Format::Csv => dataset::write_csv(answer, to),
        Format::Json => dataset::write_json(answer, to),
        Format::Parquet => dataset::write_parquet(answer, to),
    }
}

/// The same when piped, apart from the width.
fn table(answer: &Answer, fit_terminal: bool) -> String {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING).set_header(answer.columns.iter().map(|column| output::one_line(&column.name)));
    let arrangement = if fit_terminal { ContentArrangement::Dynamic } else { ContentArrangement::Disabled };
    table.set_content_arrangement(arrangement);
    for row in 0..answer.rows {
        table.add_row(answer.columns.iter().map(|column| cell(&column.values, row)));
    }
    for (index, column) in answer.columns.iter().enumerate() {
        if matches!(column.values, Values::Int(_) | Values::Float(_))
            && let Some(column) = table.column_mut(index)
        {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table.lines().map(|line| line.trim_end().to_owned() + "\n").collect::<String>().trim_end().to_owned()
}

fn cell(values: &Values, row: usize) -> String {
    match values {
        Values::Bool(values) => values[row].map(|value| value.to_string()),
        Values::Int(values) => values[row].map(|value| value.to_string()),
        // `Debug` writes the shortest text that reads back the same, with an exponent where it is shorter.
        Values::Float(values) => values[row].map(|value| format!("{value:?}")),
        Values::Json(values) | Values::Time(values) | Values::Text(values) => {
            values[row].as_deref().map(|text| output::visible(text).into_owned())
        }
    }
    .unwrap_or_default()
}

/// Becomes psql, as the role that may only read, where there is one. The password goes by the environment, which other
/// users can't read.
async fn open_psql() -> Result<Exit, Failure> {
    Store::connect_to_read().await?;
    let mut command = std::process::Command::new(find_psql());
    match store::psql_target()? {
        Some((url, password)) => {
            command.arg(url);
            if let Some(password) = password {
                command.env("PGPASSWORD", password);
            }
        }
        None => {
            command.envs(private_postgres::ensure_running(&store::home())?.reader_environment()?);
        }
    }
    let error = command.exec();
    Err(Failure::environment(format!("can't run `{}`", command.get_program().display()))
        .because(&error)
        .hint("install the client (`apt-get install postgresql-client`), or give a query: `sweep sql 'SELECT ...'`"))
}

/// Beside the server programs, or else on PATH.
fn find_psql() -> PathBuf {
    let found = private_postgres::find_binaries().unwrap_or_default();
    let beside = found.iter().map(|binaries| binaries.program("psql")).find(|path| path.exists());
    beside.unwrap_or_else(|| "psql".into())
}
