//! A tokenizer file of Hugging Face, used as open_clip's `HFTokenizer` uses it.

use std::path::{Path, PathBuf};

use protocol::TextConfig;
use sha2::{Digest, Sha256};
use tokenizers::TruncationParams;

/// The tokenizer's file in a folder of its own.
pub const TOKENIZER_FILE: &str = "tokenizer.json";

/// Beside the tokenizer's file: names of its special tokens.
pub const CONFIG_FILE: &str = "tokenizer_config.json";

/// Characters of a caption that an error shows.
const SHOWN_MAX: usize = 100;

/// Why a tokenizer file can't be used.
#[derive(Debug, thiserror::Error)]
pub enum TokenizerError {
    /// A file can't be read.
    #[error("cannot read the tokenizer `{}`", .path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// Another file than the job was planned for.
    #[error("the tokenizer `{}` has changed since the job was planned: its sha256 is {found}, the job says {planned}; plan again", .path.display())]
    Changed {
        /// The file.
        path: PathBuf,
        /// As it is now.
        found: String,
        /// As the job says.
        planned: String,
    },
    /// No tokenizer, or not one for this model.
    #[error("the tokenizer `{}` can't be used: {reason}", .path.display())]
    Unusable {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// A text that it has no tokens for.
    #[error("the tokenizer `{}` can't encode `{caption}`: {reason}; give it a token for what it does not know, or leave that text out", .path.display())]
    Caption {
        /// The file.
        path: PathBuf,
        /// The text, or its beginning.
        caption: String,
        /// What the tokenizer said.
        reason: String,
    },
}

/// A tokenizer that cuts to the context length of its text tower.
pub(super) struct TokenizerFile {
    path: PathBuf,
    tokenizer: tokenizers::Tokenizer,
    padding: u32,
    /// The token that becomes 0, if any does.
    separator: Option<u32>,
    bytes: Vec<u8>,
    config: Vec<u8>,
}

impl TokenizerFile {
    /// Reads the file that the text tower was planned with.
    pub(super) fn read(path: &Path, text: &TextConfig) -> Result<TokenizerFile, TokenizerError> {
        let read =
            |path: &Path| std::fs::read(path).map_err(|source| TokenizerError::Read { path: path.to_owned(), source });
        let unusable = |reason: String| TokenizerError::Unusable { path: path.to_owned(), reason };
        let bytes = read(path)?;
        let beside = path.with_file_name(CONFIG_FILE);
        let config = if beside.is_file() { read(&beside)? } else { Vec::new() };
        let found = Sha256::new().chain_update(&bytes).chain_update(&config).finalize();
        let found = format!("{found:x}");
        if text.tokenizer_sha256.as_ref().is_some_and(|planned| *planned != found) {
            let planned = text.tokenizer_sha256.clone().unwrap_or_default();
            return Err(TokenizerError::Changed { path: path.to_owned(), found, planned });
        }
        let mut tokenizer = tokenizers::Tokenizer::from_bytes(&bytes).map_err(|error| unusable(error.to_string()))?;
        let tokens = tokenizer.get_vocab(true).into_values().max().map_or(0, |highest| u64::from(highest) + 1);
        if tokens > text.vocab_size {
            return Err(unusable(format!("it has {tokens} tokens, `text_cfg.vocab_size` is {}", text.vocab_size)));
        }
        let special = if config.is_empty() { serde_json::Value::Null } else { parsed(&config).map_err(unusable)? };
        let named = |key: &str, usual: &[&str]| {
            let said = special[key].as_str().or_else(|| special[key]["content"].as_str());
            let names: Vec<&str> = said.map_or_else(|| usual.to_vec(), |said| vec![said]);
            names.into_iter().find_map(|name| tokenizer.token_to_id(name))
        };
        let of_file = tokenizer.get_padding().map(|padding| padding.pad_id);
        let padding = named("pad_token", &[]).or(of_file).or_else(|| named("pad_token", &["[PAD]", "<pad>"]));
        let padding = padding.ok_or_else(|| {
            unusable(format!("it has no padding; give a `{CONFIG_FILE}` beside it that says its `pad_token`"))
        })?;
        let strip = text.tokenizer_kwargs.strip_sep_token;
        let separator = if strip { named("sep_token", &["[SEP]", "</s>"]) } else { None };
        if strip && separator.is_none() {
            return Err(unusable("`strip_sep_token` is set, and it has no separator".to_owned()));
        }
        let truncation = TruncationParams { max_length: text.context_length as usize, ..TruncationParams::default() };
        tokenizer.with_truncation(Some(truncation)).map_err(|error| unusable(error.to_string()))?;
        tokenizer.with_padding(None);
        Ok(TokenizerFile { path: path.to_owned(), tokenizer, padding, separator, bytes, config })
    }

