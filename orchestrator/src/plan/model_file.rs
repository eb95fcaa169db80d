//! A model's file in OpenCLIP's form to a [`ModelConfig`]. What OpenCLIP takes for granted may be left out, and what is
//! written but changes nothing may stand there and is left out of what comes back, so that it makes no other job;
//! anything else that has no place in a [`ModelConfig`] is named. Pure.
//!
//! Source of names and defaults: open_clip 3.3.0, `model.py`, `CLIPVisionCfg`, `CLIPTextCfg` and `CLIP.__init__`.

use protocol::{Clean, ModelConfig, TextConfig, TextPool, VisionConfig};
use serde_json::{Map, Value, json};

/// What can't be built of a model's file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FormError {
    /// No JSON, or a value that is none of the field's kind.
    #[error("{0}")]
    Json(String),
    /// A setting of OpenCLIP's that is not built here.
    #[error("`{field}` is {value}: {why}")]
    NotBuilt {
        /// With its section: `vision_cfg.pool_type`.
        field: String,
        /// As JSON.
        value: String,
        /// What is allowed.
        why: String,
    },
}

/// Settings that are not built but with these values, which are OpenCLIP's where a field is left out.
fn fixed(section: &str) -> Value {
    match section {
        "vision_cfg" => json!({
            "pos_embed_type": "learnable", "output_tokens": false, "block_type": null, "qk_norm": false, "scaled_cosine_attn": false, "scale_heads": false,
            "scale_attn_inner": false, "scale_attn": false, "scale_fc": false,
        }),
        "text_cfg" => json!({
            "tokenizer_mode": null, "output_tokens": false, "hf_model_name": null, "block_type": null,
            "qk_norm": false, "scaled_cosine_attn": false, "scale_heads": false, "scale_attn_inner": false,
            "scale_attn": false, "scale_fc": false,
        }),
        _ => json!({"multimodal_cfg": null}),
    }
}

/// Fields that change nothing: they belong to settings that are fixed, or open_clip 3.3.0 does not read them.
const IDLE: [(&str, &[&str]); 3] = [
    ("", &["cast_dtype", "output_dict"]),
    ("vision_cfg", &["timm_model_pretrained", "timm_proj_bias", "timm_drop", "timm_drop_path"]),
    ("text_cfg", &["hf_model_pretrained", "hf_proj_type", "hf_pooler_type", "final_ln_after_pool"]),
];

/// Fields of [`ModelConfig`]: they may have any value that makes a model.
const BUILT: [(&str, &[&str]); 3] = [
    (
        "",
        &[
            "embed_dim",
            "quick_gelu",
            "custom_text",
            "init_logit_scale",
            "init_logit_bias",
            "nonscalar_logit_scale",
            "vision_cfg",
            "text_cfg",
        ],
    ),
    (
        "vision_cfg",
        &[
            "image_size",
            "layers",
            "width",
            "head_width",
            "mlp_ratio",
            "patch_size",
            "ls_init_value",
            "patch_dropout",
            "attentional_pool",
            "attn_pooler_queries",
            "attn_pooler_heads",
            "no_ln_pre",
            "final_ln_after_pool",
            "pool_type",
            "act_kwargs",
            "norm_kwargs",
            "timm_model_name",
            "timm_pool",
            "timm_proj",
        ],
    ),
    (
        "text_cfg",
        &[
            "context_length",
            "vocab_size",
            "hf_tokenizer_name",
            "tokenizer_kwargs",
            "width",
            "heads",
            "layers",
            "mlp_ratio",
            "ls_init_value",
            "embed_cls",
            "pad_id",
            "eos_id",
            "no_causal_mask",
            "pool_type",
            "proj_bias",
            "proj_type",
            "act_kwargs",
            "norm_kwargs",
        ],
    ),
];

/// ln(1/0.07), where `logit_scale` starts.
const LOGIT_SCALE: f64 = 2.659_260_036_932_778;

