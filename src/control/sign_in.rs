//! People: how they get in, and how guessing is made to lead nowhere.
//!
//! ```text
//! address, password ─► slowed down? (account, address) ─► one slow hash, known or not ─► a session, or "wrong"
//! ```
//! An unknown address, one without a password and a wrong password are answered alike, after the same work.

mod passwords;
mod tickets;

use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

use self::tickets::unless_ticket;
use super::accounts::AccountError;
use super::{ControlPlane, NewUser};
use crate::accounts::{Busy, Passwords, Slowdown};
use crate::actor::{AccountChange, AccountRefusal, Registration, UserChange, Which};
use crate::audit;
use crate::domain::{Identity, Password, Plan, Secret, SessionId, Token, UserId, UserStatus, later};
use crate::store::{SessionRecord, SignInBy, TicketKind, UserRecord};

/// Failures in a row after which an account's next sign-in waits, and the longest wait.
const ACCOUNT: (u32, Duration) = (5, Duration::from_secs(15 * 60));
/// The same for an address, which people share.
const ADDRESS: (u32, Duration) = (50, Duration::from_secs(60));
/// What is kept of a browser's name for itself.
const MAX_CLIENT: usize = 200;

/// What is known of attempts to sign in; in memory.
pub(super) struct SignIns {
    passwords: Passwords,
    /// By the hash of the e-mail address, known or not. Addresses from which the user is signed in are counted for
    /// themselves, so that somebody who guesses does not keep the user out.
    by_account: Slowdown<([u8; 32], Option<IpAddr>)>,
    by_address: Slowdown<IpAddr>,
}

/// Where an attempt comes from.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct Visitor {
    /// The address for which attempts are counted; `None`: only those of the account are.
    pub address: Option<IpAddr>,
    /// What the browser calls itself.
    pub client: Option<String>,
    /// The session that the browser has; it ends when there is another one.
    pub session: Option<Secret<String>>,
}

impl Visitor {
    setters! {
        with_address(address: impl Into<Option<IpAddr>> => address.into());
        with_client(client: impl Into<String> => Some(client.into()));
        with_session(session: impl Into<Secret<String>> => Some(session.into()));
    }
}

/// A person who has just signed in. This is the only time that the token is seen.
#[non_exhaustive]
pub struct SignedIn {
    /// Who it is.
    pub user: UserRecord,
    /// What the store has of the new session.
    pub session: SessionRecord,
    /// What the browser presents from now on.
    pub token: Token,
}

