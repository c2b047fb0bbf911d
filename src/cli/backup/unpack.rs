//! The archive of a backup: read with distrust, for it may have been cut off, or made by somebody else.

use std::fs::{DirBuilder, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Component, Path};

use anyhow::Context as _;
use serde_json::Value;

use crate::cli::outcome::Failure;

/// What this program can read.
const FORMAT: u64 = 1;
/// A description is some hundred bytes.
const LONGEST_DESCRIPTION: u64 = 64 * 1024;

#[derive(Debug)]
pub(super) struct Unpacked {
    pub(super) described: Value,
}

/// Writes everything into a new folder of mode 0700.
pub(super) fn unpack(from: impl Read, folder: &Path) -> Result<Unpacked, Failure> {
    new_folder(folder)?;
    let read = read(from, |path, mode, mut content| {
        let path = folder.join(path);
        if let Some(parent) = path.parent() {
            DirBuilder::new().recursive(true).mode(0o700).create(parent)?;
        }
        let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&path)?;
        io::copy(&mut content, &mut file)?;
        file.sync_all()
    });
    read.map(|described| Unpacked { described })
}

/// What a backup says of itself, once all of it was read.
pub(super) fn describe(file: &Path) -> Result<Value, Failure> {
    let file = std::fs::File::open(file).with_context(|| format!("cannot read {}", file.display()))?;
    read(io::BufReader::new(file), |_, _, _| Ok(()))
}

fn read(from: impl Read, mut each: impl FnMut(&Path, u32, &mut dyn Read) -> io::Result<()>) -> Result<Value, Failure> {
    let refused = |why: &str| Failure::Refused(format!("this is not a whole backup of zeroone: {why}"));
    let (mut described, mut complete) = (None, false);
    let mut archive = tar::Archive::new(from);
    for entry in archive.entries()? {
        let mut entry = entry.map_err(|error| refused(unreadable(&error)))?;
        let path = entry.path().map_err(|error| refused(unreadable(&error)))?.into_owned();
        let plain = path.components().all(|part| matches!(part, Component::Normal(_)));
        if !plain || entry.header().entry_type() != tar::EntryType::Regular {
            return Err(refused("it has something that no backup has"));
        }
        match path.to_str() {
            Some("backup.json") => described = Some(description(&mut entry)?),
            Some("complete") => complete = true,
            Some("zeroone.redb" | "runtime") => each(&path, 0o600, &mut entry)?,
            _ if path.starts_with("agents") => {
                let mode = entry.header().mode().unwrap_or(0o600) & 0o700;
                each(&path, mode, &mut entry).map_err(|error| refused(&error.to_string()))?;
            }
            _ => return Err(refused("it has something that no backup has")),
        }
    }
    match described {
        Some(described) if complete => Ok(described),
        _ => Err(refused("its end is missing")),
    }
}

/// Why an archive cannot be read. What its reader says quotes the file, which may be any, and one full of secrets.
fn unreadable(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => "it ends too early",
        io::ErrorKind::Other | io::ErrorKind::InvalidData | io::ErrorKind::InvalidInput => {
            "it is no tar archive, or a broken one"
        }
        _ => "the file cannot be read",
    }
}

fn description(entry: impl Read) -> Result<Value, Failure> {
    let described: Value = serde_json::from_reader(entry.take(LONGEST_DESCRIPTION)).map_err(Failure::of)?;
    match described["format"].as_u64() {
        Some(FORMAT) => Ok(described),
        _ => Err(Failure::Refused("this backup was made by another version, which must restore it".into())),
    }
}

fn new_folder(folder: &Path) -> Result<(), Failure> {
    let made = DirBuilder::new().mode(0o700).create(folder);
    made.with_context(|| format!("cannot make {}", folder.display())).map_err(Failure::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn archive(entries: &[(&str, &str)]) -> Vec<u8> {
        let mut archive = tar::Builder::new(Vec::new());
        for (name, text) in entries {
            let mut header = tar::Header::new_gnu();
            header.set_mode(0o644);
            header.set_size(text.len() as u64);
            // As an attacker would: the library's own way refuses such names.
            header.as_gnu_mut().unwrap().name[..name.len()].copy_from_slice(name.as_bytes());
            header.set_cksum();
            archive.append(&header, text.as_bytes()).unwrap();
        }
        archive.into_inner().unwrap()
    }

    fn outcome(entries: &[(&str, &str)]) -> Result<Value, String> {
        let folder = tempfile::TempDir::new().unwrap();
        let unpacked = unpack(archive(entries).as_slice(), &folder.path().join("draft"));
        unpacked.map(|unpacked| unpacked.described).map_err(|failure| failure.to_string())
    }

    #[test]
    fn only_a_whole_backup_is_taken() {
        let (described, end) = (("backup.json", r#"{"format": 1}"#), ("complete", ""));
        let whole = [described, ("zeroone.redb", "x"), ("agents/a/data/f", "y"), end];
        assert!(outcome(&whole).is_ok());
        assert!(outcome(&whole[..3]).unwrap_err().contains("its end is missing"));
        assert!(outcome(&[("backup.json", r#"{"format": 2}"#), end]).unwrap_err().contains("another version"));
        let bytes = archive(&whole);
        let cut = unpack(&bytes[..1024 + 100], &tempfile::TempDir::new().unwrap().path().join("draft"));
        assert!(cut.is_err(), "an archive that was cut off");
    }

    #[test]
    fn nothing_is_written_outside_of_the_folder() {
        let (described, end) = (("backup.json", r#"{"format": 1}"#), ("complete", ""));
        for name in ["../escape", "/etc/escape", "agents/../../escape", "escape"] {
            let refused = outcome(&[described, (name, "x"), end]).unwrap_err();
            assert!(refused.contains("no backup has"), "{name}: {refused}");
        }
    }
}
