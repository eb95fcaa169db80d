//! Model names of a spec.

use protocol::{MODEL_ALIASES, ModelConfig, NamedModel, SHIPPED_MODELS, shipped_model};

/// A model that comes with `sweep`, under its own name when asked for by an alias.
pub fn shipped(name: &str) -> Option<NamedModel> {
    let (name, json) = shipped_model(name)?;
    let config = serde_json::from_str(json).expect("shipped models parse: protocol's tests read each");
    Some(NamedModel { name: name.to_owned(), config })
}

/// Names that [`shipped`] knows, aliases last.
pub fn model_names() -> impl Iterator<Item = &'static str> {
    SHIPPED_MODELS.iter().chain(MODEL_ALIASES).map(|(name, _)| *name)
}

/// Whether a model is written as a path of a JSON file.
pub fn is_model_file(name: &str) -> bool {
    name.contains('/') || std::path::Path::new(name).extension().is_some_and(|extension| extension == "json")
}

/// The configuration with the input sizes of a recipe in place of its own.
#[must_use]
pub fn sized_for(mut config: ModelConfig, image_size: Option<u64>, context_length: Option<u64>) -> ModelConfig {
    config.vision_cfg.image_size = image_size.unwrap_or(config.vision_cfg.image_size);
    config.text_cfg.context_length = context_length.unwrap_or(config.text_cfg.context_length);
    config
}

/// The candidate most like `word`, if any is like it at all.
pub fn nearest<'a>(word: &str, candidates: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    // Distances cost length x length: a long word is like none of ours.
    if word.len() > 100 {
        return None;
    }
    let word = word.to_lowercase();
    candidates
        .map(|candidate| (strsim::normalized_damerau_levenshtein(&word, &candidate.to_lowercase()), candidate))
        .filter(|(likeness, _)| *likeness >= 0.5)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, candidate)| candidate)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nearest_names() {
        assert_eq!(nearest("ViT-B32", model_names()), Some("ViT-B-32"));
        assert_eq!(nearest("vit-l-14", model_names()), Some("ViT-L-14"));
        assert_eq!(nearest("warmupp", ["warmup", "lr"].into_iter()), Some("warmup"));
        assert_eq!(nearest("zzz", model_names()), None);
        assert_eq!(shipped("ViT-G-14").expect("an alias").name, "ViT-bigG-14");
    }
}
