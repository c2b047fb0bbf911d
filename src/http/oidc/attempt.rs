//! What a browser keeps while its person is at the identity provider.
//!
//! It is in a cookie, so that the service has nothing to keep for people who never come back, and a restart in between
//! costs nobody their sign-in. It protects its own browser alone: what it says is compared with what the provider sends.

use axum::http::{HeaderMap, HeaderValue};

use crate::domain::Secret;
use crate::http::session::only_cookie;

/// Long enough for somebody who has to find their second factor.
const KEPT_SECS: u32 = 15 * 60;
/// With `__Host-`, which browsers take by https alone, no page of an agent's host name can set one for ours.
const SECURE: &str = "__Host-zeroone_oidc";
const PLAIN: &str = "zeroone_oidc";

#[derive(Debug)]
pub struct Attempt {
    /// Comes back in the address: the answer belongs to this browser.
    pub state: Secret<String>,
    /// Comes back in the token: the token belongs to this attempt.
    pub nonce: Secret<String>,
    /// Shows the provider that who brings the code is who asked for it (PKCE).
    pub verifier: Secret<String>,
    /// The page to go on with: a path of the console.
    pub next: String,
}

impl Attempt {
    /// What this browser's attempt is; none where there are two.
    pub fn of(headers: &HeaderMap, https: bool) -> Option<Self> {
        let name = if https { SECURE } else { PLAIN };
        let value = only_cookie(headers, name)?;
        let mut parts = form_urlencoded::parse(value.as_bytes()).map(|(_, part)| part.into_owned());
        let (state, nonce, verifier, next) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
        Some(Self { state: state.into(), nonce: nonce.into(), verifier: verifier.into(), next })
    }

    pub fn cookie(&self, https: bool) -> Option<HeaderValue> {
        let value = form_urlencoded::Serializer::new(String::new())
            .append_pair("s", self.state.expose())
            .append_pair("n", self.nonce.expose())
            .append_pair("v", self.verifier.expose())
            .append_pair("p", &self.next)
            .finish();
        set(&value, KEPT_SECS, https)
    }

    /// What takes it away: an attempt is good for one answer.
    pub fn no_cookie(https: bool) -> Option<HeaderValue> {
        set("", 0, https)
    }
}

fn set(value: &str, secs: u32, https: bool) -> Option<HeaderValue> {
    let (name, secure) = if https { (SECURE, "; Secure") } else { (PLAIN, "") };
    let cookie = format!("{name}={value}; Max-Age={secs}; Path=/; HttpOnly; SameSite=Lax{secure}");
    let mut cookie = HeaderValue::try_from(cookie).ok()?;
    cookie.set_sensitive(true);
    Some(cookie)
}

/// A path of this service alone: an address from elsewhere would be a trap.
pub fn own_path(path: &str) -> Option<&str> {
    let ours = path.starts_with('/') && !path[1..].starts_with(['/', '\\']);
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"/-._~?=&%+,".contains(&b);
    (ours && path.len() <= 500 && path.bytes().all(plain)).then_some(path)
}

#[cfg(test)]
mod tests {
    use axum::http::header;

    use super::*;

    #[test]
    fn an_attempt_comes_back_in_its_cookie_and_not_where_there_are_two() {
        let attempt = Attempt {
            state: "s-1".into(),
            nonce: "n_2".into(),
            verifier: "v~3".into(),
            next: "/agents/ada?tab=chat&x=%20".into(),
        };
        for https in [true, false] {
            let set = attempt.cookie(https).unwrap();
            let set = set.to_str().unwrap();
            assert_eq!((set.starts_with("__Host-"), set.ends_with("; Secure")), (https, https));
            let pair = set.split(';').next().unwrap();
            let cookies = |text: String| HeaderMap::from_iter([(header::COOKIE, HeaderValue::try_from(text).unwrap())]);
            let back = Attempt::of(&cookies(format!("a=b; {pair}")), https).unwrap();
            let all = |it: &Attempt| [&it.state, &it.nonce, &it.verifier].map(|secret| secret.expose().clone());
            assert_eq!((all(&back), &back.next), (all(&attempt), &attempt.next));
            assert!(Attempt::of(&cookies(format!("{pair}; {pair}")), https).is_none());
            assert!(Attempt::of(&cookies(pair.into()), !https).is_none());
        }
    }

    #[test]
    fn only_a_path_of_ours_is_gone_to_afterwards() {
        for path in ["/", "/agents/ada?tab=logs", "/agents?status=ERROR,RUNNING"] {
            assert_eq!(own_path(path), Some(path));
        }
        for path in ["", "agents", "//evil.example", "/\\evil.example", "https://evil.example", "/a\r\nb", "/ä", "/a#b"]
        {
            assert_eq!(own_path(path), None, "{path:?}");
        }
    }
}
