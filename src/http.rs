//! The HTTP facade: turns requests into calls of the [control plane](crate::control), and their results into JSON.
//!
//! ```text
//! serve ─► front ─► request: id, span, panics, problem bodies
//!                     └─► guard: key, scope, rate ─► idempotency (POST) ─► a resource's handler ─► ControlPlane
//! ```
//! It decides nothing: what a command may do is the lifecycle's business. Every error becomes an RFC 9457 problem, in
//! one place (`error.rs`). The OpenAPI document is made from the same table as the router, so that neither can lack what
//! the other has.

mod account;
mod admin;
mod agent_host;
mod agents;
mod audit;
mod audited;
mod backup;
mod body;
mod conversation;
mod cors;
mod dashboard;
mod entrance;
mod error;
mod events;
mod explain;
mod front;
mod gateway;
mod guard;
mod health;
mod host;
mod idempotency;
mod in_flight;
mod incidents;
mod invitations;
mod keys;
mod load;
mod logs;
mod message;
mod metrics;
#[cfg(feature = "oidc")]
mod oidc;
mod openai;
mod openapi;
mod orphans;
mod params;
mod pieces;
mod prefer;
mod problem;
mod problem_page;
mod process_figures;
mod provider_urls;
mod question;
mod rate;
mod readiness;
mod redact;
mod request;
mod schema;
mod serve;
mod service;
mod session;
mod sessions;
mod sign_in;
mod sse;
mod state;
mod stats;
mod strangers;
mod usage;
mod user_sessions;
mod users;
mod visits;

use axum::Router;
use utoipa_axum::router::{OpenApiRouter, UtoipaMethodRouter};
use utoipa_axum::routes;

use self::guard::{Rule, guarded};
use self::state::Api;
use crate::control::ControlPlane;

#[cfg(feature = "cli")]
pub(crate) use self::agent_host::label_of as agent_label;
pub use self::agents::ListModels;
pub use self::backup::BackupOptions;
pub use self::front::Front;
pub use self::metrics::Metrics;
#[cfg(feature = "oidc")]
pub use self::oidc::{OidcOptions, Provider as OidcProvider};
#[cfg(feature = "cli")]
pub(crate) use self::params::cursor;
#[cfg(feature = "cli")]
pub(crate) use self::problem::{Code, Problem};
pub use self::provider_urls::ProviderUrls;
pub use self::rate::RateLimit;
#[cfg(feature = "cli")]
pub(crate) use self::request::{BadRequest, Trace, peer_of, render};
pub use self::serve::{ServeOptions, serve};
#[cfg(feature = "cli")]
pub(crate) use self::session::{COOKIE as SESSION_COOKIE, only_cookie};
pub use self::state::HttpOptions;
pub use crate::forwarded::Network;

/// The whole API over a control plane, for a router with any state. It may be nested: locations, problems and the OpenAPI
/// document keep the prefix.
pub fn router<S: Clone + Send + Sync + 'static>(plane: ControlPlane, options: HttpOptions) -> Router<S> {
    routed(Api::new(plane, options, openapi().to_string().into()))
}

/// The whole API over a control plane, for [`serve`]: what goes to agents takes a shorter way than by
/// the [`router`].
pub fn front(plane: ControlPlane, options: HttpOptions) -> Front {
    let api = Api::new(plane, options, openapi().to_string().into());
    Front::new(routed(api.clone()), api)
}

fn routed<S: Clone + Send + Sync + 'static>(api: Api) -> Router<S> {
    let routes = table()
        .into_iter()
        .fold(OpenApiRouter::new(), |router, (rule, routes)| router.routes(guarded(&api, rule, routes)));
    let (router, _) = routes.split_for_parts();
    let router = router
        .merge(api.options.pages.clone().with_state(()))
        .fallback(request::no_such_path)
        .method_not_allowed_fallback(request::no_such_method);
    entrance::around(router, &api).with_state(api)
}

/// The OpenAPI document of [`router`].
pub fn openapi() -> serde_json::Value {
    openapi::document(table())
}

