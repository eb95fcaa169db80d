//! A line that a runner wrote: read, or not, and never into something else.

use protocol::Event;

/// What is read as an event is written and read again as the same.
pub(super) fn check(bytes: &[u8]) {
    for line in bytes.split(|&byte| byte == b'\n') {
        let Ok(event) = serde_json::from_slice::<Event>(line) else { continue };
        let text = serde_json::to_string(&event).expect("an event can be written");
        let again: Event = serde_json::from_str(&text).expect("what we wrote can be read");
        // Text, since a loss may be NaN, which equals nothing.
        assert_eq!(serde_json::to_string(&again).expect("an event can be written"), text);
    }
}
