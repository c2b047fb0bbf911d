//! One table of values, and where each of them comes from.

use std::collections::BTreeMap;

use toml::{Table, Value};

use super::nearest::nearest;
use super::variables::Meaning;
use super::{Config, File, Flag, docker_host, proxies, variables};
use crate::domain::Secret;

/// The defaults: the example file itself.
const DEFAULTS: &str = include_str!("../../config/zeroone.toml");

/// Who set a value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// `config/zeroone.toml`, as it was compiled in.
    Default,
    /// The file of this name.
    File(String),
    /// The variable of this name.
    Variable(String),
    /// The flag of this name, e.g. `--bind`.
    Flag(&'static str),
}

/// Values by dotted key, e.g. `health.interval_secs`. The keys are those of the defaults, no more and no less.
#[derive(Debug, Clone)]
pub(super) struct Layers {
    values: BTreeMap<String, (Value, Origin)>,
    /// What was found beside them that nobody reads.
    pub(super) warnings: Vec<String>,
}

impl Layers {
    pub(super) fn defaults() -> Self {
        let table: Table = toml::from_str(DEFAULTS).expect("the defaults are compiled in, and a test parses them");
        let values = flatten(table).into_iter().map(|(key, value)| (key, (value, Origin::Default))).collect();
        Self { values, warnings: Vec::new() }
    }

    pub(super) fn put_file(&mut self, file: File<'_>, problems: &mut Vec<String>) {
        let table: Table = match toml::from_str(file.text) {
            Ok(table) => table,
            Err(error) => {
                // Only the message and the place: the error's own form quotes the line.
                problems.push(format!("{}{}: {}", file.name, line(file.text, &error), error.message()));
                return;
            }
        };
        for (key, value) in flatten(table) {
            let put = match self.values.get(&key) {
                Some((default, _)) => same_type(default, value).map_err(|kind| format!("must be {kind}")),
                None => Err(format!("is not a key{}", self.did_you_mean(&key))),
            };
            match put {
                Ok(value) => self.put(key, value, Origin::File(file.name.to_owned())),
                Err(problem) => problems.push(format!("{}: {key} {problem}", file.name)),
            }
        }
    }

    /// The master key, if the environment has it.
    pub(super) fn put_environment(
        &mut self,
        env: &[(String, String)],
        problems: &mut Vec<String>,
    ) -> Option<Secret<String>> {
        for (name, value) in env {
            match variables::meaning_of(name, self.keys()) {
                Ok(Meaning::Key(key)) => {
                    self.put_text(&key, value, Origin::Variable(name.clone()), problems);
                }
                Ok(Meaning::Unread(warning)) => self.warnings.push(warning),
                Ok(Meaning::None) => {}
                Err(problem) => problems.push(problem),
            }
        }
        // What others' tools are told is no more than another default.
        if let (Some((_, Origin::Default)), Some(found)) = (self.values.get("docker.host"), docker_host::find(env)) {
            self.put_text("docker.host", &found.host, Origin::Variable(found.from), problems);
        }
        for proxy in proxies::find(env) {
            if let Some((_, Origin::Default)) = self.values.get(proxy.key) {
                self.put_text(proxy.key, &proxy.value, Origin::Variable(proxy.from.to_owned()), problems);
            }
        }
        let key = env.iter().find(|(name, value)| name == variables::MASTER_KEY && !value.is_empty());
        key.map(|(_, value)| Secret::from(value.as_str()))
    }

    pub(super) fn put_flags(&mut self, flags: &[Flag], problems: &mut Vec<String>) {
        for flag in flags {
            self.put_text(flag.key, &flag.value, Origin::Flag(flag.name), problems);
        }
    }

    /// Reads a text as the type that the key has.
    fn put_text(&mut self, key: &str, text: &str, origin: Origin, problems: &mut Vec<String>) {
        let Some((default, _)) = self.values.get(key) else { return };
        match parse(default, text) {
            Ok(value) => self.put(key.to_owned(), value, origin),
            Err(kind) => problems.push(format!("{key}{} must be {kind}", of(&origin))),
        }
    }

    fn put(&mut self, key: String, value: Value, origin: Origin) {
        self.values.insert(key, (value, origin));
    }

