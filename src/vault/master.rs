//! The master key: where it comes from, and the keys that are derived from it.
//!
//! Nothing is ever sealed with a master key itself. Each purpose has a key of its own by HKDF, so that a key for one
//! purpose says nothing about another.

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::alphabet::{STANDARD, URL_SAFE};
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use hkdf::Hkdf;
use sha2::Sha256;
use zeroize::Zeroizing;

use crate::domain::Secret;

const LENGTH: usize = 32;

/// Longest key file that is read: a ring of a hundred keys, so that a wrong path cannot fill the memory.
const FILE_LIMIT: u64 = 8 * 1024;

/// Where the master key is.
#[derive(Debug, Clone)]
pub enum MasterKeySource {
    /// The key itself, as text.
    Value(Secret<String>),
    /// A file that must be there.
    File(PathBuf),
    /// A file that is made, with a new random key, where there is none.
    FileOrNew(PathBuf),
}

/// Why there is no master key. Never holds what was read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MasterKeyError {
    /// The text is no key ring.
    #[error("{origin} is no master key: expected 32 bytes as 64 hex digits or base64, several separated by commas")]
    Malformed {
        /// What holds the text, such as `the file /etc/zeroone/master.key`.
        origin: String,
    },
    /// Others may read the file, so it is not used.
    #[error("the master key file {path} can be read by others (mode {mode:03o}); run: chmod 600 {path}")]
    Exposed {
        /// The file.
        path: String,
        /// Its permission bits.
        mode: u32,
    },
    /// There is no file where one must be.
    #[error(
        "the master key file {path} is not there, and without it nothing sealed can be opened; put the copy back, or name \
         its place by ZEROONE_MASTER_KEY_FILE"
    )]
    Missing {
        /// Where it was looked for.
        path: String,
    },
    /// The system refused the file.
    #[error("cannot {action} the master key file {path}; run as its owner, or correct its permissions")]
    Io {
        /// What was tried, as a verb.
        action: &'static str,
        /// The file.
        path: String,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

/// A ring of master keys, the active one first.
#[derive(Clone)]
pub struct MasterKey {
    ring: Vec<RootKey>,
    created: bool,
}

impl MasterKey {
    /// Reads the key, or makes it: [`MasterKeySource`] says which.
    ///
    /// As text a key is 64 hex digits or the base64 of 32 bytes. Several keys are separated by commas or line breaks.
    /// A file must belong to its owner alone; a new one has mode 0600 and is on the disk before this returns. Root's may be read by
    /// the group besides, where this process is not root: a Secret of Kubernetes is mounted so, and a process of another user
    /// has no other way to it.
    ///
    /// # Errors
    /// If the text is no key, the file is readable by others, or the file system fails.
    pub fn load(source: MasterKeySource) -> Result<Self, MasterKeyError> {
        match source {
            MasterKeySource::Value(text) => Self::parse(text.expose(), || "the given value".into()),
            MasterKeySource::File(path) => Self::read(&path).map_err(|source| cannot("read", &path, source))?,
            MasterKeySource::FileOrNew(path) => match Self::read(&path) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => Self::create(&path),
                other => other.map_err(|source| cannot("read", &path, source))?,
            },
        }
    }

    /// Whether [`MasterKey::load`] has just made it: then its owner must be told to keep it safe.
    pub const fn was_created(&self) -> bool {
        self.created
    }

    pub(super) fn ring(&self) -> impl Iterator<Item = &RootKey> {
        self.ring.iter()
    }

    /// A key for one purpose, derived from the active key.
    pub fn subkey(&self, purpose: &str) -> Secret<[u8; LENGTH]> {
        self.ring[0].derive(purpose)
    }

    fn parse(text: &str, origin: impl Fn() -> String) -> Result<Self, MasterKeyError> {
        let mut ring: Vec<RootKey> = Vec::new();
        for part in text.split([',', '\n']).map(str::trim).filter(|part| !part.is_empty()) {
            let key = RootKey::parse(part).ok_or_else(|| MasterKeyError::Malformed { origin: origin() })?;
            if !ring.contains(&key) {
                ring.push(key);
            }
        }
        if ring.is_empty() {
            return Err(MasterKeyError::Malformed { origin: origin() });
        }
        Ok(Self { ring, created: false })
    }

    /// The outer error is the file system's, for the caller to judge.
    fn read(path: &Path) -> io::Result<Result<Self, MasterKeyError>> {
        let file = File::open(path)?;
        let metadata = file.metadata()?;
        let mode = metadata.mode() & 0o777;
        if is_exposed(mode, metadata.uid(), is_root) {
            return Ok(Err(MasterKeyError::Exposed { path: path.display().to_string(), mode }));
        }
        let mut text = Zeroizing::new(String::new());
        file.take(FILE_LIMIT).read_to_string(&mut text)?;
        Ok(Self::parse(&text, || format!("the file {}", path.display())))
    }

    /// A ring of one new random key.
    pub fn generate() -> Self {
        Self { ring: vec![RootKey::random()], created: true }
    }

    /// The same ring with a new active key in front. One that has several keys already is in the middle of a rotation, and stays
    /// as it is.
    #[must_use]
    pub fn with_new(mut self) -> Self {
        if self.ring.len() == 1 {
            self.ring.insert(0, RootKey::random());
        }
        self
    }

    /// The active key alone.
    #[must_use]
    pub fn active_alone(mut self) -> Self {
        self.ring.truncate(1);
        self
    }

    /// How many keys there are; more than one in the middle of a rotation.
    pub fn keys(&self) -> usize {
        self.ring.len()
    }

    /// The keys themselves, the active one first, as [`MasterKeySource::Value`] takes them: for whoever keeps them elsewhere than
    /// in a file.
    pub fn to_text(&self) -> Secret<String> {
        let mut text = Zeroizing::new(String::new());
        for key in &self.ring {
            text.push_str(key.to_hex().as_str());
            text.push('\n');
        }
        Secret::new(std::mem::take(&mut *text))
    }

    /// Puts this ring in place of the one in the file: written beside it and moved there whole, so that a crash leaves the old ring
    /// or the new one.
    ///
    /// # Errors
    /// If the file cannot be replaced.
    pub fn replace(&self, path: &Path) -> Result<(), MasterKeyError> {
        let draft = path.with_extension(format!("new-{:08x}", rand::random::<u32>()));
        let replaced = write_private(&draft, self.to_text().expose().as_bytes())
            .and_then(|()| fs::rename(&draft, path))
            .and_then(|()| File::open(folder_of(path))?.sync_all());
        if replaced.is_err() {
            // It holds a key; if it cannot be removed either, its mode still keeps others out.
            let _ = fs::remove_file(&draft);
        }
        replaced.map_err(|source| cannot("replace", path, source))
    }

    /// Writes the key next to its place and moves it there whole, so that a crash leaves a key or none, never half of
    /// one. Two processes that do this at once end with the same key: the second finds the place taken, and reads.
    fn create(path: &Path) -> Result<Self, MasterKeyError> {
        let new = Self::generate();
        let draft = path.with_extension(format!("new-{:08x}", rand::random::<u32>()));
        let written =
            write_private(&draft, new.to_text().expose().as_bytes()).and_then(|()| fs::hard_link(&draft, path));
        let removed = fs::remove_file(&draft);
        match written {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                return Self::read(path).map_err(|source| cannot("read", path, source))?;
            }
            outcome => outcome.and(removed).map_err(|source| cannot("create", path, source))?,
        }
        File::open(folder_of(path))
            .and_then(|folder| folder.sync_all())
            .map_err(|source| cannot("create", path, source))?;
        Ok(new)
    }
}

