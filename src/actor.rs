//! The actors: one for each agent, one that owns the ledger, one above them all.
//!
//! ```text
//! Supervisor ─┬─ Registry            owns the ledger: create, retire, ports, plans
//!             ├─ Agent 0195…a1 ──┐
//!             ├─ Agent 0195…b7   ├── each: event → lifecycle::step → commit → reply → effects as jobs
//!             └─ Agent …       ──┘
//! ```
//! An actor here is a thin shell: it decides nothing itself. A handler awaits the store and nothing else; what takes
//! longer is a job that ends in a message. A panic or an error ends one actor, which its supervisor rebuilds from the
//! store. Actors have no global names, so that two control planes fit into one process.

mod account_change;
mod agent;
mod ask;
mod clock;
mod counters;
mod creation_rule;
mod job_queue;
mod jobs;
mod lease;
mod protocol;
mod registry;
mod services;
mod supervisor;

pub use account_change::{AccountChange, AccountRefusal, UserChange, Which};
#[cfg(feature = "server")]
pub use account_change::{KEYS_PER_USER, MAX_TICKETS};
pub use ask::{AskError, ask};
pub use clock::Clock;
pub use counters::{ActorCounts, Counters};
pub use creation_rule::{CreationRequest, CreationRule, Denied};
pub use job_queue::JobQueues;
pub use jobs::{
    API_KEY_FIELD, CHANNELS_FIELD, RETIRED_FIELD, Rehearsal, key_of, open_credentials, open_retired, place, remembered,
    snapshot,
};
pub use lease::Lease;
pub use protocol::{
    AgentMsg, Change, CommandMsg, CommandReply, CreateRefusal, Creation, Directory, IdempotencyClaim, RegistryMsg,
    RegistrySlot, SupervisorMsg, UpgradeStep,
};
#[cfg(feature = "testkit")]
pub use services::Sabotage;
pub use services::{AccountSettings, FeedEntry, JobLimits, Orphans, Registration, Services, Settings};
pub use supervisor::{Supervisor, SupervisorArgs};
