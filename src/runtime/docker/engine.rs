//! The line to the engine: one client, a deadline on every call, and what an error of its means.
//!
//! A call that changes something is never sent blindly: each is preceded by a read, so that an engine that is away or
//! hangs shows as [`RuntimeError::Unavailable`], with nothing done. [`RuntimeError::UnknownOutcome`] is left for the
//! answer that was lost after the call went out.

use std::time::Duration;

use bollard::errors::Error;
use bollard::query_parameters::InspectContainerOptions;
use bollard::{API_DEFAULT_VERSION, Docker};
use tokio::sync::OnceCell;

use crate::runtime::{RuntimeError, RuntimeResult};

/// Deadline of calls that only read. They take milliseconds, but the look at a container waits while the engine starts
/// it, which on a busy machine is a matter of seconds. An engine that is being restarted keeps its socket open and
/// answers nothing.
pub(super) const READ: Duration = Duration::from_secs(10);

/// Deadline of a ping, which says whether anyone is there at all.
pub(super) const PING: Duration = Duration::from_secs(2);

/// Deadline of creating or removing things: disk work, a second at the most on a busy machine.
pub(super) const CHANGE: Duration = Duration::from_secs(30);

/// The client's own limit on a response's head; ours are shorter, but for a pull's, whose head comes at once.
const CLIENT_TIMEOUT_SECS: u64 = 120;

/// The longest message of the engine that is passed on.
const MESSAGE_LENGTH: usize = 400;

/// The engine, found when it is first needed: it may be away when the control plane starts.
pub(super) struct Engine {
    host: String,
    connected: OnceCell<Connected>,
}

struct Connected {
    docker: Docker,
    /// Cores of the engine's machine, where it tells.
    cores: Option<f64>,
}

impl Engine {
    /// # Errors
    /// [`RuntimeError::Invalid`] where the host has a form that no engine listens on.
    pub(super) fn new(host: &str) -> RuntimeResult<Self> {
        if !["unix://", "tcp://", "http://"].iter().any(|scheme| host.starts_with(scheme)) {
            return Err(RuntimeError::Invalid("the engine's host must be unix:///path or tcp://host:port".into()));
        }
        Ok(Self { host: host.to_owned(), connected: OnceCell::new() })
    }

    pub(super) async fn docker(&self) -> RuntimeResult<&Docker> {
        Ok(&self.connected().await?.docker)
    }

    /// Cores of the engine's machine, where it tells.
    pub(super) async fn cores(&self) -> RuntimeResult<Option<f64>> {
        Ok(self.connected().await?.cores)
    }

    async fn connected(&self) -> RuntimeResult<&Connected> {
        self.connected
            .get_or_try_init(|| async {
                let docker = match self.host.strip_prefix("unix://") {
                    Some(path) => Docker::connect_with_unix(path, CLIENT_TIMEOUT_SECS, API_DEFAULT_VERSION),
                    None => Docker::connect_with_http(&self.host, CLIENT_TIMEOUT_SECS, API_DEFAULT_VERSION),
                };
                let docker = docker.map_err(|error| RuntimeError::from(Failure::from(error)))?;
                let docker = read(docker.negotiate_version()).await?;
                let info = read(docker.info()).await;
                let cores = info.ok().and_then(|info| info.ncpu).filter(|cores| *cores > 0);
                Ok(Connected { docker, cores: cores.map(|cores| cores as f64) })
            })
            .await
    }

    pub(super) async fn ping(&self) -> RuntimeResult<()> {
        let docker = self.docker().await?;
        match tokio::time::timeout(PING, docker.ping()).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) => Err(Failure::from(error).of_read().into()),
            Err(_) => Err(RuntimeError::Unavailable("no answer to a ping".into())),
        }
    }

    pub(super) async fn inspect(&self, id: &str) -> RuntimeResult<Option<bollard::models::ContainerInspectResponse>> {
        let docker = self.docker().await?;
        there(read(docker.inspect_container(id, None::<InspectContainerOptions>)).await)
    }
}

/// A call of the engine that failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Failure {
    /// The engine said no: HTTP status and its message.
    Refused(u16, String),
    /// Nothing was sent.
    Away(String),
    /// It was sent, and its answer did not come.
    Lost(String),
}

impl Failure {
    /// A read without an answer has done nothing.
    fn of_read(self) -> Self {
        match self {
            Self::Lost(why) => Self::Away(why),
            other => other,
        }
    }

    /// Whether the engine said that there is no such thing.
    pub(super) const fn not_found(&self) -> bool {
        matches!(self, Self::Refused(404, _))
    }

