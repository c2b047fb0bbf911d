//! Values that ZeroClaw keeps encrypted in its file. Its key is not ours: such a value cannot be used, and as it stands it
//! would be sent to a provider or platform, or compared with what a client says.

use crate::domain::Secret;

/// What ZeroClaw puts in front, the second in older versions.
const MARKS: [&str; 2] = ["enc2:", "enc:"];

pub(super) fn is_encrypted(value: &Secret<String>) -> bool {
    MARKS.iter().any(|mark| value.expose().starts_with(mark))
}
