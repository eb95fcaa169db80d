//! The loss of a batch and its gradients, in one pass through the towers or in parts.

use kernels::comm::Comm;
use kernels::{Compute, Gradients, LossError};
use protocol::{Loss, Precision, Recipe};
use tch::{Device, Kind, Tensor};

use crate::loss;
use crate::model::{Clip, Inputs};

/// How a step computes its loss.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StepOptions {
    /// Who computes it.
    pub loss: Loss,
    /// Type of the fused loss's products.
    pub compute: Compute,
    /// Parts that the towers take the batch in.
    pub accum_freq: u64,
}

impl StepOptions {
    /// As a recipe says. Under `amp_bf16` a GPU multiplies embeddings as float16, at bfloat16's speed and with an
    /// eighth of its error; a CPU stays with float32.
    pub fn new(recipe: &Recipe, device: Device) -> StepOptions {
        let half = recipe.precision == Precision::AmpBf16 && device.is_cuda();
        let compute = if half { Compute::Fp16 } else { Compute::Automatic };
        StepOptions { loss: recipe.loss, compute, accum_freq: recipe.accum_freq }
    }
}

/// L of a batch, shape (), and its gradient for every parameter in order. With `ranks` the batch is that of all of
/// them: `inputs` are this one's pairs, L is that of all, and gradients are to be summed over ranks.
pub fn gradients(
    model: &Clip,
    inputs: &Inputs,
    options: StepOptions,
    ranks: Option<&dyn Comm>,
) -> Result<(Tensor, Vec<Tensor>), LossError> {
    if options.accum_freq > 1 || ranks.is_some() {
        return in_parts(model, inputs, options, ranks);
    }
    let (images, texts) = model.forward(inputs);
    let loss = loss::contrastive(&images, &texts, model.logits(), options)?;
    let walked = with_bias(model, loss.shallow_clone());
    let gradients = Tensor::run_backward(&[&walked], &leaves(model), false, false);
    Ok((loss.detach(), gradients))
}

/// The same with the activations of one part alone in memory (Gao et al. 2021, "Scaling deep contrastive learning batch
/// size under memory limited setup", section 3): embeddings of all parts without a graph; the loss and its gradients
/// with respect to them, once; then each part again, walked back from those. Costs one more forward pass of the towers.
/// They draw no random numbers, so the second pass sees what the first saw. One part alone keeps its activations, and
/// needs no second pass: that is a rank's share of a batch that is not taken in parts.
fn in_parts(
    model: &Clip,
    inputs: &Inputs,
    options: StepOptions,
    ranks: Option<&dyn Comm>,
) -> Result<(Tensor, Vec<Tensor>), LossError> {
    let batch = inputs.ends.size()[0];
    let parts = i64::try_from(options.accum_freq).unwrap_or(batch).clamp(1, batch);
    let bounds = (0..parts).map(|part| (batch * part / parts, batch * (part + 1) / parts));
    let mut only = (parts == 1).then(|| model.forward(inputs));
    let (images, texts) = if let Some((images, texts)) = &only {
        (images.detach(), texts.detach())
    } else {
        let (images, texts): (Vec<Tensor>, Vec<Tensor>) =
            tch::no_grad(|| bounds.clone().map(|(from, to)| model.forward(&inputs.rows(from, to))).unzip());
        (Tensor::cat(&images, 0), Tensor::cat(&texts, 0))
    };
    let of_features = loss::contrastive_gradients(&images, &texts, model.logits(), options, ranks)?;

    let leaves = leaves(model);
    let mut sums: Vec<Tensor> = Vec::new();
    for (from, to) in bounds {
        let rows = |gradient: &Option<Tensor>| gradient.as_ref().map(|gradient| gradient.narrow(0, from, to - from));
        let part = Gradients {
            loss: of_features.loss.shallow_clone(),
            images: rows(&of_features.images),
            texts: rows(&of_features.texts),
            scale: None,
            bias: None,
        };
        let (images, texts) = only.take().unwrap_or_else(|| model.forward(&inputs.rows(from, to)));
        // The scale does not enter the surrogate; times 0 it has a gradient for `run_backward` all the same.
        let surrogate = part.surrogate(&images, &texts) + &model.logit_scale * 0.0;
        let gradients = Tensor::run_backward(&[&with_bias(model, surrogate)], &leaves, false, false);
        if sums.is_empty() {
            sums = gradients;
        } else {
            sums.iter_mut().zip(&gradients).for_each(|(sum, gradient)| drop(sum.g_add_(gradient)));
        }
    }
    for (parameter, sum) in model.parameters.list.iter().zip(&mut sums) {
        let direct = match parameter.name.as_str() {
            "logit_scale" => &of_features.scale,
            "logit_bias" => &of_features.bias,
            _ => &None,
        };
        if let Some(gradient) = direct {
            *sum = gradient.view(&parameter.shape[..]);
        }
    }
    Ok((of_features.loss, sums))
}

