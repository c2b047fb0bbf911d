//! How the parts of the gateway are doing, for `/health` and the dashboard.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use serde::Serialize;

use crate::domain::Timestamp;

/// The state of each part that has reported, by name.
pub(super) struct Health {
    started: Instant,
    components: Mutex<BTreeMap<String, Component>>,
}

#[derive(Debug, Clone, Serialize)]
struct Component {
    status: &'static str,
    updated_at: Timestamp,
    last_ok: Option<Timestamp>,
    last_error: Option<String>,
    restart_count: u64,
}

/// A look at everything, in ZeroClaw's shape.
#[derive(Debug, Serialize)]
pub(super) struct Snapshot {
    pid: u32,
    updated_at: Timestamp,
    pub(super) uptime_seconds: u64,
    components: BTreeMap<String, Component>,
}

impl Health {
    pub(super) fn new() -> Self {
        Self { started: Instant::now(), components: Mutex::default() }
    }

    pub(super) fn ok(&self, component: &str) {
        self.update(component, |state, now| {
            state.status = "ok";
            state.last_ok = Some(now);
            state.last_error = None;
        });
    }

    pub(super) fn error(&self, component: &str, message: &str) {
        self.update(component, |state, _| {
            state.status = "error";
            state.last_error = Some(message.to_owned());
        });
    }

    /// The component was started again after a failure.
    pub(super) fn restarted(&self, component: &str) {
        self.update(component, |state, _| state.restart_count += 1);
    }

    pub(super) fn snapshot(&self) -> Snapshot {
        Snapshot {
            pid: std::process::id(),
            updated_at: Timestamp::now(),
            uptime_seconds: self.started.elapsed().as_secs(),
            components: self.components.lock().unwrap_or_else(PoisonError::into_inner).clone(),
        }
    }

    fn update(&self, component: &str, change: impl FnOnce(&mut Component, Timestamp)) {
        let now = Timestamp::now();
        let mut components = self.components.lock().unwrap_or_else(PoisonError::into_inner);
        let state = components.entry(component.to_owned()).or_insert_with(|| Component {
            status: "starting",
            updated_at: now,
            last_ok: None,
            last_error: None,
            restart_count: 0,
        });
        state.updated_at = now;
        change(state, now);
    }
}
