//! Which paths of a gateway may be reached through the control plane. Pure.
//!
//! A path is judged as the gateway would read it. What can be read in two ways (dot segments, encoded slashes, empty
//! segments) is refused rather than resolved, so that no spelling of a refused path slips through.

use http::Method;

/// What a request to a gateway is, for those who decide whether it may pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Route {
    /// Looks, and changes nothing.
    Read,
    /// Everything else, WebSockets included.
    Act,
}

/// Why a path does not pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refused {
    /// Could be read in more than one way.
    #[error("the path has dot segments, empty segments or encoded separators")]
    Ambiguous,
    /// Pairing, administration and self-upgrade belong to the control plane.
    #[error("the control plane does this itself")]
    Reserved,
    /// The agent's configuration is the control plane's: it would be overwritten, or the record would no longer be true.
    #[error("the configuration is changed through the control plane")]
    Configuration,
    /// No tunnel, no other protocol.
    #[error("the method is not passed on")]
    Method,
}

/// Paths that nobody reaches from outside, with all that is below them. A gateway takes calls from its own machine for
/// an administrator's, and the control plane calls from there.
const RESERVED: [&str; 8] = [
    "/pair",
    "/admin",
    "/api/pair",
    "/api/pairing",
    "/api/version/upgrade",
    "/api/self-upgrade",
    "/api/upgrade",
    "/api/update",
];
/// Paths whose writes would go past the control plane.
const CONFIGURATION: [&str; 3] = ["/api/config", "/api/quickstart", "/api/personality"];

/// Judges a request by its method and its path, without the query.
///
/// # Errors
/// [`Refused`] says why it does not pass.
pub fn judge(method: &Method, path: &str, websocket: bool) -> Result<Route, Refused> {
    if matches!(*method, Method::CONNECT | Method::TRACE) {
        return Err(Refused::Method);
    }
    let plain = decode(path)?;
    if RESERVED.iter().any(|reserved| is_below(&plain, reserved)) {
        return Err(Refused::Reserved);
    }
    let reads = matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS);
    if !reads && CONFIGURATION.iter().any(|reserved| is_below(&plain, reserved)) {
        return Err(Refused::Configuration);
    }
    Ok(if reads && !websocket { Route::Read } else { Route::Act })
}

/// The same for what reaches an agent by its own host name: nothing but the reserved paths is kept from it, because its
/// gateway asks for its own token there.
///
/// # Errors
/// [`Refused`] says why it does not pass.
pub fn judge_open(method: &Method, path: &str) -> Result<(), Refused> {
    match judge(method, path, false) {
        Ok(_) | Err(Refused::Configuration) => Ok(()),
        Err(refused) => Err(refused),
    }
}

fn is_below(path: &str, reserved: &str) -> bool {
    path.strip_prefix(reserved).is_some_and(|rest| rest.is_empty() || rest.starts_with(['/', '-', ';', '.']))
}

/// The path with its escapes resolved, in lower case.
fn decode(path: &str) -> Result<String, Refused> {
    let mut bytes = Vec::with_capacity(path.len());
    let mut rest = path.bytes();
    while let Some(byte) = rest.next() {
        let byte = match byte {
            b'%' => {
                let digits = [rest.next(), rest.next()].map(|digit| digit.and_then(|d| char::from(d).to_digit(16)));
                let [Some(high), Some(low)] = digits else { return Err(Refused::Ambiguous) };
                let byte = u8::try_from(high * 16 + low).map_err(|_| Refused::Ambiguous)?;
                // An encoded separator, dot or percent sign: another layer might decode once more.
                if matches!(byte, b'/' | b'\\' | b'.' | b'%' | b'?' | b'#' | b';') || byte.is_ascii_control() {
                    return Err(Refused::Ambiguous);
                }
                byte
            }
            b'\\' => return Err(Refused::Ambiguous),
            byte if byte.is_ascii_control() => return Err(Refused::Ambiguous),
            byte => byte,
        };
        bytes.push(byte.to_ascii_lowercase());
    }
    let plain = String::from_utf8(bytes).map_err(|_| Refused::Ambiguous)?;
    let (bytes, is_slash) = (plain.as_bytes(), |byte: &u8| *byte == b'/');
    let dots = || bytes.split(is_slash).any(|part| matches!(part, b"." | b".."));
    if !plain.starts_with('/') || bytes.windows(2).any(|two| two == b"//") || dots() {
        return Err(Refused::Ambiguous);
    }
    Ok(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reserved_paths_are_refused_in_every_spelling() {
        for path in [
            "/pair",
            "/PAIR",
            "/pair/",
            "/pair/code",
            "/%70air",
            "/pa%69r/code",
            "/admin/reload",
            "/Admin",
            "/api/pair",
            "/api/pairing/initiate",
            "/api/version/upgrade",
            "/pair;x=1",
        ] {
            assert_eq!(judge(&Method::GET, path, false), Err(Refused::Reserved), "{path}");
            assert_eq!(judge_open(&Method::POST, path), Err(Refused::Reserved), "{path}");
        }
        for path in [
            "/x/../pair",
            "/./pair",
            "//pair",
            "/x//pair",
            "/%2e%2e/pair",
            "/x%2fpair",
            "/x%2Fpair",
            "/x%5cpair",
            "/x\\pair",
            "/%2570air",
            "/pair%3f",
            "/%",
            "/%7",
            "/%zz",
            "pair",
            "",
            "/%00",
            "/%ff",
            "/a/..",
            "/.",
            "/a\tb",
            "/\u{7f}",
            "/%1f",
        ] {
            assert_eq!(judge(&Method::GET, path, false), Err(Refused::Ambiguous), "{path}");
        }
    }

    #[test]
    fn names_that_only_begin_alike_pass() {
        for path in [
            "/pairs",
            "/pairing-help",
            "/administration",
            "/api/configuration",
            "/api/pairs",
            "/",
            "/health",
            "/a.b/c..d",
        ] {
            assert!(judge(&Method::POST, path, false).is_ok(), "{path}");
        }
    }

    #[test]
    fn the_configuration_can_be_read_and_not_written() {
        for path in ["/api/config", "/api/config/prop", "/api/quickstart/apply", "/api/personality/SOUL.md"] {
            assert_eq!(judge(&Method::GET, path, false), Ok(Route::Read), "{path}");
            for method in [Method::PUT, Method::POST, Method::PATCH, Method::DELETE] {
                assert_eq!(judge(&method, path, false), Err(Refused::Configuration), "{method} {path}");
            }
        }
    }

    #[test]
    fn a_websocket_is_an_act_and_a_tunnel_is_nothing() {
        assert_eq!(judge(&Method::GET, "/ws/chat", true), Ok(Route::Act));
        assert_eq!(judge(&Method::GET, "/api/events", false), Ok(Route::Read));
        assert_eq!(judge(&Method::POST, "/webhook", false), Ok(Route::Act));
        assert_eq!(judge(&Method::CONNECT, "/x", false), Err(Refused::Method));
        assert_eq!(judge(&Method::TRACE, "/x", false), Err(Refused::Method));
    }
}
