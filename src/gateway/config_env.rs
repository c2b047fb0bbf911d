//! What the environment puts into `config.toml`: `${NAME}` in its texts, and ZeroClaw 0.8's variables that name a key.
//!
//! Pure: the environment is an argument. No message holds a value.

use toml::{Table, Value};

/// Longest text in which names are looked for, and after which they were put in.
const LONGEST: usize = 64 << 10;

/// Puts the environment's values in place of `${NAME}`, `${NAME:-default}` and of a text that is `$NAME` as a whole.
/// A channel whose text names a variable that is not set loses that key, and so is switched off alone.
///
/// # Errors
/// The key and the variable that is not set.
pub(super) fn expand(
    document: &mut Table,
    variable: &dyn Fn(&str) -> Option<String>,
    notes: &mut Vec<String>,
) -> Result<(), String> {
    expand_table(document, "", variable, notes)
}

/// The names in `${…}` and `$NAME` of a text.
pub(super) fn names(text: &str) -> Vec<String> {
    let whole = whole_name(text).map(str::to_owned);
    let braces =
        text.match_indices("${").filter_map(|(at, _)| placeholder(&text[at..]).map(|found| found.name.to_owned()));
    whole.into_iter().chain(braces).collect()
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
        set(document, &path, read(value)).map_err(|()| format!("{name} leads through a key that is not a table"))?;
    }
    Ok(())
}

/// The path of a variable that names a key: lower case after the prefix.
pub(super) fn path_of(name: &str) -> Option<Vec<&str>> {
    let tail = name.strip_prefix("ZEROCLAW_")?;
    let names_a_key = tail.starts_with(|c: char| c.is_ascii_lowercase());
    names_a_key.then(|| tail.split("__").collect())
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

fn expand_table(
    table: &mut Table,
    path: &str,
    variable: &dyn Fn(&str) -> Option<String>,
    notes: &mut Vec<String>,
) -> Result<(), String> {
    let mut missing = Vec::new();
    for (key, value) in table.iter_mut() {
        let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
        match expand_value(value, &path, variable, notes) {
            Ok(()) => {}
            Err(reason) if path.starts_with("channels_config.") || path.starts_with("channels.") => {
                notes.push(reason);
                missing.push(key.clone());
            }
            Err(reason) => return Err(reason),
        }
    }
    missing.iter().for_each(|key| drop(table.remove(key)));
    Ok(())
}

fn expand_value(
    value: &mut Value,
    path: &str,
    variable: &dyn Fn(&str) -> Option<String>,
    notes: &mut Vec<String>,
) -> Result<(), String> {
    match value {
        Value::String(text) => {
            if let Some(expanded) = expand_text(text, variable).map_err(|name| {
                format!("{path} names the variable {name}, which is not set; set it, or write the value itself")
            })? {
                *text = expanded;
            }
            Ok(())
        }
        Value::Array(values) => values.iter_mut().try_for_each(|value| expand_value(value, path, variable, notes)),
        Value::Table(table) => expand_table(table, path, variable, notes),
        _ => Ok(()),
    }
}

struct Placeholder<'a> {
    name: &'a str,
    default: Option<&'a str>,
    length: usize,
}

/// The text with its variables, `None` where it names none, or the name of one that is not set.
fn expand_text(text: &str, variable: &dyn Fn(&str) -> Option<String>) -> Result<Option<String>, String> {
    if text.len() > LONGEST {
        return Ok(None);
    }
    if let Some(name) = whole_name(text) {
        return variable(name).map(Some).ok_or_else(|| name.to_owned());
    }
    let (mut expanded, mut rest, mut found) = (String::new(), text, false);
    while let Some(at) = rest.find("${") {
        let (before, candidate) = rest.split_at(at);
        expanded.push_str(before);
        let Some(placeholder) = placeholder(candidate) else {
            expanded.push_str("${");
            rest = &candidate[2..];
            continue;
        };
        found = true;
        // As in a shell: a default stands in for an empty value as well.
        let value = variable(placeholder.name).filter(|value| placeholder.default.is_none() || !value.is_empty());
        let value = value.or_else(|| placeholder.default.map(str::to_owned));
        expanded.push_str(&value.ok_or_else(|| placeholder.name.to_owned())?);
        rest = &candidate[placeholder.length..];
    }
    expanded.push_str(rest);
    Ok(found.then_some(expanded))
}

/// `${NAME}` or `${NAME:-default}` at the start of a text.
fn placeholder(text: &str) -> Option<Placeholder<'_>> {
    let inner = text.strip_prefix("${")?;
    let (inner, _) = inner.split_once('}')?;
    let (name, default) = match inner.split_once(":-") {
        Some((name, default)) => (name, Some(default)),
        None => (inner, None),
    };
    is_name(name).then_some(Placeholder { name, default, length: inner.len() + 3 })
}

/// The name in a text that is nothing but `$NAME`.
fn whole_name(text: &str) -> Option<&str> {
    let name = text.trim().strip_prefix('$')?;
    (is_name(name) && name.bytes().all(|byte| !byte.is_ascii_lowercase())).then_some(name)
}

fn is_name(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn variable(name: &str) -> Option<String> {
        let set = [("KEY", "sk-1"), ("HOST", "h:1"), ("EMPTY", ""), ("NESTED", "${KEY}")];
        set.into_iter().find(|(set, _)| *set == name).map(|(_, value)| value.to_owned())
    }

    fn expanded(text: &str) -> Result<(Table, Vec<String>), String> {
        let (mut table, mut notes) = (text.parse::<Table>().unwrap(), Vec::new());
        expand(&mut table, &variable, &mut notes).map(|()| (table, notes))
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
    fn what_looks_alike_stays_and_values_are_not_expanded_again() {
        for text in ["costs $5", "${", "${}", "${a b}", "$key", "a$KEY", "$", "${KEY"] {
            let (table, _) = expanded(&format!("a = '{text}'")).unwrap();
            assert_eq!(table["a"].as_str(), Some(text));
        }
        assert_eq!(expanded("a = \"${NESTED}\"").unwrap().0["a"].as_str(), Some("${KEY}"));
    }

    #[test]
    fn a_variable_that_is_not_set_is_named_and_costs_a_channel_only_itself() {
        let error = expanded("api_key = \"x${NONE}\"").unwrap_err();
        assert!(error.contains("api_key") && error.contains("NONE"), "{error}");
        let (table, notes) = expanded("[channels_config.slack]\nbot_token = \"${NONE}\"\nchannel_id = \"C1\"").unwrap();
        assert_eq!(table["channels_config"]["slack"].as_table().unwrap().len(), 1);
        assert!(notes[0].contains("channels_config.slack.bot_token"), "{notes:?}");
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
    fn names_are_found_wherever_they_would_be_expanded() {
        assert_eq!(names("a ${B} ${C:-d}"), ["B", "C"]);
        assert_eq!(names("$KEY"), ["KEY"]);
        assert!(names("costs $5").is_empty());
    }
}
