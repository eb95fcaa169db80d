//! Numbers as people write them: `128k`, `3e6`, `2B`, `1_000`; `30m`, `1h30m`; `10%`.

/// Suffixes of counts and powers of ten they stand for. Decimal: `1k` is 1,000.
const SUFFIXES: &[(char, i32)] = &[('k', 3), ('K', 3), ('M', 6), ('G', 9), ('B', 9), ('T', 12)];

/// Letters of a duration, seconds each.
const DURATION_UNITS: &[(char, u64)] = &[('s', 1), ('m', 60), ('h', 3_600), ('d', 86_400)];

/// Why a text is no quantity.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum QuantityError {
    /// Something else.
    #[error("not a number")]
    NotANumber,
    /// `2.5`, `1e-3`.
    #[error("not whole")]
    NotWhole,
    /// Beyond 64 bits.
    #[error("too large")]
    TooLarge,
    /// `-3`.
    #[error("negative")]
    Negative,
    /// `5m`: mega is `M`.
    #[error("`m` is no suffix of a number: `M` stands for a million")]
    LowerM,
    /// A duration without `s`, `m`, `h` or `d`.
    #[error("a unit is missing")]
    NoUnit,
}

/// A whole number: digits with `_` between them, a point and an exponent or a suffix as long as the value is whole.
/// Exact: no floating point on the way.
pub fn count(text: &str) -> Result<u64, QuantityError> {
    let text = text.trim();
    if let Some(rest) = text.strip_prefix('-') {
        return Err(count(rest).map_or_else(|error| error, |_| QuantityError::Negative));
    }
    let text = text.strip_prefix('+').unwrap_or(text);
    let (digits, power) = with_suffix(text)?;
    let (mantissa, exponent) = match digits.split_once(['e', 'E']) {
        // `3e6k` says the power twice.
        Some((mantissa, exponent)) if power == 0 => {
            let sign_free = exponent.strip_prefix(['+', '-']).unwrap_or(exponent);
            if sign_free.is_empty() || !sign_free.bytes().all(|byte| byte.is_ascii_digit()) {
                return Err(QuantityError::NotANumber);
            }
            let too_far = if exponent.starts_with('-') { QuantityError::NotWhole } else { QuantityError::TooLarge };
            (mantissa, exponent.parse::<i32>().ok().filter(|power| power.abs() <= 400).ok_or(too_far)?)
        }
        Some(_) => return Err(QuantityError::NotANumber),
        None => (digits, power),
    };
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let all: String = [digits_of(whole)?, digits_of(fraction)?].concat();
    if all.is_empty() || all.len() > 400 {
        return Err(if all.is_empty() { QuantityError::NotANumber } else { QuantityError::TooLarge });
    }
    let significant = all.trim_start_matches('0');
    if significant.is_empty() {
        return Ok(0);
    }
    let shift = exponent - i32::try_from(digits_of(fraction)?.len()).expect("short");
    let kept = significant.trim_end_matches('0');
    let zeros = shift + i32::try_from(significant.len() - kept.len()).expect("short");
    let zeros = u32::try_from(zeros).map_err(|_| QuantityError::NotWhole)?;
    let value: u64 = kept.parse().map_err(|_| QuantityError::TooLarge)?;
    10_u64.checked_pow(zeros).and_then(|power| value.checked_mul(power)).ok_or(QuantityError::TooLarge)
}

/// A real number, with the same suffixes.
pub fn number(text: &str) -> Result<f64, QuantityError> {
    let (digits, power) = with_suffix(text.trim())?;
    let plain: String = digits.chars().filter(|c| *c != '_').collect();
    let looks_right = plain.bytes().any(|byte| byte.is_ascii_digit())
        && plain.bytes().all(|byte| byte.is_ascii_digit() || b".eE+-".contains(&byte));
    if !looks_right || (power != 0 && plain.contains(['e', 'E'])) {
        return Err(QuantityError::NotANumber);
    }
    let written = if power == 0 { plain } else { format!("{plain}e{power}") };
    written.parse().map_err(|_| QuantityError::NotANumber)
}

/// `10%` as 10.
pub fn percent(text: &str) -> Result<f64, QuantityError> {
    number(text.trim().strip_suffix('%').ok_or(QuantityError::NotANumber)?.trim_end())
}

/// `90s`, `30m`, `1h30m`, `1.5h`, `2d` in seconds.
pub fn duration(text: &str) -> Result<u64, QuantityError> {
    let mut rest = text.trim();
    if rest.is_empty() {
        return Err(QuantityError::NotANumber);
    }
    let mut total = 0_u64;
    while !rest.is_empty() {
        let end = rest.find(|c: char| !(c.is_ascii_digit() || c == '.' || c == '_'));
        let Some(end) = end else { return Err(number(rest).map_or_else(|error| error, |_| QuantityError::NoUnit)) };
        let letter = rest[end..].chars().next().unwrap_or_default();
        let (_, secs) = DURATION_UNITS.iter().find(|(unit, _)| *unit == letter).ok_or(QuantityError::NotANumber)?;
        let secs = number(&rest[..end])? * *secs as f64;
        if secs.fract() != 0.0 {
            return Err(QuantityError::NotWhole);
        }
        let secs = if secs < 1e15 { secs as u64 } else { return Err(QuantityError::TooLarge) };
        total = total.checked_add(secs).ok_or(QuantityError::TooLarge)?;
        rest = rest[end + letter.len_utf8()..].trim_start();
    }
    Ok(total)
}

