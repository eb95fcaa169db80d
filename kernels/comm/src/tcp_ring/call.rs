//! The header that every rank sends every other when it enters a collective, so that ranks which disagree say so.

use std::fmt;

use super::wire::{Deadline, Trouble, WireError, Wires};
use crate::{Element, Op};

/// Bytes of a header: magic, number, what (4 bytes, see `Kind::code`), root, elements, digest of the counts.
const HEADER_BYTES: usize = 40;
const MAGIC: &[u8; 8] = b"swpcall1";

/// Which collective.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    AllGather,
    ReduceScatterSum,
    AllReduce(Op),
    Broadcast { root: usize },
    Barrier,
}

/// All kinds but for the root, in the order of their codes, which start at 1.
const KINDS: [Kind; 6] = [
    Kind::AllGather,
    Kind::ReduceScatterSum,
    Kind::AllReduce(Op::Sum),
    Kind::AllReduce(Op::Max),
    Kind::Broadcast { root: 0 },
    Kind::Barrier,
];
/// Likewise.
const ELEMENTS: [Element; 3] = [Element::F32, Element::F64, Element::I64];

/// One collective, as all ranks must make it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Call {
    pub(super) kind: Kind,
    pub(super) element: Element,
    /// Elements of the whole.
    pub(super) len: usize,
    /// Digest of the counts, see [`digest`].
    pub(super) counts: u64,
}

/// A collective that differs from ours.
#[derive(Debug)]
pub(super) struct Other {
    pub(super) peer: usize,
    /// What it is in.
    pub(super) theirs: String,
}

/// Tells all ranks of `call`, the `number`th, and hears of theirs. Returns when all ranks are in it.
///
/// Every rank sends to all before it reads, and reads from all that answer before it complains: so that all ranks
/// learn of a disagreement, not just the first to see it.
pub(super) fn agree(wires: &Wires, call: Call, number: u64, deadline: Deadline) -> Result<Option<Other>, WireError> {
    let ours = call.header(number);
    let mut trouble = None;
    for peer in wires.peers() {
        if let Err(error) = wires.write(peer, &ours, deadline) {
            trouble.get_or_insert(error);
        }
    }
    for peer in (0..wires.world()).filter(|peer| *peer != wires.rank) {
        let mut theirs = [0; HEADER_BYTES];
        match wires.read(peer, &mut theirs, deadline) {
            Ok(()) if theirs == ours => {}
            Ok(()) => return Ok(Some(Other { peer, theirs: describe(&theirs, call, number) })),
            Err(error) => {
                let late = matches!(error.1, Trouble::Late);
                trouble.get_or_insert(error);
                if late {
                    break;
                }
            }
        }
    }
    trouble.map_or(Ok(None), Err)
}

/// FNV-1a of the counts.
pub(super) fn digest(counts: &[usize]) -> u64 {
    counts
        .iter()
        .flat_map(|count| (*count as u64).to_le_bytes())
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

impl Call {
    pub(super) fn barrier() -> Self {
        Self { kind: Kind::Barrier, element: Element::I64, len: 0, counts: 0 }
    }

    fn header(&self, number: u64) -> [u8; HEADER_BYTES] {
        let (kind, root) = match self.kind {
            Kind::Broadcast { root } => (Kind::Broadcast { root: 0 }, root),
            kind => (kind, 0),
        };
        let code = |at: Option<usize>| at.map_or(0, |at| at as u8 + 1);
        let kind = code(KINDS.iter().position(|known| *known == kind));
        let element = code(ELEMENTS.iter().position(|known| *known == self.element));
        let mut header = [0; HEADER_BYTES];
        header[..8].copy_from_slice(MAGIC);
        header[8..16].copy_from_slice(&number.to_le_bytes());
        header[16..18].copy_from_slice(&[kind, element]);
        header[20..24].copy_from_slice(&(root as u32).to_le_bytes());
        header[24..32].copy_from_slice(&(self.len as u64).to_le_bytes());
        header[32..].copy_from_slice(&self.counts.to_le_bytes());
        header
    }

    /// The call and its number that a header tells of.
    fn from_header(header: &[u8; HEADER_BYTES]) -> Option<(Self, u64)> {
        let u64_at = |at: usize| header[at..].first_chunk().map(|bytes| u64::from_le_bytes(*bytes));
        let known = |code: u8| usize::from(code).checked_sub(1);
        if !header.starts_with(MAGIC) {
            return None;
        }
        let kind = match *KINDS.get(known(header[16])?)? {
            Kind::Broadcast { .. } => {
                Kind::Broadcast { root: u32::from_le_bytes(*header[20..].first_chunk()?) as usize }
            }
            kind => kind,
        };
        let element = *ELEMENTS.get(known(header[17])?)?;
        Some((Self { kind, element, len: u64_at(24)? as usize, counts: u64_at(32)? }, u64_at(8)?))
    }
}

/// What a rank whose header differs from ours is in.
fn describe(theirs: &[u8; HEADER_BYTES], ours: Call, number: u64) -> String {
    match Call::from_header(theirs) {
        None => "something that sends no header (the ranks are out of step, or run different versions)".to_owned(),
        Some((call, count)) if Call { counts: ours.counts, ..call } == ours && count == number => {
            format!("{call} with other counts")
        }
        Some((call, count)) => format!("{call} (its collective {count}, here it is {number})"),
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Kind::AllGather => f.write_str("all_gather"),
            Kind::ReduceScatterSum => f.write_str("reduce_scatter_sum"),
            Kind::AllReduce(Op::Sum) => f.write_str("all_reduce (sum)"),
            Kind::AllReduce(Op::Max) => f.write_str("all_reduce (max)"),
            Kind::Broadcast { root } => write!(f, "broadcast from rank {root}"),
            Kind::Barrier => f.write_str("barrier"),
        }
    }
}

impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kind {
            Kind::Barrier => write!(f, "{}", self.kind),
            kind => write!(f, "{kind} of {} {}", self.len, self.element),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_come_back() {
        for kind in [KINDS.as_slice(), &[Kind::Broadcast { root: 7 }]].concat() {
            for element in ELEMENTS {
                let call = Call { kind, element, len: 3, counts: digest(&[1, 2]) };
                assert_eq!(Call::from_header(&call.header(9)), Some((call, 9)));
            }
        }
        assert_eq!(Call::from_header(&[0; HEADER_BYTES]), None);
        let mut unknown = Call::barrier().header(1);
        unknown[16] = 200;
        assert_eq!(Call::from_header(&unknown), None);
    }

    #[test]
    fn what_differs_is_told() {
        let ours = Call { kind: Kind::AllGather, element: Element::F32, len: 5, counts: digest(&[2, 3]) };
        let tell = |theirs: Call, number| describe(&theirs.header(number), ours, 4);
        assert_eq!(tell(Call { counts: digest(&[3, 2]), ..ours }, 4), "all_gather of 5 f32 with other counts");
        assert_eq!(tell(Call::barrier(), 4), "barrier (its collective 4, here it is 4)");
        assert_eq!(tell(ours, 5), "all_gather of 5 f32 (its collective 5, here it is 4)");
        assert!(describe(&[9; HEADER_BYTES], ours, 4).contains("no header"));
    }
}
