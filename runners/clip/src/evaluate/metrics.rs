//! Metrics on plain slices, by CLIP_benchmark's definitions. No tensors, so every number can be checked by hand.
//!
//! Ties count against the model: an item that scores as much as the right one stands before it. A model that gives
//! every item the same score is thus no better than its worst case, not perfect. A score that is no number counts as a
//! tie. Plain retrieval alone has ties that are no fault of the model, captions that are equal: there CLIP_benchmark's
//! order is whatever `topk` gives, and ours is the mean over all orders.

use std::cmp::Ordering;

use protocol::Measurement;

/// How many of the wrong items stand before the best of the right ones: 0 means that a right one is first. `None` if no
/// item is right.
pub fn rank(scores: &[f32], is_right: impl Fn(usize) -> bool) -> Option<usize> {
    let best = (0..scores.len()).filter(|i| is_right(*i)).map(|i| scores[i]).reduce(f32::max)?;
    let before = |i: &usize| !is_right(*i) && !matches!(scores[*i].partial_cmp(&best), Some(Ordering::Less));
    Some((0..scores.len()).filter(before).count())
}

/// Where the best of the right items stands: wrong ones before it, and wrong and right ones of its score.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Standing {
    before: usize,
    tied_wrong: usize,
    tied_right: usize,
}

/// The standing of the best right item. A score that is no number counts as a tie.
pub fn standing(scores: &[f32], is_right: impl Fn(usize) -> bool) -> Standing {
    let mut found = Standing::default();
    let Some(best) = (0..scores.len()).filter(|i| is_right(*i)).map(|i| scores[i]).reduce(f32::max) else {
        return Standing { before: scores.len(), ..found };
    };
    for (item, score) in scores.iter().enumerate() {
        match score.partial_cmp(&best) {
            Some(Ordering::Less) => {}
            Some(Ordering::Greater) => found.before += 1,
            _ if is_right(item) => found.tied_right += 1,
            _ => found.tied_wrong += 1,
        }
    }
    found
}

/// How sure it is that a right item is among the first `k`.
pub trait Hit {
    /// 0 to 1.
    fn among(&self, k: usize) -> f64;
}

/// Yes or no.
impl Hit for usize {
    fn among(&self, k: usize) -> f64 {
        f64::from(u8::from(*self < k))
    }
}

