//! What a reader of a body is, and what it may know.

use std::fmt::Debug;
use std::sync::Arc;

use bytes::Bytes;

/// What a reader knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Read {
    Usage(Usage),
    /// The beginning of a body.
    Copy {
        data: Vec<u8>,
        truncated: bool,
    },
    /// Python's `bytes`: the form for what is long, such as packed numbers.
    Bytes(Bytes),
    /// Only Python has the reader of this name.
    Python(Arc<str>),
}

/// Token counts that the model server reported; 0 = not reported.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    pub prompt_tokens: u128,
    pub completion_tokens: u128,
    pub total_tokens: u128,
    pub cached_tokens: Option<u128>,
    pub events: u64,
    pub found: bool,
}

/// Reads one body while it passes: takes bounded memory and changes nothing.
pub trait Reader: Debug + Send {
    /// Take the next bytes of the body; may be empty.
    fn feed(&mut self, data: &[u8]);

    /// Take the body once more, as a whole: for readers of requests that cannot do with its pieces. Not called if it is not complete.
    fn whole(&mut self, _body: &[u8]) {}

    /// What is known so far, as if the body ended here; may be asked at any time.
    fn result(&mut self) -> Read;
}
