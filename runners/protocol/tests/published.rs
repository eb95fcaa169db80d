//! The closed forms against what others published, and laws they must obey.

use std::path::PathBuf;

use proptest::prelude::*;
use protocol::{Layers, ModelConfig, SHIPPED_MODELS, TextConfig, VisionConfig, shipped_model};

fn shipped(name: &str) -> ModelConfig {
    let (_, json) = shipped_model(name).unwrap_or_else(|| panic!("{name} is shipped"));
    serde_json::from_str(json).unwrap_or_else(|error| panic!("{name}: {error}"))
}

fn close(name: &str, what: &str, got: f64, published: f64) {
    // Both published tables are rounded to two decimals.
    assert!((got - published).abs() < 0.010_001, "{name}: {what} is {got:.4}, published {published}");
}

/// Parameters (millions), GMACs (arch_info.csv of LAION-AI/scaling-laws-openclip, LayerNorm counted) and GFLOPs
/// (model_profile.csv of mlfoundations/open_clip).
#[test]
fn published_values() {
    for (name, parameters, gmacs, gflops) in [
        ("ViT-S-32-alt", 43.22, 1.78, 3.56),
        ("ViT-S-32", 63.09, 2.84, 5.66),
        ("ViT-S-16", 62.26, 6.30, 12.58),
        ("ViT-M-32", 103.12, 4.98, 9.95),
        ("ViT-M-16", 102.02, 10.99, 21.94),
        ("ViT-B-32", 151.28, 7.40, 14.78),
        ("ViT-B-16", 149.62, 20.57, 41.09),
        ("ViT-L-16", 427.74, 68.26, 136.41),
        ("ViT-L-14", 427.62, 87.73, 175.33),
        ("ViT-H-16", 986.26, 150.96, 301.72),
        ("ViT-H-14", 986.11, 190.97, 381.68),
        ("ViT-g-14", 1366.68, 290.74, 581.15),
        ("ViT-bigG-14", 2539.57, 532.92, 1065.36),
        ("ViT-e-14", 4581.09, 1046.02, 2091.45),
    ] {
        let size = shipped(name).size();
        close(name, "M parameters", size.parameters() as f64 / 1e6, parameters);
        close(name, "GMACs", size.gmacs(), gmacs);
        close(name, "GFLOPs", size.gflops(), gflops);
    }
    for (name, image, text, image_gmacs, text_gmacs) in [
        ("ViT-S-32-alt", 22.59, 20.63, 1.15, 0.64),
        ("ViT-B-32", 87.85, 63.43, 4.41, 2.98),
        ("ViT-L-14", 303.97, 123.65, 81.08, 6.66),
        ("ViT-H-14", 632.08, 354.03, 167.40, 23.57),
        ("ViT-g-14", 1012.65, 354.03, 267.18, 23.57),
    ] {
        let size = shipped(name).size();
        close(name, "M image parameters", size.image_parameters as f64 / 1e6, image);
        close(name, "M text parameters", size.text_parameters as f64 / 1e6, text);
        close(name, "image GMACs", size.image_gmacs(), image_gmacs);
        close(name, "text GMACs", size.text_gmacs(), text_gmacs);
    }
}

