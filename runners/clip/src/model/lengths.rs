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

/// Which sequence stands where, by what each needs (at least one token), and groups of as many tokens, or a few more:
/// see [`whole_step`].
pub(super) fn by_length(needed: &[i64]) -> (Vec<usize>, Vec<Group>) {
    let mut order: Vec<usize> = (0..needed.len()).collect();
    order.sort_by_key(|&index| needed[index]);
    let longest = needed.iter().copied().max().unwrap_or_default();
    let mut groups: Vec<Group> = Vec::new();
    for &index in &order {
        let tokens = whole_step(needed[index]).min(longest);
        match groups.last_mut() {
            Some(last) if last.tokens == tokens => last.sequences += 1,
            _ => groups.push(Group { sequences: 1, tokens }),
        }
    }
    (order, groups)
}

/// The next multiple of the largest power of two that is no more than an eighth of it: up to 16 the number itself. A
/// CPU's products of each length are kernels of their own, which are made once and kept: 77 tokens make 34 lengths. And
/// a heap reuses blocks of sizes that it was asked for before.
pub(super) fn whole_step(number: i64) -> i64 {
    let step = 1 << (number.max(8).ilog2() - 3);
    (number + step - 1) / step * step
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

    #[test]
    fn equal_lengths_are_one_group() {
        assert_eq!(by_length(&[7; 4]), (vec![0, 1, 2, 3], vec![Group { sequences: 4, tokens: 7 }]));
    }

    #[test]
    fn a_long_caption_does_not_lengthen_the_others() {
        let mut needed = vec![5; 40];
        needed[3] = 77;
        let (order, groups) = by_length(&needed);
        assert_eq!(groups, [Group { sequences: 39, tokens: 5 }, Group { sequences: 1, tokens: 77 }]);
        assert_eq!(order[39], 3);
    }

    #[test]
    fn lengths_of_a_context_are_few() {
        assert!((1..=16).all(|number| whole_step(number) == number));
        assert_eq!([17, 31, 33, 63, 65, 77].map(whole_step), [18, 32, 36, 64, 72, 80]);
        let lengths: std::collections::BTreeSet<i64> = (1..=77).map(|number| whole_step(number).min(77)).collect();
        assert_eq!(lengths.len(), 34);
    }

    proptest! {
        #[test]
        fn groups_hold_every_sequence_and_little_more(needed in prop::collection::vec(1_i64..300, 1..50)) {
            let (order, groups) = by_length(&needed);
            let has = groups.iter().flat_map(|group| std::iter::repeat_n(group.tokens, group.sequences as usize));
            let has: Vec<i64> = has.collect();
            prop_assert_eq!(has.len(), needed.len());
            let longest = *needed.iter().max().expect("some");
            for (&index, &has) in order.iter().zip(&has) {
                prop_assert!((needed[index]..=longest).contains(&has) && has <= needed[index] + needed[index] / 8);
            }
            prop_assert!(groups.is_sorted_by(|a, b| a.tokens < b.tokens));
            let mut all = order;
            all.sort_unstable();
            prop_assert!(all.into_iter().eq(0..needed.len()));
        }
    }
}
