//! A disk in memory that crashes and fails on demand.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::disk::Disk;

/// What a crash leaves of the writes that were not yet durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Crash {
    /// The process dies, the machine lives on: everything written is there.
    Process,
    /// The power fails: nothing but what was made durable is there.
    Power,
    /// The power fails while the medium writes: of each write some sectors are there, chosen by the seed.
    Torn {
        /// Chooses what arrived.
        seed: u64,
    },
}

/// How a commit fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum CommitFault {
    /// Nothing is written.
    Before,
    /// The medium refuses to make the writes durable.
    Sync,
    /// All is durable, and the answer is lost.
    After,
}

/// A disk in memory. Clones share it.
#[derive(Clone, Default)]
pub struct MemoryDisk(Arc<Mutex<Image>>);

#[derive(Default)]
struct Image {
    /// As a reader sees it.
    written: Vec<u8>,
    /// As the power failure leaves it.
    durable: Vec<u8>,
    /// What leads from durable to written.
    pending: Vec<Change>,
    /// Blocks that were ever written: those a real disk would have given out.
    used: BTreeSet<usize>,
    /// Blocks there are.
    capacity: Option<usize>,
    commits: u64,
    faults: BTreeMap<u64, CommitFault>,
    /// The next sync fails.
    fail_sync: bool,
    /// Syncs until the power is cut.
    power_left: Option<u64>,
    /// Everything fails.
    gone: bool,
}

enum Change {
    Write { offset: usize, data: Vec<u8> },
    Length(usize),
}

/// What a medium writes whole or not at all.
const SECTOR: usize = 512;

/// What a file system gives out.
const BLOCK: usize = 4096;

impl MemoryDisk {
    /// An empty disk without faults.
    pub fn new() -> Self {
        Self::default()
    }

    /// The disk as a machine finds it that starts after the crash: a disk of its own, without faults. Whoever still
    /// has the old one cannot change it.
    #[must_use]
    pub fn after(&self, crash: Crash) -> Self {
        let image = self.lock();
        let found = match crash {
            Crash::Process => image.written.clone(),
            Crash::Power => image.durable.clone(),
            Crash::Torn { seed } => {
                let mut random = Sequence(seed);
                let mut found = image.durable.clone();
                for change in &image.pending {
                    change.apply_where(&mut found, || random.coin());
                }
                found
            }
        };
        let used = (0..found.len().div_ceil(BLOCK)).collect();
        Self(Arc::new(Mutex::new(Image { written: found.clone(), durable: found, used, ..Image::default() })))
    }

    /// Lets the `n`-th commit from now fail; 1 is the next one.
    pub fn fail_commit(&self, n: u64, fault: CommitFault) {
        let mut image = self.lock();
        let at = image.commits + n;
        image.faults.insert(at, fault);
    }

    /// Forgets the failures that have not come yet.
    pub fn clear_faults(&self) {
        self.lock().faults.clear();
    }

    /// Fills the disk: it takes only `bytes` more, in blocks of 4 KiB, and then writes fail. `None` makes room again.
    ///
    /// As on a real disk, the file may be lengthened all the same, and what was written once can be written again.
    pub fn fill_up_to(&self, bytes: Option<usize>) {
        let mut image = self.lock();
        image.capacity = bytes.map(|bytes| image.used.len() + bytes / BLOCK);
    }

    /// Cuts the power during the `n`-th sync from now; 1 is the next one. From then on the disk is gone, and
    /// [`MemoryDisk::after`] tells what is left of it.
    pub fn cut_power(&self, n: u64) {
        self.lock().power_left = Some(n);
    }

    /// While it is gone, every access fails.
    pub fn set_gone(&self, gone: bool) {
        self.lock().gone = gone;
    }

    /// Commits of the store so far, failed ones included.
    pub fn commits(&self) -> u64 {
        self.lock().commits
    }

    /// All bytes, as they would be found on a disk.
    pub fn bytes(&self) -> Vec<u8> {
        self.lock().written.clone()
    }

