//! `sweep checkpoint`: lists what runners have reported, and copies one out whole or not at all.

use std::fs;

use super::bench::{Bench, SHELL_SPEC};
use crate::harness::transcript;

/// Writes a checkpoint in the form of clip-runner's and reports it, with one at 32 samples that it drops again.
const BODY: &str = r#"
at=$(sed -n 's/.*"checkpoint_dir": "\(.*\)".*/\1/p' "$3")/samples-64
mkdir -p "$at"
cd "$at"
printf weights > model.safetensors
printf moments > optimizer.safetensors
printf '{"model_cfg":{"text_cfg":{"tokenizer_kwargs":{"bpe_path":"%s/bpe_600.txt.gz"}}}}' "$at" > open_clip_config.json
entries=$(for file in model.safetensors optimizer.safetensors open_clip_config.json; do
    printf '{"name":"%s","bytes":1,"sha256":"%s"},' $file $(sha256sum < $file | cut -c -64)
done)
printf '{"files":[%s]}' "${entries%,}" > manifest.json
sum=$(sha256sum < manifest.json | cut -c -64)
started
echo '{"event":"checkpoint","step":1,"samples_seen":32,"path":"/gone/samples-32","sha256":"00"}'
echo '{"event":"checkpoint","step":2,"samples_seen":64,"path":"'"$at"'","sha256":"'$sum'"}'
finished
"#;

#[test]
fn a_checkpoint_is_copied_for_open_clip_and_a_damaged_one_is_not() {
    let bench = Bench::with_shell_runner(SHELL_SPEC, "", BODY);
    bench.finish();
    let key = bench.ask("SELECT job_key FROM job").remove(0);
    let listed = transcript(&bench.sweep(&["checkpoint", &key[..8]]));
    assert!(listed.contains("32 samples") && listed.contains("/gone/samples-32  (dropped)"), "{listed}");
    assert!(listed.contains("64 samples  step        2"), "{listed}");

    let copied = transcript(&bench.sweep(&["checkpoint", &key[..8], "--to", "model"]));
    assert!(
        copied.contains("exit: 0") && copied.contains("open_clip.create_model_and_transforms('local-dir:model')"),
        "{copied}"
    );
    let model = bench.path().join("model");
    let config = fs::read_to_string(model.join("open_clip_config.json")).expect("it was copied");
    let path = model.join("bpe_600.txt.gz");
    assert!(config.contains(&format!("\"bpe_path\": \"{}\"", path.display())), "{config}");
    assert!(model.join("model.safetensors").is_file() && !model.join("optimizer.safetensors").exists());
    let again = transcript(&bench.sweep(&["checkpoint", &key[..8], "--to", "model"]));
    assert!(again.contains("exit: 2") && again.contains("model is there already"), "{again}");
    let none = transcript(&bench.sweep(&["checkpoint", &key[..8], "--to", "other", "--at", "32"]));
    assert!(none.contains("exit: 2") && none.contains("no checkpoint at 32 samples"), "{none}");
    assert!(none.contains("hint: kept are those at 64"), "{none}");

    let original = bench.ask("SELECT path FROM checkpoint WHERE samples_seen = 64").remove(0);
    fs::write(format!("{original}/model.safetensors"), "wEights").expect("it is ours");
    let damaged = transcript(&bench.sweep(&["checkpoint", &key[..8], "--to", "other", "--optimizer"]));
    assert!(damaged.contains("exit: 3") && damaged.contains("model.safetensors is damaged"), "{damaged}");
    assert!(!bench.path().join("other").exists());
}
