//! Crashes of the control plane's own actors, for chaos tests.

use super::ControlPlane;
use crate::actor::{AgentMsg, RegistryMsg};
use crate::domain::AgentId;

/// How an actor crashes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ActorCrash {
    /// A panic in the handler of a message.
    Panic,
    /// Ended from outside, in the middle of whatever it waits for.
    Kill,
}

impl ControlPlane {
    /// Crashes an agent's actor. False where it is not up at present.
    pub fn crash_actor(&self, agent: AgentId, crash: ActorCrash) -> bool {
        let Some(actor) = self.shared.directory.get(&agent).map(|entry| entry.value().clone()) else { return false };
        match crash {
            ActorCrash::Panic => actor.cast(AgentMsg::Panic).is_ok(),
            ActorCrash::Kill => {
                actor.kill();
                true
            }
        }
    }

    /// Crashes the registry.
    pub fn crash_registry(&self, crash: ActorCrash) {
        let registry = self.shared.registry.load_full();
        match crash {
            // One that has crashed already need not crash again.
            ActorCrash::Panic => drop(registry.cast(RegistryMsg::Panic)),
            ActorCrash::Kill => registry.kill(),
        }
    }
}
