//! Sequences of a batch taken at about the lengths that they need, in place of the longest one's: under a causal mask
//! no token behind the pooled one changes anything.

use tch::Tensor;

/// Sequences of one length. Rows of groups, and of sequences in a group, stand one after another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Group {
    pub(super) sequences: i64,
    /// T, of each of them.
    pub(super) tokens: i64,
}

/// What another group costs, in rows of a block: an attention of its own, and copies. Reckoned for CPUs (a tenth of a
/// millisecond a block, against rows of width 64 to 192: 3 to 30), not measured.
const GROUP_ROWS: i64 = 16;

/// Lengths of groups that no pool foretells are multiples of it: a CPU's products of each length are kernels of their
/// own, which are made once and kept.
const ROUND_LENGTH: i64 = 8;

/// How many tokens the captions need that batches are drawn from.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct CaptionLengths {
    /// How many need 0, 1, 2, ... tokens.
    counts: Vec<u64>,
}

impl CaptionLengths {
    /// Of captions that need so many tokens each, up to the pooled one.
    pub fn new(needed: impl Iterator<Item = usize>) -> CaptionLengths {
        let mut counts = Vec::new();
        for tokens in needed {
            if counts.len() <= tokens {
                counts.resize(tokens + 1, 0);
            }
            counts[tokens] += 1;
        }
        CaptionLengths { counts }
    }

    /// Groups that hold nearly every batch of so many captions: a step asks for the same blocks of memory as the one
    /// before, which a heap reuses. Blocks of other sizes each time left holes of up to a third of the peak.
    ///
    /// Of B captions B p + 3 sqrt(B p (1 - p)) + 1 are expected to need more than t tokens, p of all captions do.
    fn groups(&self, sequences: i64) -> Vec<Group> {
        let all = self.counts.iter().sum::<u64>() as f64;
        let mut longer = all;
        let mut steps = vec![(0, 0)];
        for (tokens, &count) in self.counts.iter().enumerate() {
            longer -= count as f64;
            let (p, batch) = (longer / all, sequences as f64);
            let expected =
                if longer == 0.0 { 0.0 } else { (batch * p + 3.0 * (batch * p * (1.0 - p)).sqrt() + 1.0).ceil() };
            let until = sequences - (expected as i64).min(sequences);
            if until > steps.last().map_or(0, |step: &(i64, i64)| step.1) {
                steps.push((tokens as i64, until));
            }
        }
        fewest_rows(&steps)
    }
}

/// Which sequence stands where, by what each needs (at least one token), and the groups: those that are expected, or
/// where these don't hold the batch, those that take the fewest rows, of lengths that are multiples of [`ROUND_LENGTH`]
/// or the longest.
pub(super) fn by_length(needed: &[i64], expected: Option<&CaptionLengths>) -> (Vec<i64>, Vec<Group>) {
    let mut order: Vec<usize> = (0..needed.len()).collect();
    order.sort_by_key(|&index| needed[index]);
    let sorted = || order.iter().map(|&index| needed[index]);
    let groups = expected.map(|lengths| lengths.groups(needed.len() as i64)).filter(|groups| holds(groups, sorted()));
    let groups = groups.unwrap_or_else(|| {
        let mut steps: Vec<(i64, i64)> = vec![(0, 0)];
        let longest = sorted().next_back().unwrap_or_default();
        let rounded = sorted().map(|tokens| (tokens + ROUND_LENGTH - 1) / ROUND_LENGTH * ROUND_LENGTH);
        for (place, tokens) in rounded.map(|tokens| tokens.min(longest)).enumerate() {
            match steps.last_mut() {
                Some(last) if last.0 == tokens => last.1 += 1,
                _ => steps.push((tokens, place as i64 + 1)),
            }
        }
        fewest_rows(&steps)
    });
    (order.into_iter().map(|index| index as i64).collect(), groups)
}

fn holds(groups: &[Group], mut sorted: impl Iterator<Item = i64>) -> bool {
    let mut held = groups.iter().flat_map(|group| std::iter::repeat_n(group.tokens, group.sequences as usize));
    sorted.all(|needs| held.next().is_some_and(|has| needs <= has)) && held.next().is_none()
}

/// The groups that take the fewest rows, each counted as [`GROUP_ROWS`] more. A step (t, n) says that n sequences need
/// no more than t tokens; both ascend from (0, 0).
fn fewest_rows(steps: &[(i64, i64)]) -> Vec<Group> {
    // best[j] = (rows of the sequences up to step j, the step before their last group), the least over i < j.
    let mut best: Vec<(i64, usize)> = vec![(0, 0)];
    for (j, &(tokens, until)) in steps.iter().enumerate().skip(1) {
        let with_last_from = |i: usize| (best[i].0 + (until - steps[i].1) * tokens + GROUP_ROWS, i);
        let least = (0..j).map(with_last_from).min().expect("0 is one");
        best.push(least);
    }
    let mut groups = Vec::new();
    let mut end = steps.len() - 1;
    while end > 0 {
        let begin = best[end].1;
        groups.push(Group { sequences: steps[end].1 - steps[begin].1, tokens: steps[end].0 });
        end = begin;
    }
    groups.reverse();
    groups
}

