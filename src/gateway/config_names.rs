//! Lists that have several names in the files of the world: versions of ZeroClaw and its kin differ. A file may have more than
//! one of them, and then means all of it.

use toml::{Table, Value};

/// Table, our name, other names.
const LISTS: [(&str, &str, &[&str]); 2] = [
    ("gateway", "cors_origins", &["cors_allowed_origins", "allowed_origins", "cors"]),
    ("autonomy", "excluded_tools", &["non_cli_excluded_tools"]),
];

/// Puts what stands under other names to our own.
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

    #[test]
    fn all_names_of_a_list_mean_one() {
        let text = "[gateway]\nallowed_origins = [\"a\", \"b\"]\ncors_origins = [\"b\", \"c\"]\ncors = [\"a\"]\n";
        assert_eq!(united(text), "[gateway]\ncors_origins = [\"b\", \"c\", \"a\"]\n");
        assert_eq!(united("[autonomy]\nnon_cli_excluded_tools = [\"x\"]\n"), "[autonomy]\nexcluded_tools = [\"x\"]\n");
        assert_eq!(united("[gateway]\ncors = true\n"), "[gateway]\ncors_origins = true\n");
        assert_eq!(united("[gateway]\nport = 1\n"), "[gateway]\nport = 1\n");
    }
}
