//! What the state machine takes and gives, as plain records; twins of `epp/extproc/messages.py`.

use std::sync::Arc;

use bytes::Bytes;

use super::fields::{body_send_mode, header_mutation, header_value, header_value_option};
use super::headers::{HeaderBlock, Names};
use super::proto::{Reader, Value, put_bytes, put_message};

/// Body modes, with the numbers of `ProcessingMode.BodySendMode`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    None,
    Streamed,
    Buffered,
    BufferedPartial,
    FullDuplex,
    Grpc,
}

impl Mode {
    /// Modes that do not exist yet are taken for the one that needs the most answers.
    pub fn from_number(number: u64) -> Self {
        // Of an enum decoders keep 32 bits.
        match number & u64::from(u32::MAX) {
            body_send_mode::NONE => Self::None,
            body_send_mode::STREAMED => Self::Streamed,
            body_send_mode::BUFFERED => Self::Buffered,
            body_send_mode::BUFFERED_PARTIAL => Self::BufferedPartial,
            body_send_mode::GRPC => Self::Grpc,
            _ => Self::FullDuplex,
        }
    }

    /// Brings a body in one message.
    pub fn is_whole(self) -> bool {
        matches!(self, Self::Buffered | Self::BufferedPartial)
    }

    /// Is answered by pieces of a body, which may come whenever we like.
    pub fn is_duplex(self) -> bool {
        matches!(self, Self::FullDuplex | Self::Grpc)
    }
}

/// What only the first message says about the stream.
#[derive(Debug, Clone, Copy)]
pub struct Opening {
    pub request_mode: Mode,
    pub response_mode: Mode,
    /// The data plane sent its `protocol_config`; without it full duplex is assumed.
    pub configured: bool,
    /// `observability_mode`: nothing is answered.
    pub observed: bool,
}

impl Default for Opening {
    fn default() -> Self {
        Self { request_mode: Mode::FullDuplex, response_mode: Mode::FullDuplex, configured: false, observed: false }
    }
}

/// The dynamic metadata that came with a message: an encoded `envoy.config.core.v3.Metadata`, not empty.
pub type Context = Option<Bytes>;

#[derive(Debug)]
pub struct BodyMessage {
    pub data: Bytes,
    pub end: bool,
    pub compressed: bool,
    pub without_message: bool,
}

#[derive(Debug)]
pub enum Incoming {
    RequestHeaders {
        headers: Arc<HeaderBlock>,
        end: bool,
        context: Context,
    },
    RequestBody {
        body: BodyMessage,
        context: Context,
    },
    RequestTrailers {
        context: Context,
    },
    ResponseHeaders {
        headers: Arc<HeaderBlock>,
        end: bool,
        context: Context,
    },
    ResponseBody(BodyMessage),
    ResponseTrailers,
    /// Cannot be understood.
    Invalid(&'static str),
}

/// How the data plane left the stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lost {
    HalfClosed,
    Cancelled,
    SendFailed,
}

impl Lost {
    pub fn text(self) -> &'static str {
        match self {
            Self::HalfClosed => "half-closed",
            Self::Cancelled => "cancelled",
            Self::SendFailed => "send failed",
        }
    }
}

/// Header pairs to set, encoded as the `set_headers` of a `HeaderMutation`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Pairs(pub Bytes);

