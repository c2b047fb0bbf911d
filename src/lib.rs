//! ZeroClaw as a service: every AI agent is a supervised actor that owns one ZeroClaw instance, its token and its health.
//!
//! # The actors
//! ```text
//! Supervisor ─┬─ Registry       quotas, slugs, ports; the one writer of users and keys
//!             ├─ Agent ── job   one ZeroClaw instance: a process or a container
//!             ├─ Agent ── job
//!             └─ …
//! ```
//! A crashed actor is rebuilt from the store, alone. Agents outlive the service: their instances run on while it is away,
//! and are adopted when it is back.
//!
//! # Where things are
//! | what | where |
//! |---|---|
//! | every decision about an agent, pure | `lifecycle`, `backoff`, `ledger` |
//! | ids, specifications, plans, secrets: the types of all the rest | [`domain`] |
//! | secrets at rest | [`vault`] |
//! | what must not be lost | [`store`] |
//! | what runs instances | [`runtime`]: the trait, and an implementation for each engine |
//! | what is known of ZeroClaw | [`zeroclaw`] |
//! | the actors, thin shells round the decisions | `actor` |
//! | what readers see without asking an actor | [`view`], [`accounts`], [`incident`], [`audit`], [`usage`] |
//! | what embedders and the HTTP facade hold | [`control`] |
//! | the data path to an agent's own gateway | `proxy` |
//! | which of several control planes a request is for | `router` |
//! | the pages for people, on top of the API | `console` |
//! | the agent runtime of our own, a program in itself | `gateway` |
//!
//! Imports run strictly downwards; a test holds them to it.
//!
//! # What always holds
//! - Decide, commit, reply, act, in this order: nothing outside changes before the commit that says it is intended, and
//!   nothing is acknowledged before it is durable.
//! - One instance for each agent, one job at a time, and every job, timer and observation belongs to an attempt: a stale
//!   one changes nothing.
//! - A message is delivered at most once, or the answer says that nobody knows.
//! - An engine that is away says nothing about an agent.
//! - Every wait has a deadline, every queue a bound, every retry a budget.
//!
//! # Embedding
//! Build a [`control::ControlPlane`] from a [`store::Store`], a [`vault::Vault`] and a [`runtime::ContainerRuntime`], then
//! create agents and hold them by [`control::AgentHandle`]. `docs/embedding.md` walks through it.
//!
//! # Features
//! `process`, `docker`, `kubernetes`: runtimes. `server`: the HTTP API as an axum router. `oidc`: sign-in by an OpenID Connect
//! provider. `console`: the web console. `gateway`: the embedded gateway. `cli`: the program. `testkit`: fakes, fault injection
//! and invariants for tests of one's own. Without any: the supervisor alone.

#![deny(missing_docs)]

#[macro_use]
mod setters;

pub mod accounts;
mod actor;
mod alarm;
pub mod audit;
mod backoff;
mod by_id;
#[cfg(feature = "cli")]
pub mod cli;
#[cfg(feature = "cli")]
pub mod config;
#[cfg(feature = "console")]
pub mod console;
pub mod control;
pub mod domain;
#[cfg(any(feature = "server", feature = "gateway"))]
mod forwarded;
#[cfg(feature = "gateway")]
pub mod gateway;
#[cfg(feature = "server")]
pub mod http;
pub mod incident;
mod ledger;
mod lifecycle;
#[cfg(any(feature = "server", feature = "gateway"))]
mod listen;
mod packed;
mod plain;
#[cfg(feature = "server")]
pub mod proxy;
#[cfg(feature = "cli")]
mod router;
pub mod runtime;
pub mod store;
#[cfg(feature = "cli")]
pub mod telemetry;
#[cfg(feature = "testkit")]
pub mod testkit;
pub mod usage;
pub mod vault;
pub mod view;
mod woken;
pub mod zeroclaw;

/// For this crate's own tests and benches. Not part of the API: anything in it may change in any version.
#[doc(hidden)]
pub mod internal {
    pub mod lifecycle {
        pub use crate::backoff::Restarts;
        pub use crate::lifecycle::*;

        /// The history of restarts, for states with a past.
        pub const fn restarts(state: &mut AgentState) -> &mut Restarts {
            &mut state.restarts
        }
    }

    /// Stores as only a fault or an older version leaves them, for tests of what is done about those.
    #[cfg(feature = "testkit")]
    pub mod store {
        use crate::store::{Store, StoreError};

        pub use crate::store::batch::Batch;

        /// Writes a batch, behind the back of every actor.
        pub async fn commit(store: &Store, batch: Batch) -> Result<(), StoreError> {
            store.commit(batch).await
        }
    }
}

/// The README's example is compiled with the documentation's.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
pub struct Readme;
