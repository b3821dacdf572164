//! Numbers as the rest of the program sees them: one zero, one NaN, no infinity.

/// A number type of [`Values`](super::Values).
pub(crate) trait Value: bytemuck::Pod + Default + Send + Sync {
    /// −0 becomes +0 and every NaN the same NaN.
    fn canonical(self) -> Self;
    fn is_infinite(self) -> bool;
}

macro_rules! value {
    ($($number:ident),*) => {$(
        impl Value for $number {
            #[inline(always)]
            fn canonical(self) -> $number {
                let number = self + 0.0; // −0 + 0 is +0
                if number.is_nan() { $number::NAN } else { number }
            }
            #[inline(always)]
            fn is_infinite(self) -> bool {
                $number::is_infinite(self)
            }
        }
    )*};
}

value!(f32, f64);

/// Makes every value canonical and says whether one of them is infinite. No branch per value.
pub(crate) fn canonicalise<V: Value>(values: &mut [V]) -> bool {
    let mut infinite = false;
    for value in values {
        *value = value.canonical();
        infinite |= value.is_infinite();
    }
    infinite
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_one_zero_and_one_nan() {
        let mut values = [-0.0f32, 0.0, f32::from_bits(0xffc0_0001), f32::NAN, 1.5, f32::MIN_POSITIVE / 2.0];
        assert!(!canonicalise(&mut values));
        let bits: Vec<u32> = values.iter().map(|v| v.to_bits()).collect();
        assert_eq!(bits, [0, 0, f32::NAN.to_bits(), f32::NAN.to_bits(), 1.5f32.to_bits(), 0x0040_0000]);
        assert!(canonicalise(&mut [0.0, f64::NEG_INFINITY]));
    }
}
