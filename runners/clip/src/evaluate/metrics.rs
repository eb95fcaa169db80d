//! Metrics on plain slices, by CLIP_benchmark's definitions. No tensors, so every number can be checked by hand.
//!
//! Ties count against the model: an item that scores as much as the right one stands before it. A model that gives
//! every item the same score is thus no better than its worst case, not perfect. A score that is no number counts as a
//! tie.

use protocol::Measurement;

/// How many of the wrong items stand before the best of the right ones: 0 means that a right one is first. `None` if no
/// item is right.
pub fn rank(scores: &[f32], is_right: impl Fn(usize) -> bool) -> Option<usize> {
    let best = (0..scores.len()).filter(|i| is_right(*i)).map(|i| scores[i]).reduce(f32::max)?;
    let before = |i: &usize| !is_right(*i) && !matches!(scores[*i].partial_cmp(&best), Some(std::cmp::Ordering::Less));
    Some((0..scores.len()).filter(before).count())
}

/// Share of ranks below `k`.
pub fn share_below(ranks: &[usize], k: usize) -> f64 {
    ranks.iter().filter(|rank| **rank < k).count() as f64 / ranks.len() as f64
}

/// Binomial standard error of a share `p` of `n` items.
pub fn binomial_error(p: f64, n: usize) -> f64 {
    (p * (1.0 - p) / n as f64).sqrt()
}

/// Probability that `k` of `n` items drawn at random hold at least one of the `right` ones:
/// 1 - C(n - right, k) / C(n, k).
pub fn recall_by_chance(n: usize, right: usize, k: usize) -> f64 {
    let missed = (0..k.min(n)).map(|i| n.saturating_sub(right + i) as f64 / (n - i) as f64).product::<f64>();
    1.0 - missed
}

/// `acc1`, `acc5` (from five classes on) and `mean_per_class_recall` from each item's class and the rank of that class.
/// Mean per-class recall is taken over the classes that occur (scikit-learn's `balanced_accuracy_score`).
pub fn classification(labels: &[u32], ranks: &[usize], classes: usize) -> Vec<Measurement> {
    let items = ranks.len();
    let accuracy = |k: usize| {
        let value = share_below(ranks, k);
        measurement(&format!("acc{k}"), value, binomial_error(value, items), k as f64 / classes as f64, items)
    };
    let mut measured = vec![accuracy(1)];
    if classes >= 5 {
        measured.push(accuracy(5));
    }
    let mut tally = vec![(0_usize, 0_usize); classes];
    for (label, rank) in labels.iter().zip(ranks) {
        let (hits, seen) = &mut tally[*label as usize];
        *hits += usize::from(*rank == 0);
        *seen += 1;
    }
    let recalls: Vec<(f64, usize)> =
        tally.iter().filter(|(_, seen)| *seen > 0).map(|(hits, seen)| (*hits as f64 / *seen as f64, *seen)).collect();
    let present = recalls.len() as f64;
    let mean = recalls.iter().map(|(recall, _)| recall).sum::<f64>() / present;
    // Variance of a mean of independent shares.
    let variance = recalls.iter().map(|(recall, seen)| recall * (1.0 - recall) / *seen as f64).sum::<f64>();
    let error = variance.sqrt() / present;
    measured.push(measurement("mean_per_class_recall", mean, error, 1.0 / classes as f64, items));
    measured
}

/// `{direction}_retrieval_recall@k`, k = 1, 5, 10, from each query's rank and number of right answers among `n`.
pub fn retrieval(direction: &str, ranks: &[usize], right: &[usize], n: usize) -> Vec<Measurement> {
    let recall = |k: usize| {
        let value = share_below(ranks, k);
        let chance = right.iter().map(|right| recall_by_chance(n, *right, k)).sum::<f64>() / right.len() as f64;
        let name = format!("{direction}_retrieval_recall@{k}");
        measurement(&name, value, binomial_error(value, ranks.len()), chance, ranks.len())
    };
    [1, 5, 10].into_iter().filter(|k| *k <= n).map(recall).collect()
}

/// Mean loss of pairs with its standard error.
pub fn mean_loss(name: &str, losses: &[f64], chance: f64) -> Measurement {
    let n = losses.len() as f64;
    let mean = losses.iter().sum::<f64>() / n;
    let variance = losses.iter().map(|loss| (loss - mean).powi(2)).sum::<f64>() / (n - 1.0);
    measurement(name, mean, (variance / n).sqrt(), chance, losses.len())
}

