//! Server-sent events: streams that stay open, and end when the service does.

use std::convert::Infallible;
use std::time::Duration;

use axum::http::{HeaderMap, HeaderName, header};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::{Stream, StreamExt};
use serde::Serialize;

use super::problem::Problem;
use super::state::Api;
use crate::accounts::Caller;

const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");
/// Proxies on the way close connections that are silent for a minute or less.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// An answer that goes on until the stream ends, the client goes away, or the service shuts down.
///
/// It also ends when the caller's key does: by its expiry, or because it was revoked or its user suspended.
///
/// # Errors
/// 429 where the caller's user has as many streams open as allowed.
pub fn answer(
    api: &Api,
    caller: &Caller,
    events: impl Stream<Item = Event> + Send + 'static,
) -> Result<Response, Problem> {
    let open = api.open_stream(caller)?;
    let events = events.map(move |event| {
        // The stream counts for as long as it is there.
        let _counted = &open;
        Ok::<_, Infallible>(event)
    });
    let events = events.take_until(Box::pin(api.over(caller.clone())));
    Ok(Sse::new(events).keep_alive(KeepAlive::new().interval(KEEP_ALIVE)).into_response())
}

/// An event of this kind; data that cannot be JSON becomes an empty object, which none of ours does.
pub fn event(kind: &str, data: &impl Serialize) -> Event {
    Event::default().event(kind).data(serde_json::to_string(data).unwrap_or_else(|_| "{}".into()))
}

/// Whether the client asks for a stream of events.
pub fn is_wanted(headers: &HeaderMap) -> bool {
    accepts(headers, "text/event-stream")
}

/// Whether `Accept` names this media type, and not by `q=0` as one that is not wanted.
pub fn accepts(headers: &HeaderMap, media_type: &str) -> bool {
    headers
        .get_all(header::ACCEPT)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|range| {
            let mut parts = range.split(';').map(str::trim);
            parts.next().is_some_and(|kind| kind.eq_ignore_ascii_case(media_type)) && !parts.any(is_zero)
        })
}

/// Whether a parameter of a media range is a weight of nothing: `q=0`, with at most three zeros behind a point.
fn is_zero(parameter: &str) -> bool {
    let weight = parameter.strip_prefix(['q', 'Q']).and_then(|rest| rest.trim_start().strip_prefix('='));
    weight.and_then(|weight| weight.trim().parse::<f32>().ok()) == Some(0.0)
}

/// The event after which a client that comes back wants to go on.
pub fn last_event_id(headers: &HeaderMap) -> Option<&str> {
    headers.get(LAST_EVENT_ID)?.to_str().ok().map(str::trim)
}
