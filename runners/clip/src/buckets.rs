//! Gradients summed over ranks while the backward pass goes on.
//!
//! The parameters' buffer is cut into buckets, each a stretch of it. As soon as every parameter of a bucket has its
//! gradient, a second thread sums the bucket over ranks, and the walk goes on beside it (Li et al. 2020, "PyTorch
//! Distributed", section 3.2.3). Every bucket is shared out among all ranks (a reduce-scatter), so that no rank is sent
//! to by all at once; a rank's share of the parameters is its piece of each.
//!
//! Ranks take buckets in one order, whatever order their gradients come in: from the end of the matrices backwards,
//! as the walk goes through them, then the vectors, which belong to all layers. So all ranks make the same
//! collectives in the same order, and as the thread has the [`Comm`] to itself, nothing comes between them.

use std::ops::Range;
use std::sync::mpsc::{self, Receiver};
use std::thread;

use kernels::comm::{Comm, CommError, even_counts};
use kernels::{LossError, Mark, buffer, buffer_mut};
use tch::Tensor;

use crate::parameters::{Parameter, Parameters};
use crate::ranks::RanksError;
use crate::step::{Part, Take};

/// Floats of a bucket: an eighth of the parameters, so that what is left after the walk is little, within what is worth
/// a message and what a message is worth waiting for.
const FLOATS: Range<usize> = 1 << 16..1 << 22;

/// A stretch of the parameters' buffer.
#[derive(Debug, PartialEq, Eq)]
struct Bucket {
    /// In the parameters' buffer.
    range: Range<usize>,
    /// Floats of each rank's piece.
    counts: Vec<usize>,
    /// Where this rank's piece lies in the buffer of its own floats.
    own: Range<usize>,
    /// Parameters in it.
    parameters: usize,
}

impl Bucket {
    /// This rank's piece, in the parameters' buffer.
    fn piece(&self, rank: usize) -> Range<usize> {
        let start = self.range.start + self.counts[..rank].iter().sum::<usize>();
        start..start + self.counts[rank]
    }
}

/// The parameters' buffer in buckets, and the gradients in it.
pub struct Buckets {
    rank: usize,
    /// In the order that ranks take them in.
    list: Vec<Bucket>,
    /// Of each parameter: its bucket, and where it lies in the parameters' buffer.
    places: Vec<(usize, Range<usize>)>,
    /// This rank's gradients, laid out as the parameters.
    gradient: Tensor,
    /// Sums over ranks for this rank's pieces, one after another as they lie in the parameters' buffer; of no meaning
    /// once parameters are gathered.
    pub own: Tensor,
}

impl Buckets {
    /// Those of a rank; every rank cuts alike.
    pub fn new(parameters: &Parameters, rank: usize, world: usize) -> Buckets {
        let len = parameters.flat.numel();
        let starts: Vec<usize> = parameters.list.iter().map(|parameter| parameter.offset).collect();
        let cuts = cuts(&starts, parameters.decayed, len, (len / 8).clamp(FLOATS.start, FLOATS.end));
        let mut list: Vec<Bucket> = cuts
            .into_iter()
            .map(|range| Bucket {
                counts: even_counts(range.len(), world),
                own: 0..0,
                parameters: starts.iter().filter(|start| range.contains(start)).count(),
                range,
            })
            .collect();
        let mut by_place: Vec<&mut Bucket> = list.iter_mut().collect();
        by_place.sort_by_key(|bucket| bucket.range.start);
        let mut end = 0;
        for bucket in by_place {
            bucket.own = end..end + bucket.counts[rank];
            end = bucket.own.end;
        }
        let place = |parameter: &Parameter| {
            let bucket = list.iter().position(|bucket| bucket.range.contains(&parameter.offset));
            (bucket.expect("buckets cover the buffer"), parameter.offset..parameter.offset + parameter.numel)
        };
        let places = parameters.list.iter().map(place).collect();
        let gradient = parameters.zeros_like_flat();
        let own = gradient.narrow(0, 0, end as i64).zeros_like();
        Buckets { rank, list, places, gradient, own }
    }

