//! The `Gateway` in front of the instances of the engine in memory.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::behavior::GatewayFault;
use super::engine::FakeEngine;
use super::process::{Gateway as Inside, Process, with_token};
use super::state::{Delivery, InstancePhase, State, Up};
use crate::domain::{AgentId, RunId, Secret, later};
use crate::zeroclaw::client::{Gateway, GatewayError, HealthReport, Pairing, WebhookAnswer, WebhookCall};
use crate::zeroclaw::memory::MemoryEntry;
use crate::zeroclaw::spending::Spent;
use crate::zeroclaw::usability::SelfReport;
use crate::zeroclaw::workspace::{self, CONFIG_PATH};

/// The gateways inside a [`FakeEngine`]'s instances, as a client reaches them.
///
/// They answer messages with `echo: ` and the message, and keep ZeroClaw's rules: one-time codes, tokens known by their
/// hash, a lockout after wrong codes. [`GatewayBehavior`](super::GatewayBehavior) and [`GatewayFault`] make them different, or difficult.
#[derive(Clone)]
pub struct FakeGateway {
    engine: FakeEngine,
}

/// A connection to a gateway.
struct Line {
    agent: AgentId,
    run_id: RunId,
    gateway_fault: GatewayFault,
    paused: bool,
    stirred: Arc<Notify>,
}

impl FakeGateway {
    /// All gateways of this engine.
    pub const fn new(engine: FakeEngine) -> Self {
        Self { engine }
    }

    /// Connects, if somebody listens.
    fn dial(&self, at: SocketAddr) -> Result<Line, GatewayError> {
        let refused = || GatewayError::NotSent("connection refused".into());
        let mut state = self.engine.lock();
        let agent = state.listener_at(at).ok_or_else(refused)?;
        let (now, gateway_fault) = (state.now(), state.gateway_fault(agent));
        let instance = state.instances.get_mut(&agent).ok_or_else(refused)?;
        let stirred = Arc::clone(&instance.stirred);
        let up = instance.up().ok_or_else(refused)?;
        match &up.process {
            // The kernel takes connections for a process that is paused.
            Process::Gateway(gateway) if gateway.listens_from <= now || up.paused => {
                Ok(Line { agent, run_id: up.run.run_id.clone(), gateway_fault, paused: up.paused, stirred })
            }
            Process::Gateway(_) | Process::Idle { .. } => Err(refused()),
        }
    }

    /// Works inside the gateway at the other end, if it is still the same run.
    fn inside<T>(&self, line: &Line, work: impl FnOnce(&mut State, &mut Up) -> T) -> Result<T, GatewayError> {
        let closed = || GatewayError::Unknown("connection closed".into());
        let mut state = self.engine.lock();
        let instance = state.instances.get_mut(&line.agent).ok_or_else(closed)?;
        // Taken out for the moment, so that the rest of the engine is at hand as well.
        let before = std::mem::replace(&mut instance.state, InstancePhase::Created);
        let (after, result) = match before {
            InstancePhase::Up(mut up) if up.run.run_id == line.run_id => {
                let result = work(&mut state, &mut up);
                (InstancePhase::Up(up), Ok(result))
            }
            other => (other, Err(closed())),
        };
        if let Some(instance) = state.instances.get_mut(&line.agent) {
            instance.state = after;
        }
        result
    }

    /// Lets the time pass that the answer takes; fails as soon as the run ends.
    async fn think(&self, line: &Line, time: Duration) -> Result<(), GatewayError> {
        let extra = if let GatewayFault::Slow(extra) = line.gateway_fault { extra } else { Duration::ZERO };
        let ready = Instant::now() + time + extra;
        let endless = line.gateway_fault == GatewayFault::Hung || line.paused;
        loop {
            let stirred = line.stirred.notified();
            self.inside(line, |_, _| ())?;
            if !endless && Instant::now() >= ready {
                return Ok(());
            }
            tokio::select! {
                biased;
                () = stirred => {}
                () = sleep_until(ready), if !endless => {}
            }
        }
    }

    async fn heard(&self, at: SocketAddr) -> Result<Line, GatewayError> {
        let half = self.engine.lock().pace.half_call;
        if !half.is_zero() {
            sleep(half).await;
        }
        self.dial(at)
    }
}

/// No answer in time is the caller's decision.
async fn within<T>(limit: Duration, call: impl Future<Output = Result<T, GatewayError>>) -> Result<T, GatewayError> {
    timeout(limit, call).await.unwrap_or(Err(GatewayError::TimedOut))
}

impl Inside {
    fn takes(&self, token: &Secret<String>, gateway_fault: GatewayFault) -> bool {
        !self.requires_pairing
            || (gateway_fault != GatewayFault::Forgetful && self.tokens.contains(&workspace::token_hash(token)))
    }
}

/// The gateway that runs there; what is no gateway closes the connection.
fn gateway(up: &mut Up) -> Result<&mut Inside, GatewayError> {
    match &mut up.process {
        Process::Gateway(gateway) => Ok(gateway),
        Process::Idle { .. } => Err(GatewayError::Unknown("connection closed".into())),
    }
}

