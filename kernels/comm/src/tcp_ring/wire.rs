//! Connections to every other rank, and values over them: both directions at once, piece by piece, by a deadline.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::OnceLock;
use std::thread;
use std::time::{Duration, Instant};

use super::values::Value;

/// Bytes that go to or come from one rank before it is the next one's turn.
const PIECE_BYTES: usize = 128 << 10;
/// What an idle connection takes in without its reader: so much is sent from the calling thread.
const SMALL_BYTES: usize = 8 << 10;

/// When an operation has to be over.
#[derive(Debug, Clone, Copy)]
pub(super) struct Deadline {
    at: Instant,
    pub(super) allowed: Duration,
}

impl Deadline {
    pub(super) fn after(allowed: Duration) -> Self {
        const FAR: Duration = Duration::from_hours(365 * 24);
        Self { at: Instant::now() + allowed.min(FAR), allowed }
    }

    /// What is left, if anything.
    pub(super) fn left(self) -> Option<Duration> {
        Some(self.at.saturating_duration_since(Instant::now())).filter(|left| !left.is_zero())
    }
}

/// Why bytes did not pass.
#[derive(Debug, Clone)]
pub(super) enum Trouble {
    Late,
    Gone(String),
    /// This rank's own system, not the peer.
    System(String),
}

/// Trouble and the rank it was met with.
pub(super) type WireError = (usize, Trouble);

/// Fills `bytes`.
pub(super) fn read(mut stream: &TcpStream, mut bytes: &mut [u8], deadline: Deadline) -> Result<(), Trouble> {
    while !bytes.is_empty() {
        let left = deadline.left().ok_or(Trouble::Late)?;
        stream.set_read_timeout(Some(left)).map_err(|error| Trouble::System(error.to_string()))?;
        match stream.read(bytes) {
            Ok(0) => return Err(Trouble::Gone("it closed the connection".to_owned())),
            Ok(count) => bytes = &mut bytes[count..],
            Err(error) => retry(&error)?,
        }
    }
    Ok(())
}

/// Sends all of `bytes`.
pub(super) fn write(mut stream: &TcpStream, mut bytes: &[u8], deadline: Deadline) -> Result<(), Trouble> {
    while !bytes.is_empty() {
        let left = deadline.left().ok_or(Trouble::Late)?;
        stream.set_write_timeout(Some(left)).map_err(|error| Trouble::System(error.to_string()))?;
        match stream.write(bytes) {
            Ok(count) => bytes = &bytes[count..],
            Err(error) => retry(&error)?,
        }
    }
    Ok(())
}

/// Whether to try again: the deadline is looked at before every try.
fn retry(error: &std::io::Error) -> Result<(), Trouble> {
    match error.kind() {
        ErrorKind::Interrupted | ErrorKind::WouldBlock | ErrorKind::TimedOut => Ok(()),
        _ => Err(Trouble::Gone(error.to_string())),
    }
}

/// Puts the values of a piece where they are wanted: as many as the piece has.
pub(super) type Fill<'a, T> = &'a mut dyn FnMut(&mut [T]) -> Result<(), WireError>;

/// A connection to every other rank.
#[derive(Debug)]
pub(super) struct Wires {
    pub(super) rank: usize,
    /// By rank; none to itself.
    streams: Vec<Option<TcpStream>>,
}

impl Wires {
    pub(super) fn new(rank: usize, streams: Vec<Option<TcpStream>>) -> Self {
        Self { rank, streams }
    }

    pub(super) fn world(&self) -> usize {
        self.streams.len()
    }

    /// The other ranks, first the one after this one.
    pub(super) fn peers(&self) -> impl Iterator<Item = usize> {
        let (rank, world) = (self.rank, self.world());
        (1..world).map(move |step| (rank + step) % world)
    }

    pub(super) fn read(&self, peer: usize, bytes: &mut [u8], deadline: Deadline) -> Result<(), WireError> {
        let stream = self.stream(peer)?;
        read(stream, bytes, deadline).map_err(|trouble| (peer, trouble))
    }

