//! The way into an installation: a user `admin` and a key that may do everything.
//!
//! The rule is not "at the first start" but "whenever no key is left that may administer": so a crash between any two
//! steps heals at the next start, and whoever has the data folder is never locked out.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;

use super::private_file;
use crate::control::{ControlPlane, NewKey, NewUser, UserChange};
use crate::domain::{ApiKey, Cell, Plan, Scope, Scopes, Timestamp, Token, UserStatus};
use crate::store::{KeyRecord, UserRecord};

const EMAIL: &str = "admin@localhost";

/// How long the admin's first link is good for.
const LINK: Duration = Duration::from_secs(24 * 60 * 60);

/// A key that was made just now.
pub(super) struct AdminKey {
    pub(super) key: ApiKey,
    /// The file that has it too.
    pub(super) path: PathBuf,
    /// Signs the admin in once, in a browser.
    pub(super) link: Token,
}

/// Makes a key for the admin if there is none that works. This is the only time it is seen.
pub(super) async fn ensure_admin(plane: &ControlPlane, data: &Path) -> anyhow::Result<Option<AdminKey>> {
    appoint(plane).await?;
    if has_admin_key(plane, plane.now()) {
        return Ok(None);
    }
    let user = match plane.accounts().user_by_email(EMAIL) {
        Some(user) => user,
        None => plane
            .create_user(NewUser { email: EMAIL.into(), plan: Plan::Enterprise, limits: None })
            .await
            .context("cannot create the user admin")?,
    };
    let change = UserChange { administrator: Some(true), ..UserChange::default() };
    let user = plane.change_user(user.id, change).await.context("cannot make the user admin an administrator")?;
    // The file comes first: a key in the store that nobody has would be no way in.
    let (key, path) = (ApiKey::generate_in(plane.cell()), data.join("admin.key"));
    private_file::write(&path, &format!("{}\n", key.expose()))
        .with_context(|| format!("cannot write {}", path.display()))?;
    let new = NewKey { name: Some("first start".into()), ..NewKey::new(Scopes::all()) };
    plane.add_key(user.id, &key, new).await.context("cannot store the admin's key")?;
    let (_, link) = plane.sign_in_link(user.id, LINK).await.context("cannot make a link for the admin")?;
    Ok(Some(AdminKey { key, path, link }))
}

/// What the operator's key is called among the admin's keys.
const OPERATOR: &str = "cell.operator_key_file";

/// Gives the operator's key, which is the same in all cells, to an administrator, and takes those away that it replaces.
pub(super) async fn ensure_operator(plane: &ControlPlane, key: Option<&ApiKey>) -> anyhow::Result<()> {
    let users = plane.accounts().users();
    let keys: Vec<_> = users.iter().flat_map(|user| plane.accounts().keys_of(user.id)).map(|(key, _)| key).collect();
    let is_it = |record: &KeyRecord| key.is_some_and(|key| key.hash() == record.hash);
    if let Some(key) = key.filter(|_| !keys.iter().any(is_it)) {
        let administrators = || users.iter().filter(|user| user.administrator);
        let first = administrators().find(|user| user.email == EMAIL).or_else(|| administrators().next());
        let user = first.context("there is no administrator who could have the operator's key")?;
        let new = NewKey { name: Some(OPERATOR.into()), ..NewKey::new(Scopes::all()) };
        plane.add_key(user.id, key, new).await.context("cannot store the operator's key")?;
    }
    for former in keys.iter().filter(|record| record.name.as_deref() == Some(OPERATOR) && !is_it(record)) {
        plane.remove_key(former.user, former.id).await.context("cannot revoke the operator's former key")?;
    }
    Ok(())
}

/// A data folder stays the cell that it was: keys and ids that it gave out have the number.
pub(super) fn check_cell(plane: &ControlPlane) -> anyhow::Result<()> {
    let Some(cell) = plane.cell() else { return Ok(()) };
    let users = plane.accounts().users();
    let made_in = |user: &UserRecord| user.id.cell().unwrap_or(Cell::FIRST);
    match users.iter().map(made_in).find(|other| *other != cell) {
        Some(other) => anyhow::bail!("cell.number is {cell}, but this data folder is that of cell {other}"),
        None => Ok(()),
    }
}

/// The user admin of a service from before there were administrators.
async fn appoint(plane: &ControlPlane) -> anyhow::Result<()> {
    if plane.accounts().users().iter().any(|user| user.administrator) {
        return Ok(());
    }
    if let Some(user) = plane.accounts().user_by_email(EMAIL).filter(|user| user.status == UserStatus::Active) {
        let change = UserChange { administrator: Some(true), ..UserChange::default() };
        plane.change_user(user.id, change).await.context("cannot make the user admin an administrator")?;
    }
    Ok(())
}

fn has_admin_key(plane: &ControlPlane, now: Timestamp) -> bool {
    plane
        .accounts()
        .users()
        .iter()
        .filter(|user| user.status == UserStatus::Active)
        .flat_map(|user| plane.accounts().keys_of(user.id))
        .any(|(key, _)| key.scopes.contains(Scope::Admin) && key.works_at(now))
}
