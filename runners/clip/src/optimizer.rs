//! AdamW over the flat parameter buffer, and the learning rate of a step.
//!
//! Loshchilov & Hutter 2019, algorithm 2, as `torch.optim.AdamW` computes it: with t the number of steps taken,
//!
//! ```text
//! w <- (1 - lr wd) w            (parameters of two or more dimensions only)
//! m <- b1 m + (1 - b1) g        v <- b2 v + (1 - b2) g^2
//! w <- w - lr / (1 - b1^t) m / (sqrt(v / (1 - b2^t)) + eps)
//! ```

use std::ops::Range;

use protocol::{Recipe, Schedule};
use tch::{Device, Kind, Tensor};

use crate::parameters::Parameters;

/// Floats that one thread takes at a time.
const CHUNK: usize = 1 << 16;

/// Below this many floats a second thread costs more than it saves.
const PARALLEL_FLOATS: usize = 1 << 18;

/// State of AdamW: of all parameters, or of this rank's pieces of their buffer ([`AdamW::keep`]).
#[derive(Debug)]
pub struct AdamW {
    /// First moment m, laid out as the parameters.
    pub first: Tensor,
    /// Second moment v, laid out as the parameters.
    pub second: Tensor,
    /// Steps taken, t.
    pub steps: u64,
}

/// The numbers of one step.
#[derive(Debug, Clone, Copy)]
struct StepSize {
    /// lr / (1 - b1^t).
    rate: f64,
    /// 1 / sqrt(1 - b2^t).
    second_scale: f64,
    /// 1 - lr wd.
    decay: f64,
    /// What gradients are multiplied with first: 1 unless the norm is clipped.
    clip: f64,
    betas: [f64; 2],
    eps: f64,
}

impl StepSize {
    /// Of a parameter whose learning rate is `scale` times the step's; at 1 the same to the bit.
    fn scaled(self, scale: f64) -> StepSize {
        StepSize { rate: self.rate * scale, decay: 1.0 - (1.0 - self.decay) * scale, ..self }
    }
}

impl AdamW {
    /// Fresh state.
    pub fn new(parameters: &Parameters) -> AdamW {
        AdamW { first: parameters.zeros_like_flat(), second: parameters.zeros_like_flat(), steps: 0 }
    }

    /// Takes one step with `gradients` in the order of `parameters.list`.
    pub fn step(
        &mut self,
        parameters: &mut Parameters,
        gradients: &[Tensor],
        recipe: &Recipe,
        lr: f64,
        threads: usize,
    ) {
        let size = self.next_size(recipe, lr, || norm(gradients));
        if on_slices(&parameters.flat) {
            self.step_on_slices(parameters, gradients, size, threads);
        } else {
            tch::no_grad(|| self.step_on_tensors(parameters, gradients, size));
        }
    }

    /// Forgets the state of all but these pieces of the parameters' buffer, which go upwards (ZeRO, Rajbhandari et al.
    /// 2020, stage 1).
    pub fn keep(&mut self, pieces: &[Range<usize>]) {
        let piece = |all: &Tensor, piece: &Range<usize>| all.narrow(0, piece.start as i64, piece.len() as i64);
        let own = |all: &Tensor| Tensor::cat(&pieces.iter().map(|own| piece(all, own)).collect::<Vec<_>>(), 0);
        (self.first, self.second) = (own(&self.first), own(&self.second));
    }

    /// The step of [`AdamW::step`] on pieces of the parameters' buffer, whose state alone is kept here. `gradient` is
    /// that of the pieces, one after another; `norm` that of all gradients.
    ///
    /// # Panics
    /// If layers have learning rates of their own: only fine-tuning has those, in one process.
    pub fn step_pieces(
        &mut self,
        parameters: &mut Parameters,
        pieces: &[Range<usize>],
        gradient: &Tensor,
        norm: f64,
        (recipe, lr): (&Recipe, f64),
        threads: usize,
    ) {
        assert!(parameters.lr_scales.is_none(), "one learning rate for all layers");
        let size = self.next_size(recipe, lr, || norm);
        let decayed = parameters.decayed;
        if !on_slices(&parameters.flat) {
            let mut done = 0;
            for piece in pieces {
                let len = piece.len() as i64;
                let own = |all: &Tensor| all.narrow(0, done, len);
                let state = [own(&self.first), own(&self.second)];
                let mut weights = parameters.flat.narrow(0, piece.start as i64, len);
                let decayed = decayed.clamp(piece.start, piece.end) - piece.start;
                tch::no_grad(|| update_tensors(&mut weights, state, decayed, &own(gradient), size, None));
                done += len;
            }
            return;
        }
        let mut weights = floats_mut(&mut parameters.flat);
        let (mut m, mut v) = (floats_mut(&mut self.first), floats_mut(&mut self.second));
        let mut g = floats(gradient);
        let (mut chunks, mut taken) = (Vec::new(), 0);
        for piece in pieces {
            let boundary = decayed.clamp(piece.start, piece.end);
            for (range, decay) in [(piece.start..boundary, size.decay as f32), (boundary..piece.end, 1.0)] {
                let _ = weights.split_off_mut(..range.start - taken);
                taken = range.end;
                let own = [&mut weights, &mut m, &mut v].map(|all| all.split_off_mut(..range.len()));
                let [w, m, v] = own.map(|own| own.expect("pieces go upwards, and have their state"));
                let g = g.split_off(..range.len()).expect("a gradient for each");
                chunks.append(&mut in_chunks(w, m, v, g, decay, size));
            }
        }
        update_all(chunks, gradient.numel(), threads);
    }

