//! `zeroone doctor`: looks at everything that a service needs, and says for each thing that is wrong what to do.
//!
//! It changes nothing and needs no service: without one it checks what the next start will meet.

mod machine;
mod models;
mod service;

use clap::Args;
use serde_json::{Value, json};

use super::Environment;
use super::client::Client;
use super::engine::{self, Engine};
use super::outcome::Failure;
use super::output::Column;
use super::settings::{InstallationArgs, load};
use crate::config::Config;
use crate::domain::InstallationId;
use crate::runtime::Caps;

#[derive(Debug, Args)]
pub(super) struct DoctorArgs {
    #[command(flatten)]
    place: InstallationArgs,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Verdict {
    Ok,
    /// It works, and may not for long.
    Warn,
    Fail,
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Finding {
    check: String,
    verdict: Verdict,
    /// What is so, and where something is wrong, what to do.
    detail: String,
}

const FINDINGS: [Column; 3] = [("CHECK", "check"), ("RESULT", "result"), ("DETAIL", "detail")];

pub(super) async fn run(args: &DoctorArgs, client: Client, environment: &Environment) -> Result<(), Failure> {
    let output = client.output;
    let mut findings = Vec::new();
    match load(&args.place.file, environment, &args.place.flags()?) {
        Ok(loaded) => {
            findings.push(match loaded.warnings() {
                [] => Finding::ok("configuration", "it can be used"),
                warnings => Finding::warn("configuration", warnings.join("; ")),
            });
            let config = &loaded.config;
            let client = client.or_key_in(&config.data);
            findings.extend(machine::look(&loaded));
            let running = service::look(&client, config).await;
            findings.extend(running.findings);
            findings.extend(runtime(config, environment).await);
            findings.extend(models::look(&client, running.answers).await);
        }
        Err(failure) => findings.push(Finding::fail("configuration", failure.to_string())),
    }
    output.many(&FINDINGS, &findings.iter().map(Finding::row).collect::<Vec<_>>())?;
    match findings.iter().filter(|finding| finding.verdict == Verdict::Fail).count() {
        0 => Ok(()),
        failed => Err(Failure::said(format!("{failed} of {} checks failed", findings.len()))),
    }
}

/// Whether what runs the agents answers, and what keeps them from the rest of the machine.
async fn runtime(config: &Config, environment: &Environment) -> Vec<Finding> {
    const CHECK: &str = "engine";
    // Whose instances are asked for does not matter to whether somebody answers.
    match engine::peek(config, InstallationId::new(), environment).await {
        Ok(Engine { runtime, why, .. }) => {
            let caps = runtime.caps();
            let name = caps.name;
            let answers = match runtime.ping().await {
                Ok(()) => Finding::ok(CHECK, format!("agents run as: {name} ({why})")),
                Err(error) => Finding::fail(
                    CHECK,
                    format!("{name} does not answer: {error}; start it, and check that this user may use it"),
                ),
            };
            vec![answers, walls(&caps)]
        }
        Err(error) => vec![Finding::fail(CHECK, format!("{error:#}"))],
    }
}

/// As a service would have them that this user starts here.
fn walls(caps: &Caps) -> Finding {
    let standing = caps.walls.join(", ");
    let missing: Vec<String> = caps.missing_walls.iter().map(|(wall, why)| format!("{wall} ({why})")).collect();
    if missing.is_empty() {
        return Finding::ok("walls round agents", standing);
    }
    Finding::warn("walls round agents", format!("{standing}; missing: {}", missing.join(", ")))
}

impl Finding {
    fn new(check: impl Into<String>, verdict: Verdict, detail: impl Into<String>) -> Self {
        Self { check: check.into(), verdict, detail: detail.into() }
    }

    fn ok(check: impl Into<String>, detail: impl Into<String>) -> Self {
        Self::new(check, Verdict::Ok, detail)
    }

    fn warn(check: impl Into<String>, detail: impl Into<String>) -> Self {
        Self::new(check, Verdict::Warn, detail)
    }

    fn fail(check: impl Into<String>, detail: impl Into<String>) -> Self {
        Self::new(check, Verdict::Fail, detail)
    }

    fn row(&self) -> Value {
        let result = match self.verdict {
            Verdict::Ok => "ok",
            Verdict::Warn => "warn",
            Verdict::Fail => "FAIL",
        };
        json!({ "check": self.check, "result": result, "detail": self.detail })
    }
}
