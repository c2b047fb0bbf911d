//! The `zeroone` program as people and scripts use it: the real binary, real processes, real signals.

mod backup;
mod chaos;
mod copied;
mod deploy;
#[path = "../support/http_client.rs"]
mod http_client;
mod login;
mod mistakes;
mod recover;
mod story;
mod told;
mod world;
