//! Changes of users and keys, as they are asked of the registry.

use crate::domain::{KeyId, Limits, Plan, UserId, UserStatus};
use crate::store::{Conflict, KeyRecord, StoreError, UserRecord};

/// Keys that a user may have. More are a script that forgets to revoke its own.
pub const KEYS_PER_USER: usize = 50;

#[derive(Debug, Clone)]
pub enum AccountChange {
    /// An e-mail address belongs to one user.
    CreateUser(Box<UserRecord>),
    ChangeUser {
        user: UserId,
        change: UserChange,
    },
    /// A user without agents, with all keys.
    RemoveUser(UserId),
    AddKey(Box<KeyRecord>),
    /// The key, and all that were made with it.
    RevokeKey {
        user: UserId,
        key: KeyId,
    },
}

/// What is to change of a user; what is `None` stays.
#[derive(Debug, Clone, Default)]
pub struct UserChange {
    pub plan: Option<Plan>,
    /// `Some(None)` goes back to the plan's own limits. So does a change to another plan.
    pub limits: Option<Option<Limits>>,
    pub status: Option<UserStatus>,
}

/// Why an account was not changed.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum AccountRefusal {
    #[error("a user with this e-mail address exists already")]
    EmailTaken,
    #[error("no such user")]
    NoSuchUser,
    #[error("no such key")]
    NoSuchKey,
    #[error("the user still has agents")]
    HasAgents,
    #[error("the user has {KEYS_PER_USER} keys already")]
    TooManyKeys,
    #[error("no other key could administer the service")]
    LastAdministrator,
    #[error("the user is being deleted")]
    Deleting,
    #[error(transparent)]
    Store(StoreError),
}

impl From<StoreError> for AccountRefusal {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Rejected(Conflict::NotFound) => Self::NoSuchUser,
            StoreError::Rejected(Conflict::HasAgents) => Self::HasAgents,
            error => Self::Store(error),
        }
    }
}
