//! Real processes killed for real: nothing that was acknowledged is lost, nothing is left over, everything settles.
//!
//! The real program with agents that are processes of their own: `kills` of the service at random, `steps` at each step of
//! a deployment, `agents` that die, hang, and are robbed, a `store` that is damaged or taken, `load` under kills, and
//! `secrets` that must not be found. What Docker adds is in `tests/docker`, a full disk in `tests/disk.rs`.
#![cfg(all(feature = "cli", feature = "process", feature = "gateway"))]

mod agents;
mod common;
#[path = "../support/http_client.rs"]
mod http_client;
mod kills;
mod load;
#[path = "../support/program.rs"]
mod program;
mod secrets;
#[path = "../support/service.rs"]
#[allow(dead_code, reason = "others use the rest of it")]
mod service;
mod steps;
mod store;
mod streams;
#[path = "../support/traffic.rs"]
mod traffic;
