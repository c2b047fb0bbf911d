//! A gateway that is listened in on: which messages the control plane hands over, in which order, and how often it pairs.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;

use crate::domain::Secret;
use crate::zeroclaw::client::{Gateway, GatewayError, HealthReport, Pairing, WebhookAnswer, WebhookCall};
use crate::zeroclaw::memory::MemoryEntry;
use crate::zeroclaw::spending::Spent;
use crate::zeroclaw::usability::SelfReport;

/// Any gateway, with a note of every message that is handed over to it and of every pairing that is tried. Clones share
/// the notes.
#[derive(Clone)]
pub struct Tap {
    inner: Arc<dyn Gateway>,
    noted: Arc<Mutex<Vec<Bytes>>>,
    pairings: Arc<AtomicUsize>,
}

impl Tap {
    /// Passes all calls on to `gateway`.
    pub fn new(gateway: Arc<dyn Gateway>) -> Self {
        Self { inner: gateway, noted: Arc::default(), pairings: Arc::default() }
    }

    /// The messages that were handed over since this was last asked, in order; one that is tried again is there again.
    pub fn noted(&self) -> Vec<Bytes> {
        std::mem::take(&mut self.noted.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Pairings that were tried, whatever came of them.
    pub fn pairings(&self) -> usize {
        self.pairings.load(Ordering::Relaxed)
    }
}

impl Gateway for Tap {
    fn health(&self, at: SocketAddr, within: Duration) -> BoxFuture<'_, Result<HealthReport, GatewayError>> {
        self.inner.health(at, within)
    }

    fn accepts_token<'a>(
        &'a self,
        at: SocketAddr,
        token: &'a Secret<String>,
        within: Duration,
    ) -> BoxFuture<'a, Result<bool, GatewayError>> {
        self.inner.accepts_token(at, token, within)
    }

    fn self_report<'a>(
        &'a self,
        at: SocketAddr,
        token: &'a Secret<String>,
        within: Duration,
    ) -> BoxFuture<'a, Result<SelfReport, GatewayError>> {
        self.inner.self_report(at, token, within)
    }

    fn spent<'a>(
        &'a self,
        at: SocketAddr,
        token: &'a Secret<String>,
        within: Duration,
    ) -> BoxFuture<'a, Result<Option<Spent>, GatewayError>> {
        self.inner.spent(at, token, within)
    }

    fn pair<'a>(
        &'a self,
        at: SocketAddr,
        code: &'a Secret<String>,
        within: Duration,
    ) -> BoxFuture<'a, Result<Pairing, GatewayError>> {
        self.pairings.fetch_add(1, Ordering::Relaxed);
        self.inner.pair(at, code, within)
    }

    fn memory<'a>(
        &'a self,
        at: SocketAddr,
        token: &'a Secret<String>,
        within: Duration,
    ) -> BoxFuture<'a, Result<Vec<MemoryEntry>, GatewayError>> {
        self.inner.memory(at, token, within)
    }

    fn remember<'a>(
        &'a self,
        at: SocketAddr,
        token: &'a Secret<String>,
        entry: &'a MemoryEntry,
        within: Duration,
    ) -> BoxFuture<'a, Result<(), GatewayError>> {
        self.inner.remember(at, token, entry, within)
    }

    fn webhook<'a>(
        &'a self,
        at: SocketAddr,
        token: &'a Secret<String>,
        call: WebhookCall,
        within: Duration,
    ) -> BoxFuture<'a, Result<WebhookAnswer, GatewayError>> {
        self.noted.lock().unwrap_or_else(PoisonError::into_inner).push(call.body.clone());
        self.inner.webhook(at, token, call, within)
    }
}
