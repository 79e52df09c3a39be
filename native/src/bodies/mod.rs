//! Bodies: collected, read, renamed, cut. Nothing here knows streams or Python.

pub mod body;
pub mod copy;
pub mod json;
pub mod media;
pub mod prompts;
pub mod read;
pub mod readers;
pub mod rename;
pub mod sse;
pub mod usage;
