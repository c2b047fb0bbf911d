//! The way into an installation: a user `admin` and a key that may do everything.
//!
//! The rule is not "at the first start" but "whenever no key is left that may administer": so a crash between any two
//! steps heals at the next start, and whoever has the data folder is never locked out.

use std::path::{Path, PathBuf};

use anyhow::Context as _;

use super::private_file;
use crate::control::{ControlPlane, NewKey, NewUser};
use crate::domain::{ApiKey, Plan, Scope, Scopes, Timestamp, UserStatus};

const EMAIL: &str = "admin@localhost";

/// A key that was made just now.
pub(super) struct AdminKey {
    pub(super) key: ApiKey,
    /// The file that has it too.
    pub(super) path: PathBuf,
}

/// Makes a key for the admin if there is none that works. This is the only time it is seen.
pub(super) async fn ensure_admin(plane: &ControlPlane, data: &Path) -> anyhow::Result<Option<AdminKey>> {
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
    // The file comes first: a key in the store that nobody has would be no way in.
    let (key, path) = (ApiKey::generate(), data.join("admin.key"));
    private_file::write(&path, &format!("{}\n", key.expose()))
        .with_context(|| format!("cannot write {}", path.display()))?;
    let new = NewKey { name: Some("first start".into()), ..NewKey::new(Scopes::all()) };
    plane.add_key(user.id, &key, new).await.context("cannot store the admin's key")?;
    Ok(Some(AdminKey { key, path }))
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
