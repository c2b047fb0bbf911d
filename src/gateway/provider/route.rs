//! Where calls of a provider go: which API it speaks, and at which addresses.
//!
//! People write base addresses with and without `/v1`, and with the last parts of an endpoint. A route therefore has one
//! address that is tried first and others for the case that there is nothing.

use std::net::IpAddr;

use reqwest::Url;

use crate::domain::Provider;

/// The API that a server speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Dialect {
    OpenAi,
    Anthropic,
    Gemini,
}

/// One address with its API.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Endpoint {
    pub(super) dialect: Dialect,
    /// The base; the last parts depend on the call.
    base: Url,
}

/// The addresses of a provider, the likeliest first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::gateway) struct Route {
    pub(super) endpoints: Vec<Endpoint>,
    /// Streams tell the token count only when asked to. Mistral always tells it, and refuses the question.
    pub(super) usage_on_request: bool,
}

/// What people write behind a base address.
const ENDINGS: [&str; 8] = [
    "/chat/completions",
    "/v1/messages",
    "/messages",
    "/completions",
    "/responses",
    "/embeddings",
    "/models",
    "/api/tags",
];

impl Route {
    /// Reads ZeroClaw's provider value: a name, `custom:<url>` (OpenAI's API) or `anthropic-custom:<url>`.
    /// `override_url` replaces a named provider's base URL.
    ///
    /// # Errors
    /// A sentence that does not repeat the value: a URL may hold a password.
    pub(in crate::gateway) fn parse(provider: &str, override_url: Option<&str>) -> Result<Self, String> {
        let provider = provider.trim();
        if let Some(url) = provider.strip_prefix("custom:") {
            return Ok(Self::openai(base(url)?));
        }
        if let Some(url) = provider.strip_prefix("anthropic-custom:") {
            return Ok(Self::anthropic(base(url)?));
        }
        let named = Provider::parse(&provider.to_ascii_lowercase())
            .map_err(|names| format!("the provider {names}, custom:<url> or anthropic-custom:<url>"))?;
        let overridden = override_url.map(str::trim).filter(|url| !url.is_empty());
        let route = match (named, overridden) {
            (Provider::Anthropic, url) => Self::anthropic(base(url.unwrap_or(named.base_url()))?),
            (Provider::Gemini, None) => Self::gemini(base(GEMINI)?),
            (Provider::Gemini, Some(url)) => Self::gemini(base(url)?),
            (_, url) => Self::openai(base(url.unwrap_or(named.base_url()))?),
        };
        Ok(Self { usage_on_request: route.usage_on_request && named != Provider::Mistral, ..route })
    }

    /// An OpenAI-compatible server. An address without a path is that of a server whose API is below `/v1`.
    fn openai(base: Url) -> Self {
        let path = base.path().trim_end_matches('/').to_owned();
        let other = match path.strip_suffix("/v1") {
            Some(without) => with_path(&base, without),
            None => with_path(&base, &format!("{path}/v1")),
        };
        let mut endpoints = vec![(Dialect::OpenAi, base), (Dialect::OpenAi, other)];
        if path.is_empty() {
            endpoints.swap(0, 1);
        }
        Self::of(endpoints)
    }

    fn anthropic(base: Url) -> Self {
        let path = base.path().trim_end_matches('/').to_owned();
        let root = path.strip_suffix("/v1").unwrap_or(&path);
        let versioned = with_path(&base, &format!("{root}/v1"));
        Self::of(vec![(Dialect::Anthropic, versioned), (Dialect::Anthropic, with_path(&base, root))])
    }

