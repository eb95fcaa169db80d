//! Ranks together: threads and processes over loopback.

use std::env;
use std::net::TcpListener;
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use kernels::comm::{Buffer, BufferMut, Comm, CommError, Op, Single, TcpRing};
use kernels::reference::sample::{clip_like, opposite};
use kernels::{Gradients, LossError, Options, Wanted, clip_gradients, siglip_gradients};
use tch::{Device, Tensor};

use crate::support::{Case, Found, Type, distance, matrix, none};

const PATIENCE: Duration = Duration::from_mins(1);
const DEPTH: usize = 20;

/// What rank `rank` of those that hold `counts` pairs finds.
fn part(case: &Case, of: Type, counts: &[usize], comm: &dyn Comm) -> Result<Gradients, LossError> {
    some(case, of, counts, comm, Wanted::ALL)
}

fn some(case: &Case, of: Type, counts: &[usize], comm: &dyn Comm, wanted: Wanted) -> Result<Gradients, LossError> {
    let first: usize = counts[..comm.rank()].iter().sum();
    let pairs = first..first + counts[comm.rank()];
    let rows = |x: &[f64]| matrix(&x[pairs.start * case.depth..pairs.end * case.depth], case.depth).to_kind(of.kind());
    let (images, texts) = (rows(&case.features.0), rows(&case.features.1));
    let ids = case.ids.as_ref().map(|ids| Tensor::from_slice(&ids[pairs]));
    let options = Options {
        ids: ids.as_ref(),
        label_smoothing: case.smoothing,
        compute: of.compute(),
        budget_bytes: case.budgets[0],
        ..Options::default()
    };
    let scale = Tensor::from(case.scale);
    match case.bias {
        None => clip_gradients(&images, &texts, &scale, &options, wanted, Some(comm)),
        Some(bias) => siglip_gradients(&images, &texts, &scale, &Tensor::from(bias), &options, wanted, Some(comm)),
    }
}

/// The parts of all ranks, each a thread.
fn together(case: &Case, of: Type, counts: &[usize]) -> Vec<Found> {
    some_together(case, of, counts, Wanted::ALL)
}

fn some_together(case: &Case, of: Type, counts: &[usize], wanted: Wanted) -> Vec<Found> {
    on_ranks(counts.len(), |ring| Found::from(&some(case, of, counts, ring, wanted).expect("gradients")))
}

/// What each rank of a group finds, each a thread.
fn on_ranks<R: Send>(world: usize, body: impl Fn(&TcpRing) -> R + Sync) -> Vec<R> {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("an address").to_string();
    thread::scope(|scope| {
        let ranks: Vec<_> = (0..world)
            .map(|rank| {
                let (listener, address, body) = (&listener, &address, &body);
                scope.spawn(move || {
                    let ring = match rank {
                        0 => TcpRing::host(listener, world, PATIENCE),
                        _ => TcpRing::connect(rank, world, address, PATIENCE),
                    };
                    body(&ring.expect("a group"))
                })
            })
            .collect();
        ranks.into_iter().map(|rank| rank.join().expect("no panic")).collect()
    })
}

/// One result of many: features one after another, sums of numbers, and the loss that all agree on.
fn joined(parts: &[Found]) -> Found {
    assert!(parts.iter().all(|part| part.loss.to_bits() == parts[0].loss.to_bits()), "ranks agree on the loss");
    Found {
        loss: parts[0].loss,
        images: parts.iter().flat_map(|part| part.images.clone()).collect(),
        texts: parts.iter().flat_map(|part| part.texts.clone()).collect(),
        scale: parts.iter().map(|part| part.scale).sum(),
        bias: parts.iter().map(|part| part.bias).sum(),
    }
}

