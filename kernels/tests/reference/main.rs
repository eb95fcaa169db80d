//! The reference losses against hand, high precision, central differences, each other and their symmetries.

mod clip;
mod clustered;
mod properties;
mod siglip;
mod support;
