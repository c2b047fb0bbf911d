//! Sign-in by an OpenID Connect provider: the code flow with PKCE.
//!
//! ```text
//! browser ─► start ─► provider ─► callback?code&state ─► token ─► a session, and the page it came for
//! ```
//! Both routes are gone to by browsers, so what goes wrong leads a browser back to the page that it came from, with a
//! reason, and anything else to a problem.

mod attempt;
mod provider;

use axum::extract::{FromRequestParts, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};

use self::attempt::{Attempt, own_path};
use self::provider::{OidcError, Person};
pub use self::provider::{OidcOptions, Provider};
use super::audited::Behind;
use super::host;
use super::params::Params;
use super::problem::{Code, Problem};
use super::request::prefix_of;
use super::session::{Outside, visitor_of};
use super::sse::accepts;
use super::state::Api;
use crate::control::{SignInError, SignedIn, Visitor};

const SIGN_IN: &str = "/sign-in";

/// A browser on its way to the provider or back from it. It may come from another site: the provider's.
pub struct Traveller {
    visitor: Visitor,
    outside: Outside,
    headers: HeaderMap,
    /// The service's own address, without the prefix below which the router is nested.
    origin: String,
    prefix: String,
}

impl FromRequestParts<Api> for Traveller {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, api: &Api) -> Result<Self, Problem> {
        if !host::names_us(api, &parts.uri, &parts.headers) {
            return Err(host::unknown());
        }
        let options = api.options.oidc.as_ref().map(|provider| &provider.options);
        let public = options.and_then(|it| it.public_url.as_deref());
        let mut outside = Outside::of(&parts.headers);
        if let Some(public) = public {
            outside = Outside::at(public);
        }
        let authority = parts.uri.authority().map(|it| it.as_str());
        let host = authority.or_else(|| parts.headers.get(header::HOST)?.to_str().ok()).unwrap_or("localhost");
        let scheme = if outside.is_https() { "https" } else { "http" };
        Ok(Self {
            visitor: visitor_of(parts),
            origin: public.map_or_else(|| format!("{scheme}://{host}"), |url| url.trim_end_matches('/').to_owned()),
            outside,
            headers: parts.headers.clone(),
            prefix: prefix_of(&parts.extensions).to_owned(),
        })
    }
}

impl Traveller {
    fn redirect_url(&self) -> String {
        format!("{}{}/api/auth/oidc/callback", self.origin, self.prefix)
    }

    fn page(&self, path: &str) -> String {
        format!("{}{path}", self.prefix)
    }

    /// Back to the sign-in page with the reason, where a person is looking.
    fn turned_back(&self, why: Turned) -> Response {
        let reason = why.reason();
        let problem = why.problem();
        let mut response = if accepts(&self.headers, "text/html") {
            let mut response = found(&self.page(&format!("{SIGN_IN}?reason={reason}")));
            response.extensions_mut().insert(Behind(problem.code()));
            response
        } else {
            problem.into_response()
        };
        let forget = Attempt::no_cookie(self.outside.is_https());
        response.headers_mut().extend(forget.map(|cookie| (header::SET_COOKIE, cookie)));
        response
    }
}

/// Why somebody is not in.
enum Turned {
    /// The provider says no, or the person does.
    Denied(String),
    /// There is no attempt in this browser that the answer belongs to.
    NoAttempt,
    Provider(OidcError),
    SignIn(SignInError),
}

impl Turned {
    /// What the sign-in page has a sentence for.
    fn reason(&self) -> &'static str {
        match self {
            Self::Denied(_) => "denied",
            Self::NoAttempt => "again",
            Self::Provider(OidcError::NoEmail | OidcError::Domain) => "address",
            Self::Provider(_) => "provider",
            Self::SignIn(SignInError::Suspended) => "suspended",
            Self::SignIn(SignInError::OtherIdentity) => "identity",
            Self::SignIn(SignInError::TooSoon(_)) => "slow",
            Self::SignIn(_) => "failed",
        }
    }

    fn problem(self) -> Problem {
        match self {
            Self::Denied(error) => {
                tracing::info!(%error, "a sign-in ended at the identity provider");
                Problem::new(Code::Forbidden, "The sign-in was cancelled or refused at the identity provider.")
            }
            Self::NoAttempt => Problem::new(
                Code::Forbidden,
                "This sign-in was not begun in this browser, was used already, or took too long; begin again.",
            ),
            Self::Provider(OidcError::NoEmail) => Problem::new(
                Code::Forbidden,
                "The identity provider gave no e-mail address that it has verified; confirm your address there.",
            ),
            Self::Provider(OidcError::Domain) => {
                Problem::new(Code::Forbidden, "E-mail addresses of this domain are not let in; ask an administrator.")
            }
            Self::Provider(error) => {
                tracing::warn!(%error, "nobody can sign in by the identity provider");
                Problem::new(Code::IdentityProvider, "The identity provider cannot be used; the log says why.")
            }
            Self::SignIn(error) => error.into(),
        }
    }
}

