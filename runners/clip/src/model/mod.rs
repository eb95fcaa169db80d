//! CLIP: two transformers into one embedding space, as `open_clip/model.py` and `transformer.py` define it.
//!
//! Parameter names and shapes are those of OpenCLIP's state dict. Two things are computed differently and come out the
//! same: the last block of a tower works out queries, MLP and residual for the pooled token only (nothing else is
//! read), and text is cut after the longest caption of a batch (the mask is causal, so what follows the end token is
//! never seen).

mod block;
#[cfg(test)]
mod golden;
mod image;
mod text;

use protocol::{ModelConfig, Precision};
use tch::{Device, Kind, Tensor};

use crate::batches::Batch;
use crate::parameters::{Declaration, Init, Parameters};

pub use image::ImageTower;
pub use text::TextTower;

/// Largest `logit_scale`: ln 100 (Radford et al. 2021, section 2.5).
pub const LOGIT_SCALE_MAX: f64 = 4.605_170_185_988_092;

/// A CLIP model with its parameters.
#[derive(Debug)]
pub struct Clip {
    /// Weights.
    pub parameters: Parameters,
    /// Image tower.
    pub image: ImageTower,
    /// Text tower.
    pub text: TextTower,
    /// ln of the factor on cosine similarities, shape ().
    pub logit_scale: Tensor,
}

/// One batch as tensors on the model's device.
#[derive(Debug)]
pub struct Inputs {
    /// (B, T, 3 p^2): row 0 of each image stands for the class token and is zero.
    pub patches: Tensor,
    /// (B, X) token ids.
    pub tokens: Tensor,
    /// (B) place of the end token.
    pub ends: Tensor,
}

impl Inputs {
    /// Pairs `from` to `to`, without a copy.
    #[must_use]
    pub fn rows(&self, from: i64, to: i64) -> Inputs {
        let rows = |tensor: &Tensor| tensor.narrow(0, from, to - from);
        Inputs { patches: rows(&self.patches), tokens: rows(&self.tokens), ends: rows(&self.ends) }
    }
}

impl Clip {
    /// Builds and initialises a model.
    ///
    /// # Panics
    /// If the number of parameters is not what [`ModelConfig::size`] says: planner and runner would disagree.
    pub fn new(config: &ModelConfig, precision: Precision, seed: u64, device: Device) -> Clip {
        let mut declarations = vec![declare("logit_scale", &[], Init::Constant((1.0_f64 / 0.07).ln()))];
        declarations.extend(image::declarations(config));
        declarations.extend(text::declarations(config));
        let parameters = Parameters::new(declarations, seed, device);
        assert_eq!(parameters.count(), config.size().parameters(), "parameters built against the closed form");
        let kind = match precision {
            Precision::Fp32 => Kind::Float,
            Precision::AmpBf16 => Kind::BFloat16,
        };
        let image = ImageTower::new(config, &parameters, kind);
        let text = TextTower::new(config, &parameters, kind);
        let logit_scale = parameters.get("logit_scale");
        Clip { parameters, image, text, logit_scale }
    }

    /// Where the model lives.
    pub fn device(&self) -> Device {
        self.parameters.flat.device()
    }

    /// A batch as tensors on the model's device.
    pub fn inputs(&self, batch: &Batch) -> Inputs {
        let device = self.device();
        let size = batch.len() as i64;
        Inputs {
            patches: Tensor::from_slice(&batch.patches).view([size, -1, self.image.patch_values()]).to_device(device),
            tokens: Tensor::from_slice(&batch.tokens).view([size, -1]).to_device(device),
            ends: Tensor::from_slice(&batch.ends).to_device(device),
        }
    }

    /// L2-normalised embeddings (B, E) of images and texts, fp32.
    pub fn forward(&self, inputs: &Inputs) -> (Tensor, Tensor) {
        (self.image.forward(&inputs.patches), self.text.forward(&inputs.tokens, &inputs.ends))
    }

    /// Brings `logit_scale` back into [0, ln 100]; called after each step.
    pub fn clamp_logit_scale(&self) {
        tch::no_grad(|| {
            let _ = self.logit_scale.shallow_clone().clamp_(0.0, LOGIT_SCALE_MAX);
        });
    }
}

fn declare(name: impl Into<String>, shape: &[i64], init: Init) -> Declaration {
    Declaration { name: name.into(), shape: shape.to_vec(), init }
}

/// Rows of unit length, fp32 (`F.normalize`, eps 1e-12).
fn normalise(features: &Tensor) -> Tensor {
    let features = features.to_kind(Kind::Float);
    let norm = features.square().sum_dim_intlist(&[-1_i64][..], true, None).sqrt().clamp_min(1e-12);
    features / norm
}

/// x Wᵀ + b with matrix products in `kind`.
fn linear(x: &Tensor, weight: &Tensor, bias: Option<&Tensor>, kind: Kind) -> Tensor {
    if kind == Kind::Float {
        return x.linear(weight, bias);
    }
    x.to_kind(kind).linear(&weight.to_kind(kind), bias.map(|bias| bias.to_kind(kind)).as_ref())
}

/// LayerNorm over the last dimension, eps 1e-5, fp32.
#[derive(Debug)]
struct LayerNorm {
    weight: Tensor,
    bias: Tensor,
}

impl LayerNorm {
    fn new(parameters: &Parameters, name: &str) -> LayerNorm {
        LayerNorm { weight: parameters.get(&format!("{name}.weight")), bias: parameters.get(&format!("{name}.bias")) }
    }

    fn declarations(name: &str, width: i64) -> [Declaration; 2] {
        [
            declare(format!("{name}.weight"), &[width], Init::Constant(1.0)),
            declare(format!("{name}.bias"), &[width], Init::Constant(0.0)),
        ]
    }

    fn forward(&self, x: &Tensor) -> Tensor {
        x.layer_norm(self.weight.size(), Some(&self.weight), Some(&self.bias), 1e-5, true)
    }
}
