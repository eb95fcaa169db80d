//! What `sweep plan` says of models from files: what clip-runner can't train is refused before anything is launched.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};
use tempfile::TempDir;

use super::cli_plan::{project, shown};
use super::harness::sweep;

/// A project of one model from a file, and a runner of that name.
fn project_of(runner: &str, model: &Value) -> TempDir {
    let dir = project();
    let own = fs::read_to_string(dir.path().join("own")).expect("a script");
    fs::write(dir.path().join("own"), own.replace(r#""name":"own""#, &format!(r#""name":"{runner}""#)))
        .expect("a script");
    let spec = fs::read_to_string(dir.path().join("x.yaml")).expect("a spec");
    let spec = spec.replace("[cpu-w32-l2, cpu-w64-l3]", "[./m/own.json]").replace("1e15", "1e18");
    fs::write(dir.path().join("x.yaml"), spec).expect("a spec");
    fs::create_dir(dir.path().join("m")).expect("a folder");
    fs::write(dir.path().join("m/own.json"), model.to_string()).expect("a model");
    dir
}

fn vit(text: &Value) -> Value {
    json!({"embed_dim": 64, "vision_cfg": {"image_size": 32, "layers": 2, "width": 64, "patch_size": 8}, "text_cfg": text})
}

fn job_keys(dir: &Path) -> Vec<String> {
    let output = sweep(dir, &["plan", "x.yaml", "--json"]).output().expect("sweep runs");
    let plan: Value = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&output.stderr)));
    let jobs = plan["jobs"].as_array().expect("a list");
    jobs.iter().map(|job| job["job_key"].as_str().expect("a key").to_owned()).collect()
}

fn assert_says(text: &str, parts: &[&str]) {
    let text: String = text.split(|c: char| c.is_whitespace() || c == '│').collect();
    for part in parts {
        let part: String = part.split_whitespace().collect();
        assert!(text.contains(&part), "{part} is not in {text}");
    }
}

#[test]
fn what_clip_runner_can_not_train_is_refused_when_it_is_planned() {
    let large = vit(&json!({"vocab_size": 60_000, "width": 64, "heads": 1, "layers": 2}));
    let refused = shown(project_of("clip", &large).path(), &["plan", "x.yaml"]);
    assert_says(&refused, &["exit: 2", "`text_cfg.vocab_size` is 60000, it must be 514 to 49408"]);
    assert_eq!(job_keys(project_of("other", &large).path()).len(), 4);

    let resnet = json!({"embed_dim": 64, "vision_cfg": {"layers": [1, 1, 1, 1], "width": 8, "image_size": 64},
        "text_cfg": {"width": 64, "heads": 1, "layers": 2}});
    let dir = project_of("clip", &resnet);
    assert_says(&shown(dir.path(), &["plan", "x.yaml"]), &["exit: 2", "counted, not trained by clip-runner"]);
    let sized = shown(dir.path(), &["model", "m/own.json"]);
    assert_says(&sized, &["exit: 0", "clip-runner does not train own: `vision_cfg.layers` is a ResNet's"]);
    assert_eq!(job_keys(project_of("other", &resnet).path()).len(), 4);

    let short = vit(&json!({"context_length": 2, "width": 64, "heads": 1}));
    let refused = shown(project_of("clip", &short).path(), &["plan", "x.yaml"]);
    assert_says(&refused, &["`text_cfg.context_length` is 2, it must be at least 3"]);
}

#[test]
fn a_tokenizer_is_its_file_wherever_it_lies() {
    let model = vit(&json!({"hf_tokenizer_name": "words", "vocab_size": 600, "width": 64, "heads": 1, "layers": 2}));
    let dir = project_of("clip", &model);
    let refused = shown(dir.path(), &["plan", "x.yaml"]);
    assert_says(&refused, &["`text_cfg.hf_tokenizer_name` is `words`, where no `tokenizer.json` lies"]);

    let words = |last: u64| json!({"model": {"vocab": {"[PAD]": 0, "a": last}}, "added_tokens": []}).to_string();
    fs::write(dir.path().join("m/tokenizer.json"), words(599)).expect("a tokenizer");
    let beside = job_keys(dir.path());
    assert_eq!(beside.len(), 4);
    // A model's folder has its own, whatever lies in the current one.
    fs::write(dir.path().join("tokenizer.json"), words(9)).expect("a tokenizer");
    let folder = json!({"model_cfg": model}).to_string().replace("\"words\"", "\"tokenizer.json\"");
    fs::write(dir.path().join("m/open_clip_config.json"), folder).expect("a model");
    let spec = fs::read_to_string(dir.path().join("x.yaml")).expect("a spec");
    fs::write(dir.path().join("x.yaml"), spec.replace("own.json", "open_clip_config.json")).expect("a spec");
    let of_folder = job_keys(dir.path());
    fs::remove_file(dir.path().join("tokenizer.json")).expect("it is there");
    assert_eq!(job_keys(dir.path()), of_folder);
    fs::write(dir.path().join("x.yaml"), spec).expect("a spec");
    // In the folder of that name: the same jobs.
    fs::create_dir(dir.path().join("words")).expect("a folder");
    fs::rename(dir.path().join("m/tokenizer.json"), dir.path().join("words/tokenizer.json")).expect("moved");
    assert_eq!(job_keys(dir.path()), beside);
    // Another padding, another vocabulary: other jobs.
    fs::write(dir.path().join("words/tokenizer_config.json"), r#"{"pad_token": "a"}"#).expect("a configuration");
    let padded = job_keys(dir.path());
    assert!(padded.iter().all(|key| !beside.contains(key)));
    fs::write(dir.path().join("words/tokenizer.json"), words(598)).expect("a tokenizer");
    assert!(job_keys(dir.path()).iter().all(|key| !padded.contains(key) && !beside.contains(key)));

    fs::write(dir.path().join("words/tokenizer.json"), words(600)).expect("a tokenizer");
    let refused = shown(dir.path(), &["plan", "x.yaml"]);
    assert_says(&refused, &["words/tokenizer.json", "it has 601 tokens, `text_cfg.vocab_size` is 600"]);
}
