//! Which service a verb talks to, and with which key: flags, then the environment, then the contexts of `zeroone login`,
//! then the data folder beside it.

use std::path::{Path, PathBuf};

use crate::cli::contexts::Contexts;
use crate::cli::outcome::Failure;
use crate::cli::{Environment, variable};

pub(super) const DEFAULT_URL: &str = "http://127.0.0.1:3001";
/// What `zeroone serve` makes in the folder that it is started in.
const DEFAULT_DATA: &str = "./zeroone-data";
const ADMIN_KEY: &str = "admin.key";

/// An API key and where it was found, for messages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::cli) struct Key {
    pub(in crate::cli) text: String,
    pub(in crate::cli) origin: String,
}

/// What the command line says about it.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Flags<'a> {
    pub(super) url: Option<&'a str>,
    pub(super) context: Option<&'a str>,
    pub(super) key_file: Option<&'a Path>,
    pub(super) data: Option<&'a Path>,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) struct Origin {
    pub(super) url: String,
    pub(super) key: Option<Key>,
}

impl Origin {
    pub(super) fn find(flags: Flags<'_>, environment: &Environment) -> Result<Self, Failure> {
        let set = |name: &str| variable(environment, name).filter(|value| !value.is_empty());
        let named = flags.context.or(set("ZEROONE_CONTEXT"));
        let url = flags.url.or(set("ZEROONE_URL"));
        let contexts = Contexts::read(environment)?;
        // A data folder that is named is a choice of its own.
        let context = if named.is_some() || flags.data.is_none() { contexts.choose(named)? } else { None };
        let url = url.or(context.map(|(_, context)| context.url.as_str())).unwrap_or(DEFAULT_URL);
        let url = url.trim_end_matches('/');
        let url = url.strip_suffix("/api").unwrap_or(url).trim_end_matches('/');
        let key = match (flags.key_file, set("ZEROONE_API_KEY"), flags.data) {
            (Some(file), _, _) => Some(must_read(file)?),
            (None, _, Some(data)) => Some(must_read(&data.join(ADMIN_KEY))?),
            (None, Some(text), None) => Some(Key { text: text.trim().to_owned(), origin: "ZEROONE_API_KEY".into() }),
            // A key goes to the service that it was given for, and to no other.
            (None, None, None) => match context.filter(|(_, context)| context.url == url) {
                Some((name, context)) => {
                    Some(Key { text: context.key.clone(), origin: format!("the context {name} of `zeroone login`") })
                }
                // What lies in this folder is a key of this machine's.
                None => key_in(Path::new(DEFAULT_DATA)).filter(|_| is_local(url)),
            },
        };
        Ok(Self { url: url.to_owned(), key })
    }
}

fn is_local(url: &str) -> bool {
    match url::Url::parse(url).ok().as_ref().and_then(url::Url::host) {
        Some(url::Host::Domain(name)) => name == "localhost",
        Some(url::Host::Ipv4(ip)) => ip.is_loopback(),
        Some(url::Host::Ipv6(ip)) => ip.is_loopback(),
        None => false,
    }
}

/// The administrator's key of a data folder, if it has one that can be read.
pub(super) fn key_in(data: &Path) -> Option<Key> {
    read(&data.join(ADMIN_KEY)).ok()
}

fn must_read(file: &Path) -> Result<Key, Failure> {
    read(file).map_err(|error| Failure::Usage(format!("cannot read the key file {}: {error}", file.display())))
}

fn read(file: &Path) -> std::io::Result<Key> {
    let text = std::fs::read_to_string(file)?.trim().to_owned();
    Ok(Key { text, origin: PathBuf::from(file).display().to_string() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn environment(folder: &Path, more: &[(&str, &str)]) -> Environment {
        let home = ("XDG_CONFIG_HOME", folder.to_str().unwrap());
        more.iter().chain([&home]).map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn the_key_beside_us_is_for_this_machine() {
        for (url, local) in [
            ("http://127.0.0.1:3001", true),
            ("http://[::1]:3001", true),
            ("http://[::1]", true),
            ("http://127.0.0.1", true),
            ("http://localhost@192.0.2.1", false),
            ("http://localhost", true),
            ("https://localhost.example.org", false),
            ("http://10.0.0.1:3001", false),
        ] {
            assert_eq!(is_local(url), local, "{url}");
        }
    }

    #[test]
    fn flags_come_before_the_environment_and_that_before_a_context() {
        let folder = tempfile::TempDir::new().unwrap();
        let file = folder.path().join("key");
        std::fs::write(&file, "zo_file\n").unwrap();
        let found = |flags: Flags<'_>, more: &[(&str, &str)]| {
            let origin = Origin::find(flags, &environment(folder.path(), more)).unwrap();
            (origin.url, origin.key.map(|key| key.text))
        };
        let text = |url: &str, key: Option<&str>| (url.to_owned(), key.map(str::to_owned));
        assert_eq!(found(Flags::default(), &[]), text(DEFAULT_URL, None));
        let mut contexts = Contexts::read(&environment(folder.path(), &[])).unwrap();
        contexts.put("prod", "http://prod", "zo_prod");
        contexts.write(&environment(folder.path(), &[])).unwrap();
        assert_eq!(found(Flags::default(), &[]), text("http://prod", Some("zo_prod")));
        let both = [("ZEROONE_URL", "http://env/api/"), ("ZEROONE_API_KEY", "zo_env")];
        assert_eq!(found(Flags::default(), &both), text("http://env", Some("zo_env")));
        assert_eq!(found(Flags::default(), &both[..1]), text("http://env", None), "no context's key to another place");
        let flags = Flags { url: Some("http://flag"), key_file: Some(&file), ..Flags::default() };
        assert_eq!(found(flags, &both), text("http://flag", Some("zo_file")));
        assert_eq!(found(Flags { context: Some("prod"), ..flags }, &[]), text("http://flag", Some("zo_file")));
        let unknown = Flags { context: Some("none"), ..Flags::default() };
        assert!(Origin::find(unknown, &environment(folder.path(), &[])).is_err());
    }
}
