//! The connection to the engine: where it is, in which version it is asked, and a deadline on every call.
//!
//! A call that changes something is never sent blindly: each is preceded by a read, so that an engine that is away or
//! hangs shows as [`RuntimeError::Unavailable`], with nothing done. [`RuntimeError::UnknownOutcome`] is left for the
//! answer that was lost after the call went out.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bollard::errors::Error;
use bollard::query_parameters::RemoveContainerOptionsBuilder;
use bollard::{API_DEFAULT_VERSION, ClientVersion, Docker};
use serde::de::DeserializeOwned;
use tokio::sync::OnceCell;

use super::address::Address;
use super::answers::{Container, Image, Info, Listed, Network, Version, Volume, readable};
use super::failure::{Failure, there};
use super::wire::{Lines, Wire, path, segment};
use crate::runtime::{RuntimeError, RuntimeResult};

/// Deadline of calls that only read. They take milliseconds, but the look at a container waits while the engine starts
/// it, which on a busy machine is a matter of seconds. An engine that is being restarted keeps its socket open and
/// answers nothing.
pub(super) const READ: Duration = Duration::from_secs(10);

/// Deadline of a ping, which says whether the engine is there at all.
pub(super) const PING: Duration = Duration::from_secs(2);

/// Deadline of creating or removing things: disk work, a second at the most on a busy machine.
pub(super) const CHANGE: Duration = Duration::from_secs(30);

/// The client's own limit on a response's head; ours are shorter, but for a pull's, whose head comes at once.
const CLIENT_TIMEOUT_SECS: u64 = 120;

/// The version that an engine is asked in which does not tell its own: Docker 20.10's and Podman 4's.
const OLDEST_VERSION: ClientVersion = ClientVersion { major_version: 1, minor_version: 41 };

/// The engine, found when it is first needed: it may be away when the control plane starts.
pub(super) struct Engine {
    address: Address,
    connected: OnceCell<Connected>,
    /// The engine said that it does not enforce memory limits.
    ignores_memory: AtomicBool,
    /// The engine said that it does not enforce CPU limits.
    ignores_cpu: AtomicBool,
    tells_whole_seconds: AtomicBool,
}

struct Connected {
    docker: Docker,
    wire: Wire,
    info: Info,
}

impl Engine {
    /// # Errors
    /// [`RuntimeError::Invalid`] where the host has a form that this client does not speak.
    pub(super) fn new(host: &str) -> RuntimeResult<Self> {
        Ok(Self {
            address: Address::parse(host)?,
            connected: OnceCell::new(),
            ignores_memory: AtomicBool::new(false),
            ignores_cpu: AtomicBool::new(false),
            tells_whole_seconds: AtomicBool::new(false),
        })
    }

    pub(super) async fn docker(&self) -> RuntimeResult<&Docker> {
        self.connected().await.map(|connected| &connected.docker).map_err(RuntimeError::from)
    }

    /// Cores of the engine's machine, where it tells.
    pub(super) async fn cores(&self) -> RuntimeResult<Option<f64>> {
        let cpus = self.connected().await?.info.cpus;
        Ok(cpus.filter(|cpus| *cpus > 0).map(f64::from))
    }

    pub(super) fn enforces_memory(&self) -> bool {
        let told = self.connected.get().and_then(|connected| connected.info.memory_limit);
        told != Some(false) && !self.ignores_memory.load(Ordering::Relaxed)
    }

    pub(super) fn enforces_cpu(&self) -> bool {
        let told = self.connected.get().and_then(|connected| connected.info.cpu_quota);
        told != Some(false) && !self.ignores_cpu.load(Ordering::Relaxed)
    }

    /// Whether a log was read whose times are whole seconds.
    pub(super) fn tells_whole_seconds(&self) -> bool {
        self.tells_whole_seconds.load(Ordering::Relaxed)
    }

    /// Notes that the times of its logs are whole seconds, as Podman's are.
    pub(super) fn note_whole_seconds(&self) {
        self.tells_whole_seconds.store(true, Ordering::Relaxed);
    }

