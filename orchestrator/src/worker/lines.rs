//! Lines of a runner's standard output, each bounded: a runner that writes without end costs its attempt, not memory.
//! A carriage return ends a line too: progress bars write nothing else.

use std::io;

use tokio::io::{AsyncBufRead, AsyncBufReadExt};

use crate::events::{Attempt, Taken, quote};

/// Bytes that are kept of a longer line.
const START_MAX: usize = 1 << 10;
/// Bytes of one line at most.
pub(super) const LINE_MAX: usize = 1 << 20;

/// A line as it was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Line {
    /// Without its line break.
    Whole(Vec<u8>),
    /// The last one, which has no line break: the writer may have been killed within it.
    Last(Vec<u8>),
    /// Longer than [`LINE_MAX`].
    TooLong {
        /// Its bytes.
        length: u64,
        /// The first of them.
        start: Vec<u8>,
    },
}

/// The next line; `None`: the end. What is behind the last line break counts as a line.
pub(super) async fn next_line(reader: &mut (impl AsyncBufRead + Unpin)) -> io::Result<Option<Line>> {
    let mut line = Vec::new();
    let mut length = 0_u64;
    loop {
        let chunk = reader.fill_buf().await?;
        if chunk.is_empty() {
            return Ok((length > 0).then(|| finish(line, length, Line::Last)));
        }
        let (part, used, ended) = match chunk.iter().position(|byte| b"\r\n".contains(byte)) {
            Some(at) => (&chunk[..at], at + 1, true),
            None => (chunk, chunk.len(), false),
        };
        length += part.len() as u64;
        if length <= LINE_MAX as u64 {
            line.extend_from_slice(part);
        } else {
            line.extend_from_slice(&part[..part.len().min(START_MAX)]);
            line.truncate(START_MAX);
            line.shrink_to_fit();
        }
        reader.consume(used);
        if ended {
            return Ok(Some(finish(line, length, Line::Whole)));
        }
    }
}

impl Line {
    /// What was kept of it.
    pub(super) fn bytes(&self) -> &[u8] {
        let (Line::Whole(bytes) | Line::Last(bytes) | Line::TooLong { start: bytes, .. }) = self;
        bytes
    }
}

/// What comes of a line.
pub(super) fn take_line(attempt: &mut Attempt<'_>, line: &Line) -> Taken {
    match line {
        Line::Whole(line) => attempt.take(line),
        Line::Last(line) => attempt.take_last(line),
        Line::TooLong { length, start } => Taken::Refused(format!(
            "the runner wrote a line of {length} bytes, at most {LINE_MAX} are read; the line: {}",
            quote(start)
        )),
    }
}

fn finish(line: Vec<u8>, length: u64, kept: fn(Vec<u8>) -> Line) -> Line {
    if length <= LINE_MAX as u64 { kept(line) } else { Line::TooLong { length, start: line } }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tokio::io::BufReader;

    use super::*;

    fn read_all(bytes: &[u8], capacity: usize) -> Vec<Line> {
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        runtime.block_on(async {
            let mut reader = BufReader::with_capacity(capacity, bytes);
            let mut lines = Vec::new();
            while let Some(line) = next_line(&mut reader).await.expect("memory does not fail") {
                lines.push(line);
            }
            lines
        })
    }

    #[test]
    fn a_line_over_the_limit_is_counted_and_not_kept() {
        let mut bytes = vec![b'x'; 3 * LINE_MAX];
        bytes.extend(b"\nshort\n");
        bytes.extend(vec![b'y'; LINE_MAX]);
        let lines = read_all(&bytes, 8 << 10);
        assert_eq!(lines[0], Line::TooLong { length: 3 * LINE_MAX as u64, start: vec![b'x'; START_MAX] });
        assert_eq!(lines[1], Line::Whole(b"short".to_vec()));
        assert_eq!(lines[2], Line::Last(vec![b'y'; LINE_MAX]));
        assert_eq!(lines.len(), 3);
    }

    #[test]
    fn a_progress_bar_is_many_lines() {
        let lines = read_all(b"\r 25%|#|\r 50%|##|\r{}\r\nend", 3);
        let text: Vec<&[u8]> = lines.iter().map(Line::bytes).collect();
        assert_eq!(text, [&b""[..], b" 25%|#|", b" 50%|##|", b"{}", b"", b"end"]);
    }

    proptest! {
        #[test]
        fn lines_are_those_between_line_breaks(
            bytes in proptest::collection::vec(prop_oneof![Just(b'\n'), Just(b'\r'), any::<u8>()], 0..200),
            capacity in 1_usize..40,
        ) {
            let mut expected: Vec<Line> = bytes.split(|byte| b"\r\n".contains(byte)).map(|line| Line::Whole(line.to_vec())).collect();
            match expected.pop() {
                Some(Line::Whole(last)) if !last.is_empty() => expected.push(Line::Last(last)),
                _ => {}
            }
            prop_assert_eq!(read_all(&bytes, capacity), expected);
        }
    }
}
