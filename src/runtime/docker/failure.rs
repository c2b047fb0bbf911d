//! What a failed call of the engine means.
//!
//! An answer, even a refusal, proves that the engine is there. Only a connection that cannot be made, an answer that does
//! not come, and a server that says that it is not there (502 to 504, as filters before an engine do) mean "away". What
//! the engine refuses is told with its own words; where those are known, with what to do about them.

use bollard::errors::Error;

use crate::runtime::{RuntimeError, RuntimeResult};

/// The longest message of the engine that is passed on.
const MESSAGE_LENGTH: usize = 400;

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
    pub(super) fn refused(status: u16, message: &str) -> Self {
        Self::Refused(status, short(message))
    }

    /// A read without an answer has done nothing.
    pub(super) fn of_read(self) -> Self {
        match self {
            Self::Lost(why) => Self::Away(why),
            other => other,
        }
    }

    /// Names the call that a filter or the engine does not allow: nothing else tells which permission is missing.
    pub(super) fn while_doing(self, action: &str) -> Self {
        match self {
            Self::Refused(status @ (401 | 403 | 405), message) if !overlaps(&message) => {
                let message =
                    format!("{action} is not allowed by the engine or a filter before it (HTTP {status}: {message})");
                Self::Refused(status, message)
            }
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

    /// Whether a signal came too late: its container was ending by itself. Podman says so with a conflict or a failure,
    /// and takes even the removal by force back when the container ends between its look and its signal.
    pub(super) fn ended_by_itself(&self) -> bool {
        let Self::Refused(409 | 500, message) = self else { return false };
        message.contains("is not running")
            || (self.in_another_state() && ENDED.iter().any(|state| message.contains(state)))
    }

    /// Whether the container was in another state than the call needs. Podman looks before it waits for its lock, and then
    /// takes what another call has done meanwhile for a wrong state.
    pub(super) fn in_another_state(&self) -> bool {
        matches!(self, Self::Refused(409 | 500, message) if message.contains("container state improper"))
    }
}

/// Podman's words for a container that runs no longer.
const ENDED: [&str; 2] = ["stopped", "exited"];

/// A subnet that is in use, which the engine tells with a status for what is not allowed.
pub(super) fn overlaps(message: &str) -> bool {
    message.contains("overlap")
        || message.contains("already used on the host")
        || message.contains("already being used")
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        match error {
            Error::DockerResponseServerError { status_code, message } => Self::refused(status_code, &message),
            Error::DockerStreamError { error } => Self::refused(500, &error),
            Error::HyperLegacyError { err } if err.is_connect() => {
                Self::Away(format!("cannot connect: {}", chain(&err)))
            }
            Error::SocketNotFoundError(path) => Self::Away(format!("there is no socket {path}")),
            // The answer came, and no client could read it.
            error @ (Error::JsonDataError { .. } | Error::JsonSerdeError { .. }) => {
                Self::refused(500, &format!("an answer that cannot be read: {}", chain(&error)))
            }
            other => Self::Lost(short(&chain(&other))),
        }
    }
}

