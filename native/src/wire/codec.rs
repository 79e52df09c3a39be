//! Protobuf ↔ the machine's messages, both ways; decides nothing. Twin of `epp/transport/grpc_codec.py`.
//!
//! Source: envoyproxy/envoy: api/envoy/service/ext_proc/v3/external_processor.proto

use std::sync::Arc;

use bytes::Bytes;

use super::fields::{
    body_mutation, common_response, header_mutation, headers_response, http_body, http_headers, metadata,
    processing_request, processing_response, protocol_configuration, streamed_body_response,
};
use super::framing::put_prefix;
use super::headers::HeaderBlock;
use super::messages::{BodyMessage, Change, Context, Incoming, Mode, Opening, Outgoing, Piece};
use super::proto::{Malformed, Reader, Value, bytes_len, put_bytes, put_head, put_message, put_true};

/// From here on the bytes of a piece are sent from where they are instead of being copied behind their head.
const SHARED_FROM_BYTES: usize = 8 * 1024;

/// A `ProcessingRequest`: what it says as the first message of its stream, and what it brings.
pub struct Received {
    pub opening: Opening,
    pub message: Incoming,
}

/// Read a `ProcessingRequest`; one that cannot be read becomes `Incoming::Invalid`.
pub fn decode(data: &Bytes) -> Received {
    decoded(data).unwrap_or_else(|Malformed| Received {
        opening: Opening::default(),
        message: Incoming::Invalid("the message is not a ProcessingRequest"),
    })
}

fn decoded(data: &Bytes) -> Result<Received, Malformed> {
    let mut opening = Opening::default();
    let mut context: Context = None;
    let mut content: Option<(u32, &[u8])> = None;
    let mut fields = Reader::new(data);
    while let Some(field) = fields.field()? {
        match field {
            (
                kind @ processing_request::REQUEST_HEADERS..=processing_request::RESPONSE_TRAILERS,
                Value::Bytes(part),
            ) => {
                content = Some((kind, part));
            }
            (processing_request::METADATA_CONTEXT, Value::Bytes(part)) => context = read_context(part)?,
            (processing_request::OBSERVABILITY_MODE, Value::Varint(number)) => opening.observed = number != 0,
            (processing_request::PROTOCOL_CONFIG, Value::Bytes(part)) => read_config(part, &mut opening)?,
            _ => {}
        }
    }
    let message = match content {
        Some((kind, part)) => read_content(kind, part, data, context)?,
        None => Incoming::Invalid("the ProcessingRequest has no content of a known kind"),
    };
    Ok(Received { opening, message })
}

fn read_config(part: &[u8], opening: &mut Opening) -> Result<(), Malformed> {
    // Absent numbers are 0, which is NONE: an empty message has a meaning.
    (opening.configured, opening.request_mode, opening.response_mode) = (true, Mode::None, Mode::None);
    let mut fields = Reader::new(part);
    while let Some(field) = fields.field()? {
        match field {
            (protocol_configuration::REQUEST_BODY_MODE, Value::Varint(number)) => {
                opening.request_mode = Mode::from_number(number);
            }
            (protocol_configuration::RESPONSE_BODY_MODE, Value::Varint(number)) => {
                opening.response_mode = Mode::from_number(number);
            }
            _ => {}
        }
    }
    Ok(())
}

/// The metadata if it has any namespace.
fn read_context(part: &[u8]) -> Result<Context, Malformed> {
    let mut fields = Reader::new(part);
    let mut found = false;
    while let Some(field) = fields.field()? {
        found = found || matches!(field, (metadata::FILTER_METADATA, Value::Bytes(_)));
    }
    Ok(found.then(|| Bytes::copy_from_slice(part)))
}

fn read_content(kind: u32, part: &[u8], data: &Bytes, context: Context) -> Result<Incoming, Malformed> {
    Ok(match kind {
        processing_request::REQUEST_HEADERS | processing_request::RESPONSE_HEADERS => {
            let (headers, end) = read_headers(part)?;
            if kind == processing_request::REQUEST_HEADERS {
                Incoming::RequestHeaders { headers, end, context }
            } else {
                Incoming::ResponseHeaders { headers, end, context }
            }
        }
        processing_request::REQUEST_BODY => Incoming::RequestBody { body: read_body(part, data)?, context },
        processing_request::RESPONSE_BODY => Incoming::ResponseBody(read_body(part, data)?),
        processing_request::REQUEST_TRAILERS => Incoming::RequestTrailers { context },
        _ => Incoming::ResponseTrailers,
    })
}

fn read_headers(part: &[u8]) -> Result<(Arc<HeaderBlock>, bool), Malformed> {
    let (mut map, mut end): (&[u8], bool) = (&[], false);
    let mut fields = Reader::new(part);
    while let Some(field) = fields.field()? {
        match field {
            (http_headers::HEADERS, Value::Bytes(value)) => map = value,
            (http_headers::END_OF_STREAM, Value::Varint(number)) => end = number != 0,
            _ => {}
        }
    }
    Ok((Arc::new(HeaderBlock::parse(map)?), end))
}

