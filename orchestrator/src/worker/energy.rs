//! Energy of what an attempt runs on, from counters of the hardware: processor packages (`rapl`) and GPUs (`nvml`).
//! What can't be read is `None`, never 0, and changes nothing.

mod nvml;
mod rapl;

use std::path::Path;
use std::time::Duration;

use super::Cli;
use crate::store::{Claim, Energy};

/// Between two looks at counters. One of a package turns over after tens of kilojoules, which takes a large one
/// minutes.
const SAMPLE_EVERY: Duration = Duration::from_secs(20);

/// Where Linux has the counters of packages.
const POWERCAP: &str = "/sys/class/powercap";

/// Counters that run while an attempt does.
#[derive(Debug)]
pub(super) struct Meter {
    packages: Option<rapl::Packages>,
    gpus: Option<nvml::Gpus>,
    cpu_share: Option<f64>,
}

impl Meter {
    /// Of the machine and the GPUs of an attempt. A job whose ranks are on several machines is not measured: its worker
    /// sees one of them.
    pub(super) fn start(cli: &Cli, claim: &Claim) -> Meter {
        if cli.ranks > 1 && !cli.ranks_here {
            return Meter { packages: None, gpus: None, cpu_share: None };
        }
        let visible = std::env::var("CUDA_VISIBLE_DEVICES").ok();
        let gpus = nvml::given(&claim.device, visible.as_deref(), cli.ranks);
        let threads = f64::from(claim.threads.max(1)) * cli.ranks as f64;
        Meter {
            packages: rapl::Packages::open(Path::new(POWERCAP)),
            gpus: gpus.and_then(|gpus| nvml::Gpus::open(nvml::LIBRARY, &gpus)),
            cpu_share: cpus().map(|cpus| (threads / cpus).min(1.0)),
        }
    }

    /// Does the work, and gives what it took beside what came of it.
    pub(super) async fn alongside<T>(mut self, work: impl Future<Output = T>) -> (T, Energy) {
        let done = {
            let mut work = std::pin::pin!(work);
            loop {
                match tokio::time::timeout(SAMPLE_EVERY, &mut work).await {
                    Ok(done) => break done,
                    Err(_) => self.packages = self.packages.and_then(rapl::Packages::sample),
                }
            }
        };
        (done, self.stop())
    }

    fn stop(self) -> Energy {
        let machine_cpu_joules = self.packages.and_then(rapl::Packages::sample).as_ref().map(rapl::Packages::joules);
        Energy {
            gpu_joules: self.gpus.and_then(|gpus| gpus.joules()),
            cpu_share: machine_cpu_joules.and(self.cpu_share),
            machine_cpu_joules,
        }
    }
}

/// CPUs of the machine, whichever of them this process may use.
fn cpus() -> Option<f64> {
    let online = nix::unistd::sysconf(nix::unistd::SysconfVar::_NPROCESSORS_ONLN).ok().flatten()?;
    (online > 0).then_some(online as f64)
}
