//! What reports have computed, kept in files: refits of laws, and analyses, each by the sha256 of all that it depends
//! on, the program included. So a report computes what has changed since any before it. Safe to delete at any time.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::Analysis;
use super::analysis::section::Input;
use crate::files::write_whole;
use crate::fit::{Fit, FitError, Method, Observation, Options, Refits, fit_with};
use crate::store::fit::sha256;

/// Older entries are deleted, and what they held is computed anew where it is wanted.
const KEPT: Duration = Duration::from_hours(30 * 24);

/// A folder of entries. Many threads and programs may use it at once: entries come to be whole and never change.
#[derive(Debug)]
pub struct Cache {
    folder: PathBuf,
    program: String,
    reads: bool,
    refused: Mutex<Option<io::Error>>,
    laws: Counts,
    analyses: Counts,
}

/// What was computed, and what was there.
#[derive(Debug, Default)]
struct Counts {
    computed: AtomicUsize,
    found: AtomicUsize,
}

/// Floats by their bits: JSON has no NaN, and its reader may miss the last one.
#[derive(Debug, Serialize, Deserialize)]
struct Bits {
    replicates: Vec<Vec<u64>>,
    jackknife: Vec<Vec<u64>>,
}

impl Cache {
    /// That of a project's `home`. `program`: the version of the code that computes. Without `reads` everything is
    /// computed, and kept.
    pub fn open(home: &Path, program: &str, reads: bool) -> Cache {
        let folder = home.join("cache").join("report");
        let (laws, analyses) = (Counts::default(), Counts::default());
        Cache { folder, program: program.to_owned(), reads, refused: Mutex::new(None), laws, analyses }
    }

    /// A law, with the refits of an earlier fit of the same rows by the same options.
    pub fn fit(&self, rows: &[Observation], options: &Options) -> Result<Fit, FitError> {
        let rows_in_text = serde_json::to_string(rows).expect("observations serialise");
        let name = self.name("law", &format!("{options:?} {rows_in_text}"));
        let known = self.read::<Bits>(&name).map(Refits::from);
        let was_known = known.is_some();
        let fit = fit_with(rows, options, known)?;
        self.laws.count(was_known);
        if !was_known && !options.method.was_cut() {
            self.write(&name, &Bits::from(fit.refits()));
        }
        Ok(fit)
    }

    /// The analysis of `input`, by `analyse` where it is not there. What a time limit cut short is not kept.
    pub fn analysis(&self, input: Input<'_>, method: &Method, analyse: impl FnOnce(Input<'_>) -> Analysis) -> Analysis {
        let name = self.name("analysis", &input.identity());
        let known = self.read(&name);
        self.analyses.count(known.is_some());
        known.unwrap_or_else(|| {
            let analysis = analyse(input);
            if !method.was_cut() {
                self.write(&name, &analysis);
            }
            analysis
        })
    }

    /// How much of a report was computed, in words.
    pub fn summary(&self) -> String {
        let of = |counts: &Counts| {
            let number = |count: &AtomicUsize| count.load(Ordering::Relaxed);
            format!("{} computed, {} known from before", number(&counts.computed), number(&counts.found))
        };
        format!("bootstraps: {}; analyses: {}", of(&self.laws), of(&self.analyses))
    }

    /// Deletes what is old, and says why entries could not be kept, if so.
    pub fn close(self) -> io::Result<()> {
        if let Some(error) = self.refused.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner) {
            return Err(error);
        }
        let entries = match fs::read_dir(&self.folder) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            entries => entries?,
        };
        for entry in entries {
            let entry = entry?;
            // One that another report deletes at the same time is no error.
            let Ok(written) = entry.metadata().and_then(|metadata| metadata.modified()) else { continue };
            if SystemTime::now().duration_since(written).is_ok_and(|age| age > KEPT) {
                let _ = fs::remove_file(entry.path());
            }
        }
        Ok(())
    }

    fn name(&self, kind: &str, input: &str) -> String {
        format!("{kind}-{}", sha256(&format!("{} {input}", self.program)))
    }

    /// `None`: not there, or not as it was written.
    fn read<T: DeserializeOwned>(&self, name: &str) -> Option<T> {
        let text = self.reads.then(|| fs::read_to_string(self.folder.join(name)).ok()).flatten()?;
        let (sum, body) = text.split_once('\n')?;
        if sum == sha256(body) { serde_json::from_str(body).ok() } else { None }
    }

    /// A disk that refuses takes nothing from the report.
    fn write<T: Serialize>(&self, name: &str, value: &T) {
        if let Err(error) = self.try_write(name, value) {
            let mut refused = self.refused.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            refused.get_or_insert(error);
        }
    }

    /// Whole or not at all; not synced, since the sum in it tells what a crash has cut off.
    fn try_write<T: Serialize>(&self, name: &str, value: &T) -> io::Result<()> {
        let body = serde_json::to_string(value)?;
        fs::create_dir_all(&self.folder)?;
        write_whole(&self.folder.join(name), &format!("{}\n{body}", sha256(&body)), 0o666, false)
    }
}

