//! Users and their API keys.

use super::{ACTOR_PATIENCE, ControlPlane};
use crate::actor::{AskError, RegistryMsg, ask};
use crate::domain::{ApiKey, KeyId, Limits, Plan, Scopes, Timestamp, UserId};
use crate::store::{Conflict, KeyRecord, StoreError, UserRecord};

#[derive(Debug, Clone)]
pub struct NewUser {
    pub email: String,
    pub plan: Plan,
    pub limits: Option<Limits>,
}

#[derive(Debug, Clone)]
pub struct NewKey {
    pub name: Option<String>,
    pub scopes: Scopes,
    pub expires_at: Option<Timestamp>,
}

/// Why an account was not changed.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum AccountError {
    #[error("a user with this e-mail address exists already")]
    EmailTaken,
    #[error("no such user")]
    NoSuchUser,
    #[error("no such key")]
    NoSuchKey,
    #[error("the user still has agents")]
    HasAgents,
    #[error(transparent)]
    Store(StoreError),
    #[error("the registry: {0}")]
    Registry(#[from] AskError),
}

impl From<StoreError> for AccountError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Rejected(Conflict::Exists) => Self::EmailTaken,
            StoreError::Rejected(Conflict::NotFound) => Self::NoSuchUser,
            StoreError::Rejected(Conflict::HasAgents) => Self::HasAgents,
            error => Self::Store(error),
        }
    }
}

impl ControlPlane {
    /// # Errors
    /// [`AccountError::EmailTaken`], or the store's.
    pub async fn create_user(&self, new: NewUser) -> Result<UserRecord, AccountError> {
        let NewUser { email, plan, limits } = new;
        let user = UserRecord { id: UserId::new(), email, plan, limits, created_at: self.now() };
        let stored = Box::new(user.clone());
        let registry = self.registry.load_full();
        ask(&registry, |reply| RegistryMsg::CreateUser { user: stored, reply }, ACTOR_PATIENCE).await??;
        Ok(user)
    }

    /// Another plan, or other limits. Agents that are more than the new plan allows stay; no more can be added.
    ///
    /// # Errors
    /// [`AccountError::NoSuchUser`], or the store's.
    pub async fn set_plan(&self, user: UserId, plan: Plan, limits: Option<Limits>) -> Result<UserRecord, AccountError> {
        let registry = self.registry.load_full();
        let change = |reply| RegistryMsg::ChangePlan { user, plan, limits, reply };
        Ok(ask(&registry, change, ACTOR_PATIENCE).await??)
    }

    /// Removes a user and their keys.
    ///
    /// # Errors
    /// [`AccountError::HasAgents`] as long as they have agents.
    pub async fn remove_user(&self, user: UserId) -> Result<(), AccountError> {
        let registry = self.registry.load_full();
        Ok(ask(&registry, |reply| RegistryMsg::RemoveUser { user, reply }, ACTOR_PATIENCE).await??)
    }

    /// Makes a key; this is the only time it is seen.
    ///
    /// # Errors
    /// [`AccountError::NoSuchUser`], or the store's.
    pub async fn create_key(&self, user: UserId, new: NewKey) -> Result<(KeyRecord, ApiKey), AccountError> {
        let secret = ApiKey::generate();
        Ok((self.add_key(user, &secret, new).await?, secret))
    }

    /// Lets in whoever presents `secret`: for callers who must have put it in a safe place before it works.
    ///
    /// # Errors
    /// [`AccountError::NoSuchUser`], or the store's.
    pub async fn add_key(&self, user: UserId, secret: &ApiKey, new: NewKey) -> Result<KeyRecord, AccountError> {
        self.accounts().user(user).ok_or(AccountError::NoSuchUser)?;
        let key = KeyRecord {
            id: KeyId::new(),
            user,
            hash: secret.hash(),
            name: new.name,
            scopes: new.scopes,
            expires_at: new.expires_at,
            created_at: self.now(),
        };
        let stored = Box::new(key.clone());
        let registry = self.registry.load_full();
        ask(&registry, |reply| RegistryMsg::PutKey { key: stored, reply }, ACTOR_PATIENCE).await??;
        Ok(key)
    }

    /// # Errors
    /// [`AccountError::NoSuchKey`] where the user has no such key.
    pub async fn remove_key(&self, user: UserId, key: KeyId) -> Result<(), AccountError> {
        let keys = self.accounts().keys_of(user);
        let (key, _) = keys.into_iter().find(|(kept, _)| kept.id == key).ok_or(AccountError::NoSuchKey)?;
        let key = Box::new(key);
        let registry = self.registry.load_full();
        Ok(ask(&registry, |reply| RegistryMsg::RemoveKey { key, reply }, ACTOR_PATIENCE).await??)
    }

    /// How many agents the user has.
    ///
    /// # Errors
    /// When the registry does not answer.
    pub async fn used(&self, user: UserId) -> Result<u32, AskError> {
        ask(&self.registry.load_full(), |reply| RegistryMsg::Used { user, reply }, ACTOR_PATIENCE).await
    }
}
