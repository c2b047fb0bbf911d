//! What the form for an agent says of each provider.

use crate::domain::Provider;

/// For people: a name, where a key comes from, and models to begin with. Any other model can be typed in.
pub(super) struct About {
    pub provider: Provider,
    pub name: &'static str,
    pub keys: Option<&'static str>,
    pub models: &'static [&'static str],
}

pub(super) fn all() -> impl Iterator<Item = About> {
    Provider::ALL.iter().copied().map(about)
}

const fn about(provider: Provider) -> About {
    let (name, keys, models): (_, _, &'static [&'static str]) = match provider {
        Provider::Openrouter => (
            "OpenRouter",
            Some("https://openrouter.ai/keys"),
            &[
                "openrouter/auto",
                "anthropic/claude-sonnet-4.5",
                "openai/gpt-5-mini",
                "google/gemini-2.5-flash",
                "meta-llama/llama-3.3-70b-instruct",
            ],
        ),
        Provider::Openai => (
            "OpenAI",
            Some("https://platform.openai.com/api-keys"),
            &["gpt-5-mini", "gpt-5", "gpt-4.1-mini", "gpt-4o-mini"],
        ),
        Provider::Anthropic => (
            "Anthropic",
            Some("https://console.anthropic.com/settings/keys"),
            &["claude-sonnet-4-5", "claude-haiku-4-5", "claude-opus-4-1"],
        ),
        Provider::Ollama => ("Ollama (on your own machine)", None, &["llama3.2", "qwen3", "gemma3", "mistral"]),
        Provider::Groq => (
            "Groq",
            Some("https://console.groq.com/keys"),
            &["llama-3.3-70b-versatile", "llama-3.1-8b-instant", "openai/gpt-oss-120b"],
        ),
        Provider::Gemini => (
            "Google Gemini",
            Some("https://aistudio.google.com/apikey"),
            &["gemini-2.5-flash", "gemini-2.5-pro", "gemini-2.0-flash"],
        ),
        Provider::Mistral => (
            "Mistral",
            Some("https://console.mistral.ai/api-keys"),
            &["mistral-small-latest", "mistral-large-latest", "ministral-8b-latest"],
        ),
        Provider::Deepseek => {
            ("DeepSeek", Some("https://platform.deepseek.com/api_keys"), &["deepseek-chat", "deepseek-reasoner"])
        }
    };
    About { provider, name, keys, models }
}
