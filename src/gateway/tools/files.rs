//! Text files of the agent's own workspace, and nothing outside of it.

use std::fs;
use std::io::Read as _;
use std::path::{Component, Path, PathBuf};

use serde::Deserialize;

use crate::gateway::shared::App;

/// Longest file that is read or written, in bytes.
const SIZE: u64 = 1_000_000;
/// What the gateway keeps there for itself: an agent that breaks it loses its memory.
const RESERVED: [&str; 2] = ["memory", "state"];
/// Who the agent is, which is its owner's to say: a text that the model obeys must not change it for good.
const PERSONA: [&str; 9] = [
    "IDENTITY.md",
    "USER.md",
    "SOUL.md",
    "MEMORY.md",
    "AGENTS.md",
    "TOOLS.md",
    "BOOTSTRAP.md",
    "HEARTBEAT.md",
    "config.toml",
];
/// What all files of the workspace may have together, in bytes, and how many there may be.
const TOTAL_SIZE: u64 = 64_000_000;
const TOTAL_FILES: usize = 5_000;

#[derive(Deserialize)]
pub(super) struct Read {
    path: String,
}

#[derive(Deserialize)]
pub(super) struct Write {
    path: String,
    content: String,
}

/// Where files are, and which of them no tool may reach.
pub(super) struct Place {
    workspace: PathBuf,
    forbidden: Vec<String>,
}

impl Place {
    pub(super) fn of(app: &App) -> Self {
        Self { workspace: app.workspace().to_owned(), forbidden: app.config().autonomy.forbidden_paths.clone() }
    }

    fn find(&self, path: &str) -> Result<PathBuf, String> {
        let found = inside(&self.workspace, path)?;
        let within = |forbidden: &String| {
            let forbidden = forbidden.trim().trim_start_matches("./").trim_end_matches('/');
            // Other places are out of reach anyway.
            let relative = !forbidden.is_empty() && !forbidden.starts_with(['/', '~']);
            let below = found.strip_prefix(self.workspace.canonicalize().unwrap_or_default()).unwrap_or(&found);
            let absolute = forbidden.starts_with('/') && found.starts_with(forbidden);
            absolute && Path::new(forbidden).starts_with(&self.workspace) || (relative && below.starts_with(forbidden))
        };
        if self.forbidden.iter().any(within) { Err("that path is among the forbidden ones".into()) } else { Ok(found) }
    }
}

pub(super) async fn read(place: Place, read: Read) -> Result<String, String> {
    blocking(move || {
        let path = place.find(&read.path)?;
        let file = fs::File::open(&path).map_err(|error| format!("it cannot be opened: {}", error.kind()))?;
        let metadata = file.metadata().map_err(|error| error.kind().to_string())?;
        // A pipe or device could be read for ever.
        if !metadata.is_file() || metadata.len() > SIZE {
            return Err(format!("it is not a file of at most {SIZE} bytes"));
        }
        let mut text = String::new();
        file.take(SIZE).read_to_string(&mut text).map_err(|_| "it is not a text file".to_owned())?;
        Ok(text)
    })
    .await
}

pub(super) async fn write(place: Place, write: Write) -> Result<String, String> {
    if write.content.len() as u64 > SIZE {
        return Err(format!("a file may have at most {SIZE} bytes"));
    }
    blocking(move || {
        let path = place.find(&write.path)?;
        if is_persona(&path, &place.workspace) {
            return Err("that file says who you are and is your owner's to change".into());
        }
        make_room(&place.workspace, &path, write.content.len() as u64)?;
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder).map_err(|error| format!("its folder cannot be made: {}", error.kind()))?;
        }
        // Checked again: the folders that were just made or passed may be links.
        let path = place.find(&write.path)?;
        fs::write(&path, &write.content).map_err(|error| format!("it cannot be written: {}", error.kind()))?;
        Ok(format!("{} bytes written", write.content.len()))
    })
    .await
}

/// Whether a path is one of the files at the top of the workspace that make the system prompt.
fn is_persona(path: &Path, workspace: &Path) -> bool {
    let root = workspace.canonicalize().unwrap_or_else(|_| workspace.to_owned());
    // A link to such a file is that file.
    let real = path.canonicalize().unwrap_or_else(|_| path.to_owned());
    let named = |path: &Path| {
        path.parent() == Some(&root)
            && path.file_name().is_some_and(|name| PERSONA.iter().any(|persona| name.eq_ignore_ascii_case(persona)))
    };
    named(path) || named(&real)
}

/// Refuses a file that would make the workspace larger than it may be.
fn make_room(workspace: &Path, path: &Path, size: u64) -> Result<(), String> {
    let former = fs::metadata(path).ok();
    let (mut files, mut bytes) = (0, 0);
    let mut folders = vec![workspace.to_owned()];
    while let Some(folder) = folders.pop() {
        // A folder that cannot be read holds nothing that a tool wrote.
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            let Ok(metadata) = entry.metadata() else { continue };
            if metadata.is_dir() {
                folders.push(entry.path());
            }
            bytes += metadata.len();
            files += 1;
        }
        if files > TOTAL_FILES {
            break;
        }
    }
    let grown = bytes - former.as_ref().map_or(0, std::fs::Metadata::len).min(bytes) + size;
    if grown > TOTAL_SIZE || (former.is_none() && files >= TOTAL_FILES) {
        return Err(format!(
            "the workspace may hold {TOTAL_SIZE} bytes in {TOTAL_FILES} files, and that would be more"
        ));
    }
    Ok(())
}

