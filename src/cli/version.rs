//! `zeroone version`: which program this is, and which one the service runs.

use serde_json::{Value, json};

use super::client::Client;
use super::outcome::Failure;
use super::output::{self, cell, line, plain};

/// A service that does not answer is no failure: the program's own version was asked for, too.
pub(super) async fn run(client: &Client) -> Result<(), Failure> {
    let own = env!("CARGO_PKG_VERSION");
    let service = client.look("/readyz?verbose").await;
    let details = service.as_ref().map(|ready| &ready["details"]).unwrap_or(&Value::Null);
    if client.output.json {
        let service =
            json!({ "url": client.url(), "version": details["version"], "runtime": details["runtime"]["name"] });
        return output::json(&json!({ "program": own, "service": service }));
    }
    line(&format!("zeroone {own}"));
    line(&match &service {
        Ok(_) if details["version"].is_string() => format!(
            "the service at {}: zeroone {}, agents run as: {}",
            plain(client.url()),
            cell(&details["version"]),
            cell(&details["runtime"]["name"])
        ),
        Ok(_) => format!("the service at {} does not tell its version", plain(client.url())),
        Err(failure) => format!("no service: {failure}"),
    });
    Ok(())
}
