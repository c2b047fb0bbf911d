//! Another version for an agent: tried on a copy, put in place, proven, or taken back.
//!
//! ```text
//!   RUNNING ──rehearse──► fails: nothing was changed, the reason is told
//!                │ passes
//!                └──► stop, state set aside, memory brought along, start ──usable, memory there──► done
//!                                                    │ fails once
//!                                                    └──► stop, state put back, start with what ran before
//! ```
//! Where it stands is in the agent's record, so that an upgrade goes on when the service is restarted in the middle.
//! Messages are held meanwhile, as in any restart.

mod decide;

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout, timeout_at};

use self::decide::{Next, decide, named, proven, rehearsed};
use super::ControlPlane;
use super::handle::{AgentHandle, CommandError, CommandOutcome};
use crate::actor::{Change, Rehearsal, UpgradeStep, key_of, remembered};
use crate::domain::{AgentId, Software, Status, Upgrade, UpgradeStage};
use crate::lifecycle::{Cause, Code, Command, allowed};
use crate::runtime::{ImageChoice, RuntimeError};
use crate::view::AgentView;
use crate::zeroclaw::memory::MemoryEntry;
use crate::zeroclaw::migration::{Carry, carry, untold};

/// How long a start with the new version may take in all; a usable one takes a second or two.
const START_WITHIN: Duration = Duration::from_secs(90);

/// Pause before a command is repeated that was not taken.
const COMMAND_PAUSE: Duration = Duration::from_millis(200);