/// The share of the orders of tied items in which it is.
impl Hit for Standing {
    fn among(&self, k: usize) -> f64 {
        recall_by_chance(self.tied_wrong + self.tied_right, self.tied_right, k.saturating_sub(self.before))
    }
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

/// `{name}@k`, k = 1, 5, 10, from where each query's answer stands and the number of its right answers among `n`.
pub fn retrieval(name: &str, hits: &[impl Hit], right: &[usize], n: usize) -> Vec<Measurement> {
    let recall = |k: usize| {
        let value = hits.iter().map(|hit| hit.among(k)).sum::<f64>() / hits.len() as f64;
        let chance = right.iter().map(|right| recall_by_chance(n, *right, k)).sum::<f64>() / right.len() as f64;
        measurement(&format!("{name}@{k}"), value, binomial_error(value, hits.len()), chance, hits.len())
    };
    [1, 5, 10].into_iter().filter(|k| *k <= n).map(recall).collect()
}

/// Average precision of one class, not interpolated: the mean, over its items, of the share of right ones among those
/// that score as high. 0 for a class without items.
pub fn average_precision(scores: &[f32], is_right: &[bool]) -> f64 {
    let mut order: Vec<usize> = (0..scores.len()).collect();
    // A score that is no number counts as the lowest; of equal ones the wrong items come first.
    let key = |i: usize| if scores[i].is_nan() { f32::NEG_INFINITY } else { scores[i] };
    order.sort_by(|a, b| key(*b).total_cmp(&key(*a)).then(is_right[*a].cmp(&is_right[*b])));
    let (mut found, mut sum) = (0_usize, 0.0);
    for (rank, item) in order.into_iter().enumerate() {
        if is_right[item] {
            found += 1;
            sum += found as f64 / (rank + 1) as f64;
        }
    }
    sum / found.max(1) as f64
}

/// What [`average_precision`] is on average where `right` of `n` items lie in a random order.
pub fn average_precision_by_chance(n: usize, right: usize) -> f64 {
    if right == 0 || n < 2 {
        return if right == 0 { 0.0 } else { 1.0 };
    }
    let (n, right) = (n as f64, right as f64);
    let harmonic = (1..=n as u64).map(|i| 1.0 / i as f64).sum::<f64>() / n;
    harmonic + (right - 1.0) / (n - 1.0) * (1.0 - harmonic)
}

/// `mean_average_precision` over the classes, from each item's scores, one a class, and whether it is of each class.
pub fn multilabel(scores: &[f32], is_right: &[bool], classes: usize) -> Measurement {
    let items = scores.len() / classes;
    let of_class = |class: usize| {
        let column = |i: &usize| i * classes + class;
        let right: Vec<bool> = (0..items).map(|i| is_right[column(&i)]).collect();
        let scores: Vec<f32> = (0..items).map(|i| scores[column(&i)]).collect();
        let chance = average_precision_by_chance(items, right.iter().filter(|right| **right).count());
        (average_precision(&scores, &right), chance)
    };
    let (sum, chance) = (0..classes).map(of_class).fold((0.0, 0.0), |sum, one| (sum.0 + one.0, sum.1 + one.1));
    let n = classes as f64;
    measurement("mean_average_precision", sum / n, f64::NAN, chance / n, items)
}

/// Mean loss of pairs with its standard error.
pub fn mean_loss(name: &str, losses: &[f64], chance: f64) -> Measurement {
    let n = losses.len() as f64;
    let mean = losses.iter().sum::<f64>() / n;
    let variance = losses.iter().map(|loss| (loss - mean).powi(2)).sum::<f64>() / (n - 1.0);
    measurement(name, mean, (variance / n).sqrt(), chance, losses.len())
}

/// A measurement; an error that is no number is left out.
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
        let measured = retrieval("image_retrieval_recall", &[0, 4, 9, 20], &[1, 1, 1, 2], 40);
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
    fn tied_items_stand_in_every_order() {
        // Two wrong before it; it and three wrong ones are tied.
        let scores = [0.5, 0.9, 0.5, 0.8, 0.5, 0.5, 0.1];
        let one = standing(&scores, |i| i == 2);
        assert_eq!(one, Standing { before: 2, tied_wrong: 3, tied_right: 1 });
        let among = |k: usize| one.among(k);
        assert!(
            [(1, 0.0), (2, 0.0), (3, 0.25), (5, 0.75), (6, 1.0)].iter().all(|(k, p)| (among(*k) - p).abs() < 1e-12)
        );
        assert!((standing(&[f32::NAN; 4], |i| i == 2).among(1) - 0.25).abs() < 1e-12, "no better than chance");
        assert!(standing(&scores, |_| false).among(10).abs() < 1e-12);
    }

    #[test]
    fn average_precision_by_hand() {
        // In order of score: right, wrong, right.
        let precision = average_precision(&[0.1, 0.9, 0.5], &[true, true, false]);
        assert!((precision - 5.0 / 6.0).abs() < 1e-12);
        assert!(
            (average_precision(&[0.5; 4], &[true, false, false, false]) - 0.25).abs() < 1e-12,
            "ties count against"
        );
        assert!(average_precision(&[0.5], &[false]).abs() < 1e-12);
        let two = multilabel(&[0.9, 0.1, 0.2, 0.3], &[true, false, false, false], 2);
        // One class is found first of two items (by chance 3/4), the other has no item.
        assert_eq!((two.metric.as_str(), two.value, two.standard_error), ("mean_average_precision", 0.5, None));
        assert_eq!((two.chance, two.count), (Some(0.375), Some(2)));
        assert!((average_precision_by_chance(3, 3) - 1.0).abs() < 1e-12);
        assert!((average_precision_by_chance(3, 1) - (1.0 + 0.5 + 1.0 / 3.0) / 3.0).abs() < 1e-12);
    }
}
