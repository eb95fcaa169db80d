//! Loss spikes: steps whose loss lies far above those before them.
//!
//! A loss is high if it is more than [`DEVIATIONS`] deviations above the median of the last [`WINDOW`] losses; a spike
//! begins with a high loss, and lasts until one is less than half as far above. Seven deviations from a rolling mean
//! are the spike score of OLMo 2 (Walsh et al. 2024, "2 OLMo 2 Furious"). Median and median absolute deviation stand
//! for mean and deviation here, so that a spike does not hide the next one, and only losses above count. High losses
//! enter the window too: a loss that stays is no spike any more once it is half of the window.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

/// Losses that one is compared with.
const WINDOW: usize = 128;
/// Without so many before it, a loss is not judged.
const LEAST: usize = 32;
/// How far above the median a high loss lies.
const DEVIATIONS: f64 = 7.0;
/// Of a normal distribution, over the median absolute deviation.
const OF_MAD: f64 = 1.4826;
/// The smallest deviation, as a share of the median: losses of a few steps may differ by next to nothing.
const SHARE_LEAST: f64 = 0.01;

/// What is known of the losses so far; kept in checkpoints, so that an interrupted job has the same spikes.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Spikes {
    /// Spikes so far.
    pub count: u64,
    /// Whether one lasts.
    lasts: bool,
    /// The last losses, oldest first.
    recent: VecDeque<f64>,
}

/// What a checkpoint keeps of the steps before it, beside weights and moments.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct History {
    /// Losses since the last report that was due by its step.
    pub losses: Vec<f64>,
    /// The last losses, and the spikes among them.
    pub spikes: Spikes,
    /// How often training went back after one.
    pub rollbacks: u64,
    /// Samples that were passed over then: data are read so far ahead of the samples seen.
    pub skipped_samples: u64,
}

impl Spikes {
    /// Takes the next step's loss, a finite number. `true`: a spike begins with it.
    pub fn take(&mut self, loss: f64) -> bool {
        let share = if self.lasts { 0.5 } else { 1.0 };
        let high = self.recent.len() >= LEAST && loss > self.limit(share);
        let begins = high && !self.lasts;
        self.lasts = high;
        self.count += u64::from(begins);
        if self.recent.len() == WINDOW {
            self.recent.pop_front();
        }
        self.recent.push_back(loss);
        begins
    }

    /// So much of the way to where losses are high.
    fn limit(&self, share: f64) -> f64 {
        let middle = median(self.recent.iter().copied().collect());
        let deviation = OF_MAD * median(self.recent.iter().map(|loss| (loss - middle).abs()).collect());
        middle + share * DEVIATIONS * deviation.max(SHARE_LEAST * middle.abs())
    }

    /// Whether nothing was taken.
    pub fn is_empty(&self) -> bool {
        self.recent.is_empty()
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
pub(crate) fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// The middle one; of an even number the upper of the two. Some there are.
fn median(mut values: Vec<f64>) -> f64 {
    let middle = values.len() / 2;
    *values.select_nth_unstable_by(middle, f64::total_cmp).1
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A falling loss with some noise.
    fn usual(step: u32) -> f64 {
        let noise = f64::from(step.wrapping_mul(2_654_435_761) % 1000) / 1000.0 - 0.5;
        1.0 + 2.5 * (-f64::from(step) / 150.0).exp() + 0.1 * noise
    }

    fn begun(losses: impl IntoIterator<Item = f64>) -> Vec<usize> {
        let mut spikes = Spikes::default();
        let at: Vec<usize> =
            losses.into_iter().enumerate().filter(|(_, loss)| spikes.take(*loss)).map(|(at, _)| at).collect();
        assert_eq!(spikes.count, at.len() as u64);
        at
    }

    #[test]
    fn what_falls_and_wavers_has_no_spike() {
        assert!(begun((0..2000).map(usual)).is_empty());
        assert!(begun(std::iter::repeat_n(3.4657, 500)).is_empty());
        // The first losses hardly differ: a little more is no spike.
        assert!(begun((0..40).map(|step| 3.4657 + 1e-6 * f64::from(step)).chain([3.6])).is_empty());
    }

    #[test]
    fn each_excursion_is_one_spike() {
        let high = |step: u32| if (300..305).contains(&step) || step == 310 { 1.5 } else { 0.0 };
        assert_eq!(begun((0..600).map(|step| usual(step) + high(step))), [300, 310]);
        // One that does not come back is one spike, and nothing more once it is what is usual.
        let stays = |step: u32| if step >= 300 { 1.5 } else { 0.0 };
        assert_eq!(begun((0..600).map(|step| usual(step) + stays(step))), [300]);
        assert!(begun([1.0; 20].into_iter().chain([9.0])).is_empty(), "too few to judge by");
    }
}