/// A code is redeemed, or not.
fn redeem(state: &mut State, up: &mut Up, line: &Line, code: &str) -> Result<Pairing, GatewayError> {
    let now = state.now();
    let behavior = Arc::clone(&up.behavior);
    state.tally(line.agent).pairings += 1;
    let gateway = gateway(up)?;
    if let Some(until) = gateway.locked_until.filter(|until| *until > now) {
        state.tally(line.agent).failed_pairings += 1;
        return Ok(Pairing::LockedOut { retry_after_secs: state.until(until).as_secs().max(1) });
    }
    if !gateway.requires_pairing
        || gateway.code.as_deref() != Some(code.trim())
        || line.gateway_fault == GatewayFault::Forgetful
    {
        let tally = state.tally(line.agent);
        tally.failed_pairings += 1;
        gateway.failures += 1;
        if gateway.failures >= behavior.failures_to_lockout {
            gateway.failures = 0;
            gateway.locked_until = Some(later(now, behavior.lockout));
            tally.lockouts += 1;
        }
        return Ok(Pairing::Refused);
    }
    gateway.code = None;
    gateway.failures = 0;
    let random: String = (0..4).map(|_| format!("{:016x}", state.random.next())).collect();
    let token = Secret::new(format!("{}{random}", behavior.token_prefix));
    let hash = workspace::token_hash(&token);
    let persisted = behavior.persists_tokens && persist(state, line.agent, &hash);
    gateway.tokens.insert(hash);
    Ok(Pairing::Paired { token, persisted })
}

/// Writes the token's hash into the gateway's config file.
fn persist(state: &mut State, agent: AgentId, hash: &str) -> bool {
    let Some(volume) = state.volumes.get_mut(&agent) else { return false };
    let config = with_token(volume.files.get(CONFIG_PATH).map(Vec::as_slice), hash);
    config.map(|config| volume.files.insert(CONFIG_PATH.into(), config)).is_some()
}

fn json(status: u16, body: &serde_json::Value) -> WebhookAnswer {
    let body = Bytes::from(body.to_string());
    WebhookAnswer::new(status, body).with_content_type("application/json")
}

fn unauthorized() -> WebhookAnswer {
    json(401, &serde_json::json!({"error": "Unauthorized — pair first via POST /pair"}))
}

fn refused_memory() -> GatewayError {
    GatewayError::Garbage("401 from /api/memory".into())
}

/// What the gateway says to a message that it took.
fn reply(gateway_fault: GatewayFault, body: &Bytes) -> Result<WebhookAnswer, GatewayError> {
    match gateway_fault {
        GatewayFault::HangsUp => Err(GatewayError::Unknown("connection closed".into())),
        GatewayFault::Garbage => Err(GatewayError::Garbage("no HTTP at all".into())),
        GatewayFault::Fails(408) => Ok(WebhookAnswer::new(408, Bytes::new())),
        GatewayFault::Unusable => {
            Ok(json(503, &serde_json::json!({"error": "needs_quickstart", "url": "/quickstart"})))
        }
        GatewayFault::Fails(status) => Ok(json(status, &serde_json::json!({"error": "LLM request failed"}))),
        GatewayFault::Well
        | GatewayFault::Slow(_)
        | GatewayFault::Hung
        | GatewayFault::Unwell
        | GatewayFault::Forgetful
        | GatewayFault::Mute => {
            let sent = serde_json::from_slice::<serde_json::Value>(body).unwrap_or_default();
            let message = sent.get("message").and_then(serde_json::Value::as_str).unwrap_or_default();
            Ok(json(200, &serde_json::json!({"model": "fake", "response": format!("echo: {message}")})))
        }
    }
}