    /// What of the parameters' buffer is this rank's, in order.
    pub fn pieces(&self) -> Vec<Range<usize>> {
        pieces_of(&self.list, self.rank)
    }

    /// Sums over ranks, into `own`, what `walk` gives: each bucket as soon as the last part of the batch has given the
    /// gradients of all its parameters.
    pub fn sum<T>(
        &self,
        comm: &mut dyn Comm,
        walk: impl FnOnce(&mut Take<'_>) -> Result<T, LossError>,
    ) -> Result<T, RanksError> {
        let (sender, whole) = mpsc::channel();
        let [gradient, other] = [0; 2].map(|_| self.gradient.shallow_clone());
        let own = self.own.shallow_clone();
        let (list, places) = (&self.list, &self.places);
        thread::scope(|scope| {
            let summing = thread::Builder::new().name("gradients".to_owned());
            let summing = summing
                .spawn_scoped(scope, move || reduce(list, comm, &other, &own, &whole))
                .map_err(RanksError::Thread)?;
            let mut missing: Vec<usize> = list.iter().map(|bucket| bucket.parameters).collect();
            let mut next = 0;
            let mut take = move |index: usize, of_parameter: &Tensor, part: Part| {
                let (bucket, place) = &places[index];
                let mut sum = stretch(&gradient, place);
                tch::no_grad(|| {
                    let of_parameter = of_parameter.reshape([-1_i64]);
                    if part.first { sum.copy_(&of_parameter) } else { drop(sum.g_add_(&of_parameter)) }
                });
                if part.last {
                    missing[*bucket] -= 1;
                    while missing.get(next) == Some(&0) {
                        // Nobody listens after an error, which is told below.
                        let _ = sender.send(Mark::now(&gradient));
                        next += 1;
                    }
                }
            };
            let walked = walk(&mut take);
            // With the sender: the thread ends when it is done with what it was given.
            drop(take);
            let summed = summing.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            let walked = walked?;
            summed?.wait();
            Ok(walked)
        })
    }

    /// Brings every rank's pieces of a buffer that is laid out as the parameters to all. They travel from `own`.
    pub fn gather_parameters(&self, comm: &dyn Comm, flat: &Tensor) -> Result<(), CommError> {
        copy_pieces(&self.own, flat, self.pieces(), |mut packed, piece| packed.copy_(&piece));
        self.gather_pieces(comm, &self.own, flat)
    }

    /// The whole of what each rank has its pieces of, laid out as `own`. A GPU takes bucket by bucket to where they
    /// belong; a message between processes costs more than a copy, so there all travel in one.
    pub fn gather_pieces(&self, comm: &dyn Comm, pieces: &Tensor, flat: &Tensor) -> Result<(), CommError> {
        if flat.device().is_cuda() {
            self.gather_by_bucket(comm, pieces, flat)
        } else {
            self.gather_at_once(comm, pieces, flat)
        }
    }

    fn gather_by_bucket(&self, comm: &dyn Comm, pieces: &Tensor, flat: &Tensor) -> Result<(), CommError> {
        self.list.iter().try_for_each(|bucket| {
            let own = stretch(pieces, &bucket.own);
            comm.all_gather(buffer(&own), buffer_mut(&mut stretch(flat, &bucket.range)), &bucket.counts)
        })
    }

    fn gather_at_once(&self, comm: &dyn Comm, pieces: &Tensor, flat: &Tensor) -> Result<(), CommError> {
        let of_ranks = || (0..comm.world()).map(|rank| pieces_of(&self.list, rank));
        let counts: Vec<usize> = of_ranks().map(|pieces| pieces.iter().map(ExactSizeIterator::len).sum()).collect();
        let mut packed = flat.empty_like();
        comm.all_gather(buffer(pieces), buffer_mut(&mut packed), &counts)?;
        copy_pieces(&packed, flat, of_ranks().flatten(), |packed, mut piece| piece.copy_(&packed));
        Ok(())
    }
}

/// What of the parameters' buffer is a rank's, in order.
fn pieces_of(list: &[Bucket], rank: usize) -> Vec<Range<usize>> {
    let mut pieces: Vec<_> = list.iter().map(|bucket| bucket.piece(rank)).collect();
    pieces.sort_by_key(|piece| piece.start);
    pieces
}

/// Calls `copy` for pieces of `flat` and where they lie in `packed`, one after another.
fn copy_pieces(
    packed: &Tensor,
    flat: &Tensor,
    pieces: impl IntoIterator<Item = Range<usize>>,
    copy: impl Fn(Tensor, Tensor),
) {
    let mut end = 0;
    for piece in pieces {
        let place = end..end + piece.len();
        end = place.end;
        tch::no_grad(|| copy(stretch(packed, &place), stretch(flat, &piece)));
    }
}

/// Sums buckets in their order, each when it is `whole`, and tells when that is done.
fn reduce(
    list: &[Bucket],
    comm: &mut dyn Comm,
    gradient: &Tensor,
    own: &Tensor,
    whole: &Receiver<Mark>,
) -> Result<Mark, CommError> {
    kernels::use_side_stream(own);
    for (bucket, mark) in list.iter().zip(whole) {
        mark.wait();
        let (all, mut sum) = (stretch(gradient, &bucket.range), stretch(own, &bucket.own));
        comm.reduce_scatter_sum(buffer(&all), buffer_mut(&mut sum), &bucket.counts)?;
    }
    Ok(Mark::now(own))
}

/// Cuts a buffer of parameters that begin at `starts`, matrices up to `decayed`: those backwards into stretches of at
/// least `floats` where there are so many left, what follows as a whole.
fn cuts(starts: &[usize], decayed: usize, len: usize, floats: usize) -> Vec<Range<usize>> {
    let mut cuts = Vec::new();
    let mut end = decayed;
    for &start in starts.iter().rev().filter(|start| **start < decayed) {
        if end - start >= floats || start == 0 {
            cuts.push(start..end);
            end = start;
        }
    }
    if decayed < len {
        cuts.push(decayed..len);
    }
    cuts
}

/// Part of a flat buffer, as a view.
fn stretch(flat: &Tensor, range: &Range<usize>) -> Tensor {
    flat.narrow(0, range.start as i64, range.len() as i64)
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::time::Duration;

    use kernels::comm::TcpRing;
    use tch::{Device, Kind};

    use super::*;
    use crate::parameters::{Declaration, Init};

    /// Three matrices and a vector, each a bucket.
    fn parameters() -> Parameters {
        let declare = |name: &str, shape: &[i64]| Declaration {
            name: name.to_owned(),
            shape: shape.to_vec(),
            init: Init::Constant(0.0),
        };
        let square = [300, 300];
        let declared = vec![declare("a", &square), declare("b", &square), declare("c", &square), declare("d", &[7])];
        Parameters::new(declared, 0, Device::Cpu)
    }

    /// What two ranks end with who walk so.
    fn two<T: Send>(
        walks: [impl FnOnce(&mut Take<'_>) -> Result<T, LossError> + Send; 2],
    ) -> [Result<Vec<f32>, RanksError>; 2] {
        let socket = TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
        let address = socket.local_addr().expect("it is bound").to_string();
        let limit = Duration::from_mins(5);
        let sum = |mut ring: TcpRing, walk| {
            let buckets = Buckets::new(&parameters(), ring.rank(), 2);
            assert_eq!(buckets.list.len(), 4);
            buckets.sum(&mut ring, walk)?;
            Ok(Vec::try_from(&buckets.own).expect("floats"))
        };
        let [first, second] = walks;
        thread::scope(|scope| {
            let second = scope.spawn(|| sum(TcpRing::connect(1, 2, &address, limit).expect("a group"), second));
            let first = sum(TcpRing::host(&socket, 2, limit).expect("a group"), first);
            [first, second.join().expect("a rank")]
        })
    }

    /// Gives these parameters' gradients of one part of two, all of them `value` times 1 for "a", 2 for "b" and so on.
    fn give(take: &mut Take<'_>, indices: &[usize], value: f64, last: bool) {
        for &index in indices {
            let size: &[i64] = if index == 3 { &[7] } else { &[300, 300] };
            let gradient = Tensor::full(size, value * (index + 1) as f64, (Kind::Float, Device::Cpu));
            take(index, &gradient, Part { first: !last, last });
        }
    }

    #[test]
    fn buckets_are_summed_whatever_order_gradients_come_in() {
        let walk = |order: [usize; 4], value: f64| {
            move |take: &mut Take<'_>| {
                give(take, &[0, 1, 2, 3], value, false);
                give(take, &order, 10.0 * value, true);
                Ok(())
            }
        };
        let ended = two([walk([3, 2, 1, 0], 1.0), walk([1, 0, 3, 2], 2.0)]);
        for (rank, own) in ended.into_iter().enumerate() {
            let own = own.expect("a sum");
            // Halves of each matrix, four of the vector's places and of the padding (16 in all) behind it.
            assert_eq!(own.len(), 3 * 45_000 + 8);
            let expected = |at: usize| match at {
                ..135_000 => 33.0 * (at / 45_000 + 1) as f32,
                _ if rank == 0 && at < 135_007 => 132.0,
                _ => 0.0,
            };
            assert!(own.iter().enumerate().all(|(at, sum)| (sum - expected(at)).abs() < 1e-3), "rank {rank}");
        }
    }

    #[test]
    fn pieces_come_to_all_at_once_or_by_bucket() {
        let socket = TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
        let address = socket.local_addr().expect("it is bound").to_string();
        let limit = Duration::from_mins(5);
        let gathered = |ring: TcpRing| {
            let buckets = Buckets::new(&parameters(), ring.rank(), 3);
            let whole = parameters().flat.zeros_like();
            let places = Tensor::arange(whole.numel() as i64, (Kind::Float, Device::Cpu));
            let pieces: Vec<Tensor> = buckets.pieces().iter().map(|piece| stretch(&places, piece)).collect();
            let own = Tensor::cat(&pieces, 0);
            for by_bucket in [false, true] {
                let flat = whole.copy();
                let gather = if by_bucket { Buckets::gather_by_bucket } else { Buckets::gather_at_once };
                gather(&buckets, &ring, &own, &flat).expect("a group");
                assert_eq!(flat, places, "by bucket: {by_bucket}");
            }
        };
        thread::scope(|scope| {
            for rank in 1..3 {
                let (gathered, address) = (&gathered, &address);
                scope.spawn(move || gathered(TcpRing::connect(rank, 3, address, limit).expect("a group")));
            }
            gathered(TcpRing::host(&socket, 3, limit).expect("a group"));
        });
    }

    #[test]
    fn a_rank_that_leaves_with_buckets_under_way_ends_the_others() {
        type Walk = Box<dyn FnOnce(&mut Take<'_>) -> Result<(), LossError> + Send>;
        let whole: Walk = Box::new(|take| {
            give(take, &[0, 1, 2, 3], 1.0, true);
            Ok(())
        });
        let broken: Walk = Box::new(|take| {
            give(take, &[2], 1.0, true);
            Err(LossError::Rejected("no memory".to_owned()))
        });
        let [first, second] = two([whole, broken]).map(|ended| ended.expect_err("no sum").to_string());
        assert!(first.contains("rank 1 is gone"), "{first}");
        assert_eq!(second, "no memory");
    }

    #[test]
    fn cuts_go_backwards_through_the_matrices_and_cover_all() {
        let starts = [0, 100, 200, 300, 316, 400, 410, 420];
        assert_eq!(cuts(&starts, 400, 430, 150), [200..400, 0..200, 400..430]);
        assert_eq!(cuts(&starts, 400, 430, 100), [300..400, 200..300, 100..200, 0..100, 400..430]);
        assert_eq!(cuts(&starts, 400, 430, 1000), [0..400, 400..430]);
        assert_eq!(cuts(&[0, 16], 0, 20, 5).first(), Some(&(0..20)), "vectors alone");
        assert_eq!(cuts(&[0], 7, 7, 5).first(), Some(&(0..7)), "a matrix alone");
    }
}
