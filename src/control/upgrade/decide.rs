//! What is to be done next about an upgrade. Pure.

use std::sync::Arc;

use crate::actor::UpgradeStep;
use crate::domain::{AgentId, Software, Upgrade, UpgradeStage};
use crate::lifecycle::{Cause, Code, Command, Phase};
use crate::store::AgentRecord;
use crate::zeroclaw::migration::{Carry, carry, is_whole};

pub(super) enum Next {
    Wait,
    /// Try it in this instance, then [`rehearsed`].
    Rehearse(AgentId),
    /// Ask the gateway what it remembers, then [`proven`].
    Prove,
    Command(Command, UpgradeStep),
}

/// The command and the step that follow from what was found out.
type Step = (Command, UpgradeStep);

/// `late`: the new version had its time.
pub(super) fn decide(record: &AgentRecord, late: bool) -> Next {
    let Some(upgrade) = &record.upgrade else { return Next::Wait };
    let state = &record.state;
    let wanted = upgrade.wanted();
    let runs_it = record.software.as_deref() == Some(wanted);
    match (upgrade.stage, &state.phase) {
        (UpgradeStage::Rehearsing { instance }, Phase::Running { .. }) => Next::Rehearse(instance),
        // Nothing was changed yet: an agent that has troubles of its own is left alone with them.
        (UpgradeStage::Rehearsing { .. }, Phase::Stopped | Phase::Failed { .. }) => {
            let (command, step) = rehearsed(record, upgrade, Err("the agent does not run any more".into()));
            Next::Command(command, step)
        }
        (UpgradeStage::Forward, Phase::Running { .. }) if runs_it => Next::Prove,
        (UpgradeStage::Back, Phase::Running { .. }) if runs_it => {
            let why = upgrade.why.as_deref().unwrap_or("the new version did not start");
            let cause = Cause::because(Code::RolledBack, format!("to {}: {why}", named(wanted)));
            let step = UpgradeStep { upgrade: None, untold: false, cause };
            Next::Command(Command::Update { inside: false }, step)
        }
        (UpgradeStage::Forward, Phase::Starting { .. } | Phase::Failed { .. } | Phase::Running { .. }) => {
            let given_up = matches!(state.phase, Phase::Failed { .. });
            let why = match state.reason.as_ref().filter(|cause| is_failure(cause.code)) {
                Some(cause) => cause.message(),
                None if late || given_up => "the new version did not become usable in time".into(),
                None => return Next::Wait,
            };
            let (command, step) = back(record, upgrade, &why);
            Next::Command(command, step)
        }
        (UpgradeStage::Rehearsing { .. }, Phase::Pending | Phase::Starting { .. } | Phase::Stopping { .. })
        | (UpgradeStage::Forward, Phase::Pending | Phase::Stopping { .. } | Phase::Stopped)
        | (
            UpgradeStage::Back,
            Phase::Pending
            | Phase::Starting { .. }
            | Phase::Running { .. }
            | Phase::Stopping { .. }
            | Phase::Stopped
            | Phase::Failed { .. },
        ) => Next::Wait,
    }
}

/// After a rehearsal: on with it, or the end of it with nothing changed.
pub(super) fn rehearsed(record: &AgentRecord, upgrade: &Upgrade, result: Result<Option<u64>, String>) -> Step {
    match result {
        Ok(remembered) => {
            let cause = Cause::because(Code::UpgradeStarted, format!("{} passed its rehearsal", named(&upgrade.to)));
            let (from, to) = (upgrade.from.profile, upgrade.to.profile);
            let untold = carry(from, to, record.spec.memory_backend) == Carry::Tell;
            let forward = Upgrade { stage: UpgradeStage::Forward, remembered, ..upgrade.clone() };
            let step = UpgradeStep { upgrade: Some(Arc::new(forward)), untold, cause };
            (Command::Update { inside: true }, step)
        }
        Err(why) => {
            let cause = Cause::because(Code::UpgradeRefused, format!("{}: {why}", named(&upgrade.to)));
            let step = UpgradeStep { upgrade: None, untold: record.untold, cause };
            (Command::Update { inside: false }, step)
        }
    }
}

/// The new version runs: it is kept if it has the memory. One that cannot tell is taken at its word.
pub(super) fn proven(record: &AgentRecord, upgrade: &Upgrade, remembers: Option<u64>) -> Step {
    if let Some((before, after)) = upgrade.remembered.zip(remembers)
        && !is_whole(before, after)
    {
        return back(record, upgrade, &format!("of {before} entries of memory it finds {after}"));
    }
    let cause = Cause::because(Code::Upgraded, format!("to {}", named(&upgrade.to)));
    (Command::Update { inside: false }, UpgradeStep { upgrade: None, untold: false, cause })
}

fn back(record: &AgentRecord, upgrade: &Upgrade, why: &str) -> Step {
    let cause = Cause::because(Code::UpgradeFailed, format!("{}: {why}", named(&upgrade.to)));
    let back = Upgrade { stage: UpgradeStage::Back, why: Some(why.into()), ..upgrade.clone() };
    let step = UpgradeStep { upgrade: Some(Arc::new(back)), untold: false, cause };
    let given_up = matches!(record.state.phase, Phase::Failed { .. });
    (if given_up { Command::Start } else { Command::Update { inside: true } }, step)
}

/// Whether a start with this reason has failed, for a cause that the new version may have.
const fn is_failure(code: Code) -> bool {
    !matches!(
        code,
        Code::UpgradeRequested
            | Code::UpgradeStarted
            | Code::SpecChanged
            | Code::RuntimeUnavailable
            | Code::RuntimeRefuses
            | Code::PortTaken
            | Code::RestartRequested
            | Code::StartRequested
            | Code::StopRequested
            | Code::Stopped
    )
}

/// An image for people.
pub(super) fn named(software: &Software) -> String {
    let image = software.image.as_ref().map_or("what it runs", |image| image.name.as_str());
    match &software.version {
        Some(version) => format!("{image} (ZeroClaw {version})"),
        None => image.to_owned(),
    }
}
