//! A world of one.

use super::{Buffer, BufferMut, Comm, CommError, Op, check_counts, check_elements, check_root};

/// The only rank. A gather or scatter is a copy, the rest is nothing to do.
#[derive(Debug, Clone, Copy, Default)]
pub struct Single;

impl Single {
    /// `recv = send`.
    fn copy(doing: &str, send: Buffer<'_>, recv: BufferMut<'_>, counts: &[usize]) -> Result<(), CommError> {
        check_elements((doing, 0), &send, &recv)?;
        check_counts((doing, 0), 1, counts, ("send", send.len()), ("recv", recv.len()))?;
        match (send, recv) {
            (Buffer::F32(send), BufferMut::F32(recv)) => recv.copy_from_slice(send),
            (Buffer::F64(send), BufferMut::F64(recv)) => recv.copy_from_slice(send),
            (Buffer::I64(send), BufferMut::I64(recv)) => recv.copy_from_slice(send),
            (send, _) => {
                return Err(CommError::Unsupported {
                    doing: doing.to_owned(),
                    rank: 0,
                    element: send.element(),
                    place: "device",
                    allowed: "in a world of one the share is the whole: use `send` itself, or Nccl",
                });
            }
        }
        Ok(())
    }
}

impl Comm for Single {
    fn rank(&self) -> usize {
        0
    }

    fn world(&self) -> usize {
        1
    }

    fn all_gather(&self, send: Buffer<'_>, recv: BufferMut<'_>, counts: &[usize]) -> Result<(), CommError> {
        Self::copy("all_gather", send, recv, counts)
    }

    fn reduce_scatter_sum(&self, send: Buffer<'_>, recv: BufferMut<'_>, counts: &[usize]) -> Result<(), CommError> {
        Self::copy("reduce_scatter_sum", send, recv, counts)
    }

    fn all_reduce(&self, _values: BufferMut<'_>, _op: Op) -> Result<(), CommError> {
        Ok(())
    }

    fn broadcast(&self, _values: BufferMut<'_>, root: usize) -> Result<(), CommError> {
        check_root(0, 1, root)
    }

    fn barrier(&self) -> Result<(), CommError> {
        Ok(())
    }
}
