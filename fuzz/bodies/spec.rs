//! A spec: understood, or mistakes that point into it.

use sweep::spec::{Source, parse};

/// Longer ones only take longer.
const LENGTH_MAX: usize = 16 << 10;

/// Reading is no matter of luck, and each mistake has words.
pub(super) fn check(bytes: &[u8]) {
    if bytes.len() > LENGTH_MAX {
        return;
    }
    let text = String::from_utf8_lossy(bytes);
    let source = Source::new("fuzz.yaml", &text);
    match (parse(&source), parse(&source)) {
        (Ok(one), Ok(other)) => assert_eq!(one, other),
        (Err(one), Err(other)) => {
            assert!(!one.mistakes.is_empty());
            assert_eq!(one.to_string(), other.to_string());
            for mistake in &one.mistakes {
                assert!(!mistake.to_string().is_empty());
                for label in labels(mistake) {
                    assert!(
                        label.0 + label.1 <= source.text().len(),
                        "{mistake} at {label:?} of {}",
                        source.text().len()
                    );
                }
            }
        }
        (one, other) => panic!("{one:?} and {other:?}"),
    }
}

/// Offsets and lengths of what a mistake points at.
fn labels(mistake: &dyn miette::Diagnostic) -> Vec<(usize, usize)> {
    let labels = mistake.labels().into_iter().flatten();
    labels.map(|label| (label.offset(), label.len())).collect()
}
