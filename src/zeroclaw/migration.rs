//! An agent's data on its way between versions: which files go where, as a function of the files that are there.
//!
//! ```text
//!                    memory                  notes                      the agent's own files
//!   0.1 to 0.7, ours workspace/memory/       workspace/MEMORY.md        workspace/
//!   0.8              .zeroclaw/data/memory/  .zeroclaw/data/MEMORY.md   .zeroclaw/agents/default/workspace/
//! ```
//! A memory in Markdown has its lasting notes in the file beside the folder, and is written alike by all versions but our own
//! gateway: its files are copied. So is a database up to 0.8, which reads it. Down, an older version could read what 0.8
//! wrote, but every write would fail; and our own gateway has files of its own. There the entries are told to the new gateway
//! one by one (see [`memory`](super::memory)). Before every step the present state is set aside, so that the step can be
//! taken back.

use std::borrow::Cow;

use super::memory::MemoryEntry;
use super::workspace::CONFIG_PATH;
use crate::domain::{MemoryBackend, Profile, Secret, StagedFile};

/// Where the state before an upgrade is kept, relative to the data folder, under the paths that it had.
pub const SET_ASIDE: &str = ".zeroone/before-upgrade";
/// Where entries wait that the gateway has yet to be told.
pub const UNTOLD: &str = ".zeroone/untold";
const UNTOLD_FILE: &str = ".zeroone/untold/memory.json";

const SECRET_KEY: &str = ".zeroclaw/.secret_key";
/// A database, its log and what its readers share: a stop does not write the log back, so that the first two belong
/// together. What is left of another database does not fit; the last one is made anew by whoever opens the database.
const fn database(profile: Profile) -> [&'static str; 3] {
    match profile {
        Profile::V01 | Profile::V06 | Profile::V08 => ["brain.db", "brain.db-wal", "brain.db-shm"],
        Profile::Embedded => ["memory.db", "memory.db-wal", "memory.db-shm"],
    }
}

const MODE: u32 = 0o600;

/// Where a family of versions keeps an agent's data, relative to the data folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Layout {
    /// The folder with the files of its memory.
    pub memory: &'static str,
    /// What a memory in Markdown keeps for good, in one file.
    pub notes: &'static str,
    /// The folder with the agent's own files.
    pub workspace: &'static str,
    /// All folders that hold memory, notes or workspace.
    pub roots: &'static [&'static str],
}

/// Where this family keeps them.
pub const fn layout(profile: Profile) -> Layout {
    match profile {
        Profile::V01 | Profile::V06 | Profile::Embedded => Layout {
            memory: "workspace/memory",
            notes: "workspace/MEMORY.md",
            workspace: "workspace",
            roots: &["workspace"],
        },
        Profile::V08 => Layout {
            memory: ".zeroclaw/data/memory",
            notes: ".zeroclaw/data/MEMORY.md",
            workspace: ".zeroclaw/agents/default/workspace",
            roots: &[".zeroclaw/data", ".zeroclaw/agents/default/workspace"],
        },
    }
}

/// How what an agent remembers gets from one version to another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Carry {
    /// It stays where it is.
    InPlace,
    /// Its files are copied.
    Copy,
    /// Its entries are told to the new gateway.
    Tell,
}

/// How a memory of this kind gets from one family to the other.
pub const fn carry(from: Profile, to: Profile, backend: MemoryBackend) -> Carry {
    match (from, to) {
        _ if matches!(backend, MemoryBackend::None) => Carry::InPlace,
        (Profile::V01 | Profile::V06, Profile::V01 | Profile::V06)
        | (Profile::V08, Profile::V08)
        | (Profile::Embedded, Profile::Embedded) => Carry::InPlace,
        (Profile::V01 | Profile::V06, Profile::V08) => Carry::Copy,
        (Profile::V08, Profile::V01 | Profile::V06) if matches!(backend, MemoryBackend::Markdown) => Carry::Copy,
        (Profile::V01 | Profile::V06 | Profile::V08 | Profile::Embedded, _) => Carry::Tell,
    }
}

/// Whether so many entries are all that there were before; a version may clear old conversations by itself when it starts.
pub const fn is_whole(before: u64, after: u64) -> bool {
    after + before / 10 >= before
}