    /// Takes up what the engine said about a container that it made all the same.
    pub(super) fn heed(&self, warnings: &[String]) {
        for warning in warnings {
            let text = warning.to_ascii_lowercase();
            let discarded =
                ["discarded", "not support", "not enforced", "ignored"].iter().any(|sign| text.contains(sign));
            let first = if discarded && text.contains("memory") && !text.contains("swap") {
                !self.ignores_memory.swap(true, Ordering::Relaxed)
            } else if discarded && (text.contains("cpu") || text.contains("cfs")) {
                !self.ignores_cpu.swap(true, Ordering::Relaxed)
            } else {
                tracing::debug!(warning, "the engine warns about a container");
                false
            };
            if first {
                tracing::warn!(warning, "a limit of the agents is not enforced by this engine");
            }
        }
    }

    /// One deadline for all of it: whoever waits for another's attempt waits no longer than for an own one.
    async fn connected(&self) -> Result<&Connected, Failure> {
        timed(READ, self.connect()).await.map_err(Failure::of_read)
    }

    async fn connect(&self) -> Result<&Connected, Failure> {
        self.connected
            .get_or_try_init(|| async {
                let wire = Wire::new(self.address.clone());
                let version = version(&wire).await.map_err(Failure::of_read)?;
                let docker = match &self.address {
                    Address::Unix(path) => {
                        Docker::connect_with_unix(&path.to_string_lossy(), CLIENT_TIMEOUT_SECS, &version)
                    }
                    tcp @ Address::Tcp { .. } => {
                        Docker::connect_with_http(&tcp.to_string(), CLIENT_TIMEOUT_SECS, &version)
                    }
                };
                let docker = docker.map_err(|error| Failure::from(error).of_read())?;
                let wire = wire.versioned(&format!("{}.{}", version.major_version, version.minor_version));
                // A filter may keep this from us; then the machine is taken for one that can do everything.
                let info = timed(READ / 2, wire.get("/info")).await.unwrap_or_default();
                Ok(Connected { docker, wire, info })
            })
            .await
    }

    /// Whether the engine is there: any answer of it is one, a refusal too.
    pub(super) async fn ping(&self) -> RuntimeResult<()> {
        let wire = Wire::new(self.address.clone());
        match timed(PING, wire.header("/_ping", "api-version")).await {
            Ok((status @ 502..=504, _)) => Err(RuntimeError::Unavailable(format!("HTTP {status} to a ping"))),
            Ok(_) => Ok(()),
            Err(failure) => Err(failure.of_read().into()),
        }
    }

    /// Reads a value.
    pub(super) async fn get<T: DeserializeOwned>(&self, action: &str, path: &str) -> Result<T, Failure> {
        let read = async { self.connected().await?.wire.get(path).await };
        timed(READ, read).await.map_err(|failure| failure.of_read().while_doing(action))
    }

    pub(super) async fn inspect(&self, id: &str) -> RuntimeResult<Option<Container>> {
        there(self.get("reading a container", &format!("/containers/{}/json", segment(id))).await)
    }

    pub(super) async fn image(&self, name: &str) -> RuntimeResult<Option<Image>> {
        there(self.get("reading an image", &format!("/images/{}/json", segment(name))).await)
    }

    pub(super) async fn volume(&self, name: &str) -> RuntimeResult<Option<Volume>> {
        there(self.get("reading a volume", &format!("/volumes/{}", segment(name))).await)
    }

    /// Containers that the engine's filter lets through, running or not.
    pub(super) async fn containers(&self, filter: &str) -> RuntimeResult<Vec<Listed>> {
        let path = path("/containers/json", &[("all", "true"), ("filters", filter)]);
        Ok(readable(self.get("listing containers", &path).await?, "containers"))
    }

    pub(super) async fn networks(&self, filter: Option<&str>) -> RuntimeResult<Vec<Network>> {
        let query: Vec<_> = filter.into_iter().map(|filter| ("filters", filter)).collect();
        Ok(readable(self.get("listing networks", &path("/networks", &query)).await?, "networks"))
    }

