//! Passwords: what may be one, and what is kept of it.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::secret::Secret;

/// A password that somebody wants to have. One that is only compared with a kept one may be anything.
#[derive(Debug, Clone)]
pub struct Password(Secret<String>);

impl Password {
    /// Below it, guesses that are worth a try are few. Longer is better than odd characters, so nothing else is asked for.
    pub const MIN_CHARS: usize = 12;
    /// A bound for the hash's work; a passphrase of thirty words fits.
    pub const MAX_BYTES: usize = 256;

    /// A password that is good enough to be kept.
    ///
    /// # Errors
    /// A sentence that says what it must be, without repeating it.
    pub fn parse(text: Secret<String>) -> Result<Self, String> {
        let (chars, bytes) = (text.expose().chars().count(), text.expose().len());
        let mut distinct: Vec<char> = text.expose().chars().collect();
        distinct.sort_unstable();
        distinct.dedup();
        if chars < Self::MIN_CHARS {
            Err(format!("must have {} characters or more; a few words are best", Self::MIN_CHARS))
        } else if bytes > Self::MAX_BYTES {
            Err(format!("must have at most {} bytes", Self::MAX_BYTES))
        } else if distinct.len() < 5 {
            Err("must have five different characters or more".into())
        } else {
            Ok(Self(text))
        }
    }

    /// The password itself, to be hashed. The caller must not log or store it.
    pub const fn expose(&self) -> &String {
        self.0.expose()
    }
}

/// A password's hash with its salt and its costs, as a PHC string. No secret in the strict sense, but whoever has it can
/// guess without being slowed down: so nothing shows it.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct PasswordHash(String);

impl PasswordHash {
    /// What was stored. It is read only when somebody signs in.
    pub const fn from_phc(text: String) -> Self {
        Self(text)
    }

    /// For storing and for comparing: <https://github.com/P-H-C/phc-string-format>.
    pub fn as_phc(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for PasswordHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[password hash]")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_ones_are_taken_whatever_they_are_made_of() {
        for (text, good) in [
            ("correct horse battery", true),
            ("zwölf Zeichen", true),
            ("elevenchars", false),
            ("", false),
            ("aaaaaaaaaaaaaaaa", false),
            (&"abcde ".repeat(50), false),
        ] {
            let parsed = Password::parse(Secret::from(text));
            assert_eq!(parsed.is_ok(), good, "{text:?}");
            if let (Err(remedy), false) = (parsed, text.is_empty()) {
                assert!(!remedy.contains(text));
            }
        }
    }
}
