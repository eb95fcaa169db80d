//! Collectives over TCP, for ranks on CPUs.
//!
//! Every rank has a connection to every other, and a step of an exchange goes round the ring: rank r sends to r + 1,
//! r + 2, ... in turn, so that no rank is sent to by all at once. With W ranks, N bytes in the whole and even shares
//! a rank sends, and receives as much:
//!
//! | collective | bytes a rank sends | how |
//! |---|---|---|
//! | all_gather | (W - 1) N / W | its share to all |
//! | reduce_scatter_sum | (W - 1) N / W | each share to its owner, who sums |
//! | all_reduce | 2 (W - 1) N / W | a reduce_scatter, then an all_gather |
//! | broadcast | root (W - 1) N, others 0 | to all |
//! | barrier | 0 | |
//!
//! and a header of 40 bytes to every other rank in each. That is what the textbook ring moves (Patarasuk and Yuan
//! 2009, "Bandwidth optimal all-reduce algorithms for clusters of workstations"); its sums start at another rank for
//! each share, though. Here the owner of a share adds rank 0 + rank 1 + ... in that order, so a sum has the same bits
//! on every rank, in every run, and as a plain loop over the ranks.
//!
//! Nothing is encrypted and nobody proves who they are: for networks whose hosts trust each other.

mod call;
mod rendezvous;
mod values;
mod wire;

use std::cell::{Cell, RefCell};
use std::net::TcpListener;
use std::time::Duration;

use super::{
    Buffer, BufferMut, Comm, CommError, Element, Op, check_counts, check_elements, check_root, even_counts, starts,
};
use call::{Call, Kind, agree, digest};
use values::Value;
use wire::{Deadline, Fill, Trouble, WireError, Wires};

/// One rank's end of a group that talks over TCP.
///
/// After an error other than [`CommError::Argument`] and [`CommError::Unsupported`] the connections are ended, which
/// gives every other rank an error as well, and each later call gives [`CommError::Broken`].
#[derive(Debug)]
pub struct TcpRing {
    wires: Wires,
    timeout: Duration,
    /// Collectives so far.
    number: Cell<u64>,
    /// The error that ended the connections.
    broken: RefCell<Option<String>>,
}

impl TcpRing {
    /// Joins the group whose rank 0 is at `address` (`host:port`), and returns when all `world` ranks have.
    ///
    /// `timeout` is for this call as a whole, and for each collective later: it has to cover what the slowest rank
    /// computes before it comes. Rank 0 listens at `address`: a numeric one or `localhost` as it is; for another name
    /// on all interfaces, since a host may know its own name as a loopback address. Connections by anything that is
    /// no rank are dropped; a rank that does not fit (another world, a rank taken) fails the whole group at once.
    pub fn connect(rank: usize, world: usize, address: &str, timeout: Duration) -> Result<Self, CommError> {
        let deadline = Deadline::after(timeout);
        let make = || match rank {
            _ if world == 0 || rank >= world => {
                Err(format!("there is no rank {rank} in a world of {world}: ranks are 0 to world - 1"))
            }
            0 if world == 1 => Ok(Wires::new(0, vec![None])),
            0 => rendezvous::host(&rendezvous::listen(address)?, world, deadline),
            _ => rendezvous::join(rank, world, address, deadline),
        };
        Self::start(rank, world, address, timeout, make)
    }

    /// Rank 0 of a group, with a socket that listens already: bound to port 0, say, whose number the others are told.
    pub fn host(listener: &TcpListener, world: usize, timeout: Duration) -> Result<Self, CommError> {
        let address = listener.local_addr().map_or_else(|_| "its socket".to_owned(), |address| address.to_string());
        let make = || match world {
            0 => Err("a world has at least 1 rank".to_owned()),
            1 => Ok(Wires::new(0, vec![None])),
            _ => rendezvous::host(listener, world, Deadline::after(timeout)),
        };
        Self::start(0, world, &address, timeout, make)
    }

    /// Joins the group that the environment names, as torch's launchers set it: `RANK`, `WORLD_SIZE`, `MASTER_ADDR`
    /// and `MASTER_PORT`.
    ///
    /// Under torchrun (`TORCHELASTIC_USE_AGENT_STORE=True`) its agent listens at that port, and the next one is used.
    pub fn from_env(timeout: Duration) -> Result<Self, CommError> {
        let (rank, world, address) = rendezvous::environment(|name| std::env::var(name).ok())
            .map_err(|wrong| CommError::Environment { wrong })?;
        Self::connect(rank, world, &address, timeout)
    }

    /// The same group, with another limit for each collective from now on.
    #[must_use]
    pub fn with_timeout(self, timeout: Duration) -> Self {
        Self { timeout, ..self }
    }

