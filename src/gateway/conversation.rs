//! A message of a session: answered with what was said before, one at a time, and kept with its answer.

use super::agent::{self, AgentError, Answer, Ask};
use super::sessions::{SessionError, Sessions};
use super::shared::App;
use crate::domain::Timestamp;

/// Answers the last message of `ask` in the session `id`.
///
/// # Errors
/// Those of [`agent::answer`]. A disk that fails costs the history, not the answer.
pub(super) async fn answer(app: &App, id: &str, mut ask: Ask) -> Result<Answer, AgentError> {
    let _turn = app.sessions.turn(id).await;
    let question = ask.conversation.last().cloned();
    let name = id.to_owned();
    let history = on_disk(app, move |sessions| sessions.history(&name)).await.unwrap_or_default();
    let earlier = history.len();
    ask.conversation.splice(0..0, history);
    let answer = agent::answer(app, ask).await?;
    let Some(question) = question.filter(|_| !answer.text.trim().is_empty()) else { return Ok(answer) };
    let (name, said, left_out) = (id.to_owned(), [question, answer.message()], answer.left_out);
    on_disk(app, move |sessions| {
        if left_out > 0 {
            sessions.shorten(&name, earlier.saturating_sub(left_out))?;
        }
        sessions.add(&name, &said, Timestamp::now())
    })
    .await;
    Ok(answer)
}

/// Work on the disk; a failure is in the log and in `/health`.
pub(super) async fn on_disk<T: Send + 'static>(
    app: &App,
    work: impl FnOnce(&Sessions) -> Result<T, SessionError> + Send + 'static,
) -> Option<T> {
    let worker = app.clone();
    match tokio::task::spawn_blocking(move || work(&worker.sessions)).await.ok()? {
        Ok(done) => {
            app.health.ok("sessions");
            Some(done)
        }
        Err(error) => {
            tracing::error!(error = &error as &dyn std::error::Error, "a session cannot be read or kept");
            app.health.error("sessions", &error.to_string());
            None
        }
    }
}
