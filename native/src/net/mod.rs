//! Sockets: listeners, connections, streams, health, TLS, and the hand-over to the event loop. Nothing here knows Python.

pub mod clock;
pub mod connection;
pub mod grpc;
pub mod health;
pub mod queue;
pub mod server;
pub mod shared;
pub mod stats;
pub mod stopping;
pub mod stream;
pub mod streams;
pub mod thread;
pub mod tls;