/// Holds a joined result to the dense one.
fn against(case: &Case, of: Type, found: &Found, dense: &Found, words: &str, misses: &mut Vec<String>) {
    // In bfloat16 a slope on the edge between two numbers falls where the sums, which end in another order, say.
    let (number, feature) = match of {
        Type::Fp64 => (1e-12, 1e-12),
        Type::Fp32 => (1e-6, 1e-6),
        _ => (1e-5, 2e-4),
    };
    // Of terms that nearly cancel, the size: they come in another order.
    let (term, one) = if case.cancels { (case.scale / (case.pairs() as f64).sqrt(), 1.0) } else { (0.0, 0.0) };
    for (what, found, dense, by, least) in [
        ("loss", vec![found.loss], vec![dense.loss], number, 0.0),
        ("ds", vec![found.scale], vec![dense.scale], number, one),
        ("db", vec![found.bias], vec![dense.bias], number, 0.0),
        ("dI", found.images.clone(), dense.images.clone(), feature, term),
        ("dT", found.texts.clone(), dense.texts.clone(), feature, term),
    ] {
        let (error, size) = distance(&found, &dense);
        let size = size.max(least);
        if error.is_nan() || error > by * size {
            misses.push(format!("{words}: {what} is off by {:.3e}, allowed {by:.0e}", error / size));
        }
    }
}

fn cases() -> Vec<Case> {
    let pairs = 150;
    let plain = |words, scale| Case::new(words, clip_like(pairs, DEPTH, 0.3, 0.1, 31), DEPTH, scale);
    let ids = |captions: i64| Some((0..150).map(|i| i * 7 % (150 / captions)).collect::<Vec<i64>>());
    let ignored = ids(2).map(|ids| ids.iter().enumerate().map(|(i, id)| if i % 4 == 1 { -1 } else { *id }).collect());
    let opposite = Case::new("opposite", opposite(pairs, DEPTH, 6), DEPTH, 100.0);
    let hopeless = Case { cancels: true, ..opposite };
    vec![
        plain("plain", 20.0),
        plain("sharp", 100.0),
        Case { budgets: &[0], ..plain("a budget of nothing", 20.0) },
        Case { smoothing: 0.1, ..plain("smoothed", 20.0) },
        Case { ids: ids(3), smoothing: 0.1, ..plain("three captions, smoothed", 20.0) },
        Case { ids: ignored.clone(), ..plain("two captions, some ignored", 20.0) },
        Case { ids: ignored.clone(), bias: Some(-10.0), ..plain("two captions, some ignored", 20.0) },
        Case { bias: Some(-10.0), ..plain("plain", 20.0) },
        // Under the common offset all sums are 0: every rank falls back, or they would wait for one another.
        hopeless.clone(),
        Case { ids: ids(2), ..hopeless },
    ]
}

#[test]
fn ranks_get_what_one_process_gets() {
    let mut misses = Vec::new();
    let mut count = 0;
    for case in cases() {
        for of in [Type::Fp32, Type::Fp64, Type::Fp32AsBf16] {
            let dense = Found::from(&case.run(of, Device::Cpu, case.budgets[0]).expect("gradients"));
            for counts in [&[150][..], &[90, 60], &[77, 0, 73], &[0, 1, 130, 19]] {
                let parts = together(&case, of, counts);
                let words = format!("{}, s {}, bias {:?}, {of:?}, {counts:?}", case.words, case.scale, case.bias);
                against(&case, of, &joined(&parts), &dense, &words, &mut misses);
                count += 1;
            }
        }
    }
    none(&misses, count);
}

#[test]
fn ranks_with_bfloat16_features_get_what_one_process_gets() {
    let mut misses = Vec::new();
    let case = &cases()[4];
    for of in [Type::Bf16, Type::Fp16] {
        let dense = Found::from(&case.run(of, Device::Cpu, 1 << 30).expect("gradients"));
        let found = joined(&together(case, of, &[77, 0, 73]));
        against(case, of, &found, &dense, &format!("{of:?}"), &mut misses);
    }
    none(&misses, 2);
}

