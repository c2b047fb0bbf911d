//! `Idempotency-Key`: the same POST sent again gets the stored answer, also after the service was restarted.
//!
//! ```text
//! key, body ─► under way here? ─► 409     ─► stored? ─► replayed (other body: 422)
//!                                          ─► begun before a crash? ─► by what the request was: see [`Retry`]
//!                                          ─► claim ─► handler, to its end ─► store what was done
//! ```
//! What was certainly not acted on is not kept, so that the retry is a first try. A request with a key runs to its end
//! even if its caller goes away: the answer is what the retry will ask for. An answer that comes as events is kept while it
//! is passed on.

use std::convert::Infallible;
use std::time::Duration;

use axum::body::Body;
use axum::extract::Request;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::BytesMut;
use futures_util::FutureExt;
use http_body_util::{BodyExt, StreamBody};
use sha2::{Digest, Sha256};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tracing::Instrument;

use super::body;
use super::error::{bad_header, delivery_unknown};
use super::in_flight::{Fingerprint, Underway, other_request};
use super::problem::{Code, Problem};
use super::request::{Trace, panicked, render};
use super::state::Api;
use crate::accounts::Caller;
use crate::actor::IdempotencyClaim;
use crate::audit::{acting, current};
use crate::domain::{AgentId, Scope, Timestamp, later};
use crate::store::{Answer, Batch, IdempotencyRecord, IdempotencyState};
use crate::vault::Sealed;

const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
pub const REPLAYED: HeaderName = HeaderName::from_static("idempotent-replayed");
/// How long an answer is kept.
const KEPT_FOR: Duration = Duration::from_secs(24 * 60 * 60);
const MAX_KEY: usize = 255;
/// The largest answer is that of a gateway, 4 MiB.
const MAX_ANSWER: usize = 5 * 1024 * 1024;
/// The largest body that a route takes: conversations of OpenAI's clients. Each route has a bound of its own below this.
pub const MAX_BODY: usize = 8 * 1024 * 1024;
/// Events of a kept answer that a slow caller may be behind.
const FRAMES: usize = 8;
/// Headers that belong to the answer itself; all others are made anew.
const KEPT_HEADERS: [HeaderName; 4] =
    [header::CONTENT_TYPE, header::LOCATION, header::ETAG, HeaderName::from_static("preference-applied")];

/// Answers for the agent that an earlier request of this caller was to make; `None` where that request is to be followed
/// again, because nothing is left of it.
pub type FindAgent = fn(&Api, &Caller, AgentId) -> Option<Response>;

/// Marks an answer that must not be kept, because it shows a secret.
#[derive(Debug, Clone, Copy)]
pub struct HoldsSecret;

/// What a request that was begun before a crash means for its retry.
#[derive(Debug, Clone, Copy)]
pub enum Retry {
    /// It may be done again.
    Repeat,
    /// The agent that it was to create is there, or it is not.
    FindAgent(FindAgent),
    /// It may have been sent, and must not be sent again.
    Never,
    /// The agent's gateway decides: keys are passed on to it.
    PassedOn,
    /// Keys are ignored: even a digest of the request must not be kept, because it has a password.
    Unkept,
}

/// The id that a new agent gets, with the claim that is stored together with it.
#[derive(Debug, Clone)]
pub struct Reserved {
    pub agent: AgentId,
    pub claim: IdempotencyClaim,
}

/// One request with a key.
struct Keyed {
    api: Api,
    caller: Caller,
    key: String,
    fingerprint: Fingerprint,
    retry: Retry,
    path: String,
    trace: Trace,
    /// When what is kept of it is forgotten.
    expires_at: Timestamp,
}

/// How a route's requests are repeated.
#[derive(Debug, Clone, Copy)]
pub struct Repeated {
    pub retry: Retry,
    /// The largest body, which is compared with that of the first request.
    pub largest: usize,
}

/// The key by which a request may be repeated.
pub fn key_of(request: &Request) -> Option<HeaderValue> {
    request.headers().get(IDEMPOTENCY_KEY).cloned()
}

/// A key as it may be.
///
/// # Errors
/// It is none.
pub fn check(key: &HeaderValue) -> Result<&str, Problem> {
    let visible = key.to_str().ok().filter(|key| key.bytes().all(|b| b.is_ascii_graphic()));
    let key = visible.filter(|key| (1..=MAX_KEY).contains(&key.len()));
    key.ok_or_else(|| bad_header(&IDEMPOTENCY_KEY, "must be 1 to 255 visible ASCII characters"))
}