    /// Whether a call that makes something so, found it so.
    pub(super) const fn already(&self) -> bool {
        matches!(self, Self::Refused(304 | 404, _))
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        match error {
            Error::DockerResponseServerError { status_code, message } => Self::Refused(status_code, short(&message)),
            Error::DockerStreamError { error } => Self::Refused(500, short(&error)),
            Error::HyperLegacyError { err } if err.is_connect() => {
                Self::Away(format!("cannot connect: {}", chain(&err)))
            }
            Error::SocketNotFoundError(path) => Self::Away(format!("there is no socket {path}")),
            other => Self::Lost(short(&chain(&other))),
        }
    }
}

impl From<Failure> for RuntimeError {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Refused(404, _) => Self::NotFound,
            Failure::Refused(409, message) => Self::Conflict(message),
            Failure::Refused(_, message) if without_room(&message) => Self::Capacity(message),
            Failure::Refused(400..=499, message) => Self::Invalid(message),
            Failure::Refused(_, message) if message.contains("OCI runtime create failed") => Self::Invalid(message),
            Failure::Refused(_, message) | Failure::Away(message) => Self::Unavailable(message),
            Failure::Lost(message) => Self::UnknownOutcome(message),
        }
    }
}

/// The engine has no status of its own for a machine that is full.
fn without_room(message: &str) -> bool {
    let message = message.to_ascii_lowercase();
    [
        "no space left on device",
        "cannot allocate memory",
        "resource temporarily unavailable",
        "too many open files",
        "no available ipv4 addresses",
        "could not find an available",
        "exchange full",
    ]
    .iter()
    .any(|sign| message.contains(sign))
}

/// Runs a call that only reads.
pub(super) async fn read<T>(call: impl Future<Output = Result<T, Error>>) -> Result<T, Failure> {
    within(READ, call).await.map_err(Failure::of_read)
}

/// Runs a call that changes something.
pub(super) async fn within<T>(deadline: Duration, call: impl Future<Output = Result<T, Error>>) -> Result<T, Failure> {
    match tokio::time::timeout(deadline, call).await {
        Ok(answer) => answer.map_err(Failure::from),
        Err(_) => Err(Failure::Lost(format!("no answer within {} s", deadline.as_secs()))),
    }
}

/// `None` where the engine says that there is no such thing.
pub(super) fn there<T>(answer: Result<T, Failure>) -> RuntimeResult<Option<T>> {
    match answer {
        Ok(value) => Ok(Some(value)),
        Err(failure) if failure.not_found() => Ok(None),
        Err(failure) => Err(failure.into()),
    }
}

fn short(message: &str) -> String {
    let line = message.split_whitespace().collect::<Vec<_>>().join(" ");
    match line.char_indices().nth(MESSAGE_LENGTH) {
        Some((at, _)) => format!("{}…", &line[..at]),
        None => line,
    }
}

/// An error with its sources, which for a lost connection hold all that is known.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        let message = error.to_string();
        // Transparent wrappers repeat what is below them.
        if !text.ends_with(&message) {
            text = format!("{text}: {message}");
        }
        source = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_become_what_the_caller_can_act_on() {
        let error = |status, message: &str| RuntimeError::from(Failure::Refused(status, message.into()));
        assert_eq!(error(404, "No such container: x"), RuntimeError::NotFound);
        assert!(matches!(error(409, "in progress"), RuntimeError::Conflict(_)));
        assert!(matches!(error(400, "Range of CPUs"), RuntimeError::Invalid(_)));
        assert!(matches!(error(500, "OCI runtime create failed: exec: no"), RuntimeError::Invalid(_)));
        assert!(matches!(error(500, "write /x: no space left on device"), RuntimeError::Capacity(_)));
        assert!(matches!(error(500, "adding interface: exchange full"), RuntimeError::Capacity(_)));
        assert!(matches!(error(503, "shutting down"), RuntimeError::Unavailable(_)));
        assert!(matches!(RuntimeError::from(Failure::Lost("x".into())), RuntimeError::UnknownOutcome(_)));
        let read = Failure::Lost("x".into()).of_read();
        assert!(matches!(RuntimeError::from(read), RuntimeError::Unavailable(_)));
    }

    #[test]
    fn messages_are_one_short_line() {
        assert_eq!(short("a\n  b"), "a b");
        assert_eq!(short(&"ä".repeat(1000)).chars().count(), MESSAGE_LENGTH + 1);
    }

    #[tokio::test]
    async fn an_engine_without_a_socket_is_away() {
        let folder = tempfile::TempDir::new().unwrap();
        let engine = Engine::new(&format!("unix://{}/none.sock", folder.path().display())).unwrap();
        assert!(matches!(engine.ping().await, Err(RuntimeError::Unavailable(_))));
        let engine = Engine::new("tcp://127.0.0.1:1").unwrap();
        assert!(matches!(engine.ping().await, Err(RuntimeError::Unavailable(_))));
        assert!(Engine::new("ssh://x").is_err());
    }
}
