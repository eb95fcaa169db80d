//! Numbers as people read them.

use fit::Interval;

/// `digits` significant digits, without an exponent between 1e-4 and 1e6: `0.1114`, `5.86`, `1.20e9`.
pub fn significant(value: f64, digits: usize) -> String {
    if value == 0.0 {
        return "0".to_owned();
    }
    if !value.is_finite() {
        return if value.is_nan() {
            "n/a".to_owned()
        } else if value > 0.0 {
            "inf".to_owned()
        } else {
            "-inf".to_owned()
        };
    }
    // Rounded first, so that 9.996 counts as 10.0.
    let scientific = format!("{:.*e}", digits.saturating_sub(1), value);
    let exponent: i32 = scientific.split_once('e').and_then(|(_, exponent)| exponent.parse().ok()).unwrap_or(0);
    if (-4..6).contains(&exponent) {
        format!("{value:.*}", (i32::try_from(digits).unwrap_or(i32::MAX) - 1 - exponent).max(0) as usize)
    } else {
        scientific
    }
}

/// `-0.111 [-0.130, -0.095]`, all to the decimals that three digits of the smallest part of interest need.
pub fn with_interval(interval: &Interval) -> String {
    interval_by(interval, 2, |value| significant(value, 3))
}

/// The same for a page, where columns are narrow: the value has no more decimals than its interval; with minus signs,
/// and powers of ten where four digits don't do.
pub fn shown_interval(interval: &Interval) -> String {
    interval_by(interval, 0, shown).replace('-', "−")
}

