//! A model's file in OpenCLIP's form to a [`ModelConfig`]. What OpenCLIP takes for granted may be left out, and what is
//! written but changes nothing may stand there; anything else that clip-runner can't build is named. Pure.
//!
//! Source of names and defaults: open_clip 3.3.0, `model.py`, `CLIPVisionCfg`, `CLIPTextCfg` and `CLIP.__init__`.

use protocol::ModelConfig;
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

/// Sections with what OpenCLIP takes where a field is left out. Fields of [`ModelConfig`] come first.
fn defaults(section: &str) -> Value {
    match section {
        "vision_cfg" => json!({
            "image_size": 224, "layers": 12, "width": 768, "head_width": 64, "mlp_ratio": 4.0, "patch_size": 16,
            "ls_init_value": null,
            "patch_dropout": 0.0, "attentional_pool": false, "attn_pooler_queries": 256, "attn_pooler_heads": 8,
            "no_ln_pre": false, "pos_embed_type": "learnable", "final_ln_after_pool": false, "pool_type": "tok",
            "output_tokens": false, "act_kwargs": null, "norm_kwargs": null, "timm_model_name": null,
            "timm_model_pretrained": false, "timm_pool": "avg", "timm_proj": "linear", "timm_proj_bias": false,
            "timm_drop": 0.0, "timm_drop_path": null, "block_type": null, "qk_norm": false,
            "scaled_cosine_attn": false, "scale_heads": false, "scale_attn_inner": false, "scale_attn": false,
            "scale_fc": false,
        }),
        "text_cfg" => json!({
            "context_length": 77, "vocab_size": 49408, "width": 512, "heads": 8, "layers": 12, "ls_init_value": null,
            "mlp_ratio": 4.0, "hf_tokenizer_name": null, "tokenizer_mode": null, "tokenizer_kwargs": null,
            "embed_cls": false, "pad_id": 0, "eos_id": 2, "no_causal_mask": false, "final_ln_after_pool": false,
            "pool_type": "argmax", "proj_bias": false, "proj_type": "linear", "output_tokens": false,
            "act_kwargs": null, "norm_kwargs": null, "hf_model_name": null, "hf_model_pretrained": true,
            "hf_proj_type": "mlp", "hf_pooler_type": "mean_pooler", "block_type": null, "qk_norm": false,
            "scaled_cosine_attn": false, "scale_heads": false, "scale_attn_inner": false, "scale_attn": false,
            "scale_fc": false,
        }),
        _ => json!({
            "embed_dim": null, "quick_gelu": false,
            "custom_text": false, "init_logit_bias": null, "nonscalar_logit_scale": false, "multimodal_cfg": null,
            "cast_dtype": null, "output_dict": false,
        }),
    }
}

/// Fields of [`ModelConfig`]: they may have any value that makes a model.
const BUILT: [(&str, &[&str]); 3] = [
    ("", &["embed_dim", "quick_gelu"]),
    ("vision_cfg", &["image_size", "layers", "width", "head_width", "mlp_ratio", "patch_size", "ls_init_value"]),
    ("text_cfg", &["context_length", "vocab_size", "width", "heads", "layers", "ls_init_value"]),
];

/// Fields that change nothing unless another one, named beside them, has another value than OpenCLIP's default.
const IDLE: [&str; 13] = [
    "attn_pooler_queries", // attentional_pool
    "attn_pooler_heads",
    "pad_id",                // embed_cls
    "eos_id",                // pool_type
    "timm_model_pretrained", // timm_model_name
    "timm_pool",
    "timm_proj",
    "timm_proj_bias",
    "timm_drop",
    "timm_drop_path",
    "hf_model_pretrained", // hf_model_name
    "hf_proj_type",
    "hf_pooler_type",
];

/// Reads a model's file: one of OpenCLIP's `model_configs`, or the `open_clip_config.json` of a model's folder.
pub fn parse(text: &str) -> Result<ModelConfig, FormError> {
    let value: Value = serde_json::from_str(text).map_err(|error| FormError::Json(error.to_string()))?;
    let value = value.get("model_cfg").unwrap_or(&value);
    let top = object(value, "the file")?;
    let tower = |name: &str| {
        let of = top.get(name).ok_or_else(|| FormError::Json(format!("missing field `{name}`")))?;
        Ok(Value::Object(section(name, object(of, name)?)?))
    };
    // Towers first: what they are is what a reader wants to be told, before flags that follow from it.
    let towers = [("vision_cfg", tower("vision_cfg")?), ("text_cfg", tower("text_cfg")?)];
    let mut config = section("", top)?;
    config.extend(towers.map(|(name, tower)| (name.to_owned(), tower)));
    if config["embed_dim"].is_null() {
        return Err(FormError::Json("missing field `embed_dim`".to_owned()));
    }
    serde_json::from_value(Value::Object(config)).map_err(|error| FormError::Json(error.to_string()))
}

