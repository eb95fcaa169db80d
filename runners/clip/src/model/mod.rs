//! CLIP: two transformers into one embedding space, as `open_clip/model.py` and `transformer.py` define it.
//!
//! Parameter names and shapes are those of OpenCLIP's state dict. Two things are computed differently and come out the
//! same: where one token of a tower is pooled, its last block works out queries, MLP and residual for that one only
//! (nothing else is read), and text under a causal mask is cut behind the tokens that are pooled (what follows is never
//! seen), each caption by itself.

mod attention_pool;
mod block;
#[cfg(test)]
mod golden;
mod image;
mod lengths;
mod text;

use protocol::{Approximate, ModelConfig, Precision};
use tch::{Device, Kind, Tensor};

use crate::loss::LogitParameters;
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
    /// A parameter that InfoNCE does not depend on: adding a number to all logits changes no softmax.
    pub logit_bias: Option<Tensor>,
    config: ModelConfig,
    /// Of matrix products.
    kind: Kind,
    grad_checkpointing: bool,
}

/// One batch, on one device.
#[derive(Debug)]
pub struct Inputs {
    /// (B, T, 3 p^2): row 0 of each image stands for the class token and is zero.
    pub patches: Tensor,
    /// (B, X) token ids.
    pub tokens: Tensor,
    /// (B) place of the token that is pooled.
    pub ends: Tensor,
    /// (B, K + 1) rows of `patches` that are seen, the class token's first; `None`: all of them.
    pub kept: Option<Tensor>,
}

impl Inputs {
    /// Pairs `from` to `to`, without a copy.
    #[must_use]
    pub fn rows(&self, from: i64, to: i64) -> Inputs {
        self.each(|tensor| tensor.narrow(0, from, to - from))
    }

    /// The same on a device, without a copy if they are there. A GPU fetches what is pinned in its own time.
    #[must_use]
    pub fn on(&self, device: Device) -> Inputs {
        self.each(|tensor| match device {
            _ if tensor.device() == device => tensor.shallow_clone(),
            _ => tensor.internal_to_copy((tensor.kind(), device), device.is_cuda()),
        })
    }

    /// The same in memory that a GPU reads by itself.
    #[must_use]
    pub fn pinned(&self) -> Inputs {
        self.each(kernels::pinned)
    }

    /// What a device holds of it.
    pub fn tensors(&self) -> impl Iterator<Item = &Tensor> {
        let Inputs { patches, tokens, ends, kept } = self;
        [patches, tokens, ends].into_iter().chain(kept)
    }

    fn each(&self, change: impl Fn(&Tensor) -> Tensor) -> Inputs {
        Inputs {
            patches: change(&self.patches),
            tokens: change(&self.tokens),
            ends: change(&self.ends),
            kept: self.kept.as_ref().map(&change),
        }
    }
}

impl Clip {
    /// Builds and initialises a model.
    ///
    /// # Panics
    /// If the number of parameters is not what [`ModelConfig::size`] says: planner and runner would disagree.
    pub fn new(config: &ModelConfig, precision: Precision, seed: u64, device: Device) -> Clip {
        let products = match precision {
            Precision::Fp32 => Kind::Float,
            Precision::AmpBf16 => Kind::BFloat16,
        };
        Clip::of_kinds(config, Kind::Float, products, seed, device)
    }

    /// With weights and activations of one kind, and factors of matrix products (`kind`) of another.
    pub(crate) fn of_kinds(config: &ModelConfig, stored: Kind, kind: Kind, seed: u64, device: Device) -> Clip {
        let scalar = if config.nonscalar_logit_scale { &[1][..] } else { &[] };
        let logit_scale = config.init_logit_scale.unwrap_or_else(|| (1.0_f64 / 0.07).ln());
        let mut declarations = vec![declare("logit_scale", scalar, Init::Constant(logit_scale))];
        declarations.extend(config.init_logit_bias.map(|bias| declare("logit_bias", scalar, Init::Constant(bias))));
        declarations.extend(image::declarations(config));
        declarations.extend(text::declarations(config));
        let parameters = Parameters::of_kind(declarations, stored, seed, device);
        assert_eq!(parameters.count(), config.size().parameters(), "parameters built against the closed form");
        let image = ImageTower::new(config, &parameters, kind);
        let text = TextTower::new(config, &parameters, kind);
        let logit_scale = parameters.get("logit_scale");
        let logit_scale = if config.nonscalar_logit_scale { logit_scale.squeeze() } else { logit_scale };
        let logit_bias = config.init_logit_bias.map(|_| parameters.get("logit_bias").squeeze());
        Clip {
            parameters,
            image,
            text,
            logit_scale,
            logit_bias,
            config: config.clone(),
            kind,
            grad_checkpointing: false,
        }
    }