/// Reads a model's file: one of OpenCLIP's `model_configs`, or the `open_clip_config.json` of a model's folder.
pub fn parse(text: &str) -> Result<ModelConfig, FormError> {
    let value: Value = serde_json::from_str(text).map_err(|error| FormError::Json(error.to_string()))?;
    let value = value.get("model_cfg").unwrap_or(&value);
    let top = object(value, "the file")?;
    let tower = |name: &str, defaults: Value| {
        let of = top.get(name).ok_or_else(|| FormError::Json(format!("missing field `{name}`")))?;
        let mut fields = object(&defaults, name)?.clone();
        fields.extend(section(name, object(of, name)?)?);
        Ok(Value::Object(fields))
    };
    // Towers first: what they are is what a reader wants to be told, before flags that follow from it.
    let towers = [
        ("vision_cfg", tower("vision_cfg", json!(VisionConfig::default()))?),
        ("text_cfg", tower("text_cfg", json!(TextConfig::default()))?),
    ];
    let mut config = section("", top)?;
    config.extend(towers.map(|(name, tower)| (name.to_owned(), tower)));
    if config.get("embed_dim").is_none() {
        return Err(FormError::Json("missing field `embed_dim`".to_owned()));
    }
    let mut config =
        serde_json::from_value(Value::Object(config)).map_err(|error| FormError::Json(error.to_string()))?;
    forget_what_is_idle(&mut config);
    Ok(config)
}

/// The fields of a section that [`ModelConfig`] has, as written, once the others are known to change nothing.
fn section(name: &str, written: &Map<String, Value>) -> Result<Map<String, Value>, FormError> {
    let of = |table: &[(&str, &'static [&'static str])]| {
        table.iter().find(|(section, _)| *section == name).map_or(&[][..], |(_, fields)| fields)
    };
    let (built, idle, fixed) = (of(&BUILT), of(&IDLE), fixed(name));
    let mut fields = Map::new();
    for (field, value) in written {
        let full = if name.is_empty() { field.clone() } else { format!("{name}.{field}") };
        if built.contains(&field.as_str()) {
            if let Some(value) = plain(&full, value)? {
                fields.insert(field.clone(), value);
            }
        } else if let Some(only) = fixed.get(field) {
            if !same(value, only) && full != "text_cfg.output_tokens" {
                return Err(not_built(&full, value, &why_fixed(&full, only)));
            }
        } else if !idle.contains(&field.as_str()) {
            return Err(not_built(&full, value, "open_clip 3.3.0 has no such setting"));
        }
    }
    // A CLIP whose text tower is CLIP's own never hands these out.
    if name.is_empty() && same(written.get("custom_text").unwrap_or(&Value::Null), &json!(true)) {
        let tokens = written.get("text_cfg").and_then(|text| text.get("output_tokens"));
        if let Some(tokens) = tokens.filter(|tokens| !same(tokens, &json!(false))) {
            return Err(not_built("text_cfg.output_tokens", tokens, TOKENS));
        }
    }
    Ok(fields)
}

const TOKENS: &str = "one feature a text or image is built, a feature for each token is CoCa's";

fn why_fixed(field: &str, only: &Value) -> String {
    match field {
        "text_cfg.hf_model_name" => "text towers of Hugging Face are not built, OpenCLIP's own is".to_owned(),
        "multimodal_cfg" => "CoCa's decoder is not built".to_owned(),
        "vision_cfg.output_tokens" => TOKENS.to_owned(),
        _ => format!("{only} alone is built"),
    }
}

