//! What makes a checkpoint's folder one that open_clip loads as it is:
//! `open_clip.create_model_and_transforms('local-dir:PATH')` and `open_clip.get_tokenizer('local-dir:PATH')`.
//!
//! The form is that of open_clip 3.3.0 (`factory.py`, `create_model`): `open_clip_config.json` with `model_cfg` and
//! `preprocess_cfg` beside `model.safetensors`, one of the names that it looks for.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;

use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use protocol::{ModelConfig, Preprocess, VOCABULARY_MAX, VOCABULARY_MIN};
use serde_json::json;

use crate::tokenizer::{MERGES, TOKENIZER_FILE};

/// Model and preprocessing.
pub const CONFIG_FILE: &str = "open_clip_config.json";

/// Files for a checkpoint that will lie at `folder`, an absolute path: open_clip takes a vocabulary's path as it is
/// written, so a folder that is moved needs `tokenizer_kwargs.bpe_path` corrected (`sweep checkpoint` does).
/// `tokenizer` are the files of one of Hugging Face's, which open_clip seeks in that very folder.
pub fn files(
    model: &ModelConfig,
    preprocess: &Preprocess,
    tokenizer: &[(String, Vec<u8>)],
    folder: &Path,
) -> Vec<(String, Vec<u8>)> {
    let mut files = tokenizer.to_vec();
    let mut config = json!(model);
    if model.text_cfg.hf_tokenizer_name.is_some() {
        config["text_cfg"]["hf_tokenizer_name"] = json!(TOKENIZER_FILE);
        config["text_cfg"].as_object_mut().expect("a section").remove("tokenizer_sha256");
    } else if let Some(merges) = merges(model.text_cfg.vocab_size) {
        let name = format!("bpe_{}.txt.gz", model.text_cfg.vocab_size);
        config["text_cfg"]["tokenizer_kwargs"]["bpe_path"] = json!(folder.join(&name));
        files.push((name, merges));
    }
    let side = model.vision_cfg.image_size;
    let config = json!({
        "model_cfg": config,
        "preprocess_cfg": {
            "size": [side, side], "mode": "RGB", "mean": preprocess.mean, "std": preprocess.std,
            "interpolation": preprocess.interpolation, "resize_mode": preprocess.resize_mode, "fill_color": 0,
        },
    });
    let text = serde_json::to_vec_pretty(&config).expect("names and numbers are JSON");
    files.push((CONFIG_FILE.to_owned(), text));
    files
}

/// The heading and the merges of a vocabulary that is smaller than OpenAI's, as open_clip's `SimpleTokenizer` reads
/// them.
fn merges(vocab_size: u64) -> Option<Vec<u8>> {
    if vocab_size >= VOCABULARY_MAX {
        return None;
    }
    let kept = (vocab_size - VOCABULARY_MIN) as usize;
    let lines = BufReader::new(GzDecoder::new(MERGES)).lines().take(1 + kept);
    let lines: Vec<String> = lines.collect::<Result<_, _>>().expect("the shipped merges are valid");
    let mut out = GzEncoder::new(Vec::new(), Compression::best());
    out.write_all(lines.join("\n").as_bytes()).expect("memory takes any bytes");
    Some(out.finish().expect("memory takes any bytes"))
}
