//! `config.toml` on disk: read with care for what must not be printed, written so that no reader sees half a file.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use serde::Deserialize;
use toml::Table;
use toml_edit::DocumentMut;

use super::config::Config;
use super::config_keys::{self, Consequence};
use super::encrypted::is_encrypted;
use super::options::Options;
use super::{Error, config_env, config_names, config_schema};

/// A configuration with what its reader should be told.
pub(super) struct Loaded {
    pub(super) config: Config,
    /// What the file asks for and does not get, and what means nothing.
    pub(super) notes: Notes,
}

/// What start and doctor tell of a configuration. No entry holds a value.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Notes {
    /// What keeps the agent from answering, each with its remedy.
    pub(super) broken: Vec<String>,
    /// Parts that are off, each with its remedy.
    pub(super) off: Vec<String>,
    /// Keys that nobody knows: perhaps a slip of the pen.
    pub(super) unknown: Vec<String>,
    /// ZeroClaw's keys that set nothing here.
    pub(super) harmless: Vec<String>,
}

/// Reads the file, if there is one, and puts the environment over it.
pub(super) fn load(options: &Options) -> Result<Loaded, Error> {
    let path = options.config_path();
    let text = match fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
        Err(source) => return Err(Error::ConfigRead { path, source }),
    };
    let invalid = |reason| Error::ConfigInvalid { path: path.clone(), reason };
    effective(&text, options).map_err(invalid)
}

/// The settings that a file of this content would have.
///
/// # Errors
/// As [`parse`], or what does not fit together.
pub(super) fn effective(text: &str, options: &Options) -> Result<Loaded, String> {
    let mut document: Table = text.parse().map_err(|error: toml::de::Error| not_toml(text, error.span()))?;
    let mut notes = Notes::default();
    config_env::set_paths(&mut document, options.key_variables())?;
    let whole = config_env::expand(&mut document, &|name| options.variable(name), &mut notes.off)?;
    config_names::rename(&mut document, &mut notes.off);
    config_schema::translate(&mut document, &mut notes.off)?;
    config_names::unite(&mut document);
    let (mut config, unread) = parse_fitting(&mut document, &whole)?;
    for finding in config_keys::judge(&unread, &document) {
        match (finding.consequence, finding.known) {
            (Consequence::Stop, _) => return Err(finding.message),
            (Consequence::Off, _) => notes.off.push(finding.message),
            (Consequence::Nothing, true) => notes.harmless.push(finding.key),
            (Consequence::Nothing, false) => notes.unknown.push(finding.key),
        }
    }
    config.apply(options.overrides())?;
    drop_encrypted(&mut config, &mut notes);
    config.check()?;
    notes.off.extend(config.cannot_hold());
    notes.off.extend(config.zone_not_known(options.overrides()));
    Ok(Loaded { config, notes })
}

/// Takes out what ZeroClaw encrypted, and tells of it. The secret of `/webhook` stays, which is closed with it: without one
/// it would be open to whoever has a token.
fn drop_encrypted(config: &mut Config, notes: &mut Notes) {
    let webhook = config.channels_config.webhook.as_ref().and_then(|webhook| webhook.secret.as_ref());
    if webhook.is_some_and(is_encrypted) {
        notes.off.push(
            "channels_config.webhook.secret was encrypted by ZeroClaw and cannot be read, so that POST /webhook is \
             refused; write it in clear text"
                .to_owned(),
        );
    }
    if config.api_key.take_if(|key| is_encrypted(key)).is_some() {
        notes.broken.push("api_key was encrypted by ZeroClaw and cannot be read; set API_KEY".to_owned());
    }
    let tokens = &mut config.gateway.paired_tokens;
    let before = tokens.len();
    tokens.retain(|token| !is_encrypted(token));
    if tokens.len() < before {
        notes.off.push("gateway.paired_tokens were encrypted by ZeroClaw and cannot be read; pair again".to_owned());
    }
}

