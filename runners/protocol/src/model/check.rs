//! What makes a configuration no model, and what one is not trained by clip-runner for.

use std::fmt;

use super::{Layers, ModelConfig, TextConfig, TextPool, TextProjection, VisionConfig};

/// What is wrong with a model configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelProblem {
    /// Which field, for example `vision_cfg.patch_size`.
    pub field: &'static str,
    /// What is wrong and what is allowed, a sentence fragment.
    pub problem: String,
}

impl fmt::Display for ModelProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` {}", self.field, self.problem)
    }
}

impl std::error::Error for ModelProblem {}

/// Largest number of image tokens, patches and class token. With the other limits of [`ModelConfig::check`] it keeps
/// every closed form inside 64 bits.
const TOKENS_MAX: u64 = 65_537;

/// Largest width of a ResNet, for the same reason.
const RESNET_WIDTH_MAX: u64 = 2_048;

/// Tokens of OpenAI's encoding before any merge: 256 bytes, 256 bytes that end a word, start and end of text.
pub const VOCABULARY_MIN: u64 = 514;

/// OpenAI's vocabulary.
pub const VOCABULARY_MAX: u64 = 49_408;

/// Start, one token, end.
const CONTEXT_MIN: u64 = 3;

#[derive(Default)]
struct Problems(Vec<ModelProblem>);

impl Problems {
    fn say(&mut self, field: &'static str, problem: impl Into<String>) {
        self.0.push(ModelProblem { field, problem: problem.into() });
    }

    fn divides(&mut self, field: &'static str, whole: u64, part: u64, what: &str) {
        if part > 0 && !whole.is_multiple_of(part) {
            self.say(field, format!("is {whole}, which {what} {part}"));
        }
    }
}

impl ModelConfig {
    /// Everything that makes this configuration no model: sizes of zero or beyond reason, patches that do not tile the
    /// image, heads that do not divide the width. [`ModelConfig::size`] is meaningful only where this is empty.
    pub fn check(&self) -> Vec<ModelProblem> {
        let (vision, text) = (&self.vision_cfg, &self.text_cfg);
        let mut problems = Problems::default();
        let blocks = match vision.layers {
            Layers::Blocks(blocks) => blocks,
            Layers::Stages(_) => 1,
        };
        for (field, value, max) in [
            ("embed_dim", self.embed_dim, 16_384),
            ("vision_cfg.image_size", vision.image_size, 8_192),
            ("vision_cfg.layers", blocks, 512),
            ("vision_cfg.width", vision.width, 16_384),
            ("vision_cfg.head_width", vision.head_width, 16_384),
            ("vision_cfg.patch_size", vision.patch_size, 8_192),
            ("vision_cfg.attn_pooler_queries", vision.attn_pooler_queries, TOKENS_MAX),
            ("vision_cfg.attn_pooler_heads", vision.attn_pooler_heads, 16_384),
            ("text_cfg.context_length", text.context_length, 65_536),
            ("text_cfg.vocab_size", text.vocab_size, 10_000_000),
            ("text_cfg.width", text.width, 16_384),
            ("text_cfg.heads", text.heads, 16_384),
            ("text_cfg.layers", text.layers, 512),
        ] {
            if value == 0 || value > max {
                problems.say(field, format!("is {value}, it must lie between 1 and {max}"));
            }
        }
        let ratios = [("vision_cfg.mlp_ratio", vision.mlp_ratio), ("text_cfg.mlp_ratio", text.mlp_ratio)];
        for (field, ratio) in ratios {
            if !(ratio > 0.0 && ratio <= 16.0) {
                problems.say(field, format!("is {ratio}, it must lie above 0 and at most 16"));
            }
        }
        if !(0.0..1.0).contains(&vision.patch_dropout) {
            let dropout = vision.patch_dropout;
            problems.say("vision_cfg.patch_dropout", format!("is {dropout}, it must be at least 0 and below 1"));
        }
        for (field, eps) in
            [("vision_cfg.norm_kwargs", vision.norm_kwargs.eps), ("text_cfg.norm_kwargs", text.norm_kwargs.eps)]
        {
            if !(eps > 0.0 && eps < 1.0) {
                problems.say(field, format!("has an eps of {eps}, it must lie between 0 and 1"));
            }
        }
        for (field, value) in [
            ("init_logit_scale", self.init_logit_scale),
            ("init_logit_bias", self.init_logit_bias),
            ("vision_cfg.ls_init_value", vision.ls_init_value),
            ("text_cfg.ls_init_value", text.ls_init_value),
        ] {
            if let Some(value) = value
                && !value.is_finite()
            {
                problems.say(field, format!("is {value}, it must be a number"));
            }
        }
        match vision.layers {
            _ if vision.timm_model_name.is_some() => check_timm(vision, self.embed_dim, &mut problems),
            Layers::Blocks(_) => check_transformer(vision, self.embed_dim, &mut problems),
            Layers::Stages(stages) => check_resnet(vision, stages, &mut problems),
        }
        check_text(text, self.embed_dim, &mut problems);
        if text.embed_cls && !self.custom_text {
            problems.say("text_cfg.embed_cls", "is true, which needs `custom_text: true`");
        }
        let tanh = super::GeluSettings { approximate: super::Approximate::Tanh };
        for (field, act) in [("vision_cfg.act_kwargs", vision.act_kwargs), ("text_cfg.act_kwargs", text.act_kwargs)] {
            if self.quick_gelu && act == tanh {
                problems.say(field, "has `approximate`, which QuickGELU does not take");
            }
        }
        problems.0
    }

    /// What clip-runner can't train of a configuration that [`ModelConfig::check`] finds nothing wrong with. Plans for
    /// it say so at once; the runner asks again.
    pub fn check_trained_by_clip(&self) -> Vec<ModelProblem> {
        let (vision, text) = (&self.vision_cfg, &self.text_cfg);
        let mut problems = Problems::default();
        if vision.timm_model_name.is_some() {
            let problem = "is timm's tower: counted, not trained by clip-runner; OpenCLIP's own ViTs are trained";
            problems.say("vision_cfg.timm_model_name", problem);
        }
        if vision.is_resnet() {
            problems.say("vision_cfg.layers", "is a ResNet's: counted, not trained by clip-runner; ViTs are trained");
        }
        let context = text.context_length;
        if context < CONTEXT_MIN {
            problems.say("text_cfg.context_length", format!("is {context}, it must be at least {CONTEXT_MIN}"));
        }
        let vocabulary = text.vocab_size;
        let (least, most) = (VOCABULARY_MIN, VOCABULARY_MAX);
        if text.hf_tokenizer_name.is_some() {
            if text.tokenizer_sha256.is_none() {
                let name = text.hf_tokenizer_name.as_deref().unwrap_or_default();
                problems.say(
                    "text_cfg.hf_tokenizer_name",
                    format!("is `{name}`, where no `tokenizer.json` lies; name a folder that has one"),
                );
            }
        } else {
            if !(least..=most).contains(&vocabulary) {
                problems.say(
                    "text_cfg.vocab_size",
                    format!("is {vocabulary}, it must be {least} to {most}, the tokens of OpenAI's encoding"),
                );
            }
            if text.pool_type == TextPool::Eos && text.eos_id != vocabulary.saturating_sub(1) {
                let (eos, last) = (text.eos_id, vocabulary.saturating_sub(1));
                let problem =
                    format!("is {eos}, and OpenAI's encoding ends a text with the last of its tokens, {last}");
                problems.say("text_cfg.eos_id", problem);
            }
            if text.tokenizer_kwargs.strip_sep_token {
                problems.say("text_cfg.tokenizer_kwargs", "has `strip_sep_token`: OpenAI's encoding has no separator");
            }
        }
        problems.0
    }
}

fn check_transformer(vision: &VisionConfig, embed: u64, problems: &mut Problems) {
    let (size, patch) = (vision.image_size, vision.patch_size);
    if patch > 0 && !size.is_multiple_of(patch) {
        let problem = format!("is {size}, which patches of {patch} x {patch} pixels do not tile");
        problems.say("vision_cfg.image_size", problem);
    } else if patch > 0 && (size / patch).saturating_pow(2).saturating_add(1) > TOKENS_MAX {
        problems.say("vision_cfg.patch_size", format!("is {patch}: more than {TOKENS_MAX} tokens an image"));
    }
    problems.divides("vision_cfg.width", vision.width, vision.head_width, "is no multiple of the head width");
    if vision.attentional_pool {
        problems.divides("embed_dim", embed, vision.attn_pooler_heads, "is no multiple of `attn_pooler_heads`,");
        if vision.pool_type == super::ImagePool::Avg && vision.attn_pooler_queries < 2 {
            problems.say("vision_cfg.attn_pooler_queries", "is 1, and `pool_type: avg` takes the mean of the others");
        }
    }
}

fn check_timm(vision: &VisionConfig, embed: u64, problems: &mut Problems) {
    let name = vision.timm_model_name.as_deref().unwrap_or_default();
    let Some(tower) = vision.timm() else {
        let counted = "towers of timm are counted if they are SigLIP's (`vit_base_patch16_siglip_224`)";
        return problems.say("vision_cfg.timm_model_name", format!("is `{name}`; {counted}"));
    };
    if (vision.timm_pool.as_deref(), vision.timm_proj.as_deref()) != (Some("map"), Some("none")) {
        problems.say("vision_cfg.timm_pool", "must be `map` and `timm_proj` `none`, as in SigLIP's configurations");
    }
    if tower.width != embed {
        problems.say("embed_dim", format!("is {embed}, and `{name}` gives {}", tower.width));
    }
    if tower.patches(vision.image_size) == 0 || tower.patches(vision.image_size) > TOKENS_MAX {
        problems.say("vision_cfg.image_size", format!("is {}, which `{name}` can't cut up", vision.image_size));
    }
}

fn check_resnet(vision: &VisionConfig, stages: [u64; 4], problems: &mut Problems) {
    if stages.iter().any(|blocks| *blocks == 0 || *blocks > 128) {
        problems.say("vision_cfg.layers", format!("is {stages:?}, each must lie between 1 and 128"));
    }
    if vision.width > RESNET_WIDTH_MAX {
        problems.say("vision_cfg.width", format!("is {}, a ResNet's is {RESNET_WIDTH_MAX} at most", vision.width));
    }
    problems.divides("vision_cfg.image_size", vision.image_size, 32, "a ResNet halves five times: no multiple of");
    problems.divides("vision_cfg.width", vision.width, 2, "is no multiple of");
    let channels = 32 * vision.width.min(RESNET_WIDTH_MAX);
    let heads = channels.checked_div(vision.head_width).unwrap_or(1);
    if heads == 0 || !channels.is_multiple_of(heads) {
        problems.say("vision_cfg.head_width", format!("is {}, which gives {heads} heads", vision.head_width));
    }
}

fn check_text(text: &TextConfig, embed: u64, problems: &mut Problems) {
    if text.heads > 0 && !text.width.is_multiple_of(text.heads) {
        let (width, heads) = (text.width, text.heads);
        problems.say("text_cfg.width", format!("is {width}, which {heads} heads do not divide"));
    }
    if text.proj_type == TextProjection::None && text.width != embed {
        problems.say("text_cfg.proj_type", format!("is none, and {} is not `embed_dim`, {embed}", text.width));
    }
}
