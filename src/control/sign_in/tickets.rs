//! What lets somebody in once: invitations and links.

use std::time::Duration;

use super::SignInError;
use crate::actor::{AccountChange, AccountRefusal};
use crate::control::{AccountError, ControlPlane};
use crate::domain::{Plan, Secret, TicketId, Timestamp, Token, UserId, later};
use crate::store::{TicketKind, TicketRecord};

impl ControlPlane {
    /// What invites somebody to make an account on this plan; for one address alone, if it is given.
    ///
    /// # Errors
    /// [`AccountRefusal::TooManyTickets`], or the store's.
    pub async fn invite(
        &self,
        email: Option<String>,
        plan: Plan,
        expires_at: Timestamp,
    ) -> Result<(TicketRecord, Token), AccountError> {
        self.add_ticket(TicketKind::Invitation { email, plan }, expires_at).await
    }

    /// What signs a user in once, without a password.
    ///
    /// # Errors
    /// [`AccountRefusal::TooManyTickets`], or the store's.
    pub async fn sign_in_link(&self, user: UserId, within: Duration) -> Result<(TicketRecord, Token), AccountError> {
        self.accounts().user(user).ok_or(AccountRefusal::NoSuchUser)?;
        self.add_ticket(TicketKind::SignIn { user }, later(self.now(), within)).await
    }

    /// Makes an invitation or a link worthless before it is used.
    ///
    /// # Errors
    /// [`AccountRefusal::NoSuchTicket`], or the store's.
    pub async fn withdraw_invitation(&self, ticket: TicketId) -> Result<(), AccountError> {
        self.change_account(AccountChange::WithdrawTicket(ticket)).await
    }

    /// What an invitation gives, to whoever may use it.
    pub(super) fn invitation(&self, secret: &Secret<String>, address: &str) -> Result<([u8; 32], Plan), SignInError> {
        let ticket = self.accounts().ticket(secret.expose(), self.now()).ok_or(SignInError::NoTicket)?;
        match ticket.opens {
            TicketKind::Invitation { email, plan } if email.as_ref().is_none_or(|email| email == address) => {
                Ok((ticket.hash, plan))
            }
            TicketKind::Invitation { .. } | TicketKind::SignIn { .. } => Err(SignInError::NoTicket),
        }
    }

    async fn add_ticket(
        &self,
        opens: TicketKind,
        expires_at: Timestamp,
    ) -> Result<(TicketRecord, Token), AccountError> {
        let token = Token::generate_in(Token::TICKET, self.cell());
        let id = TicketId::new().in_cell(self.cell());
        let ticket = TicketRecord { id, hash: token.hash(), opens, created_at: self.now(), expires_at };
        self.change_account(AccountChange::AddTicket(Box::new(ticket.clone()))).await?;
        Ok((ticket, token))
    }
}

/// A ticket that somebody else has used in the same moment.
pub(super) fn unless_ticket(error: AccountError) -> SignInError {
    match error {
        AccountError::Refused(AccountRefusal::NoSuchTicket) => SignInError::NoTicket,
        error => error.into(),
    }
}
