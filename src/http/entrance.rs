//! What every request comes through before its route's own guard.
//!
//! ```text
//! observe ─► CORS, where configured ─► an agent's own host name? ─► guard ─► handler
//! ```

use std::sync::Arc;

use axum::Router;
use axum::extract::{Request, State};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::Response;
use futures_util::FutureExt;

use super::request::{Seen, observe};
use super::state::Api;
use super::{agent_host, cors};

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
    let (seen, request) = noted(&api, request);
    observe(&api, &seen, Box::new(request), |request| enter(api.clone(), *request, next).boxed()).await
}

async fn observed(State(api): State<Api>, request: Request, next: Next) -> Response {
    let (seen, request) = noted(&api, request);
    observe(&api, &seen, Box::new(request), |request| next.run(*request).boxed()).await
}

async fn entered(State(api): State<Api>, request: Request, next: Next) -> Response {
    enter(api, request, next).await
}

fn noted(api: &Api, mut request: Request) -> (Arc<Seen>, Request) {
    let seen = Seen::routed(api, &request);
    request.extensions_mut().insert(Arc::clone(&seen));
    (seen, request)
}

async fn enter(api: Api, request: Request, next: Next) -> Response {
    match agent_host::label(&api, &request) {
        Some(label) => agent_host::answer(api, label, request).await,
        None => next.run(request).await,
    }
}
