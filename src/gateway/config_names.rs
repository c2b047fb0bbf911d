//! Keys that have several names in the files of the world: versions of ZeroClaw and its kin differ. A file may have more than
//! one name of a list, and then means all of it; of a text it means the one that we know it by.

use toml::{Table, Value};

/// Table, our name, other names.
const LISTS: [(&str, &str, &[&str]); 2] = [
    ("gateway", "cors_origins", &["cors_allowed_origins", "allowed_origins", "cors"]),
    ("autonomy", "excluded_tools", &["non_cli_excluded_tools"]),
];

/// Our name, ZeroClaw's other name. Only in files of the first schema: later ones have tables of their own for this.
const TEXTS: [(&str, &str); 2] = [("default_provider", "model_provider"), ("default_model", "model")];

/// Puts texts of the first schema that stand under other names to our own.
pub(super) fn rename(document: &mut Table, notes: &mut Vec<String>) {
    if document.get("schema_version").and_then(Value::as_integer).is_some_and(|version| version > 1) {
        return;
    }
    for (ours, other) in TEXTS {
        match document.get(other) {
            Some(Value::String(_)) if document.contains_key(ours) => {
                notes.push(format!(
                    "{other} is another name of {ours}, which is set too and is used; remove one of them"
                ));
                document.remove(other);
            }
            Some(Value::String(_)) => {
                if let Some(text) = document.remove(other) {
                    document.insert(ours.to_owned(), text);
                }
            }
            Some(_) | None => {}
        }
    }
}

/// Puts lists that stand under other names to our own.
pub(super) fn unite(document: &mut Table) {
    for (section, ours, others) in LISTS {
        let Some(table) = document.get_mut(section).and_then(Value::as_table_mut) else { continue };
        for other in others {
            match (table.remove(*other), table.get_mut(ours)) {
                (None, _) => {}
                (Some(Value::Array(more)), Some(Value::Array(list))) => {
                    let new: Vec<Value> = more.into_iter().filter(|value| !list.contains(value)).collect();
                    list.extend(new);
                }
                // Whatever is no list is refused by its type, under our name.
                (Some(value), _) => drop(table.insert(ours.to_owned(), value)),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn united(text: &str) -> String {
        let mut document: Table = text.parse().unwrap();
        unite(&mut document);
        document.to_string()
    }

    fn renamed(text: &str) -> (String, usize) {
        let (mut document, mut notes): (Table, _) = (text.parse().unwrap(), Vec::new());
        rename(&mut document, &mut notes);
        (document.to_string(), notes.len())
    }

    #[test]
    fn provider_and_model_have_two_names_in_the_first_schema() {
        for number in ["", "schema_version = 1\n"] {
            let text = format!("{number}model = \"m\"\nmodel_provider = \"groq\"\n");
            let ours = format!("default_model = \"m\"\ndefault_provider = \"groq\"\n{number}");
            assert_eq!(renamed(&text), (ours, 0));
        }
        let both = "default_model = \"m\"\nmodel = \"other\"\n";
        assert_eq!(renamed(both), ("default_model = \"m\"\n".to_owned(), 1));
        for unchanged in ["model = \"m\"\nschema_version = 2\n", "[model]\nname = \"m\"\n"] {
            assert_eq!(renamed(unchanged), (unchanged.to_owned(), 0));
        }
    }

    #[test]
    fn all_names_of_a_list_mean_one() {
        let text = "[gateway]\nallowed_origins = [\"a\", \"b\"]\ncors_origins = [\"b\", \"c\"]\ncors = [\"a\"]\n";
        assert_eq!(united(text), "[gateway]\ncors_origins = [\"b\", \"c\", \"a\"]\n");
        assert_eq!(united("[autonomy]\nnon_cli_excluded_tools = [\"x\"]\n"), "[autonomy]\nexcluded_tools = [\"x\"]\n");
        assert_eq!(united("[gateway]\ncors = true\n"), "[gateway]\ncors_origins = true\n");
        assert_eq!(united("[gateway]\nport = 1\n"), "[gateway]\nport = 1\n");
    }
}