    /// Whether blocks keep their inputs alone for the way back, which computes the rest again: less memory, a forward
    /// pass more, and the same gradients to the bit.
    pub fn set_grad_checkpointing(&mut self, on: bool) {
        self.grad_checkpointing = on;
        self.image.set_grad_checkpointing(on);
        self.text.set_grad_checkpointing(on);
    }

    /// An image tower like this model's on other weights, which have the same names.
    pub fn image_tower_on(&self, parameters: &Parameters) -> ImageTower {
        let mut tower = ImageTower::new(&self.config, parameters, self.kind);
        tower.set_grad_checkpointing(self.grad_checkpointing);
        tower
    }

    /// Blocks of the image tower.
    pub fn image_blocks(&self) -> u64 {
        self.config.vision_cfg.blocks()
    }

    /// Where the model lives.
    pub fn device(&self) -> Device {
        self.parameters.flat.device()
    }

    /// L2-normalised embeddings (B, E) of images and texts, fp32.
    pub fn forward(&self, inputs: &Inputs) -> (Tensor, Tensor) {
        (
            self.image.forward_kept(&inputs.patches, inputs.kept.as_ref()),
            self.text.forward(&inputs.tokens, &inputs.ends),
        )
    }

    /// What its logits are made of beside embeddings.
    pub fn logits(&self) -> LogitParameters<'_> {
        LogitParameters { scale: &self.logit_scale, bias: self.logit_bias.as_ref() }
    }

    /// Brings `logit_scale` back into [0, ln 100]; called after each step.
    pub fn clamp_logit_scale(&self) {
        tch::no_grad(|| {
            let _ = self.logit_scale.detach().clamp_(0.0, LOGIT_SCALE_MAX);
        });
    }
}

fn declare(name: impl Into<String>, shape: &[i64], init: Init) -> Declaration {
    Declaration { name: name.into(), shape: shape.to_vec(), init }
}

/// What sums are of: fp32, or what is wider.
fn wide(kind: Kind) -> Kind {
    if kind == Kind::Double { Kind::Double } else { Kind::Float }
}

/// Rows of unit length, fp32 (`F.normalize`, eps 1e-12).
fn normalise(features: &Tensor) -> Tensor {
    let features = features.to_kind(wide(features.kind()));
    let norm = features.square().sum_dim_intlist(&[-1_i64][..], true, None).sqrt().clamp_min(1e-12);
    features / norm
}

/// x Wᵀ + b with matrix products in `kind`. On a CPU what is stored is fp32 all the same.
fn linear(x: &Tensor, weight: &Tensor, bias: Option<&Tensor>, kind: Kind) -> Tensor {
    if x.device() == Device::Cpu {
        return kernels::linear(x, weight, bias, kind == Kind::BFloat16);
    }
    x.to_kind(kind).linear(&weight.to_kind(kind), bias.map(|bias| bias.to_kind(kind)).as_ref())
}

/// What stands between the two layers of an MLP.
#[derive(Debug, Clone, Copy)]
enum Activation {
    QuickGelu,
    Gelu(Approximate),
}

impl Activation {
    fn new(quick: bool, approximate: Approximate) -> Activation {
        if quick { Activation::QuickGelu } else { Activation::Gelu(approximate) }
    }

    fn of(self, x: &Tensor) -> Tensor {
        match self {
            Activation::QuickGelu => x * (x * 1.702).sigmoid(),
            Activation::Gelu(approximate) => x.gelu(approximate.name()),
        }
    }

    fn on_cpu(self) -> kernels::Activation {
        match self {
            Activation::QuickGelu => kernels::Activation::QuickGelu,
            Activation::Gelu(Approximate::None) => kernels::Activation::Gelu,
            Activation::Gelu(Approximate::Tanh) => kernels::Activation::GeluTanh,
        }
    }
}

/// LayerNorm over the last dimension, fp32.
#[derive(Debug)]
struct LayerNorm {
    weight: Tensor,
    bias: Tensor,
    eps: f64,
}

impl LayerNorm {
    fn new(parameters: &Parameters, name: &str, eps: f64) -> LayerNorm {
        let part = |part: &str| parameters.get(&format!("{name}.{part}"));
        LayerNorm { weight: part("weight"), bias: part("bias"), eps }
    }

    fn declarations(name: &str, width: i64) -> [Declaration; 2] {
        [
            declare(format!("{name}.weight"), &[width], Init::Constant(1.0)),
            declare(format!("{name}.bias"), &[width], Init::Constant(0.0)),
        ]
    }

    /// Half a block that begins with this norm.
    fn branch<'a>(&'a self, input: &'a (Tensor, Tensor), output: &'a (Tensor, Tensor)) -> kernels::BranchLayers<'a> {
        let (norm, eps) = ((&self.weight, &self.bias), self.eps);
        kernels::BranchLayers { norm, eps, input: (&input.0, &input.1), output: (&output.0, &output.1) }
    }

    fn forward(&self, x: &Tensor) -> Tensor {
        x.layer_norm(self.weight.size(), Some(&self.weight), Some(&self.bias), self.eps, true)
    }
}
