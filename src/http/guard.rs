//! Who may call what: every route says so in one table, and nothing gets past it.

use axum::extract::FromRequestParts;
use axum::extract::{Request, State};
use axum::http::Method;
use axum::http::header;
use axum::http::request::Parts;
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use utoipa_axum::router::UtoipaMethodRouter;

use super::error::{rate_limited, unauthorized};
use super::idempotency::{self, Retry};
use super::problem::{Code, Problem};
use super::state::Api;
use crate::accounts::Caller;
use crate::domain::Scope;

/// Who may call a route, and what a retry of it means.
#[derive(Debug, Clone, Copy)]
pub enum Rule {
    /// Anyone, without a key.
    Open,
    /// A key with this scope; any key where there is none.
    Key { scope: Option<Scope>, retry: Retry },
}

impl Rule {
    pub const ANY_KEY: Self = Self::Key { scope: None, retry: Retry::Repeat };
    pub const READ: Self = Self::Key { scope: Some(Scope::AgentsRead), retry: Retry::Repeat };
    pub const WRITE: Self = Self::Key { scope: Some(Scope::AgentsWrite), retry: Retry::Repeat };
    pub const CREATE: Self = Self::Key { scope: Some(Scope::AgentsWrite), retry: Retry::FindAgent };
    pub const SEND: Self = Self::Key { scope: Some(Scope::MessagesSend), retry: Retry::Never };
    pub const ADMIN: Self = Self::Key { scope: Some(Scope::Admin), retry: Retry::Repeat };
}

/// Puts the rule in front of the routes.
pub fn guarded(api: &Api, rule: Rule, (schemas, paths, methods): UtoipaMethodRouter<Api>) -> UtoipaMethodRouter<Api> {
    match rule {
        Rule::Open => (schemas, paths, methods),
        Rule::Key { scope, retry } => {
            let pass = Pass { api: api.clone(), scope, retry };
            (schemas, paths, methods.route_layer(from_fn_with_state(pass, admit)))
        }
    }
}

#[derive(Clone)]
struct Pass {
    api: Api,
    scope: Option<Scope>,
    retry: Retry,
}

async fn admit(State(pass): State<Pass>, mut request: Request, next: Next) -> Response {
    let Some(caller) = authenticate(&pass.api, &request) else { return unauthorized().into_response() };
    let allowance = match pass.api.limiter.as_ref().map(|limiter| limiter.count(caller.key)).transpose() {
        Ok(allowance) => allowance,
        Err((wait, allowance)) => {
            let mut response = rate_limited(wait).into_response();
            allowance.tell(response.headers_mut());
            return response;
        }
    };
    let missing = pass.scope.filter(|scope| !caller.may(*scope));
    let mut response = if let Some(scope) = missing {
        Problem::new(Code::Forbidden, format!("The key lacks the scope {}.", scope.as_str())).into_response()
    } else if request.method() == Method::POST {
        request.extensions_mut().insert(caller.clone());
        idempotency::run(&pass.api, &caller, pass.retry, request, next).await
    } else {
        request.extensions_mut().insert(caller);
        next.run(request).await
    };
    if let Some(allowance) = allowance {
        allowance.tell(response.headers_mut());
    }
    response
}

/// Who presents the key in `Authorization: Bearer …`.
pub fn authenticate(api: &Api, request: &Request) -> Option<Caller> {
    let value = request.headers().get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, key) = value.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("bearer") {
        return None;
    }
    api.plane.accounts().authenticate(key.trim(), api.plane.now())
}

/// The caller that [`admit`] let in.
pub struct Admitted(pub Caller);

impl FromRequestParts<Api> for Admitted {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &Api) -> Result<Self, Problem> {
        parts.extensions.get::<Caller>().cloned().map(Self).ok_or_else(unauthorized)
    }
}
