//! The files that an instance gets: its config and its persona.
//!
//! Pure: the same input gives the same bytes, so that staging twice changes nothing. The config is written by the `toml`
//! serializer alone, so that whatever a user typed stays a value; persona texts are quoted line by line, see `persona`.

mod config;
mod persona;

use sha2::{Digest, Sha256};

use super::profile::Profile;
use crate::domain::{AgentSpec, Credentials, Secret, StagedFile};

/// The config file, relative to the data folder.
pub const CONFIG_PATH: &str = ".zeroclaw/config.toml";

const FILE_MODE: u32 = 0o644;
const SECRET_FILE_MODE: u32 = 0o600;

/// What the files of an instance depend on besides its agent.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct Staging<'a> {
    /// The machine as the instance reaches it ([`Caps::host`](crate::runtime::Caps::host)).
    pub host: &'a str,
    /// [`token_hash`] of the token that we hold: the gateway then knows it from its first start on and gives no code.
    /// Without it the gateway forgets every token and gives a new code.
    pub token_hash: Option<&'a str>,
    /// How long the gateway may take for one message.
    pub answer_secs: u64,
}

impl<'a> Staging<'a> {
    /// For a gateway that knows no token yet.
    pub const fn new(host: &'a str, answer_secs: u64) -> Self {
        Self { host, token_hash: None, answer_secs }
    }

    setters! {
        with_token_hash(token_hash: impl Into<Option<&'a str>> => token_hash.into());
    }
}

/// All files of an instance.
pub fn files(profile: Profile, spec: &AgentSpec, credentials: &Credentials, staging: &Staging<'_>) -> Vec<StagedFile> {
    let config = config::render(profile, spec, credentials, staging);
    let mut files = vec![StagedFile { path: CONFIG_PATH.into(), content: config, mode: SECRET_FILE_MODE }];
    let texts = [persona::identity(spec), persona::user(spec), persona::soul(spec)];
    for (path, text) in profile.persona_paths().into_iter().zip(texts) {
        files.push(StagedFile { path: path.into(), content: Secret::new(text.into_bytes()), mode: FILE_MODE });
    }
    files
}

/// How ZeroClaw stores a bearer token: SHA-256 in lower-case hex.
pub fn token_hash(token: &Secret<String>) -> String {
    data_encoding::HEXLOWER.encode(&Sha256::digest(token.expose().as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::Provider;

    fn sample(profile: Profile) -> Vec<StagedFile> {
        let spec = AgentSpec::new("a", Provider::Openai, "m");
        let credentials = Credentials { api_key: Some("sk-planted".into()), ..Credentials::default() };
        files(profile, &spec, &credentials, &Staging { host: "host.test", token_hash: Some("00ff"), answer_secs: 120 })
    }

    #[test]
    fn no_file_holds_the_api_key() {
        for &profile in Profile::ALL {
            for file in sample(profile) {
                let text = String::from_utf8(file.content.expose().clone()).unwrap();
                assert!(!text.contains("sk-planted"), "{profile} {}", file.path);
            }
        }
    }

    #[test]
    fn tokens_are_hashed_as_zeroclaw_does() {
        // `printf zc_abc | sha256sum`
        let hash = "b0c68351657a5e7b6b60f759fdf41a7da9a618032a1771eb4a4cc00e53e4b00e";
        assert_eq!(token_hash(&"zc_abc".into()), hash);
    }
}
