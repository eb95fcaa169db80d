//! What can go wrong among ranks.

use std::time::Duration;

use super::Element;

/// Why a collective, or the making of a group, failed on this rank.
#[derive(Debug, thiserror::Error)]
pub enum CommError {
    /// What the caller passed does not fit. Nothing was sent: the group can be used on.
    #[error("{doing} on rank {rank}: {wrong}")]
    Argument { doing: String, rank: usize, wrong: String },

    /// This `Comm` does not move such values. Nothing was sent: the group can be used on.
    #[error("{doing} on rank {rank}: values of {element} on the {place} are not supported; {allowed}")]
    Unsupported { doing: String, rank: usize, element: Element, place: &'static str, allowed: &'static str },

    #[error(
        "{doing} on rank {rank}: rank {peer} is gone ({cause}); it ended, or left after an error of its own: see what \
         it said, then start all ranks anew"
    )]
    Gone { doing: String, rank: usize, peer: usize, cause: String },

    #[error(
        "{doing} on rank {rank}: rank {peer} did not do its part within {allowed:?}; it is stuck, has more to compute \
         before this call, or never makes it: see what it does, or allow more time, and start all ranks anew"
    )]
    Timeout { doing: String, rank: usize, peer: usize, allowed: Duration },

    #[error(
        "{doing} on rank {rank}: rank {peer} is in {theirs}; every rank must make the same calls in the same order, \
         with the same element type, lengths and counts"
    )]
    Disagreement { doing: String, rank: usize, peer: usize, theirs: String },

    #[error("{doing} on rank {rank}: the group broke before; start all ranks anew. It broke in {first}")]
    Broken { doing: String, rank: usize, first: String },

    #[error("{doing} on rank {rank}: the system refused: {cause}")]
    System { doing: String, rank: usize, cause: String },

    #[error("making a group of {world}, rank {rank}, at {address}: {wrong}")]
    Rendezvous { rank: usize, world: usize, address: String, wrong: String },

    #[error("reading who this rank is from the environment: {wrong}")]
    Environment { wrong: String },

    #[error(
        "loading NCCL from {library}: {wrong}; install NCCL 2.28 for CUDA 13 (PyPI: nvidia-nccl-cu13) and have its \
         folder in LD_LIBRARY_PATH, or use TcpRing"
    )]
    Library { library: String, wrong: String },

    #[error("{doing} on rank {rank}: NCCL says: {wrong} (code {code}); NCCL_DEBUG=INFO makes it say more")]
    Nccl { doing: String, rank: usize, code: i32, wrong: String },
}
