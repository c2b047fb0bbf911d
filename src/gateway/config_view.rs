//! `config.toml` as a dashboard sees it: secrets masked on the way out, and put back on the way in.

use toml_edit::{DocumentMut, Item, TableLike, Value};

/// Stands for a secret that is set; ZeroClaw's clients know it.
pub(super) const MASK: &str = "***MASKED***";

/// Replaces every secret by [`MASK`].
pub(super) fn mask(document: &mut DocumentMut) {
    mask_table(document.as_table_mut());
}

/// Replaces each [`MASK`] by what `current` has in its place. One that has nothing there is removed: the mask must never
/// become the secret.
pub(super) fn unmask(document: &mut DocumentMut, current: &DocumentMut) {
    unmask_table(document.as_table_mut(), Some(current.as_table()));
}

/// By the key's name, so that keys that we do not know are covered too. Numbers and switches hide nothing.
pub(super) fn is_secret(key: &str) -> bool {
    let key = key.to_ascii_lowercase();
    ["token", "secret", "password", "api_key", "apikey", "private_key"].iter().any(|part| key.contains(part))
}

fn mask_table(table: &mut dyn TableLike) {
    for (key, item) in table.iter_mut() {
        let secret = is_secret(key.get());
        if let Item::ArrayOfTables(tables) = item {
            tables.iter_mut().for_each(|table| mask_table(table));
        } else if let Some(table) = item.as_table_like_mut() {
            mask_table(table);
        } else if let Some(value) = item.as_value_mut() {
            mask_value(value, secret);
        }
    }
}

fn mask_value(value: &mut Value, secret: bool) {
    match value {
        Value::String(text) if secret && !text.value().is_empty() => set(value, MASK),
        Value::Array(array) => array.iter_mut().for_each(|value| mask_value(value, secret)),
        Value::InlineTable(table) => mask_table(table),
        _ => {}
    }
}

fn unmask_table(table: &mut dyn TableLike, current: Option<&dyn TableLike>) {
    let keys: Vec<String> = table.iter().map(|(key, _)| key.to_owned()).collect();
    for key in keys {
        let Some(item) = table.get_mut(&key) else { continue };
        let now = current.and_then(|current| current.get(&key));
        let keep = if let Item::ArrayOfTables(tables) = item {
            let current = now.and_then(Item::as_array_of_tables);
            for (index, table) in tables.iter_mut().enumerate() {
                unmask_table(
                    table,
                    current.and_then(|current| current.get(index)).map(|table| table as &dyn TableLike),
                );
            }
            true
        } else if let Some(table) = item.as_table_like_mut() {
            unmask_table(table, now.and_then(Item::as_table_like));
            true
        } else if let Some(value) = item.as_value_mut() {
            unmask_value(value, now.and_then(Item::as_value))
        } else {
            true
        };
        if !keep {
            table.remove(&key);
        }
    }
}

/// Whether the value may stay.
fn unmask_value(value: &mut Value, current: Option<&Value>) -> bool {
    match value {
        Value::String(text) if text.value() == MASK => match current.and_then(Value::as_str) {
            Some(current) => {
                set(value, current);
                true
            }
            None => false,
        },
        Value::Array(array) => {
            let current = current.and_then(Value::as_array);
            let restored = array.iter().enumerate().filter_map(|(index, value)| {
                let mut value = value.clone();
                unmask_value(&mut value, current.and_then(|current| current.get(index))).then_some(value)
            });
            *array = restored.collect();
            true
        }
        Value::InlineTable(table) => {
            unmask_table(table, current.and_then(Value::as_inline_table).map(|table| table as &dyn TableLike));
            true
        }
        _ => true,
    }
}

/// Changes a text and keeps the comments around it.
fn set(value: &mut Value, text: &str) {
    let decor = value.decor().clone();
    *value = text.into();
    *value.decor_mut() = decor;
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn any_secret_is_masked_and_restored(secret in "\\PC{1,30}", key in "[a-z_]{0,8}(token|secret|password|api_key)[a-z_]{0,4}") {
            let mut current = DocumentMut::new();
            current[&key] = toml_edit::value(&secret);
            current["list"][&key] = toml_edit::value(toml_edit::Array::from_iter([&secret]));
            let mut seen = current.clone();
            mask(&mut seen);
            prop_assert_eq!(seen[&key].as_str(), Some(MASK));
            prop_assert_eq!(seen["list"][&key][0].as_str(), Some(MASK));
            let mut back: DocumentMut = seen.to_string().parse().unwrap();
            unmask(&mut back, &current);
            prop_assert_eq!(back[&key].as_str(), Some(secret.as_str()));
            prop_assert_eq!(back["list"][&key][0].as_str(), Some(secret.as_str()));
        }
    }

    const FILE: &str = r#"# mine
api_key = "sk-planted-1" # the key
default_model = "m"
[gateway]
paired_tokens = ["planted-2", "planted-3"]
[channels_config.telegram]
bot_token = "planted-4"
allowed_users = ["ada"]
[[unknown.list]]
client_secret = "planted-5"
[x]
inline = { password = "planted-6", port = 1 }
"#;

    #[test]
    fn no_secret_goes_out_and_all_come_back() {
        let current: DocumentMut = FILE.parse().unwrap();
        let mut seen = current.clone();
        mask(&mut seen);
        let text = seen.to_string();
        assert!(!text.contains("planted"), "{text}");
        assert!(text.contains("# the key") && text.contains("ada"));
        let mut back: DocumentMut = text.replace("\"m\"", "\"other\"").parse().unwrap();
        unmask(&mut back, &current);
        assert_eq!(back.to_string().replace(", ", ","), FILE.replace("\"m\"", "\"other\"").replace(", ", ","));
    }

    #[test]
    fn a_mask_without_a_secret_behind_it_is_removed() {
        let current: DocumentMut = "[gateway]\npaired_tokens = [\"a\"]\n".parse().unwrap();
        let mut new: DocumentMut =
            format!("api_key = \"{MASK}\"\n[gateway]\npaired_tokens = [\"{MASK}\", \"{MASK}\"]\n").parse().unwrap();
        unmask(&mut new, &current);
        assert_eq!(new.to_string().trim(), "[gateway]\npaired_tokens = [\"a\"]");
    }
}