    pub(super) fn write(&self, peer: usize, bytes: &[u8], deadline: Deadline) -> Result<(), WireError> {
        let stream = self.stream(peer)?;
        write(stream, bytes, deadline).map_err(|trouble| (peer, trouble))
    }

    fn stream(&self, peer: usize) -> Result<&TcpStream, WireError> {
        self.streams[peer].as_ref().ok_or_else(|| (peer, Trouble::System("there is no connection to it".to_owned())))
    }

    /// Ends all connections. Whoever waits on one, here or at its other end, wakes with an error.
    pub(super) fn shut(&self) {
        for stream in self.streams.iter().flatten() {
            // It may be closed already, which is what is wanted.
            let _ = stream.shutdown(Shutdown::Both);
        }
    }

    /// Sends `outgoing[r]` to rank r while `incoming[r]` values come from it. `take(r, at, count, fill)` is called for
    /// each piece in rank order, this rank's own `outgoing` in its turn: `fill` puts the `count` values, `at` values
    /// after the start, where `take` wants them.
    ///
    /// Sender and receiver are two threads, unless little is sent. They cannot block each other for good, however
    /// small the buffers in between: every rank receives piece by piece and in rank order, so of all pieces on their
    /// way the one with the least (piece, sending rank) is always wanted by its receiver.
    pub(super) fn exchange<T: Value>(
        &self,
        outgoing: &[&[T]],
        incoming: &[usize],
        deadline: Deadline,
        take: impl FnMut(usize, usize, usize, Fill<'_, T>) -> Result<(), WireError>,
    ) -> Result<(), WireError> {
        let most = self.peers().map(|peer| size_of_val(outgoing[peer])).max().unwrap_or(0);
        if most <= SMALL_BYTES {
            self.send(outgoing, deadline)?;
            return self.receive(outgoing[self.rank], incoming, deadline, take);
        }
        // What fails first is the cause; the other thread then fails because the connections were ended.
        let first = OnceLock::new();
        let settle = |outcome: Result<(), WireError>| {
            if let Err(error) = outcome {
                first.get_or_init(|| error);
                self.shut();
            }
        };
        thread::scope(|scope| {
            let sender = thread::Builder::new().name("comm-send".to_owned());
            match sender.spawn_scoped(scope, || settle(self.send(outgoing, deadline))) {
                Ok(_) => settle(self.receive(outgoing[self.rank], incoming, deadline, take)),
                Err(error) => settle(Err((self.rank, Trouble::System(format!("no thread to send from: {error}"))))),
            }
        });
        first.into_inner().map_or(Ok(()), Err)
    }

    fn send<T: Value>(&self, outgoing: &[&[T]], deadline: Deadline) -> Result<(), WireError> {
        let step = PIECE_BYTES / size_of::<T>();
        let longest = self.peers().map(|peer| outgoing[peer].len()).max().unwrap_or(0);
        for at in (0..longest).step_by(step) {
            for peer in self.peers() {
                let Some(rest) = outgoing[peer].get(at..).filter(|rest| !rest.is_empty()) else { continue };
                self.write(peer, bytemuck::cast_slice(&rest[..step.min(rest.len())]), deadline)?;
            }
        }
        Ok(())
    }

    fn receive<T: Value>(
        &self,
        own: &[T],
        incoming: &[usize],
        deadline: Deadline,
        mut take: impl FnMut(usize, usize, usize, Fill<'_, T>) -> Result<(), WireError>,
    ) -> Result<(), WireError> {
        let step = PIECE_BYTES / size_of::<T>();
        let len = |rank: usize| if rank == self.rank { own.len() } else { incoming[rank] };
        let longest = (0..self.world()).map(len).max().unwrap_or(0);
        for at in (0..longest).step_by(step) {
            for rank in 0..self.world() {
                let count = len(rank).saturating_sub(at).min(step);
                if count == 0 {
                    continue;
                }
                take(rank, at, count, &mut |place| {
                    assert_eq!(place.len(), count, "room for a piece");
                    if rank == self.rank {
                        place.copy_from_slice(&own[at..at + count]);
                        return Ok(());
                    }
                    self.read(rank, bytemuck::cast_slice_mut(place), deadline)
                })?;
            }
        }
        Ok(())
    }
}
