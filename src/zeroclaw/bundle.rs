//! An agent's workspace and memory as one file that its owner keeps: a tar archive that no version is needed to read.
//!
//! ```text
//!   agent.json      format, the version that wrote the memory, the agent's configuration without secrets
//!   memory.json     what the gateway said it remembers; missing where the agent did not run
//!   memory/…        the memory's own files, as that version keeps them
//!   MEMORY.md       what a memory in Markdown keeps for good
//!   workspace/…     the agent's own files
//! ```
//! Nothing secret is in it: no key, no token, no channel, no configuration file. An archive that comes back may have been
//! written by anybody: [`read`] takes plain files with plain paths and no more of them than [`MAX_BYTES`] and [`MAX_FILES`].

use std::collections::BTreeSet;
use std::io::{self, Read};
use std::path::{Component, Path};

use serde::{Deserialize, Serialize};

use super::memory::{MAX_ENTRIES, MemoryEntry};
use super::migration::{Carry, Layout, belongs, carry, inside, is_own, layout, moved_into, untold};
use crate::domain::{AgentSpec, Profile, Secret, StagedFile, Timestamp};

/// What the files of an archive may have together, in bytes.
pub const MAX_BYTES: usize = crate::runtime::MAX_DATA;
/// How many entries an archive may have.
pub const MAX_FILES: usize = 20_000;
const MAX_PATH: usize = 1024;
/// What archives are made of, in bytes.
const BLOCK: usize = 512;
const FORMAT: u32 = 1;
const ABOUT: &str = "agent.json";
const ENTRIES: &str = "memory.json";
/// Where an archive has what the versions have in folders of theirs.
const PLACES: Layout = Layout { memory: "memory", notes: "MEMORY.md", workspace: "workspace", roots: &[] };
const MODE: u32 = 0o644;

/// What is known of the agent whose data it is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct About {
    /// The number of the archive's form; others than this version's are refused.
    pub format: u32,
    /// The family of versions that wrote the memory's files.
    pub profile: Profile,
    /// The version itself, such as `0.8.7`, where it is known.
    #[serde(default)]
    pub version: Option<String>,
    /// When the archive was made.
    pub exported_at: Timestamp,
    /// The agent's configuration, without secrets.
    pub agent: AgentSpec,
}

/// An agent's data, of any version.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Bundle {
    /// `agent.json`.
    pub about: About,
    /// What its gateway said it remembers; `None` where the agent did not run.
    pub entries: Option<Vec<MemoryEntry>>,
    /// With paths as in the archive: `MEMORY.md`, and what is below `memory/` or `workspace/`.
    pub files: Vec<StagedFile>,
}

/// Why an archive is not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BundleError {
    /// It is no tar archive, or was cut off.
    #[error("is no tar archive of an agent, or was cut off")]
    NotReadable,
    /// `agent.json` is missing.
    #[error("has no {ABOUT}, so it is no export of an agent")]
    NoManifest,
    /// The file of this name does not have its form.
    #[error("has a broken {0}")]
    Broken(&'static str),
    /// Its form has this number, which this version does not know.
    #[error("is of format {0}, which this version does not know")]
    Newer(u32),
    /// It has something that no export has.
    #[error("holds {path:?}, which {why}")]
    Refused {
        /// As it stands in the archive; cut to 80 characters where the path itself is the reason.
        path: String,
        /// The end of a sentence that begins with the path.
        why: &'static str,
    },
    /// It is beyond [`MAX_BYTES`] or [`MAX_FILES`], or remembers more than can be carried.
    #[error("holds more than {} MiB or {MAX_FILES} files", MAX_BYTES / (1024 * 1024))]
    TooLarge,
    /// Only a gateway of that family can read its memory.
    #[error(
        "was exported while the agent did not run: its memory is in files of ZeroClaw {0} alone. Export it again while it runs"
    )]
    Unspoken(Profile),
}

impl Bundle {
    /// From the files of an agent's data folder, of which it takes memory and the agent's own.
    pub fn new(
        profile: Profile,
        version: Option<String>,
        agent: AgentSpec,
        entries: Option<Vec<MemoryEntry>>,
        files: &[StagedFile],
        exported_at: Timestamp,
    ) -> Self {
        let places = layout(profile);
        let place = |file: &StagedFile| {
            let path = file.path.as_ref();
            let place = match inside(path, places.memory) {
                _ if path == places.notes => PLACES.notes.to_owned(),
                Some(name) => format!("{}/{name}", PLACES.memory),
                None => format!("{}/{}", PLACES.workspace, inside(path, places.workspace)?),
            };
            Some(StagedFile { path: place.into(), ..file.clone() })
        };
        let files = files.iter().filter(|file| belongs(profile, &file.path)).filter_map(place).collect();
        Self { about: About { format: FORMAT, profile, version, exported_at, agent }, entries, files }
    }

