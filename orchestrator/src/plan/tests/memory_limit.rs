//! Jobs that need more memory than there is.

use super::*;

#[test]
fn what_does_not_fit_is_refused_with_the_parts_that_would() {
    let with = |bytes, recipe: &str| {
        let text = SPEC.replace("lr: 1e-3", &format!("lr: 1e-3{recipe}"));
        let spec = spec::parse(&Source::new("x.yaml", &text)).expect("a spec");
        let memory = Some(MemoryLimit { bytes, of: "this machine has".to_owned() });
        plan(&spec, &Inputs { memory, ..inputs() }).map_err(|error| {
            let help = |mistake| miette::Diagnostic::help(mistake).map(|help| help.to_string()).unwrap_or_default();
            let said = error.mistakes.iter().map(|mistake| format!("{}; {}", mistake.message, help(mistake)));
            said.collect::<Vec<_>>()
        })
    };
    let largest = good(SPEC).jobs.iter().map(|job| job.memory_bytes).max().expect("jobs");
    let largest = largest - 4_000 * 3 * 32 * 32; // Pixels that are mapped from a file.
    assert!(with(largest, "").is_ok());
    let said = with(largest - 1, "").expect_err("a byte too many");
    assert_eq!(said.len(), 1, "{said:?}");
    let words =
        "`cpu-w64-l3` at a global batch of 128 needs 224 MB, this machine has 224 MB; `accum_freq: 2` is the smallest";
    assert!(said[0].starts_with(words), "{said:?}");
    assert!(said[0].contains("; `grad_checkpointing: true` fits: "), "{said:?}");
    assert!(with(largest - 1, ", accum_freq: 2").is_ok());
    assert!(with(largest - 1, ", grad_checkpointing: true").is_ok());
    let said = with(1_000_000, "").expect_err("no machine");
    assert!(
        said.len() == 2 && said.iter().all(|said| said.contains("neither `accum_freq` nor `grad_checkpointing`")),
        "{said:?}"
    );
    assert!(said.iter().all(|said| said.ends_with("or if you know better: `backend: {local: {memory: 64G}}`")));
    // What the spec says counts, whatever this machine has.
    let limit = |memory: &str| {
        let text = format!("{SPEC}backend: {{local: {{memory: {memory}}}}}\n");
        let spec = spec::parse(&Source::new("x.yaml", &text)).unwrap_or_else(|error| panic!("{:?}", error.mistakes));
        machine::memory(&spec, &inputs()).map(|limit| (limit.bytes, limit.of))
    };
    assert_eq!(limit("64G"), Some((64 << 30, "`backend.local.memory` is".to_owned())));
    assert_eq!(limit("512M").map(|(bytes, _)| bytes), Some(512 << 20));
}
