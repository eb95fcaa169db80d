//! How far a plan is with hashing pools that it has not seen before: a bar on a terminal, lines elsewhere.

use std::io::IsTerminal as _;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

use super::output::say;

/// Between two lines, where there is no bar.
const LINE_EVERY: Duration = Duration::from_secs(10);
/// Fewer bytes take no moment and are not told of.
const TOLD: u64 = 256 << 20;
/// More are better hashed where they lie.
const LARGE: u64 = 1 << 40;

/// For [`crate::plan::inputs::load`].
pub(super) fn progress() -> impl FnMut(&str, u64, u64) {
    let terminal = std::io::stderr().is_terminal();
    let mut told = Instant::now();
    let mut bar: Option<ProgressBar> = None;
    move |pool, done, total| {
        if total < TOLD {
            return;
        }
        if done == 0 {
            told = Instant::now();
            if total > LARGE {
                let size = total as f64 / 1e12;
                say(&format!(
                    "hint: `{pool}` has {size:.1} TB to hash: `sweep-pool index` does it where the shards lie"
                ));
            }
        }
        if terminal {
            let bar = bar.get_or_insert_with(|| {
                let form = "hashing {prefix} {bar:30} {bytes}/{total_bytes}  {bytes_per_sec}, {eta} left";
                let style = ProgressStyle::with_template(form).unwrap_or_else(|_| ProgressStyle::default_bar());
                ProgressBar::new(total).with_style(style).with_prefix(pool.to_owned())
            });
            bar.set_position(done);
        } else if told.elapsed() > LINE_EVERY {
            told = Instant::now();
            say(&format!("hashing {pool}: {:.1} of {:.1} GB", done as f64 / 1e9, total as f64 / 1e9));
        }
        if done == total {
            bar.take().iter().for_each(ProgressBar::finish_and_clear);
        }
    }
}
