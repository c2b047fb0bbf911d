//! The tar itself: written in pieces, from files that may change while they are read.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Seek as _, Write};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use serde_json::Value;
use tokio::sync::mpsc::Sender;

use super::BackupOptions;

/// Of the archive; a program refuses one that it does not know.
pub(super) const FORMAT: u32 = 1;
/// Bytes that are sent at once.
const PIECE: usize = 256 * 1024;
/// A copy of an agent's database in the making.
const DRAFT: &str = "zeroone.backup.sqlite";
const SQLITE: &[u8] = b"SQLite format 3\0";
/// What belongs to a run and not to the agent.
const OF_A_RUN: [&str; 3] = ["logs", "lock", "tmp"];
/// Deeper folders are no agent's work. It also ends what a file system with a circle would make endless.
const DEEPEST: usize = 64;

type Archive = tar::Builder<Pieces>;

pub(super) fn write(to: Pieces, described: &Value, store: &Path, options: &BackupOptions) -> io::Result<()> {
    let mut archive = tar::Builder::new(to);
    append_text(&mut archive, "backup.json", format!("{described:#}\n").as_bytes())?;
    append_file(&mut archive, Path::new("zeroone.redb"), &mut open(store)?)?;
    let choice = options.folder.join("runtime");
    if choice.is_file() {
        append_file(&mut archive, Path::new("runtime"), &mut open(&choice)?)?;
    }
    for agent in names(&options.folder.join("agents"))? {
        let folder = options.folder.join("agents").join(&agent);
        for name in names(&folder)?.into_iter().filter(|name| !OF_A_RUN.contains(&name.as_str())) {
            let within = Path::new("agents").join(&agent).join(&name);
            append(&mut archive, &folder.join(&name), &within, options, 0)?;
        }
    }
    append_text(&mut archive, "complete", b"")?;
    archive.into_inner()?.flush()
}

/// A file, or a folder with all that is below it. Links, sockets and devices are left out.
fn append(archive: &mut Archive, path: &Path, within: &Path, options: &BackupOptions, depth: usize) -> io::Result<()> {
    let kind = match fs::symlink_metadata(path) {
        Ok(metadata) => metadata.file_type(),
        // Gone meanwhile: agents go on working.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    if kind.is_dir() && depth < DEEPEST {
        for name in names(path)? {
            append(archive, &path.join(&name), &within.join(&name), options, depth + 1)?;
        }
        return Ok(());
    }
    if !kind.is_file() || is_of_a_database(path) {
        return Ok(());
    }
    let mut file = match open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        file => file?,
    };
    if is_database(&mut file)? {
        let draft = options.folder.join(DRAFT);
        let _ = fs::remove_file(&draft);
        let copied = (options.copy_database)(path, &draft);
        if let Err(error) = &copied {
            tracing::warn!(file = %within.display(), %error, "copied as it is, for SQLite cannot read it");
        } else {
            file = open(&draft)?;
        }
        let _ = fs::remove_file(&draft);
    }
    append_file(archive, within, &mut file)
}

/// The names in a folder, in order; none where there is no folder.
fn names(folder: &Path) -> io::Result<Vec<String>> {
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut names: Vec<String> = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok()).collect();
    names.sort();
    Ok(names)
}

/// Never through a link: the file may be an agent's.
fn open(path: &Path) -> io::Result<File> {
    let flags = rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::NONBLOCK;
    OpenOptions::new().read(true).custom_flags(flags.bits().cast_signed()).open(path)
}

fn is_database(file: &mut File) -> io::Result<bool> {
    let mut start = Vec::with_capacity(SQLITE.len());
    (&*file).take(SQLITE.len() as u64).read_to_end(&mut start)?;
    file.rewind()?;
    Ok(start == SQLITE)
}

/// The write-ahead log of a database, or its index: what they hold is in the copy of the database.
fn is_of_a_database(path: &Path) -> bool {
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let database = ["-wal", "-shm", "-journal"].iter().find_map(|end| name.strip_suffix(end));
    database.is_some_and(|database| {
        let path: PathBuf = path.with_file_name(database);
        open(&path).is_ok_and(|mut file| is_database(&mut file).unwrap_or(false))
    })
}

/// As long as it was when it was opened, whatever happens to it meanwhile.
fn append_file(archive: &mut Archive, within: &Path, file: &mut File) -> io::Result<()> {
    let metadata = file.metadata()?;
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(tar::EntryType::Regular);
    header.set_mode(metadata.mode() & 0o777);
    header.set_mtime(u64::try_from(metadata.mtime()).unwrap_or(0));
    header.set_size(metadata.len());
    let content = (&*file).take(metadata.len()).chain(io::repeat(0)).take(metadata.len());
    archive.append_data(&mut header, within, content)
}

fn append_text(archive: &mut Archive, name: &str, text: &[u8]) -> io::Result<()> {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(tar::EntryType::Regular);
    header.set_mode(0o600);
    header.set_size(text.len() as u64);
    archive.append_data(&mut header, name, text)
}

/// Writes what comes into the answer's body, and waits where the reader is slow.
pub(super) struct Pieces {
    sender: Sender<io::Result<Bytes>>,
    waiting: Vec<u8>,
}

impl Pieces {
    pub(super) fn new(sender: Sender<io::Result<Bytes>>) -> Self {
        Self { sender, waiting: Vec::with_capacity(PIECE) }
    }
}

impl Write for Pieces {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.waiting.extend_from_slice(bytes);
        if self.waiting.len() >= PIECE {
            self.flush()?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.waiting.is_empty() {
            return Ok(());
        }
        let piece = std::mem::replace(&mut self.waiting, Vec::with_capacity(PIECE));
        let gone = |_| io::Error::new(io::ErrorKind::BrokenPipe, "the client went away");
        self.sender.blocking_send(Ok(piece.into())).map_err(gone)
    }
}
