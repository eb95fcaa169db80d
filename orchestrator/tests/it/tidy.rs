//! The invariants of ARCHITECTURE.md, as tests: who may import whom, who owns which crate, what is pure, how files
//! look.

use std::fs;
use std::path::{Path, PathBuf};

/// Modules of the orchestrator and those each may use. Nothing points upwards.
const MAY_USE: &[(&str, &[&str])] = &[
    ("files", &[]),
    ("events", &[]),
    ("spec", &["fit"]),
    ("plan", &["spec"]),
    ("fit", &[]),
    ("backend", &["files", "plan"]),
    ("store", &["events", "plan", "fit"]),
    ("dataset", &["store"]),
    ("import", &["events", "spec", "fit", "store", "dataset"]),
    ("worker", &["files", "events", "backend", "store"]),
    ("schedule", &["plan", "backend", "store", "worker"]),
    ("report", &["files", "fit", "store"]),
    ("serve", &["spec", "fit", "store", "dataset", "report"]),
    (
        "cli",
        &[
            "files", "events", "spec", "plan", "fit", "backend", "store", "dataset", "import", "worker", "schedule",
            "report", "serve",
        ],
    ),
];

/// Modules of the crate `report`, likewise: figures know nothing of pages.
const REPORT_MAY_USE: &[(&str, &[&str])] = &[
    ("number", &[]),
    ("text", &[]),
    ("study", &[]),
    ("figures", &["number", "text", "study"]),
    ("analysis", &["number", "text", "study", "figures"]),
    ("page", &["number", "text", "study", "figures", "analysis"]),
];

/// Heavy crates and the one place that may name each.
const OWNERS: &[(&str, &[&str])] = &[
    ("serde_yaml::", &["orchestrator/src/spec/parse.rs", "orchestrator/src/spec/locate.rs"]),
    ("sqlx::", &["orchestrator/src/store/"]),
    ("sqlparser::", &["orchestrator/src/store/condition.rs"]),
    ("argmin::", &["orchestrator/fit/src/"]),
    ("polars::", &["orchestrator/src/dataset"]),
    ("csv::", &["orchestrator/src/dataset"]),
    ("plotters::", &["orchestrator/report/src/figures/"]),
    ("ratatui::", &["orchestrator/src/cli/top/"]),
    ("clap::", &["orchestrator/src/cli/", "orchestrator/src/worker/mod.rs", "runners/"]),
    (
        "tch::",
        &[
            "runners/clip/",
            "kernels/src/backward.rs",
            "kernels/src/branch.rs",
            "kernels/src/ffi.rs",
            "kernels/src/group.rs",
            "kernels/src/linear.rs",
            "kernels/src/loss.rs",
            "kernels/src/adamw.rs",
            "kernels/src/memory.rs",
            "kernels/src/recompute.rs",
            "kernels/src/stream.rs",
            "kernels/tests/",
        ],
    ),
    ("tokenizers::", &["runners/clip/src/tokenizer/file.rs"]),
    ("shards::", &["runners/shards/", "runners/pool/", "orchestrator/src/plan/pool.rs"]),
    ("axum::", &["orchestrator/src/serve/"]),
    ("maud::", &["orchestrator/src/serve/"]),
    ("resvg::", &["runners/pool/", "orchestrator/report/src/figures/"]),
];

/// Pure code (argmin reads the clock for a search only where the caller set it a limit): no clock, no files, no
/// processes, no environment, no randomness but a seed that is passed in.
const PURE: &[&str] = &[
    "orchestrator/src/events/",
    "orchestrator/src/spec/",
    "orchestrator/src/plan/",
    "orchestrator/src/schedule/",
    "orchestrator/src/import/",
    "orchestrator/fit/src/",
    "orchestrator/report/src/",
];
/// Files of those folders that gather inputs, perform actions or leave pictures of tests to look at, and say so in
/// their first line.
const PURE_EXCEPT: &[&str] = &[
    "orchestrator/report/src/figures/gallery.rs",
    "orchestrator/src/plan/inputs.rs",
    "orchestrator/src/plan/machine.rs",
    "orchestrator/src/plan/pool.rs",
    "orchestrator/src/plan/runner.rs",
    "orchestrator/src/plan/weights.rs",
    "orchestrator/src/schedule/driver/clocks.rs",
    "orchestrator/src/schedule/driver/mod.rs",
    "orchestrator/src/schedule/driver/display.rs",
    "orchestrator/src/schedule/driver/round.rs",
    "orchestrator/src/schedule/driver/silence.rs",
    "orchestrator/src/schedule/driver/spools.rs",
    "orchestrator/src/schedule/driver/window.rs",
];
const IMPURE: &[&str] =
    &["std::fs", "std::env", "std::process", "tokio::", "SystemTime", "Instant::now", "thread_rng", "rand::rng()"];

const LINE_COLUMNS: usize = 120;
const FILE_LINES: usize = 500;
/// Tests hold snapshots.
const TEST_FILE_LINES: usize = 700;

#[test]
fn the_tree_is_tidy() {
    let root = root();
    let mut problems = Vec::new();
    for path in rust_files(&root) {
        let name = path.strip_prefix(&root).expect("under the root").to_string_lossy().replace('\\', "/");
        if name.ends_with("tests/it/tidy.rs") {
            continue;
        }
        let text = fs::read_to_string(&path).expect("sources are readable UTF-8");
        look(&name, &text, &mut problems);
        imports(&name, &text, &mut problems);
    }
    assert!(problems.is_empty(), "\n{}", problems.join("\n"));
}