/// Why nobody was let in, or no password was set.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum SignInError {
    /// Also where there is no such account, or it has no password.
    #[error("the e-mail address or the password is wrong")]
    Wrong,
    /// The account is suspended, or is being deleted.
    #[error("the user is suspended")]
    Suspended,
    /// The account or the address has to wait this long.
    #[error("too many attempts have failed")]
    TooSoon(Duration),
    /// Other passwords are being checked; try it again in a moment.
    #[error(transparent)]
    Busy(#[from] Busy),
    /// The service is set up so that only administrators make users.
    #[error("registration is closed")]
    Closed,
    /// Registration is by invitation, and none was presented.
    #[error("an invitation is needed")]
    InvitationNeeded,
    /// It is unknown, expired, spent, of another kind, or for another e-mail address.
    #[error("the invitation or link is not valid, or was used already")]
    NoTicket,
    /// The account with this e-mail address has another identity already.
    #[error("the account belongs to another person at the identity provider")]
    OtherIdentity,
    /// The account has a password, and the session does not come from a fresh link.
    #[error("the current password is needed")]
    CurrentNeeded,
    /// An account without a password gets its first one only in a session.
    #[error("a session is needed")]
    SessionNeeded,
    /// The registry or the store refused the change.
    #[error(transparent)]
    Account(#[from] AccountError),
}

impl Default for SignIns {
    fn default() -> Self {
        Self {
            passwords: Passwords::default(),
            by_account: Slowdown::new(ACCOUNT.0, ACCOUNT.1),
            by_address: Slowdown::new(ADDRESS.0, ADDRESS.1),
        }
    }
}

impl ControlPlane {
    /// Opens a session for whoever knows the password. A new one each time: what a browser had before is worth nothing.
    ///
    /// # Errors
    /// See [`SignInError`].
    pub async fn sign_in(
        &self,
        email: &str,
        password: Secret<String>,
        visitor: Visitor,
    ) -> Result<SignedIn, SignInError> {
        let email = email.trim().to_lowercase();
        let user = self.accounts().user_by_email(&email);
        self.check_password(&email, user.as_ref(), password, visitor.address).await?;
        let user = user.ok_or(SignInError::Wrong)?;
        self.open_session(user, SignInBy::Password, visitor, None).await
    }

    /// Makes an account and opens its first session. Whether that is allowed is configuration.
    ///
    /// # Errors
    /// See [`SignInError`].
    pub async fn register(
        &self,
        email: String,
        password: Password,
        invitation: Option<Secret<String>>,
        visitor: Visitor,
    ) -> Result<SignedIn, SignInError> {
        let registration = self.shared.services.settings.accounts.registration;
        if registration == Registration::Closed {
            return Err(SignInError::Closed);
        }
        // Each counts, so that nobody fills the service with accounts or guesses invitations.
        self.begin_from(visitor.address)?;
        let ticket = match invitation {
            Some(secret) => Some(self.invitation(&secret, &email)?),
            None if registration == Registration::Invite => return Err(SignInError::InvitationNeeded),
            None => None,
        };
        let password = self.shared.sign_ins.passwords.hash(password).await?;
        let plan = ticket.as_ref().map_or(Plan::Free, |(_, plan)| *plan);
        let new = NewUser { email, plan, limits: None };
        let user = UserRecord { password: Some(password), ..self.new_user(new) };
        audit::identified(user.id);
        let change = AccountChange::CreateUser { user: Box::new(user.clone()), spends: ticket.map(|(hash, _)| hash) };
        self.change_account(change).await.map_err(unless_ticket)?;
        self.open_session(user, SignInBy::Registration, visitor, None).await
    }

    /// Opens a session by a link of [`ControlPlane::sign_in_link`], once.
    ///
    /// # Errors
    /// See [`SignInError`].
    pub async fn sign_in_by_link(&self, secret: &Secret<String>, visitor: Visitor) -> Result<SignedIn, SignInError> {
        self.begin_from(visitor.address)?;
        let ticket = self.accounts().ticket(secret.expose(), self.now()).ok_or(SignInError::NoTicket)?;
        let TicketKind::SignIn { user } = ticket.opens else { return Err(SignInError::NoTicket) };
        let user = self.accounts().user(user).ok_or(SignInError::NoTicket)?;
        self.open_session(user, SignInBy::Link, visitor, Some(ticket.hash)).await
    }

    /// Counts an attempt that [`ControlPlane::sign_in_as`] may end well, so that nobody makes the service ask an identity
    /// provider all the time.
    ///
    /// # Errors
    /// [`SignInError::TooSoon`].
    pub fn begin_sign_in(&self, visitor: &Visitor) -> Result<(), SignInError> {
        self.begin_from(visitor.address)
    }

    /// Opens a session for whom an identity provider vouches, and makes the account at the first time. An account with the
    /// same e-mail address, which the provider must have verified, is taken to be theirs.
    ///
    /// # Errors
    /// See [`SignInError`].
    pub async fn sign_in_as(
        &self,
        identity: Identity,
        email: String,
        visitor: Visitor,
    ) -> Result<SignedIn, SignInError> {
        let address = visitor.address;
        let user = self.user_of(identity, email).await?;
        let signed_in = self.open_session(user, SignInBy::Provider, visitor, None).await?;
        if let Some(address) = address {
            self.shared.sign_ins.by_address.took_back(&network(address));
        }
        Ok(signed_in)
    }

    async fn user_of(&self, identity: Identity, email: String) -> Result<UserRecord, SignInError> {
        if let Some(user) = self.accounts().user_by_identity(&identity) {
            return Ok(user);
        }
        let Some(user) = self.accounts().user_by_email(&email) else {
            let new = NewUser { email, plan: Plan::Free, limits: None };
            let user = UserRecord { identity: Some(identity), ..self.new_user(new) };
            audit::identified(user.id);
            self.change_account(AccountChange::CreateUser { user: Box::new(user.clone()), spends: None }).await?;
            return Ok(user);
        };
        audit::concerns(user.id);
        if user.identity.is_some() {
            return Err(SignInError::OtherIdentity);
        }
        if user.status != UserStatus::Active {
            return Err(SignInError::Suspended);
        }
        Ok(self.change_user(user.id, UserChange { identity: Some(identity), ..UserChange::default() }).await?)
    }

    /// Ends the session of this token; one that has ended already is no fault.
    ///
    /// # Errors
    /// The store's.
    pub async fn sign_out(&self, token: &Secret<String>) -> Result<(), AccountError> {
        let Some(session) = self.accounts().session_by_token(token.expose()) else { return Ok(()) };
        audit::identified(session.user);
        match self.end_session(session.user, session.id).await {
            Err(AccountError::Refused(AccountRefusal::NoSuchSession)) => Ok(()),
            outcome => outcome,
        }
    }

    /// Ends one session of a user.
    ///
    /// # Errors
    /// [`AccountRefusal::NoSuchSession`], or the store's.
    pub async fn end_session(&self, user: UserId, session: SessionId) -> Result<(), AccountError> {
        self.change_account(AccountChange::EndSessions { user, which: Which::One(session) }).await
    }

    /// Ends all of a user's sessions but this one.
    ///
    /// # Errors
    /// The store's.
    pub async fn end_sessions(&self, user: UserId, keep: Option<SessionId>) -> Result<(), AccountError> {
        self.change_account(AccountChange::EndSessions { user, which: Which::AllBut(keep) }).await
    }

    /// Writes a session's last use down.
    #[cfg(feature = "server")]
    pub(crate) async fn use_session(&self, session: SessionRecord) {
        if let Err(error) = self.change_account(AccountChange::UseSession(Box::new(session))).await {
            tracing::debug!(%error, "a session's use was not written down");
        }
    }

    /// Who may make an account for themselves.
    pub fn registration(&self) -> Registration {
        self.shared.services.settings.accounts.registration
    }

    /// Whether somebody can administer the service, by a key or a password.
    pub fn has_administrator(&self) -> bool {
        self.accounts().has_administrator(self.now(), &std::collections::HashSet::new(), None)
    }

    fn begin_from(&self, address: Option<IpAddr>) -> Result<(), SignInError> {
        match address {
            Some(address) => {
                self.shared.sign_ins.by_address.begin(&network(address), self.now()).map_err(SignInError::TooSoon)
            }
            None => Ok(()),
        }
    }

    async fn open_session(
        &self,
        user: UserRecord,
        by: SignInBy,
        visitor: Visitor,
        spends: Option<[u8; 32]>,
    ) -> Result<SignedIn, SignInError> {
        if user.status != UserStatus::Active {
            audit::concerns(user.id);
            return Err(SignInError::Suspended);
        }
        audit::identified(user.id);
        let (now, settings) = (self.now(), &self.shared.services.settings.accounts);
        let token = Token::generate_in(Token::SESSION, self.cell());
        let before = visitor.session.and_then(|token| self.accounts().session_by_token(token.expose()));
        let session = SessionRecord {
            id: SessionId::new(),
            user: user.id,
            hash: token.hash(),
            created_at: now,
            seen_at: now,
            expires_at: later(now, settings.session_end),
            idle_secs: u32::try_from(settings.session_idle.as_secs()).unwrap_or(u32::MAX),
            address: visitor.address,
            client: visitor.client.map(shown),
            by,
        };
        // Another user's session in the same browser ends by itself, or where it is listed.
        let replaces = before.filter(|before| before.user == user.id).map(|before| before.id);
        let change = AccountChange::OpenSession { session: Box::new(session.clone()), spends, replaces };
        self.change_account(change).await.map_err(unless_ticket)?;
        Ok(SignedIn { user, session, token })
    }
}

/// What is counted as one address: of IPv6 the half that a line gets, since the rest is its holder's to choose.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => address.into(),
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0).into()
        }
    }
}

