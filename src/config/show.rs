//! The values in force as TOML, each with its origin.

use std::borrow::Cow;

use toml::Value;

use super::layers::{Layers, Origin};

const NOT_SHOWN: &str = "not-shown";

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
        text.push_str(&format!("{name} = {}  # {origin}\n", without_password(value)));
    }
    text
}

/// A proxy's URL may have one, or a token in place of a user's name.
fn without_password(value: &Value) -> Cow<'_, Value> {
    let url = value.as_str().and_then(|text| url::Url::parse(text).ok());
    let Some(mut url) = url.filter(|url| url.password().is_some() || !url.username().is_empty()) else {
        return Cow::Borrowed(value);
    };
    // Neither can fail: an address that has one of them may have another one.
    if url.password().is_some() {
        let _ = url.set_password(Some(NOT_SHOWN));
    } else {
        let _ = url.set_username(NOT_SHOWN);
    }
    Cow::Owned(Value::String(url.into()))
}