/// Every route with its rule.
fn table() -> Vec<(Rule, UtoipaMethodRouter<Api>)> {
    #[cfg(feature = "oidc")]
    let by_provider = [(Rule::Open, routes!(oidc::start)), (Rule::OpenAudited, routes!(oidc::callback))];
    #[cfg(not(feature = "oidc"))]
    let by_provider = [];
    let mut table = vec![
        (Rule::Open, routes!(service::livez)),
        (Rule::Open, routes!(service::readyz)),
        (Rule::OpenAudited, routes!(service::metrics)),
        (Rule::Open, routes!(service::openapi_json)),
        (Rule::Open, routes!(problem_page::problem_page)),
        (Rule::READ, routes!(agents::list)),
        (Rule::create(agents::created), routes!(agents::create)),
        (Rule::CHECK, routes!(agents::check)),
        (Rule::READ_AGENT, routes!(agents::get)),
        (Rule::WRITE_AGENT, routes!(agents::patch)),
        (Rule::WRITE_AGENT, routes!(agents::delete)),
        (Rule::WRITE_AGENT, routes!(agents::start)),
        (Rule::WRITE_AGENT, routes!(agents::stop)),
        (Rule::WRITE_AGENT, routes!(agents::restart)),
        (Rule::VISIT, routes!(dashboard::dashboard)),
        (Rule::WRITE_AGENT, routes!(agents::upgrade)),
        (Rule::EXPORT, routes!(agents::export)),
        (Rule::import(agents::brought_in), routes!(agents::import)),
        (Rule::copy(agents::brought_in), routes!(agents::clone)),
        (Rule::READ_AGENT, routes!(agents::wait)),
        (Rule::READ_AGENT, routes!(logs::logs)),
        (Rule::READ_AGENT, routes!(stats::stats)),
        (Rule::READ_AGENT, routes!(usage::usage)),
        (Rule::READ_AGENT, routes!(health::health)),
        (Rule::SEND, routes!(message::message)),
        (Rule::READ_AGENT, routes!(sessions::list)),
        (Rule::READ_AGENT, routes!(sessions::get)),
        (Rule::SEND, routes!(sessions::delete_all)),
        (Rule::SEND, routes!(sessions::delete)),
        (Rule::PASSED, routes!(gateway::gateway)),
        (Rule::PASSED, routes!(gateway::gateway_root)),
        (Rule::READ_AGENT, routes!(events::agent_events)),
        (Rule::READ, routes!(events::all_events)),
        (Rule::READ_AGENT, routes!(explain::explain)),
        (Rule::READ_AGENT, routes!(incidents::incidents)),
        (Rule::READ, routes!(openai::models)),
        (Rule::READ, routes!(openai::model)),
        (Rule::SEND_OWN, routes!(openai::chat)),
        (Rule::SEND_OWN, routes!(openai::responses)),
        (Rule::Open, routes!(sign_in::ways)),
        (Rule::OpenAudited, routes!(sign_in::login)),
        (Rule::OpenAudited, routes!(sign_in::link)),
        (Rule::OpenAudited, routes!(sign_in::register)),
        (Rule::OpenAudited, routes!(sign_in::logout)),
        (Rule::ANY_KEY, routes!(account::me)),
        (Rule::PASSWORD, routes!(account::change_password)),
        (Rule::READ, routes!(audit::own_audit)),
        (Rule::ADMIN, routes!(audit::admin_audit)),
        (Rule::READ, routes!(user_sessions::list_sessions)),
        (Rule::READ, routes!(user_sessions::get_session)),
        (Rule::WRITE, routes!(user_sessions::delete_sessions)),
        (Rule::WRITE, routes!(user_sessions::delete_session)),
        (Rule::READ, routes!(keys::list_keys)),
        (Rule::WRITE, routes!(keys::create_key)),
        (Rule::WRITE, routes!(keys::delete_key)),
        (Rule::ADMIN, routes!(users::list_users)),
        (Rule::ADMIN, routes!(users::create_user)),
        (Rule::ADMIN, routes!(users::get_user)),
        (Rule::ADMIN, routes!(users::patch_user)),
        (Rule::ADMIN, routes!(users::delete_user)),
        (Rule::ADMIN, routes!(keys::list_user_keys)),
        (Rule::ADMIN, routes!(keys::create_user_key)),
        (Rule::ADMIN, routes!(keys::delete_user_key)),
        (Rule::ADMIN, routes!(user_sessions::list_user_sessions)),
        (Rule::ADMIN, routes!(user_sessions::delete_user_sessions)),
        (Rule::ADMIN, routes!(user_sessions::delete_user_session)),
        (Rule::ADMIN_PASSWORD, routes!(account::set_user_password)),
        (Rule::ADMIN, routes!(invitations::sign_in_link)),
        (Rule::ADMIN, routes!(invitations::list_invitations)),
        (Rule::ADMIN, routes!(invitations::create_invitation)),
        (Rule::ADMIN, routes!(invitations::delete_invitation)),
        (Rule::ADMIN, routes!(admin::list_agents)),
        (Rule::ADMIN, routes!(admin::runtime)),
        (Rule::ADMIN, routes!(usage::service_usage)),
        (Rule::ADMIN, routes!(orphans::list_orphans)),
        (Rule::ADMIN, routes!(orphans::settle_orphan)),
        (Rule::ADMIN, routes!(admin::rotate_key)),
        (Rule::ADMIN_STREAMED, routes!(backup::backup)),
    ];
    table.extend(by_provider);
    table
}