    /// Google's own API; below `/openai`, or where its own is not there, the compatible one.
    fn gemini(base: Url) -> Self {
        let path = base.path().trim_end_matches('/').to_owned();
        if path.split('/').any(|part| part == "openai") {
            return Self::openai(base);
        }
        let versioned = |version: &str| with_path(&base, &format!("{path}/{version}"));
        let endpoints = match path.rsplit('/').next().unwrap_or_default() {
            "" => vec![
                (Dialect::Gemini, versioned("v1beta")),
                (Dialect::OpenAi, versioned("v1")),
                (Dialect::OpenAi, base.clone()),
            ],
            "v1" => vec![(Dialect::OpenAi, base.clone()), (Dialect::Gemini, base.clone())],
            _ => vec![(Dialect::Gemini, base.clone()), (Dialect::OpenAi, base.clone())],
        };
        Self::of(endpoints)
    }

    fn of(endpoints: Vec<(Dialect, Url)>) -> Self {
        let mut list: Vec<Endpoint> = Vec::new();
        for (dialect, base) in endpoints {
            let endpoint = Endpoint { dialect, base };
            if !list.contains(&endpoint) {
                list.push(endpoint);
            }
        }
        Self { endpoints: list, usage_on_request: true }
    }

    /// Host and, where it is not the usual one, port.
    pub(in crate::gateway) fn host(&self) -> String {
        self.endpoints.first().map(Endpoint::host).unwrap_or_default()
    }
}

/// Google's API has its version in the path, and models below it.
const GEMINI: &str = "https://generativelanguage.googleapis.com/v1beta";

impl Endpoint {
    /// Where a call of this model goes.
    pub(super) fn url(&self, model: &str, streamed: bool) -> Url {
        let below = |end: &str| with_path(&self.base, &format!("{}{end}", self.base.path().trim_end_matches('/')));
        match self.dialect {
            Dialect::OpenAi => below("/chat/completions"),
            Dialect::Anthropic => below("/messages"),
            Dialect::Gemini => {
                let model = model.strip_prefix("models/").unwrap_or(model);
                let method = if streamed { "streamGenerateContent" } else { "generateContent" };
                let mut url = below(&format!("/models/{model}:{method}"));
                if streamed {
                    url.query_pairs_mut().append_pair("alt", "sse");
                }
                url
            }
        }
    }

    /// Where the models are listed: a call that costs nothing and proves the key.
    /// What is below the base address.
    pub(super) fn below(&self, path: &str) -> Url {
        with_path(&self.base, &format!("{}{path}", self.base.path().trim_end_matches('/')))
    }

    pub(super) fn host(&self) -> String {
        let host = self.base.host_str().unwrap_or_default();
        self.base.port().map_or(host.to_owned(), |port| format!("{host}:{port}"))
    }

    pub(super) fn as_str(&self) -> &str {
        self.base.as_str()
    }

    /// Scheme, host and port.
    pub(super) fn origin(&self) -> String {
        self.base.origin().ascii_serialization()
    }
}

/// A base address without the endings of an endpoint.
fn base(text: &str) -> Result<Url, String> {
    let mut url = Url::parse(text.trim()).map_err(|_| "the provider's URL is not a URL".to_owned())?;
    // A password in it would be shown wherever the provider is.
    let named = !url.username().is_empty() || url.password().is_some();
    if !matches!(url.scheme(), "http" | "https") || !url.has_host() || named {
        return Err("the provider's URL must start with http:// or https:// and have no user name".into());
    }
    url.set_fragment(None);
    let mut path = url.path().trim_end_matches('/').to_owned();
    if let Some(ending) = ENDINGS.iter().find(|ending| path.ends_with(*ending)) {
        path.truncate(path.len() - ending.len());
    }
    url.set_path(&path);
    Ok(url)
}

fn with_path(url: &Url, path: &str) -> Url {
    let mut url = url.clone();
    url.set_path(path);
    url
}

/// Whether a host is this machine: `localhost`, names below it, and loopback addresses.
pub(in crate::gateway) fn is_loopback_host(host: &str) -> bool {
    let host = host.trim_start_matches('[').trim_end_matches(']').trim_end_matches('.').to_ascii_lowercase();
    let by_address = host.parse::<IpAddr>().is_ok_and(|ip| ip.to_canonical().is_loopback());
    host == "localhost" || host.ends_with(".localhost") || by_address
}

