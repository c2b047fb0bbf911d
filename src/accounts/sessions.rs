//! People who have signed in.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::{Accounts, Caller, Inner, Refused};
use crate::domain::{SessionId, Timestamp, Token, UserId, UserStatus, elapsed};
use crate::store::SessionRecord;

/// A use is written down this long after the last one that was: one commit for each session in so many minutes.
const WRITTEN_EVERY: Duration = Duration::from_secs(5 * 60);

pub(super) struct Session {
    record: SessionRecord,
    /// The last use; `record.seen_at` is the last that is in the store.
    used_at: Timestamp,
    /// Cancelled once the session ends, for what is open under it.
    ended: Arc<CancellationToken>,
}

impl Accounts {
    /// Who presents this session's token, like [`Accounts::authenticate`]. Also the record with its use, where it is time
    /// to write that down.
    ///
    /// # Errors
    /// See [`Refused`].
    pub fn authenticate_session(
        &self,
        presented: &str,
        now: Timestamp,
    ) -> Result<(Caller, Option<SessionRecord>), Refused> {
        let hash = Token::hash_of(presented);
        let mut inner = self.write();
        let Inner { sessions, users, .. } = &mut *inner;
        let session = sessions.get_mut(&hash).filter(|it| it.works_at(now)).ok_or(Refused::Unknown)?;
        let user = users.get(&session.record.user).ok_or(Refused::Unknown)?;
        if user.status != UserStatus::Active {
            return Err(Refused::Suspended);
        }
        session.used_at = session.used_at.max(now);
        let due = elapsed(session.record.seen_at, now) >= WRITTEN_EVERY;
        if due {
            session.record.seen_at = now;
        }
        let caller = Caller {
            user: user.id,
            key: None,
            session: Some(session.record.id),
            scopes: user.scopes(),
            expires_at: Some(session.record.expires_at),
            ended: Arc::clone(&session.ended),
        };
        Ok((caller, due.then(|| session.record.clone())))
    }

    /// A user's sessions that work, oldest first, with their last use.
    pub fn sessions_of(&self, user: UserId, now: Timestamp) -> Vec<SessionRecord> {
        let inner = self.read();
        let theirs = inner.sessions.values().filter(|it| it.record.user == user && it.works_at(now));
        let mut found: Vec<_> = theirs.map(|it| SessionRecord { seen_at: it.used_at, ..it.record.clone() }).collect();
        found.sort_by_key(|session| session.id);
        found
    }

    /// Whether the user has a session that was opened from this address.
    pub(crate) fn knows_address(&self, user: UserId, address: IpAddr, now: Timestamp) -> bool {
        let inner = self.read();
        inner
            .sessions
            .values()
            .any(|it| it.record.user == user && it.record.address == Some(address) && it.works_at(now))
    }

    /// All of a user's sessions, those that no longer work as well.
    pub(crate) fn session_records_of(&self, user: UserId) -> Vec<SessionRecord> {
        let inner = self.read();
        inner.sessions.values().filter(|it| it.record.user == user).map(|it| it.record.clone()).collect()
    }

    /// The session of this token, whether it works or not.
    pub(crate) fn session_by_token(&self, presented: &str) -> Option<SessionRecord> {
        self.read().sessions.get(&Token::hash_of(presented)).map(|it| it.record.clone())
    }

    pub(crate) fn put_session(&self, record: SessionRecord) {
        let mut inner = self.write();
        let ended = inner.sessions.remove(&record.hash).map_or_else(Arc::default, |before| before.ended);
        inner.sessions.insert(record.hash, Session { used_at: record.seen_at, record, ended });
    }

    pub(crate) fn remove_sessions(&self, sessions: &[SessionId]) {
        self.write().remove_sessions(|session| sessions.contains(&session.id));
    }
}

impl Session {
    fn works_at(&self, now: Timestamp) -> bool {
        let idle = Duration::from_secs(self.record.idle_secs.into());
        now < self.record.expires_at && elapsed(self.used_at, now) < idle
    }
}

impl SessionRecord {
    /// Whether it was still used at the last time that was written down, and has not come to its end.
    pub(crate) fn worked_at(&self, now: Timestamp) -> bool {
        now < self.expires_at && elapsed(self.seen_at, now) < Duration::from_secs(self.idle_secs.into())
    }
}

impl Inner {
    /// What the store has. Streams of sessions that are still there stay open.
    pub(super) fn restore_sessions(&mut self, sessions: Vec<SessionRecord>) {
        let mut before = std::mem::take(&mut self.sessions);
        for record in sessions {
            let session = match before.remove(&record.hash) {
                Some(known) => Session { used_at: known.used_at.max(record.seen_at), record, ended: known.ended },
                None => Session { used_at: record.seen_at, record, ended: Arc::default() },
            };
            self.sessions.insert(session.record.hash, session);
        }
        before.into_values().for_each(|session| session.ended.cancel());
    }

    /// Ends what is open under a user's sessions; they may work again later.
    pub(super) fn interrupt_sessions_of(&mut self, user: UserId) {
        for session in self.sessions.values_mut().filter(|session| session.record.user == user) {
            session.ended.cancel();
            session.ended = Arc::default();
        }
    }

    pub(super) fn remove_sessions(&mut self, gone: impl Fn(&SessionRecord) -> bool) {
        self.sessions.retain(|_, session| {
            let gone = gone(&session.record);
            if gone {
                session.ended.cancel();
            }
            !gone
        });
    }
}
