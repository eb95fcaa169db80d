//! A rank that misbehaves in the middle of a collective: played on bare connections.

use std::net::TcpStream;
use std::thread;

use super::*;

/// The connections of all ranks of a group.
fn mesh(world: usize) -> Vec<Wires> {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("an address");
    let mut streams: Vec<Vec<_>> = Vec::new();
    for rank in 0..world {
        let mut own = Vec::new();
        for lower in &mut streams {
            lower.push(Some(TcpStream::connect(address).expect("a listener")));
            own.push(Some(listener.accept().expect("a connection").0));
        }
        own.push(None);
        assert_eq!(own.len(), rank + 1);
        streams.push(own);
    }
    streams.into_iter().enumerate().map(|(rank, streams)| Wires::new(rank, streams)).collect()
}

/// What ranks 0 and 1 of 3 hear from an all_reduce of `len` f32 whose rank 2 does `misdeed`.
fn with_a_bad_rank(len: usize, timeout: Duration, misdeed: impl FnOnce(&Wires, Call) + Send) -> Vec<CommError> {
    let mut wires = mesh(3);
    let bad = wires.pop().expect("rank 2");
    let call = Call { kind: Kind::AllReduce(Op::Sum), element: Element::F32, len, counts: 0 };
    thread::scope(|scope| {
        let good: Vec<_> = wires
            .into_iter()
            .map(|wires| {
                scope.spawn(move || {
                    let ring = TcpRing::over(wires, timeout);
                    let error = ring.all_reduce(vec![1.0_f32; len].as_mut_slice().into(), Op::Sum);
                    let again = ring.barrier().expect_err("the group is broken");
                    assert!(matches!(again, CommError::Broken { .. }), "{again}");
                    error.expect_err("rank 2 fails")
                })
            })
            .collect();
        misdeed(&bad, call);
        let errors = good.into_iter().map(|rank| rank.join().expect("no panic")).collect();
        // Only now: a bad rank that is silent keeps its connections.
        drop(bad);
        errors
    })
}

const LONG: Duration = Duration::from_mins(1);
/// Over what sockets hold, by far.
const LARGE: usize = 6 << 20;

#[test]
fn a_rank_that_leaves_in_the_middle_is_missed_by_all() {
    for sent in [0, 1000, 128 << 10] {
        let errors = with_a_bad_rank(LARGE, LONG, |wires, call| {
            let deadline = Deadline::after(LONG);
            let agreed = agree(wires, call, 1, deadline).expect("all ranks are there");
            assert!(agreed.is_none());
            for peer in wires.peers() {
                wires.write(peer, &vec![0; sent], deadline).expect("it fits");
            }
            wires.shut();
        });
        for error in errors {
            assert!(matches!(error, CommError::Gone { .. }), "{error}");
        }
    }
}

#[test]
fn a_rank_that_falls_silent_is_given_up_by_all() {
    let short = Duration::from_millis(300);
    let errors = with_a_bad_rank(LARGE, short, |wires, call| {
        // It may hear that the others gave up before it had started.
        let _ = agree(wires, call, 1, Deadline::after(LONG));
    });
    // The first to give up takes the other with it.
    assert!(errors.iter().any(|error| matches!(error, CommError::Timeout { .. })), "{errors:?}");
    for error in errors {
        assert!(matches!(error, CommError::Timeout { .. } | CommError::Gone { .. }), "{error}");
    }
}

#[test]
fn a_rank_that_sends_no_header_is_told_of_by_all() {
    let errors = with_a_bad_rank(8, LONG, |wires, _| {
        for peer in wires.peers() {
            wires.write(peer, &[7; 64], Deadline::after(LONG)).expect("it fits");
        }
    });
    for error in errors {
        assert!(matches!(&error, CommError::Disagreement { peer: 2, .. }), "{error}");
        assert!(error.to_string().contains("no header"), "{error}");
    }
}

#[test]
fn values_of_a_device_are_refused_and_break_nothing() {
    let ring = TcpRing::connect(0, 1, "localhost:0", LONG).expect("one rank needs nobody");
    let error = ring.unsupported("all_reduce", Element::Bf16).to_string();
    assert!(error.contains("values of bf16 on the device are not supported; a TcpRing moves f32"), "{error}");
    let error = ring.all_gather((&[1.0_f32][..]).into(), (&mut [0_i64][..]).into(), &[1]).expect_err("two types");
    assert!(error.to_string().contains("`send` is 1 f32 on the host and `recv` is 1 i64 on the host"), "{error}");
    ring.barrier().expect("the group goes on");
}
