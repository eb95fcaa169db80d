//! What a cluster's partitions can give at most, and what of a request none of them ever can. Pure but for [`limits`].

use std::io;

use super::command::{COMMAND_LIMIT, command, run};
use super::queue;
use crate::plan::SlurmOptions;

/// Nodes of one kind in one partition.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Nodes {
    partition: String,
    is_default: bool,
    /// Seconds that a job may take; [`NO_LIMIT`]: any.
    secs: u64,
    cpus: u64,
    mib: u64,
    gpus: u64,
}

/// Of a partition's time.
const NO_LIMIT: u64 = u64::MAX;

/// Most that a cluster can give.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ClusterLimits {
    nodes: Vec<Nodes>,
    /// Tasks of an array at most, where Slurm says.
    pub array_size: Option<usize>,
}

/// What no partition can ever give.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Impossible {
    /// The key that asks for it.
    pub key: &'static str,
    /// What is asked, and the most there is and where.
    pub said: String,
}

/// Partition, limit of time, CPUs, MiB and generic resources of each kind of node.
const FORMAT: &str = "%P|%l|%c|%m|%G";

/// The most of something that a node has.
type Most = fn(&Nodes) -> u64;

/// Asks Slurm, with one `sinfo` and one `scontrol`. `Err`: it is not there or gives no answer, in words.
pub async fn limits() -> Result<ClusterLimits, String> {
    let mut sinfo = command("sinfo");
    sinfo.args(["--noheader", "--exact", "--format", FORMAT]);
    let words = |error: io::Error| match error.kind() {
        io::ErrorKind::NotFound => "there is no Slurm here".to_owned(),
        _ => error.to_string(),
    };
    let answer = run(&mut sinfo, COMMAND_LIMIT).await.map_err(words)?;
    if !answer.success {
        return Err(format!("Slurm gives no answer: {}", answer.stderr.trim()));
    }
    let config = run(command("scontrol").args(["show", "config"]), COMMAND_LIMIT).await.map_err(words)?;
    let array_size = queue::read_config(&config.stdout).get("MaxArraySize").and_then(|text| text.parse().ok());
    Ok(ClusterLimits { nodes: read(&answer.stdout), array_size })
}

/// Lines of `sinfo --format` [`FORMAT`]. Those that can't be read are left out.
fn read(output: &str) -> Vec<Nodes> {
    output.lines().filter_map(read_line).collect()
}

fn read_line(line: &str) -> Option<Nodes> {
    let fields: Vec<&str> = line.split('|').map(str::trim).collect();
    let [partition, limit, cpus, mib, gres] = fields[..] else { return None };
    // A `+`: at least. Then nothing can be said of the most.
    let number = |text: &str| text.parse::<u64>().ok();
    Some(Nodes {
        partition: partition.trim_end_matches('*').to_owned(),
        is_default: partition.ends_with('*'),
        secs: read_time(limit)?,
        cpus: number(cpus)?,
        mib: number(mib)?,
        gpus: read_gpus(gres),
    })
}

/// Seconds of `2:00:00`, `1-00:00:00`, `30:00`, `infinite`.
fn read_time(text: &str) -> Option<u64> {
    if matches!(text, "infinite" | "UNLIMITED" | "n/a") {
        return Some(NO_LIMIT);
    }
    let (days, rest) = text.split_once('-').unwrap_or(("0", text));
    let parts = rest.split(':').map(|part| part.parse().ok()).collect::<Option<Vec<u64>>>()?;
    let secs = match (parts[..].len(), text.contains('-')) {
        (3, _) => 3600 * parts[0] + 60 * parts[1] + parts[2],
        (2, true) => 3600 * parts[0] + 60 * parts[1],
        (1, true) => 3600 * parts[0],
        (2, false) => 60 * parts[0] + parts[1],
        (1, false) => 60 * parts[0],
        _ => return None,
    };
    Some(86_400 * days.parse::<u64>().ok()? + secs)
}

/// GPUs of `gpu:2`, `gpu:a100:4(S:0-1),gpu:h100:2,lustre:1`, `(null)`.
fn read_gpus(gres: &str) -> u64 {
    // Sockets in brackets hold commas too.
    let mut depth = 0;
    let plain: String = gres
        .chars()
        .filter(|c| {
            depth += i32::from(*c == '(');
            let kept = depth == 0;
            depth -= i32::from(*c == ')');
            kept
        })
        .collect();
    let counts = plain.split(',').filter_map(|resource| {
        let mut parts = resource.split(':');
        (parts.next()? == "gpu").then(|| parts.next_back().and_then(|count| count.parse().ok()).unwrap_or(1))
    });
    counts.sum::<u64>()
}