/// The folders whose files [`set_aside`] and [`moved`] want to see.
pub const fn folders(profile: Profile) -> &'static [&'static str] {
    match profile {
        Profile::V01 | Profile::V06 | Profile::Embedded => &[".zeroclaw", "workspace"],
        Profile::V08 => &[".zeroclaw"],
    }
}

/// What is to be kept of a version's files before another one is started on them: configuration, key file, memory.
pub fn set_aside(profile: Profile, files: &[StagedFile]) -> Vec<StagedFile> {
    let kept = |file: &&StagedFile| {
        let path = file.path.as_ref();
        path == CONFIG_PATH || path == SECRET_KEY || is_memory(profile, path)
    };
    files.iter().filter(kept).map(|file| under(file, &format!("{SET_ASIDE}/{}", file.path))).collect()
}

/// What puts the state back that was set aside; the configuration is written anew anyway.
pub fn put_back(profile: Profile, set_aside: &[StagedFile]) -> Vec<StagedFile> {
    let original = |file: &StagedFile| Some(under(file, inside(&file.path, SET_ASIDE)?));
    let files = set_aside.iter().filter_map(original).filter(|file| file.path != CONFIG_PATH).collect();
    with_whole_database(files, profile, Whole::Always)
}

/// What brings the files of a version to where another one looks for them.
pub fn moved(from: Profile, to: Profile, backend: MemoryBackend, files: &[StagedFile]) -> Vec<StagedFile> {
    let (old, new) = (layout(from), layout(to));
    let carry = carry(from, to, backend);
    if old == new {
        // Notes in the other one's form would be read as what they are not, beside those that it is told.
        let foreign = |file: &&StagedFile| carry == Carry::Tell && file.path == old.notes;
        return files.iter().filter(foreign).map(|file| empty(&file.path)).collect();
    }
    let place = |file: &StagedFile| {
        let path = file.path.as_ref();
        if is_memory(from, path) {
            return (carry == Carry::Copy).then(|| memory_path(path, old, new));
        }
        let name = inside(path, old.workspace)?;
        is_own(name).then(|| format!("{}/{name}", new.workspace))
    };
    let moved = files.iter().filter_map(|file| Some(under(file, &place(file)?))).collect();
    with_whole_database(moved, to, Whole::IfThere)
}

fn memory_path(path: &str, old: Layout, new: Layout) -> String {
    match inside(path, old.memory) {
        Some(name) => format!("{}/{name}", new.memory),
        None => new.notes.to_owned(),
    }
}

/// Files of a layout of one's own, to where a version looks for them.
pub fn moved_into(to: Profile, files: Vec<StagedFile>, old: Layout) -> Vec<StagedFile> {
    let new = layout(to);
    let place = |file: StagedFile| {
        let path = if file.path == old.notes || inside(&file.path, old.memory).is_some() {
            memory_path(&file.path, old, new)
        } else {
            format!("{}/{}", new.workspace, inside(&file.path, old.workspace)?)
        };
        Some(StagedFile { path: path.into(), ..file })
    };
    with_whole_database(files.into_iter().filter_map(place).collect(), to, Whole::IfThere)
}

/// Whether a file in the data folder is memory or the agent's own.
pub fn belongs(profile: Profile, path: &str) -> bool {
    let own = || inside(path, layout(profile).workspace).is_some_and(is_own);
    is_memory(profile, path) || (own() && !is_scratch(path))
}

fn is_memory(profile: Profile, path: &str) -> bool {
    let places = layout(profile);
    path == places.notes || (inside(path, places.memory).is_some() && !is_scratch(path))
}

/// Files of an agent's own; not what the gateway or the control plane writes there.
pub fn is_own(name: &str) -> bool {
    let gateways =
        ["IDENTITY.md", "USER.md", "SOUL.md", "MEMORY.md"].contains(&name) || inside(name, "state").is_some();
    !gateways && inside(name, "memory").is_none()
}

