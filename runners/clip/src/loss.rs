//! The contrastive losses. With unit embeddings u_i (images) and v_j (texts), s = exp(logit_scale), logits
//! l_ij = s u_i . v_j, b = logit_bias and B pairs:
//!
//! InfoNCE (Radford et al. 2021, figure 3; `open_clip/loss.py`, `ClipLoss`):
//! L = 1/2 [ mean_i (logsumexp_j l_ij - l_ii) + mean_j (logsumexp_i l_ij - l_jj) ].
//!
//! The sigmoid loss (Zhai et al. 2023, section 3.1; `SigLipLoss`):
//! L = 1/B sum_ij softplus(-z_ij (l_ij + b)), z_ij = 1 for i = j and -1 else.

use kernels::comm::Comm;
use kernels::{Gradients, LossError, Options, Wanted};
use protocol::Loss;
use tch::{Kind, Tensor};

use crate::ranks;
use crate::step::StepOptions;

/// What logits are made of beside features: parameters of the model.
#[derive(Debug, Clone, Copy)]
pub struct LogitParameters<'a> {
    /// ln s, shape ().
    pub scale: &'a Tensor,
    /// b, shape (); SigLIP needs it, InfoNCE does not depend on it.
    pub bias: Option<&'a Tensor>,
}

impl<'a> LogitParameters<'a> {
    fn bias(self) -> Result<&'a Tensor, LossError> {
        self.bias.ok_or_else(|| LossError::Rejected("the sigmoid loss needs a model with `init_logit_bias`".to_owned()))
    }
}

/// L of a batch, shape (), float32, with autograd: embeddings (B, E).
pub fn contrastive(
    images: &Tensor,
    texts: &Tensor,
    logits: LogitParameters<'_>,
    options: StepOptions,
) -> Result<Tensor, LossError> {
    match options.loss {
        Loss::Fused => kernels::clip_loss(images, texts, &logits.scale.exp(), &fused(options)),
        Loss::Siglip => kernels::siglip_loss(images, texts, &logits.scale.exp(), logits.bias()?, &fused(options)),
        Loss::Reference => Ok(reference(images, texts, logits.scale)),
    }
}

/// L and its gradients with respect to embeddings that carry no graph, to `logit_scale` (as `scale`) and to
/// `logit_bias`. Over ranks: L of all pairs, gradients for this rank's embeddings, and its parts of the others.
pub fn contrastive_gradients(
    images: &Tensor,
    texts: &Tensor,
    logits: LogitParameters<'_>,
    options: StepOptions,
    comm: Option<&dyn Comm>,
) -> Result<Gradients, LossError> {
    let scale = logits.scale.detach().exp();
    let mut found = match options.loss {
        Loss::Fused => kernels::clip_gradients(images, texts, &scale, &fused(options), Wanted::ALL, comm)?,
        Loss::Siglip => {
            let bias = logits.bias()?.detach();
            kernels::siglip_gradients(images, texts, &scale, &bias, &fused(options), Wanted::ALL, comm)?
        }
        Loss::Reference => return reference_gradients(images, texts, logits.scale, comm),
    };
    found.scale = found.scale.map(|slope| slope * scale);
    Ok(found)
}

/// Every rank computes all of it, and takes what is its own: the scale's gradient is rank 0's.
fn reference_gradients(
    images: &Tensor,
    texts: &Tensor,
    logit_scale: &Tensor,
    comm: Option<&dyn Comm>,
) -> Result<Gradients, LossError> {
    let leaf = |tensor: &Tensor| tensor.detach().set_requires_grad(true);
    let all = |rows: &Tensor| comm.map_or(Ok((rows.shallow_clone(), 0)), |comm| ranks::gather_rows(comm, rows));
    let ((all_images, from), (all_texts, _)) = (all(images)?, all(texts)?);
    let leaves = [leaf(&all_images), leaf(&all_texts), leaf(logit_scale)];
    let loss = reference(&leaves[0], &leaves[1], &leaves[2]);
    let mut gradients = Tensor::run_backward(&[&loss], &leaves, false, false).into_iter();
    let mut own = |rows: &Tensor| gradients.next().map(|all| all.narrow(0, from, rows.size()[0]));
    let (images, texts) = (own(images), own(texts));
    let scale = gradients.next().map(|scale| if from == 0 { scale } else { scale.zeros_like() });
    Ok(Gradients { loss: loss.detach(), images, texts, scale, bias: None })
}

fn fused(options: StepOptions) -> Options<'static> {
    Options { compute: options.compute, ..Options::default() }
}

/// L by the library's operators: all logits, their exponentials and their gradients in memory.
pub fn reference(images: &Tensor, texts: &Tensor, logit_scale: &Tensor) -> Tensor {
    pair_losses(images, texts, logit_scale).mean(Kind::Float)
}

/// Each pair's part of L, shape (B): half its image-to-text and half its text-to-image cross entropy.
pub fn pair_losses(images: &Tensor, texts: &Tensor, logit_scale: &Tensor) -> Tensor {
    let logits = (images * logit_scale.exp()).matmul(&texts.tr());
    let matched = logits.diagonal(0, 0, 1);
    (logits.logsumexp(&[1_i64][..], false) + logits.logsumexp(&[0_i64][..], false)) * 0.5 - matched
}

