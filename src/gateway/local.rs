//! What a command on the same machine asks of a running gateway: whether it is healthy, and a code to pair another device.
//!
//! A code is given to whoever can write into the gateway's own folder: the command leaves a secret there, names it in its
//! request, and the gateway compares the two and removes the file. So a lost token does not mean editing a file, and no
//! secret for it lies about.

use std::fs;
use std::io::{self, Read as _, Write as _};
use std::net::{TcpStream, ToSocketAddrs as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rand::rngs::OsRng;
use rand::{Rng as _, TryRngCore as _};
use subtle::ConstantTimeEq as _;

use super::config_file;
use super::options::Options;
use super::pairing::hex;

/// The header that names the secret.
pub(super) const HEADER: &str = "x-local-secret";
const FILE: &str = "pairing-request";
/// A request that was left there longer ago is nobody's.
const FRESH: Duration = Duration::from_secs(60);
const SECRET_BYTES: usize = 32;
/// A gateway on this machine that does not answer in this time does not work.
const TIMEOUT: Duration = Duration::from_secs(5);
/// No answer is longer.
const ANSWER: u64 = 64 << 10;

/// Why a command on this machine failed.
#[derive(Debug, thiserror::Error)]
pub enum LocalError {
    /// Where the gateway listens is unknown: its configuration cannot be used.
    #[error(transparent)]
    Config(#[from] super::Error),
    /// No answer came from this address.
    #[error("no gateway answers at {0}; start it with `zeroone gateway` (health check: GET /health)")]
    NoAnswer(String),
    /// The gateway is not healthy, or gives no code.
    #[error("the gateway at {address} answered {status}: {message}")]
    Refused {
        /// Where it listens.
        address: String,
        /// The HTTP status of its answer.
        status: u16,
        /// Why, in its own words; of a health check the request instead.
        message: String,
    },
    /// The file that would prove who asks cannot be written.
    #[error("cannot write {path}: only who may write into the gateway's folder gets a code")]
    Folder {
        /// The file.
        path: PathBuf,
        /// Why it cannot be written.
        source: io::Error,
    },
}

/// Asks the gateway that these options describe for a code that pairs one more device. Blocks.
///
/// # Errors
/// See [`LocalError`].
pub fn new_code(options: &Options) -> Result<String, LocalError> {
    let address = address(options)?;
    let path = options.folder().join(FILE);
    let secret: [u8; SECRET_BYTES] = OsRng.unwrap_err().random();
    let secret = hex(&secret);
    let _ = fs::remove_file(&path);
    let file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path);
    let written = file.and_then(|mut file| file.write_all(secret.as_bytes()));
    written.map_err(|source| LocalError::Folder { path: path.clone(), source })?;
    let answer = ask(&address, "POST", "/admin/paircode/new", &format!("{HEADER}: {secret}\r\n"));
    let _ = fs::remove_file(&path);
    let (status, body) = answer.map_err(|_| LocalError::NoAnswer(address.clone()))?;
    let body: serde_json::Value = serde_json::from_str(&body).unwrap_or_default();
    match body["pairing_code"].as_str() {
        Some(code) if status == 200 => Ok(code.to_owned()),
        _ => {
            let message = body["error"].as_str().unwrap_or("it is no gateway of this version").to_owned();
            Err(LocalError::Refused { address, status, message })
        }
    }
}

/// Asks the gateway that these options describe whether it is healthy, and gives its address. Blocks.
///
/// # Errors
/// See [`LocalError`].
pub fn check_health(options: &Options) -> Result<String, LocalError> {
    let address = address(options)?;
    match ask(&address, "GET", "/health", "") {
        Ok((200, _)) => Ok(address),
        Ok((status, _)) => Err(LocalError::Refused { address, status, message: "GET /health".into() }),
        Err(_) => Err(LocalError::NoAnswer(address)),
    }
}

/// Whether a request comes from somebody who could write the file. The file is used up.
pub(super) fn is_from_here(folder: &Path, secret: &str) -> bool {
    let path = folder.join(FILE);
    let genuine = (|| {
        let found = fs::symlink_metadata(&path).ok()?;
        let own = fs::metadata(folder).ok()?.uid() == found.uid() || found.uid() == 0;
        let fresh = found.modified().ok()?.elapsed().ok()? < FRESH;
        if !found.is_file() || !own || !fresh || found.len() != 2 * SECRET_BYTES as u64 {
            return None;
        }
        let expected = fs::read(&path).ok()?;
        Some(bool::from(expected.as_slice().ct_eq(secret.as_bytes())))
    })();
    let _ = fs::remove_file(&path);
    genuine.unwrap_or(false)
}

/// Where the gateway listens, as this machine reaches it.
fn address(options: &Options) -> Result<String, LocalError> {
    let config = config_file::load(options)?.config;
    let host = match config.gateway.bind_host() {
        "0.0.0.0" | "" => "127.0.0.1",
        "::" => "::1",
        host => host,
    };
    let port = config.gateway.port;
    Ok(if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") })
}

/// One request over a connection of its own. Small enough that a client library would be more than the request.
fn ask(address: &str, method: &str, path: &str, headers: &str) -> io::Result<(u16, String)> {
    let mut last = io::Error::from(io::ErrorKind::AddrNotAvailable);
    for target in address.to_socket_addrs()? {
        match TcpStream::connect_timeout(&target, TIMEOUT) {
            Ok(stream) => return exchange(stream, address, method, path, headers),
            Err(error) => last = error,
        }
    }
    Err(last)
}

fn exchange(
    mut stream: TcpStream,
    address: &str,
    method: &str,
    path: &str,
    headers: &str,
) -> io::Result<(u16, String)> {
    stream.set_read_timeout(Some(TIMEOUT))?;
    stream.set_write_timeout(Some(TIMEOUT))?;
    let request = format!(
        "{method} {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\nContent-Length: 0\r\n{headers}\r\n"
    );
    stream.write_all(request.as_bytes())?;
    let mut answer = String::new();
    stream.take(ANSWER).read_to_string(&mut answer)?;
    let (head, body) = answer.split_once("\r\n\r\n").ok_or(io::ErrorKind::InvalidData)?;
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).ok_or(io::ErrorKind::InvalidData)?;
    Ok((status, body.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn leave(folder: &Path, text: &str) {
        fs::write(folder.join(FILE), text).unwrap();
    }

    #[test]
    fn only_what_was_left_in_the_folder_counts_and_only_once() {
        let folder = tempfile::tempdir().unwrap();
        let secret = "ab".repeat(SECRET_BYTES);
        assert!(!is_from_here(folder.path(), &secret), "nothing was left");
        leave(folder.path(), &secret);
        assert!(is_from_here(folder.path(), &secret));
        assert!(!is_from_here(folder.path(), &secret), "it is used up");
        leave(folder.path(), &secret);
        assert!(!is_from_here(folder.path(), &"cd".repeat(SECRET_BYTES)));
        assert!(!is_from_here(folder.path(), &secret), "a wrong guess uses it up, too");
        leave(folder.path(), "");
        assert!(!is_from_here(folder.path(), ""));
    }

    #[test]
    fn a_link_and_an_old_request_do_not_count() {
        let folder = tempfile::tempdir().unwrap();
        let secret = "ab".repeat(SECRET_BYTES);
        fs::write(folder.path().join("elsewhere"), &secret).unwrap();
        std::os::unix::fs::symlink(folder.path().join("elsewhere"), folder.path().join(FILE)).unwrap();
        assert!(!is_from_here(folder.path(), &secret));
        leave(folder.path(), &secret);
        #[expect(clippy::disallowed_methods, reason = "the times of files are of the real time")]
        let long_ago = std::time::SystemTime::now() - 2 * FRESH;
        fs::File::options().write(true).open(folder.path().join(FILE)).unwrap().set_modified(long_ago).unwrap();
        assert!(!is_from_here(folder.path(), &secret));
    }
}
