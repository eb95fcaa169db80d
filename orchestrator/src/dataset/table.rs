//! Tables of others, read whole as text: CSV, TSV and Parquet.

use std::io::Cursor;
use std::path::Path;

use polars::prelude::{DataFrame, DataType, ParquetReader, PolarsError, SerReader};

use super::text_table::{self, TextTable};

/// A table in memory. Cells are text, trimmed; an empty one is `None`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Table {
    /// File name, for messages.
    pub name: String,
    /// Names of the columns.
    pub columns: Vec<String>,
    /// Cells by row, in the order of `columns`.
    pub rows: Vec<Vec<Option<String>>>,
    /// Lines of the file that the rows begin in, where it is text.
    lines: Vec<usize>,
}

/// Why a table can't be read.
#[derive(Debug, thiserror::Error)]
pub enum TableError {
    /// polars can't.
    #[error("can't read {name} as Parquet")]
    Parquet {
        /// File.
        name: String,
        /// Why.
        source: PolarsError,
    },
    /// Not the text of a table.
    #[error("{place}: {reason}")]
    Text {
        /// File and line.
        place: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A row that is longer or shorter than the header.
    #[error("{place}: {cells} cell{} in a table of {columns} columns", if *cells == 1 { "" } else { "s" })]
    Ragged {
        /// File and line.
        place: String,
        /// Its cells.
        cells: usize,
        /// The header's.
        columns: usize,
    },
    /// Two columns of one name.
    #[error("{name} has the column `{column}` twice; give each a name of its own")]
    Twice {
        /// File.
        name: String,
        /// Column.
        column: String,
    },
}

impl Table {
    /// Reads bytes by the file's extension: `.parquet`, `.tsv`, else CSV with a header.
    pub fn read(name: &str, bytes: &[u8]) -> Result<Table, TableError> {
        let extension = Path::new(name).extension().and_then(|extension| extension.to_str()).unwrap_or_default();
        let table = match extension.to_ascii_lowercase().as_str() {
            "parquet" | "pq" => {
                let failed = |source| TableError::Parquet { name: name.to_owned(), source };
                parquet(bytes).map_err(failed)?
            }
            "tsv" | "tab" => text_table::read(name, bytes, b'\t')?,
            _ => text_table::read(name, bytes, b',')?,
        };
        let TextTable { columns, rows, lines } = table;
        if let Some(column) = columns.iter().enumerate().find(|(at, name)| columns[..*at].contains(name)) {
            return Err(TableError::Twice { name: name.to_owned(), column: column.1.clone() });
        }
        Ok(Table { name: name.to_owned(), columns, rows, lines })
    }

    /// Position of a column.
    pub fn column(&self, name: &str) -> Option<usize> {
        self.columns.iter().position(|column| column == name)
    }

    /// A cell by position of its column, if it is there and not empty.
    pub fn cell(&self, row: usize, column: Option<usize>) -> Option<&str> {
        self.rows.get(row)?.get(column?)?.as_deref()
    }

    /// How messages name a row: `file.csv:12`, by the line that it begins in, or `file.parquet row 11`.
    pub fn place(&self, row: usize) -> String {
        match self.lines.get(row) {
            Some(line) => format!("{}:{line}", self.name),
            None => format!("{} row {}", self.name, row + 1),
        }
    }
}

fn parquet(bytes: &[u8]) -> Result<TextTable, PolarsError> {
    let frame = ParquetReader::new(Cursor::new(bytes)).finish()?;
    let columns = frame.get_column_names().iter().map(|name| name.trim().to_owned()).collect();
    let cells = by_column(&frame)?;
    let rows = (0..frame.height()).map(|row| cells.iter().map(|column| column[row].clone()).collect()).collect();
    Ok(TextTable { columns, rows, lines: Vec::new() })
}

fn by_column(frame: &DataFrame) -> Result<Vec<Vec<Option<String>>>, PolarsError> {
    let text = |value: &str| Some(value.trim().to_owned()).filter(|value| !value.is_empty());
    frame
        .columns()
        .iter()
        .map(|column| {
            if column.dtype().is_float() {
                let numbers = column.cast(&DataType::Float64)?;
                // `Debug` writes the shortest text that reads back the same.
                return Ok(numbers.f64()?.iter().map(|value| value.map(|value| format!("{value:?}"))).collect());
            }
            let texts = column.cast(&DataType::String)?;
            Ok(texts.str()?.iter().map(|value| value.and_then(text)).collect())
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn csv_and_tsv_are_text() {
        let table = Table::read("a.csv", b"x, y ,z\n1,,\"a, b\"\n 2 ,\xc3\xbc,\n").expect("CSV");
        assert_eq!(table.columns, ["x", "y", "z"]);
        assert_eq!(table.cell(0, table.column("z")), Some("a, b"));
        assert_eq!(table.cell(0, table.column("y")), None);
        assert_eq!((table.cell(1, Some(0)), table.cell(1, Some(1))), (Some("2"), Some("ü")));
        assert_eq!(table.place(1), "a.csv:3");
        let table = Table::read("a.tsv", b"x\ty\n1e3\tnan\n").expect("TSV");
        assert_eq!(table.cell(0, Some(0)), Some("1e3"));
    }

    #[test]
    fn what_is_no_table_is_said() {
        assert!(matches!(Table::read("a.csv", b""), Err(TableError::Text { .. })));
        assert!(matches!(Table::read("a.parquet", b"PAR"), Err(TableError::Parquet { .. })));
        let error = Table::read("a.csv", b"x,x \n1,2\n").expect_err("two columns of one name");
        assert_eq!(error.to_string(), "a.csv has the column `x` twice; give each a name of its own");
    }
}