impl From<Failure> for RuntimeError {
    fn from(failure: Failure) -> Self {
        let (status, message) = match failure {
            Failure::Refused(status, message) => (status, message),
            Failure::Away(why) => return Self::Unavailable(why),
            Failure::Lost(why) => return Self::UnknownOutcome(why),
        };
        match verdict(&message) {
            Some(Verdict::NoCapacity) => return Self::Capacity(message),
            Some(Verdict::Passing) => return Self::Failed(message),
            Some(Verdict::Permanent("")) => return Self::Invalid(message),
            Some(Verdict::Permanent(remedy)) => return Self::Invalid(format!("{message}; {remedy}")),
            None => {}
        }
        match status {
            404 => Self::NotFound,
            409 => Self::Conflict(message),
            502..=504 => Self::Unavailable(message),
            // Too many calls, too late: the next one may find it better.
            408 | 425 | 429 => Self::Failed(message),
            400..=499 => Self::Invalid(message),
            _ => Self::Failed(message),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    /// The machine is full: disk, memory, addresses.
    NoCapacity,
    /// A matter of the moment, whatever the status says.
    Passing,
    /// It will fail in the same way until somebody changes something, and what that is.
    Permanent(&'static str),
}

/// What the engine's words mean; the first row that fits counts. Docker and Podman say the same thing in several ways.
const TABLE: &[(&[&str], Verdict)] = &[
    (&["no space left on device"], Verdict::NoCapacity),
    (&["disk quota exceeded"], Verdict::NoCapacity),
    (&["cannot allocate memory"], Verdict::NoCapacity),
    (&["resource temporarily unavailable"], Verdict::NoCapacity),
    (&["too many open files"], Verdict::NoCapacity),
    (&["no available ipv4 addresses"], Verdict::NoCapacity),
    (&["could not find an available"], Verdict::NoCapacity),
    (&["all predefined address pools have been fully subnetted"], Verdict::NoCapacity),
    (&["could not find free subnet"], Verdict::NoCapacity),
    (&["exchange full"], Verdict::NoCapacity),
    (
        &["br_netfilter"],
        Verdict::Permanent(
            "load the kernel module (`modprobe br_netfilter`) and restart the engine, or set docker.isolation = \
             \"per-agent\"",
        ),
    ),
    (
        &["restrict inter-container communication"],
        Verdict::Permanent(
            "load the kernel module (`modprobe br_netfilter`) and restart the engine, or set docker.isolation = \
             \"per-agent\"",
        ),
    ),
    (
        &["docker-init"],
        Verdict::Permanent("install the engine's init program (docker-init, the package tini) on the engine's machine"),
    ),
    (
        &["container-init", "no such file"],
        Verdict::Permanent("install the engine's init program (catatonit) on the engine's machine"),
    ),
    (&["catatonit"], Verdict::Permanent("install catatonit on the engine's machine")),
    (
        &["host-gateway"],
        Verdict::Permanent(
            "the engine does not know its own machine's address; set host-gateway-ip (Docker) or \
             host_containers_internal_ip (Podman) in its configuration",
        ),
    ),
    (
        &["host containers internal ip address is empty"],
        Verdict::Permanent("set host_containers_internal_ip in the engine's containers.conf"),
    ),
    (
        &["nanocpus can not be set"],
        Verdict::Permanent("the kernel needs CONFIG_CFS_BANDWIDTH and a mounted cpu controller (cgroup)"),
    ),
    (&["cpu cfs"], Verdict::Permanent("the kernel needs CONFIG_CFS_BANDWIDTH and a mounted cpu controller (cgroup)")),
    (&["cgroup", "controller", "not available"], Verdict::Permanent("delegate the cgroup controllers to the engine")),
    (&["unknown or invalid runtime name"], Verdict::Permanent("check the engine's default-runtime")),
    (&["invalid reference format"], Verdict::Permanent("")),
    (&["exec format error"], Verdict::Permanent("the image is for another processor")),
    (&["runtime create failed", "executable file not found"], Verdict::Permanent("")),
    (&["runtime create failed", "exec", "no such file or directory"], Verdict::Permanent("")),
    (&["runtime create failed", "exec", "permission denied"], Verdict::Permanent("")),
    (&["oci runtime", "executable file", "not found"], Verdict::Permanent("")),
    // The engine's network was taken away between two calls.
    (&["endpoint", "not found"], Verdict::Passing),
    (&["context deadline exceeded"], Verdict::Passing),
    (&["i/o timeout"], Verdict::Passing),
];

fn verdict(message: &str) -> Option<Verdict> {
    let message = message.to_ascii_lowercase();
    TABLE.iter().find(|(signs, _)| signs.iter().all(|sign| message.contains(sign))).map(|(_, verdict)| *verdict)
}

/// `None` where the engine says that there is no such thing.
pub(super) fn there<T>(answer: Result<T, Failure>) -> RuntimeResult<Option<T>> {
    match answer {
        Ok(value) => Ok(Some(value)),
        Err(failure) if failure.not_found() => Ok(None),
        Err(failure) => Err(failure.into()),
    }
}

/// The engine's two ways to say that someone listens there: another container, or a process of the host.
pub(super) fn port_taken(message: &str) -> bool {
    ["port is already allocated", "address already in use", "proxy already running"]
        .iter()
        .any(|sign| message.contains(sign))
}

/// The name of a new container belongs to another one.
pub(super) fn name_taken(status: u16, message: &str) -> bool {
    matches!(status, 409 | 500) && message.contains("name") && message.contains("already in use")
}

/// One line, cut where it gets long. What answers in the engine's place may send a page: its markup is dropped.
pub(super) fn short(message: &str) -> String {
    let (mut text, mut inside) = (String::with_capacity(message.len()), false);
    let page = message.trim_start().starts_with('<');
    for character in message.chars() {
        match character {
            '<' if page => inside = true,
            '>' if page && inside => {
                inside = false;
                text.push(' ');
            }
            other if !inside => text.push(other),
            _ => {}
        }
    }
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    match line.char_indices().nth(MESSAGE_LENGTH) {
        Some((at, _)) => format!("{}…", &line[..at]),
        None => line,
    }
}

/// An error with its sources, which for a lost connection hold all that is known.
pub(super) fn chain(error: &dyn std::error::Error) -> String {
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

    fn error(status: u16, message: &str) -> RuntimeError {
        Failure::refused(status, message).into()
    }

    #[test]
    fn a_refusal_never_means_that_the_engine_is_away() {
        for status in (400..=599).filter(|status| !(502..=504).contains(status)) {
            for message in ["", "whatever nobody listed", "<html><body>Forbidden</body></html>"] {
                let error = error(status, message);
                assert!(
                    !matches!(error, RuntimeError::Unavailable(_) | RuntimeError::UnknownOutcome(_)),
                    "{status}: {error:?}"
                );
            }
        }
        for status in 502..=504 {
            assert!(matches!(error(status, "no backend"), RuntimeError::Unavailable(_)));
        }
    }

    #[test]
    fn refusals_become_what_the_caller_can_act_on() {
        assert_eq!(error(404, "No such container: x"), RuntimeError::NotFound);
        assert!(matches!(error(409, "in progress"), RuntimeError::Conflict(_)));
        assert!(matches!(error(400, "Range of CPUs"), RuntimeError::Invalid(_)));
        assert!(matches!(error(500, "write /x: no space left on device"), RuntimeError::Capacity(_)));
        assert!(matches!(error(500, "adding interface: exchange full"), RuntimeError::Capacity(_)));
        assert!(matches!(error(500, "something of the moment"), RuntimeError::Failed(_)));
        assert!(matches!(error(429, "slow down"), RuntimeError::Failed(_)));
        assert!(matches!(RuntimeError::from(Failure::Lost("x".into())), RuntimeError::UnknownOutcome(_)));
        let read = Failure::Lost("x".into()).of_read();
        assert!(matches!(RuntimeError::from(read), RuntimeError::Unavailable(_)));
    }

    #[test]
    fn only_what_stays_as_it_is_is_permanent() {
        for (status, message, permanent) in [
            (
                500,
                "OCI runtime create failed: runc did not terminate: exec: \"x\": executable file not found in $PATH",
                true,
            ),
            (500, "OCI runtime create failed: container_linux.go: exec: \"/x\": permission denied", true),
            (500, "OCI runtime create failed: unable to apply cgroup configuration: dbus: connection timed out", false),
            (500, "OCI runtime create failed: unable to freeze: device or resource busy", false),
            (400, "invalid reference format", true),
            (
                500,
                "crun: executable file `x` not found in $PATH: No such file or directory: OCI runtime attempted to invoke a command",
                true,
            ),
            (500, "failed to create endpoint zeroclaw-a on network zeroone-net: i/o timeout", false),
        ] {
            let error = error(status, message);
            assert_eq!(matches!(error, RuntimeError::Invalid(_)), permanent, "{error:?}");
            assert!(permanent || matches!(error, RuntimeError::Failed(_)), "{error:?}");
        }
    }

    #[test]
    fn what_the_machine_cannot_do_is_told_with_its_remedy() {
        for (message, remedy) in [
            ("stat /proc/sys/net/bridge/bridge-nf-call-iptables: set DOCKER_IGNORE_BR_NETFILTER_ERROR=1", "modprobe"),
            ("exec: \"docker-init\": executable file not found in $PATH", "tini"),
            ("unable to replace \"host-gateway\" of host entry", "host-gateway-ip"),
            ("host containers internal IP address is empty", "containers.conf"),
            ("NanoCPUs can not be set, as your kernel does not support CPU CFS scheduler", "CONFIG_CFS_BANDWIDTH"),
        ] {
            match error(500, message) {
                RuntimeError::Invalid(why) => assert!(why.contains(remedy) && why.contains(message), "{why}"),
                other => panic!("{other:?}"),
            }
        }
    }

    #[test]
    fn a_signal_that_came_too_late_is_told_from_one_that_failed() {
        for (status, message, ended) in [
            (409, "Cannot kill container: 5c: container 5c is not running", true),
            (409, "can only kill running containers. 5c is in state exited: container state improper", true),
            (
                500,
                "cannot remove container 5c as it could not be stopped: sending SIGKILL to container 5c: container state \
                 improper: stopped",
                true,
            ),
            (409, "5c is in state created: container state improper", false),
            (409, "container 5c is paused and must be unpaused first: container state improper", false),
            (409, "removal of container 5c is already in progress", false),
            (500, "container 5c: device or resource busy", false),
            (404, "no such container: 5c is not running", false),
        ] {
            assert_eq!(Failure::refused(status, message).ended_by_itself(), ended, "{status} {message}");
        }
        assert!(!Failure::Lost("is not running".into()).ended_by_itself());
    }

    #[test]
    fn a_call_that_is_not_allowed_is_named() {
        let page = "<html><body><h1>403 Forbidden</h1>\nRequest forbidden by administrative rules.\n</body></html>";
        let refused = Failure::refused(403, page).while_doing("creating the volume");
        match RuntimeError::from(refused) {
            RuntimeError::Invalid(why) => {
                assert!(why.starts_with("creating the volume is not allowed") && why.contains("403 Forbidden Request"));
                assert!(!why.contains('<'), "{why}");
            }
            other => panic!("{other:?}"),
        }
        let overlap = Failure::refused(403, "Pool overlaps with other one on this address space");
        assert_eq!(overlap.clone().while_doing("creating the network"), overlap);
    }

    #[test]
    fn messages_are_one_short_line() {
        assert_eq!(short("a\n  b < c"), "a b < c");
        assert_eq!(short(&"ä".repeat(1000)).chars().count(), MESSAGE_LENGTH + 1);
    }
}
