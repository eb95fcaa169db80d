//! Counters of processor packages (RAPL), as Linux shows them in `/sys/class/powercap`: microjoules, which begin again
//! at 0 after `max_energy_range_uj`. Since 2020 root alone may read them.

use std::path::{Path, PathBuf};

/// All packages of a machine.
#[derive(Debug)]
pub(super) struct Packages {
    packages: Vec<Package>,
    /// Since they were opened.
    microjoules: u64,
}

#[derive(Debug)]
struct Package {
    counter: PathBuf,
    /// The most that it counts to.
    range: u64,
    last: u64,
}

impl Packages {
    /// `None`: there is none, or not all can be read.
    pub(super) fn open(powercap: &Path) -> Option<Packages> {
        let mut packages = Vec::new();
        for entry in std::fs::read_dir(powercap).ok()? {
            let zone = entry.ok()?.path();
            // Zones within a package (`intel-rapl:0:1`) are counted in it; `psys` is the whole board.
            let name = std::fs::read_to_string(zone.join("name")).unwrap_or_default();
            let is_top =
                zone.file_name()?.to_str()?.strip_prefix("intel-rapl:").is_some_and(|rest| !rest.contains(':'));
            if is_top && name.starts_with("package") {
                let counter = zone.join("energy_uj");
                let (range, last) = (number(&zone.join("max_energy_range_uj"))?, number(&counter)?);
                packages.push(Package { counter, range, last });
            }
        }
        (!packages.is_empty()).then_some(Packages { packages, microjoules: 0 })
    }

    /// Looks at the counters. `None`: one can't be read any more, so the sum is not known.
    pub(super) fn sample(mut self) -> Option<Packages> {
        for package in &mut self.packages {
            let now = number(&package.counter)?;
            self.microjoules += match now.checked_sub(package.last) {
                Some(passed) => passed,
                None => package.range.checked_sub(package.last)? + now,
            };
            package.last = now;
        }
        Some(self)
    }

    /// At the last look, since they were opened.
    pub(super) fn joules(&self) -> f64 {
        self.microjoules as f64 / 1e6
    }
}

fn number(path: &Path) -> Option<u64> {
    std::fs::read_to_string(path).ok()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    const RANGE: u64 = 262_143_328_850;

    fn zone(powercap: &Path, zone: &str, name: &str, microjoules: u64) {
        let folder = powercap.join(zone);
        fs::create_dir_all(&folder).expect("a folder");
        for (file, text) in [
            ("name", name.to_owned()),
            ("energy_uj", microjoules.to_string()),
            ("max_energy_range_uj", RANGE.to_string()),
        ] {
            fs::write(folder.join(file), format!("{text}\n")).expect("a counter");
        }
    }

    #[test]
    fn packages_are_summed_and_begin_again_at_zero() {
        let folder = tempfile::tempdir().expect("a folder");
        let powercap = folder.path();
        zone(powercap, "intel-rapl", "", 0);
        zone(powercap, "intel-rapl:0", "package-0", 1_000_000);
        zone(powercap, "intel-rapl:0:0", "core", 500_000);
        zone(powercap, "intel-rapl:1", "package-1", RANGE - 2_000_000);
        zone(powercap, "intel-rapl:2", "psys", 7);
        let packages = Packages::open(powercap).expect("counters");
        assert_eq!(packages.packages.len(), 2);
        let packages = packages.sample().expect("they can be read");
        assert!(packages.joules().abs() < 1e-12);
        zone(powercap, "intel-rapl:0", "package-0", 4_500_000);
        zone(powercap, "intel-rapl:0:0", "core", 3_500_000);
        zone(powercap, "intel-rapl:1", "package-1", 3_000_000);
        let packages = packages.sample().expect("they can be read");
        assert!((packages.joules() - (3.5 + 2.0 + 3.0)).abs() < 1e-9, "{packages:?}");
        fs::remove_file(powercap.join("intel-rapl:1/energy_uj")).expect("it was there");
        assert!(packages.sample().is_none(), "half a sum is none");
    }

    #[test]
    fn without_counters_nothing_is_known() {
        let folder = tempfile::tempdir().expect("a folder");
        assert!(Packages::open(&folder.path().join("powercap")).is_none());
        zone(folder.path(), "intel-rapl:0:0", "core", 1);
        assert!(Packages::open(folder.path()).is_none());
        zone(folder.path(), "intel-rapl:0", "package-0", 1);
        fs::write(folder.path().join("intel-rapl:0/energy_uj"), "").expect("a counter");
        assert!(Packages::open(folder.path()).is_none());
    }
}