/// Why no upgrade was begun.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum UpgradeError {
    /// An agent has at most one at a time.
    #[error("an upgrade of this agent is under way already")]
    UnderWay,
    /// The runtime has no images, or the agent was never created.
    #[error(
        "what this agent runs is not an image: an instance of the process runtime takes up the program that is there when it starts, so \
         restart the agent instead"
    )]
    NoImages,
    /// The image is not there or could not be fetched, or the engine does not answer.
    #[error(transparent)]
    Runtime(#[from] RuntimeError),
    /// The agent is gone, does not run, or was changed meanwhile.
    #[error(transparent)]
    Command(#[from] CommandError),
}

impl ControlPlane {
    /// Goes on with the upgrades that the service was stopped in the middle of.
    pub(super) fn resume_upgrades(&self) {
        let views = &self.shared.services.views;
        for id in views.ids() {
            if views.get(id).is_some_and(|view| view.record.upgrade.is_some()) {
                AgentHandle::new(self.clone(), id).follow_upgrade();
            }
        }
    }
}

impl AgentHandle {
    /// Begins to exchange what the agent runs for `image`, by default what new agents run. Answers as soon as that is
    /// stored; [`CommandOutcome::Unchanged`] where it runs that already.
    ///
    /// # Errors
    /// See [`UpgradeError`]; nothing was changed then.
    pub async fn upgrade(&self, image: Option<&str>) -> Result<CommandOutcome, UpgradeError> {
        let view = self.view().ok_or(CommandError::Gone)?;
        if view.record.upgrade.is_some() {
            return Err(UpgradeError::UnderWay);
        }
        if view.status() != Status::Running {
            // Only a run can prove that it was worth it.
            let allowed = allowed(&view.record.state.phase);
            return Err(CommandError::Illegal { status: view.status(), allowed }.into());
        }
        let to = self.software(image.map_or(ImageChoice::Default, ImageChoice::Named)).await?;
        let from = view.record.software.as_deref().cloned().ok_or(UpgradeError::NoImages)?;
        if to.image == from.image {
            return Ok(CommandOutcome::Unchanged);
        }
        let cause = Cause::because(Code::UpgradeRequested, format!("from {} to {}", named(&from), named(&to)));
        let since = self.plane.shared.services.clock.now();
        let stage = UpgradeStage::Rehearsing { instance: AgentId::new() };
        let upgrade = Upgrade { from, to, stage, since, remembered: None, why: None };
        let step = UpgradeStep { upgrade: Some(Arc::new(upgrade)), untold: view.record.untold, cause };
        let outcome = self.step(&view, Command::Update { inside: false }, step).await?;
        self.follow_upgrade();
        Ok(outcome)
    }

    async fn software(&self, choice: ImageChoice<'_>) -> Result<Software, UpgradeError> {
        let services = &self.plane.shared.services;
        let asked = services.runtime.software(choice, Arc::new(|text: String| tracing::info!("{text}")));
        let late = |_| RuntimeError::Unavailable("the image was not fetched in time".into());
        timeout(services.settings.limits.prepare, asked).await.map_err(late)??.ok_or(UpgradeError::NoImages)
    }

    /// Sees an upgrade of this agent to its end, in the background.
    fn follow_upgrade(&self) {
        let agent = Self::new(ControlPlane { _alive: None, ..self.plane.clone() }, self.id());
        let closing = agent.plane.shared.closing.clone();
        let tasks = agent.plane.shared.services.tasks.clone();
        tasks.spawn(closing.run_until_cancelled_owned(async move { agent.see_to_its_end().await }));
    }

    async fn see_to_its_end(&self) {
        let Some(mut changes) = self.changes() else { return };
        let mut deadline = Instant::now() + START_WITHIN;
        loop {
            let view = Arc::clone(&changes.borrow_and_update());
            let Some(upgrade) = view.record.upgrade.clone() else { return };
            let late = Instant::now() >= deadline;
            let (command, step) = match decide(&view.record, late) {
                // After a restart of the service nobody knows yet where the gateway is, which is to say what it remembers.
                Next::Rehearse(_) | Next::Prove if view.access.is_none() && !late => {
                    if matches!(timeout_at(deadline, changes.changed()).await, Ok(Err(_))) {
                        return;
                    }
                    continue;
                }
                Next::Wait => {
                    // An agent at rest has no deadline: whoever stopped it starts it again.
                    let rest = deadline.saturating_duration_since(Instant::now()).max(COMMAND_PAUSE);
                    if matches!(timeout(rest, changes.changed()).await, Ok(Err(_))) {
                        return;
                    }
                    continue;
                }
                Next::Command(command, step) => (command, step),
                Next::Rehearse(instance) => {
                    let result = self.rehearse(&view, &upgrade, instance).await;
                    deadline = Instant::now() + START_WITHIN;
                    // It may have been deleted, changed or stopped meanwhile.
                    changes.mark_changed();
                    let Some(view) = self.view() else { return };
                    rehearsed(&view.record, &upgrade, result)
                }
                Next::Prove => {
                    let remembers = self.remembers(&view).await;
                    proven(&view.record, &upgrade, remembers)
                }
            };
            let Some(view) = self.view() else { return };
            match self.step(&view, command, step).await {
                Ok(_) => {}
                Err(CommandError::Gone) => return,
                // Somebody else changed it, or the store was away: look again.
                Err(_) => sleep(COMMAND_PAUSE).await,
            }
        }
    }

    /// How many entries the gateway remembers; `None` where it cannot tell.
    async fn remembers(&self, view: &AgentView) -> Option<u64> {
        remembered(&self.plane.shared.services, view).await?.ok().map(|entries| entries.len() as u64)
    }

    /// Tries the upgrade on a copy, and leaves with the agent what its next gateway is to be told. Gives how many entries
    /// the agent remembers.
    async fn rehearse(
        &self,
        view: &Arc<AgentView>,
        upgrade: &Arc<Upgrade>,
        instance: AgentId,
    ) -> Result<Option<u64>, String> {
        let services = &self.plane.shared.services;
        let _turn = services.transfers.acquire().await.map_err(|_closed| "the service ends".to_owned())?;
        let entries = self.entries(view, upgrade).await?;
        let rehearsal = Rehearsal { view: Arc::clone(view), upgrade: Arc::clone(upgrade), instance };
        rehearsal.run(services, entries.as_deref()).await?;
        if let Some(entries) = entries.as_deref().filter(|_| is_told(view, upgrade)) {
            let waiting = [untold(entries)];
            let written = services.runtime.write_data(&key_of(&view.record), &waiting).await;
            written.map_err(|error| error.to_string())?;
        }
        Ok(entries.map(|entries| entries.len() as u64))
    }

    /// What the agent remembers. A gateway that does not tell is an obstacle only where it is all that could be carried.
    async fn entries(&self, view: &AgentView, upgrade: &Upgrade) -> Result<Option<Vec<MemoryEntry>>, String> {
        match remembered(&self.plane.shared.services, view).await {
            Some(Ok(entries)) => Ok(Some(entries)),
            Some(Err(error)) if is_told(view, upgrade) => {
                Err(format!("what the agent remembers cannot be read: {error}"))
            }
            None if is_told(view, upgrade) => Err("the agent does not run".into()),
            Some(Err(_)) | None => Ok(None),
        }
    }

    /// Commits a step of an upgrade or an import, if the agent is still as `view` shows it.
    pub(super) async fn step(
        &self,
        view: &AgentView,
        command: Command,
        step: UpgradeStep,
    ) -> Result<CommandOutcome, CommandError> {
        let record = &view.record;
        let change = Change {
            spec: Arc::clone(&record.spec),
            api_key: record.api_key.clone(),
            channels: record.channels.clone(),
            channel_kinds: record.channel_kinds.clone(),
            retired: record.retired.clone(),
            upgrade: Some(step),
        };
        self.command(command, Some(Box::new(change)), Some(record.state.generation)).await
    }
}

fn is_told(view: &AgentView, upgrade: &Upgrade) -> bool {
    carry(upgrade.from.profile, upgrade.to.profile, view.record.spec.memory_backend) == Carry::Tell
}
