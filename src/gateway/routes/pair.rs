//! `POST /pair`: a one-time code for a bearer token. `POST /api/pairing/initiate`, by a paired client, and
//! `POST /admin/paircode/new`, by a command on this machine: a new code, for one more device.

use std::time::Instant;

use axum::Json;
use axum::extract::State;
use axum::http::HeaderMap;
use serde_json::{Value, json};

use super::on_disk;
use crate::gateway::auth::Paired;
use crate::gateway::client::Client;
use crate::gateway::local;
use crate::gateway::pairing::{Attempt, CODE_LIFETIME};
use crate::gateway::reply::Refusal;
use crate::gateway::shared::App;

const SAVED: &str = "Save this token — use it as Authorization: Bearer <token>";
const NOT_SAVED: &str = "Paired for this process, but failed to persist token to config.toml. Check config path and \
                         write permissions.";

pub(super) async fn pair(State(app): State<App>, client: Client, headers: HeaderMap) -> Result<Json<Value>, Refusal> {
    let now = Instant::now();
    app.pair_limit.admit(client.key(), now).map_err(Refusal::TooManyPairings)?;
    let code = headers.get("x-pairing-code").and_then(|code| code.to_str().ok()).unwrap_or_default();
    let token = match app.pairing.attempt(code, client.key(), now) {
        Attempt::Paired(token) => token,
        Attempt::Refused => {
            tracing::warn!(client = %client.address, "pairing refused: wrong code");
            return Err(Refusal::WrongCode);
        }
        Attempt::LockedOut(wait) => {
            tracing::warn!(client = %client.address, "pairing locked out: too many failures");
            return Err(Refusal::LockedOut(wait));
        }
    };
    let persisted = persist(app).await;
    tracing::info!(client = %client.address, persisted, "client paired");
    let message = if persisted { SAVED } else { NOT_SAVED };
    Ok(Json(json!({ "paired": true, "persisted": persisted, "token": token.expose(), "message": message })))
}

/// `POST /api/pairing/initiate`.
pub(super) async fn initiate(_: Paired, State(app): State<App>, client: Client) -> Result<Json<Value>, Refusal> {
    renew(&app, &client)
}

/// `POST /admin/paircode/new`: for whoever can write into the gateway's folder, see [`local`].
pub(super) async fn by_command(
    State(app): State<App>,
    client: Client,
    headers: HeaderMap,
) -> Result<Json<Value>, Refusal> {
    app.pair_limit.admit(client.key(), Instant::now()).map_err(Refusal::TooManyPairings)?;
    let secret = headers.get(local::HEADER).and_then(|secret| secret.to_str().ok()).unwrap_or_default().to_owned();
    let genuine = on_disk(&app, move |app| local::is_from_here(app.options().folder(), &secret)).await?;
    if !genuine || !client.address.to_canonical().is_loopback() {
        return Err(Refusal::Unauthorized);
    }
    renew(&app, &client)
}

fn renew(app: &App, client: &Client) -> Result<Json<Value>, Refusal> {
    let code = app.pairing.renew(Instant::now()).ok_or_else(|| Refusal::Unusable("Pairing is off".into()))?;
    tracing::info!(client = %client.address, "a new pairing code was made");
    Ok(Json(json!({
        "success": true,
        "pairing_code": code.expose(),
        "expires_in_secs": CODE_LIFETIME.as_secs(),
        "message": "Send it within ten minutes: POST /pair with header X-Pairing-Code",
    })))
}

/// Writes the token hashes to `config.toml`. A failure is not the client's fault: its token works until the next start.
async fn persist(app: App) -> bool {
    let saved = tokio::task::spawn_blocking(move || {
        let tokens: toml_edit::Array = app.pairing.stored_tokens().into_iter().collect();
        app.config_file.edit(|document| {
            document["gateway"].or_insert(toml_edit::table())["paired_tokens"] = toml_edit::value(tokens);
        })
    });
    match saved.await {
        Ok(Ok(())) => true,
        Ok(Err(error)) => {
            tracing::error!(error = &error as &dyn std::error::Error, "cannot save the paired token to config.toml");
            false
        }
        Err(_) => false,
    }
}