/// A field of [`ModelConfig`]: `None` for what says nothing. Of a pair, as in `image_size: [224, 224]`, the number that
/// both are.
fn plain(field: &str, value: &Value) -> Result<Option<Value>, FormError> {
    let said = |value: &Value| Ok(Some(value.clone()));
    match (field, value) {
        (_, Value::Null) => Ok(None),
        ("vision_cfg.layers", Value::Array(_)) => said(value),
        (_, Value::Array(pair)) => match &pair[..] {
            [one, other] if one == other && one.is_number() => said(one),
            _ => Err(not_built(field, value, "one number is allowed, or the same one twice")),
        },
        ("text_cfg.hf_tokenizer_name" | "vision_cfg.timm_model_name", Value::String(name)) if name.is_empty() => {
            Ok(None)
        }
        ("vision_cfg.attentional_pool", Value::String(_)) => {
            Err(not_built(field, value, "true and false are built; others give no one feature an image"))
        }
        ("vision_cfg.pool_type" | "text_cfg.pool_type", Value::String(kind)) if kind == "none" => {
            Err(not_built(field, value, TOKENS))
        }
        ("text_cfg.tokenizer_kwargs", Value::Object(keys)) => tokenizer_settings(field, keys),
        (_, Value::Object(keys)) if keys.is_empty() => Ok(None),
        _ => said(value),
    }
}

/// What clip-runner does to captions, and where a small vocabulary's merges lie, of which it has its own.
fn tokenizer_settings(field: &str, keys: &Map<String, Value>) -> Result<Option<Value>, FormError> {
    let mut kept = Map::new();
    for (key, value) in keys {
        match key.as_str() {
            "clean" | "strip_sep_token" => drop(kept.insert(key.clone(), value.clone())),
            _ if own_vocabulary(key, value) => {}
            _ => return Err(not_built(&format!("{field}.{key}"), value, "`clean` and `strip_sep_token` are built")),
        }
    }
    Ok((!kept.is_empty()).then_some(Value::Object(kept)))
}

/// The file that clip-runner writes beside a checkpoint with a small vocabulary, by its name.
fn own_vocabulary(key: &str, value: &Value) -> bool {
    let name = value.as_str().and_then(|path| path.rsplit('/').next()).unwrap_or_default();
    let digits = name.strip_prefix("bpe_").and_then(|rest| rest.strip_suffix(".txt.gz"));
    key == "bpe_path" && digits.is_some_and(|digits| digits.parse::<u64>().is_ok())
}

/// Settings that change nothing beside the others back to their defaults.
fn forget_what_is_idle(config: &mut ModelConfig) {
    if config.init_logit_scale.is_some_and(|scale| (scale - LOGIT_SCALE).abs() < 1e-5) {
        config.init_logit_scale = None;
    }
    let (vision, default) = (&mut config.vision_cfg, VisionConfig::default());
    if vision.timm_model_name.is_none() {
        (vision.timm_pool, vision.timm_proj) = (None, None);
    }
    if vision.is_resnet() {
        let VisionConfig { image_size, layers, width, head_width, .. } = *vision;
        *vision = VisionConfig { image_size, layers, width, head_width, ..default };
    } else if vision.attentional_pool {
        vision.final_ln_after_pool = false;
    } else {
        vision.attn_pooler_queries = default.attn_pooler_queries;
        vision.attn_pooler_heads = default.attn_pooler_heads;
    }
    let (text, default) = (&mut config.text_cfg, TextConfig::default());
    if text.embed_cls {
        text.pool_type = TextPool::default();
    } else {
        text.pad_id = default.pad_id;
    }
    if text.pool_type != TextPool::Eos {
        text.eos_id = default.eos_id;
    }
    let usual = if text.hf_tokenizer_name.is_some() { Clean::Whitespace } else { Clean::Lower };
    text.tokenizer_kwargs.clean = text.tokenizer_kwargs.clean.filter(|clean| *clean != usual);
}

/// Tokens that a `tokenizer.json` may give: one more than its highest id, of the vocabulary and of added tokens.
pub fn tokens(tokenizer: &Value) -> Option<u64> {
    let vocabulary = match &tokenizer["model"]["vocab"] {
        Value::Object(ids) => {
            ids.values().filter_map(Value::as_u64).max().map_or(0, |highest| highest.saturating_add(1))
        }
        Value::Array(pieces) => pieces.len() as u64,
        _ => return None,
    };
    let added = tokenizer["added_tokens"].as_array().into_iter().flatten();
    let added = added.filter_map(|token| token["id"].as_u64()).max().map_or(0, |highest| highest.saturating_add(1));
    Some(vocabulary.max(added))
}

