//! What the environment puts into `config.toml`: `${NAME}` in its texts, and ZeroClaw 0.8's variables that name a key.
//!
//! Pure: the environment is an argument. No message holds a value. How a placeholder is read is
//! [`config_placeholder`]'s business.

use std::collections::BTreeSet;

use serde_path_to_error::{Path, Segment};
use toml::{Table, Value};

use super::config_placeholder::{self, Expanded, Problem};
use super::config_view::is_secret;
use super::options;

/// The texts that stand for one variable as a whole. The environment has only texts: which of them is a number, a switch or
/// a list is seen where the settings are read.
#[derive(Debug, Default)]
pub(super) struct WholeTexts(BTreeSet<String>);

/// Puts the environment's values in place of the placeholders of all texts. A channel whose text names a variable that is not
/// set loses that key, and so is switched off alone.
///
/// # Errors
/// The key and the variable that is not set.
pub(super) fn expand(
    document: &mut Table,
    variable: &dyn Fn(&str) -> Option<String>,
    notes: &mut Vec<String>,
) -> Result<WholeTexts, String> {
    let mut expansion = Expansion { variable, notes, whole: WholeTexts::default() };
    expansion.table(document, "")?;
    Ok(expansion.whole)
}

/// The variables that a document names in its texts.
pub(super) fn names(document: &Table) -> BTreeSet<String> {
    fn collect(value: &Value, found: &mut BTreeSet<String>) {
        match value {
            Value::String(text) => found.extend(config_placeholder::names(text)),
            Value::Array(values) => values.iter().for_each(|value| collect(value, found)),
            Value::Table(table) => table.values().for_each(|value| collect(value, found)),
            _ => {}
        }
    }
    let mut found = BTreeSet::new();
    document.values().for_each(|value| collect(value, &mut found));
    found
}

/// Sets the keys that variables of ZeroClaw 0.8 name: `ZEROCLAW_providers__models__custom__default__api_key`.
///
/// # Errors
/// A variable whose path leads through something that is no table.
pub(super) fn set_paths<'a>(
    document: &mut Table,
    variables: impl Iterator<Item = (&'a str, &'a str)>,
) -> Result<(), String> {
    for (name, value) in variables {
        let Some(path) = path_of(name) else { continue };
        let is_key = path.last().is_some_and(|key| is_api_key(key));
        let value = if is_key { Value::String(options::bare_key(value)) } else { read(value) };
        set(document, &path, value).map_err(|()| format!("{name} leads through a key that is not a table"))?;
    }
    Ok(())
}

/// The path of a variable that names a key: lower case after the prefix.
pub(super) fn path_of(name: &str) -> Option<Vec<&str>> {
    let tail = name.strip_prefix("ZEROCLAW_")?;
    let names_a_key = tail.starts_with(|c: char| c.is_ascii_lowercase());
    names_a_key.then(|| tail.split("__").collect())
}

/// Reads the text at `path` as what the settings want there, where it stands for one variable as a whole. Whether it does.
pub(super) fn fit(document: &mut Table, path: &Path, expected: &str, whole: &WholeTexts) -> bool {
    let Some(value) = look_up(document, path) else { return false };
    let Value::String(text) = value else { return false };
    if !whole.0.contains(text) {
        return false;
    }
    let fitting = match read(text) {
        Value::String(_) if expected.contains("boolean") => options::switch("", text).ok().map(Value::Boolean),
        Value::String(_) | Value::Integer(_) if expected.contains("sequence") => Some(list(text)),
        Value::String(_) => None,
        Value::Integer(0) if expected.contains("boolean") => Some(Value::Boolean(false)),
        Value::Integer(1) if expected.contains("boolean") => Some(Value::Boolean(true)),
        read => Some(read),
    };
    let fits = fitting.is_some();
    *value = fitting.unwrap_or_else(|| value.clone());
    fits
}

/// The entries of a text with commas, as the allow-lists of channels take them.
fn list(text: &str) -> Value {
    let entries = text.split(',').map(str::trim).filter(|entry| !entry.is_empty());
    Value::Array(entries.map(|entry| Value::String(entry.to_owned())).collect())
}

fn look_up<'a>(document: &'a mut Table, path: &Path) -> Option<&'a mut Value> {
    let mut segments = path.iter();
    let Segment::Map { key } = segments.next()? else { return None };
    segments.try_fold(document.get_mut(key)?, |value, segment| match segment {
        Segment::Map { key } => value.get_mut(key.as_str()),
        Segment::Seq { index } => value.get_mut(*index),
        // An option or a newtype: no level of the document.
        Segment::Enum { .. } | Segment::Unknown => Some(value),
    })
}

fn set(table: &mut Table, path: &[&str], value: Value) -> Result<(), ()> {
    match path {
        [] => Err(()),
        [key] => {
            table.insert((*key).to_owned(), value);
            Ok(())
        }
        [key, rest @ ..] => {
            let below = table.entry((*key).to_owned()).or_insert_with(|| Value::Table(Table::new()));
            set(below.as_table_mut().ok_or(())?, rest, value)
        }
    }
}

