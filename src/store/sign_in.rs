//! Writing who has signed in: sessions, and tickets that let somebody in once.

use redb::ReadableTable;

use crate::domain::{SessionId, UserId};

use super::apply::{Ledger, Outcome, ensure};
use super::batch::Batch;
use super::error::Conflict;
use super::tables::{FIRST, LAST};

impl Ledger<'_> {
    /// A ticket is used once: whoever comes second finds it gone.
    pub(super) fn check_sign_in(&self, batch: &Batch) -> Outcome {
        match &batch.spent {
            Some(ticket) => ensure(self.tables.tickets.get(ticket)?.is_some(), Conflict::NotFound),
            None => Ok(()),
        }
    }

    pub(super) fn write_sign_in(&mut self, batch: &Batch) -> Outcome {
        for (user, session) in &batch.ended {
            self.remove_session(*user, *session)?;
        }
        batch.spent.iter().try_for_each(|ticket| self.remove_ticket(ticket))
    }

    pub(super) fn put_session(&mut self, user: UserId, session: SessionId, hash: &[u8; 32], value: &[u8]) -> Outcome {
        self.remove_session(user, session)?;
        self.tables.sessions.insert(hash, value)?;
        self.tables.user_sessions.insert((user.as_bytes(), session.as_bytes()), hash)?;
        Ok(())
    }

    pub(super) fn remove_ticket(&mut self, hash: &[u8; 32]) -> Outcome {
        self.tables.tickets.remove(hash)?;
        Ok(())
    }

    pub(super) fn remove_sessions_of(&mut self, user: UserId) -> Outcome {
        let id = user.as_bytes();
        let mut hashes = Vec::new();
        for row in self.tables.user_sessions.range((id, FIRST)..=(id, LAST))? {
            hashes.push(*row?.1.value());
        }
        for hash in hashes {
            self.tables.sessions.remove(&hash)?;
        }
        self.tables.user_sessions.retain_in((id, FIRST)..=(id, LAST), |_, _| false)?;
        Ok(())
    }

    fn remove_session(&mut self, user: UserId, session: SessionId) -> Outcome {
        let row = (user.as_bytes(), session.as_bytes());
        let hash = self.tables.user_sessions.remove(row)?.map(|hash| *hash.value());
        if let Some(hash) = hash {
            self.tables.sessions.remove(&hash)?;
        }
        Ok(())
    }
}
