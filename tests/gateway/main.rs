//! The embedded gateway from outside: over HTTP, with doubles for the model and the platforms, on loopback only.

mod model;
mod pairing;
mod program;
mod webhook;
mod world;
