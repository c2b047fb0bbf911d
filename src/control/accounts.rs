//! Users and their API keys.

use super::{ACTOR_PATIENCE, ControlPlane};
use crate::actor::{AccountChange, AccountRefusal, AskError, RegistryMsg, UserChange, ask};
use crate::audit;
use crate::domain::{ApiKey, KeyId, Limits, Plan, Scopes, Timestamp, UserId, UserStatus};
use crate::store::{KeyRecord, UserRecord};

/// A user to be, without a password and without the right to administer the service.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct NewUser {
    /// Their e-mail address, which no other user has. In lower case: sign-ins look for it so.
    pub email: String,
    /// What they may have.
    pub plan: Plan,
    /// Instead of the plan's own limits, where others were agreed on.
    pub limits: Option<Limits>,
}

impl NewUser {
    /// A user with this address, and the limits of their plan.
    pub fn new(email: impl Into<String>, plan: Plan) -> Self {
        Self { email: email.into(), plan, limits: None }
    }

    setters! {
        with_limits(limits: impl Into<Option<Limits>> => limits.into());
    }
}

/// An API key to be.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct NewKey {
    /// For its owner to tell keys apart.
    pub name: Option<String>,
    /// What its holder may do.
    pub scopes: Scopes,
    /// From then on it is refused; `None`: it has no end.
    pub expires_at: Option<Timestamp>,
    /// The key that makes this one: its revocation ends this one too.
    pub parent: Option<KeyId>,
}

impl NewKey {
    /// A key without a name, an end or a parent.
    pub const fn new(scopes: Scopes) -> Self {
        Self { name: None, scopes, expires_at: None, parent: None }
    }

    setters! {
        with_name(name: impl Into<String> => Some(name.into()));
        with_expires_at(expires_at: impl Into<Option<Timestamp>> => expires_at.into());
        with_parent(parent: impl Into<Option<KeyId>> => parent.into());
    }
}

/// Why an account was not changed.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum AccountError {
    /// The change is not allowed, or the store did not take it.
    #[error(transparent)]
    Refused(#[from] AccountRefusal),
    /// The registry did not answer: whether the change was made is unknown.
    #[error("the registry: {0}")]
    Registry(#[from] AskError),
}

impl ControlPlane {
    /// Makes an active user. Committed when this answers.
    ///
    /// # Errors
    /// [`AccountRefusal::EmailTaken`], or the store's.
    pub async fn create_user(&self, new: NewUser) -> Result<UserRecord, AccountError> {
        let user = self.new_user(new);
        self.change_account(AccountChange::CreateUser { user: Box::new(user.clone()), spends: None }).await?;
        Ok(user)
    }

    /// A user who is not stored yet.
    pub(super) fn new_user(&self, new: NewUser) -> UserRecord {
        let id = UserId::new().in_cell(self.cell());
        UserRecord { limits: new.limits, ..UserRecord::new(id, new.email, new.plan, self.now()) }
    }

    /// Another plan or limits: agents that are more than allowed stay, no more can be added. Suspended: keys are refused
    /// and agents are stopped; active again, agents stay stopped until they are started.
    ///
    /// # Errors
    /// [`AccountRefusal::NoSuchUser`], [`AccountRefusal::LastAdministrator`], or the store's.
    pub async fn change_user(&self, user: UserId, change: UserChange) -> Result<UserRecord, AccountError> {
        self.change_account(AccountChange::ChangeUser { user, change }).await?;
        self.accounts().user(user).ok_or_else(|| AccountRefusal::NoSuchUser.into())
    }

    /// Another plan with these limits, or with its own.
    ///
    /// # Errors
    /// As [`ControlPlane::change_user`].
    pub async fn set_plan(&self, user: UserId, plan: Plan, limits: Option<Limits>) -> Result<UserRecord, AccountError> {
        let change = UserChange { plan: Some(plan), limits: Some(limits), ..UserChange::default() };
        self.change_user(user, change).await
    }

    /// Removes a user without agents, and their keys.
    ///
    /// # Errors
    /// [`AccountRefusal::HasAgents`] as long as they have agents.
    pub async fn remove_user(&self, user: UserId) -> Result<(), AccountError> {
        self.change_account(AccountChange::RemoveUser(user)).await
    }

    /// Begins to delete a user with all agents; it goes on by itself, also after a restart. The keys are refused at once.
    ///
    /// # Errors
    /// As [`ControlPlane::change_user`].
    pub async fn remove_user_with_agents(&self, user: UserId) -> Result<UserRecord, AccountError> {
        let change = UserChange { status: Some(UserStatus::Deleting), ..UserChange::default() };
        match self.change_user(user, change).await {
            Err(AccountError::Refused(AccountRefusal::Deleting)) => {
                self.accounts().user(user).ok_or_else(|| AccountRefusal::NoSuchUser.into())
            }
            outcome => outcome,
        }
    }

    /// Makes a key; this is the only time it is seen.
    ///
    /// # Errors
    /// [`AccountRefusal::NoSuchUser`], [`AccountRefusal::TooManyKeys`], or the store's.
    pub async fn create_key(&self, user: UserId, new: NewKey) -> Result<(KeyRecord, ApiKey), AccountError> {
        let secret = ApiKey::generate_in(self.cell());
        Ok((self.add_key(user, &secret, new).await?, secret))
    }

    /// Lets in whoever presents `secret`: for callers who must have put it in a safe place before it works.
    ///
    /// # Errors
    /// As [`ControlPlane::create_key`].
    pub async fn add_key(&self, user: UserId, secret: &ApiKey, new: NewKey) -> Result<KeyRecord, AccountError> {
        let key = KeyRecord {
            id: KeyId::new(),
            user,
            hash: secret.hash(),
            name: new.name,
            scopes: new.scopes,
            expires_at: new.expires_at,
            created_at: self.now(),
            parent: new.parent,
        };
        self.change_account(AccountChange::AddKey(Box::new(key.clone()))).await?;
        Ok(key)
    }

    /// Revokes a key and all that were made with it. What their holders have open ends.
    ///
    /// # Errors
    /// [`AccountRefusal::NoSuchKey`] where the user has no such key, [`AccountRefusal::LastAdministrator`].
    pub async fn remove_key(&self, user: UserId, key: KeyId) -> Result<(), AccountError> {
        self.change_account(AccountChange::RevokeKey { user, key }).await
    }

    pub(super) async fn change_account(&self, change: AccountChange) -> Result<(), AccountError> {
        let registry = self.shared.registry.load_full();
        Ok(ask(&registry, |reply| RegistryMsg::Account { change, acting: audit::current(), reply }, ACTOR_PATIENCE)
            .await??)
    }

    /// How many agents the user has.
    ///
    /// # Errors
    /// When the registry does not answer.
    pub async fn used(&self, user: UserId) -> Result<u32, AskError> {
        ask(&self.shared.registry.load_full(), |reply| RegistryMsg::Used { user, reply }, ACTOR_PATIENCE).await
    }
}