#[test]
fn ranks_that_want_less_get_the_same() {
    let mut misses = Vec::new();
    for case in [cases().swap_remove(4), cases().swap_remove(6)] {
        let dense = Found::from(&case.run(Type::Fp64, Device::Cpu, 1 << 30).expect("gradients"));
        for bits in 0..16_u8 {
            let bit = |at: u8| bits >> at & 1 == 1;
            let wanted = Wanted { images: bit(0), texts: bit(1), scale: bit(2), bias: bit(3) };
            let mut found = joined(&some_together(&case, Type::Fp64, &[77, 0, 73], wanted));
            let kept = |yes: bool, rows: &mut Vec<f64>, dense: &[f64]| {
                if !yes {
                    assert!(rows.is_empty());
                    rows.extend(dense);
                }
            };
            kept(wanted.images, &mut found.images, &dense.images);
            kept(wanted.texts, &mut found.texts, &dense.texts);
            found.scale = if wanted.scale { found.scale } else { dense.scale };
            found.bias = if wanted.bias { found.bias } else { dense.bias };
            against(&case, Type::Fp64, &found, &dense, &format!("{wanted:?}"), &mut misses);
        }
    }
    none(&misses, 32);
}

#[test]
fn a_number_that_is_none_reaches_every_rank_and_stops_no_one() {
    for bias in [None, Some(-10.0)] {
        let mut case = Case { bias, ..cases().swap_remove(0) };
        case.features.1[100 * DEPTH + 3] = f64::NAN;
        for of in [Type::Fp32, Type::Fp64] {
            let parts = together(&case, of, &[90, 0, 60]);
            assert!(parts.iter().all(|part| part.loss.is_nan()), "{of:?}, bias {bias:?}");
        }
    }
}

/// One rank's bad input must not leave the others waiting, nor put their next loss together with its present one.
#[test]
fn what_one_rank_refuses_ends_the_loss_of_all() {
    let words = on_ranks(3, |ring| {
        let rows = |width| Tensor::ones([4, width], (tch::Kind::Float, Device::Cpu));
        let texts = rows(if ring.rank() == 1 { 5 } else { 6 });
        let one = Tensor::from(1.0_f32);
        let loss = |texts: &Tensor| clip_gradients(&rows(6), texts, &one, &Options::default(), Wanted::ALL, Some(ring));
        let refused = loss(&texts).expect_err("one rank's widths differ").to_string();
        let then = loss(&rows(6)).expect("the group goes on");
        assert!((then.loss.double_value(&[]) - 12.0_f64.ln()).abs() < 1e-6);
        refused
    });
    assert!(words[1].contains("one shape (B, D), got [4, 6] and [4, 5]"), "{}", words[1]);
    for other in [&words[0], &words[2]] {
        assert!(other.contains("the input of 1 other rank(s) was refused"), "{other}");
    }
}

#[test]
fn ranks_whose_pairs_are_all_ignored_agree_on_nothing() {
    let case = Case { ids: Some(vec![-1; 150]), ..cases().swap_remove(0) };
    for part in together(&case, Type::Fp32, &[90, 60]) {
        assert!(part.loss.to_bits() == 0 && part.scale.to_bits() == 0);
        assert!(part.images.iter().chain(&part.texts).all(|x| *x == 0.0));
    }
}

#[test]
fn ranks_repeat_themselves_bit_by_bit() {
    let case = &cases()[0];
    for of in [Type::Fp32, Type::Fp32AsBf16] {
        let run = || {
            let found = joined(&together(case, of, &[90, 25, 35]));
            let all = [found.loss, found.scale].into_iter().chain(found.images).chain(found.texts);
            all.map(f64::to_bits).collect::<Vec<_>>()
        };
        let first = run();
        assert!((0..5).all(|_| run() == first), "{of:?}");
    }
}

/// Rank 0 of two, of which the other holds no pair; its call number `at` does not come through.
struct Fails {
    calls: AtomicUsize,
    at: usize,
    panics: bool,
}

impl Fails {
    fn new(at: usize, panics: bool) -> Self {
        Fails { calls: AtomicUsize::new(0), at, panics }
    }

    fn call(&self) -> Result<(), CommError> {
        if self.calls.fetch_add(1, Ordering::Relaxed) != self.at {
            return Ok(());
        }
        assert!(!self.panics, "a Comm that panics");
        Err(CommError::Environment { wrong: "the cable was pulled".to_owned() })
    }
}

