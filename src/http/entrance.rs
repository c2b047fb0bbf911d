//! What every request comes through once its route is known, and the short way to agents.
//!
//! ```text
//! observe ─► CORS, where configured ─► an agent's own host name? ─► a message, or passed on? ─► guard ─► handler
//!                                                                     └─ anything else: the route's own layers
//! ```
//! A layer of the router has a service to clone and a future to allocate at every request, each wrapped into the next. Nearly all
//! requests are for agents, so theirs go to their handler without: by the same guard, with the same rule.

use axum::Router;
use axum::extract::{MatchedPath, Request, State};
use axum::handler::Handler;
use axum::http::Method;
use axum::middleware::{Next, from_fn_with_state};
use axum::response::Response;
use futures_util::FutureExt;

use super::guard::{KeyRule, admit};
use super::request::observe;
use super::state::Api;
use super::{agent_host, cors, gateway, message};

// Below a prefix of an embedder's the routes have other names, and take the longer way.
const MESSAGE: &str = "/api/agents/{id}/message";
const GATEWAY: &str = "/api/agents/{id}/gateway/{*path}";

/// The router behind what every request comes through.
pub fn around(router: Router<Api>, api: &Api) -> Router<Api> {
    match cors::layer(&api.options.cors_origins) {
        None => router.layer(from_fn_with_state(api.clone(), observed_and_entered)),
        Some(cors) => {
            let (observed, entered) =
                (from_fn_with_state(api.clone(), observed), from_fn_with_state(api.clone(), entered));
            router.layer((observed, cors, entered))
        }
    }
}

async fn observed_and_entered(State(api): State<Api>, request: Request, next: Next) -> Response {
    observe(api.clone(), request, |request| enter(api, request, next).boxed()).await
}

async fn observed(State(api): State<Api>, request: Request, next: Next) -> Response {
    observe(api, request, |request| next.run(request).boxed()).await
}

async fn entered(State(api): State<Api>, request: Request, next: Next) -> Response {
    enter(api, request, next).await
}

async fn enter(api: Api, request: Request, next: Next) -> Response {
    if let Some(label) = agent_host::label(&api, &request) {
        return agent_host::answer(api, label, request).await;
    }
    let handler = api.clone();
    match request.extensions().get::<MatchedPath>().map(MatchedPath::as_str) {
        Some(GATEWAY) if gateway::PASSED.contains(request.method()) => {
            admit(api, KeyRule::PASSED, request, |request| gateway::gateway.call(request, handler)).await
        }
        Some(MESSAGE) if request.method() == Method::POST => {
            admit(api, KeyRule::SEND, request, |request| message::message.call(request, handler)).await
        }
        _ => next.run(request).await,
    }
}
