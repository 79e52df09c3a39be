//! The fast twins of a few modules of the endpoint picker. Python decides, this crate moves bytes.
//!
//! `wire` and `bodies` know bytes, `machine` one stream without I/O, `net` sockets, `py` Python.

pub mod bodies;
pub mod machine;
pub mod net;
#[cfg(feature = "python")]
pub mod py;
pub mod wire;

#[cfg(feature = "python")]
pub use py::epp_native;
