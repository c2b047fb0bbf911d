//! ZeroClaw as a service: every AI agent is a supervised actor that owns one ZeroClaw instance.

pub mod backoff;
pub mod domain;
#[cfg(feature = "gateway")]
pub mod gateway;
pub mod ledger;
pub mod lifecycle;
mod plain;
pub mod runtime;
pub mod store;
pub mod vault;
pub mod zeroclaw;
