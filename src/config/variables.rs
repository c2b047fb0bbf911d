//! The environment's names for keys.

use super::nearest::nearest;

const PREFIX: &str = "ZEROONE_";

/// Has the master key itself: a secret, so no key of the configuration.
pub(super) const MASTER_KEY: &str = "ZEROONE_MASTER_KEY";

/// Names without a section: the API contract's, and those that are read elsewhere.
const SHORT: [(&str, Option<&str>); 8] = [
    ("ZEROONE_DATA", Some("data")),
    ("ZEROONE_BIND", Some("bind")),
    ("ZEROONE_RUNTIME", Some("runtime")),
    ("ZEROONE_MASTER_KEY_FILE", Some("vault.master_key_file")),
    (MASTER_KEY, None),
    ("ZEROONE_CONFIG", None),
    ("ZEROONE_URL", None),
    ("ZEROONE_API_KEY", None),
];

/// The key that a variable sets; `None` for one that sets none.
///
/// # Errors
/// A sentence for a name that looks like a key and is none. Others with the prefix are left alone unless they are nearly
/// one of ours: engines put such names into a container's environment (`ZEROONE_PORT_3001_TCP`).
pub(super) fn key_of<'a>(name: &str, keys: impl Iterator<Item = &'a str>) -> Result<Option<String>, String> {
    let Some(rest) = name.strip_prefix(PREFIX) else { return Ok(None) };
    if let Some((_, key)) = SHORT.iter().find(|(short, _)| *short == name) {
        return Ok(key.map(str::to_owned));
    }
    let names: Vec<(String, &str)> = keys.filter(|key| key.contains('.')).map(|key| (variable_of(key), key)).collect();
    if let Some((_, key)) = names.iter().find(|(known, _)| known == name) {
        return Ok(Some((*key).to_owned()));
    }
    let known = names.iter().map(|(known, _)| known.as_str());
    if rest.contains("__") {
        let meant = nearest(name, known).map_or_else(String::new, |near| format!("; did you mean {near}?"));
        return Err(format!("the environment's {name} is no key{meant}"));
    }
    // Two letters off, whatever the length: ZEROONE_BNID is a typo, ZEROONE_PORT somebody else's.
    match nearest(rest, SHORT.iter().filter_map(|(short, _)| short.strip_prefix(PREFIX))) {
        Some(near) if rest.len() >= 4 => {
            Err(format!("the environment's {name} is no key; did you mean {PREFIX}{near}?"))
        }
        _ => Ok(None),
    }
}

/// `health.interval_secs` is `ZEROONE_HEALTH__INTERVAL_SECS`.
fn variable_of(key: &str) -> String {
    format!("{PREFIX}{}", key.to_uppercase().replace('.', "__"))
}
