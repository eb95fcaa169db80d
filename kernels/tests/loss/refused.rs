//! Inputs that do not fit, and what the errors say of them.

use kernels::{Options, Wanted, clip_gradients, clip_loss, siglip_gradients, siglip_loss};
use tch::{Device, Kind, Tensor};

use crate::support::devices;

/// Inputs of a call, each to be spoilt.
struct Call<'a> {
    images: Tensor,
    texts: Tensor,
    scale: Tensor,
    bias: Option<Tensor>,
    ids: Option<Tensor>,
    options: Options<'a>,
}

impl Call<'_> {
    fn new(device: Device) -> Self {
        let features = || Tensor::ones([4, 3], (Kind::Float, device));
        Call {
            images: features(),
            texts: features(),
            scale: Tensor::from(10_f32).to_device(device),
            bias: None,
            ids: None,
            options: Options::default(),
        }
    }

    /// What the loss and its gradients say: the same.
    fn error(&self) -> String {
        let Call { images, texts, scale, bias, ids, options } = self;
        let options = Options { ids: ids.as_ref(), ..options.clone() };
        let (loss, gradients) = match bias {
            None => (
                clip_loss(images, texts, scale, &options),
                clip_gradients(images, texts, scale, &options, Wanted::ALL, None),
            ),
            Some(bias) => (
                siglip_loss(images, texts, scale, bias, &options),
                siglip_gradients(images, texts, scale, bias, &options, Wanted::ALL, None),
            ),
        };
        let words = loss.map(|_| ()).map_err(|error| error.to_string());
        assert_eq!(words, gradients.map(|_| ()).map_err(|error| error.to_string()));
        words.expect_err("it does not fit")
    }
}

/// What to do to a call, and what its error says then.
type Spoilt = (fn(&mut Call), &'static str);

#[test]
fn errors_say_what_was_wrong_and_what_is_allowed() {
    let spoils: [Spoilt; 20] = [
        (|c| c.images = c.images.reshape([2, 2, 3]), "clip_loss: images must be a matrix (B, D), got 3 dimensions"),
        (|c| c.texts = c.texts.reshape([12]), "clip_loss: texts must be a matrix (B, D), got 1 dimensions"),
        (|c| c.texts = c.texts.narrow(0, 0, 3), "must have one shape (B, D), got [4, 3] and [3, 3]"),
        (|c| c.images = c.images.narrow(1, 0, 2), "must have one shape (B, D), got [4, 2] and [4, 3]"),
        (
            |c| c.images = c.images.to_kind(Kind::Int64),
            "images must be float32, float64, bfloat16 or float16, got Long",
        ),
        (|c| (c.images, c.texts) = (c.images.narrow(1, 0, 0), c.texts.narrow(1, 0, 0)), "a width of at least 1"),
        (
            |c| c.scale = Tensor::ones([2], (Kind::Float, c.images.device())),
            "scale must be one floating-point number, got shape [2] of Float",
        ),
        (
            |c| c.scale = Tensor::ones([1], (Kind::Int64, c.images.device())),
            "scale must be one floating-point number, got shape [1] of Long",
        ),
        (|c| c.options.label_smoothing = 1.5, "clip_loss: label_smoothing must lie in [0, 1], got 1.5"),
        (|c| c.options.label_smoothing = -0.1, "clip_loss: label_smoothing must lie in [0, 1], got -0.1"),
        (|c| c.options.label_smoothing = f64::NAN, "clip_loss: label_smoothing must lie in [0, 1], got nan"),
        (
            |c| c.ids = Some(Tensor::ones([4], (Kind::Int, c.images.device()))),
            "ids must be int64 of shape (B), one for each pair, got Int of shape [4]",
        ),
        (
            |c| c.ids = Some(Tensor::ones([3], (Kind::Int64, c.images.device()))),
            "ids must be int64 of shape (B), one for each pair, got Long of shape [3]",
        ),
        (|c| c.ids = Some(Tensor::ones([4, 1], (Kind::Int64, c.images.device()))), "got Long of shape [4, 1]"),
        (
            |c| (c.bias, c.options.label_smoothing) = (Some(c.scale.shallow_clone()), 0.1),
            "siglip_loss: label_smoothing is not defined for the sigmoid loss; give 0",
        ),
        (
            |c| c.bias = Some(Tensor::ones([2], (Kind::Float, c.images.device()))),
            "siglip_loss: bias must be one floating-point number on",
        ),
        (|c| c.bias = Some(Tensor::from(1_i64).to_device(c.images.device())), "got shape [] of Long"),
        (
            |c| {
                c.options.check_finite = true;
                let _ = c.texts.get(2).fill_(f64::NAN);
            },
            "clip_loss: texts hold 3 numbers that are not finite, the first at row 2; look for",
        ),
        (
            |c| {
                c.options.check_finite = true;
                let _ = c.images.get(1).get(1).fill_(f64::INFINITY);
            },
            "clip_loss: images hold 1 numbers that are not finite, the first at row 1; look for",
        ),
        (
            |c| {
                c.options.check_finite = true;
                c.scale = &c.scale * f64::INFINITY;
            },
            "clip_loss: scale hold 1 numbers that are not finite",
        ),
    ];
    for &device in devices() {
        for (spoil, says) in spoils {
            let mut call = Call::new(device);
            spoil(&mut call);
            let error = call.error();
            assert!(error.contains(says), "it says:   {error}\nit should: {says}");
        }
    }
}

#[test]
fn a_batch_without_pairs_has_a_loss_of_nothing() {
    for &device in devices() {
        let features = Tensor::zeros([0, 3], (Kind::Float, device));
        let scale = Tensor::from(10_f32).to_device(device);
        let found = clip_gradients(&features, &features, &scale, &Options::default(), Wanted::ALL, None);
        let found = found.expect("a loss");
        assert_eq!(found.loss.double_value(&[]).to_bits(), 0);
        assert_eq!(found.images.expect("wanted").size(), [0, 3]);
    }
}
