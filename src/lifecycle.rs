//! The heart: every decision about an agent's life, as functions without async, clock or I/O.
//!
//! ```text
//!            ┌───────────── retry, start ──────────────┐
//!            ▼                                         │
//!         PENDING ──► STARTING ──► RUNNING ──► STOPPING│──► STOPPED
//!                      │  ▲  ▲        │           ▲    │       │
//!                      │  │  └─ died ─┤           │    │       │
//!                      ▼  │           ▼           │    │       │
//!                    ERROR│◄──── budget spent      │    │       │
//!                      │  └───────────────────────│────┼─start─┘
//!                      └──────── stop, delete ────┘    │
//!                      └───────────────────────────────┘
//! ```
//! Within STARTING an attempt goes through steps: *halting* what is left of an older run, *creating* the instance,
//! *launching* it, *probing* its health, *pairing* with it. A failed attempt backs off or gives up ([`crate::backoff`]).
//!
//! [`admit`] says whether a command may be followed; [`step`] turns a [`Life`] and an [`Event`] into the next life and
//! the [`Effect`]s that lead there. The caller commits the new life before it runs the effects. What an event was based
//! on may be outdated when it arrives: it carries the attempt, or the revision, that it belongs to, and a stale one
//! changes nothing.

mod admit;
mod cause;
mod event;
mod phase;
mod step;
#[cfg(test)]
mod tests;

pub use admit::{Verdict, admit, allowed};
pub use cause::{Cause, Code};
pub use event::{Command, Effect, Event, Failure, FailureKind, Job, Outcome, Sighting};
pub use phase::{InstanceRef, Life, Phase, Resume, Step, Then};
pub use step::{Context, Timing, TokenChange, Transition, step};
