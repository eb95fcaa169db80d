//! Any table of results, by a [`Mapping`] of its columns: each row a job, or the rows of a run its checkpoints.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap};

use serde_json::{Value, json};

use super::benchmarks::binomial;
use super::mapping::{From, Key, Mapping};
use super::{ReadError, SourceFile, agree, list_of, number, pool};
use crate::dataset::table::Table;
use crate::events::Range;
use crate::fit::Convention;
use crate::store::import::{Imported, ImportedEvaluation, ImportedJob, ImportedPool, ImportedStudy};

/// Kind of source in the database.
pub const SOURCE: &str = "csv";

/// What is measured on where the table does not say.
const DATASET: &str = "table";
/// What the model is called where the table does not say.
const GROUP: &str = "all";

/// Of a row beside another that no mapped column tells it from.
const ALIKE: &str = "with the axes of another row, stored as runs of their own (a mapped `seed`, `group` or `run` tells \
                     rows apart)";

/// A row that could be read.
#[derive(Debug, Clone)]
struct Row {
    /// Position in the table.
    at: usize,
    n: Option<f64>,
    d: Option<f64>,
    u: Option<f64>,
    c: Option<f64>,
    chance: Option<f64>,
    standard_error: Option<f64>,
    count: Option<f64>,
    cost: Option<f64>,
    seed: i64,
    group: String,
    dataset: String,
    pool: Option<String>,
    run: Option<String>,
    /// Metric's name, value.
    metrics: Vec<(String, f64)>,
}

/// Why a cell can't be used.
enum Bad {
    Empty,
    /// What is in the column, what is allowed.
    Value(String, String),
}

/// Cells that were of no use, by what was wrong with them: places and values.
#[derive(Default)]
struct Complaints(BTreeMap<String, Vec<String>>);

impl Complaints {
    fn add(&mut self, what: String, place: String) {
        self.0.entry(what).or_default().push(place);
    }

    fn warnings(self, table: &Table) -> Vec<String> {
        let line = |(what, places): (String, Vec<String>)| {
            let rows = if places.len() == 1 { "row" } else { "rows" };
            format!("{}: {} {rows} {what}: {}", table.name, places.len(), list_of(places))
        };
        self.0.into_iter().map(line).collect()
    }
}

/// Reads a table into the sweep `name`.
pub fn read(
    name: &str,
    file: &SourceFile,
    maps: &[String],
    compute: Option<Convention>,
) -> Result<Imported, ReadError> {
    let table = file.table()?;
    let sha256 = file.sha256();
    let mapping = Mapping::parse(maps, compute, &table)?;
    let mut complaints = Complaints::default();
    let rows: Vec<Row> = (0..table.rows.len()).filter_map(|at| row(&table, &mapping, at, &mut complaints)).collect();
    let mut jobs: Vec<ImportedJob> = Vec::new();
    let mut again: HashMap<String, u64> = HashMap::new();
    let mut of_axes: HashMap<String, Vec<&Row>> = HashMap::new();
    let mut runs: Vec<((&str, &str), Vec<&Row>)> = Vec::new();
    for row in &rows {
        if let Some(run) = &row.run {
            let key = (run.as_str(), row.group.as_str());
            match runs.iter_mut().find(|(known, _)| *known == key) {
                Some((_, of)) => of.push(row),
                None => runs.push((key, vec![row])),
            }
            continue;
        }
        let content = content(row, &mapping);
        let times = again.entry(content.to_string()).or_default();
        *times += 1;
        let axes = axes(row, &mapping);
        let alike = of_axes.entry(axes.to_string()).or_default();
        let beside = |other: &Row| format!("{} (as {})", table.place(row.at), table.place(other.at));
        if let Some(same) = alike.iter().find(|other| table.rows[other.at] == table.rows[row.at]) {
            complaints.add("the same as another throughout, stored once".to_owned(), beside(same));
            continue;
        }
        if let Some(first) = alike.first() {
            complaints.add(ALIKE.to_owned(), beside(first));
        }
        alike.push(row);
        let known_as = KnownAs {
            identity: json!({ "axes": axes, "nth": alike.len() }),
            former: json!({ "row": content, "ordinal": times }),
        };
        jobs.push(job(row, &[row], known_as, &mapping, &table, &sha256, &mut complaints));
    }
    for ((run, group), mut of) in runs {
        of.sort_by(|a, b| a.d.unwrap_or(0.0).total_cmp(&b.d.unwrap_or(0.0)));
        let Some(last) = of.last().copied() else { continue };
        let is_other = |row: &&&Row| {
            !same_axis(row.n, last.n) || !same_axis(row.u, last.u) || (row.seed, &row.pool) != (last.seed, &last.pool)
        };
        for row in of.iter().filter(is_other) {
            let what = format!("of run `{run}` with another n, u, seed or pool than its last row, which counts");
            complaints.add(what, table.place(row.at));
        }
        let rows: Vec<Value> = of.iter().map(|row| content(row, &mapping)).collect();
        let known_as = KnownAs {
            identity: json!({ "run": run, "group": group }),
            former: json!({ "run": run, "group": group, "rows": rows }),
        };
        jobs.push(job(last, &of, known_as, &mapping, &table, &sha256, &mut complaints));
    }
    let study =
        ImportedStudy { name: name.to_owned(), question: format!("Results in {}", file.name), source: SOURCE, jobs };
    super::or_nothing(
        &file.name,
        Imported { studies: vec![study], warnings: complaints.warnings(&table), ..Imported::default() },
    )
}

