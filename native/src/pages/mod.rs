//! Metrics pages of model servers: fetched by a thread of their own, cut down to the families that somebody reads.

pub mod buffers;
pub mod check;
pub mod excerpt;
pub mod fetch;
pub mod reader;
