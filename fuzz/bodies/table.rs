//! A table of others: rows as wide as its header, or an error; and what is imported of it can be stored.

use std::collections::HashSet;

use sweep::dataset::table::Table;
use sweep::import::{SourceFile, clip_benchmark, table};

/// Cells are where the header says, and no two jobs of an import are one.
pub(super) fn check(bytes: &[u8]) {
    for name in ["t.csv", "t.tsv"] {
        let Ok(read) = Table::read(name, bytes) else { continue };
        assert_eq!(Table::read(name, bytes).expect("as before").rows, read.rows);
        assert!(read.rows.iter().all(|row| row.len() == read.columns.len()));
        let distinct: HashSet<&String> = read.columns.iter().collect();
        assert_eq!(distinct.len(), read.columns.len());
        let places: HashSet<String> = (0..read.rows.len()).map(|row| read.place(row)).collect();
        assert_eq!(places.len(), read.rows.len());
        let file = SourceFile { name: name.to_owned(), bytes: bytes.to_vec() };
        imported(&file, &read);
    }
}

fn imported(file: &SourceFile, read: &Table) {
    let quoted = |at: usize| read.columns.get(at).map(|name| format!("`{name}`"));
    let maps = |keys: &[(&str, usize)]| {
        let map = |(key, at): &(&str, usize)| Some(format!("{key}={}", quoted(*at)?));
        keys.iter().filter_map(map).collect::<Vec<String>>()
    };
    let readings = [
        table::read("t", file, &maps(&[("n", 0), ("loss", 1), ("accuracy", 2), ("group", 3)]), None),
        table::read("t", file, &maps(&[("run", 0), ("d", 1), ("loss", 2)]), None),
        clip_benchmark::read("t", "t", std::slice::from_ref(file)),
    ];
    for study in readings.into_iter().flatten().flat_map(|imported| imported.studies) {
        let identities: HashSet<String> = study.jobs.iter().map(|job| job.identity.to_string()).collect();
        assert_eq!(identities.len(), study.jobs.len());
        for job in &study.jobs {
            let at: HashSet<_> =
                job.evaluations.iter().map(|row| (&row.dataset, &row.metric, row.samples_seen)).collect();
            assert_eq!(at.len(), job.evaluations.len(), "{job:?}");
            assert!(job.evaluations.iter().all(|row| row.value.is_finite()));
        }
    }
}