fn same_axis(one: Option<f64>, other: Option<f64>) -> bool {
    match (one, other) {
        (Some(one), Some(other)) => agree(one, other, 1e-9),
        (one, other) => one == other,
    }
}

/// Which row it is: what was trained and what it was measured on, not what came out.
fn axes(row: &Row, mapping: &Mapping) -> Value {
    json!({
        "n": row.n, "d": row.d, "u": row.u, "c": row.c, "compute": mapping.compute.map(Convention::as_str),
        "seed": row.seed, "group": row.group, "dataset": row.dataset, "pool": row.pool,
    })
}

/// What a row says, whatever file it stands in: how versions to 0.1 told rows apart.
fn content(row: &Row, mapping: &Mapping) -> Value {
    json!({
        "n": row.n, "d": row.d, "u": row.u, "c": row.c, "compute": mapping.compute.map(Convention::as_str),
        "seed": row.seed, "group": row.group, "dataset": row.dataset, "pool": row.pool, "metrics": row.metrics,
        "cost": row.cost, "se": row.standard_error, "count": row.count,
    })
}

/// What a job is known by, now and in versions to 0.1.
struct KnownAs {
    identity: Value,
    former: Value,
}

/// A job that ends with `last`; `of` are its rows by D.
fn job(
    last: &Row,
    of: &[&Row],
    known_as: KnownAs,
    mapping: &Mapping,
    table: &Table,
    sha256: &str,
    complaints: &mut Complaints,
) -> ImportedJob {
    let of_convention = |convention| last.c.filter(|_| mapping.compute == Some(convention));
    let mut evaluations: Vec<ImportedEvaluation> = Vec::new();
    let mut seen: HashMap<_, (&Row, f64)> = HashMap::new();
    for row in of {
        // Positions are whole samples in the database.
        let is_last = row.d.map(f64::round) == last.d.map(f64::round);
        for (at, (metric, value)) in row.metrics.iter().enumerate() {
            // The error columns belong to the first metric mapped.
            let count = row.count.filter(|_| at == 0);
            let binomial = || {
                (Range::of(metric) == Range::Fraction).then(|| binomial(*value, count.unwrap_or(0.0) as i64)).flatten()
            };
            let evaluation = ImportedEvaluation {
                dataset: row.dataset.clone(),
                metric: metric.clone(),
                samples_seen: if is_last { None } else { row.d.map(|d| d.round() as i64) },
                value: *value,
                standard_error: row.standard_error.filter(|_| at == 0).or_else(binomial),
                chance: row.chance.filter(|_| at == 0),
                count: count.map(|count| count.round() as i64),
            };
            match seen.entry((&row.dataset, metric, evaluation.samples_seen)) {
                Entry::Vacant(entry) => {
                    entry.insert((row, *value));
                    evaluations.push(evaluation);
                }
                Entry::Occupied(entry) if entry.get().1.to_bits() != value.to_bits() => {
                    let (first, before) = *entry.get();
                    let run = last.run.as_deref().unwrap_or_default();
                    let what = format!("of run `{run}` at the samples seen of another row; the first is kept");
                    let (here, there) = (table.place(row.at), table.place(first.at));
                    complaints.add(what, format!("{here} ({metric} {value:?}, {there} has {before:?})"));
                }
                Entry::Occupied(_) => {}
            }
        }
    }
    let trained_on =
        last.pool.as_ref().map(|name| pool(name).unwrap_or_else(|| ImportedPool { name: name.clone(), samples: None }));
    let unique = last.u.map(|u| last.d.map_or(u, |d| u.min(d)));
    ImportedJob {
        identity: known_as.identity,
        former: known_as.former,
        place: last.run.clone().unwrap_or_else(|| table.place(last.at)),
        grows: last.run.is_some(),
        detail: json!({
            "file": table.name, "sha256": sha256, "row": table.place(last.at), "rows": of.len(),
            "cells": table.columns.iter().zip(&table.rows[last.at]).collect::<BTreeMap<_, _>>(),
        }),
        model: last.group.clone(),
        data_size: last.u.or_else(|| trained_on.as_ref()?.size()),
        pool: trained_on,
        parameters: last.n,
        samples_seen: last.d,
        unique_samples: unique,
        gmacs_samples: of_convention(Convention::GmacsSamples),
        train_flops: of_convention(Convention::TrainFlops),
        six_nd: of_convention(Convention::SixNd).or_else(|| Some(6.0 * last.n? * last.d?)),
        seed: last.seed,
        train_secs: last.cost.map(|hours| hours * 3600.0),
        gpus: last.cost.map(|_| 1),
        evaluations,
        ..ImportedJob::default()
    }
}

