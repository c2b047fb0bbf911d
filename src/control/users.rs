//! Makes agents follow their user's status: those of a suspended user stop, those of a deleted user go.
//!
//! Level-triggered: the status is stored first, and each pass compares it with the agents that there are. So a service
//! that is killed in the middle goes on at its next start.

use std::time::Duration;

use tokio::time::sleep;

use super::ControlPlane;
use crate::domain::{Status, UserId, UserStatus};

/// Pause between two passes while agents are still stopping or going.
const PAUSE: Duration = Duration::from_secs(1);
/// Agents that are asked in one pass, so that one user's thousands do not fill the actors' queues.
const AGENTS_PER_PASS: usize = 100;

/// Runs until the control plane closes.
pub fn spawn(plane: ControlPlane) {
    let tasks = plane.shared.services.tasks.clone();
    tasks.spawn(async move {
        let closing = plane.shared.closing.clone();
        let passes = async {
            loop {
                let changed = plane.accounts().status_changed.notified();
                if settle(&plane).await {
                    changed.await;
                } else {
                    sleep(PAUSE).await;
                }
            }
        };
        tokio::select! {
            biased;
            () = closing.cancelled() => {}
            () = passes => {}
        }
    });
}

/// One pass; whether nothing is left to do.
async fn settle(plane: &ControlPlane) -> bool {
    let mut settled = true;
    for user in plane.accounts().users() {
        settled &= match user.status {
            UserStatus::Active => true,
            UserStatus::Suspended => stop_agents(plane, user.id).await,
            UserStatus::Deleting => delete_agents(plane, user.id).await,
        };
    }
    settled
}

async fn stop_agents(plane: &ControlPlane, user: UserId) -> bool {
    let running = [Status::Pending, Status::Starting, Status::Running, Status::Stopping, Status::Error];
    let page = plane.agents(Some(user), None, AGENTS_PER_PASS, &running);
    for view in &page.agents {
        if let Some(agent) = plane.agent(view.record.id)
            && let Err(error) = agent.stop().await
        {
            tracing::debug!(agent = %view.record.id, %error, "an agent of a suspended user does not stop yet");
        }
    }
    page.agents.is_empty()
}

async fn delete_agents(plane: &ControlPlane, user: UserId) -> bool {
    let page = plane.agents(Some(user), None, AGENTS_PER_PASS, &[]);
    for view in &page.agents {
        if let Some(agent) = plane.agent(view.record.id)
            && let Err(error) = agent.delete().await
        {
            tracing::debug!(agent = %view.record.id, %error, "an agent of a deleted user does not go yet");
        }
    }
    if !page.agents.is_empty() {
        return false;
    }
    match plane.remove_user(user).await {
        Ok(()) => {
            tracing::info!(%user, "deleted the user");
            true
        }
        Err(error) => {
            tracing::warn!(%user, %error, "the user cannot be deleted yet");
            false
        }
    }
}
