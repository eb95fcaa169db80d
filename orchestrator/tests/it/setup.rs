//! What works before everything is built or fetched.

use std::fs;

use super::cli_plan::{project, shown};

#[test]
fn a_spec_is_planned_before_its_runner_is_there() {
    let dir = project();
    fs::remove_file(dir.path().join("own")).expect("a runner");
    let said = shown(dir.path(), &["plan", "x.yaml", "--without-runner"]);
    assert!(said.starts_with("exit: 0\n"), "{said}");
    for words in [
        "runner ./own of unknown version (not asked)",
        "train (4,000 pairs",
        "8 jobs, 160,256 samples seen",
        "planned without asking the runner: jobs will have other keys than these",
    ] {
        assert!(said.contains(words), "no `{words}` in:\n{said}");
    }
    assert!(!said.contains("in the database"), "{said}");
}

#[test]
fn setup_is_for_programs_that_were_unpacked() {
    let said = shown(project().path(), &["setup"]);
    assert!(said.starts_with("exit: 2\n"), "{said}");
    assert!(said.contains("is not in a folder that was unpacked from `make dist`"), "{said}");
    assert!(
        said.contains("hint: where `sweep` is built from source, `make setup` fetches libtorch and PostgreSQL"),
        "{said}"
    );
}
