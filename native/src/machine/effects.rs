//! What a machine wants done, in order: messages to send, calls to make, the end. Twins of the calls in
//! `epp/extproc/messages.py` and of what they carry.

use std::borrow::Cow;
use std::sync::Arc;

use bytes::Bytes;

use crate::bodies::read::Read;
use crate::wire::headers::HeaderBlock;
use crate::wire::messages::{BodyState, Context, End, Outgoing, Status};

/// What the handler is shown of a request.
#[derive(Debug, Clone)]
pub struct Shown {
    pub headers: Arc<HeaderBlock>,
    pub context: Context,
    pub at_s: f64,
    pub body: Bytes,
    pub state: BodyState,
    /// Results of `Rules::request_readers`.
    pub read: Vec<Read>,
}

/// The response headers.
#[derive(Debug)]
pub struct Head {
    pub headers: Arc<HeaderBlock>,
    pub context: Context,
    pub at_s: f64,
}

/// One non-empty piece of a streaming response that has been forwarded.
#[derive(Debug)]
pub struct Chunk {
    pub data: Bytes,
    pub end: bool,
    pub at_s: f64,
    pub read: Vec<Read>,
}

/// Bytes of a response for the readers that only Python has.
#[derive(Debug)]
pub struct Fed {
    pub data: Bytes,
    pub head: Option<Arc<Head>>,
}

/// The facts of a finished stream.
#[derive(Debug)]
pub struct Outcome {
    pub end: End,
    pub complete: bool,
    pub error: Cow<'static, str>,
    pub head: Option<Arc<Head>>,
    pub streaming: bool,
    pub chunks: u64,
    pub size_bytes: u64,
    pub read: Vec<Read>,
    pub first_s: Option<f64>,
    pub last_s: Option<f64>,
    pub end_s: f64,
    pub busy_s: f64,
    pub gaps: Vec<u64>,
    pub gaps_s: f64,
}

#[derive(Debug)]
pub enum Effect {
    Send(Outgoing),
    CallRequest(Box<Shown>),
    CallResponseHeaders(Arc<Head>),
    /// Bytes for the readers that only Python has; told like chunks, before them.
    FeedReaders(Fed),
    CallResponseBody(Box<Chunk>),
    /// Told once what precedes it is on its way; if held, its result goes to `Machine::released`.
    CallFinished {
        outcome: Box<Outcome>,
        held: bool,
    },
    /// End the stream after everything that precedes. Nothing follows.
    Close {
        status: Status,
        details: Cow<'static, str>,
    },
}

/// Effects are appended here, to be run in their order.
pub type Effects = Vec<Effect>;