/// Sends a browser to the identity provider. `next` is the page to go on with.
#[utoipa::path(
    get, path = "/api/auth/oidc/start", tag = "sign-in",
    params(("next" = Option<String>, Query, description = "A path of the console")),
    responses((status = 302, description = "To the identity provider", headers(("Location" = String), ("Set-Cookie" = String))))
)]
pub async fn start(state: State<Api>, traveller: Traveller, params: Params) -> Result<Response, Problem> {
    let provider = state.options.oidc.as_ref().ok_or_else(not_set_up)?;
    let next = params.text("next").and_then(own_path).unwrap_or("/").to_owned();
    let (url, attempt) = match provider.begin(&traveller.redirect_url(), next).await {
        Ok(begun) => begun,
        Err(error) => return Ok(traveller.turned_back(Turned::Provider(error))),
    };
    let mut response = found(&url);
    let cookie = attempt.cookie(traveller.outside.is_https());
    response.headers_mut().extend(cookie.map(|cookie| (header::SET_COOKIE, cookie)));
    Ok(response)
}

/// Where the identity provider sends the browser back to: opens the session, as [login](#operation/login) does, and makes
/// the account at the first time.
#[utoipa::path(
    get, path = "/api/auth/oidc/callback", tag = "sign-in",
    params(
        ("code" = Option<String>, Query, description = "The provider's"),
        ("state" = Option<String>, Query, description = "As the browser took it there"),
        ("error" = Option<String>, Query, description = "Instead of a code")
    ),
    responses((status = 302, description = "To the page that the sign-in was begun for", headers(("Location" = String), ("Set-Cookie" = String))))
)]
pub async fn callback(state: State<Api>, traveller: Traveller, params: Params) -> Result<Response, Problem> {
    if state.options.oidc.is_none() {
        return Err(not_set_up());
    }
    match come_back(&state, &traveller, &params).await {
        Ok((signed_in, next)) => {
            let https = traveller.outside.is_https();
            let mut response = found(&traveller.page(&next));
            let cookies = [traveller.outside.cookie(&signed_in), Attempt::no_cookie(https)];
            cookies.into_iter().flatten().for_each(|cookie| {
                response.headers_mut().append(header::SET_COOKIE, cookie);
            });
            Ok(response)
        }
        Err(why) => Ok(traveller.turned_back(why)),
    }
}

async fn come_back(api: &Api, traveller: &Traveller, params: &Params) -> Result<(SignedIn, String), Turned> {
    let provider = api.options.oidc.as_ref().ok_or(Turned::NoAttempt)?;
    let attempt = Attempt::of(&traveller.headers, traveller.outside.is_https()).ok_or(Turned::NoAttempt)?;
    // Also an error must be this browser's own, or any page could end its sign-in.
    if params.text("state").is_none_or(|state| attempt.state.expose() != state) {
        return Err(Turned::NoAttempt);
    }
    if let Some(error) = params.text("error") {
        return Err(Turned::Denied(error.chars().filter(|c| !c.is_control()).take(100).collect()));
    }
    let code = params.text("code").ok_or(Turned::NoAttempt)?.to_owned();
    api.plane.begin_sign_in(&traveller.visitor).map_err(Turned::SignIn)?;
    let person = provider.finish(&traveller.redirect_url(), code, &attempt).await.map_err(Turned::Provider)?;
    let Person { identity, email } = person;
    let signed_in = api.plane.sign_in_as(identity, email, traveller.visitor.clone()).await.map_err(Turned::SignIn)?;
    Ok((signed_in, attempt.next))
}

fn found(location: &str) -> Response {
    let mut response = StatusCode::FOUND.into_response();
    if let Ok(location) = HeaderValue::try_from(location) {
        response.headers_mut().insert(header::LOCATION, location);
    }
    response
}

fn not_set_up() -> Problem {
    Problem::new(
        Code::NotFound,
        "This service signs nobody in by an identity provider; see [oidc] in its configuration.",
    )
}