#[test]
fn crates_depend_on_what_they_may() {
    let root = root();
    let dependencies = |manifest: &str| -> Vec<String> {
        let text = fs::read_to_string(root.join(manifest)).expect("a manifest");
        let section = text.split("\n[dependencies]\n").nth(1).unwrap_or_default();
        let section = section.split("\n[").next().unwrap_or_default();
        section
            .lines()
            .filter_map(|line| line.split(['.', ' ', '=']).next())
            .filter(|name| !name.is_empty())
            .map(str::to_owned)
            .collect()
    };
    assert_eq!(dependencies("runners/protocol/Cargo.toml"), ["serde"], "the protocol depends on serde alone");
    assert_eq!(
        dependencies("runners/shards/Cargo.toml"),
        ["serde", "serde_json", "sha2", "thiserror"],
        "both sides read shards by one crate, so it decodes nothing"
    );
    assert_eq!(
        dependencies("runners/weights/Cargo.toml"),
        ["serde", "serde_json", "thiserror"],
        "files of weights are read, and fuzzed, without libtorch"
    );
    for forbidden in ["sqlx", "polars", "tokio", "clap", "sweep"] {
        assert!(
            !dependencies("orchestrator/report/Cargo.toml").contains(&forbidden.to_owned()),
            "reports are data in, pictures and pages out: no {forbidden}"
        );
    }
    for forbidden in ["tch", "pool", "kernels", "comm", "clip-runner", "synthetic-runner"] {
        assert!(
            !dependencies("orchestrator/Cargo.toml").contains(&forbidden.to_owned()),
            "the orchestrator uses {forbidden}"
        );
    }
    for runner in ["clip", "synthetic", "pool", "shards", "weights"] {
        let used = dependencies(&format!("runners/{runner}/Cargo.toml"));
        for forbidden in ["sqlx", "sweep", "tokio"] {
            assert!(!used.contains(&forbidden.to_owned()), "runner {runner} uses {forbidden}");
        }
    }
}

/// Length of lines and files, a `//!` on top, no leftovers.
fn look(name: &str, text: &str, problems: &mut Vec<String>) {
    if !text.starts_with("//!") && !text.starts_with("#!") {
        problems.push(format!("{name}:1: error: starts without a `//!` line that says what it is"));
    }
    let lines = text.lines().count();
    let most = if name.contains("/tests/") { TEST_FILE_LINES } else { FILE_LINES };
    if lines > most {
        problems.push(format!("{name}: error: {lines} lines, at most {most}: split it"));
    }
    for (number, line) in text.lines().enumerate() {
        let at = format!("{name}:{}", number + 1);
        // rustfmt sees to code; it leaves comments alone.
        if line.trim_start().starts_with("//") && line.chars().count() > LINE_COLUMNS && !line.contains("http") {
            problems.push(format!("{at}: error: longer than {LINE_COLUMNS} columns"));
        }
        for leftover in ["TODO", "FIXME", "XXX", "#[ignore]", "#[should_panic"] {
            if line.contains(leftover) {
                problems.push(format!("{at}: error: `{leftover}` is banned"));
            }
        }
    }
}

/// Who imports whom.
fn imports(name: &str, text: &str, problems: &mut Vec<String>) {
    let code = text.split("#[cfg(test)]").next().unwrap_or_default();
    for (number, line) in code.lines().enumerate() {
        let line = line.split("//").next().unwrap_or_default();
        let at = format!("{name}:{}", number + 1);
        for (krate, owners) in OWNERS {
            let tests = name.contains("/tests/");
            if mentions(line, krate) && !tests && !owners.iter().any(|owner| name.starts_with(owner)) {
                problems.push(format!("{at}: error: `{krate}` belongs to {}", owners.join(", ")));
            }
        }
        // Tests of pure code may read published data.
        let pure = PURE.iter().any(|pure| name.starts_with(pure)) && !name.ends_with("/tests.rs");
        if pure && !PURE_EXCEPT.contains(&name) {
            for impure in IMPURE {
                if line.contains(impure) {
                    problems.push(format!("{at}: error: `{impure}` in pure code"));
                }
            }
        }
        let tables = [("orchestrator/src/", MAY_USE), ("orchestrator/report/src/", REPORT_MAY_USE)];
        let Some((rest, table)) = tables.iter().find_map(|(folder, table)| Some((name.strip_prefix(folder)?, *table)))
        else {
            continue;
        };
        let module = rest.split(['/', '.']).next().unwrap_or("");
        let Some((_, allowed)) = table.iter().find(|(from, _)| *from == module) else { continue };
        for (other, _) in table {
            if *other != module && mentions(line, &format!("crate::{other}")) && !allowed.contains(other) {
                problems.push(format!(
                    "{at}: error: `{module}` may not use `{other}` (it may use: {})",
                    allowed.join(", ")
                ));
            }
        }
    }
}

/// Whether `line` names `path` as a whole word.
fn mentions(line: &str, path: &str) -> bool {
    line.match_indices(path).any(|(at, _)| {
        let word = |c: Option<char>| c.is_some_and(|c| c.is_alphanumeric() || c == '_');
        let before = line[..at].chars().next_back();
        let after = line[at + path.len()..].chars().next();
        !word(before) && (path.ends_with(':') || !word(after))
    })
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace").to_owned()
}

fn rust_files(root: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    let mut folders: Vec<PathBuf> = ["orchestrator", "runners", "kernels"].iter().map(|top| root.join(top)).collect();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("a folder").flatten() {
            let path = entry.path();
            if path.is_dir() {
                if path.file_name().is_none_or(|name| name != "target") {
                    folders.push(path);
                }
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                files.push(path);
            }
        }
    }
    files.sort();
    files
}
