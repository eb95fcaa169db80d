//! Values, which go over the wire as they lie in memory, and how two become one.

use bytemuck::Pod;

use crate::Element;

const _: () = assert!(cfg!(target_endian = "little"), "values are little-endian on the wire");

/// What a `TcpRing` moves.
pub(super) trait Value: Pod + Send + Sync {
    const ELEMENT: Element;
    fn sum(self, next: Self) -> Self;
    /// The larger, a NaN before all, `self` when they are equal.
    fn max(self, next: Self) -> Self;
}

macro_rules! values {
    ($($value:ident $element:ident $sum:expr, $is_nan:expr);*) => {$(
        impl Value for $value {
            const ELEMENT: Element = Element::$element;

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
}