/// For each item, how many items (itself included) have the same text, and a number that they share.
pub fn groups(texts: &[&str]) -> (Vec<usize>, Vec<usize>) {
    let mut number = std::collections::HashMap::new();
    let mut sizes: Vec<usize> = Vec::new();
    let groups: Vec<usize> = texts
        .iter()
        .map(|text| {
            let group = *number.entry(*text).or_insert(sizes.len());
            if group == sizes.len() {
                sizes.push(0);
            }
            sizes[group] += 1;
            group
        })
        .collect();
    let sizes = groups.iter().map(|group| sizes[*group]).collect();
    (groups, sizes)
}

fn measurement(metric: &str, value: f64, error: f64, chance: f64, count: usize) -> Measurement {
    Measurement {
        metric: metric.to_owned(),
        value,
        standard_error: error.is_finite().then_some(error),
        chance: Some(chance),
        count: Some(count as u64),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(measured: &[Measurement], metric: &str) -> f64 {
        measured.iter().find(|m| m.metric == metric).unwrap_or_else(|| panic!("{metric}")).value
    }

    #[test]
    fn rank_counts_wrong_items_before_the_best_right_one() {
        let scores = [0.1, 0.9, 0.5, 0.7];
        assert_eq!(rank(&scores, |i| i == 1), Some(0));
        assert_eq!(rank(&scores, |i| i == 2), Some(2));
        assert_eq!(rank(&scores, |i| i == 0 || i == 3), Some(1));
        assert_eq!(rank(&scores, |_| false), None);
    }

    #[test]
    fn ties_and_nan_count_against_the_model() {
        assert_eq!(rank(&[0.5; 4], |i| i == 2), Some(3));
        assert_eq!(rank(&[f32::NAN; 4], |i| i == 2), Some(3));
        assert_eq!(rank(&[f32::NAN, 1.0], |i| i == 1), Some(1));
    }

    #[test]
    fn classification_by_hand() {
        // Class 0: right, wrong, right. Class 2: wrong (rank 5). Class 1 and 3 do not occur.
        let measured = classification(&[0, 0, 0, 2], &[0, 3, 0, 5], 8);
        assert!((value(&measured, "acc1") - 0.5).abs() < 1e-12);
        assert!((value(&measured, "acc5") - 0.75).abs() < 1e-12);
        assert!((value(&measured, "mean_per_class_recall") - 1.0 / 3.0).abs() < 1e-12);
        let acc1 = &measured[0];
        assert_eq!((acc1.chance, acc1.standard_error, acc1.count), (Some(0.125), Some(0.25), Some(4)));
        // Variance of class 0's recall is 2/9 / 3; two classes occur.
        let expected = (2.0_f64 / 27.0).sqrt() / 2.0;
        assert!((measured[2].standard_error.unwrap_or_default() - expected).abs() < 1e-12);
        assert!(classification(&[0], &[0], 4).iter().all(|m| m.metric != "acc5"));
    }

    #[test]
    fn retrieval_by_hand_with_chance() {
        let measured = retrieval("image", &[0, 4, 9, 20], &[1, 1, 1, 2], 40);
        let recalls = ["@1", "@5", "@10"].map(|k| value(&measured, &format!("image_retrieval_recall{k}")));
        assert!(recalls.iter().zip([0.25, 0.5, 0.75]).all(|(found, right)| (found - right).abs() < 1e-12));
        // Two right of 40, one draw: 2/40; one right: 1/40.
        assert!((measured[0].chance.unwrap_or_default() - (3.0 / 40.0 + 2.0 / 40.0) / 4.0).abs() < 1e-12);
        assert!((recall_by_chance(4, 2, 2) - (1.0 - 1.0 / 6.0)).abs() < 1e-12);
        assert!((recall_by_chance(3, 1, 3) - 1.0).abs() < 1e-12 && (recall_by_chance(3, 2, 10) - 1.0).abs() < 1e-12);
    }

    #[test]
    fn loss_by_hand() {
        let measured = mean_loss("loss@1024", &[1.0, 3.0], 2.0);
        assert_eq!((measured.value, measured.standard_error, measured.count), (2.0, Some(1.0), Some(2)));
    }

    #[test]
    fn equal_texts_share_a_group() {
        let (groups, sizes) = groups(&["cat", "dog", "cat", "cow"]);
        assert!(groups[0] == groups[2] && groups[0] != groups[1] && groups[1] != groups[3]);
        assert_eq!(sizes, [2, 1, 2, 1]);
    }
}
