//! What a spec or a site's profile says of a Slurm cluster: `backend: {slurm: {...}}`, and the file of sites.

use std::collections::BTreeMap;
use std::ffi::OsStr;

use super::Source;
use super::backend_keys::SLURM;
use super::build::{Section, count, is_spool, list, secs, text};
use super::error::{Path, Place, Problem, SpecError};
use super::keys::Kind;
use super::models::nearest;
use super::parse::{self, Node};
use super::read::{self, Value};

/// Keys of Slurm as they are stated; what is left out, a site, an estimate or a default says.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SlurmKeys {
    /// `--partition`.
    pub partition: Option<String>,
    /// `--account`.
    pub account: Option<String>,
    /// `--qos`.
    pub qos: Option<String>,
    /// `--constraint`.
    pub constraint: Option<String>,
    /// `--gres=gpu:N`; 0: none.
    pub gpus: Option<usize>,
    /// `--cpus-per-task`, and the runner's threads.
    pub cpus: Option<usize>,
    /// `--mem`, as Slurm writes it: `16G`.
    pub memory: Option<String>,
    /// `--time`, seconds; Slurm counts minutes.
    pub time_secs: Option<u64>,
    /// `--nodes` and `--ntasks`: processes of a job, one a node; the numbers above are of one.
    pub nodes: Option<usize>,
    /// Jobs at one time in one Slurm job; the numbers above are of one of them.
    pub side_by_side: Option<usize>,
    /// Slurm jobs in the queue at one time.
    pub jobs: Option<usize>,
    /// Seconds for which a worker goes on to the next job; 0: a worker a job.
    pub work_secs: Option<u64>,
    /// Whether workers reach no database.
    pub spool_only: Option<bool>,
    /// Shell lines before the worker.
    pub setup: Option<Vec<String>>,
    /// Further options of `sbatch`.
    pub options: Option<Vec<String>>,
    /// Variables that are exported before `setup`.
    pub environment: BTreeMap<String, String>,
    /// Words before `sweep-worker`, such as `apptainer exec image.sif`.
    pub container: Option<Vec<String>>,
}

impl SlurmKeys {
    /// These, and of another's what they leave out. Variables are taken one by one.
    #[must_use]
    pub fn over(self, below: &SlurmKeys) -> SlurmKeys {
        let mut environment = below.environment.clone();
        environment.extend(self.environment);
        SlurmKeys {
            partition: self.partition.or_else(|| below.partition.clone()),
            account: self.account.or_else(|| below.account.clone()),
            qos: self.qos.or_else(|| below.qos.clone()),
            constraint: self.constraint.or_else(|| below.constraint.clone()),
            gpus: self.gpus.or(below.gpus),
            cpus: self.cpus.or(below.cpus),
            memory: self.memory.or_else(|| below.memory.clone()),
            time_secs: self.time_secs.or(below.time_secs),
            nodes: self.nodes.or(below.nodes),
            side_by_side: self.side_by_side.or(below.side_by_side),
            jobs: self.jobs.or(below.jobs),
            work_secs: self.work_secs.or(below.work_secs),
            spool_only: self.spool_only.or(below.spool_only),
            setup: self.setup.or_else(|| below.setup.clone()),
            options: self.options.or_else(|| below.options.clone()),
            environment,
            container: self.container.or_else(|| below.container.clone()),
        }
    }
}

/// Whether a variable leads to the database, which is nothing for runners and for other machines' eyes.
pub fn is_secret(name: &OsStr) -> bool {
    let name = name.as_encoded_bytes();
    name.starts_with(b"PG") || matches!(name, b"DATABASE_URL" | b"SWEEP_READER_URL")
}