/// A browser's name for itself as it is shown to its user.
fn shown(client: String) -> String {
    client.chars().filter(|c| !c.is_control()).take(MAX_CLIENT).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(all(feature = "server", feature = "testkit"))]
    #[tokio::test(start_paused = true)]
    async fn last_use_of_a_session_is_stored_and_one_that_has_ended_does_not_come_back() {
        let world = crate::testkit::plane(5, Plan::Pro).await;
        let identity = Identity { issuer: "https://id.example.com".into(), subject: "ada".into() };
        let signed_in = world.plane.sign_in_as(identity, "ada@example.com".into(), Visitor::default()).await.unwrap();
        let stored = async || world.plane.store().load().await.unwrap().sessions;
        let opened = stored().await.remove(0);
        assert_eq!(opened.id, signed_in.session.id);
        let used = SessionRecord { seen_at: later(opened.seen_at, Duration::from_secs(600)), ..opened };
        world.plane.use_session(used.clone()).await;
        assert_eq!(stored().await, std::slice::from_ref(&used));
        world.plane.end_session(used.user, used.id).await.unwrap();
        world.plane.use_session(used).await;
        assert_eq!(stored().await, []);
    }

    #[test]
    fn a_line_is_one_address() {
        for (address, counted) in
            [("192.0.2.7", "192.0.2.7"), ("::ffff:192.0.2.7", "192.0.2.7"), ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::")]
        {
            assert_eq!(network(address.parse().unwrap()), counted.parse::<IpAddr>().unwrap());
        }
    }

    #[test]
    fn a_browsers_name_is_shown_on_one_line_and_not_at_any_length() {
        assert_eq!(shown("Fire\u{1b}[31mfox\r\n 1.0".into()), "Fire[31mfox 1.0");
        assert_eq!(shown("ä".repeat(MAX_CLIENT + 1)), "ä".repeat(MAX_CLIENT));
    }
}