/// Every row of OpenCLIP's `docs/model_profile.csv` that we ship, where the file is at hand.
#[test]
#[expect(clippy::print_stderr, reason = "a test that is skipped says so")]
fn published_profile() {
    let folder = std::env::var_os("SWEEP_PUBLISHED_DATA")
        .map_or_else(|| PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared/data")), PathBuf::from);
    let Ok(table) = std::fs::read_to_string(folder.join("open_clip/model_profile.csv")) else {
        eprintln!("skipped: no open_clip/model_profile.csv (set SWEEP_PUBLISHED_DATA)");
        return;
    };
    let mut rows = 0;
    for line in table.lines().skip(1) {
        let fields: Vec<&str> = line.split(',').collect();
        let Some((name, json)) = SHIPPED_MODELS.iter().find(|(name, _)| *name == fields[0]) else { continue };
        let config: ModelConfig = serde_json::from_str(json).expect("shipped models parse");
        let size = config.size();
        let published: Vec<f64> = fields[1..].iter().map(|field| field.parse().expect("a number")).collect();
        assert_eq!(config.vision_cfg.image_size, published[0] as u64, "{name}");
        assert_eq!(config.vision_cfg.width, published[1] as u64, "{name}");
        assert_eq!(config.text_cfg.width, published[2] as u64, "{name}");
        assert_eq!(config.embed_dim, published[3] as u64, "{name}");
        close(name, "M parameters", size.parameters() as f64 / 1e6, published[4]);
        close(name, "M image parameters", size.image_parameters as f64 / 1e6, published[5]);
        close(name, "M text parameters", size.text_parameters as f64 / 1e6, published[6]);
        close(name, "GFLOPs", size.gflops(), published[7]);
        close(name, "image GFLOPs", 2.0 * size.image_macs as f64 / 1e9, published[8]);
        close(name, "text GFLOPs", 2.0 * size.text_macs as f64 / 1e9, published[9]);
        rows += 1;
    }
    assert!(rows >= 20, "only {rows} rows of the profile are ours");
}

#[test]
fn shipped_models_are_sound() {
    for (name, json) in SHIPPED_MODELS {
        let config: ModelConfig = serde_json::from_str(json).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(config.check(), Vec::new(), "{name}");
        let again = serde_json::to_string(&config).expect("serialises");
        assert_eq!(serde_json::from_str::<ModelConfig>(&again).expect("parses"), config, "{name}");
    }
    assert_eq!(shipped_model("ViT-G-14").map(|(name, _)| name), Some("ViT-bigG-14"));
    assert_eq!(shipped_model("ViT-Z-14"), None);
}

#[test]
fn unsound_models_are_named() {
    let mut config = shipped("ViT-B-32");
    config.vision_cfg.image_size = 200;
    config.vision_cfg.width = 700;
    config.text_cfg.heads = 0;
    config.vision_cfg.mlp_ratio = f64::NAN;
    let fields: Vec<&str> = config.check().iter().map(|problem| problem.field).collect();
    assert_eq!(fields, ["text_cfg.heads", "vision_cfg.mlp_ratio", "vision_cfg.image_size", "vision_cfg.width"]);
}

prop_compose! {
    fn sane()(
        embed_dim in 1..=16_384_u64, patch in 1..=64_u64, side in 1..=128_u64,
        layers in 1..=512_u64, head_width in 1..=128_u64, heads in 1..=128_u64, mlp_ratio in 0.01..=16.0_f64,
        image_scale in prop::option::of(0.0..1.0_f64),
        context_length in 1..=65_536_u64, vocab_size in 1..=10_000_000_u64, text_heads in 1..=128_u64,
        text_head_width in 1..=128_u64, text_layers in 1..=512_u64,
    ) -> ModelConfig {
        ModelConfig {
            embed_dim,
            vision_cfg: VisionConfig {
                image_size: patch * side, layers: Layers::Blocks(layers), width: head_width * heads, head_width,
                mlp_ratio, patch_size: patch, ls_init_value: image_scale, ..VisionConfig::default()
            },
            text_cfg: TextConfig {
                context_length, vocab_size, width: text_heads * text_head_width, heads: text_heads, layers: text_layers,
                ..TextConfig::default()
            },
            ..ModelConfig::default()
        }
    }
}

proptest! {
    /// Debug builds panic on overflow, so computing is the test.
    #[test]
    fn sane_models_fit_64_bits(config in sane()) {
        prop_assert_eq!(config.check(), Vec::new());
        let size = config.size();
        prop_assert!(size.parameters() > 0);
        let compute = size.compute(1_000_000_000_000_000);
        prop_assert!(compute.gmacs_samples.is_finite() && compute.train_flops.is_finite() && compute.six_nd.is_finite());
        prop_assert!(size.gflops() <= 2.0 * size.gmacs());
    }

    #[test]
    fn more_model_costs_more(config in sane()) {
        let size = config.size();
        for grow in [
            |c: &mut ModelConfig| c.vision_cfg.layers = Layers::Blocks(c.vision_cfg.blocks() + 1),
            |c: &mut ModelConfig| c.vision_cfg.width += c.vision_cfg.head_width,
            |c: &mut ModelConfig| c.vision_cfg.image_size += c.vision_cfg.patch_size,
            |c: &mut ModelConfig| c.text_cfg.layers += 1,
            |c: &mut ModelConfig| c.text_cfg.width += c.text_cfg.heads,
            |c: &mut ModelConfig| c.text_cfg.context_length += 1,
            |c: &mut ModelConfig| c.embed_dim += 1,
        ] {
            let mut larger = config.clone();
            grow(&mut larger);
            let larger = larger.size();
            prop_assert!(larger.parameters() > size.parameters());
            prop_assert!(larger.gflops() > size.gflops() && larger.gmacs() > size.gmacs());
            prop_assert!(larger.compute(7).train_flops > size.compute(7).train_flops);
        }
        prop_assert!(size.compute(8).gmacs_samples > size.compute(7).gmacs_samples);
    }

    /// Any numbers at all: `check` itself never overflows, and what it lets through can be sized.
    #[test]
    fn check_is_total(
        numbers in prop::array::uniform11(prop_oneof![0..=20_000_u64, any::<u64>()]),
        mlp_ratio in any::<f64>(), stages in any::<bool>(), pooled in any::<bool>(),
    ) {
        let [embed_dim, image_size, layers, width, head_width, patch_size, context_length, vocab_size, text_width, heads, text_layers] =
            numbers;
        let config = ModelConfig {
            embed_dim,
            quick_gelu: true,
            vision_cfg: VisionConfig {
                image_size,
                layers: if stages { Layers::Stages([layers, 3, 4, 2]) } else { Layers::Blocks(layers) },
                width, head_width, mlp_ratio, patch_size,
                attentional_pool: pooled, attn_pooler_queries: layers, ..VisionConfig::default()
            },
            text_cfg: TextConfig {
                context_length, vocab_size, width: text_width, heads, layers: text_layers, embed_cls: pooled,
                ..TextConfig::default()
            },
            custom_text: true,
            ..ModelConfig::default()
        };
        if config.check().is_empty() {
            config.size();
        }
    }
}
