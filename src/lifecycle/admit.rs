//! Which command is followed in which phase: one table.

use super::event::Command;
use super::phase::{Phase, Resume, Then};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    Do,
    /// It is so already, or on its way there.
    Already,
    /// Not now; [`allowed`] says what is.
    Refuse,
}

pub const fn admit(phase: &Phase, command: Command) -> Verdict {
    use Verdict::{Already, Do, Refuse};
    match (phase, command) {
        // Deletion cannot be called back; asking for it again hurries a failed one.
        (Phase::Stopping { then: Then::Delete, .. }, Command::Delete) => Already,
        (
            Phase::Stopping { then: Then::Delete, .. } | Phase::Failed { resume: Resume::Delete, .. },
            Command::Start | Command::Stop | Command::Restart | Command::Update { .. },
        ) => Refuse,
        (_, Command::Delete) => Do,

        (_, Command::Update { .. }) => Do,

        (Phase::Pending | Phase::Starting { .. } | Phase::Running { .. }, Command::Start) => Already,
        (Phase::Stopping { then: Then::Restart, .. }, Command::Start) => Already,
        (Phase::Stopping { then: Then::Stay, .. }, Command::Start | Command::Restart) => Refuse,
        (Phase::Stopped | Phase::Failed { .. }, Command::Start | Command::Restart) => Do,

        // Also where it starts anyway: whoever asks for a restart wants another token.
        (
            Phase::Pending
            | Phase::Starting { .. }
            | Phase::Running { .. }
            | Phase::Stopping { then: Then::Restart, .. },
            Command::Restart,
        ) => Do,

        (Phase::Stopping { then: Then::Stay, .. } | Phase::Stopped, Command::Stop) => Already,
        (
            Phase::Pending
            | Phase::Starting { .. }
            | Phase::Running { .. }
            | Phase::Stopping { then: Then::Restart, .. }
            | Phase::Failed { .. },
            Command::Stop,
        ) => Do,
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
    .filter(|&(command, _)| admit(phase, command) == Verdict::Do)
    .map(|(_, name)| name)
    .collect()
}
