//! The fast twins of a few modules of the endpoint picker. Python decides, this crate moves bytes.
//!
//! `wire` and `bodies` know bytes, `machine` one stream without I/O, `net` sockets, `pages` metrics of model servers,
//! `events` who holds which block of a prompt, `py` Python.

pub mod bodies;
pub mod events;
pub mod machine;
pub mod net;
pub mod pages;
#[cfg(feature = "python")]
pub mod py;
pub mod wire;

#[cfg(feature = "python")]
pub use py::epp_native;