/// Runs a POST with a key, once for each key.
pub async fn run<F: Future<Output = Response> + Send + 'static>(
    api: &Api,
    caller: &Caller,
    trace: &Trace,
    repeated: Repeated,
    key: HeaderValue,
    request: Request,
    answer: impl FnOnce(Request) -> F + Send + 'static,
) -> Response {
    match begin(api, caller, trace, repeated, key, request).boxed().await {
        Err(problem) => problem.into_response(),
        Ok((keyed, underway, request)) => {
            let work = keyed.follow(underway, request, answer);
            tokio::spawn(acting(current(), work).in_current_span()).await.unwrap_or_else(|_| panicked())
        }
    }
}

async fn begin(
    api: &Api,
    caller: &Caller,
    trace: &Trace,
    Repeated { retry, largest }: Repeated,
    key: HeaderValue,
    request: Request,
) -> Result<(Keyed, Underway, Request), Problem> {
    let key = check(&key)?.to_owned();
    let (parts, body) = request.into_parts();
    let body = body::read(&parts.headers, body, largest).await?;
    let path = parts.uri.path().to_owned();
    let mut digest = Sha256::new();
    // The caller is part of it: what one key was answered, another with fewer scopes may not see.
    let key_id = caller.key.map(|key| *key.as_bytes()).unwrap_or_default();
    let scopes = caller.scopes.iter().map(Scope::as_str).collect::<Vec<_>>().join(" ");
    let query = parts.uri.query().unwrap_or("").as_bytes();
    for part in [parts.method.as_str().as_bytes(), path.as_bytes(), query, &body, &key_id, scopes.as_bytes()] {
        digest.update((part.len() as u64).to_le_bytes());
        digest.update(part);
    }
    let fingerprint = digest.finalize().into();
    let underway = api.in_flight.enter(caller.user, &key, fingerprint)?;
    let trace = trace.clone();
    let expires_at = later(api.plane.now(), KEPT_FOR);
    let keyed = Keyed { api: api.clone(), caller: caller.clone(), key, fingerprint, retry, path, trace, expires_at };
    Ok((keyed, underway, Request::from_parts(parts, Body::from(body))))
}

impl Keyed {
    async fn follow<F: Future<Output = Response>>(
        self,
        underway: Underway,
        mut request: Request,
        answer: impl FnOnce(Request) -> F,
    ) -> Response {
        match self.earlier().await {
            Err(problem) => return problem.into_response(),
            Ok(Some(response)) => return response,
            Ok(None) => {}
        }
        if matches!(self.retry, Retry::FindAgent(_)) {
            let agent = AgentId::new().in_cell(self.api.plane.cell());
            let record =
                self.record(IdempotencyState::InFlight { agent: Some(agent), started_at: self.api.plane.now() });
            let claim = IdempotencyClaim { key: self.key.clone(), record };
            request.extensions_mut().insert(Reserved { agent, claim });
        } else if let Err(problem) = self.claim().await {
            return problem.into_response();
        }
        let response = answer(request).await;
        if is_stream(&response) { self.keep_stream(underway, response) } else { self.conclude(response).await }
    }

    /// What an earlier request with the same key leads to; `None` where this one is to be followed.
    async fn earlier(&self) -> Result<Option<Response>, Problem> {
        let now = self.api.plane.now();
        let stored = self.api.plane.store().idempotency(self.caller.user, &self.key).await?;
        let Some(stored) = stored.filter(|stored| stored.expires_at > now) else { return Ok(None) };
        if stored.fingerprint != self.fingerprint {
            return Err(other_request());
        }
        match stored.state {
            IdempotencyState::Done { status, headers, body } => {
                self.replay(status, &headers, &body, stored.expires_at).map(Some)
            }
            IdempotencyState::Withheld { status } => Err(not_kept(status)),
            IdempotencyState::InFlight { agent, .. } => match (self.retry, agent) {
                (Retry::Repeat | Retry::Unkept, _) | (Retry::FindAgent(_), None) => Ok(None),
                (Retry::FindAgent(find), Some(agent)) => match find(&self.api, &self.caller, agent) {
                    Some(response) => Ok(Some(self.conclude(response).await)),
                    None => {
                        self.store(Batch::remove_idempotency(self.caller.user, &self.key)).await;
                        Ok(None)
                    }
                },
                (Retry::Never | Retry::PassedOn, _) => {
                    Ok(Some(self.conclude(delivery_unknown().into_response()).await))
                }
            },
        }
    }

