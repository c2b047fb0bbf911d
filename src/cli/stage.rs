//! `zeroone stage`: puts an agent's files into its volume, before the agent starts. The first container of each agent's Pod
//! runs it; ZeroClaw's own image need not have a shell.
//!
//! Once for each set of files, by its name: what an agent has changed since, such as the token that it was paired with, stays.

use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Component, Path, PathBuf};

use clap::Args;
use serde::Deserialize;

use super::outcome::Failure;

/// The list of files, among them.
const MANIFEST: &str = "manifest";
/// Keeps the name of the set that was staged last.
const MARK: &str = ".zeroone-staged";

#[derive(Debug, Args)]
pub(super) struct StageArgs {
    /// Folder of the files, as the cluster mounts them.
    #[arg(long, value_name = "DIR")]
    from: PathBuf,
    /// The agent's data.
    #[arg(long, value_name = "DIR")]
    to: PathBuf,
    /// Name of this set of files.
    #[arg(long = "as", value_name = "NAME")]
    name: String,
}

#[derive(Deserialize)]
struct Entry {
    key: String,
    path: String,
    mode: u32,
}

pub(super) fn run(args: &StageArgs) -> Result<(), Failure> {
    let mark = args.to.join(MARK);
    if fs::read_to_string(&mark).is_ok_and(|name| name == args.name) {
        return Ok(());
    }
    let failed = |what: &Path| {
        let what = what.display().to_string();
        move |error: io::Error| Failure::said(format!("cannot stage {what}: {error}"))
    };
    let list = args.from.join(MANIFEST);
    let text = fs::read(&list).map_err(failed(&list))?;
    let entries: Vec<Entry> = serde_json::from_slice(&text)
        .map_err(|error| Failure::said(format!("the list of files is damaged: {error}")))?;
    for Entry { key, path, mode } in entries {
        if !is_plain(Path::new(&path)) || !is_plain(Path::new(&key)) {
            return Err(Failure::said(format!("{path} does not lie in the agent's data")));
        }
        let (from, to) = (args.from.join(key), args.to.join(path));
        let content = fs::read(&from).map_err(failed(&from))?;
        put(&to, &content, mode).map_err(failed(&to))?;
    }
    put(&mark, args.name.as_bytes(), 0o600).map_err(failed(&mark))
}

/// Whether it leads to something below a folder, and nowhere else.
pub(super) fn is_plain(path: &Path) -> bool {
    path.components().all(|part| matches!(part, Component::Normal(_))) && path.components().next().is_some()
}

/// Whole or not at all, whenever this is ended; and nothing is written through a link that the agent has made.
pub(super) fn put(path: &Path, content: &[u8], mode: u32) -> io::Result<()> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    let mut new = path.as_os_str().to_owned();
    new.push(".zeroone-new");
    let new = PathBuf::from(new);
    match fs::remove_file(&new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(mode).open(&new)?;
    file.set_permissions(fs::Permissions::from_mode(mode))?;
    file.write_all(content)?;
    file.sync_all()?;
    fs::rename(new, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_of_files_is_staged_once() {
        let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let list = r#"[{"key":"file-0","path":"a/b.toml","mode":384}]"#;
        fs::write(from.path().join(MANIFEST), list).unwrap();
        fs::write(from.path().join("file-0"), "first").unwrap();
        let args = |name: &str| StageArgs { from: from.path().into(), to: to.path().into(), name: name.into() };
        let file = to.path().join("a/b.toml");
        run(&args("one")).unwrap();
        assert_eq!(fs::read_to_string(&file).unwrap(), "first");
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        fs::write(&file, "the agent's own").unwrap();
        run(&args("one")).unwrap();
        assert_eq!(fs::read_to_string(&file).unwrap(), "the agent's own");
        run(&args("two")).unwrap();
        assert_eq!(fs::read_to_string(&file).unwrap(), "first");
    }

    #[test]
    fn nothing_is_written_elsewhere() {
        let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        for path in ["../x", "/x", ""] {
            let list = serde_json::json!([{ "key": "file-0", "path": path, "mode": 384 }]).to_string();
            fs::write(from.path().join(MANIFEST), list).unwrap();
            fs::write(from.path().join("file-0"), "x").unwrap();
            let args = StageArgs { from: from.path().into(), to: to.path().into(), name: "n".into() };
            assert!(run(&args).is_err(), "{path}");
        }
    }
}