    /// Flips bits, as decay does. Beyond the length nothing happens.
    pub fn flip(&self, offset: u64, mask: u8) {
        let mut image = self.lock();
        let Image { written, durable, .. } = &mut *image;
        for bytes in [written, durable] {
            if let Some(byte) = usize::try_from(offset).ok().and_then(|at| bytes.get_mut(at)) {
                *byte ^= mask;
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Image> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn reach(&self) -> io::Result<MutexGuard<'_, Image>> {
        let image = self.lock();
        if image.gone { Err(io::Error::other("the disk is gone")) } else { Ok(image) }
    }
}

impl fmt::Debug for MemoryDisk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryDisk").field("len", &self.lock().written.len()).finish()
    }
}

impl Disk for MemoryDisk {
    fn len(&self) -> io::Result<u64> {
        Ok(self.reach()?.written.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let image = self.reach()?;
        let from = usize::try_from(offset).map_err(io::Error::other)?;
        let bytes = from.checked_add(out.len()).and_then(|to| image.written.get(from..to));
        out.copy_from_slice(bytes.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut image = self.reach()?;
        let offset = usize::try_from(offset).map_err(io::Error::other)?;
        if offset.checked_add(data.len()).is_none_or(|end| end > image.written.len()) {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        image.use_blocks(offset, data.len())?;
        image.change(Change::Write { offset, data: data.to_vec() });
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut image = self.reach()?;
        image.change(Change::Length(usize::try_from(len).map_err(io::Error::other)?));
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        let mut image = self.reach()?;
        image.power_left = image.power_left.map(|left| left.saturating_sub(1));
        if image.power_left == Some(0) {
            image.gone = true;
        }
        if image.gone || std::mem::take(&mut image.fail_sync) {
            return Err(io::Error::other("the disk cannot sync"));
        }
        for change in std::mem::take(&mut image.pending) {
            change.apply_where(&mut image.durable, || true);
        }
        Ok(())
    }

    fn before_commit(&self) -> io::Result<()> {
        let mut image = self.reach()?;
        image.commits += 1;
        let commit = image.commits;
        match image.faults.get(&commit) {
            Some(CommitFault::Before) => return Err(io::Error::other("the disk failed before the commit")),
            Some(CommitFault::Sync) => image.fail_sync = true,
            Some(CommitFault::After) | None => {}
        }
        Ok(())
    }

    fn after_commit(&self) -> io::Result<()> {
        let image = self.reach()?;
        match image.faults.get(&image.commits) {
            Some(CommitFault::After) => Err(io::Error::other("the disk failed after the commit")),
            Some(CommitFault::Before | CommitFault::Sync) | None => Ok(()),
        }
    }
}

impl Image {
    fn use_blocks(&mut self, offset: usize, length: usize) -> io::Result<()> {
        for block in offset / BLOCK..(offset + length).div_ceil(BLOCK) {
            if !self.used.contains(&block) {
                if self.capacity.is_some_and(|capacity| self.used.len() >= capacity) {
                    return Err(io::ErrorKind::StorageFull.into());
                }
                self.used.insert(block);
            }
        }
        Ok(())
    }

    fn change(&mut self, change: Change) {
        change.apply_where(&mut self.written, || true);
        self.pending.push(change);
    }
}

impl Change {
    /// Applies the change, of a write only the sectors that `arrives` says.
    fn apply_where(&self, bytes: &mut Vec<u8>, mut arrives: impl FnMut() -> bool) {
        match self {
            Self::Length(length) => bytes.resize(*length, 0),
            Self::Write { offset, data } => {
                for (index, sector) in data.chunks(SECTOR).enumerate() {
                    let from = offset + index * SECTOR;
                    if arrives()
                        && let Some(place) = bytes.get_mut(from..from + sector.len())
                    {
                        place.copy_from_slice(sector);
                    }
                }
            }
        }
    }
}

/// SplitMix64: a reproducible sequence from a seed, the same on every platform and version.
struct Sequence(u64);

impl Sequence {
    fn coin(&mut self) -> bool {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) & 1 == 1
    }
}