    /// Marks the request as begun. One that was begun before and may be repeated has its mark already.
    async fn claim(&self) -> Result<(), Problem> {
        let now = self.api.plane.now();
        let begun = self.record(IdempotencyState::InFlight { agent: None, started_at: now });
        let stored = self.api.plane.store().idempotency(self.caller.user, &self.key).await?;
        if stored.is_some_and(|stored| stored.expires_at > now) {
            return Ok(());
        }
        Ok(self.api.plane.store().commit(Batch::put_idempotency(self.caller.user, &self.key, &begun)).await?)
    }

    /// Passes events on as they come, and keeps them once they are whole. Goes on when the caller goes away.
    fn keep_stream(self, underway: Underway, response: Response) -> Response {
        let (parts, mut body) = response.into_parts();
        let (sender, receiver) = mpsc::channel(FRAMES);
        let (status, headers) = (parts.status, kept_headers(&parts.headers));
        let keep = async move {
            // `None` once it is too long to be kept.
            let mut kept = Some(BytesMut::new());
            while let Some(frame) = body.frame().await {
                // Without an end of its own it may go on: what became of it is unknown, as its mark says.
                let Ok(frame) = frame else { return };
                if let (Some(bytes), Some(data)) = (&mut kept, frame.data_ref()) {
                    bytes.extend_from_slice(data);
                }
                kept = kept.filter(|bytes| bytes.len() <= MAX_ANSWER);
                // A caller that went away comes back with its key.
                let _ = sender.send(Ok::<_, Infallible>(frame)).await;
            }
            if self.api.options.closing.is_cancelled() {
                return;
            }
            let state = match kept {
                Some(bytes) => self.done(status, headers, &bytes),
                None => IdempotencyState::Withheld { status: status.as_u16() },
            };
            self.store(self.put(state)).await;
            drop(underway);
        };
        tokio::spawn(keep.in_current_span());
        Response::from_parts(parts, Body::new(StreamBody::new(ReceiverStream::new(receiver))))
    }

    /// Keeps the answer if something was done, or may have been; frees the key if certainly nothing was.
    async fn conclude(&self, response: Response) -> Response {
        let status = response.status();
        let response = render(response, &self.path, &self.trace);
        let (parts, body) = response.into_parts();
        let Ok(body) = axum::body::to_bytes(body, MAX_ANSWER).await else {
            // Answers under a key are whole bodies of ours; one that cannot be read is not given either.
            return panicked();
        };
        let acted = status.is_success() || matches!(status, StatusCode::BAD_GATEWAY | StatusCode::GATEWAY_TIMEOUT);
        if acted && parts.extensions.get::<HoldsSecret>().is_some() {
            self.store(self.put(IdempotencyState::Withheld { status: status.as_u16() })).await;
        } else if acted {
            self.store(self.put(self.done(status, kept_headers(&parts.headers), &body))).await;
        } else if status == StatusCode::INTERNAL_SERVER_ERROR || matches!(self.retry, Retry::FindAgent(_)) {
            // Unknown, or stored together with the agent: the mark says what a retry needs.
        } else {
            self.store(Batch::remove_idempotency(self.caller.user, &self.key)).await;
        }
        Response::from_parts(parts, Body::from(body))
    }

    fn done(&self, status: StatusCode, headers: Vec<(String, String)>, body: &[u8]) -> IdempotencyState {
        let answer = Answer { user: self.caller.user, key: &self.key, expires_at: self.expires_at() };
        let sealed = answer.seal(self.api.plane.vault(), body);
        IdempotencyState::Done { status: status.as_u16(), headers, body: sealed }
    }

    fn put(&self, state: IdempotencyState) -> Batch {
        Batch::put_idempotency(self.caller.user, &self.key, &self.record(state))
    }

    async fn store(&self, batch: Batch) {
        if let Err(error) = self.api.plane.store().commit(batch).await {
            tracing::error!(%error, "what became of a request with an idempotency key could not be stored");
        }
    }

    fn replay(
        &self,
        status: u16,
        headers: &[(String, String)],
        body: &Sealed,
        expires_at: Timestamp,
    ) -> Result<Response, Problem> {
        let answer = Answer { user: self.caller.user, key: &self.key, expires_at };
        let body = answer.open(self.api.plane.vault(), body).map_err(|error| {
            tracing::error!(%error, "a stored answer cannot be opened");
            Problem::new(Code::Internal, "The stored answer cannot be opened.")
        })?;
        let mut response = Response::new(Body::from(body.expose().clone()));
        *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        for (name, value) in headers {
            if let (Ok(name), Ok(value)) = (HeaderName::try_from(name), HeaderValue::try_from(value)) {
                response.headers_mut().insert(name, value);
            }
        }
        response.headers_mut().insert(REPLAYED, HeaderValue::from_static("true"));
        Ok(response)
    }

