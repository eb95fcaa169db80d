//! `preprocess_cfg` of a folder's `open_clip_config.json`: how images were made ready for the model that lies there.
//!
//! Source: open_clip 3.3.0, `transform.py`, `PreprocessCfg` and `image_transform` with `is_train=False`.

use std::collections::BTreeMap;

use protocol::Preprocess;
use serde_json::{Value, json};

/// Fields of [`Preprocess`].
const FIELDS: [&str; 4] = ["mean", "std", "interpolation", "resize_mode"];

/// The preprocessing of a configuration; `None` where it speaks of none.
pub(super) fn parse(text: &str) -> Result<Option<Preprocess>, String> {
    let config: Value = serde_json::from_str(text).map_err(|error| format!("it is no JSON: {error}"))?;
    let Some(fields) = config.get("preprocess_cfg").and_then(Value::as_object) else { return Ok(None) };
    let value = |name: &str| fields.get(name).filter(|value| !value.is_null());
    for (name, allowed) in [("mode", json!("RGB")), ("fill_color", json!(0))] {
        if let Some(found) = value(name).filter(|found| **found != allowed) {
            return Err(format!("`preprocess_cfg.{name}` is {found}, and {allowed} alone is built"));
        }
    }
    let mut known = serde_json::Map::new();
    for name in FIELDS {
        let Some(found) = value(name) else { continue };
        let found = match name {
            // One number stands for all channels, and what is random in training is bicubic elsewhere.
            "mean" | "std" if found.is_number() => json!([found, found, found]),
            "interpolation" if found == "random" => json!("bicubic"),
            _ => found.clone(),
        };
        known.insert(name.to_owned(), found);
    }
    let preprocess: Preprocess =
        serde_json::from_value(Value::Object(known)).map_err(|error| format!("`preprocess_cfg`: {error}"))?;
    let usable = preprocess.mean.iter().all(|mean| *mean >= 0.0) && preprocess.std.iter().all(|std| *std > 0.0);
    if usable { Ok(Some(preprocess)) } else { Err("`preprocess_cfg`: a mean is negative, or a std not above 0".into()) }
}

/// The preprocessing that arguments of open_clip's trainer ask for, by their names in its `params.txt`.
pub fn of_run(arguments: &BTreeMap<String, String>) -> Result<Preprocess, String> {
    let mut fields = serde_json::Map::new();
    for name in FIELDS {
        let argument =
            if name == "resize_mode" || name == "interpolation" { "image_".to_owned() + name } else { key(name) };
        let Some(said) = arguments.get(&argument) else { continue };
        // As Python prints a list, a tuple or a word.
        let list = said.replace('(', "[").replace(')', "]");
        let value = serde_json::from_str(&list).unwrap_or_else(|_| json!(said));
        let value = match value.as_array().map(Vec::as_slice) {
            Some([one]) => one.clone(),
            _ => value,
        };
        fields.insert(name.to_owned(), value);
    }
    let preprocess = parse(&json!({ "preprocess_cfg": fields }).to_string())?;
    Ok(preprocess.unwrap_or_default())
}

fn key(name: &str) -> String {
    if name == "mean" || name == "std" { format!("image_{name}") } else { name.to_owned() }
}

/// The recipe's keys that say the same, as YAML: `image_mean: [0.5, 0.5, 0.5], ...`.
pub fn recipe_keys(preprocess: &Preprocess) -> String {
    let fields = json!(preprocess);
    FIELDS.map(|name| format!("{}: {}", key(name), fields[name])).join(", ")
}

#[cfg(test)]
mod tests {
    use protocol::{Interpolation, ResizeMode};

    use super::*;

    #[test]
    fn what_open_clip_writes_is_read() {
        let siglip = r#"{"model_cfg": {}, "preprocess_cfg": {"size": [256, 256], "mode": "RGB", "mean": [0.5, 0.5, 0.5],
            "std": 0.5, "interpolation": "random", "resize_mode": "squash", "fill_color": 0}}"#;
        let found = parse(siglip).unwrap().unwrap();
        let (interpolation, resize_mode) = (Interpolation::Bicubic, ResizeMode::Squash);
        assert_eq!(found, Preprocess { mean: [0.5; 3], std: [0.5; 3], interpolation, resize_mode });
        assert_eq!(
            recipe_keys(&found),
            r#"image_mean: [0.5,0.5,0.5], image_std: [0.5,0.5,0.5], interpolation: "bicubic", resize_mode: "squash""#
        );
        assert_eq!(parse(r#"{"preprocess_cfg": {"mean": null}}"#).unwrap(), Some(Preprocess::default()));
        assert_eq!(parse(r#"{"model_cfg": {}}"#).unwrap(), None);
    }

    #[test]
    fn arguments_of_the_trainer_are_honoured() {
        let arguments =
            |pairs: &[(&str, &str)]| of_run(&pairs.iter().map(|(k, v)| ((*k).into(), (*v).into())).collect());
        assert_eq!(arguments(&[("force_quick_gelu", "True")]), Ok(Preprocess::default()));
        let all = [
            ("image_mean", "[0.5, 0.25, 0.5]"),
            ("image_std", "(0.5, 0.5, 0.5)"),
            ("image_interpolation", "bilinear"),
            ("image_resize_mode", "longest"),
        ];
        let (interpolation, resize_mode) = (Interpolation::Bilinear, ResizeMode::Longest);
        assert_eq!(
            arguments(&all),
            Ok(Preprocess { mean: [0.5, 0.25, 0.5], std: [0.5; 3], interpolation, resize_mode })
        );
        let one = arguments(&[("image_mean", "[0.5]"), ("image_interpolation", "random")]);
        assert_eq!(one, Ok(Preprocess { mean: [0.5; 3], ..Preprocess::default() }));
        let refused = arguments(&[("image_resize_mode", "crop")]).unwrap_err();
        assert!(refused.contains("unknown variant `crop`"), "{refused}");
    }

    #[test]
    fn what_is_not_built_is_named() {
        for (field, words) in [
            (r#""fill_color": 255"#, "`preprocess_cfg.fill_color` is 255"),
            (r#""interpolation": "nearest""#, "unknown variant `nearest`"),
            (r#""mean": [1, 2]"#, "`preprocess_cfg`: invalid length 2"),
            (r#""std": 0"#, "a std not above 0"),
        ] {
            let error = parse(&format!("{{\"preprocess_cfg\": {{{field}}}}}")).unwrap_err();
            assert!(error.contains(words), "{error}");
        }
    }
}