    /// The table as types. What the types themselves refuse (an unknown word, a bad address) is noted with its key.
    pub(super) fn typed(&self, problems: &mut Vec<String>) -> Option<Config> {
        let mut table = Table::new();
        for (key, (value, _)) in &self.values {
            match key.split_once('.') {
                None => drop(table.insert(key.clone(), value.clone())),
                Some((section, key)) => {
                    let section = table.entry(section).or_insert_with(|| Value::Table(Table::new()));
                    if let Value::Table(section) = section {
                        section.insert(key.to_owned(), value.clone());
                    }
                }
            }
        }
        serde_path_to_error::deserialize(Value::Table(table))
            .map_err(|error: serde_path_to_error::Error<toml::de::Error>| {
                let key = error.path().to_string();
                problems.push(format!("{key}{} cannot be used: {}", self.from(&key), error.inner().message()));
            })
            .ok()
    }

    pub(super) fn get(&self, key: &str) -> Option<&Value> {
        self.values.get(key).map(|(value, _)| value)
    }

    /// All values in the order of the keys, top level first.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&str, &Value, &Origin)> {
        let (sections, top): (Vec<_>, Vec<_>) = self.values.iter().partition(|(key, _)| key.contains('.'));
        top.into_iter().chain(sections).map(|(key, (value, origin))| (key.as_str(), value, origin))
    }

    fn keys(&self) -> impl Iterator<Item = &str> + Clone {
        self.values.keys().map(String::as_str)
    }

    /// ` (from ZEROONE_BIND)`, or nothing for a default.
    pub(super) fn from(&self, key: &str) -> String {
        self.values.get(key).map_or_else(String::new, |(_, origin)| of(origin))
    }

    fn did_you_mean(&self, key: &str) -> String {
        nearest(key, self.keys()).map_or_else(String::new, |near| format!("; did you mean {near}?"))
    }
}

fn of(origin: &Origin) -> String {
    match origin {
        Origin::Default => String::new(),
        Origin::File(name) | Origin::Variable(name) => format!(" (from {name})"),
        Origin::Flag(name) => format!(" (from {name})"),
    }
}

/// Dotted keys, two levels deep: a table below a section is a value that no key has.
fn flatten(table: Table) -> Vec<(String, Value)> {
    let mut flat = Vec::new();
    for (name, value) in table {
        match value {
            Value::Table(section) => {
                flat.extend(section.into_iter().map(|(key, value)| (format!("{name}.{key}"), value)));
            }
            value => flat.push((name, value)),
        }
    }
    flat
}

/// The value, if it has the default's type; else what it should have been.
fn same_type(default: &Value, value: Value) -> Result<Value, &'static str> {
    let same = match (default, &value) {
        (Value::Array(_), Value::Array(items)) => items.iter().all(Value::is_str),
        (default, value) => default.same_type(value),
    };
    if same { Ok(value) } else { Err(kind(default)) }
}

fn parse(default: &Value, text: &str) -> Result<Value, &'static str> {
    let parsed = match default {
        Value::String(_) => Some(Value::String(text.to_owned())),
        Value::Integer(_) => text.trim().parse().ok().map(Value::Integer),
        Value::Float(_) => text.trim().parse().ok().map(Value::Float),
        Value::Boolean(_) => text.trim().parse().ok().map(Value::Boolean),
        Value::Array(_) => {
            let items = text.split(',').map(str::trim).filter(|item| !item.is_empty());
            Some(Value::Array(items.map(|item| Value::String(item.to_owned())).collect()))
        }
        Value::Datetime(_) | Value::Table(_) => None,
    };
    parsed.ok_or(kind(default))
}

const fn kind(default: &Value) -> &'static str {
    match default {
        Value::String(_) => "a text",
        Value::Integer(_) => "a whole number",
        Value::Float(_) => "a number",
        Value::Boolean(_) => "true or false",
        Value::Array(_) => "a list of texts",
        Value::Datetime(_) => "a time",
        Value::Table(_) => "a section",
    }
}

/// ` line N`, where the error says where it is.
fn line(text: &str, error: &toml::de::Error) -> String {
    let start = error.span().map(|span| span.start);
    let before = start.and_then(|start| text.get(..start));
    before.map_or_else(String::new, |before| format!(", line {}", before.matches('\n').count() + 1))
}