/// Reads settings, with texts that stand for one variable read as what is wanted in their place.
///
/// # Errors
/// As [`parse`].
fn parse_fitting(document: &mut Table, whole: &config_env::WholeTexts) -> Result<(Config, Vec<String>), String> {
    loop {
        let wrong = match parse(document.clone()) {
            Ok(read) => return Ok(read),
            Err(wrong) => wrong,
        };
        // Each round turns one text into something else, so there are as many at most as there are texts.
        if !config_env::fit(document, &wrong.path, &wrong.expected, whole) {
            return Err(format!("the value of {} cannot be used{}", wrong.path, wrong.expected));
        }
    }
}

/// A value of a type that its key does not have.
struct Wrong {
    path: serde_path_to_error::Path,
    /// What it should have been, as the end of a sentence.
    expected: String,
}

/// Reads settings of the first schema, with the keys that nothing read.
///
/// # Errors
/// Which key is wrong. The parser's own message would repeat the value, and with it perhaps a bot token.
fn parse(document: Table) -> Result<(Config, Vec<String>), Wrong> {
    let mut unread = Vec::new();
    let mut track = serde_path_to_error::Track::new();
    let tracked = serde_path_to_error::Deserializer::new(document, &mut track);
    let mut ignored = |path: serde_ignored::Path<'_>| unread.push(path.to_string());
    let config = Config::deserialize(serde_ignored::Deserializer::new(tracked, &mut ignored));
    match config {
        Ok(config) => {
            unread.sort();
            Ok((config, unread))
        }
        Err(error) => Err(Wrong { path: track.path(), expected: expected(error.message()) }),
    }
}

/// What a value should have been, in the parser's words: they end with it, and have the value itself before.
fn expected(message: &str) -> String {
    message.rsplit_once(", expected ").map_or_else(String::new, |(_, expected)| format!("; expected {expected}"))
}

/// Reads TOML with its comments.
///
/// # Errors
/// Where it is none, without repeating the line.
pub(super) fn parse_document(text: &str) -> Result<DocumentMut, String> {
    text.parse().map_err(|error: toml_edit::TomlError| not_toml(text, error.span()))
}

fn not_toml(text: &str, span: Option<std::ops::Range<usize>>) -> String {
    match span {
        Some(span) => {
            let (line, column) = position(text, span.start);
            format!("it is not TOML at line {line}, column {column}")
        }
        None => "it is not TOML".to_owned(),
    }
}

fn position(text: &str, at: usize) -> (usize, usize) {
    let before = text.get(..at).unwrap_or(text);
    let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
    (before.matches('\n').count() + 1, before[line_start..].chars().count() + 1)
}

/// The file as the gateway changes it. Each edit starts from what is on disk, so that one made by hand is never undone.
pub(super) struct ConfigFile {
    path: PathBuf,
    editing: Mutex<()>,
}

