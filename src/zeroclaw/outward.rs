//! What an instance calls by itself: addresses as they are from inside it, and the proxies on its way out.
//!
//! People write addresses as their machine has them. In a container the loopback is the container's own, where nothing of
//! theirs listens, so that it stands for the machine here: `http://127.0.0.1:11434` is `http://host.docker.internal:11434` inside.

use std::borrow::Cow;
use std::net::IpAddr;

use crate::domain::{AgentSpec, Provider, Secret};

/// The proxies that agents are told to use, by the variables that all programs know.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Proxies {
    /// For `https://` addresses; it may hold a user's name and password.
    pub https: Option<Secret<String>>,
    /// For `http://` addresses.
    pub http: Option<Secret<String>>,
    /// Hosts that are called without a proxy, separated by commas.
    pub except: String,
}

impl Proxies {
    setters! {
        with_https(https: impl Into<Secret<String>> => Some(https.into()));
        with_http(http: impl Into<Secret<String>> => Some(http.into()));
        with_except(except: impl Into<String> => except.into());
    }
}

/// This machine, whatever the settings say: a proxy elsewhere has a loopback of its own.
const NEVER: [&str; 3] = ["localhost", "127.0.0.1", "::1"];

impl Proxies {
    /// The variables of an instance that reaches this machine as `host`, in both spellings, since programs differ in which
    /// they read. None at all without a proxy.
    pub fn env(&self, host: &str) -> Vec<(String, Secret<String>)> {
        let mut env = Vec::new();
        let mut set = |name: &str, value: &str| {
            env.push((name.to_owned(), Secret::from(value)));
            env.push((name.to_lowercase(), Secret::from(value)));
        };
        for (name, proxy) in [("HTTPS_PROXY", &self.https), ("HTTP_PROXY", &self.http)] {
            if let Some(proxy) = proxy {
                set(name, &from_inside(proxy.expose(), host));
            }
        }
        if self.https.is_some() || self.http.is_some() {
            set("NO_PROXY", &self.exceptions(host));
        }
        env
    }

    fn exceptions(&self, host: &str) -> String {
        let configured = self.except.split(',').map(str::trim);
        let mut names: Vec<&str> = Vec::new();
        for name in NEVER.into_iter().chain([host]).chain(configured) {
            if !name.is_empty() && !names.contains(&name) {
                names.push(name);
            }
        }
        names.join(",")
    }
}

/// The agent as its instance gets it: with a model on this machine under the address that it has from inside.
pub fn spec_from_inside<'a>(spec: &'a AgentSpec, host: &str) -> Cow<'a, AgentSpec> {
    match spec.provider_url.as_deref().map(|url| from_inside(url, host)) {
        Some(Cow::Owned(url)) => Cow::Owned(AgentSpec { provider_url: Some(url), ..spec.clone() }),
        Some(Cow::Borrowed(_)) | None => Cow::Borrowed(spec),
    }
}

/// Whether the agent's model is a server of this machine, whatever that is from inside the instance.
pub fn is_on_this_machine(spec: &AgentSpec) -> bool {
    let Some(url) = &spec.provider_url else { return spec.provider == Provider::Ollama };
    url::Url::parse(url).is_ok_and(|url| url.host_str().is_some_and(is_this_machine))
}

/// The address with `host` in place of the loopback.
fn from_inside<'a>(url: &'a str, host: &str) -> Cow<'a, str> {
    let Ok(mut inside) = url::Url::parse(url) else { return Cow::Borrowed(url) };
    if host.is_empty() || is_this_machine(host) || !inside.host_str().is_some_and(is_this_machine) {
        return Cow::Borrowed(url);
    }
    match inside.set_host(Some(host)) {
        // The parser puts a slash behind an address without a path.
        Ok(()) if !url.ends_with('/') => Cow::Owned(inside.as_str().trim_end_matches('/').to_owned()),
        Ok(()) => Cow::Owned(inside.into()),
        Err(_) => Cow::Borrowed(url),
    }
}

