//! Who may call what: every route says so in one table, and nothing gets past it.
//!
//! ```text
//! key, session (or the embedder's caller) ─► rate of the key, of the user ─► requests open ─► scope ─► idempotency (POST) ─► handler
//!   └─ none that works: 401, and 429 for an address that keeps trying
//! ```
//! A session comes as a cookie, which a browser sends along by itself: what changes something must then come from a page of
//! this service.

use std::net::IpAddr;
use std::pin::pin;
use std::sync::Arc;

use axum::extract::FromRequestParts;
use axum::extract::{Request, State};
use axum::http::Method;
use axum::http::header;
use axum::http::request::Parts;
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use futures_util::FutureExt;
use utoipa_axum::router::UtoipaMethodRouter;

use super::audited::{self, Audited};
use super::body::MAX_ARCHIVE;
use super::error::{rate_limited, suspended, too_many_open, unauthorized};
use super::idempotency::{self, FindAgent, MAX_BODY, Repeated, Retry};
use super::problem::{Code, Problem};
use super::rate::Allowance;
use super::request::{Seen, Trace, Whose};
use super::session;
use super::state::Api;
use crate::accounts::{Caller, Refused};
use crate::audit::acting;
use crate::domain::Scope;
use crate::proxy::{self, socket_credential};

/// Who may call a route, and what a retry of it means.
#[derive(Debug, Clone, Copy)]
pub enum Rule {
    /// Anyone, without a key.
    Open,
    /// Anyone; what they change and what they are refused is in the audit.
    OpenAudited,
    Key(KeyRule),
}

#[derive(Debug, Clone, Copy)]
pub struct KeyRule {
    /// What the key must be allowed; any key where there is none.
    pub scope: Option<Scope>,
    /// Whether a key with the scope admin is enough, for what is done to one agent.
    pub or_admin: bool,
    pub retry: Retry,
    /// Whether it is in the audit although it changes nothing: it takes out what an agent knows.
    pub discloses: bool,
    /// The largest body that can be repeated with an `Idempotency-Key`.
    pub repeats: usize,
}

impl Rule {
    pub const ANY_KEY: Self = Self::needs(None);
    pub const READ: Self = Self::needs(Some(Scope::AgentsRead));
    pub const WRITE: Self = Self::needs(Some(Scope::AgentsWrite));
    pub const ADMIN: Self = Self::needs(Some(Scope::Admin));
    /// Of one agent: its owner's, or an administrator's.
    pub const READ_AGENT: Self = Self::of_agent(Scope::AgentsRead, Retry::Repeat);
    /// What has a key of the caller's in its body, and makes nothing.
    pub const CHECK: Self = Self::Key(KeyRule::new(Some(Scope::AgentsWrite), false, Retry::Unkept));
    /// What has a password in its body.
    pub const PASSWORD: Self = Self::Key(KeyRule::new(None, false, Retry::Unkept));
    pub const ADMIN_PASSWORD: Self = Self::Key(KeyRule::new(Some(Scope::Admin), false, Retry::Unkept));
    pub const WRITE_AGENT: Self = Self::of_agent(Scope::AgentsWrite, Retry::Repeat);
    /// All that an agent knows, as a file.
    pub const EXPORT: Self =
        Self::Key(KeyRule { discloses: true, ..KeyRule::new(Some(Scope::AgentsWrite), true, Retry::Repeat) });
    /// Its answer has a code that lets somebody in.
    pub const VISIT: Self = Self::of_agent(Scope::AgentsWrite, Retry::Unkept);
    pub const SEND: Self = Self::Key(KeyRule::SEND);

    /// A create: `find` answers for an agent that an earlier request made.
    pub const fn create(find: FindAgent) -> Self {
        Self::Key(KeyRule::new(Some(Scope::AgentsWrite), false, Retry::FindAgent(find)))
    }

    /// A file that becomes an agent.
    pub const fn import(find: FindAgent) -> Self {
        let rule = KeyRule::new(Some(Scope::AgentsWrite), false, Retry::FindAgent(find));
        Self::Key(KeyRule { repeats: MAX_ARCHIVE, ..rule })
    }

    /// An agent that becomes two.
    pub const fn copy(find: FindAgent) -> Self {
        Self::of_agent(Scope::AgentsWrite, Retry::FindAgent(find))
    }

    const fn needs(scope: Option<Scope>) -> Self {
        Self::Key(KeyRule::new(scope, false, Retry::Repeat))
    }