    /// Counts a step, and gives its numbers.
    fn next_size(&mut self, recipe: &Recipe, lr: f64, norm: impl FnOnce() -> f64) -> StepSize {
        self.steps += 1;
        let t = self.steps as f64;
        let [b1, b2] = recipe.betas;
        StepSize {
            rate: lr / (1.0 - b1.powf(t)),
            second_scale: (1.0 - b2.powf(t)).sqrt().recip(),
            decay: 1.0 - lr * recipe.weight_decay,
            clip: recipe.grad_clip_norm.map_or(1.0, |largest| (largest / (norm() + 1e-6)).min(1.0)),
            betas: recipe.betas,
            eps: recipe.eps,
        }
    }

    /// One pass over memory; the same result for any number of threads.
    fn step_on_slices(&mut self, parameters: &mut Parameters, gradients: &[Tensor], size: StepSize, threads: usize) {
        let gradients: Vec<Tensor> = gradients.iter().map(Tensor::contiguous).collect();
        let mut weights = floats_mut(&mut parameters.flat);
        let mut first = floats_mut(&mut self.first);
        let mut second = floats_mut(&mut self.second);
        let mut chunks = Vec::new();
        let mut taken = 0;
        for (parameter, gradient) in parameters.list.iter().zip(&gradients) {
            let gap = parameter.offset - taken;
            taken = parameter.offset + parameter.numel;
            let size = size.scaled(parameter.lr_scale);
            let decay = if parameter.offset < parameters.decayed { size.decay as f32 } else { 1.0 };
            let end = gap + parameter.numel;
            let own = [weights.split_off_mut(..end), first.split_off_mut(..end), second.split_off_mut(..end)];
            let [w, m, v] = own.map(|own| &mut own.expect("buffers of one layout")[gap..]);
            chunks.append(&mut in_chunks(w, m, v, floats(gradient), decay, size));
        }
        update_all(chunks, taken, threads);
    }

    fn step_on_tensors(&mut self, parameters: &mut Parameters, gradients: &[Tensor], size: StepSize) {
        let laid_out = parameters.zeros_like_flat();
        parameters.lay_out(gradients, &laid_out);
        let (decayed, scales) = (parameters.decayed, parameters.lr_scales.as_ref());
        let state = [self.first.shallow_clone(), self.second.shallow_clone()];
        update_tensors(&mut parameters.flat, state, decayed, &laid_out, size, scales);
    }
}

/// Whether loops of our own update these weights, or libtorch's operators.
fn on_slices(weights: &Tensor) -> bool {
    weights.device() == Device::Cpu && weights.kind() == Kind::Float
}

/// Of `weights` the first `decayed` decay.
fn update_tensors(
    weights: &mut Tensor,
    [mut first, mut second]: [Tensor; 2],
    decayed: usize,
    gradient: &Tensor,
    size: StepSize,
    scales: Option<&Tensor>,
) {
    let gradient = gradient * size.clip;
    let [b1, b2] = size.betas;
    let mut decayed_part = weights.narrow(0, 0, decayed as i64);
    let _ = match scales {
        None => decayed_part.g_mul_scalar_(size.decay),
        Some(scales) => decayed_part.g_mul_(&(scales.narrow(0, 0, decayed as i64) * (size.decay - 1.0) + 1.0)),
    };
    let _ = first.g_mul_scalar_(b1).g_add_(&(&gradient * (1.0 - b1)));
    let _ = second.g_mul_scalar_(b2).g_add_(&(gradient.square() * (1.0 - b2)));
    let denominator = second.sqrt() * size.second_scale + size.eps;
    let step = &first / denominator * size.rate;
    let _ = match scales {
        None => weights.g_sub_(&step),
        Some(scales) => weights.g_sub_(&(step * scales)),
    };
}