/// A parameter that the loss does not depend on has the gradient 0, but `run_backward` has to find it.
fn with_bias(model: &Clip, loss: Tensor) -> Tensor {
    match &model.logit_bias {
        Some(bias) => loss + bias.sum(Kind::Float) * 0.0,
        None => loss,
    }
}

fn leaves(model: &Clip) -> Vec<&Tensor> {
    model.parameters.list.iter().map(|parameter| &parameter.tensor).collect()
}
#[cfg(test)]
mod tests {
    use protocol::ModelConfig;

    use super::*;

    /// A small model and 12 pairs; captions of different lengths.
    fn model_and_inputs() -> (Clip, Inputs) {
        let (_, json) = protocol::shipped_model("cpu-w32-l2").expect("shipped");
        let config: ModelConfig = serde_json::from_str(json).expect("a model");
        let model = Clip::new(&config, Precision::Fp32, 3, Device::Cpu);
        tch::manual_seed(5);
        let float = (Kind::Float, Device::Cpu);
        let patches = Tensor::randn([12, 17, model.image.patch_values()], float);
        let tokens = Tensor::randint_low(1, 4000, [12, 9], (Kind::Int64, Device::Cpu));
        let ends = Tensor::from_slice(&[3_i64, 8, 2, 5, 8, 1, 7, 4, 6, 2, 8, 3]);
        (model, Inputs { patches, tokens, ends, kept: None })
    }

    #[test]
    fn parts_and_either_loss_give_the_gradients_of_the_whole_batch() {
        let (model, inputs) = model_and_inputs();
        let options = |loss, accum_freq| StepOptions { loss, compute: Compute::Automatic, accum_freq };
        let (loss, gradients) = gradients(&model, &inputs, options(Loss::Reference, 1), None).expect("a step");
        for (by, parts) in
            [(Loss::Fused, 1), (Loss::Fused, 2), (Loss::Fused, 3), (Loss::Fused, 12), (Loss::Reference, 4)]
        {
            let (found, parted) = super::gradients(&model, &inputs, options(by, parts), None).expect("a step");
            let off = (&found - &loss).abs().double_value(&[]) / loss.double_value(&[]);
            assert!(off < 1e-6, "{by:?} in {parts} parts: loss {off}");
            assert_eq!(parted.len(), gradients.len());
            let norm = |all: &[Tensor]| all.iter().map(|x| x.square().sum(Kind::Double).double_value(&[])).sum::<f64>();
            let apart: Vec<Tensor> = parted.iter().zip(&gradients).map(|(a, b)| a - b).collect();
            let off = (norm(&apart) / norm(&gradients)).sqrt();
            assert!(off < 1e-6, "{by:?} in {parts} parts: gradients {off}");
            for ((parameter, a), b) in model.parameters.list.iter().zip(&apart).zip(&gradients) {
                let (off, size) = (norm(&[a.shallow_clone()]).sqrt(), norm(&[b.shallow_clone()]).sqrt());
                assert!(off <= 1e-5 * size + 1e-8, "{by:?} in {parts} parts: {} {off} of {size}", parameter.name);
            }
        }
    }
}
