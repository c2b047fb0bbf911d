//! The name of a conversation.

use std::fmt;

/// How a client names a conversation with an agent: 1 to 128 of `A-Z a-z 0-9 - _ .`, as ZeroClaw's gateway takes it. What
/// else it might hold would have to be quoted in a header, in a path and in a query.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct SessionName(String);

impl SessionName {
    /// Most characters.
    pub const MAX: usize = 128;

    /// A name that a client sent.
    ///
    /// # Errors
    /// A sentence that says what a name may be.
    pub fn parse(text: &str) -> Result<Self, String> {
        let plain = text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte));
        if plain && (1..=Self::MAX).contains(&text.len()) {
            Ok(Self(text.to_owned()))
        } else {
            Err(format!("must be 1 to {} of A-Z, a-z, 0-9, '-', '_' and '.'", Self::MAX))
        }
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for SessionName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_short_and_plain() {
        for text in ["a", "chat-1_b.C", &"x".repeat(128)] {
            assert_eq!(SessionName::parse(text).unwrap().as_str(), text);
        }
        for text in ["", "a b", "a/b", "é", "a\n", "a%2f", &"x".repeat(129)] {
            assert!(SessionName::parse(text).is_err(), "{text:?}");
        }
    }
}
