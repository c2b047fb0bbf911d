//! What systemd hears of the service: that it is ready, that it lives, that it stops. Elsewhere nothing happens.
//!
//! The protocol's variables belong to the process and to nobody else, so the library reads them itself.

use std::time::Duration;

use sd_notify::NotifyState;
use tokio_util::sync::CancellationToken;

use super::Environment;
use super::client::variable;
use crate::control::ControlPlane;
use crate::domain::UserId;

/// A sign of life comes three times in the time that systemd waits for one.
const SIGNS: u32 = 3;

/// The port is open and all agents are known.
pub(super) fn ready(url: &str) {
    tell(&[NotifyState::Ready, NotifyState::Status(&format!("listening on {url}"))]);
}

pub(super) fn stopping() {
    tell(&[NotifyState::Stopping, NotifyState::Status("finishing requests; agents run on")]);
}

/// Gives signs of life as long as the actors answer. A disk that is full is no reason to restart: that would not help.
pub(super) fn keep_alive(plane: ControlPlane, closing: CancellationToken) {
    let Some(within) = sd_notify::watchdog_enabled() else { return };
    let every = (within / SIGNS).max(Duration::from_millis(10));
    tokio::spawn(async move {
        while !closing.is_cancelled() {
            // Any question to the registry would do.
            match tokio::time::timeout(every, plane.used(UserId::from_bytes([0; 16]))).await {
                Ok(Ok(_)) => tell(&[NotifyState::Watchdog]),
                _ => tracing::error!("the actors do not answer: no sign of life for the watchdog"),
            }
            tokio::select! {
                () = tokio::time::sleep(every) => {}
                () = closing.cancelled() => {}
            }
        }
    });
}

fn tell(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::warn!(%error, "the service manager cannot be told");
    }
}

/// Whether what is printed goes into the system's journal, which keeps it for a long time. The variable tells which stream the
/// journal reads; a program whose output was sent elsewhere has it all the same.
pub(super) fn output_is_kept(environment: &Environment) -> bool {
    let Some(stream) = variable(environment, "JOURNAL_STREAM") else { return false };
    rustix::fs::fstat(std::io::stdout()).is_ok_and(|found| stream == format!("{}:{}", found.st_dev, found.st_ino))
}
