//! The identity provider: what it says of itself, and whom it vouches for.
//!
//! ```text
//! discovery and keys, kept for an hour ─► where to send the browser
//! code ─► token endpoint ─► ID token: signature, issuer, audience, time, nonce ─► a person
//! ```

use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use openidconnect::core::{CoreAuthenticationFlow, CoreClient, CoreIdTokenClaims, CoreProviderMetadata};
use openidconnect::{
    AccessTokenHash, AsyncHttpClient, AuthorizationCode, ClaimsVerificationError, ClientId, ClientSecret,
    ConfigurationError, CsrfToken, EndpointMaybeSet, EndpointNotSet, EndpointSet, HttpRequest, HttpResponse, IssuerUrl,
    Nonce, OAuth2TokenResponse, PkceCodeChallenge, PkceCodeVerifier, RedirectUrl, Scope, SignatureVerificationError,
    TokenResponse,
};
use rustls_platform_verifier::BuilderVerifierExt as _;
use tokio::sync::Mutex;
use tokio::time::{Instant, timeout};

use super::attempt::Attempt;
use crate::domain::{Identity, Secret};

/// How a service lets people in by an OpenID Connect provider.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct OidcOptions {
    /// Its URL; `/.well-known/openid-configuration` below it says the rest.
    pub issuer: String,
    /// What the provider knows this service as.
    pub client_id: String,
    /// None: the provider knows the service as a public client, and PKCE alone protects the code.
    pub client_secret: Option<Secret<String>>,
    /// What it is called on the button.
    pub name: String,
    /// Domains of the e-mail addresses that are let in; empty for all that the provider has verified.
    pub email_domains: Vec<String>,
    /// The service as browsers reach it; `None`: as the request says.
    pub public_url: Option<String>,
}

impl OidcOptions {
    /// A public client of the provider, which lets in whomever the provider has verified.
    pub fn new(issuer: impl Into<String>, client_id: impl Into<String>) -> Self {
        Self {
            issuer: issuer.into(),
            client_id: client_id.into(),
            client_secret: None,
            name: "the identity provider".into(),
            email_domains: Vec::new(),
            public_url: None,
        }
    }

    setters! {
        with_client_secret(client_secret: impl Into<Secret<String>> => Some(client_secret.into()));
        with_name(name: impl Into<String> => name.into());
        with_email_domains(email_domains: Vec<String>);
        with_public_url(public_url: impl Into<String> => Some(public_url.into()));
    }
}

/// Whom the provider vouches for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Person {
    pub identity: Identity,
    pub email: String,
}

/// Why nobody can be sent to the provider, or comes back as nobody.
#[derive(Debug, thiserror::Error)]
pub enum OidcError {
    #[error("the identity provider cannot be reached: {0}")]
    Unreachable(String),
    #[error("the identity provider did not accept the sign-in: {0}")]
    Rejected(String),
    #[error("what the identity provider said is not valid: {0}")]
    Invalid(String),
    #[error("the identity provider gave no e-mail address that it has verified")]
    NoEmail,
    #[error("e-mail addresses of this domain are not let in")]
    Domain,
}

/// All of one exchange with the provider.
const WITHIN: Duration = Duration::from_secs(15);
/// What the provider says of itself is asked for again after this time, and at once when it has signed with another key.
const KEPT: Duration = Duration::from_secs(60 * 60);
/// A provider that is away is not asked for each person who tries.
const AWAY: Duration = Duration::from_secs(5);
/// Documents and tokens have some kilobytes.
const MAX_ANSWER: usize = 1024 * 1024;

type Client =
    CoreClient<EndpointSet, EndpointNotSet, EndpointNotSet, EndpointNotSet, EndpointMaybeSet, EndpointMaybeSet>;

/// An OpenID Connect provider, with what it said of itself last.
#[derive(Debug)]
pub struct Provider {
    /// As they were given.
    pub options: OidcOptions,
    http: Transport,
    known: Mutex<Option<(Instant, Result<CoreProviderMetadata, String>)>>,
}