impl Counts {
    fn count(&self, was_known: bool) {
        let counter = if was_known { &self.found } else { &self.computed };
        counter.fetch_add(1, Ordering::Relaxed);
    }
}

impl From<Bits> for Refits {
    fn from(Bits { replicates, jackknife }: Bits) -> Refits {
        let floats = |bits: Vec<Vec<u64>>| {
            bits.into_iter().map(|theta| theta.into_iter().map(f64::from_bits).collect()).collect()
        };
        Refits { replicates: floats(replicates), jackknife: floats(jackknife) }
    }
}

impl From<Refits> for Bits {
    fn from(Refits { replicates, jackknife }: Refits) -> Bits {
        let bits = |floats: Vec<Vec<f64>>| {
            floats.into_iter().map(|theta| theta.into_iter().map(f64::to_bits).collect()).collect()
        };
        Bits { replicates: bits(replicates), jackknife: bits(jackknife) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fit::{Convention, Response};

    fn rows() -> Vec<Observation> {
        let row = |job: u32| Observation {
            job_key: format!("{job:064x}"),
            model: "B-32".to_owned(),
            parameters: 1e6,
            samples_seen: f64::from(job) * 1e3,
            unique_samples: f64::NAN,
            compute: f64::from(job) * 1e9,
            proxy_loss: f64::NAN,
            convention: Convention::GmacsSamples,
            error: f64::from(job).powf(-0.1) * (1.0 + 0.01 * f64::from(job * 37 % 5)),
            standard_error: None,
            chance_error: None,
            count: None,
            gpu_hours: None,
        };
        (1..=8).map(row).collect()
    }

    #[test]
    fn refits_are_found_by_their_input_and_taken_to_the_last_bit() {
        let home = tempfile::tempdir().expect("a folder");
        let (rows, options) = (rows(), Options { resamples: 40, ..Options::new(Response::Loss) });
        let open = |program: &str, reads: bool| Cache::open(home.path(), program, reads);
        let counts =
            |cache: &Cache| [&cache.laws.computed, &cache.laws.found].map(|count| count.load(Ordering::Relaxed));
        let first = open("1", true);
        let made = first.fit(&rows, &options).expect("it fits");
        assert_eq!(counts(&first), [1, 0]);
        let known = first.fit(&rows, &options).expect("it fits");
        assert_eq!(counts(&first), [1, 1]);
        assert_eq!((known.refits(), &known.parameters), (made.refits(), &made.parameters));
        first.close().expect("the folder is ours");

        let mut other = rows.clone();
        other[3].error *= 1.000_001;
        let second = open("1", true);
        let _ = (second.fit(&other, &options), second.fit(&rows, &Options { seed: 1, ..options.clone() }));
        assert_eq!(counts(&second), [2, 0], "another value and another seed");
        for (program, reads) in [("2", true), ("1", false)] {
            let cache = open(program, reads);
            cache.fit(&rows, &options).expect("it fits");
            assert_eq!(counts(&cache), [1, 0], "another program, or nothing is read");
        }
    }

    #[test]
    fn what_is_not_as_it_was_written_is_computed_anew() {
        let home = tempfile::tempdir().expect("a folder");
        let (rows, options) = (rows(), Options { resamples: 40, ..Options::new(Response::Loss) });
        let made = Cache::open(home.path(), "1", true).fit(&rows, &options).expect("it fits");
        let entry =
            fs::read_dir(home.path().join("cache/report")).expect("it is there").next().expect("one").expect("it");
        let whole = fs::read_to_string(entry.path()).expect("text");
        for spoilt in ["", &whole[..whole.len() / 2], &whole.replacen('4', "5", 1), "x\n{}"] {
            fs::write(entry.path(), spoilt).expect("written");
            let cache = Cache::open(home.path(), "1", true);
            let again = cache.fit(&rows, &options).expect("it fits");
            assert_eq!(again.refits(), made.refits());
            assert_eq!(
                cache.summary(),
                "bootstraps: 1 computed, 0 known from before; analyses: 0 computed, 0 known from before"
            );
            assert_eq!(fs::read_to_string(entry.path()).expect("text"), whole, "it is mended");
        }
    }

    #[test]
    fn a_folder_that_can_not_be_written_is_told_of_at_the_end() {
        let home = tempfile::tempdir().expect("a folder");
        fs::write(home.path().join("cache"), "no folder").expect("written");
        let cache = Cache::open(home.path(), "1", true);
        let options = Options { resamples: 40, ..Options::new(Response::Loss) };
        assert!(cache.fit(&rows(), &options).is_ok());
        assert!(cache.close().is_err());
    }
}
