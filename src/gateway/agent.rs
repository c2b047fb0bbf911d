//! How an answer is made: the conversation is put to the model, tools are run as it wishes, until it has an answer.
//!
//! ```text
//! Ask ──► system prompt + memories ──► model ──► text? ──► Answer
//!                                        ▲         │ tool calls
//!                                        └── results ◄── tools (bounded rounds; in the last none are offered)
//! ```

mod answer;
mod ask;

use std::time::{Duration, Instant};

use serde_json::{Map, json};
use tokio::sync::mpsc;

pub(super) use self::answer::{AgentError, Answer, Progress};
pub(super) use self::ask::{Ask, Source, Tools};
use super::context;
use super::cost::{self, LimitReached};
use super::memory::{Kind, Note, Owner};
use super::persona::{self, head};
use super::provider::{Completion, Message, Model, ModelError, ToolCall, Turn, Usage};
use super::shared::App;
use super::tools;
use crate::domain::Timestamp;

/// Share of a spending limit at which a warning is written, as in ZeroClaw.
const WARN_AT_PERCENT: f64 = 80.0;
/// Calls that are run of one round; a model that wants more is confused.
const CALLS_PER_ROUND: usize = 16;

/// After this long without an answer those who wait hear that the model is at work, and again each time.
const SIGN_OF_LIFE: Duration = Duration::from_secs(10);

/// Answers, and keeps the books: events, cost, metrics and, if wished, memory.
///
/// # Errors
/// See [`AgentError`]; it has been logged and published.
pub(super) async fn answer(app: &App, ask: Ask) -> Result<Answer, AgentError> {
    let config = app.config();
    let source = ask.source.as_str();
    let question = last_user_message(&ask.conversation).to_owned();
    app.events.message(source, "user", &question);
    if config.memory.auto_save && is_worth_keeping(ask.source, &question) {
        remember(app, source, ask.owner.clone(), &question).await;
    }
    let (limit, setting) = config.answer_limit(!matches!(ask.tools, Tools::None));
    let deadline = Instant::now() + limit;
    let result = match tokio::time::timeout(limit, work(app, ask, &question, deadline)).await {
        Ok(result) => result,
        Err(_) => Err(AgentError::TookTooLong { limit, setting }),
    };
    match &result {
        Ok(answer) => app.events.message(source, "assistant", &answer.text),
        Err(error) => {
            tracing::error!(error = error as &dyn std::error::Error, source, "no answer");
            app.metrics.answer_failed(error.code());
            app.events.publish(
                "error",
                json!({ "component": "agent", "message": error.to_string(), "model": error.model_json() }),
            );
        }
    }
    result
}

async fn work(app: &App, ask: Ask, question: &str, deadline: Instant) -> Result<Answer, AgentError> {
    let config = app.config();
    let model = app.model().tuned(&ask.tuning, &config);
    let mut system = persona::system_prompt(app.workspace()).await;
    if matches!(ask.tools, Tools::Own) {
        system += &memories(app, &ask.owner, question).await;
    }
    // What a client sends whole is put whole; what the gateway remembers has a bound.
    let remembered = !matches!(ask.source, Source::OpenAi);
    let own = matches!(ask.tools, Tools::Own);
    let mut turn = Turn {
        messages: vec![Message::system(system)],
        own_tools: own,
        max_tokens: ask.tuning.max_tokens.or(config.provider_max_tokens),
        max_tokens_name: if ask.tuning.newer_limit_name { "max_completion_tokens" } else { "max_tokens" },
        options: ask.tuning.options,
        deadline: Some(deadline),
        ..Turn::default()
    };
    let whole = ask.conversation.len();
    turn.messages.extend(if remembered {
        context::fit(ask.conversation, config.agent.max_context_tokens, config.agent.max_history_messages)
    } else {
        ask.conversation
    });
    // Without the system's own message.
    let too_old = whole + 1 - turn.messages.len();
    turn.tools = match ask.tools {
        Tools::None => vec![],
        Tools::Own => tools::specs(&config, &ask.owner),
        Tools::Callers(specs) => specs,
    };
    let mut answer = Answer { model: model.name().to_owned(), ..Answer::default() };
    let mut rounds_left = config.agent.max_tool_iterations;
    loop {
        turn.must_answer = own && rounds_left == 0;
        rounds_left = rounds_left.saturating_sub(1);
        let completion = match call(app, &model, &turn, ask.progress.as_ref()).await {
            // The oldest half goes, as often as it takes: an answer to less is better than none.
            Err(AgentError::Model(error)) if remembered && error.is_too_long() => {
                let Some(shorter) = context::shorten(&turn.messages) else { return Err(error.into()) };
                answer.left_out = answer.left_out.max(too_old) + turn.messages.len() - shorter.len();
                tracing::warn!(
                    left_out = answer.left_out,
                    "the model calls the conversation too long; it is shortened"
                );
                turn.messages = shorter;
                continue;
            }
            other => other?,
        };
        answer.add(&completion, cost::dollars(completion.usage, cost::price(&config, &completion.model)));
        let mut said = completion.message;
        if !own || said.tool_calls.is_empty() || turn.must_answer {
            // A call of what was not on offer cannot be run, and what text there is must do.
            if own && said.text.trim().is_empty() {
                return Err(ModelError::only_calls(&said.from).into());
            }
            answer.text = said.text;
            answer.cut = completion.cut;
            answer.model = completion.model;
            answer.extra = if own && !said.tool_calls.is_empty() { Map::new() } else { said.extra };
            answer.from = said.from;
            answer.tool_calls = if own { vec![] } else { said.tool_calls };
            return Ok(answer);
        }
        let asked = said.tool_calls.len();
        said.tool_calls.truncate(CALLS_PER_ROUND);
        if asked > CALLS_PER_ROUND {
            // Kept members name all calls, and each of them would want a result.
            said.extra.clear();
        }
        let calls = said.tool_calls.clone();
        turn.messages.push(Message::Assistant(said));
        for call in calls {
            let outcome = run_tool(app, &ask.owner, &call, ask.progress.as_ref()).await;
            answer.used.push((call.name, outcome.success));
            turn.messages.push(Message::ToolResult { call_id: call.id, content: outcome.output });
        }
    }
}