/// The fields of a section that [`ModelConfig`] has, written or by default, once the others are known to be idle.
fn section(name: &str, written: &Map<String, Value>) -> Result<Map<String, Value>, FormError> {
    let defaults = defaults(name);
    let built = BUILT.iter().find(|(section, _)| *section == name).map_or(&[][..], |(_, built)| built);
    let mut fields: Map<String, Value> =
        built.iter().map(|field| ((*field).to_owned(), defaults[*field].clone())).collect();
    let (flags, others): (Vec<_>, Vec<_>) = written.iter().partition(|(field, _)| *field == "custom_text");
    for (field, value) in others.into_iter().chain(flags) {
        let full = if name.is_empty() { field.clone() } else { format!("{name}.{field}") };
        if built.contains(&field.as_str()) {
            fields.insert(field.clone(), plain(&full, value)?);
        } else if !(name.is_empty() && ["vision_cfg", "text_cfg", "init_logit_scale"].contains(&field.as_str())) {
            idle(&full, field, value, &defaults)?;
        } else if field == "init_logit_scale" && value.as_f64().is_none_or(|scale| (scale - 2.659_26).abs() > 1e-5) {
            return Err(not_built(&full, value, "the logit scale starts at ln(1/0.07) = 2.65926"));
        }
    }
    Ok(fields)
}

/// A number; of a pair, as in `image_size: [224, 224]`, the one that both are.
fn plain(field: &str, value: &Value) -> Result<Value, FormError> {
    match value.as_array().map(Vec::as_slice) {
        None => Ok(value.clone()),
        Some([one, other]) if one == other && one.is_number() => Ok(one.clone()),
        Some(_) if field == "vision_cfg.layers" => Err(not_built(field, value, "ResNets are not built, ViTs are")),
        Some(_) => Err(not_built(field, value, "one number is allowed, or the same one twice")),
    }
}

/// A field beyond [`ModelConfig`]'s must have the value that changes nothing.
fn idle(full: &str, field: &str, value: &Value, defaults: &Value) -> Result<(), FormError> {
    let Some(default) = defaults.get(field) else {
        return Err(not_built(full, value, "open_clip 3.3.0 has no such setting"));
    };
    if same(value, default) {
        return Ok(());
    }
    // Where that other field has another value, it is the one to be named.
    if IDLE.contains(&field) {
        return Ok(());
    }
    // Where a small vocabulary's merges lie: clip-runner has its own.
    if field == "tokenizer_kwargs" && value.as_object().is_some_and(|keys| keys.iter().all(own_vocabulary)) {
        return Ok(());
    }
    let why = match field {
        "timm_model_name" => "image towers of timm are not built, OpenCLIP's own ViTs are".to_owned(),
        "hf_model_name" | "hf_tokenizer_name" => "models and tokenisers of Hugging Face are not built".to_owned(),
        "multimodal_cfg" => "CoCa's decoder is not built".to_owned(),
        "custom_text" => {
            "the text tower is open_clip's own, with parameter names at the top: false is built".to_owned()
        }
        _ => format!("{default} alone is built"),
    };
    Err(not_built(full, value, &why))
}

/// The file that clip-runner writes beside a checkpoint with a small vocabulary, by its name.
fn own_vocabulary((key, value): (&String, &Value)) -> bool {
    let name = value.as_str().and_then(|path| path.rsplit('/').next()).unwrap_or_default();
    let digits = name.strip_prefix("bpe_").and_then(|rest| rest.strip_suffix(".txt.gz"));
    key == "bpe_path" && digits.is_some_and(|digits| digits.parse::<u64>().is_ok())
}

/// JSON values that OpenCLIP takes for the same: 0 and 0.0, `{}` and null.
fn same(one: &Value, other: &Value) -> bool {
    let empty = |value: &Value| value.is_null() || value.as_object().is_some_and(Map::is_empty);
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
        let same: [(&str, Change); 9] = [
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
            }),
            ("the start of the logit scale", |v| v["init_logit_scale"] = json!(2.659_260_036_932_778)),
            ("a model's folder", |v| *v = json!({"model_cfg": v, "preprocess_cfg": {"size": 224}})),
        ];
        for (what, change) in same {
            assert_eq!(config(change).as_ref(), Ok(&plain), "{what}");
        }
    }

    #[test]
    fn what_is_not_built_is_named_with_what_is() {
        let refused: [(Change, &str); 11] = [
            (|v| v["vision_cfg"]["no_ln_pre"] = json!(true), "`vision_cfg.no_ln_pre` is true: false alone is built"),
            (|v| v["vision_cfg"]["pool_type"] = json!("avg"), "`vision_cfg.pool_type` is \"avg\": \"tok\" alone"),
            (|v| v["vision_cfg"]["patch_dropout"] = json!(0.5), "`vision_cfg.patch_dropout` is 0.5: 0.0 alone"),
            (|v| v["vision_cfg"]["image_size"] = json!([224, 336]), "one number is allowed, or the same one twice"),
            (|v| v["vision_cfg"]["layers"] = json!([3, 4, 6, 3]), "ResNets are not built"),
            (|v| v["vision_cfg"]["timm_model_name"] = json!("convnext_base"), "image towers of timm are not built"),
            (|v| v["text_cfg"]["hf_model_name"] = json!("roberta-base"), "Hugging Face are not built"),
            (|v| v["text_cfg"]["mlp_ratio"] = json!(3.7), "`text_cfg.mlp_ratio` is 3.7: 4.0 alone is built"),
            (|v| v["init_logit_bias"] = json!(-10), "`init_logit_bias` is -10: null alone is built"),
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