#[cfg(test)]
mod tests {
    use super::*;

    fn urls(provider: &str, url: Option<&str>) -> Vec<String> {
        let route = Route::parse(provider, url).unwrap();
        route.endpoints.iter().map(|endpoint| endpoint.url("m", false).to_string()).collect()
    }

    fn first(provider: &str, url: Option<&str>) -> String {
        urls(provider, url).remove(0)
    }

    #[test]
    fn every_way_to_name_a_provider_leads_to_its_endpoint() {
        assert_eq!(first("groq", None), "https://api.groq.com/openai/v1/chat/completions");
        assert_eq!(first("OpenAI", Some("http://h:1/v1/")), "http://h:1/v1/chat/completions");
        assert_eq!(first("ollama", Some("http://h:11434")), "http://h:11434/v1/chat/completions");
        assert_eq!(first("custom:http://h:1/v1", Some("http://other")), "http://h:1/v1/chat/completions");
        assert_eq!(first("custom:http://h/v1/chat/completions", None), "http://h/v1/chat/completions");
        assert_eq!(first("custom:http://h/v1/models", None), "http://h/v1/chat/completions");
        assert_eq!(first("anthropic", None), "https://api.anthropic.com/v1/messages");
        assert_eq!(first("anthropic-custom:http://h:1", None), "http://h:1/v1/messages");
        assert_eq!(first("anthropic-custom:http://h:1/api/v1/messages", None), "http://h:1/api/v1/messages");
        assert_eq!(first("anthropic", Some("http://h:1/v1")), "http://h:1/v1/messages");
        let gemini = "https://generativelanguage.googleapis.com/v1beta/models/m:generateContent";
        assert_eq!(first("gemini", None), gemini);
        let compatible = "https://generativelanguage.googleapis.com/v1beta/openai";
        assert_eq!(first("gemini", Some(compatible)), format!("{compatible}/chat/completions"));
    }

    #[test]
    fn an_address_is_tried_with_and_without_v1() {
        assert_eq!(urls("custom:http://h:1", None), ["http://h:1/v1/chat/completions", "http://h:1/chat/completions"]);
        assert_eq!(urls("custom:http://h/v1", None), ["http://h/v1/chat/completions", "http://h/chat/completions"]);
        assert_eq!(
            urls("openai", Some("http://h/api")),
            ["http://h/api/chat/completions", "http://h/api/v1/chat/completions"]
        );
        assert_eq!(
            urls("gemini", Some("http://h:1")),
            [
                "http://h:1/v1beta/models/m:generateContent",
                "http://h:1/v1/chat/completions",
                "http://h:1/chat/completions"
            ]
        );
    }

    #[test]
    fn a_query_is_kept() {
        let azure = "custom:https://x.example/openai/deployments/d?api-version=2024-10-21";
        assert_eq!(
            first(azure, None),
            "https://x.example/openai/deployments/d/chat/completions?api-version=2024-10-21"
        );
    }

    #[test]
    fn what_is_no_provider_is_refused_without_being_repeated() {
        for bad in
            ["gtp", "custom:", "custom:ftp://planted@h", "custom:http://user:planted@h/v1", "anthropic-custom:planted"]
        {
            let error = Route::parse(bad, None).unwrap_err();
            assert!(!error.contains("planted"), "{error}");
        }
    }

    #[test]
    fn this_machine_has_several_names() {
        for host in ["localhost", "LOCALHOST.", "a.localhost", "127.8.8.8", "[::1]", "::ffff:127.0.0.1"] {
            assert!(is_loopback_host(host), "{host}");
        }
        for host in ["example.org", "10.0.0.1", "localhost.example", "host.docker.internal"] {
            assert!(!is_loopback_host(host), "{host}");
        }
    }
}