/// A variable's value: a list, number or switch where it reads as one, else a text.
fn read(text: &str) -> Value {
    let text = text.trim();
    let parsed = format!("v = {text}").parse::<Table>().ok().and_then(|mut table| table.remove("v"));
    match parsed {
        Some(value @ (Value::Array(_) | Value::Integer(_) | Value::Float(_) | Value::Boolean(_))) => value,
        _ => Value::String(text.to_owned()),
    }
}

/// A switch or a list, which no text key has for a value. Numbers wait for who reads them: an id or a model may be one.
fn read_early(text: &str) -> Option<Value> {
    match read(text) {
        value @ (Value::Array(_) | Value::Boolean(_)) => Some(value),
        _ if text.trim().eq_ignore_ascii_case("true") => Some(Value::Boolean(true)),
        _ if text.trim().eq_ignore_ascii_case("false") => Some(Value::Boolean(false)),
        _ => None,
    }
}

/// Keys that are sent to a model's server, by the name of the setting.
fn is_api_key(key: &str) -> bool {
    key == "api_key"
}

/// Where a placeholder that is not read does harm: it would be sent in place of a key, or asked in place of a server.
fn must_be_exact(key: &str) -> bool {
    let key = key.to_ascii_lowercase();
    is_secret(&key)
        || ["url", "uri", "base", "host", "address", "provider", "model"].iter().any(|part| key.contains(part))
}

struct Expansion<'a> {
    variable: &'a dyn Fn(&str) -> Option<String>,
    notes: &'a mut Vec<String>,
    whole: WholeTexts,
}

