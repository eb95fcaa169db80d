//! Holds the model against OpenCLIP 3.3.0: same weights, same inputs, same embeddings, loss and gradient norm.
//!
//! The numbers come from `open_clip.model.CLIP(4, CLIPVisionCfg(layers=2, width=32, head_width=16, patch_size=8,
//! image_size=16, ls_init_value=LS), CLIPTextCfg(context_length=7, vocab_size=40, width=16, heads=2, layers=2,
//! ls_init_value=LS), quick_gelu=QUICK)` with the i-th value of the k-th parameter by name set to 0.2 sin(0.37 i + k),
//! plus 1 for weights of layer norms, `logit_scale` left at its start; pixel i is sin(0.05 i).

use protocol::{ModelConfig, Precision, TextConfig, VisionConfig};
use tch::{Device, Kind, Tensor};

use super::{Clip, Inputs};
use crate::loss::reference;

struct Expected {
    images: [f64; 12],
    texts: [f64; 12],
    loss: f64,
    gradient_norm: f64,
}

#[test]
fn plain_model() {
    check(
        &config(false, None),
        &Expected {
            images: [
                0.632_326_3,
                0.578_944_7,
                0.447_205_4,
                0.254_939_1,
                0.623_598_3,
                0.577_635,
                0.453_491_7,
                0.267_970_6,
                0.623_739_2,
                0.577_657_3,
                0.453_392_4,
                0.267_762_8,
            ],
            texts: [
                0.431_583_3,
                0.523_707_8,
                0.544_950_8,
                0.492_437_3,
                0.500_730_4,
                0.547_595_1,
                0.520_345_4,
                0.422_669_4,
                0.405_600_5,
                0.513_742_2,
                0.552_351_5,
                0.516_202_5,
            ],
            loss: 1.115_423_917_770_385_7,
            gradient_norm: 9.774_928_883_267_691,
        },
    );
}

#[test]
fn quick_gelu_and_layer_scale() {
    check(
        &config(true, Some(0.5)),
        &Expected {
            images: [
                -0.531_081,
                -0.556_697,
                -0.506_966_8,
                -0.388_620_8,
                -0.538_606_5,
                -0.558_805_3,
                -0.503_372_4,
                -0.379_810_4,
                -0.538_484_8,
                -0.558_771_7,
                -0.503_431_3,
                -0.379_954,
            ],
            texts: [
                -0.565_936_7,
                -0.565_916_5,
                -0.489_302_5,
                -0.346_463_6,
                -0.667_094_2,
                -0.582_632_8,
                -0.419_315_5,
                -0.199_245_5,
                -0.594_694_4,
                -0.572_376_4,
                -0.472_59,
                -0.308_840_7,
            ],
            loss: 1.101_499_080_657_959,
            gradient_norm: 2.315_442_651_831_755_7,
        },
    );
}

fn config(quick_gelu: bool, ls_init_value: Option<f64>) -> ModelConfig {
    ModelConfig {
        embed_dim: 4,
        quick_gelu,
        vision_cfg: VisionConfig {
            image_size: 16,
            layers: 2,
            width: 32,
            head_width: 16,
            mlp_ratio: 4.0,
            patch_size: 8,
            ls_init_value,
        },
        text_cfg: TextConfig { context_length: 7, vocab_size: 40, width: 16, heads: 2, layers: 2, ls_init_value },
    }
}

fn check(config: &ModelConfig, expected: &Expected) {
    let model = Clip::new(config, Precision::Fp32, 0, Device::Cpu);
    set_weights(&model);
    let (images, texts) = model.forward(&inputs());
    let loss = reference(&images, &texts, &model.logit_scale);
    let leaves: Vec<&Tensor> = model.parameters.list.iter().map(|p| &p.tensor).collect();
    let gradients = Tensor::run_backward(&[&loss], &leaves, false, false);
    let squares: f64 = gradients.iter().map(|g| g.square().sum(Kind::Double).double_value(&[])).sum();
    for (found, expected) in [(images, expected.images), (texts, expected.texts)] {
        let found = Vec::<f64>::try_from(found.detach().to_kind(Kind::Double).flatten(0, -1)).expect("f64");
        assert!(found.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-5), "{found:?} against {expected:?}");
    }
    assert!((loss.double_value(&[]) - expected.loss).abs() < 1e-5);
    assert!((squares.sqrt() / expected.gradient_norm - 1.0).abs() < 1e-5, "{}", squares.sqrt());
}

fn set_weights(model: &Clip) {
    let mut names: Vec<&str> = model.parameters.list.iter().map(|p| p.name.as_str()).collect();
    names.sort_unstable();
    for (k, name) in names.into_iter().enumerate().filter(|(_, name)| *name != "logit_scale") {
        let mut tensor = model.parameters.get(name).detach();
        let of_norm = name.ends_with("weight") && name.contains("ln_");
        let shift = if of_norm { 1.0 } else { 0.0 };
        let values: Vec<f32> =
            (0..tensor.numel()).map(|i| (0.2 * (0.37 * i as f64 + k as f64).sin() + shift) as f32).collect();
        tensor.copy_(&Tensor::from_slice(&values).view(&tensor.size()[..]));
    }
}

fn inputs() -> Inputs {
    let pixels: Vec<f32> = (0..3 * 3 * 16 * 16).map(|i| (0.05 * f64::from(i)).sin() as f32).collect();
    // (B, 3, rows, 8, columns, 8) to (B, patches, 3 x 8 x 8), a zero row in front.
    let patches = Tensor::from_slice(&pixels).view([3, 3, 2, 8, 2, 8]).permute([0, 2, 4, 1, 3, 5]);
    let patches = patches.reshape([3, 4, 192]).constant_pad_nd([0, 0, 1, 0]);
    let tokens = [[38, 5, 9, 39, 0, 0, 0], [38, 1, 2, 3, 4, 5, 39], [38, 7, 39, 0, 0, 0, 0_i64]];
    Inputs {
        patches,
        tokens: Tensor::from_slice(&tokens.concat()).view([3, 7]),
        ends: Tensor::from_slice(&[3_i64, 6, 2]),
    }
}
