//! Faults on request: from `SYNTHETIC_FAULT` and the recipe's `extra`. See `README.md`.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use protocol::{Job, exit};

const NAMES: &[&str] = &["crash", "crash_always", "nan", "hang", "garbage", "delay"];

/// What is to go wrong: name and step (milliseconds for `delay`).
#[derive(Debug, PartialEq)]
pub(crate) struct Faults {
    list: Vec<(String, u64)>,
}

impl Faults {
    pub(crate) fn read(job: &Job) -> Result<Faults> {
        let mut faults = parse(&std::env::var("SYNTHETIC_FAULT").unwrap_or_default())?;
        let extra = job.spec.recipe.extra.iter().filter(|(name, _)| NAMES.contains(&name.as_str()));
        faults.list.extend(extra.map(|(name, &at)| (name.clone(), at as u64)));
        Ok(faults)
    }

    pub(crate) fn nan_at(&self, step: u64) -> bool {
        self.is_at("nan", step)
    }

    /// Whatever is to happen before `step`. `once` faults leave a marker beside the checkpoints.
    pub(crate) fn before_step(&self, step: u64, checkpoint_dir: &Path) -> Result<()> {
        for (_, millis) in self.list.iter().filter(|(name, _)| name == "delay") {
            std::thread::sleep(Duration::from_millis(*millis));
        }
        if self.is_at("garbage", step) {
            use std::io::Write;
            writeln!(std::io::stdout(), "this is no event")?;
        }
        if self.is_at("crash_always", step) || (self.is_at("crash", step) && first(checkpoint_dir, "crashed")?) {
            crate::words(&format!("simulated crash at step {step}"));
            std::process::exit(exit::FAILED);
        }
        if self.is_at("hang", step) && first(checkpoint_dir, "hung")? {
            crate::words(&format!("simulated hang at step {step}"));
            loop {
                std::thread::sleep(Duration::from_hours(1));
            }
        }
        Ok(())
    }

    fn is_at(&self, name: &str, step: u64) -> bool {
        self.list.iter().any(|(fault, at)| fault == name && *at == step)
    }
}

fn parse(text: &str) -> Result<Faults> {
    let mut list = Vec::new();
    for item in text.split(',').filter(|item| !item.is_empty()) {
        let (name, at) = item.split_once('@').with_context(|| format!("`{item}` is no fault: NAME@NUMBER"))?;
        if !NAMES.contains(&name) {
            bail!("`{name}` is no fault: {}", NAMES.join(", "));
        }
        list.push((name.to_owned(), at.parse().with_context(|| format!("`{item}`: `{at}` is no whole number"))?));
    }
    Ok(Faults { list })
}

/// Whether this is the first time; leaves the marker that says so.
fn first(checkpoint_dir: &Path, marker: &str) -> Result<bool> {
    std::fs::create_dir_all(checkpoint_dir)?;
    match std::fs::File::create_new(checkpoint_dir.join(marker)) {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Ok(false),
        Err(error) => Err(error).context("can't leave a marker beside the checkpoints"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_are_parsed_or_refused() {
        assert_eq!(parse("").unwrap().list, []);
        assert_eq!(parse("crash@5,delay@20").unwrap().list, [("crash".to_owned(), 5), ("delay".to_owned(), 20)]);
        assert!(parse("melt@5").unwrap_err().to_string().contains("crash_always"));
        assert!(parse("crash").is_err() && parse("crash@x").is_err());
    }
}
