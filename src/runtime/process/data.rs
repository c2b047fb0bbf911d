//! The files that an agent may write itself, as the service reads and writes them.
//!
//! They may be the work of an agent that wishes the service no good. A link there that leads out is not followed, or the service
//! would read and write for the agent what the agent itself may not.

use std::fs;
use std::io::{self, Read, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};

use cap_std::ambient_authority;
use cap_std::fs::Dir;
use rustix::fs::{AtFlags, chownat, fchown};
use rustix::process::{Gid, Uid, geteuid};

use super::errors::absent;
use crate::domain::Secret;
use crate::runtime::StagedFile;

/// Writes each file beside its place and renames it there: the instance sees the old content or the new.
pub(super) fn stage(data: &Path, files: &[StagedFile]) -> io::Result<()> {
    let data = Dir::open_ambient_dir(data, ambient_authority())?;
    for file in files {
        let path = inside(&file.path)?;
        write(&data, path, file).map_err(|error| leads_out(path, error))?;
    }
    Ok(())
}

/// The regular files below a folder of the data, in the order of their paths; `None` where they have more than
/// `most` bytes. One that goes away meanwhile is left out.
pub(super) fn read(data: &Path, folder: &str, most: usize) -> io::Result<Option<Vec<StagedFile>>> {
    let (mut files, mut left) = (Vec::new(), most as u64);
    let mut folders = vec![inside(folder)?.to_owned()];
    let data = match Dir::open_ambient_dir(data, ambient_authority()) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Some(files)),
        data => data?,
    };
    while let Some(folder) = folders.pop() {
        let entries = match data.read_dir(&folder) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            entries => entries.map_err(|error| leads_out(&folder, error))?,
        };
        for entry in entries {
            let entry = entry?;
            let (kind, path) = (entry.file_type()?, folder.join(entry.file_name()));
            if kind.is_dir() {
                folders.push(path);
            } else if kind.is_file() {
                // A name that is no text is nothing that we could write again.
                let Some(path) = path.to_str() else { continue };
                let Some((content, mode)) = read_at_most(&entry, left)? else { continue };
                let Some(rest) = left.checked_sub(content.len() as u64) else { return Ok(None) };
                left = rest;
                files.push(StagedFile { path: path.to_owned().into(), content: Secret::new(content), mode });
            }
        }
    }
    files.sort_unstable_by(|a, b| a.path.cmp(&b.path));
    Ok(Some(files))
}

/// Writes a file into an agent's data; it and new folders above it belong to whom the data belongs.
fn write(data: &Dir, path: &Path, file: &StagedFile) -> io::Result<()> {
    use cap_std::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
    let (to, service) = (data.dir_metadata()?, geteuid().as_raw());
    let (owner, group) = (Uid::from_raw(to.uid()), Gid::from_raw(to.gid()));
    let given = to.uid() != service;
    let parents: Vec<&Path> = path.ancestors().skip(1).filter(|parent| !parent.as_os_str().is_empty()).collect();
    for parent in parents.into_iter().rev() {
        match data.create_dir_with(parent, cap_std::fs::DirBuilder::new().mode(0o700)) {
            // It may be no more than a place to look up names from: then only this call takes it.
            Ok(()) if given => chownat(data.open_dir(parent)?, "", Some(owner), Some(group), AtFlags::EMPTY_PATH)?,
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
        }
    }
    let mut beside = path.as_os_str().to_owned();
    beside.push(".new");
    absent(data.remove_file(&beside))?;
    let options = &mut cap_std::fs::OpenOptions::new();
    let mut new = data.open_with(&beside, options.write(true).create_new(true).mode(file.mode))?;
    new.write_all(file.content.expose())?;
    if given {
        fchown(&new, Some(owner), Some(group))?;
    }
    new.sync_all()?;
    data.rename(&beside, data, path)
}

/// Gives a folder with all that is in it to this user, unless it is theirs. The folder itself comes last: where we are cut short,
/// its owner tells.
pub(super) fn give(folder: &Path, user: u32) -> io::Result<()> {
    let owner = fs::symlink_metadata(folder)?.uid();
    if owner == user { Ok(()) } else { give_all(folder, user).map_err(|error| not_ours(folder, owner, error)) }
}

fn give_all(folder: &Path, user: u32) -> io::Result<()> {
    let (owner, group) = (Some(Uid::from_raw(user)), Some(Gid::from_raw(user)));
    let parent = Dir::open_ambient_dir(folder.parent().unwrap_or(folder), ambient_authority())?;
    let name = folder.file_name().unwrap_or_default();
    if fs::symlink_metadata(folder)?.is_dir() {
        let top = parent.open_dir(name)?;
        let mut folders = vec![PathBuf::from(".")];
        while let Some(folder) = folders.pop() {
            let here = top.open_dir(&folder)?;
            for entry in here.entries()? {
                let entry = entry?;
                chownat(&here, entry.file_name(), owner, group, AtFlags::SYMLINK_NOFOLLOW)?;
                if entry.file_type()?.is_dir() {
                    folders.push(folder.join(entry.file_name()));
                }
            }
        }
    }
    Ok(chownat(&parent, name, owner, group, AtFlags::SYMLINK_NOFOLLOW)?)
}

