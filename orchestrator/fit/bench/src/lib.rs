//! Holds nothing: the benchmark is `benches/fit.rs`.
