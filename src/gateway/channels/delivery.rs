//! One request to a platform, and what is known about it afterwards: delivered, not delivered, or unknown.

use std::time::Duration;

use reqwest::header::HeaderMap;
use reqwest::{RequestBuilder, Response};
use serde_json::Value;

use crate::domain::Timestamp;
use crate::gateway::outbound::OutboundError;
use crate::gateway::pause;
use crate::gateway::persona::head;

/// A platform that takes longer is out of order.
const TIMEOUT: Duration = Duration::from_secs(30);
/// What is shown of a platform's own words, in bytes.
const REASON: usize = 200;
/// Meta's codes for too many calls or messages: of the app, of the account, of the number, and to one person.
const META_LIMITS: [i64; 4] = [4, 80_007, 130_429, 131_056];
/// The least that GitHub asks for where it names a limit and no time.
const UNNAMED_PAUSE: Duration = Duration::from_secs(60);

#[derive(Debug, thiserror::Error)]
pub(in crate::gateway) enum ChannelError {
    #[error("that channel is not configured")]
    NotConfigured,
    #[error("that recipient is not among the allowed ones")]
    NotAllowed,
    #[error(transparent)]
    NoClient(#[from] OutboundError),
    /// Without its URL, which holds a token on some platforms.
    #[error("the platform cannot be reached")]
    Unreachable(#[source] reqwest::Error),
    #[error("the platform answered {status}{}", in_brackets(.reason))]
    Refused { status: u16, reason: String },
    /// It was not done now, and may be done later.
    #[error("the platform asks for a pause: it answered {status}{}", in_brackets(.reason))]
    Limited { status: u16, reason: String, pause: Option<Duration> },
    /// A Telegram group that became a supergroup has another id.
    #[error("the group became a supergroup and has another id")]
    Moved { chat: i64 },
    /// A platform that says 200 to everything says in the body that it did not do it.
    #[error("the platform refused{}", in_brackets(.reason))]
    NotAccepted { reason: String },
    #[error("the platform's answer cannot be read")]
    Unreadable,
}

/// What is known about a message after its request failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::gateway) enum Outcome {
    /// It did not arrive, and another try may succeed, after the pause that the platform asked for.
    NotDelivered { pause: Option<Duration> },
    /// It did not arrive and will not.
    Refused,
    /// It may have arrived.
    Unknown,
}

impl ChannelError {
    pub(in crate::gateway) fn outcome(&self) -> Outcome {
        match self {
            Self::NoClient(_) => Outcome::NotDelivered { pause: None },
            Self::Unreachable(error) if error.is_connect() => Outcome::NotDelivered { pause: None },
            Self::Unreachable(_) | Self::Unreadable => Outcome::Unknown,
            Self::Limited { pause, .. } => Outcome::NotDelivered { pause: *pause },
            Self::Refused { status: 500..=503, .. } => Outcome::NotDelivered { pause: None },
            Self::Refused { status: 504.., .. } => Outcome::Unknown,
            Self::NotAccepted { reason } if reason == "ratelimited" || reason == "rate_limited" => {
                Outcome::NotDelivered { pause: None }
            }
            Self::NotConfigured
            | Self::NotAllowed
            | Self::Refused { .. }
            | Self::Moved { .. }
            | Self::NotAccepted { .. } => Outcome::Refused,
        }
    }
}

/// Sends a request once.
///
/// # Errors
/// See [`ChannelError`].
pub(in crate::gateway) async fn request(request: RequestBuilder) -> Result<Response, ChannelError> {
    request_within(request, TIMEOUT).await
}

/// As [`request`], for a request that a platform keeps open.
///
/// # Errors
/// See [`ChannelError`].
pub(in crate::gateway) async fn request_within(
    request: RequestBuilder,
    limit: Duration,
) -> Result<Response, ChannelError> {
    let unreachable = |error: reqwest::Error| ChannelError::Unreachable(error.without_url());
    let response = request.timeout(limit).send().await.map_err(unreachable)?;
    let status = response.status();
    if status.is_success() {
        return Ok(response);
    }
    let headers = response.headers().clone();
    let body: Value = response.json().await.unwrap_or_default();
    Err(refusal(status.as_u16(), &headers, &body, Timestamp::now()))
}

/// Reads the JSON of an answer.
///
/// # Errors
/// [`ChannelError::Unreadable`].
pub(in crate::gateway) async fn json(response: Response) -> Result<Value, ChannelError> {
    response.json().await.map_err(|_| ChannelError::Unreadable)
}

/// What an answer means that is no success.
fn refusal(status: u16, headers: &HeaderMap, body: &Value, now: Timestamp) -> ChannelError {
    if let Some(chat) = body["parameters"]["migrate_to_chat_id"].as_i64() {
        return ChannelError::Moved { chat };
    }
    let reason = reason(body);
    // These come from a server on the way, which does not know whether the platform took the message.
    if status >= 504 {
        return ChannelError::Refused { status, reason };
    }
    let used_up = is_used_up(status, headers);
    let pause = asked_pause(used_up, headers, body, now);
    let named = status == 403 && names_a_limit(&reason);
    if status == 429 || used_up || pause.is_some() || is_limit_of_meta(body) {
        ChannelError::Limited { status, reason, pause }
    } else if named {
        ChannelError::Limited { status, reason, pause: Some(UNNAMED_PAUSE) }
    } else {
        ChannelError::Refused { status, reason }
    }
}

/// Whether GitHub says that no request is left. Discord counts under the same names in every answer, beside the name of
/// a bucket: there, none left is no refusal.
fn is_used_up(status: u16, headers: &HeaderMap) -> bool {
    matches!(status, 403 | 429)
        && header(headers, "x-ratelimit-remaining") == Some("0")
        && !headers.contains_key("x-ratelimit-bucket")
}

/// GitHub's words for its secondary limits, the second of older servers.
fn names_a_limit(reason: &str) -> bool {
    let reason = reason.to_ascii_lowercase();
    ["rate limit", "abuse detection"].iter().any(|words| reason.contains(words))
}

fn is_limit_of_meta(body: &Value) -> bool {
    let error = &body["error"];
    error["is_transient"] == true || error["code"].as_i64().is_some_and(|code| META_LIMITS.contains(&code))
}

/// The longest of the pauses that a platform asks for: in a header; until a limit is renewed; in the body, as Telegram and
/// Discord have it.
fn asked_pause(used_up: bool, headers: &HeaderMap, body: &Value, now: Timestamp) -> Option<Duration> {
    let now = pause::clock(headers, now.into());
    let renewed = header(headers, "x-ratelimit-reset").filter(|_| used_up).and_then(|text| text.parse::<f64>().ok());
    // A limit whose time has just come is renewed in a moment.
    let renewed = renewed.and_then(|at| pause::until(at * 1000.0, now)).map(|pause| pause.max(Duration::from_secs(1)));
    let in_body = [&body["parameters"]["retry_after"], &body["retry_after"]].into_iter().find_map(pause::in_json);
    [pause::in_headers(headers, now), renewed, in_body].into_iter().flatten().max()
}

fn header<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name)?.to_str().ok().map(str::trim)
}