impl Expansion<'_> {
    fn table(&mut self, table: &mut Table, path: &str) -> Result<(), String> {
        let mut missing = Vec::new();
        for (key, value) in table.iter_mut() {
            let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
            match self.value(value, key, &path) {
                Ok(()) => {}
                Err(reason) if path.starts_with("channels_config.") || path.starts_with("channels.") => {
                    self.notes.push(reason);
                    missing.push(key.clone());
                }
                Err(reason) => return Err(reason),
            }
        }
        missing.iter().for_each(|key| drop(table.remove(key)));
        Ok(())
    }

    fn value(&mut self, value: &mut Value, key: &str, path: &str) -> Result<(), String> {
        match value {
            Value::String(text) => {
                if let Some(expanded) = self.text(text, key, path)? {
                    *value = expanded;
                }
                Ok(())
            }
            Value::Array(values) => values.iter_mut().try_for_each(|value| self.value(value, key, path)),
            Value::Table(table) => self.table(table, path),
            _ => Ok(()),
        }
    }

    fn text(&mut self, text: &str, key: &str, path: &str) -> Result<Option<Value>, String> {
        let expanded = config_placeholder::expand(text, self.variable).map_err(|problem| match problem {
            Problem::NotSet(name) => {
                format!("{path} names the variable {name}, which is not set; set it, or write the value itself")
            }
            Problem::Empty(name) => {
                format!("{path} needs the variable {name}, which is empty; set it, or write the value itself")
            }
        })?;
        let Expanded { text: new, is_whole, names_any, left_over } = expanded;
        if left_over && must_be_exact(key) {
            self.notes.push(format!(
                "{path} has a placeholder in a form that is not read here, and is used as it is written; write ${{NAME}}, \
                 ${{NAME:-default}} or the value itself"
            ));
        }
        if !names_any {
            return Ok(None);
        }
        if !is_whole {
            return Ok(Some(Value::String(new)));
        }
        if is_api_key(key) {
            return Ok(Some(Value::String(options::bare_key(&new))));
        }
        if let Some(value) = read_early(&new) {
            return Ok(Some(value));
        }
        self.whole.0.insert(new.clone());
        Ok(Some(Value::String(new)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn variable(name: &str) -> Option<String> {
        let set = [
            ("KEY", "sk-1"),
            ("HOST", "h:1"),
            ("EMPTY", ""),
            ("NESTED", "${KEY}"),
            ("QUOTED", "\"Bearer sk-2\""),
            ("OFF", "False"),
            ("SEVEN", "7"),
            ("USERS", "[\"ada\", \"42\"]"),
        ];
        set.into_iter().find(|(set, _)| *set == name).map(|(_, value)| value.to_owned())
    }

    fn expanded(text: &str) -> Result<(Table, Vec<String>), String> {
        let (mut table, mut notes) = (text.parse::<Table>().unwrap(), Vec::new());
        expand(&mut table, &variable, &mut notes).map(|_| (table, notes))
    }

    #[test]
    fn variables_are_put_into_texts_wherever_they_are() {
        let (table, notes) = expanded(
            "a = \"${KEY}\"\nb = \"http://${HOST}/v1\"\nc = [\"$KEY\", \"${NONE:-x}\"]\n[t]\nd = { e = \"${EMPTY:-y}\" }\n",
        )
        .unwrap();
        assert_eq!(table["a"].as_str(), Some("sk-1"));
        assert_eq!(table["b"].as_str(), Some("http://h:1/v1"));
        assert_eq!(table["c"], Value::from(vec!["sk-1", "x"]));
        assert_eq!(table["t"]["d"]["e"].as_str(), Some("y"));
        assert!(notes.is_empty());
    }

    #[test]
    fn values_are_not_expanded_again() {
        assert_eq!(expanded("a = \"${NESTED}\"").unwrap().0["a"].as_str(), Some("${KEY}"));
    }

    #[test]
    fn switches_and_lists_are_read_as_such_and_numbers_only_where_one_is_wanted() {
        let (table, _) = expanded("a = \"${OFF}\"\nb = \"${USERS}\"\nc = \"${SEVEN}\"\nd = \"x${OFF}\"\n").unwrap();
        assert_eq!((&table["a"], &table["b"]), (&Value::Boolean(false), &Value::from(vec!["ada", "42"])));
        assert_eq!((table["c"].as_str(), table["d"].as_str()), (Some("7"), Some("xFalse")));
    }

    #[test]
    fn a_key_loses_the_quotes_and_the_scheme_that_came_with_it() {
        let (table, _) = expanded("api_key = \"${QUOTED}\"\nother = \"${QUOTED}\"\n").unwrap();
        assert_eq!((table["api_key"].as_str(), table["other"].as_str()), (Some("sk-2"), Some("\"Bearer sk-2\"")));
        let mut table = Table::new();
        set_paths(&mut table, [("ZEROCLAW_providers__models__a__b__api_key", "'123'")].into_iter()).unwrap();
        assert_eq!(table["providers"]["models"]["a"]["b"]["api_key"].as_str(), Some("123"));
    }

    #[test]
    fn a_variable_that_is_not_set_is_named_and_costs_a_channel_only_itself() {
        let error = expanded("api_key = \"x${NONE}\"").unwrap_err();
        assert!(error.contains("api_key") && error.contains("NONE"), "{error}");
        for required in ["${NONE:?planted}", "${NONE?planted}", "${EMPTY:?planted}"] {
            let error = expanded(&format!("api_key = \"{required}\"")).unwrap_err();
            assert!(error.contains("api_key") && !error.contains("planted"), "{error}");
        }
        let (table, notes) = expanded("[channels_config.slack]\nbot_token = \"${NONE}\"\nchannel_id = \"C1\"").unwrap();
        assert_eq!(table["channels_config"]["slack"].as_table().unwrap().len(), 1);
        assert!(notes[0].contains("channels_config.slack.bot_token"), "{notes:?}");
    }

    #[test]
    fn a_placeholder_that_is_not_read_is_told_where_it_does_harm() {
        for (text, told) in [
            ("api_key = \"${env:KEY}\"", true),
            ("api_key = \"{{ env.KEY }}\"", true),
            ("default_provider = \"custom:http://${ HOST }/v1\"", true),
            ("[channels_config.slack]\nbot_token = \"%TOKEN%\"", true),
            ("[gateway]\npaired_tokens = [\"${a b}\"]", true),
            ("name = \"${env:KEY}\"", false),
            ("api_key = \"sk-$5\"", false),
            ("api_key = \"${NESTED}\"", false),
        ] {
            let (_, notes) = expanded(text).unwrap();
            assert_eq!(notes.len(), usize::from(told), "{text}: {notes:?}");
        }
        assert!(expanded("[a]\nbot_token = \"${x:y}\"").unwrap().1[0].starts_with("a.bot_token "));
    }

    #[test]
    fn variables_of_the_newest_schema_name_keys() {
        let mut table = "[gateway]\nport = 1\n".parse::<Table>().unwrap();
        let variables = [
            ("ZEROCLAW_gateway__host", "0.0.0.0"),
            ("ZEROCLAW_gateway__port", "7"),
            ("ZEROCLAW_providers__models__custom__default__api_key", "sk-2"),
            ("ZEROCLAW_channels__discord__default__guild_ids", "[\"1\"]"),
            ("ZEROCLAW_MODEL", "not a path"),
            ("OTHER_gateway__port", "9"),
        ];
        set_paths(&mut table, variables.into_iter()).unwrap();
        assert_eq!(
            (table["gateway"]["host"].as_str(), table["gateway"]["port"].as_integer()),
            (Some("0.0.0.0"), Some(7))
        );
        assert_eq!(table["providers"]["models"]["custom"]["default"]["api_key"].as_str(), Some("sk-2"));
        assert!(table["channels"]["discord"]["default"]["guild_ids"].is_array());
        assert_eq!(table.len(), 3);
        assert!(set_paths(&mut table, [("ZEROCLAW_gateway__port__x", "1")].into_iter()).is_err());
    }

    #[test]
    fn names_are_found_in_all_texts_however_they_are_written() {
        let document =
            "a = \"x${B}\"\nc = [\"$KEY\", \"\\u0024{ESCAPED}\"]\n[d]\ne = \"${F:-${G}}\"\nh = \"costs $5\"\n";
        let found = names(&document.parse().unwrap());
        assert_eq!(found.iter().map(String::as_str).collect::<Vec<_>>(), ["B", "ESCAPED", "F", "G", "KEY"]);
    }
}