    /// The files for an agent that runs `to`, and whether its gateway is to be told what is among them.
    ///
    /// # Errors
    /// [`BundleError::Unspoken`] where the memory's files say nothing to that version.
    pub fn files_for(&self, to: Profile) -> Result<(Vec<StagedFile>, bool), BundleError> {
        let from = self.about.profile;
        let files: Vec<StagedFile> = self.files.clone();
        match carry(from, to, self.about.agent.memory_backend) {
            Carry::InPlace | Carry::Copy => Ok((moved_into(to, files, PLACES), false)),
            Carry::Tell => {
                let (memory, own): (Vec<_>, Vec<_>) = files.into_iter().partition(|file| is_memory(&file.path));
                let mut placed = moved_into(to, own, PLACES);
                match &self.entries {
                    Some(entries) => placed.push(untold(entries)),
                    None if !memory.is_empty() => return Err(BundleError::Unspoken(from)),
                    None => {}
                }
                Ok((placed, self.entries.is_some()))
            }
        }
    }

    /// The archive, whole.
    ///
    /// # Errors
    /// A path that no archive can hold.
    pub fn to_tar(&self) -> io::Result<Vec<u8>> {
        let mut archive = tar::Builder::new(Vec::new());
        let mtime = self.about.exported_at.as_second().unsigned_abs();
        let mut add = |path: &str, content: &[u8], mode: u32| {
            let mut header = tar::Header::new_gnu();
            header.set_entry_type(tar::EntryType::Regular);
            header.set_mode(mode);
            header.set_mtime(mtime);
            header.set_size(content.len() as u64);
            archive.append_data(&mut header, path, content)
        };
        add(ABOUT, &serde_json::to_vec_pretty(&self.about)?, MODE)?;
        if let Some(entries) = &self.entries {
            add(ENTRIES, &serde_json::to_vec_pretty(entries)?, MODE)?;
        }
        for file in &self.files {
            add(&file.path, file.content.expose(), file.mode)?;
        }
        archive.into_inner()
    }
}

/// Whether a file of an archive is memory.
fn is_memory(path: &str) -> bool {
    path == PLACES.notes || inside(path, PLACES.memory).is_some()
}

/// Reads an archive that anybody may have written.
///
/// # Errors
/// See [`BundleError`].
pub fn read(archive: &[u8]) -> Result<Bundle, BundleError> {
    let unreadable = |_| BundleError::NotReadable;
    let (mut about, mut entries, mut files) = (None, None, Vec::new());
    let (mut seen, mut left, mut end) = (BTreeSet::new(), MAX_BYTES as u64, 0);
    for (count, entry) in tar::Archive::new(archive).entries().map_err(unreadable)?.enumerate() {
        let mut entry = entry.map_err(unreadable)?;
        let path = path_of(&entry)?;
        end = entry.raw_file_position().saturating_add(entry.size()).next_multiple_of(BLOCK as u64);
        let refused = |why| BundleError::Refused { path: path.clone(), why };
        match entry.header().entry_type() {
            tar::EntryType::Directory => continue,
            tar::EntryType::Regular | tar::EntryType::Continuous => {}
            _ => return Err(refused("is neither a file nor a folder")),
        }
        left = left.checked_sub(entry.size()).ok_or(BundleError::TooLarge)?;
        if count >= MAX_FILES {
            return Err(BundleError::TooLarge);
        }
        if !seen.insert(path.clone()) {
            return Err(refused("is there twice"));
        }
        let mut content = Vec::new();
        entry.read_to_end(&mut content).map_err(unreadable)?;
        match path.as_str() {
            ABOUT => about = Some(manifest(&content)?),
            ENTRIES => entries = Some(read_entries(&content)?),
            path if inside(path, PLACES.workspace).is_some_and(is_own) || is_memory(path) => {
                let mode = entry.header().mode().unwrap_or(MODE) & 0o700 | 0o600;
                files.push(StagedFile { path: path.to_owned().into(), content: Secret::new(content), mode });
            }
            _ => return Err(refused("does not belong to an export of an agent")),
        }
    }
    let about = about.ok_or(BundleError::NoManifest)?;
    if !ends_at(archive, end) {
        return Err(BundleError::NotReadable);
    }
    Ok(Bundle { about, entries, files })
}

