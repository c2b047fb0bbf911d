//! `/api/config`: the settings, without their secrets.

use axum::Json;
use axum::extract::State;
use serde_json::{Value, json};

use super::on_disk;
use crate::gateway::auth::Paired;
use crate::gateway::body::Limited;
use crate::gateway::config_env;
use crate::gateway::config_file::{self, RewriteError};
use crate::gateway::config_view::{mask, unmask};
use crate::gateway::recipients;
use crate::gateway::reply::Refusal;
use crate::gateway::shared::App;

const BODY_LIMIT: usize = 1 << 20;

pub(super) async fn show(_: Paired, State(app): State<App>) -> Result<Json<Value>, Refusal> {
    let mut document = on_disk(&app, |app| app.config_file.document()).await?.map_err(|error| {
        tracing::error!(error = &error as &dyn std::error::Error, "cannot show config.toml");
        Refusal::SettingsFile(error.told())
    })?;
    mask(&mut document);
    Ok(Json(json!({ "format": "toml", "content": document.to_string() })))
}

/// Takes a whole `config.toml`. A masked secret stays as it was, unless it would go to another server, and so do the paired
/// tokens: a dashboard must not lock its own owner out.
pub(super) async fn replace(
    _: Paired,
    State(app): State<App>,
    body: Limited<BODY_LIMIT>,
) -> Result<Json<Value>, Refusal> {
    let text = String::from_utf8(body.bytes.to_vec()).map_err(|_| Refusal::BadBody("Invalid TOML: not UTF-8"))?;
    let restart = on_disk(&app, move |app| rewrite(app, &text)).await?.map_err(|error| match error {
        RewriteError::Refused(reason) => Refusal::Unusable(format!("Invalid config: {reason}")),
        RewriteError::Edit(error) => {
            tracing::error!(error = &error as &dyn std::error::Error, "cannot save config.toml");
            Refusal::SettingsFile(format!("Failed to save config: {}", error.told()))
        }
    })?;
    app.events.publish("config", json!({ "restart_required": restart }));
    Ok(Json(json!({ "status": "ok", "restart_required": restart })))
}

fn rewrite(app: &App, sent: &str) -> Result<Vec<&'static str>, RewriteError> {
    let mut taken = None;
    app.config_file.rewrite(|current| {
        let mut document = config_file::parse_document(sent)?;
        if document.is_empty() && !current.is_empty() {
            return Err("the file is empty, which would remove the key and all channels".into());
        }
        unmask(&mut document, current);
        let tokens: toml_edit::Array = app.pairing.stored_tokens().into_iter().collect();
        if !tokens.is_empty() {
            document["gateway"].or_insert(toml_edit::table())["paired_tokens"] = toml_edit::value(tokens);
        }
        let text = document.to_string();
        no_new_variables(&text, &current.to_string())?;
        let loaded = config_file::effective(&text, app.options())?;
        if !loaded.config.may_bind() {
            return Err("gateway.host is reachable from other machines, and allow_public_bind is not set".into());
        }
        if let Some(key) = recipients::moved(&app.config(), &loaded.config, sent) {
            return Err(format!("{key} must be written again, because it would be sent to another server than before"));
        }
        taken = Some(loaded);
        Ok(document)
    })?;
    let Some(new) = taken else { return Ok(vec![]) };
    let restart = app.config().needs_restart(&new.config);
    app.replace_config(new);
    Ok(restart)
}

/// A text may name a variable of the environment only where the file on the machine named it before: who may change the
/// settings from outside must not read what else the environment holds.
fn no_new_variables(new: &str, current: &str) -> Result<(), String> {
    // By the texts as they are read, not as they are written: TOML has other ways to write a dollar sign.
    let names = |text: &str| text.parse::<toml::Table>().map(|document| config_env::names(&document));
    let known = names(current).unwrap_or_default();
    let named = names(new).map_err(|_| "it is not TOML")?;
    match named.into_iter().find(|name| !known.contains(name)) {
        Some(name) => Err(format!("the variable {name} can only be named in the file on the machine")),
        None => Ok(()),
    }
}
