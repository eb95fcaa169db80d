//! The losses on tensors.

use std::ptr;

use tch::Tensor;

use crate::comm::{Comm, CommError};
use crate::ffi::{self, Inputs, TensorPointer, owned, pointer};
use crate::group;

/// What both towers are multiplied in. Sums are float64 and the loss is float32 (float64 of `Fp64`) in every case.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Compute {
    /// The type of the features.
    #[default]
    Automatic,
    /// float32, without TF32.
    Fp32,
    /// bfloat16 products, float32 sums.
    Bf16,
    /// float16 products, float32 sums: eight times as precise as bfloat16, features below 65,504. On the CPU float32.
    Fp16,
    /// float64.
    Fp64,
}

/// What a loss depends on beside features.
#[derive(Debug, Clone)]
pub struct Options<'a> {
    /// int64 (B): pairs with equal ids are captions of one image and are right for one another; a pair with a negative
    /// id is left out, as if it were not in the batch. `None`: each pair is its own.
    pub ids: Option<&'a Tensor>,
    /// Share of every target that is spread over all pairs, in [0, 1]; InfoNCE alone.
    pub label_smoothing: f64,
    /// Type of the products.
    pub compute: Compute,
    /// Memory for what grows as B x B: within it each logit is computed once, beyond it twice. 1 GiB.
    pub budget_bytes: u64,
    /// Ends with an error that names the row if a feature or the scale is NaN or infinite. Waits for the device.
    pub check_finite: bool,
}

impl Default for Options<'_> {
    fn default() -> Self {
        Options {
            ids: None,
            label_smoothing: 0.0,
            compute: Compute::Automatic,
            budget_bytes: 1 << 30,
            check_finite: false,
        }
    }
}

/// Gradients to compute; each of the towers costs one matrix product.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "four gradients, each wanted or not")]
pub struct Wanted {
    /// dL/d images.
    pub images: bool,
    /// dL/d texts.
    pub texts: bool,
    /// dL/d scale.
    pub scale: bool,
    /// dL/d bias.
    pub bias: bool,
}

impl Wanted {
    /// All of them.
    pub const ALL: Wanted = Wanted { images: true, texts: true, scale: true, bias: true };
    /// The loss alone.
    pub const NONE: Wanted = Wanted { images: false, texts: false, scale: false, bias: false };

    fn bits(self) -> i32 {
        let bit = |yes, value| if yes { value } else { 0 };
        bit(self.images, 1) | bit(self.texts, 2) | bit(self.scale, 4) | bit(self.bias, 8)
    }
}

/// A loss and those of its gradients that were wanted.
#[derive(Debug)]
pub struct Gradients {
    /// L, shape (), the mean over all pairs (of all ranks).
    pub loss: Tensor,
    /// dL/d images, shape and type of the images.
    pub images: Option<Tensor>,
    /// dL/d texts.
    pub texts: Option<Tensor>,
    /// dL/d scale; with ranks this rank's part: sum them.
    pub scale: Option<Tensor>,
    /// dL/d bias, likewise.
    pub bias: Option<Tensor>,
}

impl Gradients {
    /// A number whose gradients are these: sum of x . dL/dx over features that carry a graph. Walking it back gives
    /// every parameter under the features its gradient of L, however the features were made (Gao et al. 2021,
    /// "Scaling deep contrastive learning batch size under memory limited setup", section 3.2).
    pub fn surrogate(&self, images: &Tensor, texts: &Tensor) -> Tensor {
        let part =
            |x: &Tensor, gradient: &Option<Tensor>| gradient.as_ref().map(|gradient| (x * gradient).sum(x.kind()));
        match (part(images, &self.images), part(texts, &self.texts)) {
            (Some(a), Some(b)) => a + b,
            (Some(one), None) | (None, Some(one)) => one,
            (None, None) => images.new_zeros([0_i64; 0], (images.kind(), images.device())),
        }
    }
}

