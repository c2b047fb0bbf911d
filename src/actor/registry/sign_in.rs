//! Passwords, sessions and tickets, as the registry writes them.

use crate::actor::Services;
use crate::actor::account_change::{AccountRefusal, MAX_TICKETS, SESSIONS_PER_USER, Which};
use crate::audit;
use crate::domain::{PasswordHash, SessionId, TicketId, UserId, UserStatus};
use crate::store::{Batch, Conflict, SessionRecord, StoreError, TicketRecord, UserRecord};

/// Commits a change that may use up a ticket. A ticket that is gone is told from everything else that may be missing.
pub(super) async fn commit(services: &Services, batch: Batch, spends: Option<[u8; 32]>) -> Result<(), AccountRefusal> {
    match audit::commit(&services.store, batch.spending(spends)).await {
        Err(StoreError::Rejected(Conflict::NotFound)) if spends.is_some() => Err(AccountRefusal::NoSuchTicket),
        outcome => {
            outcome?;
            services.accounts.remove_tickets(spends.as_slice());
            Ok(())
        }
    }
}

pub(super) async fn set_password(
    services: &Services,
    user: UserId,
    password: PasswordHash,
    keep: Option<SessionId>,
) -> Result<(), AccountRefusal> {
    let before = active(services, user)?;
    let after = UserRecord { password: Some(password), ..before };
    let ended: Vec<SessionId> = all_but(services, user, keep);
    audit::commit(&services.store, Batch::change_user(&after).ending(user, ended.clone())).await?;
    services.accounts.put_user(after);
    services.accounts.remove_sessions(&ended);
    Ok(())
}

pub(super) async fn open_session(
    services: &Services,
    session: SessionRecord,
    spends: Option<[u8; 32]>,
    replaces: Option<SessionId>,
) -> Result<(), AccountRefusal> {
    let (user, now) = (session.user, services.clock.now());
    active(services, user)?;
    let (mut working, ended): (Vec<SessionRecord>, Vec<SessionRecord>) =
        services.accounts.session_records_of(user).into_iter().partition(|it| it.worked_at(now));
    working.sort_by_key(|it| it.seen_at);
    let too_many = (working.len() + 1).saturating_sub(SESSIONS_PER_USER);
    let mut ended: Vec<SessionId> = ended.iter().chain(&working[..too_many]).map(|it| it.id).collect();
    ended.extend(replaces);
    commit(services, Batch::put_session(&session).ending(user, ended.clone()), spends).await?;
    services.accounts.remove_sessions(&ended);
    services.accounts.put_session(session);
    Ok(())
}

#[cfg(feature = "server")]
pub(super) async fn use_session(services: &Services, session: SessionRecord) -> Result<(), AccountRefusal> {
    // It may have ended since it was presented, and must not come back.
    if services.accounts.session_records_of(session.user).iter().all(|it| it.id != session.id) {
        return Err(AccountRefusal::NoSuchSession);
    }
    Ok(services.store.commit(Batch::put_session(&session)).await?)
}

pub(super) async fn end_sessions(services: &Services, user: UserId, which: Which) -> Result<(), AccountRefusal> {
    let ended = match which {
        Which::One(session) => {
            let known = services.accounts.session_records_of(user).iter().any(|it| it.id == session);
            if !known {
                return Err(AccountRefusal::NoSuchSession);
            }
            vec![session]
        }
        Which::AllBut(keep) => all_but(services, user, keep),
    };
    audit::commit(&services.store, Batch::end_sessions(user, ended.clone())).await?;
    services.accounts.remove_sessions(&ended);
    Ok(())
}

pub(super) async fn add_ticket(services: &Services, ticket: TicketRecord) -> Result<(), AccountRefusal> {
    let (count, expired) = services.accounts.tickets(services.clock.now());
    if !expired.is_empty() {
        services.store.commit(Batch::remove_tickets(expired.clone())).await?;
        services.accounts.remove_tickets(&expired);
    }
    if count - expired.len() >= MAX_TICKETS {
        return Err(AccountRefusal::TooManyTickets);
    }
    audit::commit(&services.store, Batch::put_ticket(&ticket)).await?;
    services.accounts.put_ticket(ticket);
    Ok(())
}

pub(super) async fn withdraw_ticket(services: &Services, id: TicketId) -> Result<(), AccountRefusal> {
    let ticket = services.accounts.ticket_by_id(id).ok_or(AccountRefusal::NoSuchTicket)?;
    audit::commit(&services.store, Batch::remove_tickets(vec![ticket.hash])).await?;
    services.accounts.remove_tickets(&[ticket.hash]);
    Ok(())
}

fn active(services: &Services, user: UserId) -> Result<UserRecord, AccountRefusal> {
    let user = services.accounts.user(user).ok_or(AccountRefusal::NoSuchUser)?;
    if user.status == UserStatus::Deleting { Err(AccountRefusal::Deleting) } else { Ok(user) }
}

fn all_but(services: &Services, user: UserId, keep: Option<SessionId>) -> Vec<SessionId> {
    let sessions = services.accounts.session_records_of(user).into_iter().map(|session| session.id);
    sessions.filter(|session| Some(*session) != keep).collect()
}