impl Provider {
    /// A provider that is asked for nothing until somebody signs in.
    ///
    /// # Errors
    /// The issuer is no URL, or the system has no TLS.
    pub fn new(options: OidcOptions) -> Result<Self, String> {
        IssuerUrl::new(options.issuer.clone()).map_err(|error| error.to_string())?;
        Ok(Self { http: Transport(http_client()?), known: Mutex::default(), options })
    }

    /// Where to send the browser, and what it has to bring back.
    pub(super) async fn begin(&self, redirect: &str, next: String) -> Result<(String, Attempt), OidcError> {
        let client = self.client(&self.metadata(false).await?, redirect)?;
        let (challenge, verifier) = PkceCodeChallenge::new_random_sha256();
        let (url, state, nonce) = client
            .authorize_url(CoreAuthenticationFlow::AuthorizationCode, CsrfToken::new_random, Nonce::new_random)
            .add_scope(Scope::new("email".into()))
            .set_pkce_challenge(challenge)
            .url();
        let attempt = Attempt {
            state: state.secret().as_str().into(),
            nonce: nonce.secret().as_str().into(),
            verifier: verifier.secret().as_str().into(),
            next,
        };
        Ok((url.into(), attempt))
    }

    /// Who has come back with this code.
    pub(super) async fn finish(&self, redirect: &str, code: String, attempt: &Attempt) -> Result<Person, OidcError> {
        let metadata = self.metadata(false).await?;
        let client = self.client(&metadata, redirect)?;
        let request = client.exchange_code(AuthorizationCode::new(code)).map_err(misconfigured)?;
        let verifier = PkceCodeVerifier::new(attempt.verifier.expose().clone());
        let asked = request.set_pkce_verifier(verifier).request_async(&self.http);
        let tokens = match timeout(WITHIN, asked).await {
            Ok(Ok(tokens)) => tokens,
            Ok(Err(openidconnect::RequestTokenError::Request(error))) => {
                return Err(OidcError::Unreachable(error.to_string()));
            }
            // Without the description: it may quote the code.
            Ok(Err(openidconnect::RequestTokenError::ServerResponse(refusal))) => {
                return Err(OidcError::Rejected(refusal.error().to_string()));
            }
            Ok(Err(error)) => return Err(OidcError::Invalid(error.to_string())),
            Err(_) => return Err(OidcError::Unreachable("it did not answer in time".into())),
        };
        let token = tokens.id_token().ok_or_else(|| OidcError::Invalid("there is no ID token".into()))?;
        let nonce = Nonce::new(attempt.nonce.expose().clone());
        let read = |client: &Client| -> Result<CoreIdTokenClaims, ClaimsVerificationError> {
            let verifier = client.id_token_verifier();
            let claims = token.claims(&verifier, &nonce)?.clone();
            if let Some(expected) = claims.access_token_hash() {
                let other = |error: String| ClaimsVerificationError::Other(error);
                let algorithm = token.signing_alg().map_err(|error| other(error.to_string()))?;
                let key = token.signing_key(&verifier).map_err(|error| other(error.to_string()))?;
                let actual = AccessTokenHash::from_token(tokens.access_token(), algorithm, key);
                if actual.map_err(|error| other(error.to_string()))? != *expected {
                    return Err(other("the access token is another one's".into()));
                }
            }
            Ok(claims)
        };
        let claims = match read(&client) {
            // The provider signs with a new key since we asked for its keys.
            Err(ClaimsVerificationError::SignatureVerification(SignatureVerificationError::NoMatchingKey)) => {
                read(&self.client(&self.metadata(true).await?, redirect)?)
            }
            claims => claims,
        };
        let claims = claims.map_err(|error| OidcError::Invalid(error.to_string()))?;
        self.person(&claims)
    }

    fn person(&self, claims: &CoreIdTokenClaims) -> Result<Person, OidcError> {
        let email = claims.email().filter(|_| claims.email_verified() == Some(true)).ok_or(OidcError::NoEmail)?;
        let email = email.trim().to_lowercase();
        let domain = email.rsplit_once('@').map(|(_, domain)| domain).ok_or(OidcError::NoEmail)?;
        let domains = &self.options.email_domains;
        if !domains.is_empty() && !domains.iter().any(|known| known.eq_ignore_ascii_case(domain)) {
            return Err(OidcError::Domain);
        }
        let identity =
            Identity { issuer: claims.issuer().as_str().to_owned(), subject: claims.subject().as_str().to_owned() };
        Ok(Person { identity, email })
    }