    pub const PASSED: Self = Self::Key(KeyRule::PASSED);
    /// A message to an agent of the caller's own.
    pub const SEND_OWN: Self = Self::Key(KeyRule::new(Some(Scope::MessagesSend), false, Retry::Never));

    /// An answer that is streamed and cannot be kept for a retry.
    pub const ADMIN_STREAMED: Self = Self::Key(KeyRule::new(Some(Scope::Admin), false, Retry::PassedOn));

    const fn of_agent(scope: Scope, retry: Retry) -> Self {
        Self::Key(KeyRule::new(Some(scope), true, retry))
    }
}

impl KeyRule {
    /// A message to one agent.
    pub const SEND: Self = Self::new(Some(Scope::MessagesSend), true, Retry::Never);
    /// Passed on to an agent: the handler asks for the scope that the request needs.
    pub const PASSED: Self = Self::new(None, false, Retry::PassedOn);

    const fn new(scope: Option<Scope>, or_admin: bool, retry: Retry) -> Self {
        Self { scope, or_admin, retry, discloses: false, repeats: MAX_BODY }
    }

    /// The scope that the caller lacks.
    fn missing(&self, caller: &Caller) -> Option<Scope> {
        let enough = |scope: Scope| caller.may(scope) || (self.or_admin && caller.may(Scope::Admin));
        self.scope.filter(|scope| !enough(*scope))
    }
}

/// Puts the rule in front of the routes.
pub fn guarded(api: &Api, rule: Rule, (schemas, paths, methods): UtoipaMethodRouter<Api>) -> UtoipaMethodRouter<Api> {
    match rule {
        Rule::Open => (schemas, paths, methods),
        Rule::OpenAudited => (schemas, paths, methods.route_layer(from_fn_with_state(api.clone(), audited::visit))),
        Rule::Key(rule) => {
            let layer = from_fn_with_state((api.clone(), rule), |State((api, rule)), request, next: Next| async move {
                let seen = Seen::noted(&api, &request);
                admit(&api, seen, rule, Box::new(request), |caller, mut request| {
                    request.extensions_mut().insert(caller);
                    next.run(*request).boxed()
                })
                .await
            });
            (schemas, paths, methods.route_layer(layer))
        }
    }
}

/// Answers a request by `answer` as far as the rule lets its caller. The request is in a box because each of the futures here would
/// else hold it twice.
pub async fn admit<F: Future<Output = Response> + Send + 'static>(
    api: &Api,
    seen: Arc<Seen>,
    rule: KeyRule,
    request: Box<Request>,
    answer: impl FnOnce(Caller, Box<Request>) -> F + Send + 'static,
) -> Response {
    let passed_on = matches!(rule.retry, Retry::PassedOn);
    let caller = authenticate(api, &request).or_else(|refused| socket_caller(api, &request, passed_on, refused));
    let told = audited::is_told(request.method(), &rule);
    let audited = Audited::of(api, Arc::clone(&seen), caller.as_ref().ok(), told);
    let response = match caller {
        Ok(caller) => {
            let following = pin!(follow(api, &seen.trace, rule, caller, request, answer));
            acting(audited.acting.clone(), following).await
        }
        Err(refused) => refusal(api, refused, seen.address).into_response(),
    };
    if let Some(rest) = audited.rest(api, &response) {
        audited::write(api, rest).boxed().await;
    }
    response
}

/// Follows a request whose caller is known, as far as the rule lets it.
async fn follow<F: Future<Output = Response> + Send + 'static>(
    api: &Api,
    trace: &Trace,
    rule: KeyRule,
    caller: Caller,
    request: Box<Request>,
    answer: impl FnOnce(Caller, Box<Request>) -> F + Send + 'static,
) -> Response {
    if caller.session.is_some()
        && let Err(problem) = session::check(api, &request)
    {
        return problem.into_response();
    }
    // In one step: a formatter of JSON reads and writes all that is known of the span each time.
    tracing::record_all!(tracing::Span::current(), user = %caller.user, key = caller.key.map(display));
    let allowance = match count(api, &caller) {
        Ok(allowance) => allowance,
        Err(refused) => {
            let (problem, allowance) = *refused;
            let mut response = problem.into_response();
            allowance.write(response.headers_mut());
            return response;
        }
    };
    let Some(_open) = api.requests.open(caller.user) else {
        return too_many_open(api.requests.per_user()).into_response();
    };
    let whose = Whose::of(&caller);
    // What is passed on has a key for the agent.
    let ours = request.method() == Method::POST && !matches!(rule.retry, Retry::PassedOn);
    let key = ours.then(|| idempotency::key_of(&request)).flatten();
    if let Some(Err(problem)) = key.as_ref().map(idempotency::check) {
        return problem.into_response();
    }
    let key = key.filter(|_| !matches!(rule.retry, Retry::Unkept));
    let mut response = match (rule.missing(&caller), key) {
        (Some(scope), _) => lacking(&caller, scope).into_response(),
        (None, Some(key)) => {
            let repeated = Repeated { retry: rule.retry, largest: rule.repeats };
            let answering = caller.clone();
            let answer = |request| answer(answering, Box::new(request));
            idempotency::run(api, &caller, trace, repeated, key, *request, answer).boxed().await
        }
        (None, None) => answer(caller, request).await,
    };
    if response.status().is_server_error() {
        response.extensions_mut().insert(whose);
    }
    if let Some(allowance) = allowance {
        allowance.write(response.headers_mut());
    }
    response
}

