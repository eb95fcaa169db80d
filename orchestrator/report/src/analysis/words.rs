//! A fitted law in words: its formula with numbers, its parameters with intervals.

use crate::number::{significant, superscript, with_interval};
use fit::{Fit, Interval, JOBS_MIN};

/// Times the value, from where an end of an interval says nothing.
const FAR: f64 = 1e6;

/// `E = 5.86 · C⁻⁰·¹¹¹`: the formula with the fitted values in place of the names. Definitions that follow the formula
/// are left out.
pub fn formula(fit: &Fit) -> String {
    let form = fit.form();
    let text = form.formula().split(", ").next().unwrap_or_default();
    filled(text, |name| fit.parameter(name).map(|interval| significant(interval.value, 3)))
}

/// `α −0.111 [−0.130, −0.095], β 5.86 [3.91, 9.93]`; held parameters without interval, and all of fewer
/// jobs than [`JOBS_MIN`].
pub fn intervals(fit: &Fit) -> String {
    of_parameters(fit, |_| true)
}

/// The same of a law of N and D's exponents alone, for where there is little room.
pub fn exponents(fit: &Fit) -> String {
    of_parameters(fit, |name| ["alpha", "beta"].contains(&name))
}

fn of_parameters(fit: &Fit, is_told: impl Fn(&str) -> bool) -> String {
    let few = fit.jobs < JOBS_MIN;
    let one = |parameter: &fit::Estimate| {
        let value = minus(&significant(parameter.interval.value, 3));
        let number = match (parameter.frozen, few) {
            (true, _) => format!("{value} (held)"),
            (false, true) => value,
            (false, false) => interval(&parameter.interval),
        };
        format!("{} {number}", symbol(parameter.name))
    };
    let told = fit.parameters.iter().filter(|parameter| is_told(parameter.name));
    let all = told.map(one).collect::<Vec<_>>().join(", ");
    if few { format!("{all}; {} jobs, too few for intervals", fit.jobs) } else { all }
}

/// A number with its interval.
pub fn interval(interval: &Interval) -> String {
    // An end millions of times away is none.
    let open = interval.high > FAR * interval.value.abs().max(1e-6);
    let interval = if open { Interval { high: f64::INFINITY, ..*interval } } else { *interval };
    if interval.low.is_finite() || interval.high.is_finite() {
        minus(&with_interval(&interval)).replace("inf", "∞")
    } else {
        format!("{} [no interval]", minus(&significant(interval.value, 3)))
    }
}

/// Greek for the names that are Greek.
pub fn symbol(name: &str) -> &str {
    match name {
        "alpha" => "α",
        "beta" => "β",
        "gamma" => "γ",
        "delta" => "δ",
        other => other,
    }
}

/// Minus signs instead of hyphens.
pub fn minus(text: &str) -> String {
    text.replace('-', "−")
}

/// Numbers in place of names right of the first `=`, exponents raised.
fn filled(formula: &str, value: impl Fn(&str) -> Option<String>) -> String {
    let (left, right) = formula.split_once('=').map_or(("", formula), |(left, right)| (left, right));
    let mut out = if left.is_empty() { String::new() } else { format!("{left}=") };
    let mut rest = right;
    while let Some(first) = rest.chars().next() {
        let raised = first == '^' && !rest.starts_with("^(");
        let sign = if raised && rest[1..].starts_with('-') { "-" } else { "" };
        let body = if raised { &rest[1 + sign.len()..] } else { rest };
        let length = body.find(|c: char| !(c.is_alphanumeric() || "_'.".contains(c))).unwrap_or(body.len());
        if length == 0 {
            out.push(first);
            rest = &rest[first.len_utf8()..];
            continue;
        }
        let (word, after) = body.split_at(length);
        let word = value(word).unwrap_or_else(|| symbol(word).to_owned());
        if raised {
            let exponent = format!("{sign}{word}").replace("--", "");
            if exponent.chars().all(|c| c.is_ascii_digit() || "-.".contains(c)) {
                out.push_str(&superscript(&exponent));
            } else {
                out.push('^');
                out.push_str(&exponent);
            }
        } else {
            out.push_str(&word);
        }
        rest = after;
    }
    minus(&out.replace(" * ", " · ").replace("+ -", "- "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_take_the_place_of_names() {
        let value = |name: &str| match name {
            "beta" => Some("5.86".to_owned()),
            "alpha" => Some("-0.111".to_owned()),
            "a" => Some("0.2".to_owned()),
            "e" => Some("0.01".to_owned()),
            "b" => Some("3".to_owned()),
            _ => None,
        };
        assert_eq!(filled("E = beta * C^alpha", value), "E = 5.86 · C⁻⁰·¹¹¹");
        assert_eq!(filled("E = b * C^-a + e", value), "E = 3 · C⁻⁰·² + 0.01");
        assert_eq!(filled("L = X + A/N^gamma", value), "L = X + A/N^γ");
        assert_eq!(filled("(E - e) = b * C^-alpha", value), "(E − e) = 3 · C⁰·¹¹¹");
    }
}
