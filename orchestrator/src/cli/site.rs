//! Profiles of sites: what a person says once of a cluster, in a file of their own.

use std::io;
use std::path::PathBuf;

use super::output::Failure;
use super::plan::{BackendName, rendered};
use crate::plan::{Placement, Site};
use crate::spec::{Backend, SlurmKeys, Source, nearest_site, sites};

/// Where jobs are to run by the command line.
pub(super) fn placement(backend: Option<BackendName>, site: Option<&str>) -> Result<Placement, Failure> {
    if let (Some(BackendName::Local), Some(name)) = (backend, site) {
        return Err(Failure::bad_input(format!("site `{name}` is of a Slurm cluster, and `--backend local` is none"))
            .hint("leave out one of the two"));
    }
    let site = site.map(find).transpose()?;
    let backend = match backend {
        Some(BackendName::Local) => Some(Backend::local()),
        Some(BackendName::Slurm) => Some(Backend::Slurm(Box::default())),
        None => site.as_ref().map(|_| Backend::Slurm(Box::<SlurmKeys>::default())),
    };
    Ok(Placement { backend, site, ..Placement::default() })
}

/// `SWEEP_SITES`, else `sweep/sites.yaml` in the folder of configurations.
fn path() -> Result<PathBuf, Failure> {
    let set = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    if let Some(path) = set("SWEEP_SITES") {
        return Ok(path);
    }
    // A relative folder of configurations is to be ignored, says the XDG specification.
    let folder = set("XDG_CONFIG_HOME").filter(|path| path.is_absolute());
    folder.or_else(|| Some(set("HOME")?.join(".config"))).map(|folder| folder.join("sweep/sites.yaml")).ok_or_else(
        || {
            Failure::bad_input("can't tell where the file of sites is: HOME is not set")
                .hint("set SWEEP_SITES to its path")
        },
    )
}

/// What an absent file may look like.
const EXAMPLE: &str = "write one, for example:\n\n  mycluster:\n    partition: gpu\n    setup: [module load cuda]\n";

/// The profile of this name.
fn find(name: &str) -> Result<Site, Failure> {
    let path = path()?;
    let text = std::fs::read_to_string(&path).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => {
            Failure::bad_input(format!("site `{name}` is not known: there is no file {}", path.display()))
                .hint(EXAMPLE.trim_end())
        }
        _ => Failure::bad_input(format!("can't read the file of sites {}", path.display())).because(&error),
    })?;
    let source = Source::new(&path.display().to_string(), &text);
    let mut all = sites(&source).map_err(|error| Failure::bad_input(rendered(&error)))?;
    if let Some(keys) = all.remove(name) {
        return Ok(Site { name: name.to_owned(), keys });
    }
    let failure = Failure::bad_input(format!("there is no site `{name}` in {}", path.display()));
    let names: Vec<String> = all.keys().map(|name| format!("`{name}`")).collect();
    Err(match nearest_site(name, &all) {
        _ if names.is_empty() => failure.hint(EXAMPLE.trim_end()),
        Some(nearest) => failure.hint(format!("did you mean `{nearest}`? sites there: {}", names.join(", "))),
        None => failure.hint(format!("sites there: {}", names.join(", "))),
    })
}