fn not_ours(folder: &Path, owner: u32, error: io::Error) -> io::Error {
    if error.kind() != io::ErrorKind::PermissionDenied {
        return error;
    }
    let what =
        format!("{} belongs to uid {owner}; run the service as root, or chown -R it to its user", folder.display());
    io::Error::new(io::ErrorKind::InvalidInput, what)
}

/// Says in words what the library means where a path leads out of a folder.
fn leads_out(path: &Path, error: io::Error) -> io::Error {
    // Its own refusal, and none of the kernel's.
    if error.kind() == io::ErrorKind::PermissionDenied && error.raw_os_error().is_none() {
        let what =
            format!("{} leads out of the agent's folder by a link that the agent made; remove it", path.display());
        return io::Error::new(io::ErrorKind::InvalidInput, what);
    }
    error
}

fn inside(path: &str) -> io::Result<&Path> {
    let relative = Path::new(path);
    if relative.components().all(|part| matches!(part, Component::Normal(_))) {
        return Ok(relative);
    }
    Err(io::Error::new(io::ErrorKind::InvalidInput, "a file of an agent must lie in its data folder"))
}

/// The file's content, one byte more than `most` where it is longer, and its mode; `None` where it is gone. What was put in
/// its place by the agent is not followed.
fn read_at_most(entry: &cap_std::fs::DirEntry, most: u64) -> io::Result<Option<(Vec<u8>, u32)>> {
    use cap_std::fs::OpenOptionsExt as _;
    let flags = (rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::NONBLOCK).bits().cast_signed();
    let file = match entry.open_with(cap_std::fs::OpenOptions::new().read(true).custom_flags(flags)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound || is_link(&error) => return Ok(None),
        file => file?.into_std(),
    };
    let found = file.metadata()?;
    if !found.is_file() {
        return Ok(None);
    }
    let mut content = Vec::new();
    file.take(most + 1).read_to_end(&mut content)?;
    Ok(Some((content, found.mode() & 0o777)))
}

fn is_link(error: &io::Error) -> bool {
    error.raw_os_error() == Some(rustix::io::Errno::LOOP.raw_os_error())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn data() -> (tempfile::TempDir, PathBuf) {
        let root = tempfile::tempdir().unwrap();
        let data = root.path().join("data");
        fs::create_dir_all(data.join("workspace")).unwrap();
        (root, data)
    }

    #[test]
    fn staged_files_stay_in_the_data_folder_with_their_mode() {
        let (_root, data) = data();
        let file =
            |path: &'static str| StagedFile { path: path.into(), content: Secret::new(b"x".to_vec()), mode: 0o640 };
        stage(&data, &[file(".zeroclaw/config.toml"), file("workspace/deep/a.md")]).unwrap();
        let staged = fs::metadata(data.join(".zeroclaw/config.toml")).unwrap();
        assert_eq!(staged.permissions().mode() & 0o777, 0o640);
        for path in ["../escape", "/etc/escape", "a/../../escape"] {
            assert_eq!(stage(&data, &[file(path)]).unwrap_err().kind(), io::ErrorKind::InvalidInput, "{path}");
        }
    }

    #[test]
    fn a_link_that_leads_out_is_followed_neither_to_read_nor_to_write() {
        use std::os::unix::fs::symlink;
        let (root, data) = data();
        let outside = root.path().join("outside");
        fs::create_dir(&outside).unwrap();
        fs::write(outside.join("master.key"), "secret").unwrap();
        fs::remove_dir(data.join("workspace")).unwrap();
        symlink(&outside, data.join("workspace")).unwrap();
        let error = read(&data, "workspace", 1000).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput, "{error}");
        assert!(error.to_string().contains("a link that the agent made"), "{error}");
        let file =
            |path: &'static str| StagedFile { path: path.into(), content: Secret::new(b"x".to_vec()), mode: 0o600 };
        for path in ["workspace/master.key", "workspace/new/deep"] {
            assert_eq!(stage(&data, &[file(path)]).unwrap_err().kind(), io::ErrorKind::InvalidInput, "{path}");
        }
        symlink(outside.join("master.key"), data.join("key")).unwrap();
        stage(&data, &[file("key")]).unwrap();
        assert_eq!(fs::read_to_string(outside.join("master.key")).unwrap(), "secret", "the link itself was replaced");
        assert_eq!(fs::read_dir(&outside).unwrap().count(), 1);
        // One that stays inside is the agent's own matter.
        fs::remove_file(data.join("workspace")).unwrap();
        fs::create_dir(data.join("elsewhere")).unwrap();
        symlink("elsewhere", data.join("workspace")).unwrap();
        stage(&data, &[file("workspace/a.md")]).unwrap();
        assert_eq!(read(&data, "workspace", 1000).unwrap().unwrap()[0].path, "workspace/a.md");
    }
}
