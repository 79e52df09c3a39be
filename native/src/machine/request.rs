//! The request of one stream: collected until it can be shown, then answered as the mode wants it.
//! Twin of `epp/extproc/request.py`.

use std::sync::Arc;

use bytes::Bytes;

use super::answers::{Rules, pass_body, pass_trailers, routed_at_body, routed_at_headers, routed_body};
use super::effects::{Effect, Shown};
use crate::bodies::body::{Body, Budget, Frame};
use crate::bodies::readers::{REQUEST_READERS, Readers};
use crate::wire::headers::HeaderBlock;
use crate::wire::messages::{BodyMessage, BodyState, Context, Mode, Route};

#[derive(Debug)]
pub struct RequestSide {
    pub mode: Mode,
    /// No further body message is due.
    pub ended: bool,
    /// Trailers came.
    pub trailers: bool,
    headers: Arc<HeaderBlock>,
    context: Context,
    at_s: f64,
    body: Body,
    /// Fed with what comes of the body, at once.
    readers: Option<Box<Readers>>,
    /// What was shown of the body.
    shown: Bytes,
    state: BodyState,
    frames: Option<Vec<Frame>>,
    /// The body itself ends the request; false if trailers do.
    ends: bool,
    /// Body messages that will be answered once the headers were.
    owed: usize,
}

impl RequestSide {
    pub fn new(headers: Arc<HeaderBlock>, end: bool, mode: Mode, rules: &Rules, budget: Arc<Budget>, now: f64) -> Self {
        let names = &rules.request_readers;
        let readers = (!names.is_empty()).then(|| Box::new(Readers::new(names, REQUEST_READERS, &headers)));
        Self {
            mode,
            ended: end,
            trailers: false,
            headers,
            context: None,
            at_s: now,
            body: Body::new(budget, rules.max_body_bytes),
            readers,
            shown: Bytes::new(),
            state: BodyState::Absent,
            frames: (mode == Mode::Grpc).then(Vec::new),
            ends: true,
            owed: 0,
        }
    }

    /// Remember the last metadata context that is not empty.
    pub fn note(&mut self, context: Context) {
        if context.is_some() {
            self.context = context;
        }
    }

    /// What is known of the body when only the headers came; None if body messages must be awaited.
    pub fn state_at_headers(&self) -> Option<BodyState> {
        if self.ended {
            return Some(BodyState::Absent);
        }
        matches!(self.mode, Mode::None | Mode::Streamed).then_some(BodyState::Unseen)
    }

    /// Keep a body message; says what is known of the body if the handler is to be asked now.
    pub fn collect(&mut self, message: BodyMessage) -> Option<BodyState> {
        let (start, size) = (self.body.size_bytes, message.data.len());
        let read = self.readers.is_some().then(|| message.data.clone());
        if let Err(broken) = self.body.add(message.data) {
            return Some(broken);
        }
        if let (Some(readers), Some(data)) = (&mut self.readers, read) {
            readers.feed(&data);
        }
        if let Some(frames) = &mut self.frames {
            let BodyMessage { end, compressed, without_message, .. } = message;
            frames.push(Frame { start, stop: start + size, end, compressed, without_message });
        }
        if message.end || self.mode == Mode::Buffered {
            return Some(BodyState::Complete);
        }
        (self.mode == Mode::BufferedPartial).then_some(BodyState::Unseen)
    }

    /// Trailers end the body: no piece of it will carry the end flag.
    pub fn end_by_trailers(&mut self) {
        self.ends = false;
    }

    /// A body message came that will be answered once the headers were.
    pub fn owe(&mut self, end: bool) {
        self.owed += 1;
        self.ended |= end;
    }

    /// The request for the handler; nothing is collected any more.
    pub fn show(&mut self, state: BodyState) -> Box<Shown> {
        self.state = state;
        if state == BodyState::Complete {
            self.shown = self.body.whole();
        }
        if self.mode != Mode::Streamed {
            self.ended = true;
        }
        let whole = (state == BodyState::Complete).then_some(&self.shown[..]);
        Box::new(Shown {
            headers: self.headers.clone(),
            context: self.context.take(),
            at_s: self.at_s,
            body: self.shown.clone(),
            state,
            read: self.readers.take().map_or_else(Vec::new, |mut readers| readers.results(whole)),
        })
    }

    /// The answers to everything that came of a routed request, in their order.
    pub fn route(&mut self, rules: &Rules, route: Route, out: &mut Vec<Effect>) -> Result<(), String> {
        let begun = out.len();
        let result = self.routed(rules, route, out);
        if result.is_err() {
            out.truncate(begun);
        }
        result
    }

    fn routed(&mut self, rules: &Rules, route: Route, out: &mut Vec<Effect>) -> Result<(), String> {
        if self.mode.is_whole() && self.state != BodyState::Absent {
            out.push(routed_at_body(rules, &self.headers, route, &self.shown)?);
        } else {
            out.push(routed_at_headers(rules, &self.headers, route.edits, route.metadata));
            if self.mode.is_duplex() && self.state != BodyState::Absent {
                routed_body(&self.shown, &route.splices, self.frames.as_deref(), self.ends, out)?;
            } else if !route.splices.is_empty() {
                return Err("the route replaces spans of a body that was not seen".into());
            }
            out.extend((0..self.owed).map(|_| pass_body(false)));
        }
        if self.trailers {
            out.push(pass_trailers(false));
        }
        Ok(())
    }

    /// Whether a route can still be expressed: the body is not lost, and an answer is due that can change headers.
    pub fn is_routable(&self) -> bool {
        let lost = matches!(self.state, BodyState::TimedOut | BodyState::TooLarge | BodyState::NoMemory);
        !lost && (self.ends || !self.mode.is_whole())
    }

    /// Give the body's memory back.
    pub fn release(&mut self) {
        self.body.release();
        self.shown = Bytes::new();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bodies::read::Read;
    use crate::bodies::readers::tests::packed;

    fn side(limit: usize) -> RequestSide {
        let rules = Rules {
            request_readers: vec!["pieces".into(), "of python".into()],
            max_body_bytes: limit,
            ..Rules::default()
        };
        RequestSide::new(Arc::new(HeaderBlock::default()), false, Mode::FullDuplex, &rules, Arc::default(), 0.0)
    }

    fn piece(data: &'static [u8], end: bool) -> BodyMessage {
        BodyMessage { data: Bytes::from_static(data), end, compressed: false, without_message: false }
    }

    #[test]
    fn readers_are_fed_with_each_piece_as_it_comes() {
        let mut side = side(100);
        assert_eq!(side.collect(piece(b"ab", false)), None);
        assert_eq!(side.collect(piece(b"c", true)), Some(BodyState::Complete));
        assert_eq!(side.show(BodyState::Complete).read, [packed(&[2, 1]), Read::Python("of python".into())]);
    }

    #[test]
    fn readers_know_what_came_before_a_body_was_too_large() {
        let mut side = side(2);
        assert_eq!(side.collect(piece(b"ab", false)), None);
        assert_eq!(side.collect(piece(b"c", true)), Some(BodyState::TooLarge));
        assert_eq!(side.show(BodyState::TooLarge).read[0], packed(&[2]));
    }
}
