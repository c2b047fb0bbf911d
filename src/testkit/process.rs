//! What runs inside a fake instance: a gateway, or one of the small programs that runtimes are tested with.

use std::collections::BTreeSet;
use std::time::Duration;

use super::behavior::{CodeForm, GatewayBehavior};
use super::random::Sequence;
use crate::domain::{Exit, Timestamp, later};
use crate::runtime::LogStream;

/// A program at work.
pub(super) enum Process {
    Gateway(Box<Gateway>),
    /// Ends when it is asked to, or not.
    Idle {
        deaf: bool,
    },
}

/// A gateway at work.
pub(super) struct Gateway {
    pub(super) requires_pairing: bool,
    /// The one-time code, until it is redeemed.
    pub(super) code: Option<String>,
    /// SHA-256 of the tokens that it takes.
    pub(super) tokens: BTreeSet<String>,
    pub(super) failures: u32,
    pub(super) locked_until: Option<Timestamp>,
    /// When it begins to listen.
    pub(super) listens_from: Timestamp,
}

/// A program that was just started: what it is, or how it ended at once, and what it prints when.
pub(super) struct Begun {
    pub(super) process: Result<Process, Exit>,
    pub(super) prints: Vec<(Duration, LogStream, String)>,
}

impl Process {
    /// Starts a program. `config` is what the gateway finds as its config file.
    pub(super) fn begin(
        command: &[String],
        config: Option<&[u8]>,
        at: Timestamp,
        behavior: &GatewayBehavior,
        random: &mut Sequence,
    ) -> Begun {
        let number = || command.get(1).and_then(|number| number.parse().ok());
        match command.first().map(String::as_str) {
            Some("count") => {
                let lines = (1..=number().unwrap_or(0)).map(|n| said(format!("line {n}")));
                Begun { process: Ok(Self::Idle { deaf: false }), prints: lines.collect() }
            }
            Some("deaf") => Begun { process: Ok(Self::Idle { deaf: true }), prints: vec![said("deaf".into())] },
            Some("exit") => Begun {
                process: Err(Exit { code: number(), oom: false, asked: false, reason: None }),
                prints: Vec::new(),
            },
            Some(_) | None => Gateway::begin(config, at, behavior, random),
        }
    }

    /// How long it takes to end when it is asked to; `None` if it does not listen.
    pub(super) const fn ends_in(&self, behavior: &GatewayBehavior) -> Option<Duration> {
        match self {
            Self::Gateway(_) => behavior.ends_in,
            Self::Idle { deaf: true } => None,
            Self::Idle { deaf: false } => Some(Duration::ZERO),
        }
    }
}

impl Gateway {
    fn begin(config: Option<&[u8]>, at: Timestamp, behavior: &GatewayBehavior, random: &mut Sequence) -> Begun {
        let Ok(config) = Config::read(config) else {
            let text = "Error: Failed to parse config file".to_owned();
            let prints = vec![(Duration::ZERO, LogStream::Stderr, text)];
            return Begun { process: Err(Exit::with_code(1)), prints };
        };
        let requires_pairing = behavior.requires_pairing && config.requires_pairing;
        let code = (requires_pairing && config.tokens.is_empty()).then(|| code(behavior.code, random));
        let mut prints = vec![said("🦀 ZeroClaw Gateway listening on http://0.0.0.0:42617".into())];
        let after = behavior.prints_code_after;
        match &code {
            Some(code) => prints.extend(banner(code).map(|line| (after, LogStream::Stdout, line))),
            None if requires_pairing => {
                prints.push((after, LogStream::Stdout, "  🔒 Pairing: ACTIVE (bearer token required)".into()));
            }
            None => prints.push((after, LogStream::Stdout, "  ⚠️ Pairing: DISABLED".into())),
        }
        let gateway = Self {
            requires_pairing,
            code,
            tokens: config.tokens,
            failures: 0,
            locked_until: None,
            listens_from: later(at, behavior.boots_in),
        };
        Begun { process: Ok(Process::Gateway(Box::new(gateway))), prints }
    }
}

fn said(text: String) -> (Duration, LogStream, String) {
    (Duration::ZERO, LogStream::Stdout, text)
}

/// Both forms in which a code is announced.
fn banner(code: &str) -> [String; 5] {
    [
        "  🔐 PAIRING REQUIRED — use this one-time code:".into(),
        "     ┌──────────────┐".into(),
        format!("     │  {code}  │"),
        "     └──────────────┘".into(),
        format!("     Send: POST /pair with header X-Pairing-Code: {code}"),
    ]
}

fn code(form: CodeForm, random: &mut Sequence) -> String {
    const LETTERS: &[u8] = b"ABCDEFGHJKLMNPQRSTUVWXYZ";
    const DIGITS: &[u8] = b"0123456789";
    let mut some = |of: &[u8], count: usize| -> String {
        (0..count).map(|_| random.pick(of).map_or('0', |byte| char::from(*byte))).collect()
    };
    match form {
        CodeForm::Digits => some(DIGITS, 6),
        CodeForm::Grouped => format!("{}-{}", some(LETTERS, 4), some(DIGITS, 4)),
        CodeForm::Long => some(LETTERS, 32),
    }
}

/// The part of the config file that a gateway's pairing depends on.
struct Config {
    requires_pairing: bool,
    tokens: BTreeSet<String>,
}

impl Config {
    /// Reads a config file; one that is not there is an empty one.
    fn read(bytes: Option<&[u8]>) -> Result<Self, ()> {
        let text = std::str::from_utf8(bytes.unwrap_or_default()).map_err(|_| ())?;
        let table: toml::Table = text.parse().map_err(|_| ())?;
        let gateway = table.get("gateway").and_then(toml::Value::as_table);
        let tokens = gateway.and_then(|gateway| gateway.get("paired_tokens")).and_then(toml::Value::as_array);
        let tokens = tokens.into_iter().flatten().filter_map(toml::Value::as_str).map(str::to_owned).collect();
        let requires = gateway.and_then(|gateway| gateway.get("require_pairing")).and_then(toml::Value::as_bool);
        Ok(Self { requires_pairing: requires.unwrap_or(true), tokens })
    }
}

/// The config file with one more token in it, as a gateway writes it after a pairing.
pub(super) fn with_token(config: Option<&[u8]>, hash: &str) -> Option<Vec<u8>> {
    let text = std::str::from_utf8(config.unwrap_or_default()).ok()?;
    let mut table: toml::Table = text.parse().ok()?;
    let gateway = table.entry("gateway").or_insert_with(|| toml::Table::new().into()).as_table_mut()?;
    let tokens = gateway.entry("paired_tokens").or_insert_with(|| toml::Value::Array(Vec::new())).as_array_mut()?;
    tokens.push(hash.into());
    toml::to_string(&table).ok().map(String::into_bytes)
}