/// The profiles of a file of sites, by name.
pub fn sites(source: &Source) -> Result<BTreeMap<String, SlurmKeys>, SpecError> {
    let failed = |problems| Err(SpecError::new(source, problems));
    let place = |path: &Path| Place::Value(path.clone());
    let form = "allowed: names of sites, each with keys such as `partition:` below it";
    let entries = match parse::node(source)? {
        None => Vec::new(),
        Some(Node::Map(entries)) => entries,
        Some(_) => {
            return failed(vec![Problem::new(place(&Path::default()), "a file of sites is a map", form)]);
        }
    };
    let mut problems = Vec::new();
    let mut sites = BTreeMap::new();
    for (name, node) in &entries {
        let mut path = Path::keys(&[name]);
        if !read::is_name(name) {
            let message = format!("`{}` is no name of a site", name.escape_debug());
            problems.push(Problem::new(Place::Key(path), message, format!("allowed: {}", Kind::Name.allowed())));
            continue;
        }
        let empty = Node::Map(Vec::new());
        let node = if *node == Node::Null { &empty } else { node };
        let Some(Value::Section(section)) = read::read(node, &Kind::Section(SLURM), &mut path, &mut problems) else {
            continue;
        };
        let keys = build(section);
        problems.extend(check(&keys, &path));
        if sites.insert(name.clone(), keys).is_some() {
            let message = format!("site `{name}` is there twice");
            problems.push(Problem::new(Place::Key(Path::keys(&[name])), message, "remove one of the two"));
        }
    }
    if problems.is_empty() { Ok(sites) } else { failed(problems) }
}

/// The checked section.
pub(super) fn build(mut section: Section) -> SlurmKeys {
    let texts = |value: Option<Value>| {
        value.map(|value| list(Some(value)).into_iter().filter_map(|value| text(Some(value))).collect())
    };
    let number = |value| count(value).map(|count| count as usize);
    SlurmKeys {
        partition: text(section.remove("partition")),
        account: text(section.remove("account")),
        qos: text(section.remove("qos")),
        constraint: text(section.remove("constraint")),
        gpus: number(section.remove("gpus")),
        cpus: number(section.remove("cpus")),
        memory: text(section.remove("memory")),
        time_secs: secs(section.remove("time")),
        nodes: number(section.remove("nodes")),
        side_by_side: number(section.remove("side_by_side")),
        jobs: number(section.remove("jobs")),
        work_secs: secs(section.remove("worker_time")),
        spool_only: is_spool(section.remove("ship")),
        setup: texts(section.remove("setup")),
        options: texts(section.remove("options")),
        environment: match section.remove("environment") {
            Some(Value::Texts(texts)) => texts,
            _ => BTreeMap::new(),
        },
        container: texts(section.remove("container")),
    }
}

/// Options of `sbatch` that decide what we rely on.
const OURS: &[&str] = &[
    "--array",
    "-a",
    "--requeue",
    "--no-requeue",
    "--open-mode",
    "--output",
    "-o",
    "--error",
    "-e",
    "--job-name",
    "-J",
    "--signal",
    "--export",
    "--wrap",
    "--parsable",
    "--ntasks",
    "-n",
    "--nodes",
    "-N",
    "--time",
    "-t",
    "--ntasks-per-node",
];

/// `16G`, as Slurm writes memory; a number alone is of megabytes. `None`: 0, too large, or no amount.
pub fn memory_bytes(text: &str) -> Option<u64> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let shift = match &text[digits.len()..] {
        "K" => 10,
        "" | "M" => 20,
        "G" => 30,
        "T" => 40,
        _ => return None,
    };
    digits.parse::<u64>().ok().filter(|number| *number > 0)?.checked_mul(1 << shift)
}

/// What is wrong with an amount of memory. `0` is all of a node to Slurm, and nothing elsewhere.
pub(super) fn check_memory(memory: &str, place: Path, zero_is_all: bool) -> Option<Problem> {
    let number = memory.strip_suffix(['K', 'M', 'G', 'T']).unwrap_or_default();
    let is_zero = number.bytes().all(|byte| byte == b'0');
    if !number.is_empty() && (memory_bytes(memory).is_some() || zero_is_all && is_zero) {
        return None;
    }
    let message = format!("`{place}` is `{memory}`, which is no amount of memory");
    let allowed = "a whole number and `K`, `M`, `G` or `T`, such as `16G`";
    Some(Problem::new(Place::Value(place), message, allowed))
}