/// Reads a row; `None` where a mapped cell is of no use, which `complaints` then says.
fn row(table: &Table, mapping: &Mapping, at: usize, complaints: &mut Complaints) -> Option<Row> {
    let mut reals: HashMap<String, f64> = HashMap::new();
    let mut words: HashMap<String, String> = HashMap::new();
    let mut metrics = Vec::new();
    let mut usable = true;
    for (key, from) in &mapping.entries {
        match from {
            From::Word(word) => {
                words.insert(key.to_string(), word.clone());
            }
            From::Words(column) => match table.cell(at, table.column(column)) {
                Some(word) => {
                    words.insert(key.to_string(), word.to_owned());
                }
                None if *key == Key::Run => {
                    complaints.add("left out: `run` is empty".to_owned(), table.place(at));
                    usable = false;
                }
                None => complaints.add(format!("without `{key}` (column `{column}` is empty)"), table.place(at)),
            },
            From::Numbers(expression) => {
                let value = expression.value(&mut |column: &str| cell(table, at, column));
                match value.and_then(|value| checked(key, value)) {
                    Ok(value) if key.is_metric() => {
                        let value = if *key == Key::Error { 1.0 - value } else { value };
                        metrics.push((key.metric_name().to_owned(), value));
                    }
                    Ok(value) => {
                        reals.insert(key.to_string(), value);
                    }
                    Err(Bad::Empty) if *key == Key::D && mapping.of(&Key::Run).is_some() => {
                        complaints.add("left out: `d` is empty, which a checkpoint needs".to_owned(), table.place(at));
                        usable = false;
                    }
                    Err(Bad::Empty) => complaints.add(format!("without `{key}` (empty)"), table.place(at)),
                    Err(Bad::Value(found, allowed)) => {
                        complaints.add(format!("left out: {key}: {allowed}"), format!("{} ({found})", table.place(at)));
                        usable = false;
                    }
                }
            }
        }
    }
    if usable && metrics.is_empty() {
        complaints.add("left out: nothing measured".to_owned(), table.place(at));
        usable = false;
    }
    let mut word = |key: &str| words.remove(key);
    let real = |key: &str| reals.get(key).copied();
    usable.then(|| Row {
        at,
        n: real("n"),
        d: real("d"),
        u: real("u"),
        c: real("c"),
        chance: real("chance"),
        standard_error: real("se"),
        count: real("count"),
        cost: real("cost"),
        seed: real("seed").map_or(0, |seed| seed as i64),
        group: word("group").unwrap_or_else(|| GROUP.to_owned()),
        dataset: word("dataset").unwrap_or_else(|| DATASET.to_owned()),
        pool: word("pool"),
        run: word("run"),
        metrics,
    })
}

