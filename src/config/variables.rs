//! The environment's names for keys.

use super::nearest::nearest;

const PREFIX: &str = "ZEROONE_";

/// Has the master key itself: a secret, so no key of the configuration.
pub(super) const MASTER_KEY: &str = "ZEROONE_MASTER_KEY";

/// Names without a section: the API contract's, and those that are read elsewhere.
const SHORT: [(&str, Option<&str>); 9] = [
    ("ZEROONE_DATA", Some("data")),
    ("ZEROONE_BIND", Some("bind")),
    ("ZEROONE_RUNTIME", Some("runtime")),
    ("ZEROONE_MASTER_KEY_FILE", Some("vault.master_key_file")),
    (MASTER_KEY, None),
    ("ZEROONE_CONFIG", None),
    ("ZEROONE_URL", None),
    ("ZEROONE_API_KEY", None),
    ("ZEROONE_CONTEXT", None),
];

/// What a name of the environment is to us.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Meaning {
    /// It sets this key.
    Key(String),
    /// It is read elsewhere, or somebody else's.
    None,
    /// It has our prefix and nobody reads it: the sentence says so.
    Unread(String),
}

/// What a variable sets.
///
/// # Errors
/// A sentence for a name that looks like a key and is none, or is nearly one of ours. Names that engines put into a
/// container's environment are left alone (`ZEROONE_PORT_3001_TCP`), others with the prefix are [`Meaning::Unread`].
pub(super) fn meaning_of<'a>(name: &str, keys: impl Iterator<Item = &'a str>) -> Result<Meaning, String> {
    let Some(rest) = name.strip_prefix(PREFIX) else { return Ok(Meaning::None) };
    if let Some((_, key)) = SHORT.iter().find(|(short, _)| *short == name) {
        return Ok(key.map_or(Meaning::None, |key| Meaning::Key(key.to_owned())));
    }
    let names: Vec<(String, &str)> = keys.filter(|key| key.contains('.')).map(|key| (variable_of(key), key)).collect();
    if let Some((_, key)) = names.iter().find(|(known, _)| known == name) {
        return Ok(Meaning::Key((*key).to_owned()));
    }
    let known = names.iter().map(|(known, _)| known.as_str());
    if rest.contains("__") {
        let meant = nearest(name, known).map_or_else(String::new, |near| format!("; did you mean {near}?"));
        return Err(format!("the environment's {name} is no key{meant}"));
    }
    if is_of_an_engine(rest) {
        return Ok(Meaning::None);
    }
    // Two letters off, whatever the length: ZEROONE_BNID is a typo, ZEROONE_HOME somebody else's.
    let short = SHORT.iter().filter_map(|(short, _)| short.strip_prefix(PREFIX));
    if let Some(near) = nearest(rest, short).filter(|_| rest.len() >= 4) {
        return Err(format!("the environment's {name} is no key; did you mean {PREFIX}{near}?"));
    }
    // One underscore where two were meant.
    let plain: Vec<String> = names.iter().map(|(known, _)| known.replace("__", "_")).collect();
    let near = nearest(name, plain.iter().map(String::as_str));
    let near = near.and_then(|near| names.iter().zip(&plain).find(|(_, plain)| *plain == near));
    let meant = near.map_or_else(
        || "; `zeroone config show` lists all keys".to_owned(),
        |((known, _), _)| format!("; did you mean {known}?"),
    );
    Ok(Meaning::Unread(format!("the environment's {name} is no key and has no effect{meant}")))
}

/// Docker's links and Kubernetes' services make such names of a neighbour that is called zeroone, or zeroone-something.
fn is_of_an_engine(rest: &str) -> bool {
    let parts: Vec<&str> = rest.split('_').collect();
    let number = |part: &&str| part.chars().all(|digit| digit.is_ascii_digit());
    let after_port = parts.iter().position(|part| *part == "PORT").map(|at| parts.get(at + 1));
    let port = after_port.is_some_and(|next| next.is_none_or(number))
        || parts.windows(2).any(|two| two == ["SERVICE", "PORT"]);
    port || parts.ends_with(&["SERVICE", "HOST"]) || parts.contains(&"ENV")
}

/// `health.interval_secs` is `ZEROONE_HEALTH__INTERVAL_SECS`.
fn variable_of(key: &str) -> String {
    format!("{PREFIX}{}", key.to_uppercase().replace('.', "__"))
}
