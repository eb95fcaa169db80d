//! `sweep laws`: the forms that can be fitted.

use serde::Serialize;

use super::output::{Exit, data, json};
use crate::fit::{Axis, LawName};

/// Options of `sweep laws`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Row {
    name: LawName,
    formula: &'static str,
    axes: Vec<Axis>,
    parameters: Vec<crate::fit::law::Parameter>,
    source: &'static str,
}

#[derive(Serialize)]
struct Rows {
    laws: Vec<Row>,
}

pub(super) fn run(args: &Args) -> Exit {
    let rows: Vec<Row> = LawName::ALL
        .iter()
        .map(|&name| {
            let law = name.law(1.0);
            Row {
                name,
                formula: law.formula(),
                axes: law.axes().to_vec(),
                parameters: law.parameters().to_vec(),
                source: law.source(),
            }
        })
        .collect();
    if args.json {
        json("sweep.laws/1", &Rows { laws: rows });
        return Exit::Done;
    }
    for row in rows {
        data(&format!("{:<18}{}", row.name.to_string(), row.formula));
        for parameter in &row.parameters {
            data(&format!("{:<18}  {:<8}{}", "", parameter.name, parameter.what));
        }
        data(&format!("{:<18}  {}", "", row.source));
    }
    Exit::Done
}