/// `0.0.0.0` is where a server listens, but people copy it into addresses, and there it means this machine, too.
fn is_this_machine(host: &str) -> bool {
    let host = host.trim_start_matches('[').trim_end_matches(']').trim_end_matches('.');
    let by_address = |ip: IpAddr| ip.to_canonical().is_loopback() || ip.is_unspecified();
    host.eq_ignore_ascii_case("localhost")
        || host.to_ascii_lowercase().ends_with(".localhost")
        || host.parse().is_ok_and(by_address)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::Provider;

    #[test]
    fn loopback_becomes_the_machine_as_a_container_has_it() {
        for (written, inside) in [
            ("http://127.0.0.1:11434/v1", "http://host.test:11434/v1"),
            ("http://localhost:1234", "http://host.test:1234"),
            ("http://LOCALHOST.:1234/v1/", "http://host.test:1234/v1/"),
            ("http://[::1]:8080/v1", "http://host.test:8080/v1"),
            ("http://127.8.9.1/v1", "http://host.test/v1"),
            ("http://0.0.0.0:11434", "http://host.test:11434"),
            ("http://llm.localhost:1/v1", "http://host.test:1/v1"),
            ("http://[::ffff:127.0.0.1]:1/v1", "http://host.test:1/v1"),
        ] {
            assert_eq!(from_inside(written, "host.test"), inside, "{written}");
            assert_eq!(from_inside(written, "127.0.0.1"), written, "a process has the machine's own loopback");
            assert_eq!(from_inside(written, ""), written, "nobody knows how the machine is reached");
        }
        for other in
            ["https://api.example/v1", "http://10.0.0.7:11434", "http://localhost.example:1", "http://127.example"]
        {
            assert_eq!(from_inside(other, "host.test"), other);
        }
    }

    #[test]
    fn a_model_on_this_machine_is_one_by_its_address_or_by_default() {
        let on_it = |provider: Provider, url: Option<&str>| {
            is_on_this_machine(&AgentSpec { provider_url: url.map(Into::into), ..AgentSpec::new("a", provider, "m") })
        };
        assert!(on_it(Provider::Openai, Some("http://localhost:1234/v1")));
        assert!(on_it(Provider::Ollama, Some("http://[::1]:11434")) && on_it(Provider::Ollama, None));
        assert!(!on_it(Provider::Openai, None) && !on_it(Provider::Ollama, Some("http://ollama.models.svc:11434")));
    }

    #[test]
    fn only_an_address_on_this_machine_changes_the_agent() {
        let spec = |url: Option<&str>| AgentSpec {
            provider_url: url.map(Into::into),
            ..AgentSpec::new("a", Provider::Openai, "m")
        };
        let local = spec(Some("http://127.0.0.1:1/v1"));
        assert_eq!(*spec_from_inside(&local, "host.test"), spec(Some("http://host.test:1/v1")));
        for same in [spec(None), spec(Some("https://api.example/v1"))] {
            assert!(matches!(spec_from_inside(&same, "host.test"), Cow::Borrowed(_)));
        }
    }

    fn told(proxies: &Proxies, host: &str) -> Vec<(String, String)> {
        proxies.env(host).into_iter().map(|(name, value)| (name, value.expose().clone())).collect()
    }

    #[test]
    fn proxies_are_told_in_both_spellings_and_never_for_this_machine() {
        let proxies = Proxies {
            https: Some("http://u:p@127.0.0.1:3128".into()),
            http: None,
            except: "intern.example, localhost".into(),
        };
        let url = "http://u:p@host.test:3128".to_owned();
        let except = "localhost,127.0.0.1,::1,host.test,intern.example".to_owned();
        assert_eq!(
            told(&proxies, "host.test"),
            [
                ("HTTPS_PROXY".into(), url.clone()),
                ("https_proxy".into(), url),
                ("NO_PROXY".into(), except.clone()),
                ("no_proxy".into(), except),
            ]
        );
        assert_eq!(told(&proxies, "127.0.0.1")[0].1, "http://u:p@127.0.0.1:3128");
        assert_eq!(told(&proxies, "127.0.0.1")[2].1, "localhost,127.0.0.1,::1,intern.example");
        let none = Proxies { except: "intern.example".into(), ..Proxies::default() };
        assert_eq!(told(&none, "host.test"), [], "instances of before stay as they are");
    }
}
