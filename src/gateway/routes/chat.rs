//! `POST /api/chat`: the agent with its tools.

use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use serde::Deserialize;
use serde_json::{Value, json};

use super::webhook::{Admitted, not_blank, session};
use crate::gateway::agent::{self, Ask, Source};
use crate::gateway::auth::Paired;
use crate::gateway::body::Limited;
use crate::gateway::conversation;
use crate::gateway::memory::Owner;
use crate::gateway::provider::Message;
use crate::gateway::reply::Refusal;
use crate::gateway::shared::App;

/// A conversation is longer than a message.
pub(super) const BODY_LIMIT: usize = 512 << 10;
const EXPECTED: &str = "Invalid JSON body. Expected: {\"message\": \"...\", \"context\": [...]}";

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Chat {
    message: String,
    /// What was said before, oldest first.
    context: Option<Vec<Said>>,
}

/// An earlier message: a text, which the user said, or one with its role.
#[derive(Deserialize)]
#[serde(untagged)]
enum Said {
    Text(String),
    Message { role: Role, content: String },
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum Role {
    System,
    User,
    Assistant,
}

impl From<Said> for Message {
    fn from(said: Said) -> Self {
        match said {
            Said::Text(text) | Said::Message { role: Role::User, content: text } => Self::user(text),
            Said::Message { role: Role::System, content } => Self::system(content),
            Said::Message { role: Role::Assistant, content } => Self::assistant(content),
        }
    }
}

pub(super) async fn chat(
    State(app): State<App>,
    _: Admitted,
    _: Paired,
    body: Limited<BODY_LIMIT>,
) -> Result<Response, Refusal> {
    let chat: Chat = body.json(EXPECTED)?;
    not_blank(&chat.message)?;
    let session = session(&body.headers).map(str::to_owned);
    let answered =
        app.idempotency.answer("/api/chat", &body.headers, &body.bytes, answer(app.clone(), session, chat)).await?;
    Ok(answered.into_response())
}

async fn answer(app: App, session: Option<String>, chat: Chat) -> Result<Value, Refusal> {
    let mut conversation: Vec<Message> = chat.context.into_iter().flatten().map(Message::from).collect();
    conversation.push(Message::user(chat.message));
    let ask = Ask { conversation, ..Ask::new(Source::Chat, "") };
    let answer = match &session {
        Some(id) => conversation::answer(&app, id, Ask { owner: Owner::session(id), ..ask }).await?,
        None => agent::answer(&app, ask).await?,
    };
    let used: Vec<Value> =
        answer.used.iter().map(|(name, success)| json!({ "name": name, "success": success })).collect();
    Ok(json!({
        "reply": answer.text,
        "response": answer.text,
        "model": answer.model,
        "tool_calls": used,
        "usage": answer.usage,
        "cost_usd": answer.cost_usd,
    }))
}
