//! What can go wrong with the store, by what the caller knows afterwards.

use std::sync::Arc;

use crate::vault::RingKeyId;

/// Why a batch was not written. The store is as it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum Conflict {
    /// Another agent has the slug.
    #[error("the slug is taken")]
    Slug,
    /// Another agent has the port, or this one has another.
    #[error("the port is taken, or not the agent's")]
    Port,
    /// One agent more would be beyond the limit.
    #[error("the user has as many agents as the plan allows")]
    Quota,
    /// What is to be created exists.
    #[error("it exists already")]
    Exists,
    /// What is to be changed does not exist.
    #[error("it does not exist")]
    NotFound,
    /// Somebody else wrote the record after it was read.
    #[error("the store has a newer revision")]
    Stale,
    /// A user who has agents cannot be removed.
    #[error("the user still has agents")]
    HasAgents,
    /// Another request has this idempotency key.
    #[error("the idempotency key is in use")]
    IdempotencyKey,
}

/// Why the store did not do what it was asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// Not written: what it builds on is not there.
    #[error(transparent)]
    Rejected(#[from] Conflict),
    /// Perhaps written, perhaps not: only reading it back tells.
    #[error("the store failed while it wrote, so the outcome is unknown: {0}")]
    Unknown(Arc<str>),
    /// Not written or not read: the disk fails at present. The store tries by itself to get it back.
    #[error("the store is not available: {0}")]
    Unavailable(Arc<str>),
    /// Not written: the queue did not get shorter in time.
    #[error("the store has more to write than it can")]
    Busy,
    /// Not written: the control plane that had the store was shut down.
    #[error("the store is closed")]
    Closed,
    /// A record is not what was written. The rest of the store can still be read.
    #[error("the store's record {table}/{key} is damaged; restore a backup of the store")]
    Corrupt {
        /// The table that it is in.
        table: &'static str,
        /// Its key there, in hex.
        key: String,
    },
}

impl StoreError {
    /// Whether a commit that failed in this way certainly wrote nothing, and may succeed when it is tried again.
    pub const fn is_certain(&self) -> bool {
        match self {
            Self::Unavailable(_) | Self::Busy | Self::Closed => true,
            Self::Rejected(_) | Self::Unknown(_) | Self::Corrupt { .. } => false,
        }
    }
}

/// Why a store cannot be opened. Whatever it is, the file is left as it was.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// Another process has it open.
    #[error("{path} is in use by another process{holder}; stop it, or give this one a data folder of its own")]
    InUse {
        /// The file.
        path: String,
        /// Which process, where the system tells; else empty.
        holder: String,
    },
    /// It is no store, or one that cannot be read any more.
    #[error("{path} is damaged ({reason}); it was left as it is: move it away and restore a backup in its place")]
    Damaged {
        /// The file.
        path: String,
        /// What the system or the database says.
        reason: String,
    },
    /// Its schema is newer than this version knows.
    #[error("{path} was written by a newer version (schema {found}, this one knows {known}); run that version")]
    Newer {
        /// The file.
        path: String,
        /// The schema of the file.
        found: u32,
        /// The newest schema that this version knows.
        known: u32,
    },
    /// The file system refuses something.
    #[error("cannot {action} {path}: {reason}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// The file.
        path: String,
        /// What the system or the database says.
        reason: String,
    },
    /// The master key is another one.
    #[error("{path} is sealed with master key {sealed_with}, and the key ring has only {active}; give that master key")]
    WrongKey {
        /// The file.
        path: String,
        /// The key that the store was sealed with.
        sealed_with: RingKeyId,
        /// The key that was given.
        active: RingKeyId,
    },
    /// Nothing in it tells whether the master key is the right one.
    #[error("{path} has records but does not say which master key sealed them; restore a backup in its place")]
    NoCanary {
        /// The file.
        path: String,
    },
    /// It was opened, and then failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Lets `?` turn redb's error types, one for each kind of call, into the `Medium` of an error of ours.
macro_rules! from_redb {
    ($ours:ty) => {
        $crate::store::error::from_redb!($ours: Error, StorageError, TableError, TransactionError, CommitError,
            DatabaseError, SetDurabilityError);
    };
    ($ours:ty: $($theirs:ident),+) => {
        $(impl From<redb::$theirs> for $ours {
            fn from(error: redb::$theirs) -> Self {
                Self::Medium(error.into())
            }
        })+
    };
}
pub(super) use from_redb;
