//! Inputs that are almost right: valid ones with bytes changed, cut, repeated, and joined with others.

use proptest::prelude::*;

/// One change, at places that are taken modulo the length.
#[derive(Debug, Clone)]
enum Change {
    Set(usize, u8),
    Insert(usize, Vec<u8>),
    Delete(usize, usize),
    Repeat(usize, usize),
    Truncate(usize),
    /// What follows is that of another input.
    Splice(usize, usize, usize),
}

/// Bytes that mean something to a reader of text.
const TELLING: &[u8] = b"\n\r\t\0 ,;:\"'`#[]{}()|>-+.eE0159\xff\xef\xbb\xbf\\";

fn change() -> impl Strategy<Value = Change> {
    let byte = || prop_oneof![any::<u8>(), proptest::sample::select(TELLING)];
    let at = any::<usize>;
    prop_oneof![
        (at(), byte()).prop_map(|(at, byte)| Change::Set(at, byte)),
        (at(), proptest::collection::vec(byte(), 1..8)).prop_map(|(at, bytes)| Change::Insert(at, bytes)),
        (at(), 1..64_usize).prop_map(|(at, length)| Change::Delete(at, length)),
        (at(), 1..600_usize).prop_map(|(at, length)| Change::Repeat(at, length)),
        at().prop_map(Change::Truncate),
        (at(), at(), at()).prop_map(|(from, other, to)| Change::Splice(from, other, to)),
    ]
}

/// Mutations of `seeds`.
pub(super) fn mutated(seeds: Vec<Vec<u8>>) -> impl Strategy<Value = Vec<u8>> {
    (any::<usize>(), proptest::collection::vec(change(), 0..6)).prop_map(move |(seed, changes)| {
        let mut bytes = seeds[seed % seeds.len()].clone();
        for change in changes {
            apply(&mut bytes, &seeds, change);
        }
        bytes
    })
}

fn apply(bytes: &mut Vec<u8>, seeds: &[Vec<u8>], change: Change) {
    let place = |at: usize, length: usize| at % (length + 1);
    let length = bytes.len();
    match change {
        Change::Set(at, byte) if length > 0 => bytes[at % length] = byte,
        Change::Set(..) => {}
        Change::Insert(at, new) => {
            let at = place(at, length);
            bytes.splice(at..at, new);
        }
        Change::Delete(at, count) => {
            let at = place(at, length);
            bytes.drain(at..length.min(at + count));
        }
        Change::Repeat(at, count) => {
            let at = place(at, length);
            let part = bytes[at..length.min(at + count)].to_vec();
            bytes.splice(at..at, part);
        }
        Change::Truncate(at) => bytes.truncate(place(at, length)),
        Change::Splice(from, other, to) => {
            let other = &seeds[other % seeds.len()];
            bytes.truncate(place(from, length));
            bytes.extend_from_slice(&other[place(to, other.len())..]);
        }
    }
}
