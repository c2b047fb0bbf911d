//! Changes of users, keys, sessions and tickets, as they are asked of the registry.

use crate::domain::{Identity, KeyId, Limits, PasswordHash, Plan, SessionId, TicketId, UserId, UserStatus};
use crate::store::{Conflict, KeyRecord, SessionRecord, StoreError, TicketRecord, UserRecord};

/// Keys that a user may have. More are a script that forgets to revoke its own.
pub const KEYS_PER_USER: usize = 50;
/// Sessions that a user may have; the one that was used least lately ends when there is another one.
pub const SESSIONS_PER_USER: usize = 50;
/// Invitations and one-time links that may be open at once.
pub const MAX_TICKETS: usize = 1000;

#[derive(Debug, Clone)]
pub enum AccountChange {
    /// An e-mail address belongs to one user. An invitation is used up with it.
    CreateUser {
        user: Box<UserRecord>,
        spends: Option<[u8; 32]>,
    },
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
    /// Ends all sessions but the one to keep.
    SetPassword {
        user: UserId,
        password: PasswordHash,
        keep: Option<SessionId>,
    },
    /// A person has signed in. A ticket is used up with it; the session that the browser had before ends.
    OpenSession {
        session: Box<SessionRecord>,
        spends: Option<[u8; 32]>,
        replaces: Option<SessionId>,
    },
    /// A later use of a session, unless it has ended.
    #[cfg(feature = "server")]
    UseSession(Box<SessionRecord>),
    /// These, or all but the one to keep.
    EndSessions {
        user: UserId,
        which: Which,
    },
    AddTicket(Box<TicketRecord>),
    WithdrawTicket(TicketId),
}

/// Which of a user's sessions.
#[derive(Debug, Clone, Copy)]
pub enum Which {
    One(SessionId),
    AllBut(Option<SessionId>),
}

/// What is to change of a user; what is `None` stays.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct UserChange {
    /// Another plan. With it come the plan's own limits, unless `limits` says otherwise.
    pub plan: Option<Plan>,
    /// `Some(None)` goes back to the plan's own limits. So does a change to another plan.
    pub limits: Option<Option<Limits>>,
    /// Active, suspended or in deletion; from the last there is no way back.
    pub status: Option<UserStatus>,
    /// Whether they may administer the service.
    pub administrator: Option<bool>,
    /// Who they are to the identity provider, once they have come by it.
    pub identity: Option<Identity>,
}

impl UserChange {
    setters! {
        with_plan(plan: Plan => Some(plan));
        with_limits(limits: impl Into<Option<Limits>> => Some(limits.into()));
        with_status(status: UserStatus => Some(status));
        with_administrator(administrator: bool => Some(administrator));
        with_identity(identity: Identity => Some(identity));
    }
}

/// Why an account was not changed.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum AccountRefusal {
    /// Another user has the address.
    #[error("a user with this e-mail address exists already")]
    EmailTaken,
    /// The user does not exist.
    #[error("no such user")]
    NoSuchUser,
    /// This user has no such key.
    #[error("no such key")]
    NoSuchKey,
    /// This user has no such session.
    #[error("no such session")]
    NoSuchSession,
    /// The invitation or link is unknown, expired or spent.
    #[error("no such invitation or link, or it was used already")]
    NoSuchTicket,
    /// As many invitations and links are open as there may be.
    #[error("{MAX_TICKETS} invitations and links are open already")]
    TooManyTickets,
    /// A user is only removed without agents.
    #[error("the user still has agents")]
    HasAgents,
    /// The user has as many keys as one may have.
    #[error("the user has {KEYS_PER_USER} keys already")]
    TooManyKeys,
    /// Nobody could administer the service any more.
    #[error("no other key could administer the service")]
    LastAdministrator,
    /// Nothing can be changed of a user who is being deleted.
    #[error("the user is being deleted")]
    Deleting,
    /// The store did not take the change.
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