    fn client(&self, metadata: &CoreProviderMetadata, redirect: &str) -> Result<Client, OidcError> {
        let secret = self.options.client_secret.as_ref().map(|secret| ClientSecret::new(secret.expose().clone()));
        let redirect = RedirectUrl::new(redirect.to_owned())
            .map_err(|error| OidcError::Invalid(format!("the service's own address {redirect}: {error}")))?;
        let id = ClientId::new(self.options.client_id.clone());
        Ok(CoreClient::from_provider_metadata(metadata.clone(), id, secret).set_redirect_uri(redirect))
    }

    /// One question at a time: who comes while it is asked waits for the same answer.
    async fn metadata(&self, anew: bool) -> Result<CoreProviderMetadata, OidcError> {
        let mut known = self.known.lock().await;
        if let Some((asked, answer)) = &*known {
            let keep = if answer.is_ok() { KEPT } else { AWAY };
            // A token with a key that nobody has must not lead to a question each time.
            if asked.elapsed() < if anew { AWAY } else { keep } {
                return answer.clone().map_err(OidcError::Unreachable);
            }
        }
        let issuer = IssuerUrl::new(self.options.issuer.clone()).map_err(|it| OidcError::Invalid(it.to_string()))?;
        let answer = match timeout(WITHIN, CoreProviderMetadata::discover_async(issuer, &self.http)).await {
            Ok(answer) => answer.map_err(|error| chain(&error)),
            Err(_) => Err("it did not answer in time".into()),
        };
        // What it said before holds on where it does not say it again.
        let answer = match (&*known, answer) {
            (Some((_, Ok(before))), Err(error)) => {
                tracing::warn!(%error, "the identity provider does not say anew what it is");
                Ok(before.clone())
            }
            (_, answer) => answer,
        };
        *known = Some((Instant::now(), answer.clone()));
        answer.map_err(OidcError::Unreachable)
    }
}

/// Our client as the library wants it.
#[derive(Debug)]
struct Transport(reqwest::Client);

impl<'c> AsyncHttpClient<'c> for Transport {
    type Error = Unsent;
    type Future = BoxFuture<'c, Result<HttpResponse, Unsent>>;

    fn call(&'c self, request: HttpRequest) -> Self::Future {
        self.send(request).boxed()
    }
}

impl Transport {
    async fn send(&self, request: HttpRequest) -> Result<HttpResponse, Unsent> {
        let request = reqwest::Request::try_from(request).map_err(|error| Unsent(chain(&error)))?;
        let mut response = self.0.execute(request).await.map_err(|error| Unsent(chain(&error)))?;
        let mut body = Vec::new();
        while let Some(piece) = response.chunk().await.map_err(|error| Unsent(chain(&error)))? {
            if body.len() + piece.len() > MAX_ANSWER {
                return Err(Unsent("its answer is too long".into()));
            }
            body.extend_from_slice(&piece);
        }
        let mut answer = HttpResponse::new(body);
        *answer.status_mut() = response.status();
        *answer.headers_mut() = std::mem::take(response.headers_mut());
        Ok(answer)
    }
}

/// Why a request got no answer.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Unsent(String);

fn misconfigured(error: ConfigurationError) -> OidcError {
    OidcError::Invalid(error.to_string())
}

fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

/// Follows no redirect: a provider that was taken over could else send us to addresses of this machine's network.
fn http_client() -> Result<reqwest::Client, String> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let tls = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .and_then(|versions| versions.with_platform_verifier())
        .map_err(|error| error.to_string())?
        .with_no_client_auth();
    reqwest::Client::builder()
        .tls_backend_preconfigured(tls)
        .redirect(reqwest::redirect::Policy::none())
        .connect_timeout(Duration::from_secs(5))
        // Asked once in an hour: a connection that was kept is one that the provider is about to close.
        .pool_max_idle_per_host(0)
        .build()
        .map_err(|error| chain(&error))
}
