//! The gateways of Pods that no container is behind: well, and paired with whoever has a code.

use std::future::ready;
use std::net::SocketAddr;
use std::time::Duration;

use futures_util::FutureExt as _;
use zeroone::domain::Secret;
use zeroone::runtime::BoxFuture;
use zeroone::zeroclaw::client::{Gateway, GatewayError, HealthReport, Pairing, WebhookAnswer, WebhookCall};
use zeroone::zeroclaw::memory::MemoryEntry;
use zeroone::zeroclaw::spending::Spent;
use zeroone::zeroclaw::usability::SelfReport;

pub struct Well;

type Answer<'a, T> = BoxFuture<'a, Result<T, GatewayError>>;
type Token = Secret<String>;

fn answer<T: Send + 'static>(answer: T) -> Answer<'static, T> {
    ready(Ok(answer)).boxed()
}

impl Gateway for Well {
    fn health(&self, _: SocketAddr, _: Duration) -> Answer<'_, HealthReport> {
        answer(HealthReport::new(200, r#"{"status":"ok","paired":true,"require_pairing":true}"#))
    }

    fn accepts_token<'a>(&'a self, _: SocketAddr, _: &'a Token, _: Duration) -> Answer<'a, bool> {
        answer(true)
    }

    fn self_report<'a>(&'a self, _: SocketAddr, _: &'a Token, _: Duration) -> Answer<'a, SelfReport> {
        answer(SelfReport::default())
    }

    fn spent<'a>(&'a self, _: SocketAddr, _: &'a Token, _: Duration) -> Answer<'a, Option<Spent>> {
        answer(None)
    }

    fn pair<'a>(&'a self, _: SocketAddr, _: &'a Token, _: Duration) -> Answer<'a, Pairing> {
        answer(Pairing::Paired { token: Secret::new(format!("zc_{}", "5".repeat(64))), persisted: true })
    }

    fn memory<'a>(&'a self, _: SocketAddr, _: &'a Token, _: Duration) -> Answer<'a, Vec<MemoryEntry>> {
        answer(Vec::new())
    }

    fn remember<'a>(&'a self, _: SocketAddr, _: &'a Token, _: &'a MemoryEntry, _: Duration) -> Answer<'a, ()> {
        answer(())
    }

    fn webhook<'a>(&'a self, _: SocketAddr, _: &'a Token, _: WebhookCall, _: Duration) -> Answer<'a, WebhookAnswer> {
        answer(WebhookAnswer::new(200, r#"{"response":"echo"}"#))
    }
}