    fn record(&self, state: IdempotencyState) -> IdempotencyRecord {
        IdempotencyRecord { fingerprint: self.fingerprint, state, expires_at: self.expires_at() }
    }

    fn expires_at(&self) -> Timestamp {
        self.expires_at
    }
}

fn is_stream(response: &Response) -> bool {
    response.headers().get(header::CONTENT_TYPE).is_some_and(|kind| kind.as_bytes().starts_with(b"text/event-stream"))
}

fn kept_headers(headers: &HeaderMap) -> Vec<(String, String)> {
    let kept = |name: &HeaderName| Some((name.to_string(), headers.get(name)?.to_str().ok()?.to_owned()));
    KEPT_HEADERS.iter().filter_map(kept).collect()
}

/// It was done, and its answer is not there to be given again.
fn not_kept(status: u16) -> Problem {
    let detail = "The request was done before, but its answer was not kept: it showed a secret, was too long, or the user's \
                  room for kept answers is used up. Read what it made, or repeat it with a new key.";
    Problem::new(Code::AnswerNotKept, detail).with("originalStatus", status)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{Plan, Scopes};
    use crate::http::HttpOptions;
    use crate::testkit::{self, TestPlane};

    /// A request of the plane's user at this moment, always with the same key.
    fn keyed(world: &TestPlane, api: &Api, retry: Retry) -> Keyed {
        Keyed {
            api: api.clone(),
            caller: Caller::new(world.user, Scopes::user()),
            key: "k-1".into(),
            fingerprint: [1; 32],
            retry,
            path: "/api/x".into(),
            trace: Trace { request_id: "r".into(), traceparent: None },
            expires_at: later(api.plane.now(), KEPT_FOR),
        }
    }

    async fn world() -> (TestPlane, Api) {
        let world = testkit::plane(7, Plan::Free).await;
        let api = Api::new(world.plane.clone(), HttpOptions::default(), "{}".into());
        (world, api)
    }

    async fn stored(world: &TestPlane) -> Option<IdempotencyRecord> {
        world.plane.store().idempotency(world.user, "k-1").await.unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_whose_end_is_unknown_keeps_its_mark_and_may_be_done_again_under_it() {
        let (world, api) = world().await;
        let first = keyed(&world, &api, Retry::Repeat);
        assert!(first.earlier().await.unwrap().is_none());
        first.claim().await.unwrap();
        let mark = stored(&world).await;
        assert!(mark.is_some());
        // The same after a crash, when nobody came to conclude it.
        first.conclude(StatusCode::INTERNAL_SERVER_ERROR.into_response()).await;
        assert_eq!(stored(&world).await, mark, "whether it was done is unknown");
        let other = Keyed { fingerprint: [2; 32], ..keyed(&world, &api, Retry::Repeat) };
        assert!(other.earlier().await.is_err(), "the key is still taken");
        tokio::time::advance(Duration::from_secs(1)).await;
        let again = keyed(&world, &api, Retry::Repeat);
        assert!(again.earlier().await.unwrap().is_none());
        again.claim().await.unwrap();
        assert_eq!(stored(&world).await, mark, "it has its mark already");
        again.conclude(StatusCode::CONFLICT.into_response()).await;
        assert_eq!(stored(&world).await, None, "what was certainly not done frees the key");
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_kept_of_a_request_is_forgotten_after_a_day() {
        for done in [true, false] {
            let (world, api) = world().await;
            let first = keyed(&world, &api, Retry::Repeat);
            first.claim().await.unwrap();
            if done {
                first.conclude(StatusCode::OK.into_response()).await;
            }
            tokio::time::advance(KEPT_FOR - Duration::from_millis(1)).await;
            let later = keyed(&world, &api, Retry::Repeat);
            assert_eq!(later.earlier().await.unwrap().is_some(), done, "it is still kept");
            tokio::time::advance(Duration::from_millis(1)).await;
            let later = keyed(&world, &api, Retry::Repeat);
            assert!(later.earlier().await.unwrap().is_none());
            later.claim().await.unwrap();
            assert_eq!(stored(&world).await.unwrap().expires_at, later.expires_at(), "it is claimed anew");
        }
    }

    #[test]
    fn answers_that_come_as_events_are_told_by_their_type() {
        for (kind, streamed) in [
            ("text/event-stream", true),
            ("text/event-stream; charset=utf-8", true),
            ("text/plain", false),
            ("application/json", false),
        ] {
            assert_eq!(is_stream(&([(header::CONTENT_TYPE, kind)], "").into_response()), streamed, "{kind}");
        }
        assert!(!is_stream(&Response::new(Body::empty())));
    }
}
