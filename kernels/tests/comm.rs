//! Collectives of 1 to 4 ranks, as threads and as processes, bit by bit against a plain loop over the ranks.
//!
//! For processes this binary runs itself, asking for the one test that plays a rank.

use std::fmt::Debug;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use kernels::comm::{Buffer, BufferMut, Comm, CommError, Op, Single, TcpRing, even_counts};

/// Long enough for a loaded machine: no test waits for it unless it fails.
const LONG: Duration = Duration::from_mins(2);
/// For tests that wait until nothing comes.
const SHORT: Duration = Duration::from_millis(300);
const SEED: u64 = 20_261_125;

/// Values whose sum depends on its order.
trait Value: Copy + PartialEq + Debug + Send {
    /// From 64 random bits.
    fn draw(bits: u64) -> Self;
    fn sum(self, next: Self) -> Self;
    fn bits(self) -> u64;
}

macro_rules! values {
    ($($value:ty: $draw:expr, $sum:expr, $bits:expr);*) => {$(
        impl Value for $value {
            fn draw(bits: u64) -> Self {
                $draw(bits)
            }
            fn sum(self, next: Self) -> Self {
                $sum(self, next)
            }
            fn bits(self) -> u64 {
                $bits(self)
            }
        }
    )*};
}

values! {
    f32: |bits| fraction(bits) as f32, |a, b| a + b, |a: f32| u64::from(a.to_bits());
    f64: fraction, |a, b| a + b, f64::to_bits;
    i64: u64::cast_signed, i64::wrapping_add, i64::cast_unsigned
}

/// In (-1, 1) times a power of 2 from 2^-8 to 2^7.
fn fraction(bits: u64) -> f64 {
    let power = f64::from(1_u32 << (bits & 15)) / 256.0;
    ((bits >> 11) as f64 / (1_u64 << 52) as f64 - 1.0) * power
}

/// `len` values of a rank (SplitMix64).
fn values<T: Value>(seed: u64, rank: usize, len: usize) -> Vec<T> {
    let mut state = seed ^ (rank as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(32);
    let next = || {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        T::draw(mixed ^ (mixed >> 31))
    };
    std::iter::repeat_with(next).take(len).collect()
}

/// Rank 0 + rank 1 + ... of their values.
fn serial_sum<T: Value>(seed: u64, world: usize, len: usize) -> Vec<T> {
    let mut sum = values::<T>(seed, 0, len);
    for rank in 1..world {
        for (so_far, next) in sum.iter_mut().zip(values::<T>(seed, rank, len)) {
            *so_far = so_far.sum(next);
        }
    }
    sum
}

/// Both have the same bits, or a panic that says where.
fn same<T: Value>(what: &str, seed: u64, found: &[T], wanted: &[T]) {
    let differs = found.iter().zip(wanted).position(|(a, b)| a.bits() != b.bits());
    let at = differs.map(|at| (at, found[at], wanted[at]));
    assert!(at.is_none() && found.len() == wanted.len(), "{what}, seed {seed}: {at:?}");
}

/// Every collective, with shares by `counts`, against the plain loop.
fn collectives<T: Value>(comm: &dyn Comm, seed: u64, counts: &[usize])
where
    for<'a> Buffer<'a>: From<&'a [T]>,
    for<'a> BufferMut<'a>: From<&'a mut [T]>,
{
    let (rank, world) = (comm.rank(), comm.world());
    let total: usize = counts.iter().sum();
    let start: usize = counts[..rank].iter().sum();
    let other = T::draw(1);
    let sum = serial_sum::<T>(seed, world, total);

    let share = values::<T>(seed, rank, counts[rank]);
    let mut whole = vec![other; total];
    comm.all_gather(share.as_slice().into(), whole.as_mut_slice().into(), counts).expect("gathers");
    let wanted: Vec<T> = (0..world).flat_map(|rank| values::<T>(seed, rank, counts[rank])).collect();
    same("all_gather", seed, &whole, &wanted);

    let mine = values::<T>(seed, rank, total);
    for _ in 0..2 {
        let mut share = vec![other; counts[rank]];
        comm.reduce_scatter_sum(mine.as_slice().into(), share.as_mut_slice().into(), counts).expect("scatters");
        same("reduce_scatter_sum", seed, &share, &sum[start..start + counts[rank]]);

        let mut all = mine.clone();
        comm.all_reduce(all.as_mut_slice().into(), Op::Sum).expect("reduces");
        same("all_reduce", seed, &all, &sum);
    }

    for root in 0..world {
        let mut all = mine.clone();
        comm.broadcast(all.as_mut_slice().into(), root).expect("broadcasts");
        same("broadcast", seed, &all, &values::<T>(seed, root, total));
    }
    comm.barrier().expect("meets");
}

/// All collectives with all types, small and large, even and uneven shares.
fn everything(comm: &dyn Comm) {
    let world = comm.world();
    for len in [0, 1, 3, 1000, 40_000] {
        collectives::<f32>(comm, SEED + len as u64, &even_counts(len, world));
    }
    collectives::<f64>(comm, SEED, &[3, 0, 5, 1][..world]);
    collectives::<i64>(comm, SEED, &[0, 70_000, 1, 0][..world]);
    // Many MiB, many pieces, none of them a whole number of pieces; one rank has next to nothing, one nothing.
    collectives::<f32>(comm, SEED, &[1_500_001, 0, 7, 700_000][..world]);
    maximum(comm);
}

/// The largest wins, and a NaN wins over it wherever it comes from.
fn maximum(comm: &dyn Comm) {
    let (rank, world) = (comm.rank(), comm.world());
    for poisoned in 0..world {
        let mut values: Vec<f32> = (0..100).map(|i| ((i * 7 + rank * 13) % 31) as f32).collect();
        if rank == poisoned {
            values[poisoned] = f32::NAN;
            values[99] = f32::NAN;
        }
        comm.all_reduce(values.as_mut_slice().into(), Op::Max).expect("reduces");
        for (i, value) in values.iter().enumerate() {
            let wanted = (0..world).map(|rank| (i * 7 + rank * 13) % 31).max().expect("a rank") as f32;
            let is_nan = i == poisoned || i == 99;
            assert!(if is_nan { value.is_nan() } else { value.to_bits() == wanted.to_bits() }, "{i}: {value}");
        }
    }
}

/// A socket for rank 0, and where it is.
fn listener() -> (TcpListener, String) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("an address").to_string();
    (listener, address)
}

