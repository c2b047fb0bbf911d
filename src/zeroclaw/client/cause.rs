//! Why a call failed, in one line.

use std::error::Error;
use std::fmt::Write;

/// The causes of an error, or itself where it has none: the outermost only says that a connection failed.
pub(super) fn chain(error: &dyn Error) -> String {
    let mut text = String::new();
    let mut cause = error.source().or(Some(error));
    while let Some(error) = cause {
        let separator = if text.is_empty() { "" } else { ": " };
        // Writing to a string cannot fail.
        let _ = write!(text, "{separator}{error}");
        cause = error.source();
    }
    text
}
