//! `GET /api/events`: what happens, as it happens. A client that lost its connection goes on where it was.

use std::convert::Infallible;
use std::sync::Arc;

use axum::extract::{Query, State};
use axum::http::HeaderMap;
use axum::response::sse::{Event as Frame, KeepAlive, Sse};
use axum::response::{IntoResponse as _, Response};
use futures_util::{StreamExt as _, stream};
use serde::Deserialize;
use serde_json::json;
use tokio_stream::wrappers::BroadcastStream;

use crate::gateway::auth::Paired;
use crate::gateway::events::Event;
use crate::gateway::shared::App;

#[derive(Deserialize)]
pub(super) struct From {
    last_event_id: Option<String>,
}

pub(super) async fn events(
    _: Paired,
    State(app): State<App>,
    Query(from): Query<From>,
    headers: HeaderMap,
) -> Response {
    let header = headers.get("last-event-id").and_then(|id| id.to_str().ok());
    let subscription = app.events.subscribe(header.or(from.last_event_id.as_deref()));
    let stop = app.stop.clone().cancelled_owned();
    let missed: Vec<Frame> = subscription.missed.iter().map(|event| frame(&app, event)).collect();
    let start = subscription.gap.then(gap).into_iter().chain(missed);
    let live = BroadcastStream::new(subscription.live).map(move |event| match event {
        Ok(event) => frame(&app, &event),
        Err(_) => gap(),
    });
    let frames = stream::iter(start).chain(live).map(Ok::<_, Infallible>).take_until(stop);
    Sse::new(frames).keep_alive(KeepAlive::default()).into_response()
}

fn frame(app: &App, event: &Arc<Event>) -> Frame {
    Frame::default().id(app.events.id(event)).data(event.body.to_string())
}

/// Some events are gone: what a client shows may be out of date.
fn gap() -> Frame {
    Frame::default().data(json!({ "type": "gap" }).to_string())
}
