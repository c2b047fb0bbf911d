//! Users, API keys and sessions as they are read: in memory, in step with the store. The registry is the one writer.
//!
//! ```text
//! passwords   the slow hash, a few at a time       slowdown   failed sign-ins, by account and by address
//! sessions    people who have signed in            tickets    what lets somebody in once
//! ```

mod passwords;
mod sessions;
mod slowdown;
mod tickets;

use std::collections::HashSet;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::by_id::LockedById;
use crate::domain::{ApiKey, Identity, KeyId, Limits, Plan, Scope, Scopes, SessionId, Timestamp, UserId, UserStatus};
use crate::store::{KeyRecord, Snapshot, TicketRecord, UserRecord};

pub use self::passwords::{Busy, Passwords};
use self::sessions::Session;
pub use self::slowdown::Slowdown;

/// Users, keys, sessions and tickets in memory, as they are committed: reading never waits for the store. Changes go by
/// [`ControlPlane`](crate::control::ControlPlane).
#[derive(Default)]
pub struct Accounts {
    inner: RwLock<Inner>,
    /// Told when a user's status changed.
    pub(crate) status_changed: Notify,
}

#[derive(Default)]
struct Inner {
    users: LockedById<UserId, UserRecord>,
    keys: LockedById<[u8; 32], Key>,
    sessions: LockedById<[u8; 32], Session>,
    tickets: LockedById<[u8; 32], TicketRecord>,
}

struct Key {
    record: KeyRecord,
    /// Cancelled once the key no longer works, for what its holder has open. A clone of the token itself takes a lock that all
    /// requests with the key would share.
    ended: Arc<CancellationToken>,
    /// Milliseconds since 1970; 0 before the first use. Written under the lock for readers, so that requests do not wait for each
    /// other.
    used_at: AtomicI64,
}

impl Key {
    fn new(record: KeyRecord) -> Self {
        Self { record, ended: Arc::default(), used_at: AtomicI64::new(0) }
    }

    fn last_used(&self) -> Option<Timestamp> {
        let at = self.used_at.load(Ordering::Relaxed);
        (at != 0).then(|| Timestamp::from_millisecond(at).ok()).flatten()
    }
}

/// Who is calling, and what they may do.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Caller {
    /// Whose agents and keys the call is about.
    pub user: UserId,
    /// The key that was presented; none for a session, and for a caller that an embedder has authenticated.
    pub key: Option<KeyId>,
    /// The session whose cookie was presented.
    pub session: Option<SessionId>,
    /// What the key, the session or the embedder allows.
    pub scopes: Scopes,
    /// When the key or the session stops working by itself; `None` for never.
    pub expires_at: Option<Timestamp>,
    ended: Arc<CancellationToken>,
}

/// Why a presented key is not accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Refused {
    /// There is no such key, or it has expired.
    Unknown,
    /// Its user is suspended.
    Suspended,
}

impl Caller {
    /// A caller whom somebody else has authenticated, for routers that trust their embedder.
    pub fn new(user: UserId, scopes: Scopes) -> Self {
        Self { user, key: None, session: None, scopes, expires_at: None, ended: Arc::default() }
    }

    /// Whether the scope is among those of the caller. What a user's role allows is not looked at.
    pub fn may(&self, scope: Scope) -> bool {
        self.scopes.contains(scope)
    }

    /// Whether the key or the session that was presented still works.
    pub fn works_at(&self, now: Timestamp) -> bool {
        !self.ended.is_cancelled() && self.expires_at.is_none_or(|expiry| now < expiry)
    }

    /// Waits until the key is revoked, the session ended, or the suspended or deleted. Expiry is the caller's own to watch.
    pub async fn ended(&self) {
        self.ended.cancelled().await;
    }
}

