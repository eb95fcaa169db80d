//! AdamW over the flat parameter buffer.
//!
//! Loshchilov & Hutter 2019, algorithm 2, as `torch.optim.AdamW` computes it: with t the number of steps taken,
//!
//! ```text
//! w <- (1 - lr wd) w            (parameters of two or more dimensions only)
//! m <- b1 m + (1 - b1) g        v <- b2 v + (1 - b2) g^2
//! w <- w - lr / (1 - b1^t) m / (sqrt(v / (1 - b2^t)) + eps)
//! ```

use std::collections::BTreeMap;
use std::ops::Range;

use kernels::AdamWNumbers;
use protocol::Recipe;
use tch::{Device, Kind, Tensor};

use crate::floats::{floats, floats_mut};
use crate::parameters::{Parameter, Parameters};

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
        self.steps += 1;
        if on_slices(&parameters.flat) {
            let norm = recipe.grad_clip_norm.map_or(0.0, |_| norm(gradients).double_value(&[]));
            self.step_on_slices(parameters, gradients, self.step_size(recipe, lr, norm), threads);
        } else {
            self.step_by_parameter(parameters, gradients, recipe, lr);
        }
    }

    /// The same by libtorch, of a step that is counted already.
    fn step_by_parameter(&self, parameters: &mut Parameters, gradients: &[Tensor], recipe: &Recipe, lr: f64) {
        let own = |all: &Tensor, parameter: &Parameter| all.narrow(0, parameter.offset as i64, parameter.numel as i64);
        let parts = parameters.list.iter().zip(gradients).map(|(parameter, gradient)| Part {
            weights: own(&parameters.flat, parameter),
            gradient: gradient.reshape([-1_i64]),
            first: own(&self.first, parameter),
            second: own(&self.second, parameter),
            decays: parameter.offset < parameters.decayed,
            lr_scale: parameter.lr_scale,
        });
        let norm = recipe.grad_clip_norm.map(|_| norm(gradients));
        self.step_on_tensors(parts, recipe, lr, norm);
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
        assert!(
            parameters.list.iter().all(|one| one.lr_scale.to_bits() == 1_f64.to_bits()),
            "one learning rate for all layers"
        );
        self.steps += 1;
        let decayed = parameters.decayed;
        if !on_slices(&parameters.flat) {
            self.step_by_piece(parameters, pieces, gradient, norm, (recipe, lr));
            return;
        }
        let size = self.step_size(recipe, lr, norm);
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

    /// The same by libtorch, of a step that is counted already.
    fn step_by_piece(
        &self,
        parameters: &mut Parameters,
        pieces: &[Range<usize>],
        gradient: &Tensor,
        norm: f64,
        (recipe, lr): (&Recipe, f64),
    ) {
        let (mut parts, mut taken) = (Vec::new(), 0);
        for piece in pieces {
            let boundary = parameters.decayed.clamp(piece.start, piece.end);
            for (range, decays) in [(piece.start..boundary, true), (boundary..piece.end, false)] {
                if range.is_empty() {
                    continue;
                }
                let own = |all: &Tensor, start: usize| all.narrow(0, start as i64, range.len() as i64);
                parts.push(Part {
                    weights: own(&parameters.flat, range.start),
                    gradient: own(gradient, taken),
                    first: own(&self.first, taken),
                    second: own(&self.second, taken),
                    decays,
                    lr_scale: 1.0,
                });
                taken += range.len();
            }
        }
        let norm = Tensor::full([] as [i64; 0], norm, (Kind::Double, gradient.device()));
        self.step_on_tensors(parts.into_iter(), recipe, lr, Some(norm));
    }

    /// The numbers of the step that was counted last. `norm` is that of all gradients.
    fn step_size(&self, recipe: &Recipe, lr: f64, norm: f64) -> StepSize {
        let t = self.steps as f64;
        let [b1, b2] = recipe.betas;
        StepSize {
            rate: lr / (1.0 - b1.powf(t)),
            second_scale: (1.0 - b2.powf(t)).sqrt().recip(),
            decay: 1.0 - lr * recipe.weight_decay,
            clip: recipe.grad_clip_norm.map_or(1.0, |largest| (largest / (norm + 1e-6)).min(1.0)),
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

    /// libtorch's own step: a few launches on a GPU, which nothing waits for. Gradients must not share memory: those
    /// that are clipped are clipped in place.
    fn step_on_tensors(&self, parts: impl Iterator<Item = Part>, recipe: &Recipe, lr: f64, norm: Option<Tensor>) {
        let clip = recipe.grad_clip_norm.zip(norm).map(|(largest, norm)| {
            let factor = (norm + 1e-6).reciprocal() * largest;
            factor.clamp_max(1.0).to_kind(Kind::Float)
        });
        let mut groups: BTreeMap<(bool, u64), [Vec<Tensor>; 4]> = BTreeMap::new();
        for Part { weights, gradient, first, second, decays, lr_scale } in parts {
            let lists = groups.entry((decays, lr_scale.to_bits())).or_default();
            for (list, tensor) in lists.iter_mut().zip([weights, gradient, first, second]) {
                list.push(tensor);
            }
        }
        for ((decays, lr_scale), lists) in groups {
            let numbers = AdamWNumbers {
                lr: lr * f64::from_bits(lr_scale),
                betas: recipe.betas,
                weight_decay: if decays { recipe.weight_decay } else { 0.0 },
                eps: recipe.eps,
                steps: self.steps,
            };
            kernels::adamw(&lists, numbers, clip.as_ref());
        }
    }
}

/// Weights that one rule updates: views of buffers, of one dimension.
struct Part {
    weights: Tensor,
    gradient: Tensor,
    first: Tensor,
    second: Tensor,
    decays: bool,
    lr_scale: f64,
}

/// Whether loops of our own update these weights, or libtorch's operator.
fn on_slices(weights: &Tensor) -> bool {
    weights.device() == Device::Cpu && weights.kind() == Kind::Float
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

/// Euclidean norm over all gradients, shape (), float64.
pub fn norm(gradients: &[Tensor]) -> Tensor {
    tch::no_grad(|| {
        let squares: Vec<Tensor> = gradients.iter().map(|g| g.square().sum(Kind::Double)).collect();
        Tensor::stack(&squares, 0).sum(Kind::Double).sqrt()
    })
}

#[cfg(test)]
pub(crate) mod tests {
    use protocol::{Augmentation, Precision, Schedule};

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
            grad_checkpointing: false,
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
                    optimizer.step_by_parameter(&mut parameters, of_step, &recipe(), 0.1);
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

    #[test]
    fn slices_tensors_and_threads_agree() {
        let clipped = Recipe { grad_clip_norm: Some(1.0), ..recipe() };
        let after = |threads: usize| {
            let mut parameters = drawn(1);
            let mut optimizer = AdamW::new(&parameters);
            for seed in 2..5 {
                let gradients: Vec<Tensor> = drawn(seed).list.iter().map(|p| p.tensor.detach()).collect();
                if threads == 0 {
                    optimizer.steps += 1;
                    optimizer.step_by_parameter(&mut parameters, &gradients, &clipped, 0.1);
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
        let mut by_libtorch = drawn(1);
        for owner in 0..2 {
            let pieces: Vec<_> = bounds.windows(2).skip(owner).step_by(2).map(|cut| cut[0]..cut[1]).collect();
            let own = |all: &Tensor| {
                let piece = |piece: &Range<usize>| all.narrow(0, piece.start as i64, piece.len() as i64);
                Tensor::cat(&pieces.iter().map(piece).collect::<Vec<_>>(), 0)
            };
            let mut state = AdamW::new(&parts);
            state.keep(&pieces);
            for _ in 0..3 {
                state.step_pieces(
                    &mut parts,
                    &pieces,
                    &own(&laid_out),
                    norm(&gradients).double_value(&[]),
                    (&clipped, 0.1),
                    2,
                );
            }
            assert!(state.first.equal(&own(&optimizer.first)));
            let mut state = AdamW::new(&by_libtorch);
            state.keep(&pieces);
            for _ in 0..3 {
                state.steps += 1;
                let norm = norm(&gradients).double_value(&[]);
                state.step_by_piece(&mut by_libtorch, &pieces, &own(&laid_out), norm, (&clipped, 0.1));
            }
        }
        assert!(parts.flat.equal(&whole.flat));
        assert!((by_libtorch.flat - whole.flat).abs().max().double_value(&[]) < 1e-5);
    }
}