impl Gateway for FakeGateway {
    fn health(&self, at: SocketAddr, limit: Duration) -> BoxFuture<'_, Result<HealthReport, GatewayError>> {
        let call = async move {
            let line = self.heard(at).await?;
            self.think(&line, Duration::ZERO).await?;
            self.inside(&line, |_, up| {
                if line.gateway_fault == GatewayFault::Garbage {
                    return Ok(HealthReport { status: 502, body: Bytes::from_static(b"\xff\xfe") });
                }
                let gateway = gateway(up)?;
                let (status, word) =
                    if line.gateway_fault == GatewayFault::Unwell { (503, "error") } else { (200, "ok") };
                let body = serde_json::json!({
                    "paired": !gateway.tokens.is_empty(),
                    "require_pairing": gateway.requires_pairing,
                    "status": word,
                });
                Ok(HealthReport { status, body: Bytes::from(body.to_string()) })
            })?
        };
        within(limit, call).boxed()
    }

    fn accepts_token<'a>(
        &'a self,
        at: SocketAddr,
        token: &'a Secret<String>,
        limit: Duration,
    ) -> BoxFuture<'a, Result<bool, GatewayError>> {
        let call = async move {
            let line = self.heard(at).await?;
            self.think(&line, Duration::ZERO).await?;
            self.inside(&line, |state, up| match line.gateway_fault {
                GatewayFault::Garbage => Err(GatewayError::Garbage("no HTTP at all".into())),
                gateway_fault => {
                    let accepted = gateway(up)?.takes(token, gateway_fault);
                    if !accepted {
                        let at = state.now();
                        state.tally(line.agent).refusals.push(at);
                    }
                    Ok(accepted)
                }
            })?
        };
        within(limit, call).boxed()
    }

    fn self_report<'a>(
        &'a self,
        at: SocketAddr,
        _token: &'a Secret<String>,
        limit: Duration,
    ) -> BoxFuture<'a, Result<SelfReport, GatewayError>> {
        let call = async move {
            let line = self.heard(at).await?;
            self.think(&line, Duration::ZERO).await?;
            self.inside(&line, |_, _| match line.gateway_fault {
                GatewayFault::Garbage => Err(GatewayError::Garbage("no HTTP at all".into())),
                GatewayFault::Unusable => {
                    Ok(SelfReport { missing: Some("Add a model provider.".into()), ..SelfReport::default() })
                }
                _ => Ok(SelfReport::default()),
            })?
        };
        within(limit, call).boxed()
    }

    /// A hundred tokens and a tenth of a cent for each message.
    fn spent<'a>(
        &'a self,
        at: SocketAddr,
        _token: &'a Secret<String>,
        limit: Duration,
    ) -> BoxFuture<'a, Result<Option<Spent>, GatewayError>> {
        let call = async move {
            let line = self.heard(at).await?;
            self.think(&line, Duration::ZERO).await?;
            self.inside(&line, |state, _| {
                let messages = u32::try_from(state.tally(line.agent).messages.len()).unwrap_or(u32::MAX);
                Ok(Some(Spent { tokens: 100 * u64::from(messages), cost_usd: 0.001 * f64::from(messages) }))
            })?
        };
        within(limit, call).boxed()
    }

    fn pair<'a>(
        &'a self,
        at: SocketAddr,
        code: &'a Secret<String>,
        limit: Duration,
    ) -> BoxFuture<'a, Result<Pairing, GatewayError>> {
        let call = async move {
            let line = self.heard(at).await?;
            self.think(&line, Duration::ZERO).await?;
            let paired = self.inside(&line, |state, up| redeem(state, up, &line, code.expose()))??;
            match line.gateway_fault {
                // The code is spent, and the token never arrives.
                GatewayFault::HangsUp => Err(GatewayError::Unknown("connection closed".into())),
                GatewayFault::Garbage => Err(GatewayError::Garbage("no HTTP at all".into())),
                _ => Ok(paired),
            }
        };
        within(limit, call).boxed()
    }

    fn memory<'a>(
        &'a self,
        at: SocketAddr,
        token: &'a Secret<String>,
        within: Duration,
    ) -> BoxFuture<'a, Result<Vec<MemoryEntry>, GatewayError>> {
        let call = async move {
            let line = self.heard(at).await?;
            self.think(&line, Duration::ZERO).await?;
            self.inside(&line, |state, up| {
                gateway(up)?.takes(token, line.gateway_fault).then_some(()).ok_or_else(refused_memory)?;
                Ok(state.memory(line.agent))
            })?
        };
        self::within(within, call).boxed()
    }

    fn remember<'a>(
        &'a self,
        at: SocketAddr,
        token: &'a Secret<String>,
        entry: &'a MemoryEntry,
        within: Duration,
    ) -> BoxFuture<'a, Result<(), GatewayError>> {
        let call = async move {
            let line = self.heard(at).await?;
            self.think(&line, Duration::ZERO).await?;
            self.inside(&line, |state, up| {
                gateway(up)?.takes(token, line.gateway_fault).then_some(()).ok_or_else(refused_memory)?;
                state.remember(line.agent, entry.clone());
                Ok(())
            })?
        };
        self::within(within, call).boxed()
    }

    fn webhook<'a>(
        &'a self,
        at: SocketAddr,
        token: &'a Secret<String>,
        call: WebhookCall,
        limit: Duration,
    ) -> BoxFuture<'a, Result<WebhookAnswer, GatewayError>> {
        let sending = async move {
            let line = self.heard(at).await?;
            call.sent.set();
            if line.paused || line.gateway_fault == GatewayFault::Hung {
                self.think(&line, Duration::ZERO).await?;
            }
            let read = self.inside(&line, |state, up| {
                let answers_in = up.behavior.answers_in;
                if !gateway(up)?.takes(token, line.gateway_fault) {
                    let at = state.now();
                    state.tally(line.agent).refusals.push(at);
                    return Ok(Err(unauthorized()));
                }
                let at = state.now();
                let (run_id, body, session) = (line.run_id.clone(), call.body.clone(), call.session.clone());
                let delivery = Delivery { at, run_id, body, session };
                state.tally(line.agent).messages.push(delivery);
                Ok(Ok(answers_in))
            })??;
            match read {
                Err(refusal) => Ok(refusal),
                Ok(answers_in) => {
                    self.think(&line, answers_in).await?;
                    reply(line.gateway_fault, &call.body)
                }
            }
        };
        within(limit, sending).boxed()
    }
}