fn cell(table: &Table, at: usize, column: &str) -> Result<f64, Bad> {
    let text = table.cell(at, table.column(column)).ok_or(Bad::Empty)?;
    let decimal_comma = text.matches(',').count() == 1 && number(&text.replace(',', ".")).is_some();
    let allowed = if decimal_comma {
        "has to be a finite number, with a point for its comma"
    } else {
        "has to be a finite number"
    };
    number(text).ok_or_else(|| Bad::Value(format!("{column}: `{text}`"), allowed.to_owned()))
}

/// What each quantity may be.
fn checked(key: &Key, value: f64) -> Result<f64, Bad> {
    let range = if *key == Key::Loss { Range::Loss } else { Range::of(key.metric_name()) };
    let (good, allowed) = match key {
        Key::N | Key::D | Key::U => {
            (value >= 1.0, format!("has to be 1 or more; scale it, for example `--map '{key}=COLUMN*1e9'`"))
        }
        Key::C | Key::Cost => (value > 0.0, "has to be above 0".to_owned()),
        Key::StandardError => (value >= 0.0, "has to be 0 or more".to_owned()),
        Key::Count => (value >= 1.0, "has to be 1 or more".to_owned()),
        Key::Seed => (value.fract() == 0.0 && value.abs() < 9e15, "has to be a whole number".to_owned()),
        _ if range == Range::Loss => (range.holds(value), "a loss has to be above 0".to_owned()),
        _ => (
            range.holds(value),
            format!(
                "has to lie between 0 and 1; percent: `--map '{key}=COLUMN/100'`; without bound: map it as loss, or \
                 metric:loss_NAME"
            ),
        ),
    };
    if good && value.is_finite() { Ok(value) } else { Err(Bad::Value(format!("{value:?}"), allowed)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn import(csv: &str, maps: &[&str], compute: Option<Convention>) -> Result<Imported, ReadError> {
        let file = SourceFile { name: "t.csv".to_owned(), bytes: csv.as_bytes().to_vec() };
        let maps: Vec<String> = maps.iter().map(|&map| map.to_owned()).collect();
        read("t", &file, &maps, compute)
    }

    #[test]
    fn each_row_is_a_job() {
        let csv = "Size,FLOP,loss\n1e6,6e12,3.5\n2e6,6e12,3.25\n1e6,6e12,3.5\n";
        let maps = ["n=Size", "c=FLOP", "d=c/(6*n)", "loss=loss"];
        let imported = import(csv, &maps, Some(Convention::SixNd)).expect("a table");
        let jobs = &imported.studies[0].jobs;
        assert_eq!(jobs.len(), 2);
        assert_eq!((jobs[1].parameters, jobs[1].samples_seen, jobs[1].six_nd), (Some(2e6), Some(5e5), Some(6e12)));
        assert_eq!(
            imported.warnings,
            ["t.csv: 1 row the same as another throughout, stored once: t.csv:4 (as t.csv:2)"]
        );
        let other = import(
            &csv.replace("FLOP", "F").replace("F,", "F ,"),
            &["n=Size", "c=F", "d=c/(6*n)", "loss=loss"],
            Some(Convention::SixNd),
        );
        assert_eq!(other.expect("a table").studies[0].jobs[1].identity, jobs[1].identity, "identity is the axes");
        let alike =
            import(&csv.replace("1e6,6e12,3.5\n2", "1e6,6e12,3.75\n2"), &maps, Some(Convention::SixNd)).expect("3");
        let jobs = &alike.studies[0].jobs;
        assert_eq!((jobs[0].identity["nth"].as_u64(), jobs[2].identity["nth"].as_u64()), (Some(1), Some(2)));
        assert!(alike.warnings[0].contains("1 row with the axes of another row, stored as runs of their own"));
        assert!(alike.warnings[0].ends_with("t.csv:4 (as t.csv:2)"), "{:?}", alike.warnings);
    }

    #[test]
    fn what_cannot_be_read_is_named() {
        let csv = "n,d,err\n1e6,2e9,0.5\nabc,2e9,0.5\n-1,2e9,0.5\n1e6,,0.4\n1e6,2e9,NaN\n1e6,2e9,75.2\n1e6,2e9,\n";
        let imported = import(csv, &["n=n", "d=d", "error=err"], None).expect("a table");
        assert_eq!(imported.studies[0].jobs.len(), 2);
        let said = imported.warnings.join("\n");
        for wanted in [
            "1 row left out: n: has to be a finite number: t.csv:3 (n: `abc`)",
            "1 row left out: n: has to be 1 or more; scale it, for example `--map 'n=COLUMN*1e9'`: t.csv:4 (-1.0)",
            "1 row without `d` (empty): t.csv:5",
            "1 row left out: error: has to be a finite number: t.csv:6 (err: `NaN`)",
            "1 row left out: error: has to lie between 0 and 1; percent: `--map 'error=COLUMN/100'`",
            "1 row left out: nothing measured: t.csv:8",
        ] {
            assert!(said.contains(wanted), "{said}");
        }
        assert!(matches!(import("n,err\n1,2\n", &["error=err"], None), Err(ReadError::Nothing { .. })));
    }

    #[test]
    fn rows_of_a_run_are_checkpoints() {
        let csv = "run,d,acc,gpuh\na,3e6,0.5,3\na,1e6,0.25,1\nb,1e6,0.3,1\na,1e6,0.26,1\n";
        let imported = import(csv, &["run=run", "d=d", "accuracy=acc", "cost=gpuh", "count=d/1e3", "u=d/2"], None)
            .expect("a table");
        let job = &imported.studies[0].jobs[0];
        assert_eq!((imported.studies[0].jobs.len(), job.samples_seen), (2, Some(3e6)));
        let rows: Vec<_> = job.evaluations.iter().map(|row| (row.samples_seen, row.value)).collect();
        assert_eq!(rows, [(Some(1_000_000), 0.25), (None, 0.5)]);
        assert_eq!((job.train_secs, job.gpus), (Some(10_800.0), Some(1)));
        assert!(
            imported
                .warnings
                .iter()
                .any(|w| w.ends_with("the first is kept: t.csv:5 (accuracy 0.26, t.csv:3 has 0.25)")),
            "{:?}",
            imported.warnings
        );
    }

    #[test]
    fn words_and_several_metrics() {
        let csv = "m,acc 1,ce\nViT,50,2.5\n";
        let maps = ["group=m", "pool='DataComp'", "accuracy=`acc 1`/100", "metric:loss@1024=ce", "dataset='val'"];
        let imported = import(csv, &maps, None).expect("a table");
        let job = &imported.studies[0].jobs[0];
        assert_eq!((job.model.as_str(), job.pool.as_ref().map(|pool| pool.name.as_str())), ("ViT", Some("DataComp")));
        let rows: Vec<_> = job.evaluations.iter().map(|row| (&*row.dataset, &*row.metric, row.value)).collect();
        assert_eq!(rows, [("val", "accuracy", 0.5), ("val", "loss@1024", 2.5)]);
    }
}
