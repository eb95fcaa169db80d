//! The learning rate of a step.

use protocol::{Recipe, Schedule};

/// Learning rate of the step that follows `step` others (`open_clip_train/scheduler.py`): rises as
/// lr (step + 1) / warmup, then half a cosine to 0, or constant, at the end with a straight line to 0.
pub fn learning_rate(recipe: &Recipe, step: u64, steps: u64) -> f64 {
    let warmup = recipe.warmup_steps(steps);
    if step < warmup {
        return recipe.lr * (step + 1) as f64 / warmup as f64;
    }
    match recipe.schedule {
        Schedule::Constant => recipe.lr,
        Schedule::ConstantCooldown => {
            let cooldown = recipe.cooldown_steps(steps);
            let cooled = (step + cooldown).saturating_sub(steps);
            if cooled == 0 { recipe.lr } else { (1.0 - cooled as f64 / cooldown as f64) * recipe.lr }
        }
        Schedule::Cosine => {
            let done = (step - warmup) as f64 / (steps - warmup) as f64;
            0.5 * (1.0 + (std::f64::consts::PI * done).cos()) * recipe.lr
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::optimizer::tests::recipe;

    #[test]
    fn learning_rate_rises_then_falls_to_zero() {
        let rates: Vec<f64> = (0..12).map(|step| learning_rate(&recipe(), step, 12)).collect();
        assert!((rates[0] - 0.025).abs() < 1e-12 && (rates[3] - 0.1).abs() < 1e-12 && (rates[4] - 0.1).abs() < 1e-12);
        assert!((rates[8] - 0.05).abs() < 1e-12 && rates[11] < 0.005);
        assert!((learning_rate(&Recipe { schedule: Schedule::Constant, ..recipe() }, 11, 12) - 0.1).abs() < 1e-12);
        assert!((learning_rate(&Recipe { warmup_samples: 0, ..recipe() }, 0, 12) - 0.1).abs() < 1e-12);
    }
}
