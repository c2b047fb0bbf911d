//! What all handlers share.

use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::agents::ListModels;
use super::audited::AuditBounds;
use super::backup::BackupOptions;
use super::error::{overloaded, too_many_streams};
use super::in_flight::InFlight;
use super::load::{Load, Open};
use super::metrics::Metrics;
use super::problem::Problem;
use super::provider_urls::ProviderUrls;
use super::rate::{RateLimit, RateLimiter};
use super::readiness::Readiness;
use super::strangers::Strangers;
use super::visits::Visits;
use crate::accounts::Caller;
use crate::control::ControlPlane;
use crate::domain::{KeyId, UserId, elapsed};
use crate::forwarded::Network;
use crate::proxy::{Proxy, ProxyOptions};

/// How the facade behaves.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct HttpOptions {
    /// Requests per key; `None` for as many as come. A user may make twice as many, whatever the number of their keys.
    pub rate_limit: Option<RateLimit>,
    /// Requests per address with keys that do not work; `None` for as many as come.
    pub failure_limit: Option<RateLimit>,
    /// Requests that a user may have open at once.
    pub requests_per_user: usize,
    /// Of these, streams and waits.
    pub streams_per_user: usize,
    /// Streams and waits of all users: fewer than connections, so that some are left for everything else.
    pub max_streams: usize,
    /// Where agents may be sent for their models.
    pub provider_urls: ProviderUrls,
    /// Origins whose pages may call the API from a browser.
    pub cors_origins: Vec<String>,
    /// Host names of the service, beside `localhost`, addresses, and those below the control plane's domain.
    pub hosts: Vec<String>,
    /// Proxies whose `X-Forwarded-For` is believed, beside those on this machine. Whoever is among these networks can make
    /// failed sign-ins count against others.
    pub trusted_proxies: Vec<Network>,
    /// Whether a [`Caller`](crate::accounts::Caller) among a request's extensions is let in as it is: for embedders with a
    /// sign-in of their own. Only what is in the same process can put one there.
    pub trust_callers: bool,
    /// How long an agent may take to answer a message. Longer than any model that ZeroClaw itself waits for (30 s).
    pub answer_within: Duration,
    /// Ends the streams that would else go on for ever: the same token that ends [`super::serve`].
    pub closing: CancellationToken,
    /// The data path to agents' own gateways.
    pub proxy: ProxyOptions,
    /// Where it counts, for embedders who have a registry of their own; without it there are figures at `/metrics` alone.
    pub metrics: Option<Metrics>,
    /// Routes beside the API's, such as the web console's: behind the same host names, request ids and log lines.
    pub pages: axum::Router,
    /// The identity provider that lets people in; without it there is none.
    #[cfg(feature = "oidc")]
    pub oidc: Option<Arc<super::oidc::Provider>>,
    /// Asks a provider for its models, for `POST /api/agents/check`; without it there is no such route.
    pub list_models: Option<ListModels>,
    /// What `POST /api/admin/backup` copies beside the store; without it there is no such route.
    pub backup: Option<BackupOptions>,
}

impl HttpOptions {
    setters! {
        with_rate_limit(rate_limit: impl Into<Option<RateLimit>> => rate_limit.into());
        with_failure_limit(failure_limit: impl Into<Option<RateLimit>> => failure_limit.into());
        with_requests_per_user(requests_per_user: usize);
        with_streams_per_user(streams_per_user: usize);
        with_max_streams(max_streams: usize);
        with_provider_urls(provider_urls: ProviderUrls);
        with_cors_origins(cors_origins: Vec<String>);
        with_hosts(hosts: Vec<String>);
        with_trusted_proxies(trusted_proxies: Vec<Network>);
        with_trust_callers(trust_callers: bool);
        with_answer_within(answer_within: Duration);
        with_closing(closing: CancellationToken);
        with_proxy(proxy: ProxyOptions);
        with_metrics(metrics: impl Into<Option<Metrics>> => metrics.into());
        with_pages(pages: axum::Router);
        #[cfg(feature = "oidc")]
        with_oidc(oidc: impl Into<Option<Arc<super::oidc::Provider>>> => oidc.into());
        with_list_models(list_models: ListModels => Some(list_models));
        with_backup(backup: impl Into<Option<BackupOptions>> => backup.into());
    }
}

