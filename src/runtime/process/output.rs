//! The file that a run writes its output into, kept from growing without end.
//!
//! The instance writes straight into the file, so its output is safe whatever becomes of the service. Nobody but the
//! kernel can stop it from writing, so the oldest part is given back instead: a hole is punched behind what is kept. The
//! file's offsets stay as they are, and no line is lost, moved or read twice, as happens when a log is copied and truncated
//! under a program that goes on writing. Where the file system knows no holes, the file is truncated, and its lines are lost.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::{FallocateFlags, SeekFrom, fallocate, seek};
use rustix::io::Errno;

use crate::domain::Timestamp;

#[derive(Debug)]
pub(super) struct Output {
    file: File,
    pub(super) started: Timestamp,
    /// Bytes that are kept at least, if there are so many. A quarter more before any is given back.
    limit: u64,
    /// Everything before this offset is gone, or is about to be.
    floor: AtomicU64,
}

impl Output {
    pub(super) fn create(path: &Path, started: Timestamp, limit: u64) -> io::Result<Self> {
        let file = OpenOptions::new().read(true).append(true).create_new(true).mode(0o600).open(path)?;
        Ok(Self { file, started, limit, floor: AtomicU64::new(0) })
    }

    /// A file that an earlier service may have punched.
    pub(super) fn open(path: &Path, started: Timestamp, limit: u64) -> io::Result<Self> {
        let file = OpenOptions::new().read(true).append(true).open(path)?;
        // An empty file has no data at all, and some file systems cannot tell.
        let floor = seek(&file, SeekFrom::Data(0)).unwrap_or(0);
        Ok(Self { file, started, limit, floor: AtomicU64::new(floor) })
    }

    /// Another handle for the instance to write to.
    pub(super) fn writer(&self) -> io::Result<File> {
        self.file.try_clone()
    }

    pub(super) fn len(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    pub(super) fn floor(&self) -> u64 {
        self.floor.load(Ordering::Acquire)
    }

    pub(super) fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.file.read_at(buffer, offset)
    }

    /// The last bytes of what was written.
    pub(super) fn last(&self, count: u64) -> io::Result<Vec<u8>> {
        let from = self.len()?.saturating_sub(count).max(self.floor());
        let mut bytes = vec![0; usize::try_from(count).map_err(io::Error::other)?];
        let read = self.read_at(&mut bytes, from)?;
        bytes.truncate(read);
        Ok(bytes)
    }

    /// Gives back what is too much.
    pub(super) fn trim(&self) -> io::Result<()> {
        let (len, floor) = (self.len()?, self.floor());
        let keep_from = len.saturating_sub(self.limit);
        if keep_from < floor.saturating_add(self.limit / 4).max(1) {
            return Ok(());
        }
        // Readers compare the floor after reading; so it moves before the bytes go.
        self.floor.store(keep_from, Ordering::Release);
        match fallocate(&self.file, FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE, 0, keep_from) {
            Err(Errno::OPNOTSUPP | Errno::NOSYS) => {
                self.file.set_len(0)?;
                self.floor.store(0, Ordering::Release);
                Ok(())
            }
            other => Ok(other?),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::os::unix::fs::MetadataExt;

    use super::*;

    #[test]
    fn the_oldest_bytes_are_given_back_and_the_newest_stay_in_place() {
        const LIMIT: u64 = 64 * 1024;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        let output = Output::create(&path, Timestamp::UNIX_EPOCH, LIMIT).unwrap();
        let mut writer = output.writer().unwrap();
        for round in 0..100_u8 {
            writer.write_all(&[round; 16 * 1024]).unwrap();
            output.trim().unwrap();
        }
        assert_eq!(output.len().unwrap(), 100 * 16 * 1024);
        assert!(output.file.metadata().unwrap().blocks() * 512 <= LIMIT * 3 / 2, "disk space is given back");
        assert!(output.len().unwrap() - output.floor() >= LIMIT);
        let mut last = vec![0; 16 * 1024];
        output.read_at(&mut last, output.len().unwrap() - 16 * 1024).unwrap();
        assert!(last.iter().all(|byte| *byte == 99));
        let again = Output::open(&path, Timestamp::UNIX_EPOCH, LIMIT).unwrap();
        assert!(again.floor() > 0 && again.floor() <= output.floor());
        assert_eq!(again.last(3).unwrap(), [99; 3]);
    }

    #[test]
    fn a_small_file_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let output = Output::create(&folder.path().join("log"), Timestamp::UNIX_EPOCH, 0).unwrap();
        output.trim().unwrap();
        output.writer().unwrap().write_all(b"a line\n").unwrap();
        assert_eq!((output.floor(), output.last(100).unwrap()), (0, b"a line\n".to_vec()));
    }
}
