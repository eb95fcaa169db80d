//! What was tuned, and how far each cell is from it: an undertuned cell bends a law.

use std::collections::BTreeMap;

use super::Report;
use super::html::table;
use crate::number::{compact, significant};
use crate::study::{TunedCell, Tuning};
use crate::text::escape;

/// The section, or nothing where no ladder has chosen anything.
pub(super) fn tuned(report: &Report) -> String {
    let study = &report.study;
    if study.tuned.is_empty() {
        return String::new();
    }
    let choices: Vec<Vec<String>> = study.tuned.iter().map(choice).collect();
    format!(
        "<h2>Tuning</h2>\n<p class=\"quiet\">For each model a ladder of learning rates at few samples seen; the best was \
         taken, and where seeds can't tell some apart, of these the nearest to the recipe's own. Noise is a standard error: \
         over seeds, or over test items where there was one seed.</p>\n{}\
         <p class=\"quiet\">How far cells are from their tuned neighbour: log<sub>2</sub> of the learning rate over the \
         tuned one of the same model and data size, and of the samples seen over those of its ladder. A cell that is far \
         may be undertuned, and such cells bend a law.</p>\n{}",
        table(
            &[
                "model",
                "data size",
                "metric",
                "samples seen",
                "lr",
                "x recipe",
                "measured",
                "noise",
                "rungs",
                "left open"
            ],
            3,
            &choices
        ),
        table(
            &["model", "data size", "samples seen", "jobs", "lr", "log2 lr / tuned", "log2 samples / ladder"],
            1,
            &distances(&study.tuned_cells)
        )
    )
}

fn choice(row: &Tuning) -> Vec<String> {
    let noise = row.noise.zip(row.noise_of.as_deref());
    let open = match row.open.as_deref() {
        None => "",
        Some("lowest") => "lowest of its ladder",
        Some("highest") => "highest of its ladder",
        Some("lower failed") => "the rung below failed",
        Some(_) => "the rung above failed",
    };
    vec![
        escape(&row.model),
        compact(row.data_size as f64),
        escape(&format!("{}/{}", row.dataset, row.metric)),
        compact(row.samples_seen as f64),
        format!("{:e}", row.value),
        row.factor.to_string(),
        significant(row.measured, 4),
        noise.map_or("not known".to_owned(), |(noise, of)| format!("{} ({})", significant(noise, 2), escape(of))),
        format!(
            "{}{}",
            row.rungs,
            if row.rungs_failed > 0 { format!(", {} failed", row.rungs_failed) } else { String::new() }
        ),
        open.to_owned(),
    ]
}

/// One row for jobs that differ in their seed alone.
fn distances(cells: &[TunedCell]) -> Vec<Vec<String>> {
    let mut rows: Vec<(&TunedCell, usize)> = Vec::new();
    let mut known: BTreeMap<(&str, i64, i64, u64), usize> = BTreeMap::new();
    for cell in cells {
        let key = (cell.model.as_str(), cell.data_size, cell.samples_seen, cell.lr.to_bits());
        let at = *known.entry(key).or_insert(rows.len());
        match rows.get_mut(at) {
            Some((_, jobs)) => *jobs += 1,
            None => rows.push((cell, 1)),
        }
    }
    let row = |(cell, jobs): (&TunedCell, usize)| {
        vec![
            escape(&cell.model),
            compact(cell.data_size as f64),
            compact(cell.samples_seen as f64),
            jobs.to_string(),
            format!("{:e}", cell.lr),
            log2(cell.lr / cell.tuned_lr),
            log2(cell.samples_seen as f64 / cell.tuned_samples as f64),
        ]
    };
    rows.into_iter().map(row).collect()
}

/// With its sign, `0` where there is none to speak of.
fn log2(ratio: f64) -> String {
    let value = ratio.log2();
    if value.abs() < 5e-3 { "0".to_owned() } else { format!("{value:+.2}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_beside_their_tuned_neighbour() {
        let cell = |samples_seen: i64, seed: i64, lr: f64| TunedCell {
            job_key: String::new(),
            model: "a<b".to_owned(),
            data_size: 500,
            samples_seen,
            seed,
            lr,
            tuned_lr: 2e-3,
            tuned_samples: 1_024,
        };
        let rows = distances(&[cell(1_024, 0, 2e-3), cell(8_192, 0, 1e-3), cell(8_192, 1, 1e-3), cell(1_024, 1, 2e-3)]);
        assert_eq!(
            rows,
            [
                ["a&lt;b", "500", "1024", "2", "2e-3", "0", "0"],
                ["a&lt;b", "500", "8192", "2", "1e-3", "-1.00", "+3.00"]
            ]
        );
    }
}