/// A platform's own words for an error. They describe the request's form, never its credentials.
fn reason(body: &Value) -> String {
    let words = [&body["description"], &body["error"]["message"], &body["message"], &body["error"]];
    let words = words.into_iter().find_map(Value::as_str).unwrap_or_default();
    head(words, REASON).to_owned()
}

fn in_brackets(reason: &str) -> String {
    if reason.is_empty() { String::new() } else { format!(" ({reason})") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const NOW: &str = "2026-10-21T07:28:00Z";

    fn answered(status: u16, headers: &[(&'static str, &str)], body: &Value) -> Outcome {
        let headers = headers.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect();
        refusal(status, &headers, body, NOW.parse().unwrap()).outcome()
    }

    fn again(seconds: u64) -> Outcome {
        Outcome::NotDelivered { pause: Some(Duration::from_secs(seconds)) }
    }

    #[test]
    fn only_failures_that_surely_delivered_nothing_are_tried_again() {
        let again = Outcome::NotDelivered { pause: None };
        let refused = |status| answered(status, &[], &json!({}));
        assert_eq!([429, 500, 502, 503].map(refused), [again; 4]);
        assert_eq!([504, 524].map(refused), [Outcome::Unknown; 2]);
        assert_eq!([400, 401, 403, 404].map(refused), [Outcome::Refused; 4]);
        assert_eq!(ChannelError::Unreadable.outcome(), Outcome::Unknown);
        // The message may have gone through to the platform.
        assert_eq!(answered(524, &[("retry-after", "9")], &json!({})), Outcome::Unknown);
    }

    #[test]
    fn a_status_with_a_pause_is_tried_again_after_it() {
        let none = json!({});
        for status in [400, 403, 404, 409, 429, 503] {
            assert_eq!(answered(status, &[("retry-after", "7")], &none), again(7), "{status}");
        }
        assert_eq!(answered(403, &[("retry-after", "Wed, 21 Oct 2026 07:28:09 GMT")], &none), again(9));
        assert_eq!(answered(403, &[], &json!({ "retry_after": 4 })), again(4));
        assert_eq!(answered(403, &[("retry-after", "soon")], &none), Outcome::Refused);
    }

    #[test]
    fn a_limit_that_is_used_up_is_waited_for_until_it_is_renewed() {
        let none = json!({});
        // 1792567680 is NOW.
        let used_up = [("x-ratelimit-remaining", "0"), ("x-ratelimit-reset", "1792567740")];
        assert_eq!(answered(403, &used_up, &none), again(60));
        let past = [("x-ratelimit-remaining", "0"), ("x-ratelimit-reset", "1792567000")];
        assert_eq!(answered(403, &past, &none), again(1));
        let by_its_clock = [("date", "Wed, 21 Oct 2026 07:28:50 GMT"), used_up[0], used_up[1]];
        assert_eq!(answered(429, &by_its_clock, &none), again(10));
        let both = [("retry-after", "90"), used_up[0], used_up[1]];
        assert_eq!(answered(403, &both, &none), again(90));
        // The last request that was free was refused for another reason.
        assert_eq!(answered(422, &used_up, &none), Outcome::Refused);
        assert_eq!(answered(403, &[("x-ratelimit-remaining", "12"), used_up[1]], &none), Outcome::Refused);
        let of_discord = [("x-ratelimit-bucket", "b"), used_up[0], used_up[1]];
        assert_eq!(answered(403, &of_discord, &json!({ "message": "Missing Permissions" })), Outcome::Refused);
        let named = json!({ "message": "You have exceeded a secondary rate limit." });
        assert_eq!(answered(403, &[], &named), again(60));
        assert_eq!(answered(403, &[("retry-after", "5")], &named), again(5));
    }

    #[test]
    fn limits_that_only_the_body_names_are_tried_again() {
        let later = Outcome::NotDelivered { pause: None };
        for code in [4, 80_007, 130_429, 131_056] {
            let body = json!({ "error": { "message": "limit", "code": code, "is_transient": false } });
            assert_eq!(answered(400, &[], &body), later, "{code}");
        }
        assert_eq!(answered(400, &[], &json!({ "error": { "code": 2, "is_transient": true } })), later);
        for code in [100, 190, 131_047] {
            assert_eq!(answered(400, &[], &json!({ "error": { "code": code } })), Outcome::Refused, "{code}");
        }
    }

    #[test]
    fn asked_pauses_are_read_from_header_and_body_and_the_longest_counts() {
        let pause = |asked: Option<&str>, body: Value| {
            let headers = asked.map(|asked| (reqwest::header::RETRY_AFTER, asked.parse().unwrap()));
            asked_pause(false, &headers.into_iter().collect(), &body, NOW.parse().unwrap())
        };
        assert_eq!(pause(None, json!({ "parameters": { "retry_after": 7 } })), Some(Duration::from_secs(7)));
        assert_eq!(pause(Some("1.0"), json!({ "retry_after": 1.5 })), Some(Duration::from_millis(1500)));
        assert_eq!(pause(Some("2s"), json!({ "retry_after": "1" })), Some(Duration::from_secs(2)));
        assert_eq!(pause(Some("nan"), json!({})), None);
        assert_eq!(pause(Some("-1"), json!({})), None);
    }

    #[test]
    fn a_group_that_moved_tells_its_new_id() {
        let body = json!({ "description": "upgraded", "parameters": { "migrate_to_chat_id": -1_001_557 } });
        let error = refusal(400, &HeaderMap::new(), &body, NOW.parse().unwrap());
        assert!(matches!(error, ChannelError::Moved { chat: -1_001_557 }), "{error:?}");
    }

    #[test]
    fn a_platforms_own_words_are_kept_short() {
        assert_eq!(
            reason(&json!({ "ok": false, "description": "Forbidden: bot was blocked" })),
            "Forbidden: bot was blocked"
        );
        assert_eq!(reason(&json!({ "error": { "message": "x".repeat(999) } })).len(), REASON);
        assert_eq!(reason(&json!([])), "");
    }
}