/// Whether an archive says that it ends there, by a block of zeros. One that was cut between two files does not.
fn ends_at(archive: &[u8], end: u64) -> bool {
    let rest = usize::try_from(end).ok().and_then(|end| archive.get(end..)).unwrap_or_default();
    rest.first_chunk::<BLOCK>().is_some_and(|block| block.iter().all(|byte| *byte == 0))
}

fn manifest(content: &[u8]) -> Result<About, BundleError> {
    #[derive(Deserialize)]
    struct Format {
        format: u32,
    }
    let broken = |_| BundleError::Broken(ABOUT);
    // Told by its number, not by whatever else changed with it.
    let Format { format } = serde_json::from_slice(content).map_err(broken)?;
    if format != FORMAT {
        return Err(BundleError::Newer(format));
    }
    serde_json::from_slice(content).map_err(broken)
}

fn read_entries(content: &[u8]) -> Result<Vec<MemoryEntry>, BundleError> {
    let entries: Vec<MemoryEntry> = serde_json::from_slice(content).map_err(|_| BundleError::Broken(ENTRIES))?;
    if entries.len() > MAX_ENTRIES { Err(BundleError::TooLarge) } else { Ok(entries) }
}

/// A relative path of plain names.
fn path_of<R: Read>(entry: &tar::Entry<'_, R>) -> Result<String, BundleError> {
    let bytes = entry.path_bytes();
    let shown: String = String::from_utf8_lossy(&bytes).chars().take(80).collect();
    let refused = |why| BundleError::Refused { path: shown.clone(), why };
    let text = std::str::from_utf8(&bytes).map_err(|_| refused("is no UTF-8"))?;
    let text = text.strip_prefix("./").unwrap_or(text).trim_end_matches('/');
    let plain = Path::new(text).components().all(|part| matches!(part, Component::Normal(_)));
    if text.len() > MAX_PATH {
        return Err(refused("is too long"));
    }
    if !plain
        || text.contains(['\0', '\\'])
        || text.split('/').any(|part| part == "." || part.is_empty()) && !text.is_empty()
    {
        return Err(refused("leads out of the archive, or is no plain path"));
    }
    Ok(text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{MemoryBackend, Provider};

    fn file(path: &str, content: &str) -> StagedFile {
        StagedFile { path: path.to_owned().into(), content: Secret::new(content.into()), mode: 0o644 }
    }

    fn bundle(profile: Profile, entries: Option<Vec<MemoryEntry>>) -> Bundle {
        let places = layout(profile);
        let files = [
            file(&format!("{}/brain.db", places.memory), "rows"),
            file(&format!("{}/brain.db-shm", places.memory), "scratch"),
            file(places.notes, "lasting"),
            file(&format!("{}/notes/a.txt", places.workspace), "mine"),
            file(&format!("{}/SOUL.md", places.workspace), "rendered anyway"),
            file(".zeroclaw/config.toml", "secret"),
            file(".zeroclaw/.secret_key", "secret"),
        ];
        let spec = AgentSpec { memory_backend: MemoryBackend::Sqlite, ..AgentSpec::new("a", Provider::Openai, "m") };
        Bundle::new(profile, None, spec, entries, &files, Timestamp::UNIX_EPOCH)
    }

    fn paths(files: &[StagedFile]) -> Vec<&str> {
        files.iter().map(|file| file.path.as_ref()).collect()
    }

    fn entry() -> MemoryEntry {
        MemoryEntry { key: "k".into(), content: "c".into(), category: None }
    }

    #[test]
    fn written_and_read_back_without_secrets() {
        for &profile in Profile::ALL {
            let bundle = bundle(profile, Some(vec![entry()]));
            assert_eq!(paths(&bundle.files), ["memory/brain.db", "MEMORY.md", "workspace/notes/a.txt"], "{profile}");
            let archive = bundle.to_tar().unwrap();
            assert!(!archive.windows(6).any(|window| window == b"secret"));
            let back = read(&archive).unwrap();
            assert_eq!((&back.about, &back.entries), (&bundle.about, &bundle.entries));
            assert_eq!(paths(&back.files), paths(&bundle.files));
        }
    }

    #[test]
    fn files_are_placed_where_the_version_looks_for_them() {
        let (up, told) = bundle(Profile::V01, None).files_for(Profile::V08).unwrap();
        assert!(!told);
        let memory = ".zeroclaw/data/memory";
        let expected = [
            format!("{memory}/brain.db"),
            ".zeroclaw/data/MEMORY.md".into(),
            ".zeroclaw/agents/default/workspace/notes/a.txt".into(),
            format!("{memory}/brain.db-wal"),
            format!("{memory}/brain.db-shm"),
        ];
        assert_eq!(paths(&up), expected);
        let (down, told) = bundle(Profile::V08, Some(vec![entry()])).files_for(Profile::V01).unwrap();
        assert!(told);
        assert_eq!(paths(&down), ["workspace/notes/a.txt", ".zeroone/untold/memory.json"]);
        let unspoken = bundle(Profile::V08, None).files_for(Profile::V01);
        assert_eq!(unspoken, Err(BundleError::Unspoken(Profile::V08)));
    }

    /// An archive of what the `tar` crate itself would refuse to write.
    fn hostile(path: &str, kind: tar::EntryType) -> Vec<u8> {
        let mut archive = tar::Builder::new(Vec::new());
        let mut header = tar::Header::new_ustar();
        let name = &mut header.as_old_mut().name;
        name[..path.len()].copy_from_slice(path.as_bytes());
        header.set_entry_type(kind);
        header.set_size(0);
        header.set_mode(0o644);
        header.set_cksum();
        archive.append(&header, io::empty()).unwrap();
        archive.into_inner().unwrap()
    }

    #[test]
    fn hostile_archives_are_refused() {
        use tar::EntryType::{Block, Char, Fifo, Link, Regular, Symlink};
        for path in ["/etc/passwd", "../up", "workspace/../../up", "workspace/./a", "workspace//a", "elsewhere/a", "x"]
        {
            assert!(matches!(read(&hostile(path, Regular)), Err(BundleError::Refused { .. })), "{path}");
        }
        for name in [".secret_key", "memory/brain.db", "state/x", "SOUL.md"] {
            let path = format!("workspace/{name}");
            let refused = matches!(read(&hostile(&path, Regular)), Err(BundleError::Refused { .. }));
            assert_eq!(refused, name != ".secret_key", "{path}");
        }
        for kind in [Symlink, Link, Char, Block, Fifo] {
            assert!(matches!(read(&hostile("workspace/a", kind)), Err(BundleError::Refused { .. })), "{kind:?}");
        }
        assert_eq!(read(b"no archive at all"), Err(BundleError::NotReadable));
        assert_eq!(read(&[]), Err(BundleError::NoManifest));
        let twice = [hostile("workspace/a", Regular)[..512].to_vec(), hostile("workspace/a", Regular)].concat();
        assert!(matches!(read(&twice), Err(BundleError::Refused { why: "is there twice", .. })));
    }

    #[test]
    fn sizes_are_bounded_by_what_the_headers_announce() {
        let mut header = tar::Header::new_ustar();
        header.set_path("workspace/huge").unwrap();
        header.set_entry_type(tar::EntryType::Regular);
        header.set_size(u64::from(u32::MAX));
        header.set_cksum();
        assert_eq!(read(header.as_bytes()), Err(BundleError::TooLarge));
    }

    #[test]
    fn archives_that_were_cut_off_are_refused_wherever_that_was() {
        let mut bundle = bundle(Profile::V01, Some(vec![entry()]));
        // Content that looks like the end of an archive is none.
        bundle.files.push(file("workspace/zeros", &"\0".repeat(2 * BLOCK)));
        let archive = bundle.to_tar().unwrap();
        let end = archive.len() - 2 * BLOCK;
        for length in (0..=end).step_by(BLOCK) {
            assert!(read(&archive[..length]).is_err(), "{length} of {end}");
        }
        // Some programs write one block of zeros, some write many.
        assert!(read(&archive[..end + BLOCK]).is_ok());
        assert!(read(&[archive, vec![0; 20 * BLOCK]].concat()).is_ok());
    }

    #[test]
    fn other_formats_are_named() {
        let mut bundle = bundle(Profile::V01, None);
        bundle.about.format = 7;
        assert_eq!(read(&bundle.to_tar().unwrap()), Err(BundleError::Newer(7)));
    }
}