/// Weights, moments and gradient of some floats, the factor that those weights decay by, and the numbers of their step.
type Chunk<'a> = (&'a mut [f32], &'a mut [f32], &'a mut [f32], &'a [f32], f32, StepSize);

fn in_chunks<'a>(
    w: &'a mut [f32],
    m: &'a mut [f32],
    v: &'a mut [f32],
    g: &'a [f32],
    decay: f32,
    size: StepSize,
) -> Vec<Chunk<'a>> {
    let [w, m, v] = [w, m, v].map(|all| all.chunks_mut(CHUNK));
    w.zip(m).zip(v).zip(g.chunks(CHUNK)).map(|(((w, m), v), g)| (w, m, v, g, decay, size)).collect()
}

/// Updates chunks of `total` floats, which no two threads share.
fn update_all(chunks: Vec<Chunk<'_>>, total: usize, threads: usize) {
    if threads < 2 || total < PARALLEL_FLOATS {
        for (w, m, v, g, decay, size) in chunks {
            update(w, m, v, g, decay, size);
        }
        return;
    }
    let mut shares: Vec<(usize, Vec<_>)> = (0..threads).map(|_| (0, Vec::new())).collect();
    for chunk in chunks {
        let lightest = shares.iter_mut().min_by_key(|share| share.0).expect("at least two threads");
        lightest.0 += chunk.0.len();
        lightest.1.push(chunk);
    }
    std::thread::scope(|scope| {
        for (_, share) in shares {
            scope.spawn(move || {
                for (w, m, v, g, decay, size) in share {
                    update(w, m, v, g, decay, size);
                }
            });
        }
    });
}

#[inline]
fn update(w: &mut [f32], m: &mut [f32], v: &mut [f32], g: &[f32], decay: f32, size: StepSize) {
    let [b1, b2] = size.betas.map(|beta| beta as f32);
    let (one_less_b1, one_less_b2) = ((1.0 - size.betas[0]) as f32, (1.0 - size.betas[1]) as f32);
    let (rate, second_scale) = (size.rate as f32, size.second_scale as f32);
    let (eps, clip) = (size.eps as f32, size.clip as f32);
    // A moment that decays for ever sinks into denormals, where arithmetic is a hundred times slower: 0 from there on.
    let normal = |x: f32| if x.abs() < f32::MIN_POSITIVE { 0.0 } else { x };
    for (((w, m), v), g) in w.iter_mut().zip(m).zip(v).zip(g) {
        let g = g * clip;
        *m = normal(b1 * *m + one_less_b1 * g);
        *v = normal(b2 * *v + one_less_b2 * g * g);
        *w = decay * *w - rate * *m / (v.sqrt() * second_scale + eps);
    }
}

/// Euclidean norm over all gradients.
pub fn norm(gradients: &[Tensor]) -> f64 {
    tch::no_grad(|| {
        let squares: Vec<Tensor> = gradients.iter().map(|g| g.square().sum(Kind::Double)).collect();
        Tensor::stack(&squares, 0).sum(Kind::Double).sqrt().double_value(&[])
    })
}

/// Learning rate of the step that follows `step` others (`open_clip_train/scheduler.py`): rises as
/// lr (step + 1) / warmup, then half a cosine to 0, or constant, at the end with a straight line to 0.
pub fn learning_rate(recipe: &Recipe, step: u64, steps: u64) -> f64 {
    let warmup = recipe.warmup_steps(steps);
    if step < warmup {
        return recipe.lr * (step + 1) as f64 / warmup as f64;
    }
    match recipe.schedule {
        Schedule::Constant => recipe.lr,
        Schedule::ConstantCooldown => {
            let cooldown = recipe.cooldown_steps(steps);
            let cooled = (step + cooldown).saturating_sub(steps);
            if cooled == 0 { recipe.lr } else { (1.0 - cooled as f64 / cooldown as f64) * recipe.lr }
        }
        Schedule::Cosine => {
            let done = (step - warmup) as f64 / (steps - warmup) as f64;
            0.5 * (1.0 + (std::f64::consts::PI * done).cos()) * recipe.lr
        }
    }
}

#[expect(unsafe_code, reason = "libtorch gives its memory as a pointer only")]
fn floats(tensor: &Tensor) -> &[f32] {
    assert!(tensor.is_contiguous() && tensor.kind() == Kind::Float && tensor.device() == Device::Cpu);
    // SAFETY: contiguous fp32 in main memory, checked above, alive as long as the tensor is borrowed. Torch keeps
    // unique gradients and buffers: nothing writes to them while this borrow lasts.
    unsafe { std::slice::from_raw_parts(tensor.data_ptr().cast(), tensor.numel()) }
}