    fn start(
        rank: usize,
        world: usize,
        address: &str,
        timeout: Duration,
        make: impl FnOnce() -> Result<Wires, String>,
    ) -> Result<Self, CommError> {
        let wires =
            make().map_err(|wrong| CommError::Rendezvous { rank, world, address: address.to_owned(), wrong })?;
        let ring = Self::over(wires, timeout);
        ring.barrier()?;
        Ok(ring)
    }

    fn over(wires: Wires, timeout: Duration) -> Self {
        Self { wires, timeout, number: Cell::new(0), broken: RefCell::new(None) }
    }

    /// Enters `call` with all ranks, then does this rank's part.
    fn collective(
        &self,
        call: Call,
        part: impl FnOnce(&Wires, Deadline) -> Result<(), WireError>,
    ) -> Result<(), CommError> {
        let number = self.number.get() + 1;
        let doing = || format!("{call} (collective {number})");
        let rank = self.rank();
        if let Some(first) = self.broken.borrow().as_ref() {
            return Err(CommError::Broken { doing: doing(), rank, first: first.clone() });
        }
        self.number.set(number);
        let deadline = Deadline::after(self.timeout);
        let outcome = match agree(&self.wires, call, number, deadline) {
            Ok(Some(other)) => {
                Err(CommError::Disagreement { doing: doing(), rank, peer: other.peer, theirs: other.theirs })
            }
            agreed => agreed.and_then(|_| part(&self.wires, deadline)).map_err(|(peer, trouble)| match trouble {
                Trouble::Late => CommError::Timeout { doing: doing(), rank, peer, allowed: deadline.allowed },
                Trouble::Gone(cause) => CommError::Gone { doing: doing(), rank, peer, cause },
                Trouble::System(cause) => CommError::System { doing: doing(), rank, cause },
            }),
        };
        if let Err(error) = &outcome {
            self.wires.shut();
            *self.broken.borrow_mut() = Some(error.to_string());
        }
        outcome
    }

    fn gather<T: Value>(&self, send: &[T], recv: &mut [T], counts: &[usize]) -> Result<(), CommError> {
        let call = Call { kind: Kind::AllGather, element: T::ELEMENT, len: recv.len(), counts: digest(counts) };
        let starts = starts(counts);
        self.collective(call, |wires, deadline| {
            wires.exchange(&vec![send; counts.len()], counts, deadline, |from, at, count, fill| {
                fill(&mut recv[starts[from] + at..][..count])
            })
        })
    }

    fn reduce_scatter<T: Value>(&self, send: &[T], recv: &mut [T], counts: &[usize]) -> Result<(), CommError> {
        let call = Call { kind: Kind::ReduceScatterSum, element: T::ELEMENT, len: send.len(), counts: digest(counts) };
        let shares: Vec<&[T]> =
            starts(counts).into_iter().zip(counts).map(|(start, count)| &send[start..start + count]).collect();
        self.collective(call, |wires, deadline| {
            let incoming = vec![recv.len(); counts.len()];
            let mut sums = Sums::new(recv, T::sum);
            wires.exchange(&shares, &incoming, deadline, |from, at, count, fill| sums.add(from, at, count, fill))
        })
    }

    fn reduce<T: Value>(&self, values: &mut [T], op: Op) -> Result<(), CommError> {
        match op {
            Op::Sum => self.reduce_by(values, op, T::sum),
            Op::Max => self.reduce_by(values, op, T::max),
        }
    }

    fn reduce_by<T: Value>(&self, values: &mut [T], op: Op, both: impl Fn(T, T) -> T) -> Result<(), CommError> {
        let (rank, world) = (self.rank(), self.world());
        let call = Call { kind: Kind::AllReduce(op), element: T::ELEMENT, len: values.len(), counts: 0 };
        let counts = even_counts(values.len(), world);
        let starts = starts(&counts);
        let (before, rest) = values.split_at_mut(starts[rank]);
        let (own, after) = rest.split_at_mut(counts[rank]);
        // Where a share lies in `before`, or else in `after`.
        let past = starts[rank] + counts[rank];
        self.collective(call, |wires, deadline| {
            let ours = own.to_vec();
            let shares: Vec<&[T]> = (0..world)
                .map(|to| match to.cmp(&rank) {
                    std::cmp::Ordering::Less => &before[starts[to]..][..counts[to]],
                    std::cmp::Ordering::Equal => ours.as_slice(),
                    std::cmp::Ordering::Greater => &after[starts[to] - past..][..counts[to]],
                })
                .collect();
            let incoming = vec![own.len(); world];
            let mut sums = Sums::new(own, &both);
            wires.exchange(&shares, &incoming, deadline, |from, at, count, fill| sums.add(from, at, count, fill))?;

            let mut shares = vec![&*own; world];
            shares[rank] = &[];
            wires.exchange(&shares, &counts, deadline, |from, at, count, fill| {
                let whole = if from < rank { &mut before[starts[from]..] } else { &mut after[starts[from] - past..] };
                fill(&mut whole[at..][..count])
            })
        })
    }

