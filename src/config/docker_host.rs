//! Where Docker's own tools look for the engine, for whoever did not set `docker.host`: `DOCKER_HOST`, else the context that
//! `DOCKER_CONTEXT` or `docker context use` chose.

use std::path::PathBuf;

use serde::Deserialize;
use sha2::{Digest, Sha256};

/// An address, and what it came from.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) host: String,
    pub(super) from: String,
}

/// `None` where neither says anything: then the default is meant.
pub(super) fn find(env: &[(String, String)]) -> Option<Found> {
    let variable = |name: &str| {
        let value = env.iter().find(|(known, _)| known == name).map(|(_, value)| value.trim());
        value.filter(|value| !value.is_empty())
    };
    if let Some(host) = variable("DOCKER_HOST") {
        return Some(with_tls(host, variable("DOCKER_TLS_VERIFY").is_some()));
    }
    let folder = variable("DOCKER_CONFIG").map(PathBuf::from);
    let folder = folder.or_else(|| Some(PathBuf::from(variable("HOME")?).join(".docker")))?;
    let name = match variable("DOCKER_CONTEXT") {
        Some(name) => name.to_owned(),
        None => read::<Settings>(folder.join("config.json"))?.current_context?,
    };
    if name.is_empty() || name == "default" {
        return None;
    }
    let digest = data_encoding::HEXLOWER.encode(&Sha256::digest(name.as_bytes()));
    let context: Context = read(folder.join("contexts/meta").join(digest).join("meta.json"))?;
    let host = context.endpoints.docker?.host?;
    Some(Found { host, from: format!("docker context {name}") })
}

/// An address of TLS has a scheme of its own, by which the runtime refuses it with the reason.
fn with_tls(host: &str, tls: bool) -> Found {
    match host.strip_prefix("tcp://") {
        Some(rest) if tls => {
            Found { host: format!("https://{rest}"), from: "DOCKER_HOST with DOCKER_TLS_VERIFY".into() }
        }
        _ => Found { host: host.to_owned(), from: "DOCKER_HOST".into() },
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Settings {
    current_context: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Context {
    endpoints: Endpoints,
}

#[derive(Deserialize)]
struct Endpoints {
    docker: Option<Endpoint>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Endpoint {
    host: Option<String>,
}

/// A file that is missing or malformed says nothing.
fn read<T: serde::de::DeserializeOwned>(path: PathBuf) -> Option<T> {
    serde_json::from_slice(&std::fs::read(path).ok()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn env(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    fn found(host: &str, from: &str) -> Option<Found> {
        Some(Found { host: host.into(), from: from.into() })
    }

    #[test]
    fn docker_host_counts_and_tls_is_told_apart() {
        let unix = env(&[("DOCKER_HOST", "unix:///run/user/1000/docker.sock"), ("DOCKER_TLS_VERIFY", "1")]);
        assert_eq!(find(&unix), found("unix:///run/user/1000/docker.sock", "DOCKER_HOST"));
        let tls = env(&[("DOCKER_HOST", "tcp://build:2376"), ("DOCKER_TLS_VERIFY", "1")]);
        assert_eq!(find(&tls), found("https://build:2376", "DOCKER_HOST with DOCKER_TLS_VERIFY"));
        assert_eq!(find(&env(&[("DOCKER_HOST", "tcp://build:2375")])), found("tcp://build:2375", "DOCKER_HOST"));
        assert_eq!(find(&env(&[("DOCKER_HOST", "")])), None);
    }

    #[test]
    fn the_chosen_context_counts() {
        let home = tempfile::TempDir::new().unwrap();
        let folder = home.path().join(".docker");
        // `printf colima | sha256sum`
        let meta = folder.join("contexts/meta/f24fd3749c1368328e2b149bec149cb6795619f244c5b584e844961215dadd16");
        std::fs::create_dir_all(&meta).unwrap();
        let context = r#"{"Name":"colima","Metadata":{},"Endpoints":{"docker":{"Host":"unix:///colima/docker.sock","SkipTLSVerify":false}}}"#;
        std::fs::write(meta.join("meta.json"), context).unwrap();
        let home = home.path().to_str().unwrap();
        assert_eq!(find(&env(&[("HOME", home)])), None, "nothing is chosen");
        std::fs::write(folder.join("config.json"), r#"{"currentContext":"colima"}"#).unwrap();
        let chosen = found("unix:///colima/docker.sock", "docker context colima");
        assert_eq!(find(&env(&[("HOME", home)])), chosen);
        assert_eq!(find(&env(&[("HOME", home), ("DOCKER_CONTEXT", "default")])), None);
        assert_eq!(find(&env(&[("DOCKER_CONFIG", folder.to_str().unwrap()), ("DOCKER_CONTEXT", "colima")])), chosen);
        assert_eq!(find(&env(&[("HOME", home), ("DOCKER_CONTEXT", "gone")])), None);
    }
}
