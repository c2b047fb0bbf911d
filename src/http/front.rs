//! The API as one service: the router, and a short way past it for what goes to agents.
//!
//! ```text
//! a message, or passed on to a gateway? ─► observe ─► guard ─► handler
//!   └─ anything else ─► router ─► observe ─► … ─► guard ─► handler
//! ```
//! Nearly all requests are for agents. A router would match each of theirs against a hundred patterns, put what it found among
//! the request's extensions for the handler to look up again, and clone a service for each layer: a fifth of all that such a
//! request costs. Both ways meet in the same guard with the same rule, and in the same handlers.

use std::convert::Infallible;
use std::sync::Arc;

use axum::Router;
use axum::extract::Request;
use axum::http::Method;
use axum::response::{IntoResponse, Response};
use futures_util::FutureExt;
use futures_util::future::{BoxFuture, ready};
use tower::ServiceExt;

use super::agents::OwnedAgent;
use super::guard::{KeyRule, admit};
use super::request::{BadRequest, MeantFor, Peer, Seen, observe};
use super::state::Api;
use super::{agent_host, gateway, message};
use crate::accounts::Caller;
use crate::domain::AgentId;

const AGENTS: &str = "/api/agents/";
/// As the router would write their routes.
const MESSAGE: &str = "/api/agents/{id}/message";
const GATEWAY: &str = "/api/agents/{id}/gateway/{*path}";
/// An id as everybody writes it; others take the longer way.
const ID: usize = 36;

/// What [`serve`](super::serve) serves: the whole API by [`front`](super::front), or a router. It cannot be nested below a path: for
/// that there is [`router`](super::router).
#[derive(Clone)]
pub struct Front {
    router: Router,
    /// Where requests may take the short way.
    api: Option<Api>,
}

/// A request that needs no router.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Direct {
    agent: AgentId,
    to: To,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum To {
    Message,
    /// What follows here in the path is the gateway's own.
    Gateway(usize),
}

impl Front {
    pub(super) fn new(router: Router, api: Api) -> Self {
        // A browser's questions are answered by a layer of the router.
        let api = Some(api).filter(|api| api.options.cors_origins.is_empty());
        Self { router, api }
    }

    pub(super) fn answer(
        &self,
        mut request: Request,
        peer: Peer,
        bad: Option<BadRequest>,
    ) -> BoxFuture<'static, Result<Response, Infallible>> {
        if let Some(api) = &self.api
            && let Some(direct) = Direct::of(request.method(), request.uri().path())
            && agent_host::label(api, &request).is_none()
        {
            return direct.answer(api.clone(), Box::new(request), (peer, bad)).map(Ok).boxed();
        }
        request.extensions_mut().insert(peer);
        if let Some(bad) = bad {
            request.extensions_mut().insert(bad);
        }
        self.router.clone().oneshot(request).boxed()
    }
}

impl From<Router> for Front {
    fn from(router: Router) -> Self {
        Self { router, api: None }
    }
}

impl Direct {
    fn of(method: &Method, path: &str) -> Option<Self> {
        let (id, rest) = path.strip_prefix(AGENTS)?.split_at_checked(ID)?;
        let to = match rest.strip_prefix("/gateway/") {
            // The gateway's first page has a route of its own.
            Some(rest) if !rest.is_empty() && gateway::PASSED.contains(method) => {
                To::Gateway(path.len() - rest.len() - 1)
            }
            None if rest == "/message" && method == Method::POST => To::Message,
            _ => return None,
        };
        Some(Self { agent: id.parse().ok()?, to })
    }

    async fn answer(self, api: Api, request: Box<Request>, from: (Peer, Option<BadRequest>)) -> Response {
        let (route, rule) = match self.to {
            To::Message => ((MESSAGE, MeantFor::Model), KeyRule::SEND),
            To::Gateway(_) => ((GATEWAY, MeantFor::Gateway), KeyRule::PASSED),
        };
        let seen = Seen::direct(&api, &request, route, from);
        observe(&api, &seen, request, |request| {
            let handling = (api.clone(), Arc::clone(&seen));
            admit(&api, Arc::clone(&seen), rule, request, move |caller, request| {
                self.handle(handling, caller, *request)
            })
        })
        .await
    }

    /// What waits for an agent is boxed once: each future around it would hold it twice, as what it was given and as what it waits
    /// for.
    fn handle(self, (api, seen): (Api, Arc<Seen>), caller: Caller, request: Request) -> BoxFuture<'static, Response> {
        let own = match OwnedAgent::of(&api, caller, self.agent) {
            Ok(own) => own,
            Err(problem) => return ready(problem.into_response()).boxed(),
        };
        match self.to {
            To::Gateway(at) => Box::pin(gateway::pass(api, own, request, at, seen.peer)),
            To::Message => message::send(api, own, seen, request).map(IntoResponse::into_response).boxed(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn size<A, F>(_: impl FnOnce(A) -> F) -> usize {
        size_of::<F>()
    }

    /// A future that waits for another inside of it holds that twice; a few of them in each other once made one of 200 KiB, whose
    /// copies took half of each request's time.
    #[test]
    fn what_a_request_is_while_it_waits_is_small() {
        let answer = size(|(direct, api, request, from): (Direct, _, _, _)| direct.answer(api, request, from));
        let pass = size(|(api, own, request, at, peer)| gateway::pass(api, own, request, at, peer));
        let send = size(|(api, own, seen, request)| message::send(api, own, seen, request));
        assert!(answer < 2048 && pass < 3 * 1024 && send < 2048, "{answer}, {pass}, {send} bytes");
    }

    #[test]
    fn what_the_router_would_read_otherwise_takes_the_longer_way() {
        let id = AgentId::new();
        let of = |method: Method, path: &str| Direct::of(&method, &path.replace("ID", &id.to_string()));
        let to = |to| Some(Direct { agent: id, to });
        assert_eq!(of(Method::POST, "/api/agents/ID/message"), to(To::Message));
        let at = "/api/agents/".len() + ID + "/gateway".len();
        for path in ["/api/agents/ID/gateway/webhook", "/api/agents/ID/gateway//pair", "/api/agents/ID/gateway/a/../b"]
        {
            assert_eq!(of(Method::GET, path), to(To::Gateway(at)), "{path}");
        }
        for (method, path) in [
            (Method::GET, "/api/agents/ID/message"),
            (Method::POST, "/api/agents/ID/message/"),
            (Method::POST, "/api/agents/ID/messages"),
            (Method::POST, "/x/api/agents/ID/message"),
            (Method::POST, "/api/agents/1/message"),
            (Method::POST, "/api/agents/%30ID/message"),
            (Method::POST, "/api/agents/ID/gateway/"),
            (Method::POST, "/api/agents/ID/gateway"),
            (Method::CONNECT, "/api/agents/ID/gateway/x"),
            (Method::GET, "/api/agents/ID"),
            (Method::GET, "/api/agents/äöüäöüäöüäöüäöüäöü/gateway/x"),
        ] {
            assert_eq!(of(method.clone(), path), None, "{method} {path}");
        }
    }
}
