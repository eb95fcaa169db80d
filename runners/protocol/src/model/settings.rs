//! Settings of towers that are more than a number.

use serde::{Deserialize, Serialize};

/// What stands for the image.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ImagePool {
    /// The class token (of attentional pooling: its first query).
    #[default]
    Tok,
    /// The mean of all others.
    Avg,
}

/// Which token stands for the text.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TextPool {
    /// The first one of the highest number: the end of a text of OpenAI's encoding.
    #[default]
    Argmax,
    /// The first.
    First,
    /// The last of the context, padding or not.
    Last,
    /// The first `eos_id`; the first token where there is none.
    Eos,
}

/// Projection of the text tower.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TextProjection {
    /// A matrix.
    #[default]
    Linear,
    /// None: the tower is as wide as the embedding.
    None,
}

/// `act_kwargs`: arguments of `torch.nn.GELU`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GeluSettings {
    /// How GELU is computed.
    #[serde(default)]
    pub approximate: Approximate,
}

/// How GELU is computed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Approximate {
    /// By the error function.
    #[default]
    None,
    /// By tanh (Hendrycks and Gimpel 2016).
    Tanh,
}

impl Approximate {
    /// As torch calls it.
    pub const fn name(self) -> &'static str {
        match self {
            Approximate::None => "none",
            Approximate::Tanh => "tanh",
        }
    }
}

/// `norm_kwargs`: arguments of `torch.nn.LayerNorm`.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NormSettings {
    /// Added to the variance.
    pub eps: f64,
}

impl Default for NormSettings {
    fn default() -> NormSettings {
        NormSettings { eps: 1e-5 }
    }
}

/// `tokenizer_kwargs`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TokenizerSettings {
    /// How a caption is cleaned; left out: `lower` before OpenAI's encoding, `whitespace` before a tokenizer file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clean: Option<Clean>,
    /// Separators (`[SEP]`) become 0.
    #[serde(default, skip_serializing_if = "super::is_default")]
    pub strip_sep_token: bool,
}

/// Cleaning, after ftfy's repairs and HTML's entities.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Clean {
    /// White space made single, lower case.
    Lower,
    /// White space made single.
    Whitespace,
    /// Lower case, without punctuation, `_` a space (big_vision's).
    Canonicalize,
}
