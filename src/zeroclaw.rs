//! What the control plane knows of ZeroClaw: its HTTP calls, its pairing lines, its files, and what differs by version.

pub mod bundle;
pub mod client;
#[cfg(feature = "gateway")]
pub mod database;
mod family;
pub mod memory;
pub mod migration;
pub mod outward;
pub mod pairing;
pub mod profile;
pub mod software;
pub mod spending;
pub mod usability;
pub mod workspace;
