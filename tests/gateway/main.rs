//! The embedded gateway from outside: over HTTP, with doubles for the model and the platforms, on loopback only.

mod agent;
mod api;
mod channels;
mod events;
#[path = "../support/http_client.rs"]
mod http_client;
mod inbox;
#[path = "../support/lines.rs"]
mod lines;
mod memory;
mod model;
mod models;
mod openai;
mod pairing;
mod parity;
mod platform;
mod program;
mod schedule;
mod session;
mod settings;
mod sockets;
mod telegram;
mod telegram_server;
mod webhook;
mod websocket;
mod world;
