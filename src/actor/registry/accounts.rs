//! Changes of users, keys, sessions and tickets. They run one after the other in the registry, so that what is checked here still holds when
//! it is written.

use std::collections::HashSet;

use super::sign_in;
use crate::actor::Services;
use crate::actor::account_change::{AccountChange, AccountRefusal, KEYS_PER_USER, UserChange};
use crate::audit;
use crate::domain::{KeyId, UserId, UserStatus};
use crate::store::{Batch, KeyRecord, UserRecord};

pub(super) async fn apply(services: &Services, change: AccountChange) -> Result<(), AccountRefusal> {
    match change {
        AccountChange::CreateUser { user, spends } => {
            if services.accounts.user_by_email(&user.email).is_some() {
                return Err(AccountRefusal::EmailTaken);
            }
            sign_in::commit(services, Batch::put_user(&user), spends).await?;
            services.accounts.put_user(*user);
            Ok(())
        }
        AccountChange::ChangeUser { user, change } => change_user(services, user, change).await,
        AccountChange::RemoveUser(user) => {
            keep_an_administrator(services, &HashSet::new(), Some(user))?;
            audit::commit(&services.store, Batch::remove_user(user)).await?;
            services.accounts.remove_user(user);
            Ok(())
        }
        AccountChange::AddKey(key) => add_key(services, *key).await,
        AccountChange::RevokeKey { user, key } => revoke_key(services, user, key).await,
        AccountChange::SetPassword { user, password, keep } => {
            sign_in::set_password(services, user, password, keep).await
        }
        AccountChange::OpenSession { session, spends, replaces } => {
            sign_in::open_session(services, *session, spends, replaces).await
        }
        #[cfg(feature = "server")]
        AccountChange::UseSession(session) => sign_in::use_session(services, *session).await,
        AccountChange::EndSessions { user, which } => sign_in::end_sessions(services, user, which).await,
        AccountChange::AddTicket(ticket) => sign_in::add_ticket(services, *ticket).await,
        AccountChange::WithdrawTicket(ticket) => sign_in::withdraw_ticket(services, ticket).await,
    }
}

async fn change_user(services: &Services, user: UserId, change: UserChange) -> Result<(), AccountRefusal> {
    let before = services.accounts.user(user).ok_or(AccountRefusal::NoSuchUser)?;
    if before.status == UserStatus::Deleting {
        return Err(AccountRefusal::Deleting);
    }
    let plan = change.plan.unwrap_or(before.plan);
    let limits = change.limits.unwrap_or(before.limits.filter(|_| plan == before.plan));
    let status = change.status.unwrap_or(before.status);
    let administrator = change.administrator.unwrap_or(before.administrator);
    if status != UserStatus::Active && before.status == UserStatus::Active {
        keep_an_administrator(services, &HashSet::new(), Some(user))?;
    }
    let demoted = before.administrator && !administrator;
    if demoted && !services.accounts.has_administrator_beside(services.clock.now(), user) {
        return Err(AccountRefusal::LastAdministrator);
    }
    let identity = change.identity.or(before.identity);
    let after = UserRecord { plan, limits, status, administrator, identity, ..before };
    audit::commit(&services.store, Batch::change_user(&after)).await?;
    services.accounts.put_user(after);
    Ok(())
}

async fn add_key(services: &Services, key: KeyRecord) -> Result<(), AccountRefusal> {
    let owner = services.accounts.user(key.user).ok_or(AccountRefusal::NoSuchUser)?;
    if owner.status == UserStatus::Deleting {
        return Err(AccountRefusal::Deleting);
    }
    // The key that makes this one may have been revoked since it was presented.
    if key.parent.is_some_and(|parent| services.accounts.tree_of(parent).is_empty()) {
        return Err(AccountRefusal::NoSuchKey);
    }
    let now = services.clock.now();
    let keys = services.accounts.keys_of(key.user);
    let expired: Vec<KeyId> = keys.iter().filter(|(key, _)| !key.works_at(now)).map(|(key, _)| key.id).collect();
    if keys.len() - expired.len() >= KEYS_PER_USER {
        return Err(AccountRefusal::TooManyKeys);
    }
    if keys.len() >= KEYS_PER_USER {
        // Those that expired are kept for their owner to see, as long as there is room.
        services.store.commit(Batch::remove_keys(key.user, expired.clone())).await?;
        services.accounts.remove_keys(&expired);
    }
    audit::commit(&services.store, Batch::put_key(&key)).await?;
    services.accounts.put_key(key);
    Ok(())
}

async fn revoke_key(services: &Services, user: UserId, key: KeyId) -> Result<(), AccountRefusal> {
    let tree = services.accounts.tree_of(key);
    if tree.last().is_none_or(|root| root.user != user) {
        return Err(AccountRefusal::NoSuchKey);
    }
    let ids: HashSet<KeyId> = tree.iter().map(|key| key.id).collect();
    keep_an_administrator(services, &ids, None)?;
    // Descendants come first: whatever is cut off in between, the key that is left can be revoked again.
    let mut rest = tree.as_slice();
    while let Some(first) = rest.first() {
        let length = rest.iter().take_while(|key| key.user == first.user).count();
        let ids: Vec<KeyId> = rest[..length].iter().map(|key| key.id).collect();
        audit::commit(&services.store, Batch::remove_keys(first.user, ids.clone())).await?;
        services.accounts.remove_keys(&ids);
        rest = &rest[length..];
    }
    Ok(())
}

/// Refuses what would leave the service without a key that may administer it. A service that has none is left alone.
fn keep_an_administrator(
    services: &Services,
    keys: &HashSet<KeyId>,
    user: Option<UserId>,
) -> Result<(), AccountRefusal> {
    let now = services.clock.now();
    let (before, after) = (
        services.accounts.has_administrator(now, &HashSet::new(), None),
        services.accounts.has_administrator(now, keys, user),
    );
    if before && !after { Err(AccountRefusal::LastAdministrator) } else { Ok(()) }
}
