//! Collectives among the ranks of a data-parallel group. Beside `kernels`, which has it as `kernels::comm`, so that a
//! program that uses this alone is not linked to libtorch where a whole workspace is built.
//!
//! | `Comm` | where values lie | what for |
//! |---|---|---|
//! | [`Single`] | host | a world of one: nothing moves |
//! | [`TcpRing`] | host | CPU ranks; sums in rank order, the same bits on every rank and in every run |
//! | [`Nccl`] | CUDA device | GPU ranks; NCCL chooses the order of a sum |
//!
//! Every rank calls the same collectives in the same order. `counts` are elements, not rows or bytes: a gather of
//! features takes `rows[r] * width` for rank r.

mod buffer;
mod error;
mod nccl;
mod single;
mod tcp_ring;

pub use buffer::{Buffer, BufferMut, Device, DeviceMut, Element};
pub use error::CommError;
pub use nccl::Nccl;
pub use single::Single;
pub use tcp_ring::TcpRing;

/// How values of the ranks become one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Op {
    /// Sum. Integers wrap.
    Sum,
    /// Largest. A NaN of any rank is the result (not so in NCCL, whose maximum may drop it); of +0 and -0 the one of
    /// the lowest rank.
    Max,
}

/// One rank's end of a group of `world` ranks.
///
/// A collective returns when this rank's part is done: its result is in place, and what it sent may be written over.
/// With device buffers that holds in the order of their stream, not of the host.
pub trait Comm: Send {
    /// This rank, from 0 to `world - 1`.
    fn rank(&self) -> usize;

    /// Ranks in the group.
    fn world(&self) -> usize;

    /// `recv` = the shares of all ranks one after another, in rank order.
    ///
    /// `send`: this rank's share, `counts[rank]` elements; `recv`: the sum of `counts`. `counts` is the same on every
    /// rank, and an entry may be 0.
    fn all_gather(&self, send: Buffer<'_>, recv: BufferMut<'_>, counts: &[usize]) -> Result<(), CommError>;

    /// `recv` = this rank's share of the elementwise sum of every rank's `send`.
    ///
    /// `send`: the sum of `counts`, shares one after another in rank order; `recv`: `counts[rank]` elements. `counts`
    /// is the same on every rank, and an entry may be 0.
    fn reduce_scatter_sum(&self, send: Buffer<'_>, recv: BufferMut<'_>, counts: &[usize]) -> Result<(), CommError>;

    /// `values` = the elementwise `op` of every rank's `values`, which have one length.
    fn all_reduce(&self, values: BufferMut<'_>, op: Op) -> Result<(), CommError>;

    /// `values` = rank `root`'s `values`; they have one length.
    fn broadcast(&self, values: BufferMut<'_>, root: usize) -> Result<(), CommError>;

    /// Returns when every rank has called it. Does not wait for streams of a device.
    fn barrier(&self) -> Result<(), CommError>;
}

/// Shares of `len` elements as even as can be: the first `len % world` ranks take one more. Empty for a world of 0.
pub fn even_counts(len: usize, world: usize) -> Vec<usize> {
    (0..world).map(|rank| len / world + usize::from(rank < len % world)).collect()
}

/// Where each share starts.
fn starts(counts: &[usize]) -> Vec<usize> {
    counts
        .iter()
        .scan(0, |end, count| {
            let start = *end;
            *end += count;
            Some(start)
        })
        .collect()
}

/// A buffer's name in a message, and its elements.
type Named = (&'static str, usize);

/// Checks that `counts` fit the world, this rank's `share` and the `whole`.
fn check_counts(
    (doing, rank): (&str, usize),
    world: usize,
    counts: &[usize],
    share: Named,
    whole: Named,
) -> Result<(), CommError> {
    let wrong = |wrong: String| Err(CommError::Argument { doing: doing.to_owned(), rank, wrong });
    if counts.len() != world {
        return wrong(format!("`counts` has {} entries; it needs one for each of the {world} ranks", counts.len()));
    }
    let total = counts.iter().try_fold(0_usize, |sum, count| sum.checked_add(*count));
    if total != Some(whole.1) {
        let total = total.map_or("more than can be counted".to_owned(), |total| total.to_string());
        return wrong(format!(
            "`counts` {counts:?} add up to {total} elements and `{}` has {}; they must be equal",
            whole.0, whole.1
        ));
    }
    if counts[rank] != share.1 {
        return wrong(format!(
            "`counts[{rank}]` is {} and `{}` has {} elements; they must be equal",
            counts[rank], share.0, share.1
        ));
    }
    Ok(())
}

/// Checks that both buffers hold one type of element.
fn check_elements((doing, rank): (&str, usize), send: &Buffer<'_>, recv: &BufferMut<'_>) -> Result<(), CommError> {
    if send.element() == recv.element() && send.is_device() == recv.is_device() {
        return Ok(());
    }
    let wrong = format!("`send` is {send} and `recv` is {recv}; they must be of one type and in one place");
    Err(CommError::Argument { doing: doing.to_owned(), rank, wrong })
}

/// Checks that there is a rank `root`.
fn check_root(rank: usize, world: usize, root: usize) -> Result<(), CommError> {
    if root < world {
        return Ok(());
    }
    let wrong = format!("the root is rank {root}; allowed are 0 to {}", world - 1);
    Err(CommError::Argument { doing: "broadcast".to_owned(), rank, wrong })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_even_and_cover_all() {
        assert_eq!(even_counts(10, 4), [3, 3, 2, 2]);
        assert_eq!(even_counts(2, 3), [1, 1, 0]);
        assert_eq!(even_counts(0, 2), [0, 0]);
        assert!(even_counts(5, 0).is_empty());
        assert_eq!(starts(&[3, 0, 2]), [0, 3, 3]);
    }

    #[test]
    fn counts_that_do_not_fit_are_named() {
        let check = |counts: &[usize], share, whole| {
            check_counts(("all_gather", 1), 2, counts, ("send", share), ("recv", whole))
                .map_err(|error| error.to_string())
        };
        assert_eq!(check(&[2, 3], 3, 5), Ok(()));
        for (counts, share, whole, says) in [
            (&[5][..], 5, 5, "`counts` has 1 entries; it needs one for each of the 2 ranks"),
            (&[2, 3], 3, 6, "`counts` [2, 3] add up to 5 elements and `recv` has 6"),
            (&[2, 3], 2, 5, "`counts[1]` is 3 and `send` has 2 elements"),
            (&[usize::MAX, 3], 3, 2, "more than can be counted"),
        ] {
            let error = check(counts, share, whole).expect_err("does not fit");
            assert!(error.starts_with("all_gather on rank 1: ") && error.contains(says), "{error}");
        }
    }
}
