//! The cookie of a session, and where requests that carry it may come from.
//!
//! ```text
//! HttpOnly       no script reads it                 SameSite=Strict   no other site's page sends it
//! Secure         where the browser came by https    host only         no agent's own host name gets it
//! ```
//! SameSite is not enough: an agent's page at `<slug>.<domain>` is of the same site. So what changes something, and a
//! WebSocket, must say that it comes from this very origin; browsers say it by themselves, and no page can make them lie.

use axum::extract::{FromRequestParts, Request};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, header};

use super::host;
use super::problem::{Code, Problem};
use super::request::address_of;
use super::state::Api;
use crate::control::{SignedIn, Visitor};
use crate::domain::{Secret, elapsed};

pub const COOKIE: &str = "zeroone_session";
const FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");
pub const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");

/// The session's token.
pub fn token(headers: &HeaderMap) -> Option<Secret<String>> {
    only_cookie(headers, COOKIE).map(Secret::from)
}

/// A cookie's value. None where there are two: a page of the same site can add one, but cannot take ours away.
pub fn only_cookie<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    let mut found = headers
        .get_all(header::COOKIE)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|cookies| cookies.split(';'))
        .filter_map(|cookie| cookie.trim().split_once('='))
        .filter(|(found, _)| *found == name);
    let (_, value) = found.next()?;
    found.next().is_none().then_some(value)
}

/// Whether a request with a session may be followed.
///
/// # Errors
/// It names a host that is not this service, or changes something and comes from elsewhere.
pub fn check(api: &Api, request: &Request) -> Result<(), Problem> {
    if !host::is_known(api, request) {
        return Err(host::unknown());
    }
    let (method, headers) = (request.method(), request.headers());
    if changes(method, headers) && !is_same_origin(headers, request.uri().authority().map(|it| it.as_str())) {
        return Err(cross_origin());
    }
    Ok(())
}

fn changes(method: &Method, headers: &HeaderMap) -> bool {
    // A WebSocket is opened by a GET, and no preflight comes before it.
    !method.is_safe() || headers.contains_key(header::UPGRADE)
}

/// Whether the browser says that the page is of this origin. What says nothing is no browser: all send one of the headers
/// with what is no plain read.
fn is_same_origin(headers: &HeaderMap, authority: Option<&str>) -> bool {
    if let Some(site) = headers.get(FETCH_SITE) {
        return site == "same-origin";
    }
    let Some(origin) = headers.get(header::ORIGIN) else { return true };
    let host = authority.or_else(|| headers.get(header::HOST)?.to_str().ok());
    let origin = origin.to_str().ok().and_then(|origin| origin.split_once("://"));
    matches!((origin, host), (Some((_, origin)), Some(host)) if origin.eq_ignore_ascii_case(host))
}

fn cross_origin() -> Problem {
    Problem::new(
        Code::Forbidden,
        "A page of another origin may not do this with your session; use this service's own pages.",
    )
}

/// Who wants to sign in: from a page of ours, or with no browser at all.
pub struct FromHere(pub Visitor, pub Outside);

/// Whether the browser reaches the service by https.
#[derive(Debug, Clone, Copy)]
pub struct Outside {
    https: bool,
}

impl FromRequestParts<Api> for FromHere {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, api: &Api) -> Result<Self, Problem> {
        let authority = parts.uri.authority().map(|it| it.as_str());
        if !is_same_origin(&parts.headers, authority) {
            return Err(cross_origin());
        }
        if !host::names_us(api, &parts.uri, &parts.headers) {
            return Err(host::unknown());
        }
        Ok(Self(visitor_of(parts), Outside::of(&parts.headers)))
    }
}

pub fn visitor_of(parts: &Parts) -> Visitor {
    let client = parts.headers.get(header::USER_AGENT).and_then(|name| name.to_str().ok());
    Visitor {
        address: address_of(&parts.extensions),
        client: client.map(ToOwned::to_owned),
        session: token(&parts.headers),
    }
}

