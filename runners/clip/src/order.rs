//! Which sample stands at a position of training, and what random numbers it draws: functions of seed and position
//! alone, so that a resumed attempt continues exactly.

use rand::seq::SliceRandom;
use rand::{RngCore, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// Order of `unique` samples, shuffled anew for every pass over them.
#[derive(Debug)]
pub struct Order {
    seed: u64,
    unique: u64,
    epoch: u64,
    permutation: Vec<u32>,
}

impl Order {
    /// Order of `unique` samples under a seed.
    ///
    /// # Panics
    /// If `unique` is 0 or more than 2^32 - 1.
    pub fn new(seed: u64, unique: u64) -> Order {
        assert!((1..=u64::from(u32::MAX)).contains(&unique), "1 to 2^32 - 1 unique samples");
        Order { seed, unique, epoch: 0, permutation: permutation(seed, 0, unique) }
    }

    /// Index of the sample that is seen after `position` others.
    pub fn sample(&mut self, position: u64) -> usize {
        let epoch = position / self.unique;
        if epoch != self.epoch {
            self.epoch = epoch;
            self.permutation = permutation(self.seed, epoch, self.unique);
        }
        self.permutation[(position % self.unique) as usize] as usize
    }

    /// Indices of the `size` samples that are seen after `start` others.
    pub fn batch(&mut self, start: u64, size: u64) -> Vec<usize> {
        (start..start + size).map(|position| self.sample(position)).collect()
    }
}

fn permutation(seed: u64, epoch: u64, unique: u64) -> Vec<u32> {
    let mut rng = ChaCha8Rng::seed_from_u64(Draws::new(seed, epoch).next_u64());
    let mut permutation: Vec<u32> = (0..unique as u32).collect();
    permutation.shuffle(&mut rng);
    permutation
}

/// Random numbers of one position: SplitMix64 (Steele, Lea & Flood 2014) started from a hash of seed and position.
#[derive(Debug)]
pub struct Draws {
    state: u64,
}

impl Draws {
    /// The stream of `position` under `seed`.
    pub fn new(seed: u64, position: u64) -> Draws {
        let mut of_seed = Draws { state: seed };
        Draws { state: of_seed.next_u64() ^ position.wrapping_mul(0xD1B5_4A32_D192_ED03) }
    }

    /// Uniform in [0, 1).
    pub fn uniform(&mut self) -> f64 {
        (self.next_u64() >> 11) as f64 / (1_u64 << 53) as f64
    }
}

impl RngCore for Draws {
    fn next_u32(&mut self) -> u32 {
        (self.next_u64() >> 32) as u32
    }

    fn next_u64(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    fn fill_bytes(&mut self, bytes: &mut [u8]) {
        for chunk in bytes.chunks_mut(8) {
            chunk.copy_from_slice(&self.next_u64().to_le_bytes()[..chunk.len()]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_epoch_holds_every_sample_once_in_its_own_order() {
        let mut order = Order::new(5, 100);
        let epochs: Vec<Vec<usize>> = (0..3).map(|e| (0..100).map(|i| order.sample(100 * e + i)).collect()).collect();
        for epoch in &epochs {
            let mut sorted = epoch.clone();
            sorted.sort_unstable();
            assert_eq!(sorted, (0..100).collect::<Vec<_>>());
        }
        assert!(epochs[0] != epochs[1] && epochs[1] != epochs[2]);
    }

    #[test]
    fn position_alone_decides() {
        let (mut forward, mut jump) = (Order::new(9, 7), Order::new(9, 7));
        let all: Vec<usize> = (0..70).map(|p| forward.sample(p)).collect();
        assert!((0..70).rev().all(|p| jump.sample(p) == all[p as usize]));
        assert_eq!(Draws::new(1, 2).next_u64(), Draws::new(1, 2).next_u64());
        assert_ne!(Draws::new(1, 2).next_u64(), Draws::new(2, 1).next_u64());
    }

    #[test]
    fn draws_are_uniform_over_positions() {
        let mean = (0..10_000).map(|p| Draws::new(3, p).uniform()).sum::<f64>() / 10_000.0;
        assert!((mean - 0.5).abs() < 0.01, "{mean}");
    }
}