    /// Removes a container, running or not, with the volumes that have no name.
    pub(super) async fn remove_container(&self, action: &str, id: &str) -> Result<(), Failure> {
        let docker = &self.connected().await?.docker;
        let options = RemoveContainerOptionsBuilder::default().force(true).v(true).build();
        let remove = || change(CHANGE, action, docker.remove_container(id, Some(options.clone())));
        match remove().await {
            // It has ended by now, so nothing can overtake the second attempt.
            Err(failure) if failure.ended_by_itself() => remove().await,
            answer => answer,
        }
    }

    /// The engine's events, as lines.
    pub(super) async fn events(&self, since: i64, filter: &str) -> Result<Lines, Failure> {
        let wire = &self.connected().await?.wire;
        let path = path("/events", &[("since", &since.to_string()), ("filters", filter)]);
        timed(READ, wire.lines(&path)).await.map_err(|failure| failure.of_read().while_doing("watching the events"))
    }
}

/// The newest version that both sides speak.
async fn version(wire: &Wire) -> Result<ClientVersion, Failure> {
    let (status, told) = wire.header("/_ping", "api-version").await?;
    if let 502..=504 = status {
        return Err(Failure::refused(status, "no engine answers behind this address"));
    }
    let told = match told {
        Some(told) => Some(told),
        None => wire.get::<Version>("/version").await.ok().and_then(|version| version.api_version),
    };
    let engine = told.as_deref().and_then(parse).unwrap_or(OLDEST_VERSION);
    let ours = API_DEFAULT_VERSION;
    let older = (engine.major_version, engine.minor_version) < (ours.major_version, ours.minor_version);
    Ok(if older { engine } else { ClientVersion { ..*ours } })
}

fn parse(text: &str) -> Option<ClientVersion> {
    let (major, minor) = text.trim().split_once('.')?;
    Some(ClientVersion { major_version: major.parse().ok()?, minor_version: minor.parse().ok()? })
}

async fn timed<T>(deadline: Duration, call: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    match tokio::time::timeout(deadline, call).await {
        Ok(answer) => answer,
        Err(_) => Err(Failure::Lost(format!("no answer within {} s", deadline.as_secs()))),
    }
}

/// Runs a call that changes something. `action` says what, for people who have to allow it.
pub(super) async fn change<T>(
    deadline: Duration,
    action: &str,
    call: impl Future<Output = Result<T, Error>>,
) -> Result<T, Failure> {
    let call = async { call.await.map_err(Failure::from) };
    timed(deadline, call).await.map_err(|failure| failure.while_doing(action))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_engine_without_a_socket_is_away() {
        let folder = tempfile::TempDir::new().unwrap();
        for host in [format!("unix://{}/none.sock", folder.path().display()), "tcp://127.0.0.1:1".into()] {
            let engine = Engine::new(&host).unwrap();
            assert!(matches!(engine.ping().await, Err(RuntimeError::Unavailable(_))));
            assert!(matches!(engine.inspect("x").await, Err(RuntimeError::Unavailable(_))));
        }
        assert!(Engine::new("ssh://x").is_err());
    }

    #[test]
    fn a_limit_that_is_discarded_is_no_longer_promised() {
        let engine = || Engine::new("unix:///x").unwrap();
        let heeded = |warning: &str| {
            let engine = engine();
            engine.heed(&[warning.to_owned()]);
            (engine.enforces_memory(), engine.enforces_cpu())
        };
        assert_eq!(
            heeded("Your kernel does not support memory limit capabilities. Limitation discarded."),
            (false, true)
        );
        assert_eq!(heeded("Your kernel does not support CPU cfs quota. Quota discarded."), (true, false));
        assert_eq!(
            heeded("Your kernel does not support swap limit capabilities, memory limited without swap."),
            (true, true)
        );
        assert_eq!(heeded("Published ports are discarded when using host network mode"), (true, true));
    }

    #[test]
    fn versions_are_read() {
        let read = |text| parse(text).map(|version| (version.major_version, version.minor_version));
        assert_eq!((read("1.41"), read("1.43\n"), read("x"), read("1")), (Some((1, 41)), Some((1, 43)), None, None));
    }
}