/// One call of the model, with its entry in the books.
async fn call(
    app: &App,
    model: &Model,
    turn: &Turn,
    progress: Option<&mpsc::Sender<Progress>>,
) -> Result<Completion, AgentError> {
    let _under_way = begin(app).await?;
    let started = Instant::now();
    let result = {
        let complete = async {
            match progress {
                None => model.complete(&app.http, &app.learned, turn, None).await,
                Some(progress) => streamed(app, model, turn, progress).await,
            }
        };
        tokio::pin!(complete);
        loop {
            match tokio::time::timeout(SIGN_OF_LIFE, &mut complete).await {
                Ok(result) => break result,
                Err(_) => still_thinking(app, model, started.elapsed().as_secs(), progress).await,
            }
        }
    };
    let took = started.elapsed();
    let label = app.config().model_label(result.as_ref().map_or(model.name(), |completion| &completion.model));
    app.metrics.model_call(&label, result.as_ref().map(|completion| completion.usage).ok(), took);
    let usage = result.as_ref().map(|completion| completion.usage).unwrap_or_default();
    app.events.publish(
        "llm_request",
        json!({
            "model": model.name(), "success": result.is_ok(), "duration_ms": took.as_millis() as u64,
            "input_tokens": usage.input_tokens, "output_tokens": usage.output_tokens,
        }),
    );
    if result.is_ok() {
        book(app, &label, usage).await;
    }
    result.map_err(AgentError::from)
}

/// A call that counts towards the spending limits until it has ended.
struct UnderWay(App);

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.costs.end();
    }
}

/// Lets a call begin, unless a spending limit is reached.
async fn begin(app: &App) -> Result<Option<UnderWay>, LimitReached> {
    let limits = app.config().spending_limits();
    if limits == (None, None) {
        return Ok(None);
    }
    let looker = app.clone();
    // A disk that cannot be read is no reason to spend without limit, nor one to answer nothing: the sums in memory count.
    let begun = tokio::task::spawn_blocking(move || looker.costs.begin(limits, &today())).await;
    begun.unwrap_or(Ok(()))?;
    Ok(Some(UnderWay(app.clone())))
}

/// Tells those who wait that the model is still at work.
async fn still_thinking(app: &App, model: &Model, seconds: u64, progress: Option<&mpsc::Sender<Progress>>) {
    app.events.publish("thinking", json!({ "model": model.name(), "seconds": seconds }));
    if let Some(progress) = progress {
        // A reader that is behind has something to read.
        let _ = progress.try_send(Progress::Thinking { seconds });
    }
}

async fn streamed(
    app: &App,
    model: &Model,
    turn: &Turn,
    progress: &mpsc::Sender<Progress>,
) -> Result<Completion, ModelError> {
    /// Pieces in flight between the model and a slow reader.
    const IN_FLIGHT: usize = 32;
    let (deltas, mut pieces) = mpsc::channel(IN_FLIGHT);
    let complete = async move { model.complete(&app.http, &app.learned, turn, Some(&deltas)).await };
    let forward = async {
        while let Some(piece) = pieces.recv().await {
            let _ = progress.send(Progress::Text(piece)).await;
        }
    };
    tokio::join!(complete, forward).0
}