impl Outside {
    pub fn of(headers: &HeaderMap) -> Self {
        let proto = headers.get(FORWARDED_PROTO);
        let forwarded = proto.is_some_and(|proto| proto.as_bytes().eq_ignore_ascii_case(b"https"));
        let origin = headers.get(header::ORIGIN).is_some_and(|origin| origin.as_bytes().starts_with(b"https://"));
        Self { https: forwarded || origin }
    }

    /// Where the configuration says how browsers reach the service.
    #[cfg(feature = "oidc")]
    pub fn at(url: &str) -> Self {
        Self { https: url.starts_with("https://") }
    }

    #[cfg(feature = "oidc")]
    pub fn is_https(self) -> bool {
        self.https
    }

    fn attributes(self) -> &'static str {
        if self.https { "Path=/; HttpOnly; SameSite=Strict; Secure" } else { "Path=/; HttpOnly; SameSite=Strict" }
    }

    /// What gives the browser its session.
    pub fn cookie(self, signed_in: &SignedIn) -> Option<HeaderValue> {
        let SignedIn { session, token, .. } = signed_in;
        let secs = elapsed(session.created_at, session.expires_at).as_secs();
        let cookie = format!("{COOKIE}={}; Max-Age={secs}; {}", token.expose(), self.attributes());
        let mut cookie = HeaderValue::try_from(cookie).ok()?;
        cookie.set_sensitive(true);
        Some(cookie)
    }

    /// What takes it away.
    pub fn no_cookie(self) -> Option<HeaderValue> {
        HeaderValue::try_from(format!("{COOKIE}=; Max-Age=0; {}", self.attributes())).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value))).collect()
    }

    #[test]
    fn only_pages_of_this_origin_change_something() {
        let host = ("host", "zeroone.example:8443");
        for (pairs, same) in [
            (vec![], true),
            (vec![("sec-fetch-site", "same-origin"), ("origin", "https://elsewhere.example")], true),
            (vec![("sec-fetch-site", "same-site"), ("origin", "https://zeroone.example:8443")], false),
            (vec![("sec-fetch-site", "cross-site")], false),
            (vec![("sec-fetch-site", "none")], false),
            (vec![("origin", "https://zeroone.example:8443")], true),
            (vec![("origin", "HTTPS://ZEROONE.EXAMPLE:8443")], true),
            (vec![("origin", "https://zeroone.example")], false),
            (vec![("origin", "https://ada.zeroone.example:8443")], false),
            (vec![("origin", "null")], false),
        ] {
            let headers = headers(&[pairs.clone(), vec![host]].concat());
            assert_eq!(is_same_origin(&headers, None), same, "{pairs:?}");
        }
        assert!(!is_same_origin(&headers(&[("origin", "https://a.example")]), Some("b.example")));
    }

    #[test]
    fn a_session_is_found_among_other_cookies_and_not_where_there_are_two() {
        for (cookies, found) in [
            ("zeroone_session=zs_1", Some("zs_1")),
            ("a=b; zeroone_session=zs_1; c", Some("zs_1")),
            ("zeroone_session=", Some("")),
            ("zeroone_session_=x; other=zeroone_session=1", None),
            ("zeroone_session=zs_1; zeroone_session=zs_2", None),
            ("", None),
        ] {
            assert_eq!(
                token(&headers(&[("cookie", cookies)])).map(|it| it.expose().clone()).as_deref(),
                found,
                "{cookies}"
            );
        }
    }

    #[test]
    fn the_cookie_is_secure_where_the_outside_is() {
        for (pairs, https) in [
            (vec![], false),
            (vec![("origin", "http://127.0.0.1:3001")], false),
            (vec![("origin", "https://zeroone.example")], true),
            (vec![("x-forwarded-proto", "https")], true),
        ] {
            let gone = Outside::of(&headers(&pairs)).no_cookie().unwrap();
            let gone = gone.to_str().unwrap();
            assert_eq!(gone.ends_with("; Secure"), https, "{pairs:?}");
            assert!(gone.starts_with("zeroone_session=; Max-Age=0; Path=/; HttpOnly; SameSite=Strict"));
        }
    }
}