/// A number on a page: four digits, beyond them a power of ten: `0.1114`, `93.52`, `1234`, `9.808 × 10⁷⁹`, `−0.5000`.
pub fn shown(value: f64) -> String {
    let text = significant(value, 4);
    let size = value.abs();
    let text = if !value.is_finite() || value == 0.0 || (1e-4..9999.5).contains(&size) {
        text
    } else {
        let scientific = format!("{value:.3e}");
        let (mantissa, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
        format!("{} × 10{}", trimmed(mantissa), superscript(exponent))
    };
    text.replace('-', "−")
}

/// Without zeros at its end.
fn trimmed(text: &str) -> &str {
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.') } else { text }
}

/// All to the decimals that two digits of the width need, and so many of the value, or each by `alone` where that would
/// be many.
fn interval_by(interval: &Interval, digits: i32, alone: impl Fn(f64) -> String) -> String {
    let apart = || format!("{} [{}, {}]", alone(interval.value), alone(interval.low), alone(interval.high));
    let width = interval.high - interval.low;
    let most = interval.low.abs().max(interval.high.abs()).max(interval.value.abs());
    // An end far from the value would be written in all its digits.
    if !width.is_finite() || width <= 0.0 || most >= 1e6 {
        return apart();
    }
    let of = |value: f64, digits: i32| digits - 1 - value.abs().max(1e-12).log10().floor() as i32;
    // On a page of half the width, which is what one reads as the error.
    let decimals = if digits > 0 { of(width, 2).max(of(interval.value, digits)) } else { of(width / 2.0, 2).max(0) };
    if !(0..=6).contains(&decimals) {
        return apart();
    }
    let decimals = decimals as usize;
    format!("{:.decimals$} [{:.decimals$}, {:.decimals$}]", interval.value, interval.low, interval.high)
}

/// Whole numbers of up to four digits as they are, larger ones with a suffix: `950`, `4096`, `12.3k`, `1.28M`, `34.7B`.
pub fn compact(value: f64) -> String {
    if value.fract() == 0.0 && value.abs() < 10_000.0 && value % 1000.0 != 0.0 {
        return value.to_string();
    }
    let (scaled, suffix) = match value.abs() {
        v if v < 999.5 => (value, ""),
        v if v < 999.5e3 => (value / 1e3, "k"),
        v if v < 999.5e6 => (value / 1e6, "M"),
        v if v < 999.5e9 => (value / 1e9, "B"),
        _ => return significant(value, 3),
    };
    let text = significant(scaled, 3);
    let text = if text.contains('.') && !text.contains('e') {
        text.trim_end_matches('0').trim_end_matches('.')
    } else {
        &text
    };
    format!("{text}{suffix}")
}

/// `1.2e12` as `1.2 × 10¹²`; `compact` below a million.
pub fn scientific(value: f64) -> String {
    if !value.is_finite() || value == 0.0 || (1e-3..1e6).contains(&value.abs()) {
        return if value.abs() < 1000.0 { significant(value, 3) } else { compact(value) };
    }
    let text = format!("{value:.2e}");
    let (mantissa, exponent) = text.split_once('e').unwrap_or((&text, "0"));
    format!("{mantissa} × 10{}", superscript(exponent))
}

/// Digits, minus and point as superscripts.
pub fn superscript(text: &str) -> String {
    text.chars()
        .map(|c| match c {
            '-' | '−' => '⁻',
            '.' => '·',
            '0' => '⁰',
            '1' => '¹',
            '2' => '²',
            '3' => '³',
            digit @ '4'..='9' => char::from_u32(0x2070 + (digit as u32 - '0' as u32)).unwrap_or(digit),
            other => other,
        })
        .collect()
}

/// Seconds as `3.2 s`, `4 min 10 s`, `2 h 05 min`.
pub fn duration(secs: f64) -> String {
    let whole = secs.round() as u64;
    match whole {
        _ if secs < 10.0 => format!("{secs:.1} s"),
        0..60 => format!("{whole} s"),
        60..3600 => format!("{} min {:02} s", whole / 60, whole % 60),
        _ => format!("{} h {:02} min", whole / 3600, whole % 3600 / 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits_are_sensible() {
        let shown = [0.1114, 5.8581, 9.996, 12345.0, 1.234e9, -0.00012, 0.0, f64::NAN].map(|v| significant(v, 3));
        assert_eq!(shown, ["0.111", "5.86", "10.0", "12345", "1.23e9", "-0.000120", "0", "n/a"]);
        let shown = [950.0, 1000.0, 4096.0, 12345.0, 128_000.0, 1.28e6, 3.47e10, 999_600.0].map(compact);
        assert_eq!(shown, ["950", "1k", "4096", "12.3k", "128k", "1.28M", "34.7B", "1M"]);
        assert_eq!([3.24, 59.6, 250.0, 7500.0].map(duration), ["3.2 s", "1 min 00 s", "4 min 10 s", "2 h 05 min"]);
        assert_eq!(scientific(1.234e12), "1.23 × 10¹²");
        let of = |value, low, high| with_interval(&Interval { value, low, high });
        assert_eq!(of(-0.1114, -0.1303, -0.0948), "-0.111 [-0.130, -0.095]");
        assert_eq!(of(5.858, 3.912, 9.93), "5.9 [3.9, 9.9]");
        assert_eq!(of(0.25, f64::NEG_INFINITY, f64::INFINITY), "0.250 [-inf, inf]");
        assert_eq!(of(1.2, 0.5, 9.807_701_31e79), "1.20 [0.500, 9.81e79]");
    }

    #[test]
    fn numbers_on_a_page_have_four_digits_at_most() {
        let numbers = [0.1114, -93.516, 1234.4, 12345.0, 9.8077e79, -1e-7, 0.0, 2e9].map(shown);
        assert_eq!(numbers, ["0.1114", "−93.52", "1234", "1.234 × 10⁴", "9.808 × 10⁷⁹", "−1 × 10⁻⁷", "0", "2 × 10⁹"]);
        let near_zero = Interval { value: -0.000_054, low: -0.007_14, high: 0.007_71 };
        assert_eq!(shown_interval(&near_zero), "−0.0001 [−0.0071, 0.0077]");
        let interval = shown_interval(&Interval { value: 1.2, low: -0.5, high: 9.807_701_31e79 });
        assert_eq!(interval, "1.200 [−0.5000, 9.808 × 10⁷⁹]");
    }
}
