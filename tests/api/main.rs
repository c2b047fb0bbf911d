//! The API over real sockets, on a control plane with a fake engine.
#![cfg(all(feature = "server", feature = "testkit"))]

mod account;
mod administration;
mod agent_hosts;
mod agents;
mod audit;
mod audit_walk;
#[cfg(feature = "gateway")]
mod check;
mod connections;
#[cfg(feature = "console")]
mod console;
mod data;
mod front;
mod gateway;
mod hardening;
#[path = "../support/http_client.rs"]
mod http_client;
mod idempotency;
mod keys;
mod messages;
mod openai;
mod orphans;
mod problems;
mod rotation;
mod service;
mod sessions;
mod sign_in;
mod streams;
mod test_gateway;
mod upgrades;
mod usage;
mod web;
mod world;
