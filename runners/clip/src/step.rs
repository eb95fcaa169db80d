//! The loss of a batch and its gradients, in one pass through the towers or in parts.

use kernels::comm::Comm;
use kernels::{Compute, Gradients, LossError};
use protocol::{Loss, Precision, Recipe};
use tch::{Device, Tensor};

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

/// Takes the gradient of a parameter, by its index, from one part of a batch. What all parts give is to be added up.
pub type Take<'a> = dyn FnMut(usize, &Tensor, Part) + Send + 'a;

/// A part of a batch that is walked back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Part {
    /// None came before.
    pub first: bool,
    /// None comes after.
    pub last: bool,
}

/// L of a batch, shape (), and its gradient for every parameter in order.
pub fn gradients(model: &Clip, inputs: &Inputs, options: StepOptions) -> Result<(Tensor, Vec<Tensor>), LossError> {
    if options.accum_freq == 1 {
        let (images, texts) = model.forward(inputs);
        let loss = loss::contrastive(&images, &texts, model.logits(), options)?;
        let walked = with_bias(model, loss.shallow_clone());
        let gradients = Tensor::run_backward(&[&walked], &leaves(model), false, false);
        return Ok((loss.detach(), gradients));
    }
    let mut sums: Vec<Tensor> = leaves(model).iter().map(|_| Tensor::new()).collect();
    let loss = Forward::new(model, inputs, options, None)?.backward(&mut |index, gradient, part| {
        if part.first {
            sums[index] = gradient.shallow_clone();
        } else {
            let _ = sums[index].g_add_(gradient);
        }
    })?;
    Ok((loss, sums))
}

/// A batch whose loss is known, and which is not walked back yet.
///
/// The activations of one part of it alone are in memory (Gao et al. 2021, "Scaling deep contrastive learning batch
/// size under memory limited setup", section 3): embeddings of all parts without a graph; the loss and its gradients
/// with respect to them, once; then each part again, walked back from those. Costs one more forward pass of the
/// towers. They draw no random numbers, so the second pass sees what the first saw. One part alone keeps its
/// activations, and needs no second pass: that is a rank's share of a batch that is not taken in parts.
pub struct Forward<'a> {
    model: &'a Clip,
    inputs: &'a Inputs,
    parts: i64,
    /// Embeddings with their graph, of a batch in one part.
    only: Option<(Tensor, Tensor)>,
    of_features: Gradients,
}

impl<'a> Forward<'a> {
    /// With `ranks` the batch is that of all of them: `inputs` are this one's pairs, and L is that of all.
    pub fn new(
        model: &'a Clip,
        inputs: &'a Inputs,
        options: StepOptions,
        ranks: Option<&dyn Comm>,
    ) -> Result<Forward<'a>, LossError> {
        let batch = inputs.ends.size()[0];
        let parts = i64::try_from(options.accum_freq).unwrap_or(batch).clamp(1, batch);
        let only = (parts == 1).then(|| model.forward(inputs));
        let (images, texts) = if let Some((images, texts)) = &only {
            (images.detach(), texts.detach())
        } else {
            let (images, texts): (Vec<Tensor>, Vec<Tensor>) =
                tch::no_grad(|| bounds(batch, parts).map(|(from, to)| model.forward(&inputs.rows(from, to))).unzip());
            (Tensor::cat(&images, 0), Tensor::cat(&texts, 0))
        };
        let of_features = loss::contrastive_gradients(&images, &texts, model.logits(), options, ranks)?;
        Ok(Forward { model, inputs, parts, only, of_features })
    }

    /// Walks back, part after part, and gives L, shape (). Of several ranks each gives its own gradients, which are to
    /// be summed over ranks.
    pub fn backward(mut self, take: &mut Take<'_>) -> Result<Tensor, LossError> {
        let (model, of_features) = (self.model, &self.of_features);
        let leaves = leaves(model);
        // The loss's own for `logit_scale` and `logit_bias`, which stand beside the towers.
        let list = &model.parameters.list;
        let direct = list.iter().map(|parameter| {
            let gradient = match parameter.name.as_str() {
                "logit_scale" => &of_features.scale,
                "logit_bias" => &of_features.bias,
                _ => &None,
            };
            gradient.as_ref().map(|gradient| gradient.view(&parameter.shape[..]))
        });
        let mut direct: Vec<Option<Tensor>> = direct.collect();
        for (from, to) in bounds(self.inputs.ends.size()[0], self.parts) {
            let rows =
                |gradient: &Option<Tensor>| gradient.as_ref().map(|gradient| gradient.narrow(0, from, to - from));
            let of_part = Gradients {
                loss: of_features.loss.shallow_clone(),
                images: rows(&of_features.images),
                texts: rows(&of_features.texts),
                scale: None,
                bias: None,
            };
            let (images, texts) = self.only.take().unwrap_or_else(|| model.forward(&self.inputs.rows(from, to)));
            // The scale does not enter the surrogate; times 0 it has a gradient all the same.
            let surrogate = of_part.surrogate(&images, &texts) + &model.logit_scale * 0.0;
            drop((images, texts, of_part));
            let part = Part { first: from == 0, last: to == self.inputs.ends.size()[0] };
            kernels::backward(&with_bias(model, surrogate), &leaves, &mut |index, gradient| {
                let direct = direct[index].take();
                take(index, direct.as_ref().unwrap_or(gradient), part);
            })?;
        }
        Ok(self.of_features.loss)
    }
}

