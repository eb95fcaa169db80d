//! A line that a runner wrote: an event, words or unclear, and never something else.

use sweep::events::{Reading, read_line};

/// Whatever the bytes, there is an answer; what is read as an event is written and read again as the same.
pub(super) fn check(bytes: &[u8]) {
    for line in bytes.split(|&byte| byte == b'\n') {
        let Reading::Event { event, .. } = read_line(line) else { continue };
        let text = serde_json::to_string(&event).expect("an event can be written");
        let Reading::Event { event: again, ignored } = read_line(text.as_bytes()) else { panic!("not read: {text}") };
        assert!(ignored.is_empty(), "{ignored:?} of {text}");
        // Text, since a loss may be NaN, which equals nothing.
        assert_eq!(serde_json::to_string(&again).expect("an event can be written"), text);
    }
}
