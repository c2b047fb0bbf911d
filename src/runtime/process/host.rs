//! What all instances of a runtime share.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::PathBuf;
use std::sync::Mutex;

use tokio::sync::broadcast;

use super::cgroup::Cgroups;
use super::folder::Folder;
use super::launch::Program;
use super::output_watch::OutputWatch;
use super::users::Users;
use crate::domain::InstallationId;
use crate::runtime::Resync;

#[derive(Debug)]
pub(super) struct Host {
    pub(super) installation: InstallationId,
    /// The agents' folder.
    pub(super) root: PathBuf,
    pub(super) program: Program,
    pub(super) log_limit: u64,
    pub(super) kernel_boot: String,
    pub(super) changes: broadcast::Sender<Resync>,
    pub(super) output_watch: OutputWatch,
    pub(super) launching: Mutex<()>,
    /// Agents are users of their own.
    pub(super) users: Option<Users>,
    pub(super) cgroups: Option<Cgroups>,
}

impl Host {
    /// Makes the agents' folder ready, and learns which agent has which uid.
    pub(super) fn open_root(&self) -> io::Result<()> {
        DirBuilder::new().recursive(true).mode(0o700).create(&self.root)?;
        if let Some(users) = &self.users {
            // Agents get through it to their own folders, and cannot list it.
            fs::set_permissions(&self.root, fs::Permissions::from_mode(0o711))?;
            for agent in Folder::agents(&self.root)? {
                if let Ok(owner) = Folder::of(&self.root, agent).owner() {
                    users.learn(agent, owner);
                }
            }
        }
        Folder::sweep(&self.root)
    }
}