/// `16G` in MiB, rounded up.
fn mib(memory: &str) -> Option<u64> {
    let (number, unit) = memory.split_at_checked(memory.len().checked_sub(1)?)?;
    let number: u64 = number.parse().ok()?;
    Some(match unit {
        "K" => number.div_ceil(1024),
        "M" => number,
        "G" => number.saturating_mul(1 << 10),
        "T" => number.saturating_mul(1 << 20),
        _ => return None,
    })
}

impl ClusterLimits {
    /// Nodes that a request may be given; `None`: `options` say more of that than we read.
    fn candidates(&self, options: &SlurmOptions) -> Option<Vec<&Nodes>> {
        let elsewhere = ["--partition", "-p", "--clusters", "-M", "--reservation"];
        let named = |option: &String| elsewhere.iter().any(|name| option.starts_with(name));
        if options.options.iter().any(named) || self.nodes.is_empty() {
            return None;
        }
        let has_default = self.nodes.iter().any(|nodes| nodes.is_default);
        let of = |nodes: &&Nodes| match &options.partition {
            Some(names) => names.split(',').any(|name| name == nodes.partition),
            None => nodes.is_default || !has_default,
        };
        Some(self.nodes.iter().filter(of).collect())
    }

    /// The longest that a job may take where this one may run; `None`: any time, or nothing is known.
    pub fn longest_secs(&self, options: &SlurmOptions) -> Option<u64> {
        let candidates = self.candidates(options)?;
        candidates.iter().map(|nodes| nodes.secs).max().filter(|secs| *secs != NO_LIMIT)
    }

