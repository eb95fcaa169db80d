//! `sweep model`.

use comfy_table::{CellAlignment, Table, presets};
use protocol::{ModelConfig, SHIPPED_MODELS};
use serde::Serialize;

use super::output::{Exit, Failure, data, json};
use crate::plan::inputs::model_file;
use crate::spec::{is_model_file, model_names, nearest, shipped};

/// Options of `sweep model`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Names of models that come with `sweep`, or JSON files in the form of OpenCLIP's model_configs; none: all that
    /// come with it.
    #[arg(value_name = "NAME|FILE")]
    models: Vec<String>,
    /// Print JSON: one object for one model, else a list `models`.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Serialize)]
struct Row {
    name: String,
    parameters: u64,
    image_parameters: u64,
    text_parameters: u64,
    gmacs: f64,
    image_gmacs: f64,
    text_gmacs: f64,
    gflops: f64,
    /// Why clip-runner does not train it; empty where it does.
    not_trained: Vec<String>,
}

#[derive(Debug, Serialize)]
struct Rows {
    models: Vec<Row>,
}

pub(super) fn run(args: &Args) -> Result<Exit, Failure> {
    let rows: Vec<Row> = if args.models.is_empty() {
        SHIPPED_MODELS.iter().map(|(name, _)| row(name)).collect::<Result<_, _>>()?
    } else {
        args.models.iter().map(|name| row(name)).collect::<Result<_, _>>()?
    };
    match (args.json, rows) {
        (true, rows) if args.models.len() == 1 => json("sweep.model/1", &rows[0]),
        (true, models) => json("sweep.model/1", &Rows { models }),
        (false, rows) => data(&table(&rows)),
    }
    Ok(Exit::Done)
}

fn row(name: &str) -> Result<Row, Failure> {
    let (name, config) = find(name)?;
    let problems = config.check();
    if !problems.is_empty() {
        let words: Vec<String> = problems.iter().map(ToString::to_string).collect();
        return Err(Failure::bad_input(format!("`{name}` can't be built: {}", words.join("; "))));
    }
    let size = config.size();
    Ok(Row {
        name,
        parameters: size.parameters(),
        image_parameters: size.image_parameters,
        text_parameters: size.text_parameters,
        gmacs: size.gmacs(),
        image_gmacs: size.image_gmacs(),
        text_gmacs: size.text_gmacs(),
        gflops: size.gflops(),
        not_trained: config.check_trained_by_clip().iter().map(ToString::to_string).collect(),
    })
}

fn find(name: &str) -> Result<(String, ModelConfig), Failure> {
    if let Some(model) = shipped(name) {
        return Ok((model.name, model.config));
    }
    if is_model_file(name) {
        let path = std::path::Path::new(name);
        let config = model_file(std::path::Path::new(""), name).map_err(|error| {
            Failure::bad_input(error.to_string()).hint("the form is that of OpenCLIP's model_configs")
        })?;
        let stem = path.file_stem().map_or_else(|| name.to_owned(), |stem| stem.to_string_lossy().into_owned());
        return Ok((stem, config));
    }
    let near = nearest(name, model_names()).map_or_else(String::new, |near| format!("did you mean `{near}`? "));
    Err(Failure::bad_input(format!("no model is called `{name}`"))
        .hint(format!("{near}`sweep model` lists all; a file is named by its path, `./{name}.json`")))
}

fn table(rows: &[Row]) -> String {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING);
    table.set_header(["model", "parameters", "image", "text", "GMACs", "image", "text", "GFLOPs"]);
    for row in rows {
        let count = |value: u64| format!("{:.2}M", value as f64 / 1e6);
        let compute = |value: f64| if value < 1.0 { format!("{value:.4}") } else { format!("{value:.2}") };
        table.add_row([
            row.name.clone(),
            count(row.parameters),
            count(row.image_parameters),
            count(row.text_parameters),
            compute(row.gmacs),
            compute(row.image_gmacs),
            compute(row.text_gmacs),
            compute(row.gflops),
        ]);
    }
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    let lines = table.lines().map(|line| line.trim_end().to_owned()).collect::<Vec<_>>().join("\n");
    let not_trained = rows.iter().filter(|row| !row.not_trained.is_empty());
    let not_trained: Vec<String> = not_trained
        .map(|row| format!("\nclip-runner does not train {}: {}.", row.name, row.not_trained.join("; ")))
        .collect();
    format!(
        "{lines}\n\nGMACs: forward, one image-text pair, LayerNorm counted (Cherti et al. 2022). \
         GFLOPs: 2 x MACs without LayerNorm (OpenCLIP).{}",
        not_trained.concat()
    )
}