impl fmt::Debug for MasterKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MasterKey").field("keys", &self.ring.len()).field("created", &self.created).finish()
    }
}

/// One key of the ring.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct RootKey(Secret<[u8; LENGTH]>);

impl From<Secret<[u8; LENGTH]>> for RootKey {
    fn from(key: Secret<[u8; LENGTH]>) -> Self {
        Self(key)
    }
}

impl RootKey {
    fn random() -> Self {
        Self(Secret::new(rand::random()))
    }

    fn parse(text: &str) -> Option<Self> {
        let bytes = Zeroizing::new(if text.len() == 2 * LENGTH { from_hex(text)? } else { from_base64(text)? });
        <[u8; LENGTH]>::try_from(bytes.as_slice()).ok().map(|key| Self(Secret::new(key)))
    }

    fn to_hex(&self) -> Zeroizing<String> {
        Zeroizing::new(self.0.expose().iter().map(|byte| format!("{byte:02x}")).collect())
    }

    /// `N` bytes for one purpose.
    pub(super) fn derive<const N: usize>(&self, purpose: &str) -> Secret<[u8; N]>
    where
        [u8; N]: zeroize::Zeroize,
    {
        let mut bytes = [0; N];
        Hkdf::<Sha256>::new(Some(b"zeroone master key v1"), self.0.expose())
            .expand(purpose.as_bytes(), &mut bytes)
            .expect("HKDF refuses only more than 8160 bytes, and no purpose asks for that");
        Secret::new(bytes)
    }
}

/// Whether others than its owner, and than those for whom root has put it there, can reach a file.
pub(super) fn is_exposed(mode: u32, owner: u32, is_root: impl Fn() -> bool) -> bool {
    let for_others = if owner == 0 && !is_root() { 0o037 } else { 0o077 };
    mode & for_others != 0
}

/// Whether this process is root's, by its effective user. Where the system does not tell, it is taken for that, which is stricter.
fn is_root() -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let users = status.lines().find_map(|line| line.strip_prefix("Uid:"));
    users.and_then(|users| users.split_whitespace().nth(1)).is_none_or(|effective| effective == "0")
}

pub(super) fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

fn write_private(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

fn cannot(action: &'static str, path: &Path, source: io::Error) -> MasterKeyError {
    let path = path.display().to_string();
    if source.kind() == io::ErrorKind::NotFound {
        return MasterKeyError::Missing { path };
    }
    MasterKeyError::Io { action, path, source }
}

fn from_hex(text: &str) -> Option<Vec<u8>> {
    let digits = text.chars().map(|c| c.to_digit(16).map(|digit| digit as u8)).collect::<Option<Vec<_>>>()?;
    Some(digits.chunks_exact(2).map(|pair| pair[0] << 4 | pair[1]).collect())
}

fn from_base64(text: &str) -> Option<Vec<u8>> {
    let lenient = GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
    [STANDARD, URL_SAFE].iter().find_map(|alphabet| GeneralPurpose::new(alphabet, lenient).decode(text).ok())
}
