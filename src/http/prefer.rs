//! `Prefer: wait=N` (RFC 7240): how long a request may be held while its agent comes up.

use axum::http::{HeaderMap, HeaderName, HeaderValue};
use axum::response::Response;

const PREFER: HeaderName = HeaderName::from_static("prefer");
const PREFERENCE_APPLIED: HeaderName = HeaderName::from_static("preference-applied");
/// How long a message is held while the agent comes up.
const DEFAULT_HOLD_SECS: u64 = 30;
const MAX_HOLD_SECS: u64 = 120;

/// Seconds that a request may be held. A preference that is none is left alone, as RFC 7240 wants it.
pub fn hold_secs(headers: &HeaderMap) -> u64 {
    let preferences = headers.get_all(PREFER).iter().filter_map(|value| value.to_str().ok());
    let wait = preferences.flat_map(|value| value.split([',', ';'])).find_map(|preference| {
        let (name, value) = preference.split_once('=')?;
        let named = name.trim().eq_ignore_ascii_case("wait");
        let value = value.trim().trim_matches('"');
        let digits = !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit());
        // One with more digits than a number has is longer than any that is granted.
        (named && digits).then(|| value.parse().unwrap_or(MAX_HOLD_SECS))
    });
    wait.map_or(DEFAULT_HOLD_SECS, |secs| secs.min(MAX_HOLD_SECS))
}

/// Tells how long the message was held at most, to those who had a preference.
pub fn applied(headers: &HeaderMap, hold: u64, response: &mut Response) {
    if headers.contains_key(PREFER)
        && let Ok(applied) = HeaderValue::try_from(format!("wait={hold}"))
    {
        response.headers_mut().insert(PREFERENCE_APPLIED, applied);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn preferences_are_taken_as_far_as_they_go() {
        for (value, secs) in [
            ("wait=5", 5),
            ("respond-async, WAIT = 7", 7),
            ("wait=100000", 120),
            ("wait=99999999999999999999", 120),
            ("wait=+5", 30),
            ("wait=", 30),
            ("wait=0", 0),
            ("wait=soon", 30),
            ("return=minimal", 30),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(PREFER, HeaderValue::from_static(value));
            assert_eq!(hold_secs(&headers), secs, "{value}");
        }
        assert_eq!(hold_secs(&HeaderMap::new()), 30);
    }
}