/// JSON values that OpenCLIP takes for the same: 0 and 0.0, `{}`, "" and null.
fn same(one: &Value, other: &Value) -> bool {
    let empty = |value: &Value| {
        value.is_null() || value.as_object().is_some_and(Map::is_empty) || value.as_str().is_some_and(str::is_empty)
    };
    match (one.as_f64(), other.as_f64()) {
        (Some(one), Some(other)) => one.to_bits() == other.to_bits(),
        _ => one == other || empty(one) && empty(other),
    }
}

fn not_built(field: &str, value: &Value, why: &str) -> FormError {
    FormError::NotBuilt { field: field.to_owned(), value: value.to_string(), why: why.to_owned() }
}

fn object<'a>(value: &'a Value, what: &str) -> Result<&'a Map<String, Value>, FormError> {
    value.as_object().ok_or_else(|| FormError::Json(format!("{what} is no JSON object")))
}

#[cfg(test)]
mod tests {
    use super::*;

    type Change = fn(&mut Value);

    fn config(change: impl FnOnce(&mut Value)) -> Result<ModelConfig, String> {
        let mut value = json!({
            "embed_dim": 512,
            "vision_cfg": {"image_size": 224, "layers": 12, "width": 768, "patch_size": 32},
            "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 512, "heads": 8, "layers": 12},
        });
        change(&mut value);
        parse(&value.to_string()).map_err(|error| error.to_string())
    }

    #[test]
    fn defaults_may_be_written_or_left_out() {
        let plain = config(|_| ()).expect("ViT-B-32");
        assert_eq!(plain.size().parameters(), 151_277_313);
        let same: [(&str, Change); 10] = [
            ("left out", |v| v["text_cfg"] = json!({})),
            ("image tower left out", |v| v["vision_cfg"] = json!({"patch_size": 32})),
            ("a pair", |v| v["vision_cfg"]["image_size"] = json!([224, 224])),
            ("dropout of none", |v| v["vision_cfg"]["patch_dropout"] = json!(0)),
            ("no other text tower", |v| v["custom_text"] = json!(false)),
            ("pooling", |v| {
                v["vision_cfg"]["pool_type"] = json!("tok");
                v["text_cfg"]["pool_type"] = json!("argmax");
            }),
            ("settings of what is not used", |v| {
                v["vision_cfg"]["attn_pooler_heads"] = json!(12);
                v["vision_cfg"]["timm_pool"] = json!("");
                v["text_cfg"]["hf_pooler_type"] = json!("cls_pooler");
                v["text_cfg"]["norm_kwargs"] = json!({});
                v["text_cfg"]["final_ln_after_pool"] = json!(true);
                v["text_cfg"]["output_tokens"] = json!(true);
                v["text_cfg"]["eos_id"] = json!(1);
            }),
            ("arguments with their defaults", |v| {
                v["text_cfg"]["norm_kwargs"] = json!({"eps": 1e-5});
                v["vision_cfg"]["act_kwargs"] = json!({"approximate": "none"});
                v["text_cfg"]["tokenizer_kwargs"] = json!({"clean": "lower"});
            }),
            ("the start of the logit scale", |v| v["init_logit_scale"] = json!(2.659_260_036_932_778)),
            ("a model's folder", |v| *v = json!({"model_cfg": v, "preprocess_cfg": {"size": 224}})),
        ];
        for (what, change) in same {
            assert_eq!(config(change).as_ref(), Ok(&plain), "{what}");
        }
    }

