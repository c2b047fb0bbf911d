//! Text files of the agent's own workspace, and nothing outside of it.

use std::fs;
use std::io::Read as _;
use std::path::{Component, Path, PathBuf};

use serde::Deserialize;

/// Longest file that is read or written, in bytes.
const SIZE: u64 = 1_000_000;
/// What the gateway keeps there for itself; an agent that breaks it loses its own mind.
const RESERVED: [&str; 2] = ["memory", "state"];

#[derive(Deserialize)]
pub(super) struct Read {
    path: String,
}

#[derive(Deserialize)]
pub(super) struct Write {
    path: String,
    content: String,
}

pub(super) async fn read(workspace: &Path, read: Read) -> Result<String, String> {
    let workspace = workspace.to_owned();
    blocking(move || {
        let path = inside(&workspace, &read.path)?;
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

pub(super) async fn write(workspace: &Path, write: Write) -> Result<String, String> {
    if write.content.len() as u64 > SIZE {
        return Err(format!("a file may have at most {SIZE} bytes"));
    }
    let workspace = workspace.to_owned();
    blocking(move || {
        let path = inside(&workspace, &write.path)?;
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder).map_err(|error| format!("its folder cannot be made: {}", error.kind()))?;
        }
        // Checked again: the folders that were just made or passed may be links.
        let path = inside(&workspace, &write.path)?;
        fs::write(&path, &write.content).map_err(|error| format!("it cannot be written: {}", error.kind()))?;
        Ok(format!("{} bytes written", write.content.len()))
    })
    .await
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

    #[tokio::test]
    async fn what_was_written_can_be_read() {
        let home = tempfile::tempdir().unwrap();
        let path = "new/folder/c.txt".to_owned();
        write(home.path(), Write { path: path.clone(), content: "hello".into() }).await.unwrap();
        assert_eq!(read(home.path(), Read { path }).await.unwrap(), "hello");
        assert!(read(home.path(), Read { path: "new".into() }).await.is_err());
        fs::write(home.path().join("binary"), [0xff, 0xfe]).unwrap();
        assert!(read(home.path(), Read { path: "binary".into() }).await.is_err());
    }
}