/// Rows (R, ...) of all groups as those of each.
pub(super) fn split(rows: &Tensor, groups: &[Group]) -> Vec<Tensor> {
    if groups.len() == 1 {
        return vec![rows.shallow_clone()];
    }
    let sizes: Vec<i64> = groups.iter().map(|group| group.sequences * group.tokens).collect();
    rows.split_with_sizes(&sizes[..], 0)
}

/// Rows (B, ...) of all sequences as those of each group.
pub(super) fn split_sequences(rows: &Tensor, groups: &[Group]) -> Vec<Tensor> {
    let ones: Vec<Group> = groups.iter().map(|group| Group { tokens: 1, ..*group }).collect();
    split(rows, &ones)
}

/// The opposite of [`split`].
pub(super) fn join(mut parts: Vec<Tensor>) -> Tensor {
    if parts.len() == 1 { parts.remove(0) } else { Tensor::cat(&parts, 0) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rand::{Rng, SeedableRng};

    fn rows(groups: &[Group]) -> i64 {
        groups.iter().map(|group| group.sequences * group.tokens + GROUP_ROWS).sum()
    }

    #[test]
    fn equal_lengths_are_one_group() {
        assert_eq!(by_length(&[7; 4], None), (vec![0, 1, 2, 3], vec![Group { sequences: 4, tokens: 7 }]));
    }

    #[test]
    fn a_long_caption_does_not_lengthen_the_others() {
        let mut needed = vec![5; 40];
        needed[3] = 77;
        let (order, groups) = by_length(&needed, None);
        assert_eq!(groups, [Group { sequences: 39, tokens: 8 }, Group { sequences: 1, tokens: 77 }]);
        assert_eq!(order[39], 3);
    }

    #[test]
    fn batches_of_one_pool_have_the_same_groups() {
        let mut draws = rand_chacha::ChaCha8Rng::seed_from_u64(7);
        let pool: Vec<usize> = (0..5000).map(|_| 3 + (draws.random::<f64>().powi(3) * 60.0) as usize).collect();
        let lengths = CaptionLengths::new(pool.iter().copied());
        let expected = lengths.groups(256);
        let longest = *pool.iter().max().expect("some") as i64;
        assert!(rows(&expected) < 256 * longest / 2, "{expected:?}");
        let mut held = 0;
        for _ in 0..200 {
            let batch: Vec<i64> = (0..256).map(|_| pool[draws.random_range(0..pool.len())] as i64).collect();
            let (order, groups) = by_length(&batch, Some(&lengths));
            assert!(holds(&groups, order.iter().map(|&index| batch[index as usize])));
            held += i32::from(groups == expected);
        }
        assert!(held >= 190, "{held} of 200");
    }

    proptest! {
        /// Against every division of the sorted sequences.
        #[test]
        fn no_division_takes_fewer_rows(needed in prop::collection::vec(1_i64..40, 1..9)) {
            let (order, groups) = by_length(&needed, None);
            let sorted: Vec<i64> = order.iter().map(|&index| needed[index as usize]).collect();
            prop_assert!(sorted.is_sorted());
            prop_assert!(holds(&groups, sorted.iter().copied()));
            let count = needed.len();
            for cuts in 0..1_u32 << (count - 1) {
                let mut division = Vec::new();
                let mut from = 0;
                for until in 1..=count {
                    if until == count || cuts & (1 << (until - 1)) != 0 {
                        let tokens = (sorted[until - 1] as u64).next_multiple_of(ROUND_LENGTH as u64) as i64;
                        let tokens = tokens.min(sorted[count - 1]);
                        division.push(Group { sequences: (until - from) as i64, tokens });
                        from = until;
                    }
                }
                prop_assert!(rows(&groups) <= rows(&division), "{:?} {:?}", groups, division);
            }
        }

        #[test]
        fn expected_groups_are_of_the_whole_batch(
            pool in prop::collection::vec(1_usize..80, 1..50),
            batch in 1_i64..300,
        ) {
            let longest = *pool.iter().max().expect("some") as i64;
            let groups = CaptionLengths::new(pool.into_iter()).groups(batch);
            prop_assert_eq!(groups.iter().map(|group| group.sequences).sum::<i64>(), batch);
            prop_assert!(groups.is_sorted_by(|a, b| a.tokens < b.tokens) && groups.iter().all(|group| group.sequences > 0));
            prop_assert_eq!(groups.last().map(|group| group.tokens), Some(longest));
        }
    }
}
