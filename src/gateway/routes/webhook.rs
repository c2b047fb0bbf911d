//! `POST /webhook`: one message, one answer, no tools and no history.

use std::time::Instant;

use axum::Json;
use axum::extract::State;
use serde::Deserialize;
use serde_json::{Value, json};

use super::in_time;
use crate::gateway::auth::Paired;
use crate::gateway::body::Limited;
use crate::gateway::client::Client;
use crate::gateway::persona;
use crate::gateway::provider::{Message, Turn};
use crate::gateway::reply::Refusal;
use crate::gateway::shared::App;

const EXPECTED: &str = "Invalid JSON body. Expected: {\"message\": \"...\"}";

#[derive(Deserialize)]
struct Prompt {
    message: String,
}

/// Counted before anything else, so that a stranger cannot make us hash tokens and read bodies all day.
pub(super) struct Admitted;

impl axum::extract::FromRequestParts<App> for Admitted {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut axum::http::request::Parts, app: &App) -> Result<Self, Refusal> {
        let Ok(client) = Client::from_request_parts(parts, app).await;
        app.webhook_limit.admit(client.key(), Instant::now()).map_err(Refusal::TooManyMessages)?;
        Ok(Self)
    }
}

pub(super) async fn webhook(
    State(app): State<App>,
    _: Admitted,
    _: Paired,
    body: Limited,
) -> Result<Json<Value>, Refusal> {
    // ZeroClaw answers 400 to a missing content type here, and 415 elsewhere.
    let prompt: Prompt = body.json(EXPECTED).map_err(|_| Refusal::BadBody(EXPECTED))?;
    in_time(&app, answer(&app, prompt.message)).await?
}

async fn answer(app: &App, message: String) -> Result<Json<Value>, Refusal> {
    let model = app.model();
    let system = persona::system_prompt(app.workspace()).await;
    let turn = Turn { messages: vec![Message::System(system), Message::User(message)], ..Turn::default() };
    match model.complete(&app.http, &turn).await {
        Ok(completion) => Ok(Json(json!({ "model": model.name(), "response": completion.text }))),
        Err(error) => {
            tracing::error!(error = &error as &dyn std::error::Error, model = model.name(), "model call failed");
            Err(Refusal::ModelFailed)
        }
    }
}