/// What an SQLite database or its reader makes anew.
pub fn is_scratch(path: &str) -> bool {
    let name = path.rsplit('/').next().unwrap_or_default();
    name.starts_with("brain.db.backup-") || name.ends_with("-shm")
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Whole {
    Always,
    IfThere,
}

/// The database's three files, empty where one was missing: what another database left there would not fit.
fn with_whole_database(mut files: Vec<StagedFile>, profile: Profile, whole: Whole) -> Vec<StagedFile> {
    let (memory, names) = (layout(profile).memory, database(profile));
    let path = |name: &str| format!("{memory}/{name}");
    let has = |files: &[StagedFile], name: &str| files.iter().any(|file| file.path == path(name).as_str());
    if whole == Whole::Always || has(&files, names[0]) {
        for name in names {
            if !has(&files, name) {
                files.push(empty(&path(name)));
            }
        }
    }
    files
}

/// The entries as a file of the agent's data, until its gateway was told.
pub fn untold(entries: &[MemoryEntry]) -> StagedFile {
    let content = serde_json::to_vec(entries).unwrap_or_default();
    StagedFile { path: UNTOLD_FILE.into(), content: Secret::new(content), mode: MODE }
}

/// The entries of the files in [`UNTOLD`]; none where there are none, or none that can be read.
pub fn read_untold(files: &[StagedFile]) -> Vec<MemoryEntry> {
    let file = files.iter().find(|file| file.path == UNTOLD_FILE);
    file.and_then(|file| serde_json::from_slice(file.content.expose()).ok()).unwrap_or_default()
}

/// The rest of a path in a folder.
pub fn inside<'a>(path: &'a str, folder: &str) -> Option<&'a str> {
    path.strip_prefix(folder)?.strip_prefix('/')
}

fn empty(path: &str) -> StagedFile {
    StagedFile { path: Cow::Owned(path.to_owned()), content: Secret::new(Vec::new()), mode: MODE }
}

