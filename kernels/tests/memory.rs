//! What a loss takes of the machine's memory: a budget and O(B D), never B x B. A process of its own, for its peak.
#![cfg(all(feature = "torch", target_os = "linux"))]

use std::fs;

use kernels::reference::sample::unit_rows;
use kernels::{Options, Wanted, clip_gradients, siglip_gradients};
use tch::{Kind, Tensor};

const DEPTH: usize = 64;
const MIB: usize = 1 << 20;
/// Threads' stacks and caches, generated code, and what an allocator keeps of what it was given back.
const SLACK: usize = 24 * MIB;

/// A line of /proc/self/status, bytes.
fn status(name: &str) -> usize {
    let text = fs::read_to_string("/proc/self/status").expect("a Linux process");
    let line = text.lines().find_map(|line| line.strip_prefix(name)).expect("a line of the status");
    let kib: usize = line.trim_start_matches(':').trim().trim_end_matches(" kB").parse().expect("a number of kB");
    kib * 1024
}

/// Peak of a call beyond what was there before it, bytes.
fn growth(call: impl FnOnce()) -> usize {
    fs::write("/proc/self/clear_refs", "5").expect("asked before");
    let before = status("VmRSS");
    call();
    status("VmHWM").saturating_sub(before)
}

/// Both gradients of a batch, within a budget.
fn gradients(pairs: usize, kind: Kind, sigmoid: bool, budget: usize) -> usize {
    let (images, texts) = unit_rows(pairs, DEPTH, 1);
    let width = i64::try_from(DEPTH).expect("a width");
    let [images, texts] = [images, texts].map(|x| Tensor::from_slice(&x).view([-1, width]).to_kind(kind));
    let options = Options { budget_bytes: budget as u64, ..Options::default() };
    let (scale, bias) = (Tensor::from(14.0), Tensor::from(-10.0));
    growth(|| {
        let found = if sigmoid {
            siglip_gradients(&images, &texts, &scale, &bias, &options, Wanted::ALL, None)
        } else {
            clip_gradients(&images, &texts, &scale, &options, Wanted::ALL, None)
        };
        assert!(found.expect("gradients").loss.double_value(&[]).is_finite());
    })
}

/// B D numbers, each up to ten times in 4 bytes: gradients of both towers, the towers transposed for the products and
/// once more by rows, and one in float32 for targets and roundings; ten vectors of B float64.
fn linear(pairs: usize) -> usize {
    pairs * (10 * DEPTH * 4 + 10 * 8)
}

#[test]
#[expect(clippy::print_stderr, reason = "says why it did nothing")]
fn memory_grows_as_b_and_not_as_b_squared() {
    if fs::write("/proc/self/clear_refs", "5").is_err() {
        eprintln!("skipped: /proc/self/clear_refs is not writable here, so a peak can't be told from an earlier one");
        return;
    }
    // What the libraries set up once.
    for kind in [Kind::Float, Kind::BFloat16] {
        gradients(600, kind, false, MIB);
    }
    let budget = 32 * MIB;
    for (kind, sigmoid) in [(Kind::Float, false), (Kind::BFloat16, false), (Kind::Float, true)] {
        let [small, large] = [8192, 16384].map(|pairs| {
            let grown = gradients(pairs, kind, sigmoid, budget);
            let most = budget + linear(pairs) + SLACK;
            assert!(grown <= most, "{kind:?}, B {pairs}: {} MiB, allowed {}", grown / MIB, most / MIB);
            grown
        });
        assert!(large <= 2 * small + SLACK, "{kind:?}: {} MiB, and {} MiB of twice as many", small / MIB, large / MIB);
    }
    let pairs = 8192;
    let grown = gradients(pairs, Kind::Float, false, 1 << 30);
    let all = 4 * pairs * pairs;
    let most = all + linear(pairs) + SLACK;
    assert!(grown <= most, "all logits once: {} MiB, allowed {}", grown / MIB, most / MIB);
    assert!(grown >= all / 2, "{} MiB: a peak that is not seen", grown / MIB);
}