impl Pairs {
    pub fn encode(pairs: &[(&[u8], &[u8])]) -> Self {
        let mut out = Vec::with_capacity(pairs.iter().map(|(name, value)| name.len() + value.len() + 12).sum());
        for (name, value) in pairs {
            put_pair(&mut out, name, value);
        }
        Self(out.into())
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn names(&self) -> Vec<&[u8]> {
        self.encoded().into_iter().map(|(name, _)| name).collect()
    }

    /// The pairs whose name is `kept`, then all of `others`.
    pub fn merged(&self, kept: impl Fn(&[u8]) -> bool, others: &Self) -> Self {
        let mut out = Vec::with_capacity(self.0.len() + others.0.len());
        for (name, option) in self.encoded() {
            if kept(name) {
                put_bytes(&mut out, header_mutation::SET_HEADERS, option);
            }
        }
        out.extend_from_slice(&others.0);
        Self(out.into())
    }

    pub fn with(&self, name: &[u8], value: &[u8]) -> Self {
        let mut out = Vec::with_capacity(self.0.len() + name.len() + value.len() + 12);
        out.extend_from_slice(&self.0);
        put_pair(&mut out, name, value);
        Self(out.into())
    }

    /// Name and encoded `HeaderValueOption` of each pair.
    fn encoded(&self) -> Vec<(&[u8], &[u8])> {
        let mut found = Vec::new();
        let mut options = Reader::new(&self.0);
        while let Ok(Some((_, Value::Bytes(option)))) = options.field() {
            if let Ok(Some((_, Value::Bytes(header)))) = Reader::new(option).field()
                && let Ok(Some((_, Value::Bytes(name)))) = Reader::new(header).field()
            {
                found.push((name, option));
            }
        }
        found
    }
}

fn put_pair(out: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    put_message(out, header_mutation::SET_HEADERS, |option| {
        put_message(option, header_value_option::HEADER, |header| {
            put_bytes(header, header_value::KEY, name);
            put_bytes(header, header_value::RAW_VALUE, value);
        });
    });
}

/// Metadata to send: an encoded `google.protobuf.Struct`, not empty.
pub type Metadata = Option<Bytes>;

/// Changes of headers.
#[derive(Debug, Clone, Default)]
pub struct Edits {
    pub set: Pairs,
    pub remove: Names,
}

/// The common part of answers to headers and to bodies.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Change {
    pub set: Pairs,
    pub remove: Vec<Box<[u8]>>,
    pub clear_route_cache: bool,
    pub metadata: Metadata,
}

/// One piece of a body in modes full duplex and GRPC.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Piece {
    pub response: bool,
    pub data: Bytes,
    pub end: bool,
    pub metadata: Metadata,
    pub compressed: bool,
    pub without_message: bool,
}

impl Piece {
    pub fn new(response: bool, data: Bytes, end: bool) -> Self {
        Self { response, data, end, metadata: None, compressed: false, without_message: false }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outgoing {
    Headers {
        response: bool,
        change: Change,
    },
    /// `body` replaces the message's body; None leaves it.
    Body {
        response: bool,
        change: Change,
        body: Option<Bytes>,
    },
    Piece(Piece),
    Trailers {
        response: bool,
        metadata: Metadata,
    },
    /// Ends the stream: an encoded `ImmediateResponse`.
    Immediate(Bytes),
}

/// How the gRPC stream ends; names and numbers of gRPC.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    Ok = 0,
    Cancelled = 1,
    InvalidArgument = 3,
    ResourceExhausted = 8,
    Unimplemented = 12,
    Internal = 13,
    Unavailable = 14,
}

impl Status {
    pub fn name(self) -> &'static str {
        match self {
            Self::Ok => "OK",
            Self::Cancelled => "CANCELLED",
            Self::InvalidArgument => "INVALID_ARGUMENT",
            Self::ResourceExhausted => "RESOURCE_EXHAUSTED",
            Self::Unimplemented => "UNIMPLEMENTED",
            Self::Internal => "INTERNAL",
            Self::Unavailable => "UNAVAILABLE",
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BodyState {
    Complete,
    Absent,
    Unseen,
    TimedOut,
    TooLarge,
    NoMemory,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Observe {
    #[default]
    Off,
    First,
    Every,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    Natural,
    Disconnected,
    Replied,
    Failed,
}

/// A string member of JSON objects and its values, as Unicode code points: Python's strings may hold lone surrogates.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rename {
    pub member: Vec<u32>,
    pub old: Vec<u32>,
    pub new: Vec<u32>,
}

/// What the response needs; the default forwards it and asks nobody.
#[derive(Debug, Default)]
pub struct Plan {
    pub ask_headers: bool,
    pub observe: Observe,
    pub hold_end: bool,
    pub rename: Option<Rename>,
    pub readers: Vec<Arc<str>>,
    pub streams: bool,
    pub skip: bool,
}

#[derive(Debug)]
pub struct Route {
    pub edits: Edits,
    pub metadata: Metadata,
    pub plan: Arc<Plan>,
    pub splices: Vec<(usize, usize, Bytes)>,
}

#[derive(Debug)]
pub enum Answer {
    Route(Box<Route>),
    /// An encoded `ImmediateResponse`.
    Reply(Bytes),
}
