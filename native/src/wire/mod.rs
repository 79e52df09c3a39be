//! The wire: protobuf, the messages of ext_proc, gRPC framing.

pub mod codec;
pub mod fields;
pub mod framing;
pub mod headers;
pub mod messages;
pub mod proto;