/// Counts the request for its key and its user. What is left is reported for the key.
fn count(api: &Api, caller: &Caller) -> Result<Option<Allowance>, Box<(Problem, Allowance)>> {
    let refused = |what, (wait, left)| Box::new((rate_limited(what, wait), left));
    let of_key = match (&api.keys, caller.key) {
        (Some(keys), Some(key)) => Some(keys.count(key).map_err(|it| refused("requests with this key", it))?),
        _ => None,
    };
    let of_user = match &api.users {
        Some(users) => Some(users.count(caller.user).map_err(|it| refused("requests of this user", it))?),
        None => None,
    };
    Ok(of_key.or(of_user))
}

/// Who presents the key in `Authorization: Bearer …`, or whom the embedder has let in.
pub fn authenticate(api: &Api, request: &Request) -> Result<Caller, Refused> {
    if api.options.trust_callers
        && let Some(caller) = request.extensions().get::<Caller>()
    {
        return Ok(caller.clone());
    }
    let Some(value) = request.headers().get(header::AUTHORIZATION) else { return by_session(api, request) };
    let value = value.to_str().ok();
    let (scheme, key) = value.and_then(|value| value.split_once(' ')).ok_or(Refused::Unknown)?;
    if !scheme.eq_ignore_ascii_case("bearer") {
        return Err(Refused::Unknown);
    }
    api.plane.accounts().authenticate(key.trim(), api.plane.now())
}

/// Who presents the cookie of a session.
fn by_session(api: &Api, request: &Request) -> Result<Caller, Refused> {
    let token = session::token(request.headers()).ok_or(Refused::Unknown)?;
    let (caller, used) = api.plane.accounts().authenticate_session(token.expose(), api.plane.now())?;
    if let Some(used) = used {
        let plane = api.plane.clone();
        tokio::spawn(async move { plane.use_session(used).await });
    }
    Ok(caller)
}

pub fn lacking(caller: &Caller, scope: Scope) -> Problem {
    let detail = match caller.session {
        Some(_) => format!("This needs the scope {}, which only administrators have.", scope.as_str()),
        None => format!("The key lacks the scope {}.", scope.as_str()),
    };
    Problem::new(Code::Forbidden, detail)
}

/// Who opens a WebSocket to an agent, where the client can set no headers: browsers cannot.
fn socket_caller(api: &Api, request: &Request, passed_on: bool, refused: Refused) -> Result<Caller, Refused> {
    // The very test by which the key is replaced on its way: what it does not know for a WebSocket would carry the key on.
    let websocket = proxy::is_websocket(request.method(), request.version(), request.headers());
    match socket_credential(request.headers(), request.uri().query()) {
        Some(key) if passed_on && websocket => api.plane.accounts().authenticate(key.expose(), api.plane.now()),
        Some(_) | None => Err(refused),
    }
}

fn refusal(api: &Api, refused: Refused, address: Option<IpAddr>) -> Problem {
    // A key that works is let in whatever others at its address do: only failures are counted.
    if let (Some(failures), Some(address)) = (&api.failures, address)
        && let Err((wait, _)) = failures.count(address)
    {
        return rate_limited("requests with keys that do not work", wait);
    }
    match refused {
        Refused::Unknown => unauthorized(),
        Refused::Suspended => suspended(),
    }
}

/// The caller that [`admit`] let in.
pub struct Admitted(pub Caller);

impl<S: Send + Sync> FromRequestParts<S> for Admitted {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        parts.extensions.get::<Caller>().cloned().map(Self).ok_or_else(unauthorized)
    }
}