/// Why there is no loss.
#[derive(Debug, thiserror::Error)]
pub enum LossError {
    /// Inputs that do not fit, or the device's own trouble (memory).
    #[error("{0}")]
    Rejected(String),
    /// Another rank, or the way to it.
    #[error("the ranks could not agree on the loss")]
    Comm(#[from] CommError),
}

/// InfoNCE (Radford et al. 2021, figure 3) with autograd.
///
/// `images`, `texts` (B, D): float32, float64, bfloat16 or float16, any strides, usually of unit length; `scale` one
/// number: the factor on their products (the exponential of `logit_scale`). Gives L, shape (). Its gradients are
/// computed with it; there is no second derivative.
pub fn clip_loss(images: &Tensor, texts: &Tensor, scale: &Tensor, options: &Options) -> Result<Tensor, LossError> {
    loss(images, texts, scale, None, options)
}

/// Pairwise sigmoid loss (Zhai et al. 2023, "Sigmoid loss for language image pre-training", section 3.1) with autograd;
/// as [`clip_loss`], and `bias` one number, -10 at first.
pub fn siglip_loss(
    images: &Tensor,
    texts: &Tensor,
    scale: &Tensor,
    bias: &Tensor,
    options: &Options,
) -> Result<Tensor, LossError> {
    loss(images, texts, scale, Some(bias), options)
}

/// InfoNCE and its gradients, without autograd.
///
/// With `comm` the batch is that of all ranks: each holds `images` and `texts` of its own pairs (numbers of pairs may
/// differ), and gets the loss of all, the gradients of that with respect to its own features, and its part of the
/// scale's: parameters' gradients are to be summed over ranks, never averaged. Text features travel once, column sums
/// (8 B bytes) twice, text gradients once.
pub fn clip_gradients(
    images: &Tensor,
    texts: &Tensor,
    scale: &Tensor,
    options: &Options,
    wanted: Wanted,
    comm: Option<&dyn Comm>,
) -> Result<Gradients, LossError> {
    gradients(images, texts, scale, None, options, wanted, comm)
}

/// The sigmoid loss and its gradients, without autograd; as [`clip_gradients`].
pub fn siglip_gradients(
    images: &Tensor,
    texts: &Tensor,
    scale: &Tensor,
    bias: &Tensor,
    options: &Options,
    wanted: Wanted,
    comm: Option<&dyn Comm>,
) -> Result<Gradients, LossError> {
    gradients(images, texts, scale, Some(bias), options, wanted, comm)
}

fn inputs(images: &Tensor, texts: &Tensor, scale: &Tensor, bias: Option<&Tensor>, options: &Options) -> Inputs {
    let optional = |x: Option<&Tensor>| x.map_or(ptr::null(), pointer);
    Inputs {
        images: pointer(images),
        texts: pointer(texts),
        scale: pointer(scale),
        bias: optional(bias),
        ids: optional(options.ids),
        label_smoothing: options.label_smoothing,
        compute: match options.compute {
            Compute::Automatic => 0,
            Compute::Fp32 => 1,
            Compute::Bf16 => 2,
            Compute::Fp16 => 3,
            Compute::Fp64 => 4,
        },
        check_finite: options.check_finite.into(),
        budget_bytes: i64::try_from(options.budget_bytes).unwrap_or(i64::MAX),
    }
}

#[expect(unsafe_code, reason = "a call into csrc/")]
fn loss(
    images: &Tensor,
    texts: &Tensor,
    scale: &Tensor,
    bias: Option<&Tensor>,
    options: &Options,
) -> Result<Tensor, LossError> {
    let inputs = inputs(images, texts, scale, bias, options);
    let mut out: TensorPointer = ptr::null_mut();
    // SAFETY: pointers to tensors that outlive the call; on success `out` is a tensor of ours.
    let code = unsafe { ffi::sweep_loss(&raw const inputs, &raw mut out) };
    match owned(out) {
        Some(loss) if code == 0 => Ok(loss),
        _ => Err(LossError::Rejected(ffi::last_error())),
    }
}

#[expect(unsafe_code, reason = "a call into csrc/")]
fn gradients(
    images: &Tensor,
    texts: &Tensor,
    scale: &Tensor,
    bias: Option<&Tensor>,
    options: &Options,
    wanted: Wanted,
    comm: Option<&dyn Comm>,
) -> Result<Gradients, LossError> {
    let inputs = inputs(images, texts, scale, bias, options);
    let mut out: [TensorPointer; 5] = [ptr::null_mut(); 5];
    let mut call = |group: *const ffi::Group| {
        // SAFETY: pointers to tensors and to a group that outlive the call; what comes out is ours.
        unsafe { ffi::sweep_gradients(&raw const inputs, group, wanted.bits(), out.as_mut_ptr()) }
    };
    let code = match comm {
        None => call(ptr::null()),
        Some(comm) => group::with(comm, call)?,
    };
    let [loss, images, texts, scale, bias] = out.map(owned);
    match loss {
        Some(loss) if code == 0 => Ok(Gradients { loss, images, texts, scale, bias }),
        _ => Err(LossError::Rejected(ffi::last_error())),
    }
}
