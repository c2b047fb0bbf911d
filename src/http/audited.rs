//! What of a request goes into the audit: every change, every refusal, every export, and every look of an administrator at
//! another's agent.
//!
//! A change that is a commit is written with it ([`crate::audit`]); the rest here, after the answer is known. Messages to
//! agents are no changes. What was only not valid has changed nothing and is left out.

use std::collections::HashMap;
use std::num::NonZeroU32;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::extract::{Request, State};
use axum::http::request::Parts;
use axum::http::{Method, StatusCode};
use axum::middleware::Next;
use axum::response::Response;

use super::guard::KeyRule;
use super::idempotency::{REPLAYED, Retry};
use super::problem::{Code, Problem};
use super::rate::{RateLimit, RateLimiter};
use super::request::{Seen, address_of, seen};
use super::state::Api;
use crate::accounts::Caller;
use crate::audit::{Acting, acting};
use crate::control::AgentHandle;
use crate::domain::{AgentId, KeyId, Scope, SessionId, Timestamp, UserId, elapsed};
use crate::store::{AuditOutcome, AuditRecord, Batch};

/// A look of the same person at the same thing is written once in this time: a page that refreshes is one look.
const LOOK_EVERY: Duration = Duration::from_secs(10 * 60);
/// Looks that are remembered for it.
const MAX_LOOKS: usize = 10_000;
/// Ids and names of routes fit many times over.
const MAX_TARGET: usize = 200;
/// The list of all agents is a look at each of them.
const EVERYONES_AGENTS: &str = "/api/admin/agents";

/// What keeps the audit from being flooded.
pub struct AuditBounds {
    /// Refusals by user, and those of strangers together: whoever wants to push others' records out has to wait.
    refusals: RateLimiter<Option<UserId>>,
    looks: Mutex<HashMap<(UserId, String), Timestamp>>,
}

impl Default for AuditBounds {
    fn default() -> Self {
        let burst = NonZeroU32::new(200).unwrap_or(NonZeroU32::MIN);
        let refusals = RateLimiter::new(RateLimit { per_second: NonZeroU32::MIN, burst });
        Self { refusals, looks: Mutex::default() }
    }
}

/// What came of a request whose answer sends a browser to a page that tells it.
#[derive(Clone, Copy)]
pub struct Behind(pub Code);

/// One request, as the audit sees it.
pub struct Audited {
    /// Who acts, for commits. Most requests are messages and looks at what is one's own: they lead to no record, so that
    /// none is made for them beforehand.
    pub acting: Option<Arc<Acting>>,
    sketch: Sketch,
    user: Option<UserId>,
    /// Whether it is told of when it is done: see [`is_told`].
    told: bool,
    /// An administrator looks at what is another user's.
    look: Option<(UserId, String)>,
}

/// What a record is made of; cheap to take from a request.
struct Sketch {
    time: Timestamp,
    user: Option<UserId>,
    key: Option<KeyId>,
    session: Option<SessionId>,
    seen: Arc<Seen>,
}

impl Sketch {
    fn of(api: &Api, seen: Arc<Seen>, caller: Option<&Caller>) -> Self {
        Self {
            time: api.plane.now(),
            user: caller.map(|caller| caller.user),
            key: caller.and_then(|caller| caller.key),
            session: caller.and_then(|caller| caller.session),
            seen,
        }
    }

    /// Whose the thing is, where it is not the caller's.
    fn owner(&self, api: &Api) -> Option<UserId> {
        owner(api, self.seen.uri.path()).filter(|owner| Some(*owner) != self.user)
    }

    fn target(&self) -> String {
        target(self.seen.uri.path()).chars().take(MAX_TARGET).collect()
    }

    fn record(&self, api: &Api) -> AuditRecord {
        let seen = &self.seen;
        let route = seen.matched().unwrap_or_else(|| seen.uri.path());
        let route = route.strip_prefix(&seen.prefix).unwrap_or(route).replace("{*", "{");
        AuditRecord {
            offset: 0,
            time: self.time,
            user: self.user,
            key: self.key,
            session: self.session,
            address: seen.address,
            action: format!("{} {route}", seen.method),
            target: self.target(),
            owner: self.owner(api),
            outcome: AuditOutcome::Done,
            code: None,
            request: seen.trace.request_id.clone(),
        }
    }
}

impl Audited {
    pub fn of(api: &Api, seen: Arc<Seen>, caller: Option<&Caller>, told: bool) -> Self {
        let sketch = Sketch::of(api, seen, caller);
        // Others see nothing that is not their own.
        let administrator = caller.filter(|caller| caller.may(Scope::Admin)).map(|caller| caller.user);
        let everyones = || sketch.seen.uri.path().ends_with(EVERYONES_AGENTS);
        let look = administrator.filter(|_| sketch.owner(api).is_some() || everyones());
        let look = look.map(|user| (user, format!("{} {}", sketch.seen.method, sketch.target())));
        let acting = (told || caller.is_none()).then(|| Acting::new(sketch.record(api)));
        Self { acting, user: sketch.user, sketch, told, look }
    }