/// Each image's part of the sigmoid loss, shape (B): the sum over all texts.
pub fn sigmoid_losses(images: &Tensor, texts: &Tensor, logit_scale: &Tensor, logit_bias: &Tensor) -> Tensor {
    let logits = (images * logit_scale.exp()).matmul(&texts.tr()) + logit_bias;
    // softplus(-z l) is softplus(l) for all, less l for the pairs: softplus(-l) = softplus(l) - l.
    logits.softplus().sum_dim_intlist(&[1_i64][..], false, Kind::Float) - logits.diagonal(0, 0, 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parameters::{Declaration, Init, Parameters};

    /// L and its three gradients, by both of its implementations, against the plain reference.
    #[test]
    fn agrees_with_the_plain_reference() {
        let declare = |name: &str| Declaration { name: name.into(), shape: vec![7, 5], init: Init::Normal(1.0) };
        let drawn = Parameters::new(vec![declare("images"), declare("texts")], 3, tch::Device::Cpu);
        let scale = Tensor::from(2.5_f32).set_requires_grad(true);
        let (images, texts) = (drawn.get("images"), drawn.get("texts"));
        let plain = |t: &Tensor| Vec::<f64>::try_from(t.to_kind(Kind::Double).flatten(0, -1)).expect("f64");
        let expected = kernels::reference::info_nce(&plain(&images), &plain(&texts), 7, 2.5_f64);
        let near = |a: f64, b: f64| (a - b).abs() < 1e-5 * (1.0 + b.abs());
        for loss in [Loss::Fused, Loss::Reference] {
            let options = StepOptions { loss, compute: kernels::Compute::Automatic, accum_freq: 1 };
            let logits = LogitParameters { scale: &scale, bias: None };
            let value = contrastive(&images, &texts, logits, options).expect("a loss");
            let walked = Tensor::run_backward(&[&value], &[&images, &texts, &scale], false, false);
            let found =
                contrastive_gradients(&images.detach(), &texts.detach(), logits, options, None).expect("gradients");
            let direct = [found.images, found.texts, found.scale].map(|gradient| gradient.expect("wanted"));
            for (loss, gradients) in [(value, walked), (found.loss, direct.into())] {
                assert!(near(loss.double_value(&[]), expected.loss));
                let pairs = [(&gradients[0], &expected.image_gradient), (&gradients[1], &expected.text_gradient)];
                for (ours, reference) in pairs {
                    assert!(plain(ours).iter().zip(reference).all(|(a, b)| near(*a, *b)));
                }
                assert!(near(gradients[2].double_value(&[]), expected.logit_scale_gradient));
            }
        }
    }

    /// The sigmoid loss and its four gradients, both ways, against the plain reference.
    #[test]
    fn the_sigmoid_loss_agrees_with_the_plain_reference() {
        let declare = |name: &str| Declaration { name: name.into(), shape: vec![7, 5], init: Init::Normal(1.0) };
        let drawn = Parameters::new(vec![declare("images"), declare("texts")], 3, tch::Device::Cpu);
        let (scale, bias) = (Tensor::from(0.5_f32), Tensor::from(-3.0_f32));
        let (scale, bias) = (scale.set_requires_grad(true), bias.set_requires_grad(true));
        let (images, texts) = (drawn.get("images"), drawn.get("texts"));
        let plain = |t: &Tensor| Vec::<f64>::try_from(t.to_kind(Kind::Double).flatten(0, -1)).expect("f64");
        let (left, right) = (plain(&images), plain(&texts));
        let problem =
            kernels::reference::Problem { images: &left, texts: &right, depth: 5, scale: f64::from(0.5_f32).exp() };
        let expected = kernels::reference::siglip(&problem, -3.0, None);
        let near = |a: f64, b: f64| (a - b).abs() < 1e-5 * (1.0 + b.abs());
        let options = StepOptions { loss: Loss::Siglip, compute: kernels::Compute::Automatic, accum_freq: 1 };
        let logits = LogitParameters { scale: &scale, bias: Some(&bias) };
        let value = contrastive(&images, &texts, logits, options).expect("a loss");
        let walked = Tensor::run_backward(&[&value], &[&images, &texts, &scale, &bias], false, false);
        let found = contrastive_gradients(&images.detach(), &texts.detach(), logits, options, None).expect("gradients");
        let direct = [found.images, found.texts, found.scale, found.bias].map(|gradient| gradient.expect("wanted"));
        for (loss, gradients) in [(value, walked), (found.loss, direct.into())] {
            assert!(near(loss.double_value(&[]), expected.loss));
            for (ours, reference) in [(&gradients[0], &expected.images), (&gradients[1], &expected.texts)] {
                assert!(plain(ours).iter().zip(reference).all(|(a, b)| near(*a, *b)));
            }
            assert!(near(gradients[2].double_value(&[]), expected.scale * problem.scale));
            assert!(near(gradients[3].double_value(&[]), expected.bias));
        }
        let parts = sigmoid_losses(&images, &texts, &scale, &bias);
        assert!(near(parts.mean(Kind::Double).double_value(&[]), expected.loss));
        let without = contrastive(&images, &texts, LogitParameters { scale: &scale, bias: None }, options);
        assert!(without.expect_err("no bias").to_string().contains("init_logit_bias"));
    }
}
