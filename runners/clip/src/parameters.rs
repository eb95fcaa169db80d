//! Every parameter of a model in one flat buffer, each with its OpenCLIP name, and its initial value.
//!
//! One buffer makes an optimiser step, a gradient norm and a checkpoint one pass over memory. Parameters of two or more
//! dimensions come first: they are the ones that weight decay applies to (`open_clip_train/main.py`, `exclude`).

use std::borrow::Cow;

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use safetensors::{Dtype, View};
use sha2::{Digest, Sha256};
use tch::{Device, Kind, Tensor};

/// Starts of parameters are multiples of this many floats, so that vector loads stay aligned.
const ALIGNMENT: usize = 16;

/// How a parameter starts.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Init {
    /// The same number everywhere.
    Constant(f64),
    /// Normal with mean 0 and this standard deviation.
    Normal(f64),
    /// Uniform over (-bound, bound).
    Uniform(f64),
}

/// A parameter to be made.
#[derive(Debug, Clone, PartialEq)]
pub struct Declaration {
    /// Name in OpenCLIP's state dict.
    pub name: String,
    /// Shape in OpenCLIP's state dict.
    pub shape: Vec<i64>,
    /// Initial value.
    pub init: Init,
}

/// A parameter inside the flat buffer.
#[derive(Debug)]
pub struct Parameter {
    /// Name in OpenCLIP's state dict.
    pub name: String,
    /// Shape in OpenCLIP's state dict.
    pub shape: Vec<i64>,
    /// First float in the flat buffer.
    pub offset: usize,
    /// Floats.
    pub numel: usize,
    /// Leaf of the gradient tape; shares the flat buffer's memory.
    pub tensor: Tensor,
    /// What the learning rate is multiplied with for it: 1, unless layers are told apart.
    pub lr_scale: f64,
}

/// All parameters of a model.
#[derive(Debug)]
pub struct Parameters {
    /// The buffer, fp32 (fp64 in tests), padding between parameters zero.
    pub flat: Tensor,
    /// Parameters by offset: matrices first.
    pub list: Vec<Parameter>,
    /// Floats at the start of `flat` that weight decay applies to.
    pub decayed: usize,
}

impl Parameters {
    /// Lays out and initialises parameters. The same seed gives the same values on every machine and device: each
    /// parameter draws from its own ChaCha stream, named by seed and parameter.
    pub fn new(declarations: Vec<Declaration>, seed: u64, device: Device) -> Parameters {
        Parameters::of_kind(declarations, Kind::Float, seed, device)
    }

    /// The same values stored as `kind`.
    pub(crate) fn of_kind(declarations: Vec<Declaration>, kind: Kind, seed: u64, device: Device) -> Parameters {
        let (matrices, rest): (Vec<_>, Vec<_>) = declarations.into_iter().partition(|d| d.shape.len() >= 2);
        let mut values: Vec<f32> = Vec::new();
        let mut places = Vec::new();
        let mut decayed = 0;
        for (group, declared) in [matrices, rest].into_iter().enumerate() {
            for declaration in declared {
                let numel = declaration.shape.iter().product::<i64>() as usize;
                let offset = values.len();
                values.extend(initial_values(&declaration, numel, seed));
                values.resize(values.len().next_multiple_of(ALIGNMENT), 0.0);
                places.push((declaration, offset, numel));
            }
            if group == 0 {
                decayed = values.len();
            }
        }
        let flat = Tensor::from_slice(&values).to_kind(kind).to_device(device);
        let list = places
            .into_iter()
            .map(|(Declaration { name, shape, .. }, offset, numel)| {
                let tensor =
                    flat.narrow(0, offset as i64, numel as i64).view(&shape[..]).detach().set_requires_grad(true);
                Parameter { name, shape, offset, numel, tensor, lr_scale: 1.0 }
            })
            .collect();
        Parameters { flat, list, decayed }
    }

    /// Gives each parameter its factor on the learning rate, by name.
    pub fn scale_lr(&mut self, factor: impl Fn(&str) -> f64) {
        for parameter in &mut self.list {
            parameter.lr_scale = factor(&parameter.name);
        }
    }

    /// The leaf of that name.
    ///
    /// # Panics
    /// If the model declared no such parameter.
    pub fn get(&self, name: &str) -> Tensor {
        let found = self.list.iter().find(|parameter| parameter.name == name);
        found.unwrap_or_else(|| panic!("no parameter is named {name}")).tensor.shallow_clone()
    }

