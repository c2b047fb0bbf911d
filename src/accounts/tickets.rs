//! What lets somebody in once: invitations, and links that sign a person in.

use super::Accounts;
use crate::domain::{TicketId, Timestamp, Token};
use crate::store::{TicketKind, TicketRecord};

impl Accounts {
    /// The ticket with this secret, if it can still be used.
    pub(crate) fn ticket(&self, presented: &str, now: Timestamp) -> Option<TicketRecord> {
        let inner = self.read();
        inner.tickets.get(&Token::hash_of(presented)).filter(|ticket| now < ticket.expires_at).cloned()
    }

    /// Invitations that can still be used, oldest first.
    pub fn invitations(&self, now: Timestamp) -> Vec<TicketRecord> {
        let inner = self.read();
        let open = |it: &&TicketRecord| matches!(it.opens, TicketKind::Invitation { .. }) && now < it.expires_at;
        let mut found: Vec<_> = inner.tickets.values().filter(open).cloned().collect();
        found.sort_by_key(|ticket| ticket.id);
        found
    }

    pub(crate) fn ticket_by_id(&self, id: TicketId) -> Option<TicketRecord> {
        self.read().tickets.values().find(|ticket| ticket.id == id).cloned()
    }

    /// How many there are, and those of them that can no longer be used.
    pub(crate) fn tickets(&self, now: Timestamp) -> (usize, Vec<[u8; 32]>) {
        let inner = self.read();
        let expired = inner.tickets.values().filter(|it| it.expires_at <= now).map(|it| it.hash).collect();
        (inner.tickets.len(), expired)
    }

    pub(crate) fn put_ticket(&self, ticket: TicketRecord) {
        self.write().tickets.insert(ticket.hash, ticket);
    }

    pub(crate) fn remove_tickets(&self, hashes: &[[u8; 32]]) {
        self.write().tickets.retain(|hash, _| !hashes.contains(hash));
    }
}