    #[test]
    fn what_is_built_is_kept() {
        let clipa = config(|v| {
            v["vision_cfg"].as_object_mut().expect("a section").extend(
                json!({"no_ln_pre": true, "pool_type": "avg", "final_ln_after_pool": true, "patch_dropout": 0.5})
                    .as_object()
                    .expect("fields")
                    .clone(),
            );
            v["text_cfg"] = json!({"hf_tokenizer_name": "bert-base-uncased", "no_causal_mask": true,
                "pool_type": "last", "tokenizer_kwargs": {"strip_sep_token": true}, "vocab_size": 32000});
        });
        let clipa = clipa.expect("CLIPA");
        assert!(clipa.vision_cfg.no_ln_pre && clipa.vision_cfg.final_ln_after_pool && clipa.text_cfg.no_causal_mask);
        assert!(clipa.training_size().image_macs < clipa.size().image_macs);
        let resnet = config(|v| v["vision_cfg"] = json!({"layers": [3, 4, 6, 3], "width": 64, "patch_size": null}));
        assert_eq!(resnet.expect("RN50").size().image_parameters, 37_267_808);
        let siglip = config(|v| {
            v["embed_dim"] = json!(768);
            v["vision_cfg"] = json!({"timm_model_name": "vit_base_patch16_siglip_224", "timm_pool": "map",
                "timm_proj": "none"});
        });
        let siglip = siglip.expect("SigLIP's image tower");
        assert_eq!((siglip.check(), siglip.size().image_parameters), (Vec::new(), 92_884_224));
        assert!(!siglip.check_trained_by_clip().is_empty());
        let convnext = config(|v| v["vision_cfg"]["timm_model_name"] = json!("convnext_base")).expect("a form");
        assert!(convnext.check()[0].to_string().contains("`convnext_base`; towers of timm are counted if"));
        let siglip = config(|v| {
            v["init_logit_bias"] = json!(-10);
            v["custom_text"] = json!(true);
            v["text_cfg"]["proj_bias"] = json!(true);
            v["text_cfg"]["norm_kwargs"] = json!({"eps": 1e-6});
        });
        assert_eq!(siglip.expect("a text tower").size().parameters(), 151_277_313 + 512 + 1);
    }

    #[test]
    fn what_is_not_built_is_named_with_what_is() {
        let refused: [(Change, &str); 10] = [
            (|v| v["vision_cfg"]["qk_norm"] = json!(true), "`vision_cfg.qk_norm` is true: false alone is built"),
            (|v| v["vision_cfg"]["pool_type"] = json!("none"), "`vision_cfg.pool_type` is \"none\": one feature"),
            (|v| v["vision_cfg"]["attentional_pool"] = json!("cascade"), "true and false are built"),
            (|v| v["vision_cfg"]["output_tokens"] = json!(true), "a feature for each token is CoCa's"),
            (|v| v["vision_cfg"]["image_size"] = json!([224, 336]), "one number is allowed, or the same one twice"),
            (
                |v| v["text_cfg"]["tokenizer_kwargs"] = json!({"reduction_mask": "simple"}),
                "`text_cfg.tokenizer_kwargs.reduction_mask` is \"simple\": `clean` and",
            ),
            (|v| v["text_cfg"]["hf_model_name"] = json!("roberta-base"), "Hugging Face are not built"),
            (|v| v["multimodal_cfg"] = json!({"width": 512}), "CoCa's decoder is not built"),
            (
                |v| v["vision_cfg"]["patch_sise"] = json!(16),
                "`vision_cfg.patch_sise` is 16: open_clip 3.3.0 has no such",
            ),
            (|v| v["embed_dim"] = json!(null), "missing field `embed_dim`"),
        ];
        for (change, words) in refused {
            let error = config(change).expect_err(words);
            assert!(error.contains(words), "{words}: {error}");
        }
        assert!(config(|v| v["embed_dim"] = json!("512")).expect_err("a text").contains("invalid type"));
        assert!(parse("[1]").is_err() && parse("{").is_err());
    }
}