    /// N.
    pub fn count(&self) -> u64 {
        self.list.iter().map(|parameter| parameter.numel as u64).sum()
    }

    /// Writes a tensor for each parameter, in order, into a buffer of their layout.
    #[cfg(test)]
    pub fn lay_out(&self, tensors: &[Tensor], flat: &Tensor) {
        for (parameter, tensor) in self.list.iter().zip(tensors) {
            flat.narrow(0, parameter.offset as i64, parameter.numel as i64).copy_(&tensor.flatten(0, -1));
        }
    }

    /// The parameters in a buffer of their layout, by name, to be written to a file.
    pub(crate) fn stored(&self, flat: &Tensor) -> impl Iterator<Item = (&str, Stored)> {
        self.list.iter().map(|parameter| {
            let shape = parameter.shape.iter().map(|side| *side as usize).collect();
            let tensor = flat.narrow(0, parameter.offset as i64, parameter.numel as i64);
            (parameter.name.as_str(), Stored { shape, tensor })
        })
    }

    /// A buffer of the same layout filled with zeros: a moment of the optimiser.
    pub fn zeros_like_flat(&self) -> Tensor {
        self.flat.zeros_like()
    }
}

/// Floats on any device, copied to main memory when they are written, and no sooner.
pub(crate) struct Stored {
    shape: Vec<usize>,
    tensor: Tensor,
}

impl View for Stored {
    fn dtype(&self) -> Dtype {
        Dtype::F32
    }

    fn shape(&self) -> &[usize] {
        &self.shape
    }

    fn data(&self) -> Cow<'_, [u8]> {
        let mut bytes = vec![0; self.data_len()];
        self.tensor.to_device(Device::Cpu).copy_data_u8(&mut bytes, self.tensor.numel());
        Cow::Owned(bytes)
    }

    fn data_len(&self) -> usize {
        4 * self.tensor.numel()
    }
}

fn initial_values(declaration: &Declaration, numel: usize, seed: u64) -> Vec<f32> {
    let digest = Sha256::new().chain_update(seed.to_le_bytes()).chain_update(declaration.name.as_bytes()).finalize();
    let mut rng = ChaCha8Rng::from_seed(digest.into());
    match declaration.init {
        Init::Constant(value) => vec![value as f32; numel],
        Init::Uniform(bound) => (0..numel).map(|_| (bound * (2.0 * rng.random::<f64>() - 1.0)) as f32).collect(),
        Init::Normal(std) => {
            let mut values = Vec::with_capacity(numel + 1);
            while values.len() < numel {
                // Box and Muller 1958: two uniforms make two normals.
                let radius = std * (-2.0 * (1.0 - rng.random::<f64>()).ln()).sqrt();
                let angle = std::f64::consts::TAU * rng.random::<f64>();
                values.push((radius * angle.cos()) as f32);
                values.push((radius * angle.sin()) as f32);
            }
            values.truncate(numel);
            values
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn initial_values_have_the_stated_spread() {
        let spread = |init| {
            let values = initial_values(&Declaration { name: "w".into(), shape: vec![20_000], init }, 20_000, 7);
            (values.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>() / 20_000.0).sqrt()
        };
        assert!((spread(Init::Normal(0.02)) - 0.02).abs() < 0.0005);
        assert!((spread(Init::Uniform(0.3)) - 0.3 / 3.0_f64.sqrt()).abs() < 0.005);
    }

    #[test]
    fn matrices_come_first_and_leaves_share_the_buffer() {
        let declare = |name: &str, shape: &[i64]| Declaration {
            name: name.into(),
            shape: shape.to_vec(),
            init: Init::Constant(1.0),
        };
        let declared = vec![declare("bias", &[3]), declare("weight", &[3, 2])];
        let parameters = Parameters::new(declared, 0, Device::Cpu);
        assert_eq!((parameters.list[0].name.as_str(), parameters.decayed, parameters.count()), ("weight", 16, 9));
        let _ = parameters.flat.narrow(0, 0, 1).fill_(5.0);
        assert!((parameters.get("weight").double_value(&[0, 0]) - 5.0).abs() < 1e-12);
    }
}
