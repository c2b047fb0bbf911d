//! Model providers and memory backends.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Whose models an agent talks to; the text is ZeroClaw's `PROVIDER` value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "server", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Provider {
    /// <https://openrouter.ai>: models of many makers under one key.
    Openrouter,
    /// OpenAI, or with a URL of its own whatever speaks its API.
    Openai,
    /// Anthropic.
    Anthropic,
    /// Models on a machine of one's own; no key.
    Ollama,
    /// Groq.
    Groq,
    /// Google's Gemini.
    Gemini,
    /// Mistral.
    Mistral,
    /// DeepSeek.
    Deepseek,
}

impl Provider {
    /// Every provider there is.
    pub const ALL: &'static [Self] = &[
        Self::Openrouter,
        Self::Openai,
        Self::Anthropic,
        Self::Ollama,
        Self::Groq,
        Self::Gemini,
        Self::Mistral,
        Self::Deepseek,
    ];

    /// Its name in the API, and in ZeroClaw's `PROVIDER`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Openrouter => "openrouter",
            Self::Openai => "openai",
            Self::Anthropic => "anthropic",
            Self::Ollama => "ollama",
            Self::Groq => "groq",
            Self::Gemini => "gemini",
            Self::Mistral => "mistral",
            Self::Deepseek => "deepseek",
        }
    }

    /// A provider by its name.
    ///
    /// # Errors
    /// A sentence that lists the providers.
    pub fn parse(text: &str) -> Result<Self, String> {
        Self::ALL.iter().copied().find(|provider| provider.as_str() == text).ok_or_else(|| {
            "must be one of openrouter, openai, anthropic, ollama, groq, gemini, mistral, deepseek".into()
        })
    }

    /// Where the provider's API is, up to and without `/chat/completions` (`/messages` for Anthropic).
    pub const fn base_url(self) -> &'static str {
        match self {
            Self::Openrouter => "https://openrouter.ai/api/v1",
            Self::Openai => "https://api.openai.com/v1",
            Self::Anthropic => "https://api.anthropic.com/v1",
            Self::Ollama => "http://127.0.0.1:11434/v1",
            Self::Groq => "https://api.groq.com/openai/v1",
            Self::Gemini => "https://generativelanguage.googleapis.com/v1beta/openai",
            Self::Mistral => "https://api.mistral.ai/v1",
            Self::Deepseek => "https://api.deepseek.com/v1",
        }
    }

    /// Ollama runs locally and has no keys; all others want one.
    pub const fn needs_key(self) -> bool {
        !matches!(self, Self::Ollama)
    }
}

impl fmt::Display for Provider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Where an agent keeps what it remembers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "server", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum MemoryBackend {
    /// A database with a search over it.
    Sqlite,
    /// Text files that a person can read and edit.
    Markdown,
    /// Nothing is remembered beyond a conversation.
    None,
}

impl MemoryBackend {
    /// A backend by its name.
    ///
    /// # Errors
    /// A sentence that lists the backends.
    pub fn parse(text: &str) -> Result<Self, String> {
        match text {
            "sqlite" => Ok(Self::Sqlite),
            "markdown" => Ok(Self::Markdown),
            "none" => Ok(Self::None),
            _ => Err("must be one of sqlite, markdown, none".into()),
        }
    }

    /// Its name in the API.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Sqlite => "sqlite",
            Self::Markdown => "markdown",
            Self::None => "none",
        }
    }
}
