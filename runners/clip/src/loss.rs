//! InfoNCE, the contrastive loss of CLIP (Radford et al. 2021, figure 3; `open_clip/loss.py`, `ClipLoss`).
//!
//! With unit embeddings u_i (images) and v_j (texts), s = exp(logit_scale) and logits l_ij = s u_i . v_j,
//! L = 1/2 [ mean_i (logsumexp_j l_ij - l_ii) + mean_j (logsumexp_i l_ij - l_jj) ].

use kernels::comm::Comm;
use kernels::{Gradients, LossError, Options, Wanted};
use protocol::Loss;
use tch::{Kind, Tensor};

use crate::ranks;
use crate::step::StepOptions;

/// L of a batch, shape (), float32, with autograd: embeddings (B, E) and `logit_scale` ().
pub fn info_nce(
    images: &Tensor,
    texts: &Tensor,
    logit_scale: &Tensor,
    options: StepOptions,
) -> Result<Tensor, LossError> {
    match options.loss {
        Loss::Fused => kernels::clip_loss(images, texts, &logit_scale.exp(), &fused(options)),
        Loss::Reference => Ok(reference(images, texts, logit_scale)),
    }
}

/// L and its gradients with respect to embeddings that carry no graph, and to `logit_scale` (as `scale`). Over ranks:
/// L of all pairs, gradients for this rank's embeddings, and its part of the scale's.
pub fn info_nce_gradients(
    images: &Tensor,
    texts: &Tensor,
    logit_scale: &Tensor,
    options: StepOptions,
    comm: Option<&dyn Comm>,
) -> Result<Gradients, LossError> {
    match options.loss {
        Loss::Fused => {
            let scale = logit_scale.detach().exp();
            let mut found = kernels::clip_gradients(images, texts, &scale, &fused(options), Wanted::ALL, comm)?;
            found.scale = found.scale.map(|slope| slope * scale);
            Ok(found)
        }
        Loss::Reference => {
            let leaf = |tensor: &Tensor| tensor.detach().set_requires_grad(true);
            // Every rank computes all of it, and takes what is its own: the scale's gradient is rank 0's.
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
    }
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
            let value = info_nce(&images, &texts, &scale, options).expect("a loss");
            let walked = Tensor::run_backward(&[&value], &[&images, &texts, &scale], false, false);
            let found =
                info_nce_gradients(&images.detach(), &texts.detach(), &scale, options, None).expect("gradients");
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
}