    /// As they are; names of special tokens are written where there were none.
    pub(super) fn files(&self) -> Vec<(String, Vec<u8>)> {
        let config = if self.config.is_empty() {
            let name = |id: u32| self.tokenizer.id_to_token(id);
            let config = serde_json::json!({
                "tokenizer_class": "PreTrainedTokenizerFast", "pad_token": name(self.padding),
                "sep_token": self.separator.and_then(name),
            });
            serde_json::to_vec_pretty(&config).expect("names are JSON")
        } else {
            self.config.clone()
        };
        vec![(TOKENIZER_FILE.to_owned(), self.bytes.clone()), (CONFIG_FILE.to_owned(), config)]
    }

    /// What stands behind a caption.
    pub(super) fn padding(&self) -> u32 {
        self.stripped(self.padding)
    }

    /// Token ids of a cleaned caption, special tokens included.
    pub(super) fn encode(&self, caption: &str) -> Result<Vec<u32>, TokenizerError> {
        let encoded = self.tokenizer.encode_fast(caption, true).map_err(|error| TokenizerError::Caption {
            path: self.path.clone(),
            caption: caption.chars().take(SHOWN_MAX).collect(),
            reason: error.to_string(),
        })?;
        Ok(encoded.get_ids().iter().map(|id| self.stripped(*id)).collect())
    }

    fn stripped(&self, id: u32) -> u32 {
        if Some(id) == self.separator { 0 } else { id }
    }
}

fn parsed(config: &[u8]) -> Result<serde_json::Value, String> {
    serde_json::from_slice(config).map_err(|error| format!("`{CONFIG_FILE}` beside it: {error}"))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use protocol::{TextConfig, TextPool, TokenizerSettings};
    use serde::Deserialize;

    use super::TokenizerError;
    use crate::tokenizer::{Captions, Tokenizer};

    /// Made by `tests/python/hugging_face.py` with open_clip 3.3.0's `HFTokenizer`.
    const GOLDEN: &str = include_str!("../../tests/tokenizers/golden.json");

    #[derive(Deserialize)]
    struct Golden {
        captions: Vec<String>,
        cases: Vec<Case>,
    }

    #[derive(Deserialize)]
    struct Case {
        tokenizer: String,
        kwargs: TokenizerSettings,
        ids: Vec<Vec<i64>>,
    }

    fn text(tokenizer: &str, kwargs: TokenizerSettings) -> TextConfig {
        TextConfig {
            context_length: 12,
            vocab_size: 300,
            hf_tokenizer_name: Some(format!("{tokenizer}/tokenizer.json")),
            tokenizer_kwargs: kwargs,
            no_causal_mask: true,
            pool_type: TextPool::Last,
            ..TextConfig::default()
        }
    }

    fn folder() -> &'static Path {
        Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/tokenizers"))
    }

    #[test]
    fn ids_and_padding_are_those_of_open_clip() {
        let golden: Golden = serde_json::from_str(GOLDEN).expect("JSON");
        assert_eq!((golden.captions.len(), golden.cases.len()), (12, 4));
        for case in golden.cases {
            let tokenizer = Tokenizer::new(&text(&case.tokenizer, case.kwargs), folder()).expect("a tokenizer");
            let captions = golden.captions.iter().map(String::as_str);
            let captions = Captions::encode(&tokenizer, captions, 12).expect("any text has tokens");
            let (tokens, ends) = captions.gather(0..golden.captions.len());
            assert_eq!(tokens, case.ids.concat(), "{} {:?}", case.tokenizer, case.kwargs);
            assert!(ends.iter().all(|end| *end == 11));
        }
    }

    #[test]
    fn what_can_not_be_used_says_why() {
        let refused = |text: &TextConfig| match Tokenizer::new(text, folder()) {
            Err(error) => error.to_string(),
            Ok(_) => panic!("it is used"),
        };
        let usual = text("wordpiece", TokenizerSettings::default());
        let changed = TextConfig { tokenizer_sha256: Some("0".repeat(64)), ..usual.clone() };
        assert!(refused(&changed).contains("has changed since the job was planned"));
        let small = TextConfig { vocab_size: 50, ..usual.clone() };
        assert!(refused(&small).contains("tokens, `text_cfg.vocab_size` is 50"), "{}", refused(&small));
        let gone = TextConfig { hf_tokenizer_name: Some("nowhere".to_owned()), ..usual };
        assert!(matches!(Tokenizer::new(&gone, folder()), Err(TokenizerError::Read { .. })));
    }

    #[test]
    fn a_text_without_tokens_is_an_error() {
        let file = std::fs::read_to_string(folder().join("wordpiece/tokenizer.json")).expect("a tokenizer");
        let beside = tempfile::tempdir().expect("a folder");
        std::fs::create_dir(beside.path().join("wordpiece")).expect("a folder");
        let place = beside.path().join("wordpiece/tokenizer.json");
        std::fs::write(place, file.replace(r#""unk_token":"[UNK]""#, r#""unk_token":"[GONE]""#)).expect("writes");
        let tokenizer = Tokenizer::new(&text("wordpiece", TokenizerSettings::default()), beside.path());
        let error = Captions::encode(&tokenizer.expect("a tokenizer"), ["日本"].into_iter(), 12).expect_err("no token");
        let said = error.to_string();
        assert!(said.contains("can't encode `日本`") && said.contains("[UNK]"), "{said}");
    }
}
