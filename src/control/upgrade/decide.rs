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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{AgentSpec, ImageRef, Profile, Provider, RunId, Slug, Timestamp, UserId};
    use crate::lifecycle::{AfterStop, RetryTarget, Step as StartStep};

    const AT: Timestamp = Timestamp::UNIX_EPOCH;
    const REHEARSING: UpgradeStage = UpgradeStage::Rehearsing { instance: AgentId::from_bytes([7; 16]) };

    fn software(name: &str) -> Software {
        Software::new(Profile::V01).with_image(ImageRef { name: name.into(), id: format!("id-of-{name}") })
    }

    /// An agent whose upgrade from `old` to `new` is in this stage, and which runs this image.
    fn record(stage: UpgradeStage, phase: Phase, runs: &str, reason: Option<Code>) -> AgentRecord {
        let (from, to) = (software("old"), software("new"));
        let upgrade = Upgrade { from, to, stage, since: AT, remembered: Some(5), why: None };
        let spec = Arc::new(AgentSpec::new("Ada", Provider::Openai, "m"));
        let id = AgentId::from_bytes([1; 16]);
        let mut record = AgentRecord::new(id, UserId::from_bytes([2; 16]), Slug::suggest("ada"), AT, spec);
        record.upgrade = Some(Arc::new(upgrade));
        record.software = Some(Arc::new(software(runs)));
        (record.state.phase, record.state.reason) = (phase, reason.map(Cause::new));
        record
    }

    fn said((command, step): Step) -> String {
        let stage = step.upgrade.map_or("over", |upgrade| upgrade.stage.as_str());
        format!("{command:?}, {}, {stage}", step.cause.code.as_str())
    }

    fn next(record: &AgentRecord, late: bool) -> String {
        match decide(record, late) {
            Next::Wait => "wait".into(),
            Next::Rehearse(_) => "rehearse".into(),
            Next::Prove => "prove".into(),
            Next::Command(command, step) => said((command, step)),
        }
    }

    #[test]
    fn each_stage_goes_on_when_the_agent_is_ready_for_it() {
        use UpgradeStage::{Back, Forward};
        const REFUSED: &str = "Update { inside: false }, upgrade-refused, over";
        const BACK: &str = "Update { inside: true }, upgrade-failed, back";
        const BACK_FROM_ERROR: &str = "Start, upgrade-failed, back";
        const ROLLED_BACK: &str = "Update { inside: false }, rolled-back, over";
        let running = || Phase::Running { run_id: RunId("r".into()), misses: 0 };
        let starting = || Phase::Starting { step: StartStep::Creating, stage: true, rebinds: 0, away_since: None };
        let stopping = || Phase::Stopping { then: AfterStop::Restart, since: AT, retry_at: None };
        let failed = || Phase::Failed { resume: RetryTarget::Start, retry_at: None };
        // Stage, phase, what it runs, its reason; what follows in time, and what follows late.
        let cases = [
            (REHEARSING, running(), "old", None, "rehearse", "rehearse"),
            (REHEARSING, Phase::Stopped, "old", None, REFUSED, REFUSED),
            (REHEARSING, failed(), "old", None, REFUSED, REFUSED),
            (REHEARSING, Phase::Pending, "old", None, "wait", "wait"),
            (REHEARSING, starting(), "old", Some(Code::Exited), "wait", "wait"),
            (REHEARSING, stopping(), "old", None, "wait", "wait"),
            (Forward, running(), "new", None, "prove", "prove"),
            (Forward, running(), "old", Some(Code::UpgradeStarted), "wait", BACK),
            (Forward, starting(), "old", Some(Code::UpgradeStarted), "wait", BACK),
            (Forward, starting(), "new", None, "wait", BACK),
            (Forward, starting(), "new", Some(Code::RuntimeUnavailable), "wait", BACK),
            (Forward, starting(), "new", Some(Code::PortTaken), "wait", BACK),
            (Forward, starting(), "new", Some(Code::Exited), BACK, BACK),
            (Forward, starting(), "new", Some(Code::Unusable), BACK, BACK),
            (Forward, failed(), "new", Some(Code::CrashLoop), BACK_FROM_ERROR, BACK_FROM_ERROR),
            (Forward, failed(), "new", Some(Code::StartRequested), BACK_FROM_ERROR, BACK_FROM_ERROR),
            (Forward, Phase::Stopped, "new", Some(Code::Exited), "wait", "wait"),
            (Forward, Phase::Pending, "new", None, "wait", "wait"),
            (Forward, stopping(), "new", None, "wait", "wait"),
            (Back, running(), "old", None, ROLLED_BACK, ROLLED_BACK),
            (Back, running(), "new", None, "wait", "wait"),
            (Back, starting(), "old", Some(Code::Exited), "wait", "wait"),
            (Back, failed(), "old", Some(Code::CrashLoop), "wait", "wait"),
        ];
        for (stage, phase, runs, reason, in_time, late) in cases {
            let record = record(stage, phase, runs, reason);
            let case = format!("{} {:?}, runs {runs}, {reason:?}", stage.as_str(), record.state.phase);
            assert_eq!((next(&record, false).as_str(), next(&record, true).as_str()), (in_time, late), "{case}");
        }
        let none = AgentRecord { upgrade: None, ..record(Forward, running(), "new", None) };
        assert_eq!(next(&none, true), "wait");
    }

    #[test]
    fn version_is_kept_if_it_finds_the_memory_or_cannot_tell() {
        let running = Phase::Running { run_id: RunId("r".into()), misses: 0 };
        let record = record(UpgradeStage::Forward, running, "new", None);
        let upgrade = record.upgrade.clone().unwrap();
        let unknown = Upgrade { remembered: None, ..Upgrade::clone(&upgrade) };
        for (upgrade, remembers, kept) in [
            (&*upgrade, Some(5), true),
            (&*upgrade, None, true),
            (&unknown, Some(0), true),
            (&*upgrade, Some(0), false),
        ] {
            let (_, step) = proven(&record, upgrade, remembers);
            let code = if kept { Code::Upgraded } else { Code::UpgradeFailed };
            assert_eq!((step.cause.code, step.upgrade.is_none()), (code, kept), "{remembers:?}");
        }
    }
}
