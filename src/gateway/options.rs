//! What the gateway takes from its command line and environment: ZeroClaw's contract, read in this place only.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tracing::level_filters::LevelFilter;

use super::config_keys::{is_service_link, judge_variables};
use crate::domain::{Provider, Secret};

/// Where the gateway lives, and what overrides its `config.toml`.
#[derive(Debug, Clone)]
pub struct Options {
    folder: PathBuf,
    workspace: PathBuf,
    overrides: Overrides,
    log_level: LevelFilter,
    /// The environment, for `${NAME}` in `config.toml`.
    variables: Arc<HashMap<String, Secret<String>>>,
    warnings: Vec<String>,
}

/// Values that win over the file.
#[derive(Debug, Clone, Default)]
pub(super) struct Overrides {
    pub(super) api_key: Option<Secret<String>>,
    /// `OPENAI_API_KEY` and its like: for that provider alone, and weaker than `API_KEY`.
    pub(super) provider_keys: BTreeMap<Provider, Secret<String>>,
    /// `ZEROCLAW_PROVIDER`: always wins.
    pub(super) provider: Option<String>,
    /// `PROVIDER`: wins only over a file that names none, or `openrouter`.
    pub(super) default_provider: Option<String>,
    /// `ZEROCLAW_PROVIDER_URL`: where the provider is.
    pub(super) provider_url: Option<String>,
    pub(super) model: Option<String>,
    pub(super) temperature: Option<f64>,
    pub(super) port: Option<u16>,
    pub(super) host: Option<String>,
    pub(super) allow_public_bind: Option<bool>,
    pub(super) require_pairing: Option<bool>,
    pub(super) request_timeout_secs: Option<u64>,
    /// The machine's zone by `TZ`, as it is written there.
    pub(super) timezone: Option<String>,
}

/// A command line or environment that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UsageError {
    /// The gateway has no such argument.
    #[error("unknown argument {0}; usage: zeroone gateway [--port PORT] [--host ADDRESS]")]
    UnknownArgument(String),
    /// The command line ends behind this argument.
    #[error("{0} must be followed by a value")]
    MissingValue(String),
    /// What the argument or variable of this name says is no port.
    #[error("{0} must be a port number, 0 to 65535")]
    Port(String),
    /// What the variable of this name says is no number, or is 0.
    #[error("{0} must be a whole number of at least 1")]
    Number(String),
    /// What the variable of this name says is neither true nor false.
    #[error("{0} must be true or false")]
    Switch(String),
    /// Neither `HOME` nor `ZEROCLAW_CONFIG_DIR` is set.
    #[error("HOME is not set, and there is no other place for the configuration")]
    NoHome,
}

impl Options {
    /// A gateway that lives in `home` and takes nothing from the environment.
    pub fn new(home: impl Into<PathBuf>) -> Self {
        let folder = home.into().join(".zeroclaw");
        Self {
            workspace: folder.join("workspace"),
            folder,
            overrides: Overrides::default(),
            log_level: LevelFilter::INFO,
            variables: Arc::default(),
            warnings: vec![],
        }
    }

    /// A gateway with these variables, whose folder is not there.
    #[cfg(test)]
    pub(super) fn with_environment(variables: &[(&str, &str)]) -> Self {
        let variables = variables.iter().chain(&[("HOME", "/nowhere")]);
        let variables = variables.map(|(name, value)| ((*name).to_owned(), Secret::from(*value))).collect();
        Self::read([], variables).unwrap()
    }

    /// Reads the process environment and the arguments after `gateway`; arguments win.
    ///
    /// # Errors
    /// See [`UsageError`].
    pub fn from_env(args: impl IntoIterator<Item = String>) -> Result<Self, UsageError> {
        // A variable that is not UTF-8 cannot be one of ours.
        let text = |(name, value): (std::ffi::OsString, std::ffi::OsString)| {
            Some((name.into_string().ok()?, Secret::new(value.into_string().ok()?)))
        };
        let mut variables: HashMap<String, Secret<String>> = std::env::vars_os().filter_map(text).collect();
        if let Some(zone) = variables.get("TZ").and_then(|zone| linked_zone(zone.expose())) {
            variables.insert("TZ".to_owned(), Secret::new(zone));
        }
        Self::read(args, variables)
    }

