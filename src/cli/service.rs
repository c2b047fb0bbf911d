//! The service put together: store, vault, runtime, control plane, HTTP.
//!
//! The order is that of what may go wrong without a trace: the store's lock first, so that a second process on the same
//! folder changes nothing; the port before the actors, so that nothing is started for a service that cannot be reached.

use std::fs::DirBuilder;
use std::io;
use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::Environment;
use super::descriptors;
use super::engine::{self, Engine};
use super::first_start::{AdminKey, check_cell, ensure_admin, ensure_operator};
use crate::config::{Config, Loaded};
use crate::control::{Agents, ControlPlane};
#[cfg(feature = "oidc")]
use crate::domain::Secret;
use crate::domain::{ApiKey, InstallationId};
use crate::http::{self, BackupOptions, HttpOptions, RateLimit, ServeOptions};
use crate::store::{Store, StoreOptions};
use crate::vault::{MasterKey, Vault};

/// How long a client may take to send a request's headers: far longer than any line needs, short enough that idle
/// strangers do not fill the places.
const HEADER_WITHIN: Duration = Duration::from_secs(10);

/// A service that has its port and its agents, and only has to be run.
pub(super) struct Service {
    pub(super) plane: ControlPlane,
    pub(super) address: SocketAddr,
    /// Made just now, to be shown once.
    pub(super) admin: Option<AdminKey>,
    /// The file of the master key, if it was made just now too.
    pub(super) new_master_key: Option<PathBuf>,
    /// Which runtime it has, and why.
    pub(super) runtime: String,
    /// Ends it.
    pub(super) closing: CancellationToken,
    listener: TcpListener,
    http: HttpOptions,
    serve: ServeOptions,
}

impl Service {
    pub(super) async fn start(loaded: &Loaded, environment: &Environment, take_over: bool) -> anyhow::Result<Self> {
        let config = &loaded.config;
        make_folder(&config.data)?;
        let (store, vault, new_master_key) = open_store(loaded).await?;
        let operator = operator_key(&config.cell.operator_key_file)?;
        let http = HttpOptions {
            #[cfg(feature = "oidc")]
            oidc: identity_provider(config)?,
            ..HttpOptions::default()
        };
        let listener = TcpListener::bind(config.bind).await;
        let listener = listener.map_err(|error| cannot_listen(config.bind, &error))?;
        let address = listener.local_addr().context("cannot tell the address")?;
        let Engine { runtime, profile, why } = engine::choose(config, store.installation(), environment).await?;
        let runtime_name = format!("{} ({why})", runtime.caps().name);
        tracing::info!(runtime = runtime_name, %profile, "runtime chosen");
        let mut builder = ControlPlane::builder(store, vault, runtime)
            .settings(config.settings())
            .profile(profile)
            .take_over(take_over);
        if let Some(file) = loaded.master_key_file() {
            builder = builder.key_keeper(file);
        }
        let plane = builder.start().await?;
        if let Err(error) = check_cell(&plane) {
            plane.shutdown(Agents::Leave).await;
            return Err(error);
        }
        let admin = ensure_admin(&plane, &config.data).await?;
        ensure_operator(&plane, operator.as_ref()).await?;
        // A first start that was refused, for its port or its engine, made the key and could tell nobody.
        let own_key = || loaded.master_key_file().filter(|file| file.own).map(|file| file.path);
        let new_master_key = new_master_key.or_else(|| admin.as_ref().and_then(|_| own_key()));
        let closing = CancellationToken::new();
        Ok(Self {
            plane,
            address,
            admin,
            new_master_key,
            runtime: runtime_name,
            listener,
            http: http_options(config, &closing, http),
            serve: serve_options(config),
            closing,
        })
    }

    pub(super) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Serves until `closing` is cancelled, lets requests end, ends the actors in order. Agents run on.
    pub(super) async fn run(self) -> anyhow::Result<()> {
        let front = http::front(self.plane.clone(), self.http);
        let serving = http::serve(self.listener, front, self.closing.clone(), self.serve);
        tokio::pin!(serving);
        let (served, superseded_by) = tokio::select! {
            served = &mut serving => (served, None),
            by = self.plane.superseded() => {
                self.closing.cancel();
                (serving.await, Some(by))
            }
        };
        self.plane.shutdown(Agents::Leave).await;
        if let Some(by) = superseded_by {
            anyhow::bail!("installation-in-use: another control plane has taken this installation ({by})");
        }
        served.context("the service stopped serving")
    }
}

/// With what to do about it.
pub(super) fn cannot_listen(bind: SocketAddr, error: &io::Error) -> anyhow::Error {
    let remedy = match error.kind() {
        io::ErrorKind::AddrInUse => {
            "it is in use by another program: stop that (ss -ltnp shows it), or choose another by --bind"
        }
        io::ErrorKind::PermissionDenied => "ports below 1024 are root's: choose another by --bind",
        io::ErrorKind::AddrNotAvailable => "no interface of this machine has it: choose another by --bind",
        _ => return anyhow::anyhow!("cannot listen on {bind}: {error}"),
    };
    anyhow::anyhow!("cannot listen on {bind}; {remedy}")
}

