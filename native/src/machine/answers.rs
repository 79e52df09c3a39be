//! The messages that answer a stream: header edits as deltas, a routed request, a piece of the response.
//! Twin of `epp/extproc/answers.py`.

use std::sync::Arc;

use bytes::Bytes;

use super::effects::Effect;
use crate::bodies::body::{Frame, MAX_PIECE_BYTES, pieces, splice, splice_frames};
use crate::wire::headers::{HeaderBlock, Names};
use crate::wire::messages::{BodyMessage, Change, Edits, Metadata, Mode, Outgoing, Pairs, Piece, Route};

/// Settings as the machines use them: made once, shared by all streams that began under them.
#[derive(Debug, Default)]
pub struct Rules {
    pub request_strip: Names,
    pub response_strip: Names,
    pub response_set: Pairs,
    /// The names of `response_set`.
    pub response_names: Names,
    pub max_body_bytes: usize,
    pub body_idle_s: f64,
    pub gap_bounds_s: Vec<f64>,
    /// Names of those that every request body is read by, while it comes.
    pub request_readers: Vec<Arc<str>>,
}

pub fn pass_headers(response: bool) -> Effect {
    Effect::Send(Outgoing::Headers { response, change: Change::default() })
}

pub fn pass_body(response: bool) -> Effect {
    Effect::Send(Outgoing::Body { response, change: Change::default(), body: None })
}

pub fn pass_trailers(response: bool) -> Effect {
    Effect::Send(Outgoing::Trailers { response, metadata: None })
}

/// The answer to response headers; the handler's edits win over the settings.
pub fn response_headers(rules: &Rules, headers: &HeaderBlock, edits: Option<Edits>) -> Effect {
    let (set, remove) = match edits.filter(|edits| !edits.set.is_empty() || !edits.remove.is_empty()) {
        None => {
            let gone = |name: &[u8]| rules.response_strip.contains(name) && !rules.response_names.contains(name);
            (rules.response_set.clone(), headers.names_where(gone))
        }
        Some(edits) => {
            let changed = names_of(&edits.set);
            let kept = |name: &[u8]| !changed.contains(name) && !edits.remove.contains(name);
            let set = rules.response_set.merged(kept, &edits.set);
            let ours = names_of(&set);
            let gone = |name: &[u8]| {
                (rules.response_strip.contains(name) || edits.remove.contains(name)) && !ours.contains(name)
            };
            let remove = headers.names_where(gone);
            (set, remove)
        }
    };
    Effect::Send(Outgoing::Headers { response: true, change: Change { set, remove, ..Change::default() } })
}

fn names_of(pairs: &Pairs) -> Names {
    Names::new(pairs.names().into_iter().map(Into::into).collect())
}

fn routed_change(rules: &Rules, headers: &HeaderBlock, edits: Edits, metadata: Metadata) -> Change {
    let mut remove = headers.names_where(|name| rules.request_strip.contains(name) || edits.remove.contains(name));
    if !remove.is_empty() {
        let set = names_of(&edits.set);
        remove.retain(|name| !set.contains(name));
    }
    Change { set: edits.set, remove, clear_route_cache: true, metadata }
}

/// The routing answer where it belongs to the headers.
pub fn routed_at_headers(rules: &Rules, headers: &HeaderBlock, edits: Edits, metadata: Metadata) -> Effect {
    let change = routed_change(rules, headers, edits, metadata);
    Effect::Send(Outgoing::Headers { response: false, change })
}

/// The routing answer of the modes whose headers were answered before the body came.
pub fn routed_at_body(rules: &Rules, headers: &HeaderBlock, route: Route, body: &Bytes) -> Result<Effect, String> {
    let changed = if route.splices.is_empty() { None } else { Some(splice(body, &route.splices)?) };
    let mut change = routed_change(rules, headers, route.edits, route.metadata);
    if let Some(changed) = &changed {
        change.set = change.set.with(b"content-length", changed.len().to_string().as_bytes());
    }
    Ok(Effect::Send(Outgoing::Body { response: false, change, body: changed }))
}

/// The body of a routed request in duplex modes: `frames` are the messages of a gRPC request, None in full duplex;
/// `ends` is false if trailers end the request.
pub fn routed_body(
    body: &Bytes,
    splices: &[(usize, usize, Bytes)],
    frames: Option<&[Frame]>,
    ends: bool,
    out: &mut Vec<Effect>,
) -> Result<(), String> {
    let Some(frames) = frames else {
        streamed(false, &splice(body, splices)?, ends, out);
        return Ok(());
    };
    for (data, frame) in splice_frames(body, frames, splices)?.into_iter().zip(frames) {
        out.push(Effect::Send(Outgoing::Piece(Piece {
            compressed: frame.compressed,
            without_message: frame.without_message,
            ..Piece::new(false, data, frame.end)
        })));
    }
    Ok(())
}

/// `data` as legal pieces, the last one with the end flag.
pub fn streamed(response: bool, data: &Bytes, end: bool, out: &mut Vec<Effect>) {
    if data.len() <= MAX_PIECE_BYTES {
        out.push(Effect::Send(Outgoing::Piece(Piece::new(response, data.clone(), end))));
        return;
    }
    for (part, last) in pieces(data) {
        out.push(Effect::Send(Outgoing::Piece(Piece::new(response, part, end && last))));
    }
}

/// The answer to one response body message; `data` is what to forward instead of its bytes.
pub fn response_body(mode: Mode, message: &BodyMessage, data: Bytes, out: &mut Vec<Effect>) {
    match mode {
        Mode::FullDuplex => {
            if !data.is_empty() || message.end {
                streamed(true, &data, message.end, out);
            }
        }
        Mode::Grpc => out.push(Effect::Send(Outgoing::Piece(Piece {
            compressed: message.compressed,
            without_message: message.without_message,
            ..Piece::new(true, data, message.end)
        }))),
        _ if data == message.data => out.push(pass_body(true)),
        _ => {
            let set = Pairs::encode(&[(b"content-length", data.len().to_string().as_bytes())]);
            let change = Change { set, ..Change::default() };
            out.push(Effect::Send(Outgoing::Body { response: true, change, body: Some(data) }));
        }
    }
}

/// Let the last answer of `effects` carry the metadata.
pub fn with_metadata(effects: &mut [Effect], new: Metadata) {
    for effect in effects.iter_mut().rev() {
        let Effect::Send(answer) = effect else { continue };
        match answer {
            Outgoing::Headers { change, .. } | Outgoing::Body { change, .. } => change.metadata = new,
            Outgoing::Piece(piece) => piece.metadata = new,
            Outgoing::Trailers { metadata, .. } => *metadata = new,
            Outgoing::Immediate(_) => continue,
        }
        return;
    }
}
