//! What all requests of one gateway share.

use std::path::Path;
use std::sync::{Arc, PoisonError, RwLock};

use tokio_util::sync::CancellationToken;

use super::background::Background;
use super::config::Config;
use super::config_file::{ConfigFile, Loaded, Notes};
use super::cost::Costs;
use super::events::Events;
use super::health::Health;
use super::idempotency::Idempotency;
use super::incoming::IncomingMessages;
use super::jobs::Jobs;
use super::limits::SlidingWindow;
use super::memory::Memory;
use super::metrics::Metrics;
use super::options::Options;
use super::outbound::HttpClients;
use super::pairing::Pairing;
use super::provider::{Learned, Model};
use super::sessions::Sessions;
use super::tool_rules::Actions;

/// What handlers are given.
pub(super) type App = Arc<Shared>;

pub(super) struct Shared {
    options: Options,
    config: RwLock<Arc<Config>>,
    notes: RwLock<Arc<Notes>>,
    pub(super) config_file: ConfigFile,
    pub(super) pairing: Pairing,
    pub(super) pair_limit: SlidingWindow,
    pub(super) webhook_limit: SlidingWindow,
    pub(super) health: Health,
    pub(super) http: HttpClients,
    pub(super) learned: Learned,
    pub(super) memory: Memory,
    pub(super) jobs: Jobs,
    pub(super) sessions: Sessions,
    /// The runs of tools in the last hour.
    pub(super) actions: Actions,
    pub(super) costs: Costs,
    pub(super) events: Events,
    pub(super) metrics: Metrics,
    pub(super) idempotency: Idempotency,
    pub(super) incoming: IncomingMessages,
    pub(super) background: Background,
    /// Ends what would otherwise never end: event streams and WebSockets.
    pub(super) stop: CancellationToken,
}

impl Shared {
    pub(super) fn new(options: Options, loaded: Loaded) -> Self {
        let Loaded { config, notes } = loaded;
        for warning in options.warnings().iter().chain(&notes.off) {
            tracing::warn!("{warning}");
        }
        for reason in &notes.broken {
            tracing::error!("{reason}");
        }
        if !notes.unknown.is_empty() {
            tracing::warn!(keys = ?notes.unknown, "config.toml has keys that mean nothing to this gateway");
        }
        let clients = config.gateway.rate_limit_max_keys;
        Self {
            config_file: ConfigFile::new(options.config_path()),
            pairing: Pairing::new(&config),
            pair_limit: SlidingWindow::new(config.gateway.pair_rate_limit_per_minute, clients),
            webhook_limit: SlidingWindow::new(config.gateway.webhook_rate_limit_per_minute, clients),
            health: Health::new(),
            http: HttpClients::default(),
            learned: Learned::default(),
            memory: Memory::new(config.memory.backend, options.workspace()),
            jobs: Jobs::new(options.workspace()),
            sessions: Sessions::new(
                options.workspace(),
                config.gateway.session_persistence,
                config.gateway.session_ttl_hours,
            ),
            actions: Actions::default(),
            costs: Costs::new(options.workspace()),
            events: Events::new(),
            metrics: Metrics::new(),
            idempotency: Idempotency::new(&config),
            incoming: IncomingMessages::new(options.workspace()),
            background: Background::new(),
            stop: CancellationToken::new(),
            config: RwLock::new(Arc::new(config)),
            notes: RwLock::new(Arc::new(notes)),
            options,
        }
    }

    /// The settings as they are now. A request that has taken them keeps them to its end.
    pub(super) fn config(&self) -> Arc<Config> {
        self.config.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Takes over settings that were read again, with the environment over them.
    pub(super) fn replace_config(&self, loaded: Loaded) {
        *self.config.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(loaded.config);
        *self.notes.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(loaded.notes);
    }

    /// What the settings ask for and do not get.
    pub(super) fn notes(&self) -> Arc<Notes> {
        self.notes.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) const fn options(&self) -> &Options {
        &self.options
    }

    pub(super) fn workspace(&self) -> &Path {
        self.options.workspace()
    }

    /// The model that the settings name now.
    pub(super) fn model(&self) -> Model {
        Model::new(&self.config())
    }
}
