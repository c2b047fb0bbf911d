//! Who gets which secret: the servers of the model, and the platforms of the channels.
//!
//! Whoever may change the settings from outside must not learn a secret by that: one that is not written again goes to the
//! servers that it went to before, or to the one that it was made for, and to no other.

use super::config::Config;
use super::provider;
use crate::domain::Secret;

/// A secret, and a server that it is sent to.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Recipient {
    /// The key, or the channel's table, in `config.toml`.
    pub(super) of: &'static str,
    /// Scheme, host and port.
    pub(super) origin: String,
    pub(super) secret: Secret<String>,
    /// The server is the one that the secret was made for.
    pub(super) own: bool,
}

/// Whose secret would go to another server than before, though `sent`, which is to be the new file, does not have it.
pub(super) fn moved(before: &Config, after: &Config, sent: &str) -> Option<&'static str> {
    let known = of(before);
    let leads_elsewhere = |new: &Recipient| {
        let written = sent.contains(new.secret.expose().as_str());
        let same = |old: &Recipient| old.secret == new.secret && old.origin == new.origin;
        !new.own && !written && !known.iter().any(same)
    };
    of(after).iter().find(|new| leads_elsewhere(new)).map(|new| new.of)
}

/// Scheme, host and port of a base address.
pub(super) fn origin(base: &str) -> String {
    url::Url::parse(base).map_or_else(|_| base.to_owned(), |url| url.origin().ascii_serialization())
}

fn of(config: &Config) -> Vec<Recipient> {
    let own = |at: &str, key: &Secret<String>| {
        config.provider_keys.iter().any(|(provider, own)| own == key && origin(provider.base_url()) == at)
    };
    let of_models = provider::recipients(config).into_iter().map(|(origin, secret)| {
        let own = own(&origin, &secret);
        Recipient { of: "api_key", origin, secret, own }
    });
    of_models.chain(config.channels_config.recipients()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gateway::config_file;
    use crate::gateway::options::Options;

    fn config(text: &str, variables: &[(&str, &str)]) -> Config {
        config_file::effective(text, &Options::with_environment(variables)).unwrap().config
    }

    #[test]
    fn a_kept_secret_goes_where_it_went_or_where_it_belongs() {
        let key = "api_key = \"sk-1\"\n";
        let at = |url: &str| format!("default_provider = \"custom:{url}\"\n");
        let telegram = |rest: &str| format!("[channels_config.telegram]\nbot_token = \"1:t\"\n{rest}");
        let elsewhere = "api_base = \"http://h\"\n";
        for (before, after, sent, told) in [
            (at("http://a/v1") + key, at("http://a/v2") + key, "", None),
            (at("http://a/v1") + key, at("http://b/v1") + key, "", Some("api_key")),
            (at("https://a/v1") + key, at("http://a/v1") + key, "", Some("api_key")),
            (at("http://a/v1") + key, at("http://b/v1") + key, "api_key = 'sk-1'", None),
            (at("http://a/v1") + key, at("http://b/v1"), "", None),
            (telegram(""), telegram(elsewhere), "", Some("channels_config.telegram")),
            (telegram(elsewhere), telegram(""), "", None),
            (telegram("enabled = false\n"), telegram(""), "", None),
            (telegram("enabled = false\n"), telegram(elsewhere), "", Some("channels_config.telegram")),
        ] {
            assert_eq!(moved(&config(&before, &[]), &config(&after, &[]), sent), told, "{before} {after}");
        }
    }

    #[test]
    fn keys_of_the_environment_are_no_exception() {
        let variables = [("OPENAI_API_KEY", "sk-o"), ("GROQ_API_KEY", "sk-g")];
        let of = |text: &str| config(text, &variables);
        let groq = of("default_provider = \"groq\"\n");
        assert_eq!(moved(&groq, &of("default_provider = \"openai\"\n"), ""), None);
        let elsewhere = of("default_provider = \"openai\"\napi_url = \"http://b/v1\"\n");
        assert_eq!(moved(&groq, &elsewhere, ""), Some("api_key"));
    }
}
