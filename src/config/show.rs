//! The values in force as TOML, each with its origin.

use super::layers::{Layers, Origin};

pub(super) fn toml(layers: &Layers) -> String {
    let mut text = String::new();
    let mut section = "";
    for (key, value, origin) in layers.iter() {
        let (in_section, name) = key.split_once('.').unwrap_or(("", key));
        if in_section != section {
            section = in_section;
            text.push_str(&format!("\n[{section}]\n"));
        }
        let origin = match origin {
            Origin::Default => "default".to_owned(),
            Origin::File(name) | Origin::Variable(name) => name.clone(),
            Origin::Flag(name) => (*name).to_owned(),
        };
        text.push_str(&format!("{name} = {value}  # {origin}\n"));
    }
    text
}
