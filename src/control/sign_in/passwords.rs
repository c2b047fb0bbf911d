//! Passwords: a guess at one, and another one.

use std::net::IpAddr;
use std::time::Duration;

use sha2::{Digest, Sha256};

use super::{SignInError, network};
use crate::actor::{AccountChange, AccountRefusal};
use crate::audit;
use crate::control::{AccountError, ControlPlane};
use crate::domain::{Password, Secret, SessionId, UserId, elapsed};
use crate::store::{SignInBy, UserRecord};

/// How long somebody who came by a link may set a password without the one that they have forgotten.
const LINK_SETS_PASSWORD: Duration = Duration::from_secs(15 * 60);

impl ControlPlane {
    /// A user's own new password. All their other sessions end. The current one must be presented, except by somebody who
    /// has none, or has just come by a link.
    ///
    /// # Errors
    /// See [`SignInError`].
    pub async fn change_password(
        &self,
        user: UserId,
        session: Option<SessionId>,
        current: Option<Secret<String>>,
        password: Password,
        address: Option<IpAddr>,
    ) -> Result<(), SignInError> {
        let now = self.now();
        let record = self.accounts().user(user).ok_or(AccountError::from(AccountRefusal::NoSuchUser))?;
        let sessions = self.accounts().sessions_of(user, now);
        let from_link = sessions.iter().any(|it| {
            Some(it.id) == session && it.by == SignInBy::Link && elapsed(it.created_at, now) < LINK_SETS_PASSWORD
        });
        if record.password.is_none() && session.is_none() {
            return Err(SignInError::SessionNeeded);
        }
        if record.password.is_some() && !from_link {
            let current = current.ok_or(SignInError::CurrentNeeded)?;
            self.check_password(&record.email, Some(&record), current, address).await?;
        }
        self.put_password(user, password, session).await
    }

    /// Another password for any user. All their sessions end.
    ///
    /// # Errors
    /// See [`SignInError`].
    pub async fn set_password(&self, user: UserId, password: Password) -> Result<(), SignInError> {
        self.put_password(user, password, None).await
    }

    /// The password is this user's. Attempts that fail slow down the next ones of the account and of the address.
    pub(super) async fn check_password(
        &self,
        email: &str,
        user: Option<&UserRecord>,
        password: Secret<String>,
        address: Option<IpAddr>,
    ) -> Result<(), SignInError> {
        let now = self.now();
        self.begin_from(address)?;
        let known =
            address.filter(|address| user.is_some_and(|it| self.accounts().knows_address(it.id, *address, now)));
        let account = (Sha256::digest(email.as_bytes()).into(), known.map(network));
        self.shared.sign_ins.by_account.begin(&account, now).map_err(SignInError::TooSoon)?;
        user.iter().for_each(|user| audit::concerns(user.id));
        let kept = user.and_then(|user| user.password.clone());
        let verified = self.shared.sign_ins.passwords.verify(password, kept).await;
        if matches!(verified, Ok(false)) {
            return Err(SignInError::Wrong);
        }
        if let Some(address) = address {
            self.shared.sign_ins.by_address.took_back(&network(address));
        }
        if verified.is_err() {
            self.shared.sign_ins.by_account.took_back(&account);
        } else {
            self.shared.sign_ins.by_account.succeeded(&account);
        }
        verified.map(drop).map_err(SignInError::Busy)
    }

    async fn put_password(&self, user: UserId, password: Password, keep: Option<SessionId>) -> Result<(), SignInError> {
        let password = self.shared.sign_ins.passwords.hash(password).await?;
        Ok(self.change_account(AccountChange::SetPassword { user, password, keep }).await?)
    }
}
