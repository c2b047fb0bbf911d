//! The section `oidc`.

use std::path::PathBuf;

use serde::Deserialize;

use super::sections::{not_empty, origin};
#[cfg(feature = "oidc")]
use crate::domain::Secret;

/// Sign-in by an identity provider; the keys are there, and checked, in a build without it too.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Oidc {
    /// Empty: nobody signs in by a provider.
    issuer: String,
    client_id: String,
    /// A file with the client's secret alone in it; empty for a public client.
    pub client_secret_file: PathBuf,
    email_domains: Vec<String>,
    name: String,
    public_url: String,
}

impl Oidc {
    /// The provider, as the HTTP facade takes it; `None` where there is none. `secret`: what `client_secret_file` has.
    #[cfg(feature = "oidc")]
    pub fn options(&self, secret: Option<Secret<String>>) -> Option<crate::http::OidcOptions> {
        (!self.issuer.is_empty()).then(|| crate::http::OidcOptions {
            issuer: self.issuer.clone(),
            client_id: self.client_id.clone(),
            client_secret: secret,
            name: self.name.clone(),
            email_domains: self.email_domains.clone(),
            public_url: (!self.public_url.is_empty()).then(|| self.public_url.clone()),
        })
    }

    pub(super) fn check(&self) -> Vec<(&'static str, Result<(), String>)> {
        if self.issuer.is_empty() {
            let unused = |set: bool| {
                if set {
                    Err("has no effect without oidc.issuer; set that too, or leave this empty".into())
                } else {
                    Ok(())
                }
            };
            return vec![
                ("oidc.client_id", unused(!self.client_id.is_empty())),
                ("oidc.client_secret_file", unused(!self.client_secret_file.as_os_str().is_empty())),
                ("oidc.email_domains", unused(!self.email_domains.is_empty())),
                ("oidc.public_url", unused(!self.public_url.is_empty())),
            ];
        }
        let loopback = |url: &url::Url| matches!(url.host_str(), Some("localhost" | "127.0.0.1" | "[::1]"));
        if !cfg!(feature = "oidc") {
            let missing = "must be empty: this build has no sign-in by a provider; build it with the feature oidc";
            return vec![("oidc.issuer", Err(missing.into()))];
        }
        let parsed = url::Url::parse(&self.issuer).ok();
        let issuer = parsed.is_some_and(|url| url.scheme() == "https" || (url.scheme() == "http" && loopback(&url)));
        let issuer = if issuer { Ok(()) } else { Err("must be a URL that begins with https://".into()) };
        let name = |domain: &String| !domain.is_empty() && !domain.contains(['@', '*', '/', ' ']);
        let domains = if self.email_domains.iter().all(name) {
            Ok(())
        } else {
            Err("must have names such as example.com, without @ and *".into())
        };
        let public = if self.public_url.is_empty() { Ok(()) } else { origin(&self.public_url) };
        vec![
            ("oidc.issuer", issuer),
            ("oidc.client_id", not_empty(&self.client_id)),
            ("oidc.name", not_empty(&self.name)),
            ("oidc.email_domains", domains),
            ("oidc.public_url", public),
        ]
    }
}
