//! Where the engine listens, as people write it: `docker.host`, or `DOCKER_HOST`.

use std::fmt;
use std::path::PathBuf;

use crate::runtime::{RuntimeError, RuntimeResult};

/// The port of an engine without TLS, where the address names none.
const PLAIN_PORT: u16 = 2375;

/// An address that this client can use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Address {
    Unix(PathBuf),
    Tcp { host: String, port: u16 },
}

impl Address {
    /// # Errors
    /// [`RuntimeError::Invalid`] with the remedy where the address has a form that this client does not speak.
    pub(super) fn parse(text: &str) -> RuntimeResult<Self> {
        let invalid =
            |why: &str| Err(RuntimeError::Invalid(format!("the engine's address {text} cannot be used: {why}")));
        let Some((scheme, rest)) = text.split_once("://") else {
            return invalid("it must be unix:///path or tcp://host:port");
        };
        match scheme {
            "unix" if rest.starts_with('/') => Ok(Self::Unix(rest.into())),
            "unix" => invalid("the path after unix:// must be absolute"),
            "tcp" | "http" => match tcp(rest.trim_end_matches('/')) {
                Some((host, port)) => Ok(Self::Tcp { host, port }),
                None => invalid("it must be tcp://host:port"),
            },
            "ssh" => invalid(
                "ssh is not spoken; forward the socket with `ssh -nNT -L /path/docker.sock:/var/run/docker.sock HOST` \
                 and use unix:///path/docker.sock",
            ),
            "https" => invalid("TLS is not spoken; use the engine's unix socket, or forward it with `ssh -L`"),
            "npipe" | "fd" => invalid("only unix:///path and tcp://host:port are spoken"),
            _ => invalid("it must be unix:///path or tcp://host:port"),
        }
    }
}

fn tcp(rest: &str) -> Option<(String, u16)> {
    let (host, port) = match rest.strip_prefix('[') {
        // An IPv6 address.
        Some(rest) => {
            let (host, port) = rest.split_once(']')?;
            (host, port.strip_prefix(':'))
        }
        None => rest.rsplit_once(':').map_or((rest, None), |(host, port)| (host, Some(port))),
    };
    let port = match port {
        Some(port) => port.parse().ok().filter(|port| *port > 0)?,
        None => PLAIN_PORT,
    };
    let plain = !host.is_empty() && host.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._:%".contains(&b));
    plain.then(|| (host.to_owned(), port))
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix://{}", path.display()),
            Self::Tcp { host, port } if host.contains(':') => write!(f, "tcp://[{host}]:{port}"),
            Self::Tcp { host, port } => write!(f, "tcp://{host}:{port}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sockets_and_ports_are_read() {
        for (text, expected) in [
            ("unix:///var/run/docker.sock", "unix:///var/run/docker.sock"),
            ("tcp://127.0.0.1:2375", "tcp://127.0.0.1:2375"),
            ("http://engine:80/", "tcp://engine:80"),
            ("tcp://engine", "tcp://engine:2375"),
            ("tcp://[::1]:2375", "tcp://[::1]:2375"),
        ] {
            assert_eq!(Address::parse(text).unwrap().to_string(), expected);
        }
    }

    #[test]
    fn an_unusable_address_is_refused_with_the_remedy() {
        for (text, remedy) in [
            ("ssh://me@host", "ssh -nNT -L"),
            ("https://host:2376", "TLS"),
            ("npipe:////./pipe/docker_engine", "unix://"),
            ("unix://docker.sock", "absolute"),
            ("tcp://host:x", "tcp://host:port"),
            ("tcp://:2375", "tcp://host:port"),
            ("/var/run/docker.sock", "unix:///path"),
            ("", "unix:///path"),
        ] {
            match Address::parse(text) {
                Err(RuntimeError::Invalid(why)) => assert!(why.contains(remedy), "{why}"),
                other => panic!("{text}: {other:?}"),
            }
        }
    }
}
