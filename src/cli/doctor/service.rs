//! The service itself: does it answer, can it work, does it know our key; and if there is none, may it have its port.

use std::net::TcpListener;

use serde_json::Value;

use super::Finding;
use crate::cli::client::Client;
use crate::cli::outcome::Failure;
use crate::cli::output::{cell, plain};
use crate::config::Config;

pub(super) struct Service {
    pub(super) findings: Vec<Finding>,
    /// Whether there is one that knows our key.
    pub(super) answers: bool,
}

pub(super) async fn look(client: &Client, config: &Config) -> Service {
    const CHECK: &str = "service";
    let url = plain(client.url());
    let ready = match client.look("/readyz?verbose").await {
        Ok(ready) => ready,
        Err(failure) => {
            let away = Finding::warn(CHECK, format!("{failure}; without it no agent and no key can be checked"));
            return Service { findings: vec![away, port(config)], answers: false };
        }
    };
    let mut findings = vec![state(CHECK, &url, &ready)];
    let key = match client.get("/api/me").await {
        Ok(me) => Finding::ok("API key", format!("it is known: {}", cell(&me["email"]))),
        Err(Failure::Service(refusal)) => Finding::fail("API key", refusal.to_string()),
        Err(failure) => Finding::fail("API key", failure.to_string()),
    };
    let answers = key.verdict == super::Verdict::Ok;
    findings.push(key);
    Service { findings, answers }
}

/// What `readyz` says.
fn state(check: &str, url: &str, ready: &Value) -> Finding {
    let details = &ready["details"];
    let version = cell(&details["version"]);
    let engine = match details["runtime"]["problem"].as_str() {
        Some(problem) => format!("its engine does not answer as it should: {problem}"),
        None => "its engine does not answer: start it".to_owned(),
    };
    let missing: Vec<String> = [
        (details["store"]["writable"] == true, "its store cannot be written: look at the disk".to_owned()),
        (details["runtime"]["reachable"] == true, engine),
        (
            details["actors"] == true,
            "its actors do not answer: look at its log, then restart it; agents run on".to_owned(),
        ),
    ]
    .into_iter()
    .filter(|(fine, _)| !fine)
    .map(|(_, remedy)| remedy)
    .collect();
    match (missing.as_slice(), env!("CARGO_PKG_VERSION") == version) {
        ([], true) => Finding::ok(check, format!("{url} is ready, version {version}")),
        ([], false) => {
            let own = env!("CARGO_PKG_VERSION");
            Finding::warn(check, format!("{url} is ready; it is version {version} and this program {own}"))
        }
        (missing, _) => Finding::fail(check, format!("{url}: {}", missing.join("; "))),
    }
}

fn port(config: &Config) -> Finding {
    match TcpListener::bind(config.bind) {
        Ok(_) => Finding::ok("port of the service", format!("{} is free", config.bind)),
        Err(error) => Finding::fail(
            "port of the service",
            format!("{} cannot be had: {error}; end what holds it (ss -ltnp) or choose another by --bind", config.bind),
        ),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::Verdict;
    use super::*;

    #[test]
    fn what_a_service_lacks_is_told_with_the_remedy() {
        let ready = |store: bool, runtime: bool, version: &str| {
            let details = json!({
                "version": version, "store": { "writable": store }, "runtime": { "reachable": runtime }, "actors": true
            });
            state("service", "http://x", &json!({ "details": details }))
        };
        let own = env!("CARGO_PKG_VERSION");
        assert_eq!(ready(true, true, own).verdict, Verdict::Ok);
        assert_eq!(ready(true, true, "0.0.0").verdict, Verdict::Warn);
        let broken = ready(false, false, own);
        assert_eq!(broken.verdict, Verdict::Fail);
        assert!(broken.detail.contains("disk") && broken.detail.contains("engine"), "{}", broken.detail);
    }
}
