//! The `zeroone` program as people and scripts use it: the real binary, real processes, real signals.

mod backup;
mod causes;
mod chaos;
mod copied;
mod deploy;
mod hostile;
#[path = "../support/http_client.rs"]
mod http_client;
#[path = "../support/lines.rs"]
mod lines;
mod login;
mod mistakes;
mod orphan;
mod package;
#[path = "../support/program.rs"]
mod program;
mod recover;
mod story;
mod terminal;
mod told;
mod world;
