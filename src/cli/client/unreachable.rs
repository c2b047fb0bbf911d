//! Why a request could not be sent, told apart: the name, the connection, TLS, or silence.

use std::error::Error;
use std::io;

/// What a failed request says about the way to the service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reason {
    /// The host's name leads nowhere.
    Name,
    Refused,
    /// Something answers that does not speak TLS.
    NotTls,
    Certificate,
    Silent,
    Other,
}

impl Reason {
    pub(super) fn of(error: &reqwest::Error) -> Self {
        if error.is_timeout() {
            return Self::Silent;
        }
        let mut next: Option<&(dyn Error + 'static)> = Some(error);
        while let Some(error) = next {
            if let Some(reason) = Self::of_one(error) {
                return reason;
            }
            next = error.source();
        }
        Self::Other
    }

    fn of_one(error: &(dyn Error + 'static)) -> Option<Self> {
        // Hyper keeps its resolver's error type to itself.
        if error.to_string() == "dns error" {
            return Some(Self::Name);
        }
        if let Some(tls) = error.downcast_ref::<rustls::Error>() {
            return Some(match tls {
                rustls::Error::InvalidMessage(_) => Self::NotTls,
                _ => Self::Certificate,
            });
        }
        let io = error.downcast_ref::<io::Error>()?;
        // The source of such an error is not what it wraps, but the source of that. It may wrap one of its own kind.
        if let Some(reason) = io.get_ref().and_then(|inner| Self::of_one(inner)) {
            return Some(reason);
        }
        match io.kind() {
            io::ErrorKind::ConnectionRefused => Some(Self::Refused),
            io::ErrorKind::TimedOut => Some(Self::Silent),
            _ => None,
        }
    }

    /// The sentence for people, with the remedy.
    pub(super) fn sentence(self, url: &str) -> String {
        match self {
            Self::Name => {
                format!("the host name in {url} cannot be resolved (DNS); check the URL (--url, ZEROONE_URL)")
            }
            Self::Refused => {
                format!(
                    "nobody answers at {url}: the connection was refused; is `zeroone serve` running? (--url, ZEROONE_URL)"
                )
            }
            Self::NotTls => format!("what answers at {url} does not speak TLS; try http:// instead of https://"),
            Self::Certificate => {
                format!(
                    "the TLS connection to {url} failed: its certificate or protocol is not accepted by this machine"
                )
            }
            Self::Silent => format!("{url} does not answer in time; check the address, the network and firewalls"),
            Self::Other => format!("the connection to {url} failed"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wrapped_errors_are_recognised() {
        let refused = io::Error::from(io::ErrorKind::ConnectionRefused);
        assert_eq!(Reason::of_one(&refused), Some(Reason::Refused));
        let plain = rustls::Error::InvalidMessage(rustls::InvalidMessage::InvalidContentType);
        assert_eq!(Reason::of_one(&io::Error::other(io::Error::other(plain))), Some(Reason::NotTls));
        let unknown = rustls::Error::InvalidCertificate(rustls::CertificateError::UnknownIssuer);
        assert_eq!(Reason::of_one(&io::Error::other(unknown)), Some(Reason::Certificate));
        assert_eq!(Reason::of_one(&io::Error::other("anything")), None);
    }
}
