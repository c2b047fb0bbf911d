//! Where the bytes of a store are, when they are not in a file.

use std::fmt;
use std::io;
use std::sync::Arc;

use redb::StorageBackend;

/// A random-access medium that tells written from durable. The store runs on one in simulations.
///
/// Calls come one at a time for writes; reads may come beside each other.
pub trait Disk: fmt::Debug + Send + Sync + 'static {
    /// Length in bytes.
    fn len(&self) -> io::Result<u64>;

    /// Whether its length is 0.
    ///
    /// # Errors
    /// The length cannot be read.
    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }

    /// Fills `out` from `offset`. Fails if that is not all within the length.
    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()>;

    /// Writes all of this at this place; it may be lost until the next sync.
    ///
    /// # Errors
    /// It was not written, or not whole.
    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()>;

    /// Shortens, or lengthens with zeroes.
    fn set_len(&self, len: u64) -> io::Result<()>;

    /// Returns when all that was written is durable.
    fn sync(&self) -> io::Result<()>;

    /// Called before each commit of the store. An error ends it: nothing of it is written.
    fn before_commit(&self) -> io::Result<()> {
        Ok(())
    }

    /// Called after each commit, when it is durable. An error hides the success from the caller.
    fn after_commit(&self) -> io::Result<()> {
        Ok(())
    }
}

/// A disk as redb wants it. Locks are left out: one disk value has one store by construction.
#[derive(Debug)]
pub(super) struct OnDisk(pub(super) Arc<dyn Disk>);

impl StorageBackend for OnDisk {
    fn len(&self) -> io::Result<u64> {
        self.0.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.0.read(offset, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.0.sync()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.0.write(offset, data)
    }
}