/// Why the file was not changed.
#[derive(Debug, thiserror::Error)]
pub(super) enum EditError {
    #[error("the file cannot be read")]
    Read(#[source] io::Error),
    #[error("the file cannot be written")]
    Write(#[source] io::Error),
    #[error("the file on disk is not TOML")]
    NotToml,
}

/// Why the file was not replaced.
#[derive(Debug, thiserror::Error)]
pub(super) enum RewriteError {
    #[error(transparent)]
    Edit(#[from] EditError),
    /// The new content cannot be used; the words are for its author.
    #[error("{0}")]
    Refused(String),
}

impl ConfigFile {
    pub(super) const fn new(path: PathBuf) -> Self {
        Self { path, editing: Mutex::new(()) }
    }

    /// Changes the document on disk, comments and unknown keys kept. Blocks on the disk.
    pub(super) fn edit(&self, change: impl FnOnce(&mut DocumentMut)) -> Result<(), EditError> {
        let _one_at_a_time = self.editing.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let mut document = self.document()?;
        change(&mut document);
        save(&self.path, document.to_string().as_bytes()).map_err(EditError::Write)
    }

    /// Replaces the document by one that is made from it, unless that is refused. Blocks on the disk.
    pub(super) fn rewrite(
        &self,
        make: impl FnOnce(&DocumentMut) -> Result<DocumentMut, String>,
    ) -> Result<DocumentMut, RewriteError> {
        let _one_at_a_time = self.editing.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let document = make(&self.document()?).map_err(RewriteError::Refused)?;
        save(&self.path, document.to_string().as_bytes()).map_err(EditError::Write)?;
        Ok(document)
    }

    /// Whether an edit could be written. Tried by writing nothing. Blocks on the disk.
    pub(super) fn can_be_saved(&self) -> io::Result<()> {
        let real = resolve(&self.path)?;
        match OpenOptions::new().append(true).open(&real) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let folder = real.parent().unwrap_or(Path::new("."));
                tempfile_in(folder)
            }
            opened => opened.map(drop),
        }
    }

    /// What is on disk now; an empty document where there is no file. Blocks on the disk.
    pub(super) fn document(&self) -> Result<DocumentMut, EditError> {
        match fs::read_to_string(&self.path) {
            Ok(text) => text.parse().map_err(|_| EditError::NotToml),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(DocumentMut::new()),
            Err(error) => Err(EditError::Read(error)),
        }
    }
}

impl EditError {
    /// What a client is told: the system's own words, without a path.
    pub(super) fn told(&self) -> String {
        match self {
            Self::Read(source) | Self::Write(source) => {
                format!("{self} ({source})").replacen("the file", "config.toml", 1)
            }
            Self::NotToml => "config.toml on the disk is not TOML; correct it on the machine".to_owned(),
        }
    }
}

/// Writes a file of its owner, wherever it really is.
///
/// A link stays a link and its target is written. A file that is mounted by itself, has a second name, or lies in a folder
/// that takes no new files cannot be replaced in one step; it is written in place.
fn save(path: &Path, content: &[u8]) -> io::Result<()> {
    let real = resolve(path)?;
    let former = fs::metadata(&real).ok();
    let is_link = real != path;
    let has_second_name = former.as_ref().is_some_and(|former| former.nlink() > 1);
    let mode = former.filter(|_| is_link).map_or(0o600, |former| former.permissions().mode() & 0o777);
    if has_second_name {
        return overwrite(&real, content);
    }
    match replace_as(&real, content, mode) {
        // Busy: a mount of its own. The others: the folder takes no file beside it, the file itself may take content.
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::ResourceBusy
                    | io::ErrorKind::CrossesDevices
                    | io::ErrorKind::PermissionDenied
                    | io::ErrorKind::ReadOnlyFilesystem
            ) && real.exists() =>
        {
            overwrite(&real, content).map_err(|_| error)
        }
        result => result,
    }
}

/// Makes and removes a file.
fn tempfile_in(folder: &Path) -> io::Result<()> {
    let probe = folder.join(".config-probe.tmp");
    fs::create_dir_all(folder)?;
    OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&probe)?;
    fs::remove_file(probe)
}

/// Where a path leads in the end, also if nothing is there yet.
fn resolve(path: &Path) -> io::Result<PathBuf> {
    const LINKS: usize = 16;
    let mut path = path.to_owned();
    for _ in 0..LINKS {
        match fs::read_link(&path) {
            Ok(target) => path = path.parent().unwrap_or(Path::new(".")).join(target),
            Err(_) => return Ok(path),
        }
    }
    Err(io::Error::other("too many links"))
}

/// Writes into a file that must stay the same file. A crash in the middle leaves it cut.
fn overwrite(path: &Path, content: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).open(path)?;
    file.write_all(content)?;
    file.set_len(content.len() as u64)?;
    file.sync_all()
}

/// Puts `content` in place of a file in one step, for its owner's eyes only, and only after it is safe on the disk.
pub(super) fn replace(path: &Path, content: &[u8]) -> io::Result<()> {
    replace_as(path, content, 0o600)
}

fn replace_as(path: &Path, content: &[u8], mode: u32) -> io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(folder)?;
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(".tmp");
    let temporary = PathBuf::from(temporary);
    let written = (|| {
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&temporary)?;
        file.write_all(content)?;
        file.set_permissions(fs::Permissions::from_mode(mode))?;
        file.sync_all()?;
        fs::rename(&temporary, path)
    })();
    if written.is_err() {
        let _ = fs::remove_file(&temporary);
        return written;
    }
    // The rename itself survives a power cut once the folder is on disk; not every file system lets one sync a folder.
    let _ = File::open(folder).and_then(|folder| folder.sync_all());
    Ok(())
}

#[cfg(test)]
mod tests;