#[expect(unsafe_code, reason = "libtorch gives its memory as a pointer only")]
fn floats_mut(tensor: &mut Tensor) -> &mut [f32] {
    assert!(tensor.is_contiguous() && tensor.kind() == Kind::Float && tensor.device() == Device::Cpu);
    // SAFETY: as in `floats`; the leaves that share the parameters' buffer are not touched between backward and
    // forward.
    unsafe { std::slice::from_raw_parts_mut(tensor.data_ptr().cast(), tensor.numel()) }
}

#[cfg(test)]
pub(crate) mod tests {
    use protocol::{Augmentation, Precision};

    use super::*;
    use crate::parameters::{Declaration, Init};

    pub(crate) fn recipe() -> Recipe {
        Recipe {
            global_batch: 10,
            lr: 0.1,
            betas: [0.9, 0.98],
            eps: 1e-6,
            weight_decay: 0.2,
            warmup_samples: 40,
            schedule: Schedule::Cosine,
            cooldown_samples: 0,
            precision: Precision::Fp32,
            loss: protocol::Loss::Fused,
            accum_freq: 1,
            augmentation: Augmentation::None,
            alpha: protocol::Alpha::Drop,
            preprocess: protocol::Preprocess::default(),
            grad_clip_norm: None,
            on_spike: protocol::OnSpike::GoOn,
            checkpoint_every_samples: None,
            keep_checkpoints: None,
            extra: std::collections::BTreeMap::new(),
        }
    }

    fn drawn(seed: u64) -> Parameters {
        let declare = |name: &str, shape: &[i64]| Declaration {
            name: name.into(),
            shape: shape.to_vec(),
            init: Init::Normal(1.0),
        };
        let declared = vec![declare("w", &[700, 401]), declare("v", &[3, 2]), declare("b", &[5])];
        Parameters::new(declared, seed, Device::Cpu)
    }

    #[test]
    fn first_step_by_hand() {
        // With fresh state m / (1 - b1) = g and sqrt(v / (1 - b2)) = |g|: a step of lr towards -sign(g), decay on
        // matrices.
        let mut parameters = drawn(1);
        let gradients: Vec<Tensor> = drawn(2).list.iter().map(|p| p.tensor.detach() + 3.0).collect();
        let before = [parameters.get("v").double_value(&[0, 0]), parameters.get("b").double_value(&[0])];
        AdamW::new(&parameters).step(&mut parameters, &gradients, &recipe(), 0.1, 1);
        assert!((parameters.get("v").double_value(&[0, 0]) - (before[0] * (1.0 - 0.02) - 0.1)).abs() < 1e-5);
        assert!((parameters.get("b").double_value(&[0]) - (before[1] - 0.1)).abs() < 1e-5);
    }

    /// Three steps by the formula in f64, parameter by parameter, against both ways over the flat buffer.
    #[test]
    fn each_layer_has_its_own_learning_rate() {
        let scale = |name: &str| match name {
            "w" => 0.25,
            "v" => 1.0,
            _ => 0.5,
        };
        let gradients: Vec<Vec<Tensor>> =
            (2..5).map(|seed| drawn(seed).list.iter().map(|p| p.tensor.detach()).collect()).collect();
        let mut expected: Vec<Tensor> = drawn(1).list.iter().map(|p| p.tensor.detach().to_kind(Kind::Double)).collect();
        for (index, weight) in expected.iter_mut().enumerate() {
            let name = drawn(1).list[index].name.clone();
            let (mut m, mut v) = (weight.zeros_like(), weight.zeros_like());
            for (taken, of_step) in gradients.iter().enumerate() {
                let (g, t) = (of_step[index].to_kind(Kind::Double), taken as i32 + 1);
                let lr = 0.1 * scale(&name);
                let decay = if name == "b" { 0.0 } else { 0.2 };
                m = m * 0.9 + &g * 0.1;
                v = v * 0.98 + g.square() * 0.02;
                let (m_hat, v_hat) = (&m / (1.0 - 0.9_f64.powi(t)), &v / (1.0 - 0.98_f64.powi(t)));
                *weight = &*weight * (1.0 - lr * decay) - m_hat / (v_hat.sqrt() + 1e-6) * lr;
            }
        }
        for threads in [1, 2, 0] {
            let mut parameters = drawn(1);
            parameters.scale_lr(scale);
            let mut optimizer = AdamW::new(&parameters);
            for of_step in &gradients {
                if threads == 0 {
                    optimizer.steps += 1;
                    let size = unclipped(optimizer.steps);
                    tch::no_grad(|| optimizer.step_on_tensors(&mut parameters, of_step, size));
                } else {
                    optimizer.step(&mut parameters, of_step, &recipe(), 0.1, threads);
                }
            }
            for (parameter, expected) in parameters.list.iter().zip(&expected) {
                let off = (parameter.tensor.detach() - expected).abs().max().double_value(&[]);
                assert!(off < 1e-5, "{} with {threads} threads: {off}", parameter.name);
            }
        }
    }

