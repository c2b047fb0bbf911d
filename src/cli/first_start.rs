//! The way into an installation: a user `admin` and a key that may do everything.
//!
//! The rule is not "at the first start" but "whenever no key is left that may administer": so a crash between any two
//! steps heals at the next start, and whoever has the data folder is never locked out.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;

use super::private_file;
use crate::control::{ControlPlane, NewKey, NewUser, UserChange};
use crate::domain::{ApiKey, Plan, Scope, Scopes, Timestamp, Token, UserStatus};

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
    let (key, path) = (ApiKey::generate(), data.join("admin.key"));
    private_file::write(&path, &format!("{}\n", key.expose()))
        .with_context(|| format!("cannot write {}", path.display()))?;
    let new = NewKey { name: Some("first start".into()), ..NewKey::new(Scopes::all()) };
    plane.add_key(user.id, &key, new).await.context("cannot store the admin's key")?;
    let (_, link) = plane.sign_in_link(user.id, LINK).await.context("cannot make a link for the admin")?;
    Ok(Some(AdminKey { key, path, link }))
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
