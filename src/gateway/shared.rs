//! What all requests of one gateway share.

use std::path::Path;
use std::sync::{Arc, PoisonError, RwLock};

use super::config::Config;
use super::config_file::{ConfigFile, Loaded};
use super::health::Health;
use super::limits::SlidingWindow;
use super::options::Options;
use super::pairing::Pairing;
use super::provider::{HttpClients, Model};

/// What handlers are given.
pub(super) type App = Arc<Shared>;

pub(super) struct Shared {
    options: Options,
    config: RwLock<Arc<Config>>,
    pub(super) config_file: ConfigFile,
    pub(super) pairing: Pairing,
    pub(super) pair_limit: SlidingWindow,
    pub(super) webhook_limit: SlidingWindow,
    pub(super) health: Health,
    pub(super) http: HttpClients,
}

impl Shared {
    pub(super) fn new(options: Options, loaded: Loaded) -> Self {
        let Loaded { config, unknown } = loaded;
        if !unknown.is_empty() {
            tracing::warn!(keys = ?unknown, "config.toml has keys that mean nothing to this gateway");
        }
        let clients = config.gateway.rate_limit_max_keys;
        Self {
            config_file: ConfigFile::new(options.config_path()),
            pairing: Pairing::new(&config),
            pair_limit: SlidingWindow::new(config.gateway.pair_rate_limit_per_minute, clients),
            webhook_limit: SlidingWindow::new(config.gateway.webhook_rate_limit_per_minute, clients),
            health: Health::new(),
            http: HttpClients::default(),
            config: RwLock::new(Arc::new(config)),
            options,
        }
    }

    /// The settings as they are now. A request that has taken them keeps them to its end.
    pub(super) fn config(&self) -> Arc<Config> {
        self.config.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn workspace(&self) -> &Path {
        self.options.workspace()
    }

    /// The model that the settings name now.
    pub(super) fn model(&self) -> Model {
        Model::new(&self.config())
    }
}