impl Default for HttpOptions {
    fn default() -> Self {
        Self {
            rate_limit: Some(RateLimit::default()),
            failure_limit: Some(failures()),
            requests_per_user: 1024,
            streams_per_user: 128,
            max_streams: 3072,
            provider_urls: ProviderUrls::Any,
            cors_origins: Vec::new(),
            hosts: Vec::new(),
            trusted_proxies: Vec::new(),
            trust_callers: false,
            answer_within: Duration::from_secs(120),
            closing: CancellationToken::new(),
            proxy: ProxyOptions::default(),
            metrics: None,
            pages: axum::Router::new(),
            #[cfg(feature = "oidc")]
            oidc: None,
            list_models: None,
            backup: None,
        }
    }
}

/// A client with a wrong key should be told so, and one that guesses should not be served for ever.
fn failures() -> RateLimit {
    RateLimit {
        per_second: NonZeroU32::new(5).unwrap_or(NonZeroU32::MIN),
        burst: NonZeroU32::new(200).unwrap_or(NonZeroU32::MIN),
    }
}

/// A person tries a key, corrects it, and tries again.
const CHECKS: RateLimit = RateLimit { per_second: NonZeroU32::MIN, burst: NonZeroU32::MIN.saturating_add(9) };
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
    pub keys: Option<RateLimiter<KeyId>>,
    pub users: Option<RateLimiter<UserId>>,
    pub failures: Option<RateLimiter<IpAddr>>,
    pub requests: Load,
    pub streams: Load,
    pub in_flight: InFlight,
    pub metrics: Metrics,
    pub readiness: Readiness,
    pub audit: AuditBounds,
    /// Checks of new agents, each of which calls a server elsewhere.
    pub checks: RateLimiter<UserId>,
    pub proxy: Proxy,
    pub visits: Visits,
    pub strangers: Strangers,
    /// The OpenAPI document.
    pub document: Box<str>,
    commands: Semaphore,
    /// That of the options. A clone of the token itself takes a lock that all requests would share.
    closing: Arc<CancellationToken>,
}

impl Api {
    pub fn new(plane: ControlPlane, options: HttpOptions, document: Box<str>) -> Self {
        let api = Self(Arc::new(Shared {
            plane,
            keys: options.rate_limit.map(RateLimiter::new),
            users: options.rate_limit.map(|limit| RateLimiter::new(limit.twice())),
            failures: options.failure_limit.map(RateLimiter::new),
            requests: Load::new(options.requests_per_user, usize::MAX),
            streams: Load::new(options.streams_per_user, options.max_streams),
            in_flight: InFlight::default(),
            proxy: Proxy::new(ProxyOptions { answer_within: options.answer_within, ..options.proxy.clone() }),
            visits: Visits::default(),
            strangers: Strangers::default(),
            metrics: options.metrics.clone().unwrap_or_default(),
            readiness: Readiness::default(),
            audit: AuditBounds::default(),
            checks: RateLimiter::new(CHECKS),
            document,
            commands: Semaphore::new(MAX_COMMANDS),
            closing: Arc::new(options.closing.clone()),
            options,
        }));
        // An embedder may keep the figures for longer than the router.
        let shared = Arc::downgrade(&api.0);
        api.metrics.follow(move || {
            let shared = shared.upgrade();
            async move {
                if let Some(shared) = shared {
                    let stats = shared.plane.store().stats().await.ok();
                    shared.metrics.observe(&shared.plane, &shared.proxy, stats.as_ref());
                }
            }
            .boxed()
        });
        api
    }

    /// Counts one more stream or wait of the caller's user, until it is dropped.
    pub fn open_stream(&self, caller: &Caller) -> Result<Open, Problem> {
        self.streams.open(caller.user).ok_or_else(|| too_many_streams(self.streams.per_user()))
    }

    /// Waits until nothing more may be sent to the caller: the service shuts down, or the key no longer works.
    pub fn over(&self, caller: Caller) -> impl Future<Output = ()> + Send + 'static {
        let closing = Arc::clone(&self.closing);
        let expires_in = caller.expires_at.map(|expiry| elapsed(self.plane.now(), expiry));
        async move {
            let expired = async {
                match expires_in {
                    Some(left) => sleep(left).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = closing.cancelled() => {}
                () = caller.ended() => {}
                () = expired => {}
            }
        }
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
