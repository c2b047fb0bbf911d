//! A disk in memory on which the service can be cut off, or made to panic, at any commit.

use std::fmt;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use tokio_util::sync::CancellationToken;

use crate::store::{Crash, Disk, MemoryDisk};

/// Where in a commit the service is cut off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cut {
    /// Nothing of it is written.
    Before,
    /// It is durable; nobody hears of it.
    After,
}

/// A [`MemoryDisk`] with a script. Clones share it.
#[derive(Clone, Default)]
pub struct FakeDisk {
    memory: MemoryDisk,
    script: Arc<Mutex<Script>>,
    cut: CancellationToken,
}

#[derive(Default)]
struct Script {
    commits: u64,
    cut: Option<(u64, Cut)>,
    panics: Option<(u64, u64)>,
    panicked: u64,
    /// The disk after each commit, where they are kept.
    copies: Option<Vec<MemoryDisk>>,
}

impl FakeDisk {
    /// An empty disk without faults.
    pub fn new() -> Self {
        Self::default()
    }

    /// The bytes, and the faults that bytes have.
    pub const fn memory(&self) -> &MemoryDisk {
        &self.memory
    }

    /// Cuts the service off in the `n`-th commit from now; 1 is the next one.
    pub fn cut_in(&self, n: u64, cut: Cut) {
        self.script(|script| script.cut = Some((script.commits + n, cut)));
    }

    /// Keeps a copy of the disk as it is now and as each commit from now on leaves it.
    pub fn keep_copies(&self) {
        let now = self.memory.after(Crash::Process);
        self.script(|script| script.copies = Some(vec![now]));
    }

    /// The copies that were kept, oldest first.
    pub fn copies(&self) -> Vec<Self> {
        let copies = self.script(|script| script.copies.clone().unwrap_or_default());
        copies.into_iter().map(|memory| Self { memory, ..Self::default() }).collect()
    }

    /// Cancelled when the service was cut off.
    pub const fn cut_token(&self) -> &CancellationToken {
        &self.cut
    }

    /// Cuts the service off now.
    pub fn cut_now(&self) {
        self.memory.set_gone(true);
        self.cut.cancel();
    }

    /// Resolves when the service was cut off: then it must be ended. Nothing that it does any more is kept.
    pub async fn cut_off(&self) {
        self.cut.cancelled().await;
    }

    /// Lets the next `count` commits panic before they write anything: whoever commits crashes.
    pub fn panic_in_next(&self, count: u64) {
        self.script(|script| script.panics = Some((script.commits, script.commits + count)));
    }

    /// Commits that panicked so far.
    pub fn panicked(&self) -> u64 {
        self.script(|script| script.panicked)
    }

    /// Commits so far, failed ones included.
    pub fn commits(&self) -> u64 {
        self.script(|script| script.commits)
    }

    /// The disk as the next service finds it: one of its own. Whoever still has the old one cannot change it.
    #[must_use]
    pub fn next_life(&self) -> Self {
        self.after(Crash::Process)
    }

    /// A copy of the disk as it is now, as an operator makes one: the original goes on.
    #[must_use]
    pub fn copied(&self) -> Self {
        Self { memory: self.memory.after(Crash::Process), ..Self::default() }
    }

    /// The disk as it is found after this crash.
    #[must_use]
    pub fn after(&self, crash: Crash) -> Self {
        self.memory.set_gone(false);
        let memory = self.memory.after(crash);
        self.memory.set_gone(true);
        Self { memory, ..Self::default() }
    }

    fn script<T>(&self, work: impl FnOnce(&mut Script) -> T) -> T {
        work(&mut self.script.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn cut_here(&self, here: Cut) -> io::Result<()> {
        if self.script(|script| script.cut == Some((script.commits, here))) {
            self.cut_now();
        }
        if self.cut.is_cancelled() { Err(io::Error::other("the service was cut off")) } else { Ok(()) }
    }
}

impl Disk for FakeDisk {
    fn len(&self) -> io::Result<u64> {
        self.memory.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.memory.read(offset, out)
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.memory.write(offset, data)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.memory.set_len(len)
    }

    fn sync(&self) -> io::Result<()> {
        self.memory.sync()
    }

    fn before_commit(&self) -> io::Result<()> {
        let panics = self.script(|script| {
            script.commits += 1;
            let panics = script.panics.is_some_and(|(after, last)| script.commits > after && script.commits <= last);
            script.panicked += u64::from(panics);
            panics
        });
        assert!(!panics, "the fake disk was told to panic");
        self.cut_here(Cut::Before)?;
        self.memory.before_commit()
    }

    fn after_commit(&self) -> io::Result<()> {
        if self.script(|script| script.copies.is_some()) {
            let copy = self.memory.after(Crash::Process);
            self.script(|script| script.copies.iter_mut().for_each(|copies| copies.push(copy.clone())));
        }
        self.cut_here(Cut::After)?;
        self.memory.after_commit()
    }
}

impl fmt::Debug for FakeDisk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("FakeDisk").field(&self.memory).finish()
    }
}
