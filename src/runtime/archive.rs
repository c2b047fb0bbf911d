//! Files on their way into an instance and out of it, as the archives that engines take and give.

use std::collections::BTreeSet;
use std::io::{self, Read};

use crate::domain::{Secret, StagedFile};

/// The user and group that containers run as. ZeroClaw forgets its tokens where its folder is
/// another's.
const OWNER: u64 = 65_534;

const DIRECTORY_MODE: u32 = 0o755;

/// The files as a tar archive to unpack in the data folder, with their folders. The same files give the same bytes.
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
        archive.append_data(&mut header, file.path.as_ref(), content)?;
    }
    archive.into_inner()
}

/// The regular files of an archive, in the order of their paths, which are put below `parent`: empty, or with a slash at its
/// end.
///
/// # Errors
/// What is no archive.
pub fn untar(archive: &[u8], parent: &str) -> io::Result<Vec<StagedFile>> {
    let mut files = Vec::new();
    for entry in tar::Archive::new(archive).entries()? {
        let mut entry = entry?;
        if !entry.header().entry_type().is_file() {
            continue;
        }
        // A name that is no text is nothing that we could write again.
        let Some(path) = entry.path()?.to_str().map(|path| format!("{parent}{path}")) else { continue };
        let mode = entry.header().mode()?;
        let mut content = Vec::new();
        entry.read_to_end(&mut content)?;
        files.push(StagedFile { path: path.into(), content: Secret::new(content), mode });
    }
    files.sort_unstable_by(|a, b| a.path.cmp(&b.path));
    Ok(files)
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
    use super::*;

    #[test]
    fn the_archive_belongs_to_zeroclaw_and_is_the_same_every_time() {
        let file =
            |path: &'static str, mode| StagedFile { path: path.into(), content: Secret::new(b"text".to_vec()), mode };
        let files = [file(".zeroclaw/config.toml", 0o600), file(".zeroclaw/agents/default/SOUL.md", 0o644)];
        let bytes = tar(&files).unwrap();
        assert_eq!(bytes, tar(&files).unwrap());
        let mut seen = Vec::new();
        let mut archive = ::tar::Archive::new(bytes.as_slice());
        for entry in archive.entries().unwrap() {
            let mut entry = entry.unwrap();
            let header = entry.header();
            assert_eq!((header.uid().unwrap(), header.gid().unwrap(), header.mtime().unwrap()), (65_534, 65_534, 0));
            seen.push((entry.path().unwrap().to_string_lossy().into_owned(), header.mode().unwrap()));
            let mut content = Vec::new();
            entry.read_to_end(&mut content).unwrap();
            assert!(content.is_empty() || content == b"text");
        }
        let expected = [
            (".zeroclaw/", 0o755),
            (".zeroclaw/agents/", 0o755),
            (".zeroclaw/agents/default/", 0o755),
            (".zeroclaw/config.toml", 0o600),
            (".zeroclaw/agents/default/SOUL.md", 0o644),
        ];
        assert_eq!(seen, expected.map(|(path, mode)| (path.to_owned(), mode)));
        assert!(tar(&[file("../outside", 0o600)]).is_err());
    }
}