async fn blocking(work: impl FnOnce() -> Result<String, String> + Send + 'static) -> Result<String, String> {
    tokio::task::spawn_blocking(work).await.map_err(|error| error.to_string())?
}

/// The place that a path of the model means, if it is within the workspace, whatever links lie on the way.
fn inside(workspace: &Path, path: &str) -> Result<PathBuf, String> {
    const OUTSIDE: &str = "the path must stay within the workspace";
    let mut parts = Vec::new();
    for part in Path::new(path).components() {
        match part {
            Component::Normal(part) => parts.push(part),
            Component::CurDir => {}
            Component::ParentDir | Component::RootDir | Component::Prefix(_) => return Err(OUTSIDE.into()),
        }
    }
    let first = parts.first().ok_or("the path is empty")?;
    if RESERVED.iter().any(|reserved| first.eq_ignore_ascii_case(reserved)) {
        return Err("that folder is the gateway's own".into());
    }
    let root = workspace.canonicalize().map_err(|_| "there is no workspace".to_owned())?;
    let wanted: PathBuf = root.join(parts.iter().collect::<PathBuf>());
    // The longest part that is there decides; what does not exist yet cannot be a link.
    let there = wanted.ancestors().find(|part| part.symlink_metadata().is_ok()).unwrap_or(&root);
    let real = there.canonicalize().map_err(|_| OUTSIDE.to_owned())?;
    if real.starts_with(&root) { Ok(wanted) } else { Err(OUTSIDE.into()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_outside_can_be_named() {
        let outside = tempfile::tempdir().unwrap();
        let home = tempfile::tempdir().unwrap();
        let workspace = home.path();
        std::os::unix::fs::symlink(outside.path(), workspace.join("link")).unwrap();
        std::os::unix::fs::symlink("/nowhere/yet", workspace.join("dangling")).unwrap();
        fs::create_dir(workspace.join("notes")).unwrap();
        for bad in
            ["", ".", "/etc/passwd", "../x", "notes/../../x", "link/x", "link", "dangling", "state/x", "Memory/x"]
        {
            assert!(inside(workspace, bad).is_err(), "{bad}");
        }
        for good in ["a.txt", "./notes/b.txt", "new/folder/c.txt"] {
            assert!(inside(workspace, good).is_ok(), "{good}");
        }
    }

    fn place(home: &tempfile::TempDir, forbidden: &[&str]) -> Place {
        let forbidden = forbidden.iter().map(|path| (*path).to_owned()).collect();
        Place { workspace: home.path().to_owned(), forbidden }
    }

    async fn put(home: &tempfile::TempDir, path: &str, content: &str) -> Result<String, String> {
        write(place(home, &[]), Write { path: path.into(), content: content.into() }).await
    }

    #[tokio::test]
    async fn what_was_written_can_be_read() {
        let home = tempfile::tempdir().unwrap();
        let path = "new/folder/c.txt".to_owned();
        put(&home, &path, "hello").await.unwrap();
        assert_eq!(read(place(&home, &[]), Read { path }).await.unwrap(), "hello");
        assert!(read(place(&home, &[]), Read { path: "new".into() }).await.is_err());
        fs::write(home.path().join("binary"), [0xff, 0xfe]).unwrap();
        assert!(read(place(&home, &[]), Read { path: "binary".into() }).await.is_err());
    }

    #[tokio::test]
    async fn the_persona_can_be_read_and_not_written() {
        let home = tempfile::tempdir().unwrap();
        fs::write(home.path().join("SOUL.md"), "Be brief.").unwrap();
        std::os::unix::fs::symlink(home.path().join("SOUL.md"), home.path().join("alias.md")).unwrap();
        for path in ["SOUL.md", "./soul.md", "USER.md", "identity.MD", "alias.md", "MEMORY.md"] {
            let error = put(&home, path, "obey").await.unwrap_err();
            assert!(error.contains("owner"), "{path}: {error}");
        }
        assert_eq!(read(place(&home, &[]), Read { path: "SOUL.md".into() }).await.unwrap(), "Be brief.");
        put(&home, "notes/SOUL.md", "mine").await.unwrap();
    }

    #[tokio::test]
    async fn forbidden_paths_are_out_of_reach() {
        let home = tempfile::tempdir().unwrap();
        put(&home, "secrets/a.txt", "x").await.unwrap();
        let read = async |path: &str| {
            read(place(&home, &["/etc", "~/.ssh", "./secrets/", "private"]), Read { path: path.into() }).await
        };
        assert!(read("secrets/a.txt").await.unwrap_err().contains("forbidden"));
        put(&home, "secrets.txt", "x").await.unwrap();
        assert_eq!(read("secrets.txt").await.unwrap(), "x");
    }

    #[tokio::test]
    async fn the_workspace_has_a_size() {
        let home = tempfile::tempdir().unwrap();
        let large = fs::File::create(home.path().join("large")).unwrap();
        large.set_len(TOTAL_SIZE - 1_000).unwrap();
        assert!(put(&home, "a", &"x".repeat(2_000)).await.unwrap_err().contains("may hold"));
        put(&home, "a", "small").await.unwrap();
        put(&home, "a", "small").await.unwrap();
        for number in 0..TOTAL_FILES {
            fs::write(home.path().join(format!("f{number}")), "").unwrap();
        }
        assert!(put(&home, "one-more", "").await.is_err());
        put(&home, "f1", "there already").await.unwrap();
    }
}
