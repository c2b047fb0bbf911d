//! The HTTP facade: turns requests into calls of the [control plane](crate::control), and what comes of them into JSON.
//!
//! ```text
//! serve ─► request: id, span, panics, problem bodies
//!            └─► guard: key, scope, rate ─► idempotency (POST) ─► a resource's handler ─► ControlPlane
//! ```
//! It decides nothing: what a command may do is the lifecycle's business. Every error becomes an RFC 9457 problem, in
//! one place (`error.rs`). The OpenAPI document is made from the same table as the router, so that neither can lack what
//! the other has.

mod account;
mod admin;
mod agents;
mod body;
mod error;
mod events;
mod explain;
mod guard;
mod health;
mod idempotency;
mod incidents;
mod logs;
mod message;
mod metrics;
mod openapi;
mod params;
mod problem;
mod rate;
mod redact;
mod request;
mod schema;
mod serve;
mod service;
mod sse;
mod state;
mod stats;
mod users;

use std::sync::Arc;

use axum::middleware::from_fn_with_state;
use axum::{Extension, Router};
use utoipa_axum::router::{OpenApiRouter, UtoipaMethodRouter};
use utoipa_axum::routes;

use self::guard::{Rule, guarded};
use self::state::Api;
use crate::control::ControlPlane;

pub use self::rate::RateLimit;
pub use self::serve::{ServeOptions, serve};
pub use self::state::HttpOptions;

/// The whole API over a control plane.
pub fn router(plane: ControlPlane, options: HttpOptions) -> Router {
    let api = Api::new(plane, options);
    let document: Arc<str> = openapi().to_string().into();
    let routes = table()
        .into_iter()
        .fold(OpenApiRouter::new(), |router, (rule, routes)| router.routes(guarded(&api, rule, routes)));
    let (router, _) = routes.split_for_parts();
    router
        .fallback(request::no_such_path)
        .method_not_allowed_fallback(request::no_such_method)
        .layer(Extension(document))
        .layer(from_fn_with_state(api.clone(), request::observe))
        .with_state(api)
}

/// The OpenAPI document of [`router`].
pub fn openapi() -> serde_json::Value {
    openapi::document(table())
}

/// Every route with its rule.
fn table() -> Vec<(Rule, UtoipaMethodRouter<Api>)> {
    vec![
        (Rule::Open, routes!(service::livez)),
        (Rule::Open, routes!(service::readyz)),
        (Rule::Open, routes!(service::metrics)),
        (Rule::Open, routes!(service::openapi_json)),
        (Rule::READ, routes!(agents::list)),
        (Rule::CREATE, routes!(agents::create)),
        (Rule::READ, routes!(agents::get)),
        (Rule::WRITE, routes!(agents::patch)),
        (Rule::WRITE, routes!(agents::delete)),
        (Rule::WRITE, routes!(agents::start)),
        (Rule::WRITE, routes!(agents::stop)),
        (Rule::WRITE, routes!(agents::restart)),
        (Rule::READ, routes!(agents::wait)),
        (Rule::READ, routes!(logs::logs)),
        (Rule::READ, routes!(stats::stats)),
        (Rule::READ, routes!(health::health)),
        (Rule::SEND, routes!(message::message)),
        (Rule::READ, routes!(events::agent_events)),
        (Rule::READ, routes!(events::all_events)),
        (Rule::READ, routes!(explain::explain)),
        (Rule::READ, routes!(incidents::incidents)),
        (Rule::ANY_KEY, routes!(account::me)),
        (Rule::READ, routes!(account::list_keys)),
        (Rule::WRITE, routes!(account::create_key)),
        (Rule::WRITE, routes!(account::delete_key)),
        (Rule::ADMIN, routes!(users::list_users)),
        (Rule::ADMIN, routes!(users::create_user)),
        (Rule::ADMIN, routes!(users::get_user)),
        (Rule::ADMIN, routes!(users::patch_user)),
        (Rule::ADMIN, routes!(users::delete_user)),
        (Rule::ADMIN, routes!(users::create_user_key)),
        (Rule::ADMIN, routes!(admin::list_agents)),
        (Rule::ADMIN, routes!(admin::runtime)),
    ]
}
