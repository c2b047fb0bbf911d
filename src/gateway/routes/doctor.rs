//! `/api/doctor`: looks at everything that can be wrong, changes nothing and costs nothing.

use std::time::Duration;

use axum::Json;
use axum::extract::State;
use serde::Serialize;
use serde_json::{Value, json};

use super::{in_time, on_disk};
use crate::domain::Provider;
use crate::gateway::auth::Paired;
use crate::gateway::channels;
use crate::gateway::config::Config;
use crate::gateway::config_file::Notes;
use crate::gateway::reply::Refusal;
use crate::gateway::shared::App;

/// A provider that does not list its models in this time counts as away.
const REACH: Duration = Duration::from_secs(10);

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Severity {
    Ok,
    Warn,
    Error,
}

#[derive(Debug, Serialize)]
struct Finding {
    severity: Severity,
    category: &'static str,
    message: String,
}

fn finding(severity: Severity, category: &'static str, message: impl Into<String>) -> Finding {
    Finding { severity, category, message: message.into() }
}

pub(super) async fn doctor(_: Paired, State(app): State<App>) -> Result<Json<Value>, Refusal> {
    let mut results = settings(&app.config(), &app.notes());
    results.extend(notes(&app.notes(), app.options().warnings()));
    results.extend(on_disk(&app, config_can_be_saved).await?);
    results.extend(on_disk(&app, disk).await?);
    results.push(in_time(&app, memory(&app)).await?);
    results.push(reach(&app).await);
    results.extend(channels(&app).await);
    let count = |severity| results.iter().filter(|finding| finding.severity == severity).count();
    let summary = json!({
        "ok": count(Severity::Ok), "warnings": count(Severity::Warn), "errors": count(Severity::Error)
    });
    Ok(Json(json!({ "results": results, "summary": summary })))
}

fn settings(config: &Config, notes: &Notes) -> Vec<Finding> {
    const CATEGORY: &str = "config";
    let broken = notes.broken.iter().map(|reason| finding(Severity::Error, CATEGORY, reason.clone()));
    let mut findings: Vec<Finding> = broken.collect();
    let needs_key = Provider::parse(config.provider()).is_ok_and(Provider::needs_key);
    match &config.api_key {
        None if needs_key => {
            findings.push(finding(Severity::Error, CATEGORY, format!("{} needs an API key", config.provider())));
        }
        // A key that cannot be read is among what is broken.
        None if !findings.is_empty() => {}
        _ => findings.push(finding(Severity::Ok, CATEGORY, "the API key is as the provider wants it")),
    }
    if !config.gateway.require_pairing {
        findings.push(finding(Severity::Warn, CATEGORY, "pairing is off: everyone who reaches the gateway may use it"));
    }
    for (name, off, words) in config.channels_config.findings() {
        let severity = if off { Severity::Error } else { Severity::Warn };
        findings.push(finding(severity, "channels", format!("{name} {words}")));
    }
    findings
}

/// What the file and the environment ask for and do not get.
fn notes(notes: &Notes, warnings: &[String]) -> Vec<Finding> {
    const CATEGORY: &str = "config";
    let off = notes.off.iter().chain(warnings).map(|note| finding(Severity::Warn, CATEGORY, note.clone()));
    let unknown = notes.unknown.iter();
    let unknown = unknown.map(|key| finding(Severity::Warn, CATEGORY, format!("{key} is not a key that is known")));
    let mut findings: Vec<Finding> = off.chain(unknown).collect();
    if !notes.harmless.is_empty() {
        let message =
            format!("these keys set nothing here, and nothing depends on them: {}", notes.harmless.join(", "));
        findings.push(finding(Severity::Ok, CATEGORY, message));
    }
    findings
}

/// Whether a pairing and a change of the settings would survive a restart.
fn config_can_be_saved(app: &App) -> Vec<Finding> {
    match app.config_file.can_be_saved() {
        Ok(()) => vec![],
        Err(error) => {
            let message = format!("config.toml cannot be written ({error}): new tokens are lost at the next start");
            vec![finding(Severity::Warn, "config", message)]
        }
    }
}

/// Asks each platform who we are.
async fn channels(app: &App) -> Vec<Finding> {
    let reports = channels::check(&app.http, &app.config().channels_config).await;
    let severity = |state| match state {
        channels::State::Good => Severity::Ok,
        channels::State::Doubtful => Severity::Warn,
        channels::State::Bad => Severity::Error,
    };
    reports.into_iter().map(|(state, words)| finding(severity(state), "channels", words)).collect()
}

fn disk(app: &App) -> Vec<Finding> {
    const CATEGORY: &str = "workspace";
    let workspace = app.workspace();
    let probe = workspace.join(".doctor");
    let writable = std::fs::create_dir_all(workspace).and_then(|()| std::fs::write(&probe, "probe"));
    let _ = std::fs::remove_file(&probe);
    let mut findings = vec![match writable {
        Ok(()) => finding(Severity::Ok, CATEGORY, "the workspace can be written to"),
        Err(error) => {
            finding(Severity::Error, CATEGORY, format!("the workspace cannot be written to: {}", error.kind()))
        }
    }];
    findings.push(if workspace.join("IDENTITY.md").is_file() {
        finding(Severity::Ok, CATEGORY, "the agent has an identity")
    } else {
        finding(Severity::Warn, CATEGORY, "there is no IDENTITY.md: the agent has no name or character of its own")
    });
    findings.push(match app.jobs.list() {
        Ok(jobs) => finding(Severity::Ok, "cron", format!("{} jobs", jobs.len())),
        Err(error) => finding(Severity::Error, "cron", error.to_string()),
    });
    findings
}

async fn memory(app: &App) -> Finding {
    match app.memory.list(None, 1).await {
        Ok(_) => finding(Severity::Ok, "memory", format!("{} can be used", app.memory.name())),
        Err(error) => finding(Severity::Error, "memory", error.to_string()),
    }
}

/// Asks the model's server for its models: that costs nothing, and proves the address and the key.
async fn reach(app: &App) -> Finding {
    const CATEGORY: &str = "provider";
    let model = app.model();
    match tokio::time::timeout(REACH, model.check(&app.http)).await {
        Ok(Ok(models)) if models.is_empty() || models.iter().any(|known| is_same(known, model.name())) => {
            finding(Severity::Ok, CATEGORY, "the provider answers, and takes the key")
        }
        Ok(Ok(models)) => {
            let message = format!(
                "the provider answers, but {} is not among its {} models; check default_model",
                model.name(),
                models.len()
            );
            finding(Severity::Warn, CATEGORY, message)
        }
        // Not every compatible server lists its models.
        Ok(Err(error)) if matches!(error.status, Some(404 | 405 | 501)) => {
            finding(Severity::Warn, CATEGORY, format!("the list of models: {error}"))
        }
        Ok(Err(error)) => finding(Severity::Error, CATEGORY, error.to_string()),
        Err(_) => finding(Severity::Error, CATEGORY, "the provider does not answer in time"),
    }
}

/// Local servers add a tag to names that have none.
fn is_same(known: &str, wanted: &str) -> bool {
    known == wanted || known.strip_suffix(":latest") == Some(wanted)
}
