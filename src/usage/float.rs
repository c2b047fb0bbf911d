//! Whole numbers in few bits: exact while they are small, and near when they are large.

/// A float without a sign: an exponent in front of `mantissa` bits, at most `most`.
pub(super) fn float(value: u64, mantissa: u32, most: u16) -> u16 {
    let exponent = (u64::BITS - value.leading_zeros()).saturating_sub(mantissa + 1);
    // Rounded, which may carry into one bit more: that is the next exponent, as it is written.
    let rounded = if exponent == 0 { value } else { value.saturating_add(1 << (exponent - 1)) >> exponent };
    let written = (u64::from(exponent) << mantissa) + rounded;
    u16::try_from(written).unwrap_or(most).min(most)
}

/// What [`float`] wrote.
pub(super) const fn unfloat(written: u16, mantissa: u32) -> u64 {
    let one = 1 << mantissa;
    let written = written as u64;
    // The first two exponents are those of whole numbers.
    if written < 2 * one {
        return written;
    }
    (one + written % one) << ((written >> mantissa) - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_exact_while_small_and_near_when_large() {
        for (mantissa, most, exact) in [(7, 0xffe, 255), (11, 0xfffe, 4095)] {
            for value in 0..=exact {
                assert_eq!(unfloat(float(value, mantissa, most), mantissa), value);
            }
            for value in (0..30).map(|n| (exact << n) + 12_345 * n) {
                let read = unfloat(float(value, mantissa, most), mantissa);
                assert!(read.abs_diff(value) * exact <= value, "{value} is read as {read}");
            }
            assert!(float(u64::MAX, mantissa, most) == most, "the most, and not that nothing was measured");
            assert!((0..1 << 20).is_sorted_by_key(|value| float(value, mantissa, most)));
        }
    }
}