/// What a batch script can't hold, and options and variables that are not the user's to set. `root` is where the keys
/// stand.
pub(super) fn check(keys: &SlurmKeys, root: &Path) -> Vec<Problem> {
    let mut problems = Vec::new();
    let mut at = |place: Path, message: String, label: &str| {
        problems.push(Problem::new(Place::Value(place), message, label));
    };
    let place = |key| root.key(key);
    let words = [
        ("partition", &keys.partition),
        ("account", &keys.account),
        ("qos", &keys.qos),
        ("constraint", &keys.constraint),
    ];
    for (key, word) in words {
        let Some(word) = word else { continue };
        if word.is_empty() || word.chars().any(|c| c.is_whitespace() || c.is_control()) {
            at(place(key), format!("`{}` is `{word:?}`", place(key)), "one word, as `sbatch` takes it");
        }
    }
    for (index, line) in keys.setup.iter().flatten().enumerate() {
        if line.contains(['\n', '\0']) {
            let place = place("setup").index(index);
            at(place.clone(), format!("`{place}` is more than a line"), "one line an entry");
        }
    }
    for (index, option) in keys.options.iter().flatten().enumerate() {
        let place = place("options").index(index);
        let name = option.split(['=', ' ']).next().unwrap_or_default();
        if !option.starts_with('-') || option.contains(['\n', '\0']) {
            at(place.clone(), format!("`{place}` is `{option:?}`"), "one option, such as `--exclusive`");
        } else if OURS.contains(&name) {
            let message = format!("`{place}` is `{name}`, which is set for every worker");
            at(place, message, "leave it out; `time` and `nodes` have keys of their own, and a node has one task");
        }
    }
    for (index, word) in keys.container.iter().flatten().enumerate() {
        let place = place("container").index(index);
        if word.contains(['\n', '\0']) {
            at(place.clone(), format!("`{place}` is more than a line"), "one word of the command an entry");
        }
    }
    if keys.container.as_ref().is_some_and(Vec::is_empty) {
        at(place("container"), format!("`{}` is an empty list", place("container")), "leave it out: no container");
    }
    for (name, value) in &keys.environment {
        problems.extend(variable(name, value, &place("environment").key(name)));
    }
    problems.extend(keys.memory.as_ref().and_then(|memory| check_memory(memory, place("memory"), true)));
    problems
}

/// What is wrong with a variable for workers.
fn variable(name: &str, value: &str, place: &Path) -> Option<Problem> {
    let at_key = |message: String, label: &str| Problem::new(Place::Key(place.clone()), message, label);
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '_';
    if !name.starts_with(|c: char| plain(c) && !c.is_ascii_digit()) || !name.chars().all(plain) {
        let message = format!("`{}` is no name of a variable", name.escape_debug());
        return Some(at_key(message, "allowed: letters, digits and `_`, no digit first"));
    }
    if is_secret(OsStr::new(name)) {
        let problem = at_key(format!("`{name}` leads to the database, and is no variable for workers"), "leave it out");
        return Some(problem.help(
            "batch scripts are no place for secrets: export DATABASE_URL where you launch; workers read it from a file \
             that only you may read",
        ));
    }
    if name == "SWEEP_HOME" {
        let problem = at_key(format!("`{name}` is set for every worker"), "leave it out");
        return Some(problem.help("export it where you launch: workers use the same folder"));
    }
    value.contains(['\n', '\0']).then(|| {
        let message = format!("`{place}` is more than a line");
        Problem::new(Place::Value(place.clone()), message, "allowed: text on one line")
    })
}

/// The site of a name, or the nearest to it.
pub fn nearest_site<'a>(name: &str, sites: &'a BTreeMap<String, SlurmKeys>) -> Option<&'a str> {
    nearest(name, sites.keys().map(String::as_str))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_of_memory() {
        assert_eq!(
            ["1500M", "16G", "7", "512K", "1T"].map(memory_bytes),
            [1500 << 20, 16 << 30, 7 << 20, 512 << 10, 1 << 40].map(Some)
        );
        assert_eq!(["0", "0G", "G", "16X", "16GB", "99999999T"].map(memory_bytes), [None; 6]);
    }
}
