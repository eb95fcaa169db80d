//! One text for one value: JSON with sorted keys, no spaces, and one spelling for each number.

use serde_json::Value;

/// Whole floats up to here are written without a point; beyond it not every whole number is a float.
const WHOLE_MAX: f64 = 9_007_199_254_740_992.0;

/// Canonical JSON of `value`. Keys are sorted by code point; whole floats are written as integers (`1.0` as `1`, `-0.0`
/// as `0`), other floats in the shortest form that reads back the same; text is not escaped beyond what JSON demands.
pub fn canonical(value: &Value) -> String {
    let mut text = String::new();
    write(value, &mut text);
    text
}

fn write(value: &Value, text: &mut String) {
    match value {
        Value::Number(number) => match number.as_f64() {
            Some(float) if number.is_f64() && float.fract() == 0.0 && float.abs() <= WHOLE_MAX => {
                text.push_str(&(float as i64).to_string());
            }
            _ => text.push_str(&number.to_string()),
        },
        Value::Array(list) => {
            text.push('[');
            for (position, value) in list.iter().enumerate() {
                if position > 0 {
                    text.push(',');
                }
                write(value, text);
            }
            text.push(']');
        }
        Value::Object(map) => {
            let mut entries: Vec<_> = map.iter().collect();
            entries.sort_unstable_by_key(|(key, _)| *key);
            text.push('{');
            for (position, (key, value)) in entries.into_iter().enumerate() {
                if position > 0 {
                    text.push(',');
                }
                text.push_str(&Value::from(key.as_str()).to_string());
                text.push(':');
                write(value, text);
            }
            text.push('}');
        }
        Value::Null | Value::Bool(_) | Value::String(_) => text.push_str(&value.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn of(json: &str) -> String {
        canonical(&serde_json::from_str(json).expect("JSON"))
    }

    #[test]
    fn golden() {
        assert_eq!(
            of(
                r#"{"b": 1.0, "a": [1e-6, 0.001, 1e-3, -0.0, 5e-4, 1e3, 1E18, 0.1], "é": "ü\n\u00fc", "Z": {"y": null, "x": true}, "n": -7}"#
            ),
            r#"{"Z":{"x":true,"y":null},"a":[1e-6,0.001,0.001,0,0.0005,1000,1e+18,0.1],"b":1,"n":-7,"é":"ü\nü"}"#
        );
        assert_eq!(of("[1, 1.0, 1e0, 10e-1, 18446744073709551615]"), "[1,1,1,1,18446744073709551615]");
    }

    proptest! {
        #[test]
        fn reads_back_as_the_same_number(number in any::<f64>().prop_filter("JSON has no others", |x| x.is_finite())) {
            let text = canonical(&Value::from(number));
            prop_assert_eq!(text.parse::<f64>().ok(), Some(number));
            prop_assert_eq!(of(&text), text);
        }
    }
}