    fn read(
        args: impl IntoIterator<Item = String>,
        variables: HashMap<String, Secret<String>>,
    ) -> Result<Self, UsageError> {
        let set = |names: &[&'static str]| {
            let found = |name: &&'static str| Some((*name, unquoted(variables.get(*name)?.expose()).to_owned()));
            names.iter().filter_map(found).find(|(_, value)| !value.is_empty())
        };
        let text = |names: &[&'static str]| set(names).map(|(_, value)| value);
        let given = Arguments::read(args)?;
        let folder = given.folder.or_else(|| text(&["ZEROCLAW_CONFIG_DIR"]).map(PathBuf::from));
        let mut options = match (folder, text(&["HOME"])) {
            (Some(folder), _) => Self { folder, ..Self::new("") },
            (None, Some(home)) => Self::new(home),
            (None, None) => return Err(UsageError::NoHome),
        };
        options.workspace =
            text(&["ZEROCLAW_WORKSPACE"]).map_or_else(|| options.folder.join("workspace"), PathBuf::from);
        let mut warnings = judge_variables(variables.keys().map(String::as_str));
        // Kubernetes sets <SERVICE>_PORT=tcp://… for every Service of the namespace, also for one called zeroclaw-gateway.
        let linked = |value: &str| ["tcp://", "udp://", "sctp://"].iter().any(|scheme| value.starts_with(scheme));
        let port_set =
            ["ZEROCLAW_GATEWAY_PORT", "PORT"].into_iter().filter_map(|name| set(&[name])).find(|(name, value)| {
                let link = linked(value);
                if link {
                    warnings.push(format!(
                        "{name} is the address of a Kubernetes Service and is passed over; it should be a port number"
                    ));
                }
                !link
            });
        let temperature = text(&["ZEROCLAW_TEMPERATURE"]).map(|value| value.parse());
        if matches!(temperature, Some(Err(_))) {
            warnings.push("ZEROCLAW_TEMPERATURE is no number and is passed over".to_owned());
        }
        options.overrides = Overrides {
            api_key: text(&["ZEROCLAW_API_KEY", "API_KEY"]).map(|key| Secret::new(bare_key(&key))),
            provider_keys: Provider::ALL
                .iter()
                .copied()
                .filter_map(|provider| {
                    let name = format!("{}_API_KEY", provider.as_str().to_ascii_uppercase());
                    let key = bare_key(variables.get(&name)?.expose());
                    (!key.is_empty()).then(|| (provider, Secret::new(key)))
                })
                .collect(),
            provider: text(&["ZEROCLAW_PROVIDER", "ZEROCLAW_MODEL_PROVIDER"]),
            default_provider: text(&["PROVIDER", "MODEL_PROVIDER"]),
            provider_url: text(&["ZEROCLAW_PROVIDER_URL", "ZEROCLAW_API_URL"]),
            model: text(&["ZEROCLAW_MODEL", "MODEL"]),
            temperature: temperature.and_then(Result::ok),
            port: port_set.map(|(name, value)| port(name, &value)).transpose()?,
            host: text(&["ZEROCLAW_GATEWAY_HOST"]),
            allow_public_bind: set(&["ZEROCLAW_ALLOW_PUBLIC_BIND"])
                .map(|(name, value)| switch(name, &value))
                .transpose()?,
            require_pairing: set(&["ZEROCLAW_REQUIRE_PAIRING"])
                .map(|(name, value)| switch(name, &value))
                .transpose()?,
            request_timeout_secs: set(&["ZEROCLAW_GATEWAY_TIMEOUT_SECS"])
                .map(|(name, value)| {
                    value.parse().ok().filter(|secs| *secs > 0).ok_or_else(|| UsageError::Number(name.into()))
                })
                .transpose()?,
            timezone: text(&["TZ"]),
        };
        if let Some(level) = text(&["RUST_LOG"]).and_then(|value| value.parse().ok()) {
            options.log_level = level;
        }
        options.warnings = warnings;
        options.overrides.port = given.port.or(options.overrides.port);
        options.overrides.host = given.host.or(options.overrides.host);
        options.variables = Arc::new(variables);
        Ok(options)
    }

    /// Listens on this port instead of the configured one; 0 lets the system choose.
    #[must_use]
    pub fn port(mut self, port: u16) -> Self {
        self.overrides.port = Some(port);
        self
    }

    /// Listens on this address instead of the configured one.
    #[must_use]
    pub fn host(mut self, host: impl Into<String>) -> Self {
        self.overrides.host = Some(host.into());
        self
    }

    /// Whether somebody set something up: there is a `config.toml`, or the environment names a provider, key or model.
    pub fn is_set_up(&self) -> bool {
        let Overrides { api_key, provider, default_provider, provider_url, model, .. } = &self.overrides;
        let named = [provider, default_provider, provider_url, model].into_iter().any(Option::is_some);
        named || api_key.is_some() || self.key_variables().next().is_some() || self.config_path().exists()
    }

    /// `config.toml`.
    pub fn config_path(&self) -> PathBuf {
        self.folder.join("config.toml")
    }

    /// The folder of `config.toml`.
    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    /// A variable of the environment.
    pub(super) fn variable(&self, name: &str) -> Option<String> {
        self.variables.get(name).map(|value| value.expose().clone())
    }

    /// The variables of ZeroClaw 0.8 that name a key.
    pub(super) fn key_variables(&self) -> impl Iterator<Item = (&str, &str)> {
        let named = self.variables.iter().filter(|(name, _)| super::config_env::path_of(name).is_some());
        named.filter(|(name, _)| !is_service_link(name)).map(|(name, value)| (name.as_str(), value.expose().as_str()))
    }

    /// What of the environment is passed over, and why.
    pub(super) fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// The folder with the persona files, memory and the agent's own files.
    pub fn workspace(&self) -> &Path {
        &self.workspace
    }

    pub(super) const fn overrides(&self) -> &Overrides {
        &self.overrides
    }

    pub(super) const fn log_level(&self) -> LevelFilter {
        self.log_level
    }
}

/// What the command line says.
#[derive(Default)]
struct Arguments {
    port: Option<u16>,
    host: Option<String>,
    folder: Option<PathBuf>,
}

impl Arguments {
    fn read(args: impl IntoIterator<Item = String>) -> Result<Self, UsageError> {
        let mut read = Self::default();
        let mut args = args.into_iter();
        while let Some(arg) = args.next() {
            let (flag, attached) = split_flag(&arg);
            let missing = || UsageError::MissingValue(flag.to_owned());
            let mut value = || match attached {
                Some(value) => Some(value.to_owned()).filter(|value| !value.is_empty()).ok_or_else(missing),
                None => args.next().ok_or_else(missing),
            };
            match flag {
                "--port" | "-p" => read.port = Some(port("--port", &value()?)?),
                "--host" => read.host = Some(value()?),
                "--config-dir" => read.folder = Some(value()?.into()),
                _ => return Err(UsageError::UnknownArgument(arg)),
            }
        }
        Ok(read)
    }
}

/// Where a `TZ` leads that is a file outside of the zones' folder, such as `:/etc/localtime`.
fn linked_zone(zone: &str) -> Option<String> {
    let path = Path::new(zone.trim().trim_start_matches(':'));
    let real = path.is_absolute().then(|| path.canonicalize().ok()).flatten()?;
    real.into_os_string().into_string().ok().filter(|real| !zone.contains("/zoneinfo/") && real.contains("/zoneinfo/"))
}

/// A flag and the value that is attached to it: `--port=1`, `-p1`, `-p=1`.
fn split_flag(arg: &str) -> (&str, Option<&str>) {
    let (short, attached) = arg.split_at_checked(2).unwrap_or((arg, ""));
    match arg.split_once('=') {
        Some((flag, value)) if flag.starts_with("--") => (flag, Some(value)),
        _ if short == "-p" && !attached.is_empty() => ("-p", Some(attached.strip_prefix('=').unwrap_or(attached))),
        _ => (arg, None),
    }
}

/// A value without blanks and one pair of quotes around it: `docker --env-file` keeps those that a shell would take off.
fn unquoted(value: &str) -> &str {
    let value = value.trim();
    let inner = ['"', '\''].iter().find_map(|quote| value.strip_prefix(*quote)?.strip_suffix(*quote));
    inner.map_or(value, str::trim)
}

/// A provider's key without what people copy along with it: quotes, and the scheme of the header that it is sent in.
pub(super) fn bare_key(value: &str) -> String {
    let key = unquoted(value);
    match key.split_once(char::is_whitespace) {
        Some((scheme, key)) if scheme.eq_ignore_ascii_case("bearer") => key.trim().to_owned(),
        _ => key.to_owned(),
    }
}

fn port(name: &str, value: &str) -> Result<u16, UsageError> {
    value.parse().map_err(|_| UsageError::Port(name.to_owned()))
}

pub(super) fn switch(name: &str, value: &str) -> Result<bool, UsageError> {
    match value.trim().to_ascii_lowercase().as_str() {
        "1" | "true" | "yes" | "on" => Ok(true),
        "0" | "false" | "no" | "off" => Ok(false),
        _ => Err(UsageError::Switch(name.to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(args: &[&str], env: &[(&str, &str)]) -> Result<Options, UsageError> {
        let variables = env.iter().map(|(name, value)| ((*name).to_owned(), Secret::from(*value))).collect();
        Options::read(args.iter().map(|arg| (*arg).to_owned()), variables)
    }

    #[test]
    fn the_environment_of_zeroclaw_is_understood_and_arguments_win() {
        let env = [
            ("HOME", "/zeroclaw-data"),
            ("ZEROCLAW_WORKSPACE", "/zeroclaw-data/workspace"),
            ("API_KEY", "sk-planted"),
            ("PROVIDER", "groq"),
            ("ZEROCLAW_MODEL", "m"),
            ("ZEROCLAW_GATEWAY_PORT", "1"),
            ("ZEROCLAW_ALLOW_PUBLIC_BIND", "TRUE"),
        ];
        let options = read(&["--port", "2"], &env).unwrap();
        assert_eq!(options.config_path(), Path::new("/zeroclaw-data/.zeroclaw/config.toml"));
        assert_eq!(options.workspace(), Path::new("/zeroclaw-data/workspace"));
        assert_eq!(options.overrides.port, Some(2));
        assert_eq!(options.overrides.allow_public_bind, Some(true));
        assert_eq!(options.overrides.default_provider.as_deref(), Some("groq"));
        assert!(!format!("{options:?}").contains("sk-planted"));
    }

    #[test]
    fn a_value_may_be_attached_to_its_flag() {
        for (args, port) in [
            (&["--port=7"][..], Some(7)),
            (&["-p7"], Some(7)),
            (&["-p=7"], Some(7)),
            (&["-p", "7"], Some(7)),
            (&["--host=0.0.0.0"], None),
        ] {
            let options = read(args, &[("HOME", "/h")]).unwrap();
            assert_eq!(options.overrides.port, port, "{args:?}");
            assert_eq!(options.overrides.host.is_some(), port.is_none(), "{args:?}");
        }
        for (env, workspace) in [
            (&[("HOME", "/h")][..], "/d/workspace"),
            (&[], "/d/workspace"),
            (&[("ZEROCLAW_CONFIG_DIR", "/c"), ("ZEROCLAW_WORKSPACE", "/w")], "/w"),
        ] {
            let options = read(&["--config-dir=/d"], env).unwrap();
            assert_eq!(options.config_path(), Path::new("/d/config.toml"), "{env:?}");
            assert_eq!(options.workspace(), Path::new(workspace), "{env:?}");
        }
        for (arg, error) in [
            ("--port=", UsageError::MissingValue("--port".into())),
            ("--port=x", UsageError::Port("--port".into())),
            ("--prot=7", UsageError::UnknownArgument("--prot=7".into())),
            ("-x7", UsageError::UnknownArgument("-x7".into())),
        ] {
            assert_eq!(read(&[arg], &[("HOME", "/h")]).unwrap_err(), error);
        }
    }

    #[test]
    fn quotes_and_the_scheme_of_a_header_are_no_part_of_a_key() {
        for value in ["sk-1", " sk-1\r\n", "\"sk-1\"", "'sk-1'", "Bearer sk-1", "'bearer  sk-1 '", "\" sk-1 \""] {
            let env = [("HOME", "/h"), ("API_KEY", value), ("GROQ_API_KEY", value)];
            let overrides = read(&[], &env).unwrap().overrides;
            assert_eq!(overrides.api_key.unwrap().expose(), "sk-1", "{value}");
            assert_eq!(overrides.provider_keys.values().next().unwrap().expose(), "sk-1", "{value}");
        }
        // One pair and no more; what is inside stays.
        for (value, key) in [("\"\"sk\"\"", "\"sk\""), ("\"sk", "\"sk"), ("Bearer", "Bearer"), ("Bearersk", "Bearersk")]
        {
            assert_eq!(bare_key(value), key);
        }
        let env = [("HOME", "/h"), ("API_KEY", "\"\""), ("ZEROCLAW_MODEL", "\"m\""), ("PORT", "'7'")];
        let overrides = read(&[], &env).unwrap().overrides;
        assert!(overrides.api_key.is_none());
        assert_eq!((overrides.model.as_deref(), overrides.port), (Some("m"), Some(7)));
    }

    #[test]
    fn what_cannot_be_used_is_named() {
        let home = [("HOME", "/h")];
        assert_eq!(read(&[], &[]).unwrap_err(), UsageError::NoHome);
        assert_eq!(read(&["--port"], &home).unwrap_err(), UsageError::MissingValue("--port".into()));
        assert_eq!(read(&["--port", "70000"], &home).unwrap_err(), UsageError::Port("--port".into()));
        assert_eq!(read(&["--prot"], &home).unwrap_err(), UsageError::UnknownArgument("--prot".into()));
        assert_eq!(read(&[], &[("HOME", "/h"), ("PORT", "x")]).unwrap_err(), UsageError::Port("PORT".into()));
        let switch = [("HOME", "/h"), ("ZEROCLAW_REQUIRE_PAIRING", "maybe")];
        assert_eq!(read(&[], &switch).unwrap_err(), UsageError::Switch("ZEROCLAW_REQUIRE_PAIRING".into()));
        let warm = read(&[], &[("HOME", "/h"), ("ZEROCLAW_TEMPERATURE", "warm")]).unwrap();
        assert!(warm.overrides.temperature.is_none() && warm.warnings()[0].contains("ZEROCLAW_TEMPERATURE"));
        let timeout = [("HOME", "/h"), ("ZEROCLAW_GATEWAY_TIMEOUT_SECS", "0")];
        assert_eq!(read(&[], &timeout).unwrap_err(), UsageError::Number("ZEROCLAW_GATEWAY_TIMEOUT_SECS".into()));
    }

    #[test]
    fn the_address_of_a_service_is_no_port() {
        let links = [
            ("HOME", "/h"),
            ("ZEROCLAW_GATEWAY_PORT", "tcp://10.0.0.1:42617"),
            ("PORT", "udp://10.0.0.1:53"),
            ("ZEROCLAW_GATEWAY_SERVICE_HOST", "10.0.0.1"),
            ("ZEROCLAW_GATEWAY_PORT_42617_TCP_PROTO", "tcp"),
        ];
        let options = read(&[], &links).unwrap();
        assert_eq!(options.overrides.port, None);
        assert!(options.warnings().iter().all(|warning| warning.contains("_PORT") || warning.starts_with("PORT")));
        assert_eq!(options.warnings().len(), 2, "{:?}", options.warnings());
        // A link in one variable leaves the other one in force.
        let both = [("HOME", "/h"), ("ZEROCLAW_GATEWAY_PORT", "tcp://10.0.0.1:42617"), ("PORT", "7")];
        assert_eq!(read(&[], &both).unwrap().overrides.port, Some(7));
    }

    #[test]
    fn the_folder_can_be_named() {
        let options = read(&[], &[("ZEROCLAW_CONFIG_DIR", "/c")]).unwrap();
        assert_eq!(
            (options.config_path(), options.workspace()),
            (PathBuf::from("/c/config.toml"), Path::new("/c/workspace"))
        );
        let options = read(&["--config-dir", "/d"], &[("HOME", "/h"), ("ZEROCLAW_WORKSPACE", "/w")]).unwrap();
        assert_eq!((options.config_path(), options.workspace()), (PathBuf::from("/d/config.toml"), Path::new("/w")));
    }
}