    /// The numbers of step `t` at a learning rate of 0.1.
    fn unclipped(t: u64) -> StepSize {
        let t = t as f64;
        StepSize {
            rate: 0.1 / (1.0 - 0.9_f64.powf(t)),
            second_scale: (1.0 - 0.98_f64.powf(t)).sqrt().recip(),
            decay: 1.0 - 0.1 * 0.2,
            clip: 1.0,
            betas: [0.9, 0.98],
            eps: 1e-6,
        }
    }

    #[test]
    fn slices_tensors_and_threads_agree() {
        let clipped = Recipe { grad_clip_norm: Some(1.0), ..recipe() };
        let after = |threads: usize| {
            let mut parameters = drawn(1);
            let mut optimizer = AdamW::new(&parameters);
            for seed in 2..5 {
                let gradients: Vec<Tensor> = drawn(seed).list.iter().map(|p| p.tensor.detach()).collect();
                if threads == 0 {
                    let clip = 1.0 / (norm(&gradients) + 1e-6);
                    optimizer.steps += 1;
                    let size = StepSize { clip, ..unclipped(optimizer.steps) };
                    tch::no_grad(|| optimizer.step_on_tensors(&mut parameters, &gradients, size));
                } else {
                    optimizer.step(&mut parameters, &gradients, &clipped, 0.1, threads);
                }
            }
            parameters.flat
        };
        let one = after(1);
        assert!(one.equal(&after(2)), "threads change nothing");
        assert!((one - after(0)).abs().max().double_value(&[]) < 1e-5);
    }

    #[test]
    fn pieces_of_the_buffer_take_the_step_of_the_whole() {
        let gradients: Vec<Tensor> = drawn(2).list.iter().map(|p| p.tensor.detach()).collect();
        let clipped = Recipe { grad_clip_norm: Some(1.0), ..recipe() };
        let mut whole = drawn(1);
        let len = whole.flat.numel();
        let mut optimizer = AdamW::new(&whole);
        (0..3).for_each(|_| optimizer.step(&mut whole, &gradients, &clipped, 0.1, 1));
        let laid_out = whole.zeros_like_flat();
        whole.lay_out(&gradients, &laid_out);
        // Cut within a matrix, at the end of what decays, and within the rest; two owners in turn.
        let bounds = [0, 70_001, whole.decayed, len - 3, len];
        let mut parts = drawn(1);
        for owner in 0..2 {
            let pieces: Vec<_> = bounds.windows(2).skip(owner).step_by(2).map(|cut| cut[0]..cut[1]).collect();
            let own = |all: &Tensor| {
                let piece = |piece: &Range<usize>| all.narrow(0, piece.start as i64, piece.len() as i64);
                Tensor::cat(&pieces.iter().map(piece).collect::<Vec<_>>(), 0)
            };
            let mut state = AdamW::new(&parts);
            state.keep(&pieces);
            for _ in 0..3 {
                state.step_pieces(&mut parts, &pieces, &own(&laid_out), norm(&gradients), (&clipped, 0.1), 2);
            }
            assert!(state.first.equal(&own(&optimizer.first)));
        }
        assert!(parts.flat.equal(&whole.flat));
    }

    #[test]
    fn learning_rate_rises_then_falls_to_zero() {
        let rates: Vec<f64> = (0..12).map(|step| learning_rate(&recipe(), step, 12)).collect();
        assert!((rates[0] - 0.025).abs() < 1e-12 && (rates[3] - 0.1).abs() < 1e-12 && (rates[4] - 0.1).abs() < 1e-12);
        assert!((rates[8] - 0.05).abs() < 1e-12 && rates[11] < 0.005);
        assert!((learning_rate(&Recipe { schedule: Schedule::Constant, ..recipe() }, 11, 12) - 0.1).abs() < 1e-12);
        assert!((learning_rate(&Recipe { warmup_samples: 0, ..recipe() }, 0, 12) - 0.1).abs() < 1e-12);
    }
}