fn under(file: &StagedFile, path: &str) -> StagedFile {
    StagedFile { path: Cow::Owned(path.to_owned()), ..file.clone() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(paths: &[&str]) -> Vec<StagedFile> {
        let file = |path: &&str| StagedFile {
            path: Cow::Owned((*path).to_owned()),
            content: Secret::new(path.as_bytes().to_vec()),
            mode: 0o644,
        };
        paths.iter().map(file).collect()
    }

    fn paths(files: &[StagedFile]) -> Vec<&str> {
        files.iter().map(|file| file.path.as_ref()).collect()
    }

    const OLD: [&str; 10] = [
        ".zeroclaw/.secret_key",
        ".zeroclaw/config.toml",
        "workspace/MEMORY.md",
        "workspace/SOUL.md",
        "workspace/memory/brain.db",
        "workspace/memory/brain.db-shm",
        "workspace/memory/brain.db-wal",
        "workspace/memory/notes.md",
        "workspace/notes/a.txt",
        "workspace/state/memory_hygiene_state.json",
    ];

    #[test]
    fn configuration_key_and_memory_are_set_aside_and_put_back_whole() {
        let aside = set_aside(Profile::V01, &files(&OLD));
        let kept: Vec<&str> = aside.iter().map(|file| inside(&file.path, SET_ASIDE).unwrap()).collect();
        assert_eq!(kept, [OLD[0], OLD[1], OLD[2], OLD[4], OLD[6], OLD[7]]);
        let back = put_back(Profile::V01, &aside);
        assert_eq!(paths(&back), [OLD[0], OLD[2], OLD[4], OLD[6], OLD[7], OLD[5]]);
        assert_eq!(back[2].content.expose(), b"workspace/memory/brain.db");
        assert!(back[5].content.expose().is_empty(), "what another run left there does not fit");
    }

    #[test]
    fn memory_that_was_not_there_is_not_there_again() {
        let back = put_back(Profile::V08, &[]);
        let memory = ".zeroclaw/data/memory";
        assert_eq!(paths(&back), ["brain.db", "brain.db-wal", "brain.db-shm"].map(|name| format!("{memory}/{name}")));
        assert!(back.iter().all(|file| file.content.expose().is_empty()));
    }

    #[test]
    fn going_up_takes_the_database_and_the_agents_own_files_along() {
        let moved = moved(Profile::V06, Profile::V08, MemoryBackend::Sqlite, &files(&OLD));
        let (memory, own) = (".zeroclaw/data/memory", ".zeroclaw/agents/default/workspace");
        let expected = [
            ".zeroclaw/data/MEMORY.md".to_owned(),
            format!("{memory}/brain.db"),
            format!("{memory}/brain.db-wal"),
            format!("{memory}/notes.md"),
            format!("{own}/notes/a.txt"),
            format!("{memory}/brain.db-shm"),
        ];
        assert_eq!(paths(&moved), expected);
    }

    #[test]
    fn going_down_copies_no_database() {
        let new = files(&[
            ".zeroclaw/agents/default/workspace/SOUL.md",
            ".zeroclaw/agents/default/workspace/b.txt",
            ".zeroclaw/data/memory/brain.db",
        ]);
        assert_eq!(paths(&moved(Profile::V08, Profile::V01, MemoryBackend::Sqlite, &new)), ["workspace/b.txt"]);
        assert!(moved(Profile::V01, Profile::V06, MemoryBackend::Sqlite, &files(&OLD)).is_empty());
    }

    #[test]
    fn a_memory_in_markdown_is_copied_with_its_lasting_notes_up_and_down() {
        let old = ["workspace/MEMORY.md", "workspace/memory/2026-11-26.md"];
        let new = [".zeroclaw/data/MEMORY.md", ".zeroclaw/data/memory/2026-11-26.md"];
        for other in [Profile::V01, Profile::V06] {
            let moved = |from, to, paths: &[&str]| moved(from, to, MemoryBackend::Markdown, &files(paths));
            assert_eq!(paths(&moved(other, Profile::V08, &old)), new);
            assert_eq!(paths(&moved(Profile::V08, other, &new)), old);
        }
        for (profile, files) in [(Profile::V01, old), (Profile::V06, old), (Profile::V08, new)] {
            assert!(files.iter().all(|path| belongs(profile, path)), "a copy for a rehearsal has all of it");
        }
    }

    #[test]
    fn notes_in_a_form_that_the_other_cannot_read_are_emptied_before_it_is_told() {
        for (from, to) in [(Profile::V01, Profile::Embedded), (Profile::Embedded, Profile::V06)] {
            let emptied = moved(from, to, MemoryBackend::Markdown, &files(&["workspace/MEMORY.md", "workspace/a.txt"]));
            assert_eq!(paths(&emptied), ["workspace/MEMORY.md"]);
            assert!(emptied[0].content.expose().is_empty());
        }
    }

    #[test]
    fn only_relatives_share_a_database() {
        use Profile::{Embedded, V01, V06, V08};
        let table = [
            (V01, V06, Carry::InPlace),
            (V06, V01, Carry::InPlace),
            (V01, V08, Carry::Copy),
            (V06, V08, Carry::Copy),
            (V08, V06, Carry::Tell),
            (V08, V01, Carry::Tell),
            (V01, Embedded, Carry::Tell),
            (Embedded, V01, Carry::Tell),
            (Embedded, V08, Carry::Tell),
            (V08, Embedded, Carry::Tell),
        ];
        for (from, to, expected) in table {
            assert_eq!(carry(from, to, MemoryBackend::Sqlite), expected, "{from} to {to}");
            assert_eq!(carry(from, to, MemoryBackend::None), Carry::InPlace, "{from} to {to}");
        }
        for &profile in Profile::ALL {
            assert_eq!(carry(profile, profile, MemoryBackend::Sqlite), Carry::InPlace);
        }
        // ZeroClaw's versions write notes in Markdown alike, our own gateway does not.
        assert_eq!(carry(V01, V08, MemoryBackend::Markdown), Carry::Copy);
        assert_eq!(carry(V08, V01, MemoryBackend::Markdown), Carry::Copy);
        assert_eq!(carry(V08, Embedded, MemoryBackend::Markdown), Carry::Tell);
    }

    #[test]
    fn a_tenth_may_be_missing_and_no_more() {
        for (before, after, whole) in [(0, 0, true), (2, 1, false), (9, 8, false), (10, 9, true), (10, 8, false)] {
            assert_eq!(is_whole(before, after), whole, "{before} {after}");
        }
    }

    #[test]
    fn untold_entries_are_read_back() {
        let entries = [MemoryEntry { key: "k".into(), content: "c".into(), category: None }];
        assert_eq!(read_untold(&[untold(&entries)]), entries);
        assert!(read_untold(&[]).is_empty());
    }
}
