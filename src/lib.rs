//! ZeroClaw as a service: every AI agent is a supervised actor that owns one ZeroClaw instance.

pub mod accounts;
pub mod actor;
pub mod backoff;
pub mod control;
pub mod domain;
#[cfg(feature = "gateway")]
pub mod gateway;
pub mod ledger;
pub mod lifecycle;
mod plain;
pub mod runtime;
pub mod store;
#[cfg(feature = "testkit")]
pub mod testkit;
pub mod vault;
pub mod view;
pub mod zeroclaw;
