//! Slugs: an agent's name in host names, container names and URLs.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A DNS label: 1 to 40 of `a-z 0-9 -`, no hyphen at either end, unique in an installation.
///
/// Forty, so that `zeroclaw-<slug>` stays within a DNS label's 63 characters with room for a suffix.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Slug(String);

/// Names that would shadow a host of the service itself.
const RESERVED: [&str; 6] = ["www", "api", "admin", "console", "status", "zeroone"];

impl Slug {
    /// Most characters.
    pub const MAX: usize = 40;

    /// A slug that a user chose.
    ///
    /// # Errors
    /// A sentence that says what a slug may be.
    pub fn parse(text: &str) -> Result<Self, String> {
        let valid = (1..=Self::MAX).contains(&text.len())
            && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
            && !text.starts_with('-')
            && !text.ends_with('-');
        if !valid {
            return Err("must be 1 to 40 of a-z, 0-9 and '-', without '-' at either end".into());
        }
        if RESERVED.contains(&text) {
            return Err("is reserved for the service; choose another".into());
        }
        Ok(Self(text.to_owned()))
    }

    /// The slug that a display name suggests: its letters and digits in lower case, the rest as single hyphens.
    /// A name without any of them gives `agent`.
    pub fn suggest(name: &str) -> Self {
        let mut slug = String::new();
        for c in name.chars().flat_map(char::to_lowercase) {
            if c.is_ascii_alphanumeric() {
                slug.push(c);
            } else if !slug.is_empty() && !slug.ends_with('-') {
                slug.push('-');
            }
        }
        slug.truncate(Self::MAX);
        Self::parse(slug.trim_end_matches('-')).unwrap_or_else(|_| Self("agent".into()))
    }

    /// This slug with `-suffix` behind it, shortened so that the whole stays within the limit.
    #[must_use]
    pub fn with_suffix(&self, suffix: &str) -> Self {
        let keep = Self::MAX - suffix.len().min(Self::MAX - 2) - 1;
        let stem = self.0[..self.0.len().min(keep)].trim_end_matches('-');
        Self(format!("{stem}-{suffix}"))
    }

    /// The label.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Slug {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl TryFrom<String> for Slug {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        Self::parse(&text)
    }
}

impl From<Slug> for String {
    fn from(slug: Slug) -> Self {
        slug.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_become_dns_labels() {
        for (name, slug) in [
            ("My Agent", "my-agent"),
            ("  A -- b!  ", "a-b"),
            ("Käse & Brot", "k-se-brot"),
            ("日本語", "agent"),
            ("\"\n[gateway]", "gateway"),
            ("API", "agent"),
        ] {
            assert_eq!(Slug::suggest(name).as_str(), slug, "{name:?}");
        }
    }

    #[test]
    fn what_is_no_dns_label_is_refused() {
        for text in ["", "-a", "a-", "A", "a_b", "a.b", &"a".repeat(41), "api", "ä"] {
            assert!(Slug::parse(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn a_suffix_fits_even_the_longest_slug() {
        let long = Slug::parse(&"a".repeat(40)).unwrap();
        assert_eq!(long.with_suffix("7f3a").as_str().len(), 40);
        assert!(Slug::parse(long.with_suffix("7f3a").as_str()).is_ok());
    }
}
