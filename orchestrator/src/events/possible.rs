//! Which values a measurement can have: one rule for runners and imports, so that no percent is stored as an accuracy.

/// What a metric's values may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Range {
    /// Nats: above zero.
    Loss,
    /// Of items that are right: accuracy, recall, precision.
    Fraction,
}

impl Range {
    /// Of a metric, by its name: losses are called so.
    pub fn of(metric: &str) -> Range {
        if metric.starts_with("loss") { Range::Loss } else { Range::Fraction }
    }

    /// Whether a value lies in it.
    pub fn holds(self, value: f64) -> bool {
        match self {
            Range::Loss => value > 0.0 && value.is_finite(),
            Range::Fraction => (0.0..=1.0).contains(&value),
        }
    }

    /// What is allowed, for messages.
    pub fn allowed(self) -> &'static str {
        match self {
            Range::Loss => "a loss has to be above 0",
            Range::Fraction => "a fraction has to lie between 0 and 1",
        }
    }
}
