//! The embedded gateway: an agent runtime of our own with ZeroClaw's HTTP surface (`zeroone gateway`).
//!
//! It is what an agent runs where there is no Docker: one small process per agent that pairs its clients, talks to the
//! model and remembers. It obeys the environment and the `config.toml` of ZeroClaw 0.1.7, so that whatever starts a
//! ZeroClaw can start this instead. It is *not* part of the control plane: the two share only [`crate::domain`] and
//! meet over HTTP, as they would with the real one.
//!
//! ```text
//! Options (args, environment) ──► Config (config.toml) ──► Gateway::bind ──► serve
//!                                                              │
//!  routes (HTTP, SSE, WebSocket) ─┐                            ▼
//!  channels (platforms) ──────────┼──► agent ──► provider (the model) · tools · memory · cost · events
//!  scheduler (jobs) ──────────────┘
//! ```
//!
//! Everything that is not needed to answer `/health` (TLS roots, databases) is made at its first use: an idle agent
//! should cost next to nothing.

mod agent;
mod auth;
mod background;
mod body;
mod channels;
mod client;
mod config;
mod config_env;
mod config_file;
mod config_keys;
mod config_names;
mod config_placeholder;
mod config_schema;
mod config_view;
mod context;
mod conversation;
mod cost;
mod encrypted;
mod events;
mod exposition;
mod footprint;
mod front;
mod health;
mod idempotency;
mod incoming;
mod jobs;
mod limits;
mod local;
mod memory;
mod metrics;
mod models;
mod options;
mod outbound;
mod pairing;
mod pause;
mod persona;
mod provider;
mod recipients;
mod reply;
mod routes;
mod scheduler;
mod server;
mod sessions;
mod shared;
mod snapshot;
mod tool_rules;
mod tools;

use std::io::Write as _;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

pub use local::{LocalError, check_health, new_code};
pub use models::list_models;
pub use options::{Options, UsageError};
pub use snapshot::copy_database;

use shared::Shared;

/// Why the gateway could not start or go on. None of the messages shows a value from the configuration.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// `config.toml` is there and cannot be read.
    #[error("cannot read {path}")]
    ConfigRead {
        /// Where it is.
        path: PathBuf,
        /// Why it cannot be read.
        source: std::io::Error,
    },
    /// `config.toml`, or what the environment sets in it, does not make a configuration.
    #[error("{path} cannot be used: {reason}")]
    ConfigInvalid {
        /// Where it is.
        path: PathBuf,
        /// Names a line, a column or a key, never what is written there: it may be a secret.
        reason: String,
    },
    /// The configuration names an address that other machines can reach, and nothing says that this is meant.
    #[error(
        "refusing to listen on {host}: it is reachable from other machines. Use a tunnel ([tunnel] provider), or set \
         [gateway] allow_public_bind = true or ZEROCLAW_ALLOW_PUBLIC_BIND=true"
    )]
    PublicBind {
        /// The address, as it was configured.
        host: String,
    },
    /// The system does not give the port, e.g. because another program has it.
    #[error("cannot listen on {host}:{port}")]
    Bind {
        /// The address, as it was configured.
        host: String,
        /// The port.
        port: u16,
        /// Why it cannot be had.
        source: std::io::Error,
    },
    /// SIGTERM and SIGINT would end the process at once, so [`run`] does not begin.
    #[error("cannot wait for signals")]
    Signals(#[source] std::io::Error),
}

/// A gateway that has its port and is ready to serve.
pub struct Gateway {
    shared: Arc<Shared>,
    listener: TcpListener,
    address: SocketAddr,
}

impl Gateway {
    /// Reads the configuration and takes the port.
    ///
    /// # Errors
    /// A configuration that cannot be used, a public address that nobody asked for, or a port that is taken.
    pub async fn bind(options: Options) -> Result<Self, Error> {
        let loaded = config_file::load(&options)?;
        let gateway = &loaded.config.gateway;
        let (host, port) = (gateway.bind_host().to_owned(), gateway.port);
        if !loaded.config.may_bind() {
            return Err(Error::PublicBind { host });
        }
        let failed = |source| Error::Bind { host: host.clone(), port, source };
        let listener = TcpListener::bind((host.as_str(), port)).await.map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        let shared = Arc::new(Shared::new(options, loaded));
        Ok(Self { shared, listener, address })
    }

    /// Where the gateway listens: with port 0 asked for, this has the real one.
    pub const fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// What is shown at start, the one-time pairing code included: it is meant for the owner's eyes.
    pub fn banner(&self) -> String {
        server::banner(&self.shared, self.address)
    }

    /// Serves until `stop` is cancelled, then gives requests in flight a moment and returns.
    pub async fn serve(self, stop: CancellationToken) {
        server::serve(self.listener, self.shared, stop).await;
    }
}

/// Runs the gateway as a program: log and banner on stdout, until SIGTERM or SIGINT.
///
/// # Errors
/// As [`Gateway::bind`].
pub async fn run(options: Options) -> Result<(), Error> {
    log_to_stdout(options.log_level());
    owner_only();
    tracing::info!(version = env!("CARGO_PKG_VERSION"), "gateway starting");
    let stop = CancellationToken::new();
    stop_on_signals(&stop)?;
    let gateway = Gateway::bind(options).await?;
    // A reader that went away must not end the agent: `println!` would panic.
    let _ = std::io::stdout().lock().write_all(gateway.banner().as_bytes());
    let _ = std::io::stdout().lock().flush();
    gateway.serve(stop).await;
    tracing::info!("gateway stopped");
    Ok(())
}

/// The runtime that a gateway is made for: one thread, since an agent waits most of its life, and few beside it for the
/// disk. Every thread more costs memory.
///
/// # Errors
/// When the system gives no event queue.
pub fn runtime() -> std::io::Result<tokio::runtime::Runtime> {
    const DISK_THREADS: usize = 4;
    tokio::runtime::Builder::new_current_thread().enable_all().max_blocking_threads(DISK_THREADS).build()
}

/// What the agent writes (memory, costs, its own files) is for its owner alone, wherever it is copied to.
fn owner_only() {
    rustix::process::umask(rustix::fs::Mode::RWXG | rustix::fs::Mode::RWXO);
}

/// Every line starts with an RFC 3339 time in UTC and has no colours: the process runtime reads them.
fn log_to_stdout(level: tracing::level_filters::LevelFilter) {
    let subscriber = tracing_subscriber::fmt().with_max_level(level).with_ansi(false).with_target(false).finish();
    // Whoever runs the gateway inside a larger program has set a subscriber of its own; that one stays.
    let _ = tracing::subscriber::set_global_default(subscriber);
}

fn stop_on_signals(stop: &CancellationToken) -> Result<(), Error> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminate = signal(SignalKind::terminate()).map_err(Error::Signals)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(Error::Signals)?;
    let stop = stop.clone();
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        stop.cancel();
    });
    Ok(())
}
