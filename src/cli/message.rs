//! `zeroone agent message`: on a terminal the answer comes in pieces, elsewhere whole.

use std::io::{IsTerminal as _, Read as _, Write as _};
use std::time::{Duration, Instant};

use clap::Args;
use serde_json::{Value, json};
use tokio_util::task::AbortOnDropHandle;

use super::client::{Client, streamed_problem};
use super::outcome::Failure;
use super::output::{self, plain};

#[derive(Debug, Args)]
pub(super) struct MessageArgs {
    pub(super) agent: String,
    /// `-` reads it from standard input.
    #[arg(required = true)]
    text: Vec<String>,
    /// The conversation that it belongs to: the agent keeps what was said in it.
    #[arg(long, value_name = "NAME")]
    session: Option<String>,
}

/// Longest time that a message may take: what the service may be configured to hold and to wait for.
const PATIENCE: Duration = Duration::from_secs(3720);
/// As much as is read from standard input, in bytes: more than the service takes of a message.
const INPUT: u64 = 1 << 20;
const TICK: Duration = Duration::from_secs(1);

/// Sends it to the agent at this path.
pub(super) async fn send(args: &MessageArgs, client: &Client, path: &str) -> Result<(), Failure> {
    let mut body = json!({ "message": text(&args.text)? });
    if let Some(session) = &args.session {
        body["session"] = session.as_str().into();
    }
    let waiting = Waiting::begin();
    if client.output.json || !std::io::stdout().is_terminal() {
        let answer = client.post_within(path, &body, PATIENCE).await;
        drop(waiting);
        return if client.output.json { output::json(&answer?) } else { said(&answer?) };
    }
    streamed(client, path, &body, waiting).await
}

fn text(words: &[String]) -> Result<String, Failure> {
    if words != ["-"] {
        return Ok(words.join(" "));
    }
    let mut text = String::new();
    let read = std::io::stdin().lock().take(INPUT).read_to_string(&mut text);
    read.map_err(|error| Failure::Usage(format!("cannot read the message from standard input: {error}")))?;
    Ok(text.trim_end().to_owned())
}

async fn streamed(client: &Client, path: &str, body: &Value, waiting: Waiting) -> Result<(), Failure> {
    let (mut waiting, mut end) = (Some(waiting), None);
    client
        .post_events(path, body, PATIENCE, |kind, data| {
            match kind {
                "delta" => {
                    waiting = None;
                    print(data["text"].as_str().unwrap_or_default());
                }
                "done" => end = Some(Ok(())),
                "error" => end = Some(Err(data)),
                _ => {}
            }
            end.is_none()
        })
        .await?;
    let begun = waiting.is_none();
    drop(waiting);
    if begun {
        output::line("");
    }
    match end {
        Some(Ok(())) => Ok(()),
        Some(Err(problem)) => Err(streamed_problem(&problem)),
        None => Err(Failure::said("the answer broke off")),
    }
}

/// A piece of the agent's words. Line breaks are its own; nothing else may command the terminal.
fn print(piece: &str) {
    let text = piece.split('\n').map(plain).collect::<Vec<_>>().join("\n");
    let mut stdout = std::io::stdout().lock();
    let _ = stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush());
}

/// The agent's words, as every gateway of this kind has them; else the whole answer.
fn said(answer: &Value) -> Result<(), Failure> {
    match answer["response"].as_str() {
        Some(text) => text.lines().for_each(|line| output::line(&plain(line))),
        None => return output::json(answer),
    }
    Ok(())
}

/// A line on a terminal that tells that the agent is at work; gone when dropped.
struct Waiting(Option<AbortOnDropHandle<()>>);

impl Waiting {
    fn begin() -> Self {
        let shown = std::io::stderr().is_terminal();
        Self(shown.then(|| AbortOnDropHandle::new(tokio::spawn(tell()))))
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        if self.0.take().is_some() {
            let _ = write!(std::io::stderr(), "\r\u{1b}[K");
        }
    }
}

async fn tell() {
    let began = Instant::now();
    loop {
        tokio::time::sleep(TICK).await;
        let _ = write!(std::io::stderr(), "\rwaiting for the answer, {} s", began.elapsed().as_secs());
    }
}