/// 1234567 as `1,234,567`.
pub fn grouped(value: u64) -> String {
    let digits = value.to_string();
    let mut text = String::new();
    for (position, digit) in digits.chars().enumerate() {
        if position > 0 && (digits.len() - position).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

fn with_suffix(text: &str) -> Result<(&str, i32), QuantityError> {
    if let Some((suffix, power)) = SUFFIXES.iter().find(|(suffix, _)| text.ends_with(*suffix)) {
        return Ok((text[..text.len() - suffix.len_utf8()].trim_end(), *power));
    }
    match text.strip_suffix('m') {
        // A digit before it, so that `mmm...` does not recurse.
        Some(rest) if rest.ends_with(|c: char| c.is_ascii_digit()) && number(rest).is_ok() => {
            Err(QuantityError::LowerM)
        }
        _ => Ok((text, 0)),
    }
}

/// Digits without the `_` between them.
fn digits_of(text: &str) -> Result<String, QuantityError> {
    let between = !text.starts_with('_') && !text.ends_with('_') && !text.contains("__");
    if !between || !text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'_') {
        return Err(QuantityError::NotANumber);
    }
    Ok(text.replace('_', ""))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn counts() {
        for (text, value) in [
            ("128k", 128_000),
            ("3e6", 3_000_000),
            ("2B", 2_000_000_000),
            ("1_000", 1_000),
            ("0.1M", 100_000),
            ("1.28M", 1_280_000),
            ("2.5e3", 2_500),
            ("1000e-3", 1),
            ("34G", 34_000_000_000),
            ("1T", 1_000_000_000_000),
            ("007", 7),
            ("0", 0),
            ("18446744073709551615", u64::MAX),
        ] {
            assert_eq!(count(text), Ok(value), "{text}");
        }
        for (text, error) in [
            ("", QuantityError::NotANumber),
            ("k", QuantityError::NotANumber),
            ("12kk", QuantityError::NotANumber),
            ("3e6k", QuantityError::NotANumber),
            ("1__0", QuantityError::NotANumber),
            ("_1", QuantityError::NotANumber),
            ("1e", QuantityError::NotANumber),
            ("NaN", QuantityError::NotANumber),
            ("2.5", QuantityError::NotWhole),
            ("1e-3", QuantityError::NotWhole),
            ("1e99999999999", QuantityError::TooLarge),
            ("18446744073709551616", QuantityError::TooLarge),
            ("-3k", QuantityError::Negative),
            ("5m", QuantityError::LowerM),
        ] {
            assert_eq!(count(text), Err(error), "{text}");
        }
    }

    #[test]
    fn durations() {
        for (text, secs) in [("90s", 90), ("30m", 1_800), ("1h30m", 5_400), ("1.5h", 5_400), ("2d", 172_800)] {
            assert_eq!(duration(text), Ok(secs), "{text}");
        }
        assert_eq!(duration("30"), Err(QuantityError::NoUnit));
        assert_eq!(duration("30x"), Err(QuantityError::NotANumber));
        assert_eq!(duration(""), Err(QuantityError::NotANumber));
        assert_eq!(duration("0.5s"), Err(QuantityError::NotWhole));
        assert_eq!(duration("99999999999999d"), Err(QuantityError::TooLarge));
    }

    #[test]
    fn numbers() {
        assert_eq!(number("1e-3"), Ok(1e-3));
        assert_eq!(number("2.5T"), Ok(2.5e12));
        assert_eq!(number("1_000.5"), Ok(1000.5));
        assert_eq!(number("nan"), Err(QuantityError::NotANumber));
        assert_eq!(number("e5"), Err(QuantityError::NotANumber));
        assert_eq!(percent("10%"), Ok(10.0));
        assert_eq!(percent("10"), Err(QuantityError::NotANumber));
        assert_eq!(grouped(1_234_567), "1,234,567");
        assert_eq!(grouped(123), "123");
    }

    proptest! {
        #[test]
        fn any_text_is_answered(text in "\\PC*") {
            let _ = (count(&text), number(&text), percent(&text), duration(&text));
        }

        #[test]
        fn near_numbers_are_answered(text in "[-+0-9_.eEkmMGBT%sh]{0,24}") {
            let _ = (count(&text), number(&text), percent(&text), duration(&text));
        }

        #[test]
        fn what_is_written_is_read(value in any::<u64>()) {
            prop_assert_eq!(count(&value.to_string()), Ok(value));
            prop_assert_eq!(count(&grouped(value).replace(',', "_")), Ok(value));
        }
    }
}
