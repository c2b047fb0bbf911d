//! Which command is followed in which phase: one table.

use super::event::Command;
use super::phase::{AfterStop, Phase, RetryTarget};

/// Whether a command may do something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Admission {
    /// It changes something.
    Accept,
    /// It is so already, or on its way there.
    NoOp,
    /// Not now; [`allowed`] says what is.
    Deny,
}

/// What this command may do in this phase.
pub const fn admit(phase: &Phase, command: Command) -> Admission {
    use Admission::{Accept, Deny, NoOp};
    match (phase, command) {
        // Deletion cannot be called back; asking for it again hurries a failed one.
        (Phase::Stopping { then: AfterStop::Delete, .. }, Command::Delete) => NoOp,
        (
            Phase::Stopping { then: AfterStop::Delete, .. } | Phase::Failed { resume: RetryTarget::Delete, .. },
            Command::Start | Command::Stop | Command::Restart | Command::Update { .. },
        ) => Deny,
        (_, Command::Delete) => Accept,

        (_, Command::Update { .. }) => Accept,

        (Phase::Pending | Phase::Starting { .. } | Phase::Running { .. }, Command::Start) => NoOp,
        (Phase::Stopping { then: AfterStop::Restart, .. }, Command::Start) => NoOp,
        (Phase::Stopping { then: AfterStop::Stay, .. }, Command::Start | Command::Restart) => Deny,
        (Phase::Stopped | Phase::Failed { .. }, Command::Start | Command::Restart) => Accept,

        // Also where it starts anyway: whoever asks for a restart wants another token.
        (
            Phase::Pending
            | Phase::Starting { .. }
            | Phase::Running { .. }
            | Phase::Stopping { then: AfterStop::Restart, .. },
            Command::Restart,
        ) => Accept,

        (Phase::Stopping { then: AfterStop::Stay, .. } | Phase::Stopped, Command::Stop) => NoOp,
        (
            Phase::Pending
            | Phase::Starting { .. }
            | Phase::Running { .. }
            | Phase::Stopping { then: AfterStop::Restart, .. }
            | Phase::Failed { .. },
            Command::Stop,
        ) => Accept,
    }
}

/// The commands that would change something now, by their names in the API.
pub fn allowed(phase: &Phase) -> Vec<&'static str> {
    [
        (Command::Start, "start"),
        (Command::Stop, "stop"),
        (Command::Restart, "restart"),
        (Command::Update { inside: true }, "update"),
        (Command::Delete, "delete"),
    ]
    .into_iter()
    .filter(|&(command, _)| admit(phase, command) == Admission::Accept)
    .map(|(_, name)| name)
    .collect()
}
