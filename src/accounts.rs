//! Users and API keys as they are read: in memory, in step with the store. The registry is the one writer.

use std::collections::HashMap;
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use crate::domain::{ApiKey, KeyId, Limits, Plan, Scope, Scopes, Timestamp, UserId};
use crate::store::{KeyRecord, UserRecord};

#[derive(Default)]
pub struct Accounts(RwLock<Inner>);

#[derive(Default)]
struct Inner {
    users: HashMap<UserId, UserRecord>,
    keys: HashMap<[u8; 32], KeyRecord>,
    last_used: HashMap<KeyId, Timestamp>,
}

/// Who is calling, and what they may do.
#[derive(Debug, Clone, PartialEq)]
pub struct Caller {
    pub user: UserId,
    pub key: KeyId,
    pub scopes: Scopes,
}

impl Caller {
    pub fn may(&self, scope: Scope) -> bool {
        self.scopes.contains(scope)
    }
}

impl Accounts {
    fn read(&self) -> RwLockReadGuard<'_, Inner> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Inner> {
        self.0.write().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn restore(&self, users: Vec<UserRecord>, keys: Vec<KeyRecord>) {
        let mut inner = self.write();
        inner.users = users.into_iter().map(|user| (user.id, user)).collect();
        inner.keys = keys.into_iter().map(|key| (key.hash, key)).collect();
    }

    /// Who presents this key. A look-up by hash: how long it takes says nothing about the keys that exist.
    pub fn authenticate(&self, presented: &str, now: Timestamp) -> Option<Caller> {
        let hash = ApiKey::hash_of(presented);
        let caller = {
            let inner = self.read();
            let key = inner.keys.get(&hash).filter(|key| key.expires_at.is_none_or(|expiry| now < expiry))?;
            inner.users.get(&key.user)?;
            Caller { user: key.user, key: key.id, scopes: key.scopes.clone() }
        };
        self.write().last_used.insert(caller.key, now);
        Some(caller)
    }

    pub fn user(&self, id: UserId) -> Option<UserRecord> {
        self.read().users.get(&id).cloned()
    }

    pub fn user_by_email(&self, email: &str) -> Option<UserRecord> {
        self.read().users.values().find(|user| user.email == email).cloned()
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
            .filter(|key| key.user == user)
            .map(|key| (key.clone(), inner.last_used.get(&key.id).copied()))
            .collect();
        keys.sort_by_key(|(key, _)| key.id);
        keys
    }

    /// What a user's agents may take; those of a user who is gone get the least.
    pub fn limits_of(&self, user: UserId) -> Limits {
        self.read().users.get(&user).map_or(Plan::Free.limits(), UserRecord::effective_limits)
    }

    pub(crate) fn put_user(&self, user: UserRecord) {
        self.write().users.insert(user.id, user);
    }

    pub(crate) fn remove_user(&self, user: UserId) {
        let mut inner = self.write();
        inner.users.remove(&user);
        inner.keys.retain(|_, key| key.user != user);
    }

    pub(crate) fn put_key(&self, key: KeyRecord) {
        self.write().keys.insert(key.hash, key);
    }

    pub(crate) fn remove_key(&self, key: KeyId) {
        let mut inner = self.write();
        inner.keys.retain(|_, kept| kept.id != key);
        inner.last_used.remove(&key);
    }
}

impl UserRecord {
    /// The limits agreed on, else the plan's.
    pub fn effective_limits(&self) -> Limits {
        self.limits.unwrap_or_else(|| self.plan.limits())
    }
}
