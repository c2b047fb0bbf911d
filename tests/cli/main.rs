//! The `zeroone` program as people and scripts use it: the real binary, real processes, real signals.

mod chaos;
mod copied;
mod mistakes;
mod recover;
mod story;
mod world;