async fn run_tool(
    app: &App,
    owner: &Owner,
    call: &ToolCall,
    progress: Option<&mpsc::Sender<Progress>>,
) -> tools::Outcome {
    app.events.publish("tool_call_start", json!({ "tool": call.name }));
    if let Some(progress) = progress {
        let _ = progress.send(Progress::ToolCall(call.clone())).await;
    }
    let started = Instant::now();
    let outcome = tools::run(app, owner, call).await;
    app.metrics.tool_call(&call.name, outcome.success);
    app.events.publish(
        "tool_call",
        json!({
            "tool": call.name, "success": outcome.success, "duration_ms": started.elapsed().as_millis() as u64
        }),
    );
    if let Some(progress) = progress {
        let result =
            Progress::ToolResult { name: call.name.clone(), output: outcome.output.clone(), success: outcome.success };
        let _ = progress.send(result).await;
    }
    outcome
}

/// Writes the cost down. The answer does not wait for the disk, unless there is a limit that the next call must know of.
async fn book(app: &App, model: &str, usage: Usage) {
    let config = app.config();
    let price = cost::price(&config, model);
    let limits = config.spending_limits();
    app.events.publish("cost", json!({ "model": model, "cost_usd": cost::dollars(usage, price) }));
    let (worker, model) = (app.clone(), model.to_owned());
    let percent = config.cost.warn_at_percent.unwrap_or(WARN_AT_PERCENT);
    let write = async move {
        let add = move || {
            let added = worker.costs.add(today(), &model, usage, price);
            (added, worker.costs.warn_at(percent, limits, &today()))
        };
        match tokio::task::spawn_blocking(add).await {
            Ok((Err(error), _)) => tracing::error!(%error, "cannot write the cost of a call down"),
            Ok((_, Some(share))) => tracing::warn!("{share:.0} % of a spending limit are spent"),
            _ => {}
        }
    };
    if limits == (None, None) { app.background.run(write).await } else { write.await }
}

/// Today in UTC, `YYYY-MM-DD`.
pub(super) fn today() -> String {
    Timestamp::now().strftime("%Y-%m-%d").to_string()
}

/// Whether a message is something that a person said. A prompt of the schedule is not, nor is what chat clients ask for
/// themselves (a title, tags, follow-up questions): kept, they would come back in place of what was said.
fn is_worth_keeping(source: Source, text: &str) -> bool {
    /// How the task prompts of Open WebUI and its relatives begin, in lower case.
    const TASKS: [&str; 4] = ["### task:", "# task:", "<chat_history>", "### chat history:"];
    let start = head(text.trim_start(), 200).to_lowercase();
    let is_task = TASKS.iter().any(|task| start.starts_with(task)) || text.contains("<chat_history>");
    !text.trim().is_empty() && source != Source::Cron && !is_task
}

/// Keeps a message without making its answer wait for the disk.
async fn remember(app: &App, source: &str, owner: Owner, text: &str) {
    let note = Note::said(source, owner, text);
    let worker = app.clone();
    let store = async move {
        match worker.memory.store(note).await {
            Ok(()) => worker.health.ok("memory"),
            Err(error) => {
                tracing::error!(error = &error as &dyn std::error::Error, "cannot remember a message");
                worker.health.error("memory", &error.to_string());
            }
        }
    };
    app.background.run(store).await;
}

/// What the agent remembers that has to do with the question, as a part of the system prompt.
async fn memories(app: &App, owner: &Owner, question: &str) -> String {
    let found = app.memory.for_answer(question, owner).await.unwrap_or_else(|error| {
        tracing::warn!(error = &error as &dyn std::error::Error, "cannot recall");
        vec![]
    });
    let line = |entry: &super::memory::Entry| match entry.kind {
        Kind::Said => format!("- Said before: {}", entry.content),
        Kind::Told | Kind::Made => format!("- {}: {}", entry.key, entry.content),
    };
    let lines: Vec<String> = found.iter().map(line).collect();
    if lines.is_empty() { String::new() } else { format!("\n\nWhat you remember:\n{}", lines.join("\n")) }
}

fn last_user_message(conversation: &[Message]) -> &str {
    conversation.iter().rev().find_map(Message::question).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prompts_of_the_schedule_and_of_clients_for_themselves_are_not_kept() {
        let task = "### Task:\nGenerate a concise title\n<chat_history>\nUSER: hi\n</chat_history>";
        assert!(!is_worth_keeping(Source::Cron, "check the deploy window"));
        assert!(!is_worth_keeping(Source::OpenAi, task));
        assert!(!is_worth_keeping(Source::Chat, "  ### TASK: suggest follow-up questions"));
        assert!(!is_worth_keeping(Source::Chat, " \n"));
        assert!(is_worth_keeping(Source::OpenAi, "How do I water a cactus?"));
        assert!(is_worth_keeping(Source::Telegram, "my task: buy milk"));
    }
}