/// What `part` gives on each rank of a group of threads.
fn as_threads<T: Send>(world: usize, part: impl Fn(&TcpRing) -> T + Sync) -> Vec<T> {
    let (listener, address) = listener();
    let (listener, address, part) = (&listener, &address, &part);
    thread::scope(|scope| {
        let ranks: Vec<_> = (0..world)
            .map(|rank| {
                scope.spawn(move || {
                    let ring = match rank {
                        0 => TcpRing::host(listener, world, LONG),
                        _ => TcpRing::connect(rank, world, address, LONG),
                    };
                    part(&ring.expect("all ranks are there"))
                })
            })
            .collect();
        ranks.into_iter().map(|rank| rank.join().expect("no panic")).collect()
    })
}

#[test]
fn one_rank_alone() {
    everything(&Single);
}

#[test]
fn ranks_as_threads() {
    for world in 1..=4 {
        as_threads(world, |ring| everything(ring));
    }
}

/// A process that does not outlive its test.
struct Rank(Child);

impl Drop for Rank {
    fn drop(&mut self) {
        // It has ended already where all went well.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Whether each rank of a group of processes ended well, and what it wrote.
fn as_processes(world: usize, scene: &str) -> Vec<(bool, String)> {
    // Free a moment ago; rank 0 takes it again.
    let address: SocketAddr = listener().1.parse().expect("an address");
    let mut ranks: Vec<Rank> = (0..world)
        .map(|rank| {
            let child = Command::new(std::env::current_exe().expect("this binary"))
                .args(["plays_a_rank_in_a_process_of_its_own", "--exact"])
                .env("COMM_SCENE", scene)
                .env("RANK", rank.to_string())
                .env("WORLD_SIZE", world.to_string())
                .env("MASTER_ADDR", address.ip().to_string())
                .env("MASTER_PORT", address.port().to_string())
                .env_remove("TORCHELASTIC_USE_AGENT_STORE")
                .stdout(Stdio::piped())
                .stderr(Stdio::piped())
                .spawn();
            Rank(child.expect("a process"))
        })
        .collect();
    // They write less than a pipe holds.
    let end = |Rank(child): &mut Rank| {
        let success = child.wait().expect("it ends").success();
        let mut wrote = String::new();
        child.stdout.take().expect("piped").read_to_string(&mut wrote).expect("text");
        child.stderr.take().expect("piped").read_to_string(&mut wrote).expect("text");
        (success, wrote)
    };
    ranks.iter_mut().map(end).collect()
}

#[test]
fn plays_a_rank_in_a_process_of_its_own() {
    let Ok(scene) = std::env::var("COMM_SCENE") else { return };
    let ring = TcpRing::from_env(LONG).expect("all ranks are there");
    match scene.as_str() {
        "everything" => everything(&ring),
        "the last rank crashes" if ring.rank() + 1 == ring.world() => std::process::abort(),
        "the last rank crashes" => {
            let mut large = vec![1.0_f32; 4 << 20];
            let error = ring.all_reduce(large.as_mut_slice().into(), Op::Sum).expect_err("one rank is gone");
            assert!(matches!(error, CommError::Gone { .. }), "{error}");
        }
        scene => panic!("no scene `{scene}`"),
    }
}

#[test]
fn ranks_as_processes() {
    for world in 1..=4 {
        let ranks = as_processes(world, "everything");
        assert!(ranks.iter().all(|(success, wrote)| *success && wrote.contains("1 passed")), "{ranks:#?}");
    }
}

#[test]
fn a_process_that_crashes_is_missed_by_all() {
    let ranks = as_processes(3, "the last rank crashes");
    let ended_well: Vec<bool> = ranks.iter().map(|(success, _)| *success).collect();
    assert_eq!(ended_well, [true, true, false], "{ranks:#?}");
}

#[test]
fn ranks_in_disagreement_all_hear_of_it() {
    for odd in 0..3 {
        let outcomes = as_threads(3, |ring| {
            let mut values = [1.0_f32; 3];
            if ring.rank() == odd {
                ring.all_gather((&[1.0_f32][..]).into(), values.as_mut_slice().into(), &[1; 3])
            } else {
                ring.all_reduce(values.as_mut_slice().into(), Op::Sum)
            }
        });
        for (rank, outcome) in outcomes.into_iter().enumerate() {
            let error = outcome.expect_err("they disagree");
            assert!(matches!(error, CommError::Disagreement { .. }), "{error}");
            let theirs = if rank == odd { "all_reduce (sum) of 3 f32" } else { "all_gather of 3 f32" };
            let says = format!("is in {theirs} (its collective 2, here it is 2)");
            assert!(error.to_string().contains(&says), "{error}");
        }
    }
}

#[test]
fn lengths_types_counts_and_roots_must_agree() {
    type Scene = fn(&TcpRing, usize) -> Result<(), CommError>;
    let scenes: [Scene; 4] = [
        |ring, rank| ring.all_reduce(vec![0_i64; 1 + rank].as_mut_slice().into(), Op::Sum),
        |ring, rank| match rank {
            0 => ring.all_reduce((&mut [0.0_f32; 2][..]).into(), Op::Sum),
            _ => ring.all_reduce((&mut [0.0_f64; 2][..]).into(), Op::Sum),
        },
        |ring, rank| match rank {
            0 => ring.all_gather((&[0_i64; 1][..]).into(), (&mut [0_i64; 3][..]).into(), &[1, 2]),
            _ => ring.all_gather((&[0_i64; 1][..]).into(), (&mut [0_i64; 3][..]).into(), &[2, 1]),
        },
        |ring, rank| ring.broadcast((&mut [0_i64; 3][..]).into(), rank),
    ];
    for scene in scenes {
        for outcome in as_threads(2, |ring| scene(ring, ring.rank())) {
            assert!(matches!(outcome, Err(CommError::Disagreement { .. })), "{outcome:?}");
        }
    }
}

#[test]
fn a_wrong_argument_breaks_nothing() {
    as_threads(2, |ring| {
        let mut values = [1_i64; 3];
        let outcome = ring.all_gather((&[1_i64][..]).into(), values.as_mut_slice().into(), &[1, 1]);
        assert!(matches!(outcome, Err(CommError::Argument { .. })), "{outcome:?}");
        let outcome = ring.broadcast(values.as_mut_slice().into(), 2);
        assert!(matches!(outcome, Err(CommError::Argument { .. })), "{outcome:?}");
        ring.all_reduce(values.as_mut_slice().into(), Op::Sum).expect("reduces");
        assert_eq!(values, [2; 3]);
    });
}

/// The text of the error of each rank of a group that does not come about: `(rank, world)` of those that come.
fn refused(world: usize, others: &[(usize, usize)], timeout: Duration) -> Vec<String> {
    let (listener, address) = listener();
    let (listener, address) = (&listener, &address);
    let text = |made: Result<TcpRing, CommError>| made.expect_err("no group").to_string();
    thread::scope(|scope| {
        let zero = scope.spawn(move || text(TcpRing::host(listener, world, timeout)));
        let others: Vec<_> = others
            .iter()
            .map(|(rank, world)| scope.spawn(move || text(TcpRing::connect(*rank, *world, address, timeout))))
            .collect();
        std::iter::once(zero).chain(others).map(|rank| rank.join().expect("no panic")).collect()
    })
}

#[test]
fn another_world_is_refused_on_all_ranks() {
    for error in refused(2, &[(1, 3)], LONG) {
        let says = "rank 1 expects a world of 3, rank 0 one of 2: give all ranks one WORLD_SIZE";
        assert!(error.contains(says), "{error}");
    }
}

#[test]
fn a_rank_taken_is_refused_on_all_ranks() {
    for error in refused(3, &[(1, 3), (1, 3)], LONG) {
        assert!(error.contains("there are two of rank 1: give each process a RANK of its own, 0 to 2"), "{error}");
    }
}

#[test]
fn ranks_that_do_not_register_are_named() {
    let errors = refused(4, &[(2, 4)], SHORT);
    assert!(errors[0].contains("no sign of rank 1, 3 within 300ms"), "{errors:?}");
}

#[test]
fn addresses_and_ranks_are_checked() {
    let nobody = listener().1;
    for (rank, world, address, says) in [
        (0, 0, "127.0.0.1:0", "there is no rank 0 in a world of 0"),
        (2, 2, "127.0.0.1:0", "there is no rank 2 in a world of 2"),
        (0, 2, "29500", "`29500` is no address: it must be `host:port`"),
        (1, 2, "29500", "`29500` is no address: it must be `host:port`"),
        (0, 2, "192.0.2.1:0", "rank 0 must be on the host of this address"),
        (1, 2, &nobody, "rank 0 could not be reached within 300ms"),
    ] {
        let error = TcpRing::connect(rank, world, address, SHORT).expect_err("no group").to_string();
        assert!(error.contains(says), "{error}");
    }
}

#[test]
fn strangers_do_not_disturb_the_rendezvous() {
    let (listener, address) = listener();
    let stranger = |says: &[u8]| {
        let mut stream = TcpStream::connect(&address).expect("a listener");
        stream.write_all(says).expect("it fits");
        stream
    };
    // They are first in the queue, and all but one stay: one silent, one that stops in the middle of a hello.
    drop(stranger(b"GET / HTTP/1.1\r\nHost: somewhere.example\r\n\r\n"));
    let _staying = [stranger(b""), stranger(b"swpjoin1\x01"), stranger(&[0xff; 4096])];
    let sums = thread::scope(|scope| {
        let reduce = |ring: Result<TcpRing, CommError>| {
            let mut values = [1_i64];
            let ring = ring.expect("all ranks are there");
            ring.all_reduce(values.as_mut_slice().into(), Op::Sum).expect("reduces");
            values[0]
        };
        let address = &address;
        let one = scope.spawn(move || reduce(TcpRing::connect(1, 2, address, LONG)));
        let zero = reduce(TcpRing::host(&listener, 2, LONG));
        [zero, one.join().expect("no panic")]
    });
    assert_eq!(sums, [2, 2]);
}

#[test]
fn something_else_at_the_address_is_recognised() {
    let (listener, address) = listener();
    let error = thread::scope(|scope| {
        scope.spawn(|| {
            let (mut stream, _) = listener.accept().expect("a connection");
            stream.write_all(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n").expect("it fits");
            stream
        });
        TcpRing::connect(1, 2, &address, LONG).expect_err("no group").to_string()
    });
    assert!(error.contains("not rank 0 of such a group"), "{error}");
}
