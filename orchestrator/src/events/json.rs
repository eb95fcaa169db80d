//! JSON as programs write it: beside what the standard has, the bare numbers of Python (`NaN`, `Infinity`), numbers as
//! `+1` and `.5`, control characters within strings. Numbers keep their text, and an object all of its keys, so that
//! nothing is rounded or overwritten before somebody has looked at it.

use std::fmt;

/// Lists and objects within each other: deeper ones are refused, so that no line can exhaust the stack.
const DEPTH_MAX: usize = 32;

/// A value, its numbers as they were written.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Value<'a> {
    Null,
    Bool(bool),
    /// Anything that [`f64`] parses.
    Number(&'a str),
    Text(Text),
    List(Vec<Value<'a>>),
    /// In order; a key may stand there several times.
    Object(Vec<(String, Value<'a>)>),
}

/// A string.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Text {
    pub(super) text: String,
    /// Whether some of it was no Unicode, and is replaced.
    pub(super) is_lossy: bool,
}

/// Why something is no JSON.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct SyntaxError {
    /// Bytes before it.
    pub(super) at: usize,
    pub(super) problem: &'static str,
}

/// The value that begins at byte `start` of `bytes`, and where it ends.
pub(super) fn value_at(bytes: &[u8], start: usize) -> Result<(Value<'_>, usize), SyntaxError> {
    let mut parser = Parser { bytes, at: start };
    let value = parser.value(0)?;
    Ok((value, parser.at))
}

impl fmt::Display for Value<'_> {
    /// As JSON, or nearly: for messages.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Value::Null => f.write_str("null"),
            Value::Bool(value) => value.fmt(f),
            Value::Number(text) => f.write_str(text),
            Value::Text(text) => write!(f, "{:?}", text.text),
            Value::List(_) => f.write_str("a list"),
            Value::Object(_) => f.write_str("an object"),
        }
    }
}

