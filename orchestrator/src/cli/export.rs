//! `sweep export`: the results of a sweep for other programs.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::analysis::{find_metric, unknown};
use super::output::{Exit, Failure, say};
use crate::dataset;
use crate::import::clip_benchmark::export::{self, Measured};
use crate::store::Store;
use crate::store::observation::{MeasuredMetric, export_query};
use crate::store::sql::{Answer, Question, Values};

/// How long reading may take.
const TIMEOUT: Duration = Duration::from_mins(5);

/// Options of `sweep export`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
csv and parquet hold the rows of the view `observation`, aggregates included; `sweep sql` writes any other query.
clip-benchmark writes one JSON file a model and data set, which CLIP_benchmark's tools and `sweep import clip-benchmark` read.")]
pub(super) struct Args {
    /// Name of the sweep.
    sweep: String,
    /// How to write [default: by the name of the output, else csv].
    #[arg(long, short, value_enum)]
    format: Option<Format>,
    /// File, or the folder for clip-benchmark; CSV goes to standard output without it.
    #[arg(long, short, value_name = "PATH")]
    output: Option<PathBuf>,
    /// Only this metric; may be given again.
    #[arg(long, value_name = "DATASET/METRIC")]
    metric: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Format {
    /// One row a job, data set and metric.
    Csv,
    /// The same with types.
    Parquet,
    /// A folder of JSON files in CLIP_benchmark's form.
    ClipBenchmark,
}

impl Format {
    /// Parquet where the name ends so.
    fn of_name(path: Option<&Path>) -> Format {
        let extension = path.and_then(Path::extension);
        if extension.is_some_and(|extension| extension == "parquet") { Format::Parquet } else { Format::Csv }
    }
}

pub(super) async fn run(args: Args) -> Result<Exit, Failure> {
    let store = Store::connect_to_read().await?;
    let names = store.study_names().await?;
    if !names.contains(&args.sweep) {
        return Err(unknown("sweep", &args.sweep, &names, "start one with `sweep launch SPEC`"));
    }
    let measured = store.observation_metrics(&args.sweep).await?;
    let chosen: Vec<&MeasuredMetric> =
        args.metric.iter().map(|name| find_metric(&measured, name)).collect::<Result<_, _>>()?;
    let format = args.format.unwrap_or_else(|| Format::of_name(args.output.as_deref()));
    if args.output.is_none() && format != Format::Csv {
        return Err(Failure::bad_input("this form can't go to standard output").hint("say where to write: `-o PATH`"));
    }
    let text = export_query(&args.sweep, &chosen, format == Format::ClipBenchmark);
    let question = Question { text: &text, timeout: TIMEOUT, rows_max: None };
    let answer = store
        .sql(&question)
        .await
        .map_err(|error| Failure::environment("can't read the observations").because(&error))?;
    match (&args.output, format) {
        (Some(folder), Format::ClipBenchmark) => write_json(folder, &answer)?,
        (Some(path), format) => {
            let failed = |error: &dyn std::error::Error| cant_write(path, error);
            let mut file = BufWriter::new(File::create(path).map_err(|error| failed(&error))?);
            match format {
                Format::Parquet => dataset::write_parquet(&answer, &mut file),
                _ => dataset::write_csv(&answer, &mut file),
            }
            .map_err(|error| failed(&error))?;
            file.flush().map_err(|error| failed(&error))?;
            say(&format!("wrote {} rows to {}", answer.rows, path.display()));
        }
        (None, _) => {
            let failed = |error: &dyn std::error::Error| Failure::environment("can't write the rows").because(error);
            let mut bytes = Vec::new();
            dataset::write_csv(&answer, &mut bytes).map_err(|error| failed(&error))?;
            match io::stdout().lock().write_all(&bytes) {
                // `head` closes the pipe when it has enough.
                Err(error) if error.kind() != io::ErrorKind::BrokenPipe => return Err(failed(&error)),
                _ => {}
            }
        }
    }
    Ok(Exit::Done)
}

fn write_json(folder: &Path, answer: &Answer) -> Result<(), Failure> {
    std::fs::create_dir_all(folder).map_err(|error| cant_write(folder, &error))?;
    let rows = measured(answer);
    let files = export::files(&rows);
    for (name, value) in &files {
        let path = folder.join(name);
        let text = serde_json::to_string(value).expect("JSON values serialise") + "\n";
        std::fs::write(&path, text).map_err(|error| cant_write(&path, &error))?;
    }
    let mut others: Vec<&str> = rows.iter().map(|row| row.metric.as_str()).collect();
    others.retain(|metric| !export::is_of_clip_benchmark(metric));
    others.sort_unstable();
    others.dedup();
    if !others.is_empty() {
        say(&format!("left out, since CLIP_benchmark gives no such metrics: {}", others.join(", ")));
    }
    let folder = folder.display();
    say(&format!("wrote {} files to {folder}\n\nhint: sweep import clip-benchmark {folder}", files.len()));
    Ok(())
}

fn cant_write(path: &Path, error: &dyn std::error::Error) -> Failure {
    Failure::environment(format!("can't write {}", path.display())).because(error)
}

/// Rows of the view as records.
fn measured(answer: &Answer) -> Vec<Measured> {
    let column = |name: &str| answer.columns.iter().find(|column| column.name == name).map(|column| &column.values);
    let text = |name: &str, row: usize| match column(name) {
        Some(Values::Text(values) | Values::Json(values)) => values[row].clone(),
        _ => None,
    };
    let real = |name: &str, row: usize| match column(name) {
        Some(Values::Float(values)) => values[row],
        _ => None,
    };
    let pretrained = |row: usize| {
        let detail: Option<serde_json::Value> =
            text("source_detail", row).and_then(|text| serde_json::from_str(&text).ok());
        detail.and_then(|detail| detail.get("pretrained")?.as_str().map(str::to_owned))
    };
    (0..answer.rows)
        .map(|row| Measured {
            dataset: text("dataset", row).unwrap_or_default(),
            metric: text("metric", row).unwrap_or_default(),
            model: text("model", row).unwrap_or_default(),
            pretrained: pretrained(row)
                .unwrap_or_else(|| text("job_key", row).unwrap_or_default().chars().take(12).collect()),
            value: real("value", row).unwrap_or(f64::NAN),
            samples_seen: real("d", row),
            gmacs_total: real("gmacs_samples", row),
            pool: text("pool", row),
        })
        .collect()
}
