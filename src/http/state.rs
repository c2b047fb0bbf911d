//! What all handlers share.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Semaphore, SemaphorePermit};
use tokio_util::sync::CancellationToken;

use super::error::overloaded;
use super::idempotency::InFlight;
use super::metrics::Metrics;
use super::problem::Problem;
use super::rate::{RateLimit, RateLimiter};
use super::service::Writable;
use crate::control::ControlPlane;

/// How the facade behaves.
#[derive(Debug, Clone)]
pub struct HttpOptions {
    /// Requests per key; `None` for as many as come.
    pub rate_limit: Option<RateLimit>,
    /// How long an agent may take to answer a message. Longer than any model that ZeroClaw itself waits for (30 s).
    pub answer_within: Duration,
    /// Ends the streams that would else go on for ever: the same token that ends [`super::serve`].
    pub closing: CancellationToken,
}

impl Default for HttpOptions {
    fn default() -> Self {
        Self {
            rate_limit: Some(RateLimit::default()),
            answer_within: Duration::from_secs(120),
            closing: CancellationToken::new(),
        }
    }
}

/// Commands that may be under way at once. The actors' mailboxes have no bound of their own: this is it.
const MAX_COMMANDS: usize = 512;
/// How long a command waits for its turn; actors answer in milliseconds, so one that waits longer has no chance.
const TURN_WITHIN: Duration = Duration::from_secs(10);

/// Cheap to clone.
#[derive(Clone)]
pub struct Api(Arc<Shared>);

pub struct Shared {
    pub plane: ControlPlane,
    pub options: HttpOptions,
    pub limiter: Option<RateLimiter>,
    pub in_flight: InFlight,
    pub metrics: Metrics,
    pub writable: Writable,
    commands: Semaphore,
}

impl Api {
    pub fn new(plane: ControlPlane, options: HttpOptions) -> Self {
        Self(Arc::new(Shared {
            plane,
            limiter: options.rate_limit.map(RateLimiter::new),
            in_flight: InFlight::default(),
            metrics: Metrics::default(),
            writable: Writable::default(),
            commands: Semaphore::new(MAX_COMMANDS),
            options,
        }))
    }

    /// Waits for the turn of a command; it lasts until the permit is dropped.
    pub async fn turn(&self) -> Result<SemaphorePermit<'_>, Problem> {
        match tokio::time::timeout(TURN_WITHIN, self.commands.acquire()).await {
            Ok(Ok(permit)) => Ok(permit),
            Ok(Err(_)) | Err(_) => Err(overloaded()),
        }
    }
}

impl std::ops::Deref for Api {
    type Target = Shared;

    fn deref(&self) -> &Shared {
        &self.0
    }
}
