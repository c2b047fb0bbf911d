//! The files that an instance gets: its config and its persona, and how they travel.
//!
//! Pure: the same input gives the same bytes, so that staging twice changes nothing. The config is written by the `toml`
//! serializer alone, so that whatever a user typed stays a value; persona texts are quoted line by line, see `persona`.

mod config;
mod persona;

use std::collections::BTreeSet;
use std::io;

use sha2::{Digest, Sha256};

use super::profile::Profile;
use crate::domain::{AgentSpec, Credentials, Secret};
use crate::runtime::StagedFile;

/// The config file, relative to the data folder.
pub const CONFIG_PATH: &str = ".zeroclaw/config.toml";

/// ZeroClaw's user and group in its image. A config folder of anyone else would make it forget its tokens.
const OWNER: u64 = 65_534;

const FILE_MODE: u32 = 0o644;
const SECRET_FILE_MODE: u32 = 0o600;
const DIRECTORY_MODE: u32 = 0o755;

/// What the files of an instance depend on besides its agent.
#[derive(Debug, Clone, Copy)]
pub struct Staging<'a> {
    /// The machine as the instance reaches it ([`Caps::host`](crate::runtime::Caps::host)).
    pub host: &'a str,
    /// [`token_hash`] of the token that we hold: the gateway then knows it from its first start on and gives no code.
    /// Without it the gateway forgets every token and gives a new code.
    pub token_hash: Option<&'a str>,
    /// How long the gateway may take for one message.
    pub answer_secs: u64,
}

/// All files of an instance.
pub fn files(profile: Profile, spec: &AgentSpec, credentials: &Credentials, staging: &Staging<'_>) -> Vec<StagedFile> {
    let config = config::render(profile, spec, credentials, staging);
    let mut files = vec![StagedFile { path: CONFIG_PATH, content: config, mode: SECRET_FILE_MODE }];
    let texts = [persona::identity(spec), persona::user(spec), persona::soul(spec)];
    for (path, text) in profile.persona_paths().into_iter().zip(texts) {
        files.push(StagedFile { path, content: Secret::new(text.into_bytes()), mode: FILE_MODE });
    }
    files
}

/// How ZeroClaw stores a bearer token: SHA-256 in lower-case hex.
pub fn token_hash(token: &Secret<String>) -> String {
    Sha256::digest(token.expose().as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The files as a tar archive to unpack in the data folder, with their folders, all owned by ZeroClaw's user.
///
/// # Errors
/// A path that no archive can hold: too long, absolute, or with `..`.
pub fn tar(files: &[StagedFile]) -> io::Result<Vec<u8>> {
    let mut archive = tar::Builder::new(Vec::new());
    let folders: BTreeSet<&str> = files
        .iter()
        .flat_map(|file| file.path.char_indices().filter(|(_, c)| *c == '/').map(|(at, _)| &file.path[..at]))
        .collect();
    // In order, a folder stands before what is in it.
    for folder in folders {
        let mut header = header(tar::EntryType::Directory, DIRECTORY_MODE, 0);
        archive.append_data(&mut header, format!("{folder}/"), io::empty())?;
    }
    for file in files {
        let content = file.content.expose().as_slice();
        let mut header = header(tar::EntryType::Regular, file.mode, content.len() as u64);
        archive.append_data(&mut header, file.path, content)?;
    }
    archive.into_inner()
}

fn header(kind: tar::EntryType, mode: u32, size: u64) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_uid(OWNER);
    header.set_gid(OWNER);
    header.set_mtime(0);
    header.set_size(size);
    header
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;
    use crate::domain::{Problems, SpecDraft};

    fn sample(profile: Profile) -> Vec<StagedFile> {
        let draft = SpecDraft {
            name: Some("a".into()),
            provider: Some("openai".into()),
            model: Some("m".into()),
            ..SpecDraft::default()
        };
        let spec = draft.check(&mut Problems::default()).unwrap();
        let credentials = Credentials { api_key: Some("sk-planted".into()), ..Credentials::default() };
        files(profile, &spec, &credentials, &Staging { host: "host.test", token_hash: Some("00ff"), answer_secs: 120 })
    }

    #[test]
    fn the_archive_belongs_to_zeroclaw_and_is_the_same_every_time() {
        let files = sample(Profile::V08);
        let bytes = tar(&files).unwrap();
        assert_eq!(bytes, tar(&sample(Profile::V08)).unwrap());
        let mut seen = Vec::new();
        let mut archive = ::tar::Archive::new(bytes.as_slice());
        for entry in archive.entries().unwrap() {
            let mut entry = entry.unwrap();
            let header = entry.header();
            assert_eq!((header.uid().unwrap(), header.gid().unwrap(), header.mtime().unwrap()), (65_534, 65_534, 0));
            seen.push((entry.path().unwrap().to_string_lossy().into_owned(), header.mode().unwrap()));
            let mut content = Vec::new();
            entry.read_to_end(&mut content).unwrap();
            if let Some(file) = files.iter().find(|file| seen.last().unwrap().0 == file.path) {
                assert_eq!(&content, file.content.expose());
            }
        }
        let expected = [
            (".zeroclaw/", 0o755),
            (".zeroclaw/agents/", 0o755),
            (".zeroclaw/agents/default/", 0o755),
            (".zeroclaw/agents/default/workspace/", 0o755),
            (".zeroclaw/config.toml", 0o600),
            (".zeroclaw/agents/default/workspace/IDENTITY.md", 0o644),
            (".zeroclaw/agents/default/workspace/USER.md", 0o644),
            (".zeroclaw/agents/default/workspace/SOUL.md", 0o644),
        ];
        assert_eq!(seen, expected.map(|(path, mode)| (path.to_owned(), mode)));
    }

    #[test]
    fn no_file_holds_the_api_key() {
        for profile in Profile::ALL {
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