fn read_body(part: &[u8], data: &Bytes) -> Result<BodyMessage, Malformed> {
    let mut body = BodyMessage { data: Bytes::new(), end: false, compressed: false, without_message: false };
    let mut fields = Reader::new(part);
    while let Some(field) = fields.field()? {
        match field {
            (http_body::BODY, Value::Bytes(value)) => body.data = data.slice_ref(value),
            (http_body::END_OF_STREAM, Value::Varint(number)) => body.end = number != 0,
            (http_body::END_OF_STREAM_WITHOUT_MESSAGE, Value::Varint(number)) => body.without_message = number != 0,
            (http_body::GRPC_MESSAGE_COMPRESSED, Value::Varint(number)) => body.compressed = number != 0,
            _ => {}
        }
    }
    body.end |= body.without_message;
    Ok(body)
}

// ── sent ──

/// Bytes to send, in order: small messages gathered in one buffer, large pieces of bodies where they are.
#[derive(Debug, Default)]
pub struct OutBuffer {
    current: Vec<u8>,
    ready: Vec<Bytes>,
}

impl OutBuffer {
    /// Append an answer with its gRPC prefix; returns the length of the message.
    pub fn put(&mut self, answer: &Outgoing) -> usize {
        match answer {
            Outgoing::Piece(piece) => self.put_piece(piece),
            other => {
                let start = self.current.len();
                put_prefix(&mut self.current, 0);
                put_answer(&mut self.current, other);
                let length = self.current.len() - start - 5;
                let written = u32::try_from(length).unwrap_or(u32::MAX);
                self.current[start + 1..start + 5].copy_from_slice(&written.to_be_bytes());
                length
            }
        }
    }

    /// Take everything that was put.
    pub fn take(&mut self, mut sink: impl FnMut(Bytes)) {
        for bytes in self.ready.drain(..) {
            sink(bytes);
        }
        if !self.current.is_empty() {
            sink(std::mem::take(&mut self.current).into());
        }
    }

    fn put_piece(&mut self, piece: &Piece) -> usize {
        let length = piece_len(piece);
        put_prefix(&mut self.current, length);
        put_piece_head(&mut self.current, piece);
        if piece.data.len() < SHARED_FROM_BYTES {
            self.current.extend_from_slice(&piece.data);
        } else {
            self.ready.push(std::mem::take(&mut self.current).into());
            self.ready.push(piece.data.clone());
        }
        length
    }
}

/// The `ProcessingResponse` for an answer, without prefix.
pub fn encode(answer: &Outgoing) -> Vec<u8> {
    let mut out = Vec::new();
    if let Outgoing::Piece(piece) = answer {
        put_piece_head(&mut out, piece);
        out.extend_from_slice(&piece.data);
    } else {
        put_answer(&mut out, answer);
    }
    out
}

fn put_answer(out: &mut Vec<u8>, answer: &Outgoing) {
    match answer {
        Outgoing::Headers { response, change } => {
            put_message(out, processing_response::REQUEST_HEADERS + u32::from(*response), |part| {
                put_common(part, change, None)
            });
            put_metadata(out, change.metadata.as_ref());
        }
        Outgoing::Body { response, change, body } => {
            put_message(out, processing_response::REQUEST_BODY + u32::from(*response), |part| {
                put_common(part, change, body.as_ref())
            });
            put_metadata(out, change.metadata.as_ref());
        }
        Outgoing::Trailers { response, metadata } => {
            put_head(out, processing_response::REQUEST_TRAILERS + u32::from(*response), 0);
            put_metadata(out, metadata.as_ref());
        }
        Outgoing::Immediate(reply) => put_bytes(out, processing_response::IMMEDIATE_RESPONSE, reply),
        Outgoing::Piece(_) => {}
    }
}

/// A `HeadersResponse` or `BodyResponse`; nothing at all if nothing changes.
fn put_common(out: &mut Vec<u8>, change: &Change, body: Option<&Bytes>) {
    let mutates = !change.set.is_empty() || !change.remove.is_empty();
    if !mutates && !change.clear_route_cache && body.is_none() {
        return;
    }
    put_message(out, headers_response::RESPONSE, |common| {
        if mutates {
            put_message(common, common_response::HEADER_MUTATION, |mutation| {
                mutation.extend_from_slice(&change.set.0);
                for name in &change.remove {
                    put_bytes(mutation, header_mutation::REMOVE_HEADERS, name);
                }
            });
        }
        if let Some(body) = body {
            put_message(common, common_response::BODY_MUTATION, |mutation| {
                if body.is_empty() {
                    put_true(mutation, body_mutation::CLEAR_BODY, true);
                } else {
                    put_bytes(mutation, body_mutation::BODY, body);
                }
            });
        }
        put_true(common, common_response::CLEAR_ROUTE_CACHE, change.clear_route_cache);
    });
}

