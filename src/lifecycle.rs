//! Every decision about an agent, as functions without async, clock or I/O.
//!
//! ```text
//!             deploy            paired            stop                done
//!   PENDING ─────────► STARTING ───────► RUNNING ───────► STOPPING ─────────► STOPPED
//!      ▲               ▲  ▲  ▲             │                 │                   │
//!      │               │  │  └──── died ───┘                 │                   │
//!      │               │  └───────────── restart ────────────┘                   │
//!      │               └──────────────────── start ──────────────────────────────┘
//!      │ start, or a rest is over
//!    ERROR ◄──── budget spent, cannot run, or not possible in time: from STARTING, RUNNING, STOPPING
//!
//!   stop and delete lead to STOPPING from everywhere; a deletion ends there, with the agent gone
//! ```
//! All edges, and no others, are in [`Status::EDGES`](crate::domain::Status::EDGES).
//!
//! Within STARTING an attempt goes through steps: *killing* what is left of an older run, *creating* the instance,
//! *launching* it, *probing* its health, *pairing* with it. A failed attempt backs off or gives up (`backoff`).
//!
//! [`admit`] says whether a command may be followed; [`step`] turns an [`AgentState`] and an [`Event`] into the next state and
//! the [`Effect`]s that lead there. The caller commits the new state before it runs the effects. What an event was based
//! on may be outdated when it arrives: it carries the attempt, or the revision, that it belongs to, and a stale one
//! changes nothing.

mod admit;
mod cause;
mod event;
mod phase;
mod step;
mod stored;
#[cfg(test)]
mod tests;

pub use admit::{Admission, admit, allowed};
pub use cause::{Cause, Code, FailedModel, meaning_of_exit};
pub use event::{Command, Effect, Event, Failure, FailureKind, Job, Observation, Outcome};
pub use phase::{AfterStop, AgentState, Phase, RetryTarget, Step};
pub use step::{Context, Timing, TokenChange, Transition, step};