/// The folder is its owner's alone; one that is there stays as it is.
pub(super) fn make_folder(data: &Path) -> anyhow::Result<()> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(data)
        .with_context(|| format!("cannot make the data folder {}", data.display()))
}

/// Also the file of the master key, if there was none.
async fn open_store(loaded: &Loaded) -> anyhow::Result<(Store, Vault, Option<PathBuf>)> {
    let data = &loaded.config.data;
    let path = data.join("zeroone.redb");
    // The key before the store: a store that exists had its key, whenever a crash came.
    let master = MasterKey::load(loaded.master_key(path.exists()))?;
    let new_master_key = master.was_created().then(|| data.join("master.key"));
    let opened = tokio::task::spawn_blocking(move || Store::open(path, StoreOptions::default())).await;
    let (store, vault) = (opened.context("opening the store panicked")??, Vault::new(&master));
    // Here already, and not only when the control plane starts: a runtime that opens ends what earlier runs left behind.
    store.check_key(&vault).await?;
    Ok((store, vault, new_master_key))
}

/// Makes the store of this folder, a copy, an installation of its own.
pub(super) async fn separate(data: &Path) -> anyhow::Result<InstallationId> {
    let (path, installation) = (data.join("zeroone.redb"), InstallationId::new());
    let options = StoreOptions { separate_as: Some(installation), ..StoreOptions::default() };
    tokio::task::spawn_blocking(move || Store::open(path, options)).await.context("opening the store panicked")??;
    Ok(installation)
}

/// The key that all cells have.
fn operator_key(file: &Path) -> anyhow::Result<Option<ApiKey>> {
    if file.as_os_str().is_empty() {
        return Ok(None);
    }
    let text = std::fs::read_to_string(file);
    let text = text.with_context(|| format!("cell.operator_key_file: cannot read {}", file.display()))?;
    let key = ApiKey::of_all_cells(text.trim());
    key.map(Some).map_err(|problem| anyhow::anyhow!("cell.operator_key_file: {} {problem}", file.display()))
}

#[cfg(feature = "oidc")]
fn identity_provider(config: &Config) -> anyhow::Result<Option<Arc<http::OidcProvider>>> {
    let file = &config.oidc.client_secret_file;
    let secret = if file.as_os_str().is_empty() {
        None
    } else {
        let text = std::fs::read_to_string(file);
        let text = text.with_context(|| format!("oidc.client_secret_file: cannot read {}", file.display()))?;
        Some(Secret::from(text.trim()))
    };
    let Some(options) = config.oidc.options(secret) else { return Ok(None) };
    let provider = http::OidcProvider::new(options).map_err(|error| anyhow::anyhow!("oidc.issuer: {error}"))?;
    Ok(Some(Arc::new(provider)))
}

fn http_options(config: &Config, closing: &CancellationToken, base: HttpOptions) -> HttpOptions {
    let limit = &config.ratelimit;
    let rate_limit = NonZeroU32::new(limit.per_second)
        .map(|per_second| RateLimit { per_second, burst: NonZeroU32::new(limit.burst).unwrap_or(NonZeroU32::MIN) });
    let max_connections = connections(config);
    let options = HttpOptions {
        rate_limit,
        answer_within: Duration::from_secs(config.server.answer_secs),
        closing: closing.clone(),
        requests_per_user: (max_connections / 4).max(1),
        streams_per_user: config.server.streams_per_user,
        // A quarter of the connections is left for everything that does not stay open.
        max_streams: (max_connections * 3 / 4).max(1),
        provider_urls: config.agents.provider_urls(),
        cors_origins: config.server.cors_origins.clone(),
        hosts: config.server.hosts.clone(),
        // Checked with the rest of the configuration.
        trusted_proxies: config.server.trusted_proxies().unwrap_or_default(),
        proxy: config.proxy.options(),
        list_models: Some(|question| Box::pin(crate::gateway::list_models(question))),
        backup: Some(BackupOptions {
            folder: config.data.clone(),
            copy_database: crate::gateway::copy_database,
            busy: Arc::default(),
        }),
        ..base
    };
    #[cfg(feature = "console")]
    let options = HttpOptions { pages: crate::console::router(), ..options };
    options
}

/// As many as configured, and as the limit of open files allows.
pub(super) fn connections(config: &Config) -> usize {
    descriptors::connections(config.server.max_connections, descriptors::raise())
}

pub(super) fn serve_options(config: &Config) -> ServeOptions {
    let max_connections = connections(config);
    let per_address = config.server.connections_per_address;
    ServeOptions {
        max_connections,
        max_per_address: if per_address == 0 { (max_connections / 2).max(1) } else { per_address },
        header_within: HEADER_WITHIN,
        grace: Duration::from_secs(config.server.drain_secs),
    }
}