impl Accounts {
    fn read(&self) -> RwLockReadGuard<'_, Inner> {
        self.inner.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Inner> {
        self.inner.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the store has. Streams of keys that are still there stay open.
    pub(crate) fn restore(&self, Snapshot { users, keys, sessions, tickets, agents: _ }: Snapshot) {
        let mut inner = self.write();
        inner.restore_sessions(sessions);
        inner.tickets = tickets.into_iter().map(|ticket| (ticket.hash, ticket)).collect();
        inner.users = users.into_iter().map(|user| (user.id, user)).collect();
        let mut before = std::mem::take(&mut inner.keys);
        for record in keys {
            let key = match before.remove(&record.hash) {
                Some(key) => Key { record, ..key },
                None => Key::new(record),
            };
            inner.keys.insert(key.record.hash, key);
        }
        before.into_values().for_each(|key| key.ended.cancel());
    }

    /// Who presents this key. A look-up by hash: how long it takes says nothing about the keys that exist.
    ///
    /// # Errors
    /// See [`Refused`].
    pub fn authenticate(&self, presented: &str, now: Timestamp) -> Result<Caller, Refused> {
        let hash = ApiKey::hash_of(presented);
        let inner = self.read();
        let key = inner.keys.get(&hash).filter(|key| key.record.works_at(now)).ok_or(Refused::Unknown)?;
        let user = inner.users.get(&key.record.user).ok_or(Refused::Unknown)?;
        if user.status != UserStatus::Active {
            return Err(Refused::Suspended);
        }
        key.used_at.store(now.as_millisecond(), Ordering::Relaxed);
        Ok(Caller {
            user: key.record.user,
            key: Some(key.record.id),
            session: None,
            scopes: key.record.scopes.clone(),
            expires_at: key.record.expires_at,
            ended: Arc::clone(&key.ended),
        })
    }

    /// The user, also one who is suspended or being deleted; `None` once they are gone.
    pub fn user(&self, id: UserId) -> Option<UserRecord> {
        self.read().users.get(&id).cloned()
    }

    /// The same by e-mail address, compared as it is written. Looks at every user.
    pub fn user_by_email(&self, email: &str) -> Option<UserRecord> {
        self.read().users.values().find(|user| user.email == email).cloned()
    }

    pub(crate) fn user_by_identity(&self, identity: &Identity) -> Option<UserRecord> {
        self.read().users.values().find(|user| user.identity.as_ref() == Some(identity)).cloned()
    }

    /// All users, oldest first.
    pub fn users(&self) -> Vec<UserRecord> {
        let mut users: Vec<_> = self.read().users.values().cloned().collect();
        users.sort_by_key(|user| user.id);
        users
    }

    /// A user's keys, oldest first, with the time of their last use since the service was started.
    pub fn keys_of(&self, user: UserId) -> Vec<(KeyRecord, Option<Timestamp>)> {
        let inner = self.read();
        let mut keys: Vec<_> = inner
            .keys
            .values()
            .filter(|key| key.record.user == user)
            .map(|key| (key.record.clone(), key.last_used()))
            .collect();
        keys.sort_by_key(|(key, _)| key.id);
        keys
    }

    /// What a user's agents may take; those of a user who is gone get the least.
    pub fn limits_of(&self, user: UserId) -> Limits {
        self.read().users.get(&user).map_or(Plan::Free.limits(), UserRecord::effective_limits)
    }

    /// The key and all that were made with it or with one of those, the key last.
    pub(crate) fn tree_of(&self, key: KeyId) -> Vec<KeyRecord> {
        let inner = self.read();
        let records: Vec<&KeyRecord> = inner.keys.values().map(|key| &key.record).collect();
        let mut tree: Vec<KeyRecord> = records.iter().filter(|it| it.id == key).map(|it| (*it).clone()).collect();
        let mut next = 0;
        while let Some(parent) = tree.get(next).map(|it| it.id) {
            tree.extend(records.iter().filter(|it| it.parent == Some(parent)).map(|it| (*it).clone()));
            next += 1;
        }
        tree.reverse();
        tree
    }

    /// Whether somebody can administer the service, without these keys and this user: by a key with the scope admin that
    /// works, or as an administrator who can sign in.
    pub(crate) fn has_administrator(&self, now: Timestamp, without: &HashSet<KeyId>, user: Option<UserId>) -> bool {
        let inner = self.read();
        let active = |id| inner.users.get(&id).is_some_and(|user| user.status == UserStatus::Active);
        let signs_in =
            |it: &UserRecord| it.administrator && (it.password.is_some() || it.identity.is_some()) && active(it.id);
        if inner.users.values().any(|it| user != Some(it.id) && signs_in(it)) {
            return true;
        }
        inner.keys.values().map(|key| &key.record).any(|key| {
            key.scopes.contains(Scope::Admin)
                && key.works_at(now)
                && !without.contains(&key.id)
                && user != Some(key.user)
                && active(key.user)
        })
    }

    /// The same where this user is no administrator any more, but keeps their keys.
    pub(crate) fn has_administrator_beside(&self, now: Timestamp, user: UserId) -> bool {
        let keyed = |it: &KeyRecord| it.user == user && it.scopes.contains(Scope::Admin) && it.works_at(now);
        self.has_administrator(now, &HashSet::new(), Some(user)) || self.keys_of(user).iter().any(|(key, _)| keyed(key))
    }

    pub(crate) fn put_user(&self, user: UserRecord) {
        let mut inner = self.write();
        if user.status != UserStatus::Active {
            for key in inner.keys.values_mut().filter(|key| key.record.user == user.id) {
                key.ended.cancel();
                // The key may work again later.
                key.ended = Arc::default();
            }
            inner.interrupt_sessions_of(user.id);
        }
        inner.users.insert(user.id, user);
        drop(inner);
        self.status_changed.notify_one();
    }

    pub(crate) fn remove_user(&self, user: UserId) {
        let mut inner = self.write();
        inner.users.remove(&user);
        inner.remove_keys(|key| key.user == user);
        inner.remove_sessions(|session| session.user == user);
    }

    pub(crate) fn put_key(&self, record: KeyRecord) {
        let key = Key::new(record);
        self.write().keys.insert(key.record.hash, key);
    }

    pub(crate) fn remove_keys(&self, keys: &[KeyId]) {
        self.write().remove_keys(|key| keys.contains(&key.id));
    }
}

impl Inner {
    fn remove_keys(&mut self, gone: impl Fn(&KeyRecord) -> bool) {
        self.keys.retain(|_, key| {
            let gone = gone(&key.record);
            if gone {
                key.ended.cancel();
            }
            !gone
        });
    }
}

impl UserRecord {
    /// The limits agreed on, else the plan's.
    pub fn effective_limits(&self) -> Limits {
        self.limits.unwrap_or_else(|| self.plan.limits())
    }

    /// What they may do once they have signed in.
    pub fn scopes(&self) -> Scopes {
        if self.administrator { Scopes::all() } else { Scopes::user() }
    }
}

impl KeyRecord {
    /// Whether it has not expired.
    pub fn works_at(&self, now: Timestamp) -> bool {
        self.expires_at.is_none_or(|expiry| now < expiry)
    }
}