    /// What no commit has said, and is to be written.
    pub fn rest(self, api: &Api, response: &Response) -> Option<AuditRecord> {
        if self.acting.as_ref().is_some_and(|acting| acting.is_written()) {
            return None;
        }
        // What was done the first time is in the audit since then.
        if response.headers().contains_key(REPLAYED) {
            return None;
        }
        let behind = response.extensions().get::<Behind>().map(|behind| behind.0);
        let outcome = self.outcome(api, behind.map_or(response.status(), Code::status))?;
        let code = behind.or_else(|| Some(response.extensions().get::<Problem>()?.code())).map(Code::as_str);
        let acting = self.acting.unwrap_or_else(|| Acting::new(self.sketch.record(api)));
        Some(acting.record(outcome, code))
    }

    fn outcome(&self, api: &Api, status: StatusCode) -> Option<AuditOutcome> {
        // Whoever has guessed too often is not even asked.
        let slowed = status == StatusCode::TOO_MANY_REQUESTS && self.user.is_none();
        if slowed || matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) {
            return api.audit.refusals.count(self.user).is_ok().then_some(AuditOutcome::Refused);
        }
        let looks = || self.look.as_ref().is_some_and(|look| api.audit.is_new(look, api.plane.now()));
        if status.is_client_error() {
            None
        } else if status.is_server_error() {
            self.told.then_some(AuditOutcome::Failed)
        } else {
            (self.told || looks()).then_some(AuditOutcome::Done)
        }
    }
}

/// A page of an agent's own has paired, as this caller; or was refused, where there is none.
pub async fn paired(api: &Api, agent: &AgentHandle, parts: &Parts, caller: Option<&Caller>) {
    if caller.is_none() && api.audit.refusals.count(None).is_err() {
        return;
    }
    let user = caller.map(|caller| caller.user);
    let record = AuditRecord {
        offset: 0,
        time: api.plane.now(),
        user,
        key: caller.and_then(|caller| caller.key),
        session: caller.and_then(|caller| caller.session),
        address: address_of(&parts.extensions),
        action: "POST /pair".into(),
        target: format!("/api/agents/{}/dashboard", agent.id()),
        owner: agent.view().map(|view| view.record.user).filter(|owner| Some(*owner) != user),
        outcome: if caller.is_some() { AuditOutcome::Done } else { AuditOutcome::Refused },
        code: caller.is_none().then(|| Code::Unauthorized.as_str().to_owned()),
        request: seen(&parts.extensions).map_or_else(String::new, |seen| seen.trace.request_id.clone()),
    };
    write(api, record).await;
}

/// Writes it. A store that cannot write has told the caller so already; here the log must do.
pub async fn write(api: &Api, record: AuditRecord) {
    if let Err(error) = api.plane.store().commit(Batch::audit(record)).await {
        tracing::error!(%error, "the audit was not written");
    }
}

impl AuditBounds {
    fn is_new(&self, look: &(UserId, String), now: Timestamp) -> bool {
        let mut looks = self.looks.lock().unwrap_or_else(PoisonError::into_inner);
        if looks.get(look).is_some_and(|last| elapsed(*last, now) < LOOK_EVERY) {
            return false;
        }
        if looks.len() >= MAX_LOOKS {
            looks.retain(|_, last| elapsed(*last, now) < LOOK_EVERY);
        }
        if looks.len() < MAX_LOOKS {
            looks.insert(look.clone(), now);
        }
        true
    }
}

/// Whether requests under this rule change what the service keeps, or take out what an agent knows. A message does neither,
/// and what is passed on to an agent is the agent's business.
pub fn is_told(method: &Method, rule: &KeyRule) -> bool {
    let message = method == Method::POST && rule.scope == Some(Scope::MessagesSend);
    let passed_on = matches!(rule.retry, Retry::PassedOn) && rule.scope.is_none();
    rule.discloses || (!method.is_safe() && !message && !passed_on)
}

/// In front of the routes by which people come in, where nobody is known yet.
pub async fn visit(State(api): State<Api>, request: Request, next: Next) -> Response {
    let seen = Seen::noted(&api, &request);
    let audited = Audited::of(&api, seen, None, !request.method().is_safe());
    let response = acting(audited.acting.clone(), next.run(request)).await;
    if let Some(rest) = audited.rest(&api, &response) {
        write(&api, rest).await;
    }
    response
}

/// The path without what is an agent's own: it may hold anything.
fn target(path: &str) -> &str {
    path.find("/gateway/").map_or(path, |end| &path[..end + "/gateway".len()])
}

/// Whose the thing in the path is.
fn owner(api: &Api, path: &str) -> Option<UserId> {
    let after = |mark: &str| path.strip_prefix(mark).map(|rest| rest.split('/').next().unwrap_or(rest));
    if let Some(user) = after("/api/admin/users/") {
        return user.parse().ok().filter(|user| api.plane.accounts().user(*user).is_some());
    }
    let agent = after("/api/agents/")?.parse::<AgentId>().ok()?;
    api.plane.agent(agent)?.owner()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_agents_own_paths_are_not_written() {
        for (path, written) in [
            ("/api/agents/1/start", "/api/agents/1/start"),
            ("/api/agents/1/gateway/api/memory/secret", "/api/agents/1/gateway"),
        ] {
            assert_eq!(target(path), written);
        }
    }
}