fn put_metadata(out: &mut Vec<u8>, metadata: Option<&Bytes>) {
    if let Some(metadata) = metadata {
        put_bytes(out, processing_response::DYNAMIC_METADATA, metadata);
    }
}

/// Lengths of the nested messages of a piece, from the inside: streamed response, body mutation, common, body response.
fn piece_lens(piece: &Piece) -> [usize; 4] {
    let flags = usize::from(piece.end) + usize::from(piece.without_message) + usize::from(piece.compressed);
    let data = if piece.data.is_empty() { 0 } else { bytes_len(piece.data.len()) };
    let streamed = 2 * flags + data;
    let mutation = bytes_len(streamed);
    let common = bytes_len(mutation);
    [streamed, mutation, common, bytes_len(common)]
}

fn piece_len(piece: &Piece) -> usize {
    bytes_len(piece_lens(piece)[3]) + piece.metadata.as_ref().map_or(0, |metadata| bytes_len(metadata.len()))
}

/// Everything of a piece but its bytes, which end the message.
fn put_piece_head(out: &mut Vec<u8>, piece: &Piece) {
    put_metadata(out, piece.metadata.as_ref());
    let [streamed, mutation, common, response] = piece_lens(piece);
    put_head(out, processing_response::REQUEST_BODY + u32::from(piece.response), response);
    put_head(out, headers_response::RESPONSE, common);
    put_head(out, common_response::BODY_MUTATION, mutation);
    put_head(out, body_mutation::STREAMED_RESPONSE, streamed);
    put_true(out, streamed_body_response::END_OF_STREAM, piece.end);
    put_true(out, streamed_body_response::END_OF_STREAM_WITHOUT_MESSAGE, piece.without_message);
    put_true(out, streamed_body_response::GRPC_MESSAGE_COMPRESSED, piece.compressed);
    if !piece.data.is_empty() {
        put_head(out, streamed_body_response::BODY, piece.data.len());
    }
}

#[cfg(test)]
mod tests {
    use super::super::fields::{header_map, header_value};
    use super::*;

    #[test]
    fn pieces_have_the_length_that_their_prefix_says() {
        for size in [0, 1, 127, 128, 8_191, 8_192, 62_000] {
            for flags in 0..16u8 {
                let piece = Piece {
                    response: flags & 1 != 0,
                    data: vec![1; size].into(),
                    end: flags & 2 != 0,
                    metadata: (flags & 4 != 0).then(|| Bytes::from_static(b"\x0a\x00")),
                    compressed: flags & 8 != 0,
                    without_message: flags & 8 != 0,
                };
                let answer = Outgoing::Piece(piece);
                let mut buffer = OutBuffer::default();
                buffer.put(&answer);
                let mut sent = Vec::new();
                buffer.take(|bytes| sent.extend_from_slice(&bytes));
                let length = u32::from_be_bytes(sent[1..5].try_into().unwrap()) as usize;
                assert_eq!(length, sent.len() - 5);
                assert_eq!(sent[5..], encode(&answer));
            }
        }
    }

    /// Run with: cargo test --release --no-default-features -- --ignored --nocapture what_reading_costs
    #[test]
    #[ignore = "prints a figure, asserts nothing"]
    fn what_reading_costs() {
        let mut message = Vec::new();
        put_message(&mut message, processing_request::REQUEST_HEADERS, |headers| {
            put_message(headers, http_headers::HEADERS, |map| {
                for number in 0..15 {
                    put_message(map, header_map::HEADERS, |header| {
                        put_bytes(header, header_value::KEY, format!("x-header-{number}").as_bytes());
                        put_bytes(header, header_value::RAW_VALUE, b"a value of some thirty bytes...");
                    });
                }
            });
        });
        let message = Bytes::from(message);
        let rounds = 1_000_000;
        let begun = std::time::Instant::now();
        for _ in 0..rounds {
            std::hint::black_box(decode(std::hint::black_box(&message)));
        }
        println!("a ProcessingRequest of 15 headers: {} ns", begun.elapsed().as_nanos() / rounds);
    }

    #[test]
    fn garbage_is_invalid() {
        for data in [&b"\xff\xff"[..], b"", b"\x12\x02\x0a\x05"] {
            assert!(matches!(decode(&Bytes::copy_from_slice(data)).message, Incoming::Invalid(_)));
        }
    }

    #[test]
    fn an_empty_protocol_config_means_no_bodies() {
        let received = decode(&Bytes::from_static(b"\x12\x02\x18\x01\x5a\x00"));
        assert!(received.opening.configured);
        assert_eq!((received.opening.request_mode, received.opening.response_mode), (Mode::None, Mode::None));
        assert!(matches!(received.message, Incoming::RequestHeaders { end: true, .. }));
    }
}
