//! What the gateway takes from its command line and environment: ZeroClaw 0.1.7's contract, read in this place only.

use std::path::{Path, PathBuf};

use tracing::level_filters::LevelFilter;

use crate::domain::Secret;

/// Where the gateway lives, and what overrides its `config.toml`.
#[derive(Debug, Clone)]
pub struct Options {
    home: PathBuf,
    workspace: PathBuf,
    overrides: Overrides,
    log_level: LevelFilter,
}

/// Values that win over the file.
#[derive(Debug, Clone, Default)]
pub(super) struct Overrides {
    pub(super) api_key: Option<Secret<String>>,
    /// `ZEROCLAW_PROVIDER`: always wins.
    pub(super) provider: Option<String>,
    /// `PROVIDER`: wins only over a file that names none, or `openrouter`.
    pub(super) default_provider: Option<String>,
    pub(super) model: Option<String>,
    pub(super) temperature: Option<f64>,
    pub(super) port: Option<u16>,
    pub(super) host: Option<String>,
    pub(super) allow_public_bind: Option<bool>,
}

/// A command line or environment that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UsageError {
    #[error("unknown argument {0}; usage: zeroone gateway [--port PORT] [--host ADDRESS]")]
    UnknownArgument(String),
    #[error("{0} must be followed by a value")]
    MissingValue(String),
    #[error("{0} must be a port number, 0 to 65535")]
    Port(String),
    #[error("HOME is not set, and there is no other place for the configuration")]
    NoHome,
}

impl Options {
    /// A gateway that lives in `home` and takes nothing from the environment.
    pub fn new(home: impl Into<PathBuf>) -> Self {
        let home = home.into();
        let workspace = home.join(".zeroclaw/workspace");
        Self { home, workspace, overrides: Overrides::default(), log_level: LevelFilter::INFO }
    }

    /// Reads the process environment and the arguments after `gateway`; arguments win.
    ///
    /// # Errors
    /// See [`UsageError`].
    pub fn from_env(args: impl IntoIterator<Item = String>) -> Result<Self, UsageError> {
        Self::read(args, |name| std::env::var(name).ok())
    }

    fn read(
        args: impl IntoIterator<Item = String>,
        variable: impl Fn(&str) -> Option<String>,
    ) -> Result<Self, UsageError> {
        let set = |names: &[&str]| names.iter().find_map(|name| variable(name).filter(|value| !value.is_empty()));
        let mut options = Self::new(set(&["HOME"]).ok_or(UsageError::NoHome)?);
        if let Some(workspace) = set(&["ZEROCLAW_WORKSPACE"]) {
            options.workspace = workspace.into();
        }
        options.overrides = Overrides {
            api_key: set(&["ZEROCLAW_API_KEY", "API_KEY"]).map(Secret::new),
            provider: set(&["ZEROCLAW_PROVIDER"]),
            default_provider: set(&["PROVIDER"]),
            model: set(&["ZEROCLAW_MODEL", "MODEL"]),
            temperature: set(&["ZEROCLAW_TEMPERATURE"]).and_then(|value| value.parse().ok()),
            port: set(&["ZEROCLAW_GATEWAY_PORT", "PORT"])
                .map(|value| port("ZEROCLAW_GATEWAY_PORT", &value))
                .transpose()?,
            host: set(&["ZEROCLAW_GATEWAY_HOST"]),
            allow_public_bind: set(&["ZEROCLAW_ALLOW_PUBLIC_BIND"])
                .map(|value| value == "1" || value.eq_ignore_ascii_case("true")),
        };
        if let Some(level) = set(&["RUST_LOG"]).and_then(|value| value.parse().ok()) {
            options.log_level = level;
        }
        let mut args = args.into_iter();
        while let Some(arg) = args.next() {
            let mut value = || args.next().ok_or_else(|| UsageError::MissingValue(arg.clone()));
            match arg.as_str() {
                "--port" | "-p" => options.overrides.port = Some(port("--port", &value()?)?),
                "--host" => options.overrides.host = Some(value()?),
                _ => return Err(UsageError::UnknownArgument(arg)),
            }
        }
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

    /// `config.toml`.
    pub fn config_path(&self) -> PathBuf {
        self.home.join(".zeroclaw/config.toml")
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

fn port(name: &str, value: &str) -> Result<u16, UsageError> {
    value.parse().map_err(|_| UsageError::Port(name.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(args: &[&str], env: &[(&str, &str)]) -> Result<Options, UsageError> {
        let variable = |name: &str| env.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned());
        Options::read(args.iter().map(|arg| (*arg).to_owned()), variable)
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
    fn what_cannot_be_used_is_named() {
        let home = [("HOME", "/h")];
        assert_eq!(read(&[], &[]).unwrap_err(), UsageError::NoHome);
        assert_eq!(read(&["--port"], &home).unwrap_err(), UsageError::MissingValue("--port".into()));
        assert_eq!(read(&["--port", "70000"], &home).unwrap_err(), UsageError::Port("--port".into()));
        assert_eq!(read(&["--prot"], &home).unwrap_err(), UsageError::UnknownArgument("--prot".into()));
        assert_eq!(
            read(&[], &[("HOME", "/h"), ("PORT", "x")]).unwrap_err(),
            UsageError::Port("ZEROCLAW_GATEWAY_PORT".into())
        );
    }
}