/// First row and the one after the last of each part.
fn bounds(batch: i64, parts: i64) -> impl Iterator<Item = (i64, i64)> {
    (0..parts).map(move |part| (batch * part / parts, batch * (part + 1) / parts))
}

/// A parameter that the loss does not depend on has the gradient 0, but `run_backward` has to find it.
fn with_bias(model: &Clip, loss: Tensor) -> Tensor {
    match &model.logit_bias {
        Some(bias) => loss + bias.sum(bias.kind()) * 0.0,
        None => loss,
    }
}

fn leaves(model: &Clip) -> Vec<&Tensor> {
    model.parameters.list.iter().map(|parameter| &parameter.tensor).collect()
}

#[cfg(test)]
mod tests {
    use protocol::ModelConfig;
    use tch::Kind;

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

    /// An optimiser clips them in place, so none may be scaled twice.
    #[test]
    fn gradients_share_no_memory() {
        let (model, inputs) = model_and_inputs();
        for accum_freq in [1, 2] {
            let options = StepOptions { loss: Loss::Fused, compute: Compute::Automatic, accum_freq };
            let (_, gradients) = gradients(&model, &inputs, options).expect("a step");
            let mut places: Vec<(usize, usize)> = gradients
                .iter()
                .map(|gradient| (gradient.data_ptr() as usize, gradient.numel() * gradient.kind().elt_size_in_bytes()))
                .collect();
            places.sort_unstable();
            assert!(places.windows(2).all(|pair| pair[0].0 + pair[0].1 <= pair[1].0), "{accum_freq} parts: {places:?}");
        }
    }

    /// To the bit, of both ways back, with every kind of block.
    #[test]
    fn gradients_are_the_same_with_checkpointing() {
        let shipped = |name: &str| {
            let (_, json) = protocol::shipped_model(name).expect("shipped");
            serde_json::from_str::<ModelConfig>(json).expect("a model")
        };
        let mut scaled = shipped("cpu-w32-l2");
        (scaled.vision_cfg.ls_init_value, scaled.text_cfg.ls_init_value) = (Some(0.1), Some(0.1));
        let mut with_class_token = shipped("cpu-w32-l2");
        (with_class_token.custom_text, with_class_token.text_cfg.embed_cls) = (true, true);
        with_class_token.text_cfg.context_length = 9;
        for (kind, config) in [("plain", shipped("cpu-w32-l2")), ("scaled", scaled), ("class", with_class_token)] {
            for precision in [Precision::Fp32, Precision::AmpBf16] {
                let mut model = Clip::new(&config, precision, 3, Device::Cpu);
                let (_, inputs) = model_and_inputs();
                for accum_freq in [1, 3] {
                    let options = StepOptions { loss: Loss::Fused, compute: Compute::Automatic, accum_freq };
                    let mut found = [false, true].map(|on| {
                        model.set_grad_checkpointing(on);
                        let (_, mut all) = gradients(&model, &inputs, options).expect("a step");
                        let forward = Forward::new(&model, &inputs, options, None).expect("a forward pass");
                        let first = all.len();
                        all.extend(model.parameters.list.iter().map(|_| Tensor::new()));
                        let walked = forward.backward(&mut |index, gradient, part| {
                            let sum = &mut all[first + index];
                            *sum = if part.first { gradient.copy() } else { &*sum + gradient };
                        });
                        let _ = walked.expect("a backward pass");
                        all
                    });
                    let (again, plain) = (found[1].drain(..).collect::<Vec<_>>(), found[0].drain(..));
                    for ((a, b), index) in again.iter().zip(plain).zip(0..) {
                        let name = &model.parameters.list[index % model.parameters.list.len()].name;
                        assert!(a.equal(&b), "{kind} {precision:?} {accum_freq}: {name} {}", (a - b).abs().max());
                    }
                }
            }
        }
    }

    #[test]
    fn parts_and_either_loss_give_the_gradients_of_the_whole_batch() {
        let (model, inputs) = model_and_inputs();
        let options = |loss, accum_freq| StepOptions { loss, compute: Compute::Automatic, accum_freq };
        let (loss, gradients) = gradients(&model, &inputs, options(Loss::Reference, 1)).expect("a step");
        for (by, parts) in
            [(Loss::Fused, 1), (Loss::Fused, 2), (Loss::Fused, 3), (Loss::Fused, 12), (Loss::Reference, 4)]
        {
            let (found, parted) = super::gradients(&model, &inputs, options(by, parts)).expect("a step");
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
