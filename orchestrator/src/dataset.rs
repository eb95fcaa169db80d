//! Results to polars frames, and to CSV, JSON and Parquet. The only module that knows polars.

pub mod table;
mod text_table;

use std::io::{self, Write};

use polars::prelude::{Column as Series, CsvWriter, DataFrame, ParquetWriter, PolarsError, SerWriter};
use serde::ser::{SerializeMap, SerializeSeq};
use serde::{Serialize, Serializer};

use crate::store::sql::{Answer, Column, Values};

/// What can go wrong between rows and a file.
#[derive(Debug, thiserror::Error)]
pub enum DatasetError {
    /// polars refused.
    #[error("can't write the rows as {format}")]
    Frame {
        /// Format.
        format: &'static str,
        /// Why.
        source: PolarsError,
    },
    /// The disk or a pipe refused.
    #[error("can't write the rows")]
    Write(#[from] io::Error),
}

/// A frame of the columns, types kept; json and times are text.
pub fn frame(columns: &[Column]) -> Result<DataFrame, PolarsError> {
    let series = |column: &Column| {
        let name = column.name.as_str().into();
        match &column.values {
            Values::Bool(values) => Series::new(name, values),
            Values::Int(values) => Series::new(name, values),
            Values::Float(values) => Series::new(name, values),
            Values::Json(values) | Values::Time(values) | Values::Text(values) => Series::new(name, values),
        }
    };
    DataFrame::new_infer_height(columns.iter().map(series).collect())
}

/// CSV with a header. NULL is an empty field, an empty text is `""`.
pub fn write_csv(answer: &Answer, to: &mut impl Write) -> Result<(), DatasetError> {
    let failed = |source| DatasetError::Frame { format: "CSV", source };
    let mut frame = frame(&answer.columns).map_err(failed)?;
    CsvWriter::new(to).include_header(true).finish(&mut frame).map_err(failed)
}

/// Parquet, compressed with zstd.
pub fn write_parquet(answer: &Answer, to: &mut impl Write) -> Result<(), DatasetError> {
    let failed = |source| DatasetError::Frame { format: "Parquet", source };
    let mut frame = frame(&answer.columns).map_err(failed)?;
    ParquetWriter::new(to).finish(&mut frame).map_err(failed)?;
    Ok(())
}

/// One object: `{"schema": "sweep.sql/1", "columns": [{"name", "type"}], "truncated": false, "rows": [{name: value}]}`.
/// json columns are nested as they are; JSON has no NaN, so those and the infinities are the texts `"NaN"`, `"inf"`,
/// `"-inf"`.
pub fn write_json(answer: &Answer, to: &mut impl Write) -> Result<(), DatasetError> {
    #[derive(Serialize)]
    struct Head<'a> {
        name: &'a str,
        r#type: &'static str,
    }
    #[derive(Serialize)]
    struct Whole<'a> {
        schema: &'static str,
        columns: Vec<Head<'a>>,
        truncated: bool,
        rows: Rows<'a>,
    }
    let columns = answer.columns.iter().map(|column| Head { name: &column.name, r#type: column.values.type_name() });
    let whole =
        Whole { schema: "sweep.sql/1", columns: columns.collect(), truncated: answer.truncated, rows: Rows(answer) };
    serde_json::to_writer(&mut *to, &whole).map_err(io::Error::from)?;
    Ok(writeln!(to)?)
}

struct Rows<'a>(&'a Answer);

struct Row<'a>(&'a [Column], usize);

struct Cell<'a>(&'a Values, usize);

impl Serialize for Rows<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut rows = serializer.serialize_seq(Some(self.0.rows))?;
        for row in 0..self.0.rows {
            rows.serialize_element(&Row(&self.0.columns, row))?;
        }
        rows.end()
    }
}

impl Serialize for Row<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut row = serializer.serialize_map(Some(self.0.len()))?;
        for column in self.0 {
            row.serialize_entry(&column.name, &Cell(&column.values, self.1))?;
        }
        row.end()
    }
}

impl Serialize for Cell<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            Values::Bool(values) => values[self.1].serialize(serializer),
            Values::Int(values) => values[self.1].serialize(serializer),
            Values::Float(values) => match values[self.1] {
                Some(value) if !value.is_finite() => value.to_string().serialize(serializer),
                value => value.serialize(serializer),
            },
            Values::Json(values) => match &values[self.1] {
                Some(text) => serde_json::from_str::<serde_json::Value>(text)
                    .map_err(serde::ser::Error::custom)?
                    .serialize(serializer),
                None => serializer.serialize_none(),
            },
            Values::Time(values) | Values::Text(values) => values[self.1].serialize(serializer),
        }
    }
}
