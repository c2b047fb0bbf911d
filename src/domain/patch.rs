//! What happens to one field: it stays, is cleared, or gets a value.

use serde::{Deserialize, Deserializer};

/// A change of one field. In JSON an absent field stays, `null` clears it, anything else is its new value.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Patch<T> {
    /// The field stays as it is.
    #[default]
    Keep,
    /// The field is emptied, or gets its default.
    Clear,
    /// The field gets this value.
    Set(T),
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Patch<T> {
    /// Called only for fields that are present; `#[serde(default)]` provides `Keep` for the others.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Option::<T>::deserialize(deserializer).map(|value| value.map_or(Self::Clear, Self::Set))
    }
}

impl<T> From<T> for Patch<T> {
    fn from(value: T) -> Self {
        Self::Set(value)
    }
}

impl From<&str> for Patch<String> {
    fn from(value: &str) -> Self {
        Self::Set(value.to_owned())
    }
}

impl<T> Patch<T> {
    /// The change as nested options: `None` keeps, `Some(None)` clears.
    pub fn into_option(self) -> Option<Option<T>> {
        match self {
            Self::Keep => None,
            Self::Clear => Some(None),
            Self::Set(value) => Some(Some(value)),
        }
    }

    /// The value of something new, where there is nothing to keep.
    pub fn into_value(self) -> Option<T> {
        self.into_option().flatten()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn absent_keeps_and_null_clears() {
        #[derive(Deserialize)]
        struct Body {
            #[serde(default)]
            field: Patch<String>,
        }
        for (body, patch) in [
            ("{}", Patch::Keep),
            (r#"{"field": null}"#, Patch::Clear),
            (r#"{"field": "x"}"#, Patch::Set("x".to_owned())),
        ] {
            assert_eq!(serde_json::from_str::<Body>(body).unwrap().field, patch, "{body}");
        }
    }
}
