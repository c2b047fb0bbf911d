//! Files of an instance.

use std::borrow::Cow;

use super::Secret;

/// A file inside an instance's data folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StagedFile {
    /// Relative to the data folder, e.g. `.zeroclaw/config.toml`.
    pub path: Cow<'static, str>,
    /// All of it; it may hold secrets.
    pub content: Secret<Vec<u8>>,
    /// Unix permission bits.
    pub mode: u32,
}
