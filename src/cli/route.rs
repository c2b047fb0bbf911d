//! `zeroone route`: the router before several cells, until a signal ends it.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Context as _;
use clap::Args;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::outcome::Failure;
use super::output::line;
use super::serve::LEFTOVERS;
use super::service::{cannot_listen, connections, serve_options};
use super::settings::{FileArgs, flag, load};
use super::{Environment, signals, supervised};
use crate::config::{Config, Flag};
use crate::http;
use crate::router::{Router, RouterOptions};
use crate::telemetry;

/// How long a cell may take until its answer begins: what waits longest there is a wait for an agent's status (300 s).
const LONGEST_WAIT: Duration = Duration::from_secs(360);
/// A message may be held (120 s) before it is answered (`server.answer_secs`).
const HELD: Duration = Duration::from_secs(180);
/// The cells end what is silent; the router a little later.
const MARGIN: Duration = Duration::from_secs(60);

#[derive(Debug, Args)]
pub(super) struct RouteArgs {
    #[command(flatten)]
    file: FileArgs,
    /// Address and port to listen on; 127.0.0.1:3001. Port 0 takes a free one.
    #[arg(long, value_name = "ADDR:PORT")]
    bind: Option<String>,
    /// Listen on an address that other machines can reach.
    #[arg(long)]
    public_bind: bool,
    /// Where a cell is, as http://host:port; once for each, in the order of their numbers, or with a range such as
    /// http://zeroone-{0..9}.zeroone:3001.
    #[arg(long = "cell", value_name = "URL")]
    cells: Vec<String>,
}

pub(super) fn run(args: &RouteArgs, environment: &Environment) -> Result<(), Failure> {
    let loaded = load(&args.file, environment, &args.flags())?;
    telemetry::init(&loaded.config.log);
    for warning in loaded.warnings() {
        tracing::warn!("{warning}");
    }
    let cells = loaded.config.router.cells().map_err(|problem| Failure::Usage(format!("router.cells {problem}")))?;
    if cells.is_empty() {
        return Err(Failure::Usage("there is nothing to route to: name the cells by --cell or router.cells".into()));
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let outcome = runtime.block_on(route(&loaded.config, cells));
    runtime.shutdown_timeout(LEFTOVERS);
    outcome.map_err(Failure::from)
}

async fn route(config: &Config, cells: Vec<String>) -> anyhow::Result<()> {
    let closing = CancellationToken::new();
    signals::close_on_signal(closing.clone())?;
    let (listener, address) = listen(config.bind).await?;
    let figures = match config.router.metrics_bind().map_err(anyhow::Error::msg)? {
        Some(bind) => Some(listen(bind).await?.0),
        None => None,
    };
    let answer = Duration::from_secs(config.server.answer_secs);
    let router = Router::start(RouterOptions {
        cells,
        full: config.router.full().map_err(anyhow::Error::msg)?,
        domain: config.proxy.domain().map(str::to_owned),
        answer_within: LONGEST_WAIT.max(answer + HELD),
        idle: config.proxy.options().idle + MARGIN,
        // A cell that hangs leaves a quarter of the connections to the others.
        open_per_cell: (connections(config) * 3 / 4).max(1),
        closing: closing.clone(),
    });
    let url = format!("http://{address}");
    line(&format!("listening on {url}"));
    supervised::ready(&url);
    let serving = http::serve(listener, router.service(), closing.clone(), serve_options(config));
    let showing = async {
        match figures {
            Some(listener) => http::serve(listener, router.figures(), closing.clone(), serve_options(config)).await,
            None => Ok(()),
        }
    };
    let (served, shown) = tokio::join!(serving, showing);
    served.and(shown).context("the router stopped serving")
}

async fn listen(bind: SocketAddr) -> anyhow::Result<(TcpListener, SocketAddr)> {
    let listener = TcpListener::bind(bind).await.map_err(|error| cannot_listen(bind, &error))?;
    let address = listener.local_addr().context("cannot tell the address")?;
    Ok((listener, address))
}

impl RouteArgs {
    fn flags(&self) -> Vec<Flag> {
        let cells = (!self.cells.is_empty()).then(|| self.cells.join(","));
        let flags = [
            flag("--bind", "bind", self.bind.clone()),
            flag("--public-bind", "server.public_bind", self.public_bind.then(|| "true".to_owned())),
            flag("--cell", "router.cells", cells),
        ];
        flags.into_iter().flatten().collect()
    }
}