struct Parser<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Parser<'a> {
    fn value(&mut self, depth: usize) -> Result<Value<'a>, SyntaxError> {
        if depth > DEPTH_MAX {
            return Err(self.error("lists and objects are nested too deeply"));
        }
        self.skip_space();
        match self.peek() {
            Some(b'{') => self.object(depth),
            Some(b'[') => self.list(depth),
            Some(b'"') => Ok(Value::Text(self.text()?)),
            Some(b'\'') => Err(self.error("a string stands in single quotes")),
            Some(_) => self.word(),
            None => Err(self.error("it ends too soon")),
        }
    }

    fn object(&mut self, depth: usize) -> Result<Value<'a>, SyntaxError> {
        self.at += 1;
        let mut entries = Vec::new();
        self.skip_space();
        if self.take(b'}') {
            return Ok(Value::Object(entries));
        }
        loop {
            self.skip_space();
            match self.peek() {
                Some(b'"') => {}
                Some(b'\'') => return Err(self.error("a key stands in single quotes")),
                Some(_) => return Err(self.error("a key in double quotes is missing")),
                None => return Err(self.error("it ends too soon")),
            }
            let key = self.text()?.text;
            self.skip_space();
            self.expect(b':', "a key without `:`")?;
            entries.push((key, self.value(depth + 1)?));
            self.skip_space();
            if self.take(b'}') {
                return Ok(Value::Object(entries));
            }
            self.expect(b',', "`,` or `}` is missing")?;
        }
    }

    fn list(&mut self, depth: usize) -> Result<Value<'a>, SyntaxError> {
        self.at += 1;
        let mut values = Vec::new();
        self.skip_space();
        if self.take(b']') {
            return Ok(Value::List(values));
        }
        loop {
            values.push(self.value(depth + 1)?);
            self.skip_space();
            if self.take(b']') {
                return Ok(Value::List(values));
            }
            self.expect(b',', "`,` or `]` is missing")?;
        }
    }

    /// A number, `null`, `true` or `false`.
    fn word(&mut self) -> Result<Value<'a>, SyntaxError> {
        let rest = &self.bytes[self.at..];
        let is_part = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'-' | b'.' | b'_');
        let length = rest.iter().position(|byte| !is_part(byte)).unwrap_or(rest.len());
        let word = std::str::from_utf8(&rest[..length]).unwrap_or_default();
        let value = match word {
            "null" => Value::Null,
            "true" => Value::Bool(true),
            "false" => Value::Bool(false),
            number if number.parse::<f64>().is_ok() => Value::Number(number),
            _ => return Err(self.error("a value is no number, string, list, object, true, false or null")),
        };
        self.at += length;
        Ok(value)
    }

    fn text(&mut self) -> Result<Text, SyntaxError> {
        self.at += 1;
        let mut bytes = Vec::new();
        let mut is_lossy = false;
        loop {
            match self.peek() {
                None => return Err(self.error("a string does not end")),
                Some(b'"') => break,
                Some(b'\\') => {
                    let c = self.escape()?;
                    is_lossy |= c.is_none();
                    let c = c.unwrap_or(char::REPLACEMENT_CHARACTER);
                    bytes.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
                }
                Some(byte) => {
                    bytes.push(byte);
                    self.at += 1;
                }
            }
        }
        self.at += 1;
        Ok(match String::from_utf8(bytes) {
            Ok(text) => Text { text, is_lossy },
            Err(error) => Text { text: String::from_utf8_lossy(error.as_bytes()).into_owned(), is_lossy: true },
        })
    }

    /// What an escape stands for; `None`: half of a surrogate pair.
    fn escape(&mut self) -> Result<Option<char>, SyntaxError> {
        let kind = self.bytes.get(self.at + 1).copied();
        let c = match kind {
            Some(b'"' | b'\\' | b'/') => kind.map(char::from),
            Some(b'b') => Some('\u{8}'),
            Some(b'f') => Some('\u{c}'),
            Some(b'n') => Some('\n'),
            Some(b'r') => Some('\r'),
            Some(b't') => Some('\t'),
            Some(b'u') => {
                let first = self.unit().ok_or_else(|| self.error("`\\u` without four hex digits"))?;
                self.at += 6;
                if !(0xd800..0xdc00).contains(&first) {
                    return Ok(char::from_u32(first));
                }
                let second = self.unit().filter(|second| (0xdc00..0xe000).contains(second));
                let Some(second) = second else { return Ok(None) };
                self.at += 6;
                return Ok(char::from_u32(0x10000 + ((first - 0xd800) << 10) + (second - 0xdc00)));
            }
            _ => return Err(self.error("an escape that JSON does not have")),
        };
        self.at += 2;
        Ok(c)
    }

    /// The number of the escape with four digits here.
    fn unit(&self) -> Option<u32> {
        let digits = self.bytes.get(self.at..self.at + 6)?.strip_prefix(b"\\u")?;
        let digits = std::str::from_utf8(digits).ok().filter(|text| text.bytes().all(|b| b.is_ascii_hexdigit()))?;
        u32::from_str_radix(digits, 16).ok()
    }

    fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    fn take(&mut self, byte: u8) -> bool {
        let is_here = self.peek() == Some(byte);
        self.at += usize::from(is_here);
        is_here
    }

    fn expect(&mut self, byte: u8, problem: &'static str) -> Result<(), SyntaxError> {
        match self.peek() {
            _ if self.take(byte) => Ok(()),
            None => Err(self.error("it ends too soon")),
            Some(_) => Err(self.error(problem)),
        }
    }

    fn skip_space(&mut self) {
        while self.peek().is_some_and(|byte| byte.is_ascii_whitespace()) {
            self.at += 1;
        }
    }

    fn error(&self, problem: &'static str) -> SyntaxError {
        SyntaxError { at: self.at, problem }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_python_writes_is_read_and_nothing_is_overwritten() {
        let text = r#" {"a":NaN, "b":[-Infinity,1e3,null,true],"a":"\u00e9\ud83d\ude00\n","c":{}}x"#;
        let (value, end) = value_at(text.as_bytes(), 0).unwrap();
        assert_eq!(&text[end..], "x");
        let Value::Object(entries) = value else { panic!("an object") };
        let keys: Vec<&str> = entries.iter().map(|(key, _)| key.as_str()).collect();
        assert_eq!(keys, ["a", "b", "a", "c"]);
        assert_eq!(entries[0].1, Value::Number("NaN"));
        assert_eq!(entries[2].1, Value::Text(Text { text: "\u{e9}\u{1f600}\n".to_owned(), is_lossy: false }));
    }

    #[test]
    fn what_is_no_json_is_told_with_its_place() {
        let error = |text: &str| value_at(text.as_bytes(), 0).map(|_| ()).unwrap_err();
        assert_eq!(error(r#"{"a":1"#), SyntaxError { at: 6, problem: "it ends too soon" });
        assert_eq!(error("{'a':1}").problem, "a key stands in single quotes");
        assert_eq!(error(r#"{"a":None}"#).at, 5);
        assert_eq!(error(&"[".repeat(100_000)).problem, "lists and objects are nested too deeply");
        for text in ["", "{", "[1", "[1 2]", r#"{"a" 1}"#, r#"{"a":}"#, r#"{"a":1,}"#, r#""\x""#, r#""\u12""#, "--1"] {
            error(text);
        }
        let lossy = |bytes: &[u8]| matches!(value_at(bytes, 0), Ok((Value::Text(text), _)) if text.is_lossy);
        assert!(lossy(b"\"\xff\"") && lossy(br#""\ud800""#) && !lossy(b"\"\\ufffd\""));
    }

    proptest! {
        #[test]
        fn strings_and_numbers_of_serde_are_read_back(text in any::<String>(), number in any::<f64>()) {
            let written = serde_json::to_string(&text).unwrap();
            let expected = Value::Text(Text { text, is_lossy: false });
            prop_assert_eq!(value_at(written.as_bytes(), 0).unwrap().0, expected);
            if number.is_finite() {
                let written = serde_json::to_string(&number).unwrap();
                let Ok((Value::Number(read), _)) = value_at(written.as_bytes(), 0) else { panic!("a number") };
                prop_assert_eq!(read.parse::<f64>().unwrap().to_bits(), number.to_bits());
            }
        }
    }
}
