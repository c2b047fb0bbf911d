//! The services that a user has logged in to, in `contexts.toml` of the user's configuration folder: 0600, for it has keys.

use std::collections::BTreeMap;
use std::fs::DirBuilder;
use std::io::ErrorKind;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::PathBuf;

use anyhow::Context as _;
use serde::{Deserialize, Serialize};

use super::outcome::Failure;
use super::output::plain;
use super::{Environment, private_file, variable};

#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Contexts {
    /// The one that verbs use unless another is named.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) current: Option<String>,
    #[serde(default)]
    pub(super) contexts: BTreeMap<String, Context>,
}

#[derive(Serialize, Deserialize)]
pub(super) struct Context {
    pub(super) url: String,
    pub(super) key: String,
}

impl std::fmt::Debug for Context {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Context").field("url", &self.url).finish_non_exhaustive()
    }
}

impl Contexts {
    /// None where there is no file yet.
    pub(super) fn read(environment: &Environment) -> Result<Self, Failure> {
        let Some(path) = path(environment) else { return Ok(Self::default()) };
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
                return Ok(Self::default());
            }
            Err(error) => return Err(Failure::Usage(format!("cannot read {}: {error}", path.display()))),
        };
        // Its text is not repeated: it has keys.
        toml::from_str(&text).map_err(|_| {
            Failure::Usage(format!("{} is damaged; remove it and run `zeroone login` again", path.display()))
        })
    }

    pub(super) fn write(&self, environment: &Environment) -> Result<PathBuf, Failure> {
        let path = path(environment)
            .ok_or_else(|| Failure::Usage("set HOME or XDG_CONFIG_HOME: that is where the login is kept".into()))?;
        let folder = path.parent().unwrap_or(&path);
        let folder_made = DirBuilder::new().recursive(true).mode(0o700).create(folder);
        folder_made.with_context(|| format!("cannot make {}", folder.display()))?;
        let text = toml::to_string(self).map_err(Failure::of)?;
        private_file::write(&path, &text).with_context(|| format!("cannot write {}", path.display()))?;
        Ok(path)
    }

    /// Adds or replaces a context and makes it the current one.
    pub(super) fn put(&mut self, name: &str, url: &str, key: &str) {
        self.contexts.insert(name.to_owned(), Context { url: url.to_owned(), key: key.to_owned() });
        self.current = Some(name.to_owned());
    }

    /// Whether there was one of this name.
    pub(super) fn remove(&mut self, name: &str) -> bool {
        if self.current.as_deref() == Some(name) {
            self.current = None;
        }
        self.contexts.remove(name).is_some()
    }

    /// The context of this name, or the current one if there is any.
    pub(super) fn choose(&self, name: Option<&str>) -> Result<Option<(&str, &Context)>, Failure> {
        let wanted = name.or(self.current.as_deref());
        let found = wanted.and_then(|wanted| self.contexts.get_key_value(wanted));
        match (name, found) {
            (Some(name), None) => {
                let known: Vec<_> = self.contexts.keys().map(String::as_str).collect();
                let known = if known.is_empty() { "there are none".into() } else { known.join(", ") };
                Err(Failure::Usage(format!("no context is called {}; known: {}", plain(name), plain(&known))))
            }
            (_, found) => Ok(found.map(|(name, context)| (name.as_str(), context))),
        }
    }
}

fn path(environment: &Environment) -> Option<PathBuf> {
    let set = |name| variable(environment, name).filter(|value| !value.is_empty());
    let base = set("XDG_CONFIG_HOME")
        .map(PathBuf::from)
        .or_else(|| set("HOME").map(|home| PathBuf::from(home).join(".config")));
    base.map(|base| base.join("zeroone/contexts.toml"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_login_is_kept_private_and_found_again() {
        use std::os::unix::fs::PermissionsExt as _;
        let home = tempfile::TempDir::new().unwrap();
        let environment = vec![("HOME".to_owned(), home.path().to_str().unwrap().to_owned())];
        let mut contexts = Contexts::read(&environment).unwrap();
        assert!(contexts.choose(None).unwrap().is_none());
        contexts.put("a", "http://a", "zo_planted");
        contexts.put("b", "http://b", "zo_b");
        let file = contexts.write(&environment).unwrap();
        assert_eq!(file.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(file.parent().unwrap().metadata().unwrap().permissions().mode() & 0o777, 0o700);
        let mut read = Contexts::read(&environment).unwrap();
        assert_eq!(read.choose(None).unwrap().map(|(name, context)| (name, &*context.url)), Some(("b", "http://b")));
        assert_eq!(read.choose(Some("a")).unwrap().map(|(_, context)| &*context.key), Some("zo_planted"));
        assert!(!format!("{read:?}").contains("planted"));
        assert!(read.remove("b") && read.choose(None).unwrap().is_none() && !read.remove("b"));
        let said = read.choose(Some("c")).unwrap_err().to_string();
        assert_eq!(said, "no context is called c; known: a");
        std::fs::write(&file, "zo_secret = ").unwrap();
        assert!(!Contexts::read(&environment).unwrap_err().to_string().contains("zo_secret"));
    }
}