    /// What of a request no partition that it may run in can ever give.
    pub fn impossible(&self, options: &SlurmOptions) -> Option<Impossible> {
        let candidates = self.candidates(options)?;
        if let (true, Some(name)) = (candidates.is_empty(), &options.partition) {
            let mut names: Vec<&str> = self.nodes.iter().map(|nodes| nodes.partition.as_str()).collect();
            names.dedup();
            let said = format!("there is no partition `{name}`; there are {}", names.join(", "));
            return Some(Impossible { key: "partition", said });
        }
        let minutes = |secs: u64| 60 * secs.div_ceil(60);
        let jobs = options.side_by_side;
        let whole = options.on_a_node(jobs);
        let shown = |each: &str, whole: String| {
            if jobs > 1 { format!("{jobs} x {each} = {whole}") } else { whole }
        };
        let asked: [(&'static str, u64, Most, String); 4] = [
            ("time", minutes(options.time_secs), |nodes| nodes.secs, format!("{} min", options.time_secs.div_ceil(60))),
            ("cpus", whole.cpus as u64, |nodes| nodes.cpus, shown(&options.cpus.to_string(), whole.cpus.to_string())),
            (
                "memory",
                whole.memory.as_deref().and_then(mib).unwrap_or(0),
                |nodes| nodes.mib,
                shown(options.memory.as_deref().unwrap_or_default(), whole.memory.unwrap_or_default()),
            ),
            ("gpus", whole.gpus as u64, |nodes| nodes.gpus, shown(&options.gpus.to_string(), whole.gpus.to_string())),
        ];
        for (key, asked, most, shown) in &asked {
            let Some(best) = candidates.iter().max_by_key(|nodes| most(nodes)) else { continue };
            if most(best) < *asked {
                let most = match *key {
                    "time" => format!("{} min", most(best) / 60),
                    "memory" => format!("{}M on a node", most(best)),
                    _ => format!("{} on a node", most(best)),
                };
                let said =
                    format!("{shown} is asked, and the most there is is {most}, in partition {}", best.partition);
                return Some(Impossible { key, said });
            }
        }
        let fits = |nodes: &&Nodes| asked.iter().all(|(_, asked, most, _)| most(nodes) >= *asked);
        if candidates.iter().any(fits) {
            return None;
        }
        let said = "each of time, cpus, memory and gpus is there, but no node has all of them".to_owned();
        Some(Impossible { key: "cpus", said })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Captured from Slurm 22.05, its columns cut down to ours: see the README there.
    fn captured() -> ClusterLimits {
        let text = include_str!("../../../tests/it/slurm/sinfo-22.05.txt");
        let ours = text.lines().map(|line| {
            let fields: Vec<&str> = line.split('|').collect();
            [fields[0], fields[2], fields[5], fields[7], fields[8]].join("|")
        });
        ClusterLimits { nodes: read(&ours.collect::<Vec<_>>().join("\n")), array_size: None }
    }

    fn said(limits: &ClusterLimits, change: impl FnOnce(&mut SlurmOptions)) -> Option<(&'static str, String)> {
        let mut options = SlurmOptions::default();
        change(&mut options);
        limits.impossible(&options).map(|impossible| (impossible.key, impossible.said))
    }

    #[test]
    fn what_no_partition_can_give_is_said_with_the_most_there_is() {
        let limits = captured();
        assert_eq!(limits.nodes.len(), 5);
        assert_eq!(said(&limits, |_| ()), None);
        let most = |options: &mut SlurmOptions| {
            (options.cpus, options.gpus, options.time_secs) = (4, 2, 7200);
            options.memory = Some("4000M".to_owned());
        };
        assert_eq!(said(&limits, most), None);
        let expect = |said: Option<(&'static str, String)>, key, words: &str| {
            let (at, said) = said.expect("it is impossible");
            assert_eq!((at, &*said), (key, words));
        };
        let default = "partition low";
        expect(
            said(&limits, |options| options.cpus = 5),
            "cpus",
            &format!("5 is asked, and the most there is is 4 on a node, in {default}"),
        );
        expect(
            said(&limits, |options| options.memory = Some("4G".to_owned())),
            "memory",
            &format!("4G is asked, and the most there is is 4000M on a node, in {default}"),
        );
        expect(
            said(&limits, |options| options.gpus = 3),
            "gpus",
            &format!("3 is asked, and the most there is is 2 on a node, in {default}"),
        );
        expect(
            said(&limits, |options| options.time_secs = 7201),
            "time",
            &format!("121 min is asked, and the most there is is 120 min, in {default}"),
        );
        // Side by side on one node.
        let three = |options: &mut SlurmOptions| (options.cpus, options.gpus, options.side_by_side) = (1, 1, 3);
        expect(
            said(&limits, three),
            "gpus",
            &format!("3 x 1 = 3 is asked, and the most there is is 2 on a node, in {default}"),
        );
        let two = |options: &mut SlurmOptions| {
            (options.cpus, options.gpus, options.side_by_side) = (2, 1, 2);
            options.memory = Some("2000M".to_owned());
        };
        assert_eq!(said(&limits, two), None);
        // Another partition has no limit of time.
        let elsewhere = |options: &mut SlurmOptions| {
            options.partition = Some("low,off".to_owned());
            options.time_secs = 7201;
        };
        assert_eq!(said(&limits, elsewhere), None);
        expect(
            said(&limits, |options| options.partition = Some("lo".to_owned())),
            "partition",
            "there is no partition `lo`; there are low, high, off",
        );
        // Another option decides: nothing can be said.
        let by_option = |options: &mut SlurmOptions| {
            (options.cpus, options.options) = (5, vec!["--partition=huge".to_owned()]);
        };
        assert_eq!(said(&limits, by_option), None);
    }

    #[test]
    fn no_node_has_all() {
        let limits = ClusterLimits {
            nodes: read("a*|infinite|64|1000|(null)\na*|infinite|4|1000|gpu:a100:4(S:0,1),gpu:t4:1,lustre:9\ntorn"),
            array_size: None,
        };
        let both = |options: &mut SlurmOptions| (options.cpus, options.gpus) = (32, 5);
        assert!(said(&limits, both).is_some_and(|(_, said)| said.contains("no node has all")));
        assert_eq!(said(&limits, |options| (options.cpus, options.gpus) = (4, 5)), None);
        assert_eq!(said(&limits, |options| options.gpus = 6).map(|(key, _)| key), Some("gpus"));
    }

    #[test]
    fn limits_of_time_are_read() {
        for (text, secs) in [
            ("infinite", Some(NO_LIMIT)),
            ("2:00:00", Some(7200)),
            ("30:00", Some(1800)),
            ("1-00:00:00", Some(86_400)),
            ("2-12", Some(216_000)),
            ("soon", None),
        ] {
            assert_eq!(read_time(text), secs, "{text}");
        }
    }
}
