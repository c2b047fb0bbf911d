//! `config.toml` on disk: read with care for what must not be printed, written so that no reader sees half a file.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use serde::Deserialize;
use toml_edit::DocumentMut;

use super::Error;
use super::config::Config;
use super::options::Options;

/// A configuration with what its reader should be told.
pub(super) struct Loaded {
    pub(super) config: Config,
    /// Keys that mean nothing to us, by path.
    pub(super) unknown: Vec<String>,
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
    let mut loaded = parse(text)?;
    loaded.config.apply(options.overrides());
    loaded.config.check()?;
    Ok(loaded)
}

/// Reads settings from TOML.
///
/// # Errors
/// Where the text is wrong, by line, column or key. The parser's own message would repeat the line, and with it perhaps
/// a bot token.
fn parse(text: &str) -> Result<Loaded, String> {
    let deserializer = toml::Deserializer::parse(text).map_err(|error| not_toml(text, error.span()))?;
    let mut unknown = Vec::new();
    let mut track = serde_path_to_error::Track::new();
    let tracked = serde_path_to_error::Deserializer::new(deserializer, &mut track);
    let mut ignored = |path: serde_ignored::Path<'_>| unknown.push(path.to_string());
    let config = Config::deserialize(serde_ignored::Deserializer::new(tracked, &mut ignored));
    match config {
        Ok(config) => {
            unknown.sort();
            Ok(Loaded { config, unknown })
        }
        Err(_) => Err(format!("the value of {} cannot be used", track.path())),
    }
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
    #[error("the file cannot be read or written")]
    Io(#[from] io::Error),
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
        replace(&self.path, document.to_string().as_bytes())?;
        Ok(())
    }

    /// Replaces the document by one that is made from it, unless that is refused. Blocks on the disk.
    pub(super) fn rewrite(
        &self,
        make: impl FnOnce(&DocumentMut) -> Result<DocumentMut, String>,
    ) -> Result<DocumentMut, RewriteError> {
        let _one_at_a_time = self.editing.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let document = make(&self.document()?).map_err(RewriteError::Refused)?;
        replace(&self.path, document.to_string().as_bytes()).map_err(EditError::from)?;
        Ok(document)
    }

    /// What is on disk now; an empty document where there is no file. Blocks on the disk.
    pub(super) fn document(&self) -> Result<DocumentMut, EditError> {
        match fs::read_to_string(&self.path) {
            Ok(text) => text.parse().map_err(|_| EditError::NotToml),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(DocumentMut::new()),
            Err(error) => Err(error.into()),
        }
    }
}

/// Puts `content` in place of a file in one step, for its owner's eyes only, and only after it is safe on the disk.
pub(super) fn replace(path: &Path, content: &[u8]) -> io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(folder)?;
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(".tmp");
    let temporary = PathBuf::from(temporary);
    let written = (|| {
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&temporary)?;
        file.write_all(content)?;
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
mod tests {
    use super::*;

    #[test]
    fn unknown_keys_are_reported_and_known_ones_read() {
        let loaded = parse("default_temperature = 0.2\nnope = 1\n[gateway]\nport = 7\nodd = true\n").unwrap();
        assert_eq!(loaded.config.gateway.port, 7);
        assert_eq!(loaded.unknown, ["gateway.odd", "nope"]);
    }

    #[test]
    fn errors_say_where_and_never_what() {
        let secret = "12345:planted-token";
        for (text, place) in [
            (format!("a = 1\nbot_token = \"{secret}\n"), "line 2"),
            (format!("[gateway]\nport = \"{secret}\"\n"), "gateway.port"),
            (format!("[memory]\nbackend = \"{secret}\"\n"), "memory.backend"),
            (format!("[gateway]\npaired_tokens = \"{secret}\"\n"), "gateway.paired_tokens"),
        ] {
            let error = parse(&text).map(|_| ()).unwrap_err();
            assert!(error.contains(place), "{error}");
            assert!(!error.contains("planted"), "{error}");
        }
    }

    #[test]
    fn an_edit_keeps_comments_and_leaves_no_temporary_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("sub/config.toml");
        let file = ConfigFile::new(path.clone());
        file.edit(|document| document["a"] = toml_edit::value(1)).unwrap();
        fs::write(&path, "# mine\na = 1\n").unwrap();
        file.edit(|document| document["b"] = toml_edit::value(2)).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "# mine\na = 1\nb = 2\n");
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
    }

    #[test]
    fn a_broken_file_is_never_overwritten() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("config.toml");
        fs::write(&path, "not toml").unwrap();
        assert!(ConfigFile::new(path.clone()).edit(|document| document["a"] = toml_edit::value(1)).is_err());
        assert_eq!(fs::read_to_string(&path).unwrap(), "not toml");
    }
}
