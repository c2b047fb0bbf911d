//! What is wrong with a field, for people: where it is and how to correct it, without what was sent.

use std::fmt;

use serde::Serialize;

/// One field that cannot be accepted.
///
/// `pointer` is a JSON Pointer (RFC 6901) into the request body, `detail` a sentence with the remedy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct FieldError {
    /// Where the field is, as a JSON Pointer into the body.
    pub pointer: String,
    /// What is wrong and how to correct it, without what was sent.
    pub detail: String,
}

/// The field errors met while a request is read; all of them, so that one round trip is enough.
#[derive(Debug, Default, PartialEq)]
pub struct Problems(Vec<FieldError>);

impl Problems {
    /// Notes a field that cannot be accepted.
    pub fn push(&mut self, pointer: impl Into<String>, detail: impl Into<String>) {
        self.0.push(FieldError { pointer: pointer.into(), detail: detail.into() });
    }

    /// Keeps the value of a good field; notes a bad one under `pointer` and gives `None`.
    pub fn keep<T>(&mut self, pointer: &str, parsed: Result<T, String>) -> Option<T> {
        parsed.map_err(|detail| self.push(pointer, detail)).ok()
    }

    /// Whether nothing is wrong so far.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// All that was noted, in the order in which it was met.
    pub fn into_vec(self) -> Vec<FieldError> {
        self.0
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, FieldError { pointer, detail }) in self.0.iter().enumerate() {
            let separator = if index == 0 { "" } else { "; " };
            write!(f, "{separator}{pointer}: {detail}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Problems {}

/// A required text of `min..=max` characters (Unicode scalar values) without control characters.
///
/// # Errors
/// A sentence that names the allowed length or the control character's ban.
pub(super) fn text(value: &str, min: usize, max: usize) -> Result<String, String> {
    let length = value.chars().count();
    if length < min || length > max {
        return Err(format!("must have {min} to {max} characters, has {length}"));
    }
    if let Some(found) = value.chars().find(|c| c.is_control() && *c != '\n' && *c != '\t') {
        return Err(format!("must not contain control characters, has U+{:04X}", found as u32));
    }
    if let Some(found) = value.chars().find(|c| is_misleading(*c)) {
        return Err(format!("must not contain invisible or direction-changing characters, has U+{:04X}", found as u32));
    }
    if min > 0 && value.trim().is_empty() {
        return Err("must not be blank".into());
    }
    Ok(value.to_owned())
}

/// A name that is shown in lists and on terminals: a text on one line.
///
/// # Errors
/// As for every text.
pub fn label(value: &str, max: usize) -> Result<String, String> {
    if value.contains(['\n', '\t']) {
        return Err("must be on one line, without tabs".into());
    }
    text(value, 1, max)
}

/// Characters that make a text look like another one: they change its direction, show nothing, or are none.
pub fn is_misleading(c: char) -> bool {
    matches!(c,
        '\u{061c}' | '\u{200b}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}'
        | '\u{feff}' | '\u{fdd0}'..='\u{fdef}')
        || (c as u32) & 0xfffe == 0xfffe
}

/// A secret as it is sent in a header or an environment variable: 1 to `max` visible characters, no spaces.
pub(super) fn opaque(value: &str, max: usize) -> Result<(), String> {
    if value.is_empty() || value.len() > max {
        return Err(format!("must have 1 to {max} characters"));
    }
    if !value.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err("must consist of visible ASCII characters, without spaces or line breaks".into());
    }
    Ok(())
}
