//! `zeroone login`, `logout` and `context`: services by name, so that no verb needs a URL or a key.

use std::io::{IsTerminal as _, Read as _, Write as _};

use clap::{Args, Subcommand};
use serde_json::json;

use super::Environment;
use super::client::{Client, Key};
use super::contexts::Contexts;
use super::outcome::Failure;
use super::output::{Column, Output, cell, line, plain};

/// Longest key that is read.
const LONGEST: u64 = 4096;

#[derive(Debug, Args)]
pub(super) struct LoginArgs {
    /// Where the service is, e.g. https://agents.example.org; by default where the other verbs would look.
    pub(super) service: Option<String>,
    /// What to call it; the URL's host by default.
    #[arg(long)]
    name: Option<String>,
}

#[derive(Debug, Subcommand)]
pub(super) enum ContextVerb {
    /// List them; the current one is marked.
    List,
    /// Make one the current one.
    Use { name: String },
}

const CONTEXTS: [Column; 3] = [("CURRENT", "current"), ("NAME", "name"), ("URL", "url")];

/// Checks the key with the service before it is kept.
pub(super) async fn login(args: LoginArgs, client: &Client, environment: &Environment) -> Result<(), Failure> {
    let key = match client.key() {
        Some(key) => key.text.clone(),
        None => ask_key(client.url())?,
    };
    let client = client.with_key(Key { text: key.clone(), origin: "the login".into() });
    let me = client.get("/api/me").await?;
    let name = args.name.unwrap_or_else(|| host_of(client.url()).to_owned());
    let mut contexts = Contexts::read(environment)?;
    contexts.put(&name, client.url(), &key);
    let file = contexts.write(environment)?;
    if client.output.json {
        return super::output::json(&json!({ "context": name, "url": client.url(), "email": me["email"] }));
    }
    let email = cell(&me["email"]);
    line(&format!("{email} at {}: kept as {} in {}", plain(client.url()), plain(&name), file.display()));
    Ok(())
}

pub(super) fn logout(name: Option<&str>, output: Output, environment: &Environment) -> Result<(), Failure> {
    let mut contexts = Contexts::read(environment)?;
    let current = contexts.current.clone();
    let name = name.or(current.as_deref()).ok_or_else(|| Failure::NotFound("there is no login".into()))?;
    if !contexts.remove(name) {
        return Err(Failure::NotFound(format!("no context is called {}", plain(name))));
    }
    contexts.write(environment)?;
    let said = format!("forgot {}; its key works until it is revoked (`zeroone key revoke`)", plain(name));
    output.done(&json!({ "context": name, "forgotten": true }), &said)
}

pub(super) fn context(verb: ContextVerb, output: Output, environment: &Environment) -> Result<(), Failure> {
    let mut contexts = Contexts::read(environment)?;
    match verb {
        ContextVerb::List => {
            let current = |name: &String| if contexts.current.as_ref() == Some(name) { "*" } else { "" };
            let rows = contexts.contexts.iter();
            let rows = rows.map(|(name, kept)| json!({ "current": current(name), "name": name, "url": kept.url }));
            output.many(&CONTEXTS, &rows.collect::<Vec<_>>())
        }
        ContextVerb::Use { name } => {
            let url = contexts.choose(Some(&name))?.map(|(_, context)| context.url.clone()).unwrap_or_default();
            contexts.current = Some(name.clone());
            contexts.write(environment)?;
            output.done(&json!({ "context": name, "url": url }), &format!("{} at {}", plain(&name), plain(&url)))
        }
    }
}

/// From a pipe, or typed without being shown.
fn ask_key(url: &str) -> Result<String, Failure> {
    let stdin = std::io::stdin();
    let mut key = String::new();
    if stdin.is_terminal() {
        let _ = write!(std::io::stderr(), "API key for {}: ", plain(url));
        let shown = rustix::termios::tcgetattr(&stdin).map_err(std::io::Error::from)?;
        let mut hidden = shown.clone();
        hidden.local_modes.remove(rustix::termios::LocalModes::ECHO);
        rustix::termios::tcsetattr(&stdin, rustix::termios::OptionalActions::Flush, &hidden)
            .map_err(std::io::Error::from)?;
        let typed = stdin.read_line(&mut key);
        let _ = rustix::termios::tcsetattr(&stdin, rustix::termios::OptionalActions::Flush, &shown);
        let _ = writeln!(std::io::stderr());
        typed?;
    } else {
        stdin.lock().take(LONGEST).read_to_string(&mut key)?;
    }
    match key.trim() {
        "" => Err(Failure::Usage("no key was given: type it, pipe it, or name its file by --key-file".into())),
        key => Ok(key.to_owned()),
    }
}

fn host_of(url: &str) -> &str {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    rest.split('/').next().unwrap_or(rest)
}