    fn send_from_root<T: Value>(&self, values: &mut [T], root: usize) -> Result<(), CommError> {
        let call = Call { kind: Kind::Broadcast { root }, element: T::ELEMENT, len: values.len(), counts: 0 };
        let (rank, world) = (self.rank(), self.world());
        self.collective(call, |wires, deadline| {
            if rank == root {
                let mut shares = vec![&*values; world];
                shares[rank] = &[];
                return wires.exchange(&shares, &vec![0; world], deadline, |_, _, _, _| Ok(()));
            }
            let mut incoming = vec![0; world];
            incoming[root] = values.len();
            wires.exchange::<T>(&vec![&[][..]; world], &incoming, deadline, |_, at, count, fill| {
                fill(&mut values[at..][..count])
            })
        })
    }

    fn unsupported(&self, doing: &str, element: Element) -> CommError {
        CommError::Unsupported {
            doing: doing.to_owned(),
            rank: self.rank(),
            element,
            place: "device",
            allowed: "a TcpRing moves f32, f64 and i64 on the host: copy them there, or use Nccl",
        }
    }
}

/// What the ranks' values add up to, in the ranks' order.
struct Sums<'a, T, F> {
    so_far: &'a mut [T],
    both: F,
    /// A piece that is to be added.
    piece: Vec<T>,
}

impl<'a, T: Value, F: Fn(T, T) -> T> Sums<'a, T, F> {
    fn new(so_far: &'a mut [T], both: F) -> Self {
        Sums { so_far, both, piece: Vec::new() }
    }

    /// At `at`: `both` of what is there and rank `from`'s `count` values, of which rank 0's come first.
    fn add(&mut self, from: usize, at: usize, count: usize, fill: Fill<'_, T>) -> Result<(), WireError> {
        let so_far = &mut self.so_far[at..][..count];
        if from == 0 {
            return fill(so_far);
        }
        self.piece.resize(count, T::zeroed());
        fill(&mut self.piece)?;
        for (sum, next) in so_far.iter_mut().zip(&self.piece) {
            *sum = (self.both)(*sum, *next);
        }
        Ok(())
    }
}

impl Comm for TcpRing {
    fn rank(&self) -> usize {
        self.wires.rank
    }

    fn world(&self) -> usize {
        self.wires.world()
    }

    fn all_gather(&self, send: Buffer<'_>, recv: BufferMut<'_>, counts: &[usize]) -> Result<(), CommError> {
        let doing = ("all_gather", self.rank());
        check_elements(doing, &send, &recv)?;
        check_counts(doing, self.world(), counts, ("send", send.len()), ("recv", recv.len()))?;
        match (send, recv) {
            (Buffer::F32(send), BufferMut::F32(recv)) => self.gather(send, recv, counts),
            (Buffer::F64(send), BufferMut::F64(recv)) => self.gather(send, recv, counts),
            (Buffer::I64(send), BufferMut::I64(recv)) => self.gather(send, recv, counts),
            (send, _) => Err(self.unsupported(doing.0, send.element())),
        }
    }

    fn reduce_scatter_sum(&self, send: Buffer<'_>, recv: BufferMut<'_>, counts: &[usize]) -> Result<(), CommError> {
        let doing = ("reduce_scatter_sum", self.rank());
        check_elements(doing, &send, &recv)?;
        check_counts(doing, self.world(), counts, ("recv", recv.len()), ("send", send.len()))?;
        match (send, recv) {
            (Buffer::F32(send), BufferMut::F32(recv)) => self.reduce_scatter(send, recv, counts),
            (Buffer::F64(send), BufferMut::F64(recv)) => self.reduce_scatter(send, recv, counts),
            (Buffer::I64(send), BufferMut::I64(recv)) => self.reduce_scatter(send, recv, counts),
            (send, _) => Err(self.unsupported(doing.0, send.element())),
        }
    }

    fn all_reduce(&self, values: BufferMut<'_>, op: Op) -> Result<(), CommError> {
        match values {
            BufferMut::F32(values) => self.reduce(values, op),
            BufferMut::F64(values) => self.reduce(values, op),
            BufferMut::I64(values) => self.reduce(values, op),
            BufferMut::Device(device) => Err(self.unsupported("all_reduce", device.element)),
        }
    }

    fn broadcast(&self, values: BufferMut<'_>, root: usize) -> Result<(), CommError> {
        check_root(self.rank(), self.world(), root)?;
        match values {
            BufferMut::F32(values) => self.send_from_root(values, root),
            BufferMut::F64(values) => self.send_from_root(values, root),
            BufferMut::I64(values) => self.send_from_root(values, root),
            BufferMut::Device(device) => Err(self.unsupported("broadcast", device.element)),
        }
    }

    fn barrier(&self) -> Result<(), CommError> {
        self.collective(Call::barrier(), |_, _| Ok(()))
    }
}

#[cfg(test)]
mod tests;
