//! Values on the wire (little-endian) and how two become one.

use crate::Element;

/// What a `TcpRing` moves.
pub(super) trait Value: Copy + Send + Sync {
    const ELEMENT: Element;
    /// `bytes` = `values`.
    fn encode(values: &[Self], bytes: &mut Vec<u8>);
    /// `values` = `bytes`, whole values.
    fn decode(bytes: &[u8], values: &mut Vec<Self>);
    fn sum(self, next: Self) -> Self;
    /// The larger, a NaN before all, `self` when they are equal.
    fn max(self, next: Self) -> Self;
}

macro_rules! values {
    ($($value:ident $element:ident $sum:expr, $is_nan:expr);*) => {$(
        impl Value for $value {
            const ELEMENT: Element = Element::$element;

            fn encode(values: &[Self], bytes: &mut Vec<u8>) {
                bytes.resize(size_of_val(values), 0);
                for (to, value) in bytes.chunks_exact_mut(size_of::<Self>()).zip(values) {
                    to.copy_from_slice(&value.to_le_bytes());
                }
            }

            fn decode(bytes: &[u8], values: &mut Vec<Self>) {
                values.clear();
                let (whole, _) = bytes.as_chunks();
                values.extend(whole.iter().map(|bytes| Self::from_le_bytes(*bytes)));
            }

            fn sum(self, next: Self) -> Self {
                $sum(self, next)
            }

            fn max(self, next: Self) -> Self {
                let is_nan: fn(Self) -> bool = $is_nan;
                if next > self || (is_nan(next) && !is_nan(self)) { next } else { self }
            }
        }
    )*};
}

values! {
    f32 F32 |a, b| a + b, f32::is_nan;
    f64 F64 |a, b| a + b, f64::is_nan;
    i64 I64 i64::wrapping_add, |_| false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_larger_is_nan_before_all_and_the_first_of_equals() {
        assert!(Value::max(f32::NAN, 1.0).is_nan() && Value::max(1.0, f32::NAN).is_nan());
        assert!(Value::max(f32::INFINITY, f32::NAN).is_nan());
        assert!(Value::max(-0.0_f64, 0.0).is_sign_negative() && Value::max(0.0_f64, -0.0).is_sign_positive());
        assert_eq!(Value::max(-3_i64, 2), 2);
        assert_eq!(Value::sum(i64::MAX, 1), i64::MIN);
    }

    #[test]
    fn values_come_back_bit_by_bit() {
        let values = [0.0_f32, -0.0, f32::from_bits(0x7fc0_1234), f32::MIN_POSITIVE / 2.0];
        let (mut bytes, mut back) = (Vec::new(), Vec::new());
        f32::encode(&values, &mut bytes);
        assert_eq!(&bytes[8..12], [0x34, 0x12, 0xc0, 0x7f]);
        f32::decode(&bytes, &mut back);
        assert_eq!(values.map(f32::to_bits).to_vec(), back.iter().map(|v| v.to_bits()).collect::<Vec<_>>());
    }
}