impl Comm for Fails {
    fn rank(&self) -> usize {
        0
    }

    fn world(&self) -> usize {
        2
    }

    fn all_gather(&self, send: Buffer<'_>, recv: BufferMut<'_>, counts: &[usize]) -> Result<(), CommError> {
        self.call()?;
        assert_eq!(counts[1], 0);
        Single.all_gather(send, recv, &counts[..1])
    }

    fn reduce_scatter_sum(&self, send: Buffer<'_>, recv: BufferMut<'_>, counts: &[usize]) -> Result<(), CommError> {
        self.call()?;
        Single.reduce_scatter_sum(send, recv, &counts[..1])
    }

    fn all_reduce(&self, _values: BufferMut<'_>, _op: Op) -> Result<(), CommError> {
        self.call()
    }

    fn broadcast(&self, _values: BufferMut<'_>, _root: usize) -> Result<(), CommError> {
        self.call()
    }

    fn barrier(&self) -> Result<(), CommError> {
        self.call()
    }
}

#[test]
fn a_failure_on_the_way_to_another_rank_is_an_error_at_every_call() {
    for case in cases() {
        let mut failures = 0;
        loop {
            match part(&case, Type::Fp32, &[150, 0], &Fails::new(failures, false)) {
                Ok(found) => break assert!(!Found::from(&found).loss.is_nan()),
                Err(LossError::Comm(CommError::Environment { wrong })) => assert_eq!(wrong, "the cable was pulled"),
                Err(other) => panic!("call {failures} of {}: {other:?}", case.words),
            }
            failures += 1;
        }
        assert!(failures >= 4, "{}: {failures} calls", case.words);
        let error = part(&case, Type::Fp32, &[150, 0], &Fails::new(1, true)).expect_err("it panicked");
        assert!(matches!(&error, LossError::Rejected(_)), "{error:?}");
    }
}

const VARIABLE: &str = "SWEEP_TEST_LOSS_RANK";
const SHARES: [usize; 3] = [60, 71, 19];

/// A rank's part, held to the dense result.
fn one_of_three(ring: &TcpRing) {
    let case = &cases()[4];
    let dense = Found::from(&case.run(Type::Fp64, Device::Cpu, 1 << 30).expect("gradients"));
    let mut found = Found::from(&part(case, Type::Fp64, &SHARES, ring).expect("gradients"));
    let mut sum = [found.scale];
    ring.all_reduce(sum.as_mut_slice().into(), Op::Sum).expect("a sum");
    let first: usize = SHARES[..ring.rank()].iter().sum();
    let rows = |x: &[f64]| x[first * DEPTH..(first + SHARES[ring.rank()]) * DEPTH].to_vec();
    let expected = Found { images: rows(&dense.images), texts: rows(&dense.texts), ..dense };
    found.scale = sum[0];
    let mut misses = Vec::new();
    against(case, Type::Fp64, &found, &expected, "a process", &mut misses);
    none(&misses, 1);
}

#[test]
fn processes_get_what_one_process_gets() {
    // The other ranks are this test again, told who they are.
    if let Ok(told) = env::var(VARIABLE) {
        let (rank, address) = told.split_once(' ').expect("a rank and an address");
        return one_of_three(&TcpRing::connect(rank.parse().expect("a rank"), 3, address, PATIENCE).expect("a group"));
    }
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("an address");
    let others: Vec<_> = (1..3)
        .map(|rank| {
            Command::new(env::current_exe().expect("this test"))
                .args(["--exact", "ranks::processes_get_what_one_process_gets"])
                .env(VARIABLE, format!("{rank} {address}"))
                .stdout(std::process::Stdio::piped())
                .spawn()
                .expect("this test starts again")
        })
        .collect();
    one_of_three(&TcpRing::host(&listener, 3, PATIENCE).expect("a group"));
    for other in others {
        let output = other.wait_with_output().expect("an end");
        let words = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success() && words.contains("1 passed"), "{words}");
    }
}
