//! The fast twins of a few modules of the endpoint picker. Python decides, this crate moves bytes.
//!
//! `wire` and `bodies` know bytes, `prefix` prompts and who holds them, `machine` one stream without I/O, `net` sockets, `pages`
//! metrics of model servers, `py` Python.

pub mod bodies;
pub mod machine;
pub mod net;
pub mod pages;
pub mod prefix;
#[cfg(feature = "python")]
pub mod py;
pub mod wire;

#[cfg(feature = "python")]
pub use py::epp_native;
