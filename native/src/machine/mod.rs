//! The state table of one ext_proc stream, without I/O. Twin of `epp/extproc/machine.py`, whose theory holds here too.
//!
//! One thing differs. There, a call with a result is made at once; here it is on its way through a queue while the stream
//! goes on. So between `CallResponseHeaders` and `edited`, and between a held `CallFinished` and `released`, the machine is
//! *waiting*: it must not be fed messages, only the loss of the stream, replies and aborts.

pub mod answers;
mod directions;
pub mod effects;
mod request;
mod response;

use std::borrow::Cow;
use std::sync::Arc;

use answers::{Rules, with_metadata};
use effects::{Effect, Effects};
use request::RequestSide;
use response::ResponseSide;

use crate::bodies::body::Budget;
use crate::wire::headers::HeaderBlock;
use crate::wire::messages::{
    Answer, BodyState, Edits, End, Incoming, Lost, Metadata, Mode, Observe, Opening, Outgoing, Plan, Status,
};

/// Where the request direction stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    New,
    Observed,
    Receiving,
    Deciding,
    Routed,
    Passing,
    Closed,
}

/// What a response is until somebody plans it.
static DEFAULT_PLAN: Plan = Plan {
    ask_headers: false,
    observe: Observe::Off,
    hold_end: false,
    rename: None,
    readers: Vec::new(),
    streams: false,
    skip: false,
};

/// One stream.
#[derive(Debug)]
pub struct Machine {
    phase: Phase,
    opening: Opening,
    rules: Arc<Rules>,
    budget: Arc<Budget>,
    request: Option<Box<RequestSide>>,
    response: ResponseSide,
    plan: Option<Arc<Plan>>,
    asked: bool,
    finished: bool,
    half_closed: bool,
    rest_unseen: bool,
    /// The response headers wait for `edited`.
    headers_asked: Option<(Arc<HeaderBlock>, bool)>,
    /// The last answers wait for `released`.
    held: Option<Effects>,
    last_s: f64,
}

impl Machine {
    pub fn new(rules: Arc<Rules>, budget: Arc<Budget>) -> Self {
        Self {
            phase: Phase::New,
            opening: Opening::default(),
            rules,
            budget,
            request: None,
            response: ResponseSide::default(),
            plan: None,
            asked: false,
            finished: false,
            half_closed: false,
            rest_unseen: false,
            headers_asked: None,
            held: None,
            last_s: 0.0,
        }
    }

    // ── inputs ──

    /// What the first message says about the stream; before it is fed, and only once.
    pub fn open(&mut self, opening: Opening) {
        self.opening = opening;
        if opening.observed && self.phase == Phase::New {
            self.phase = Phase::Observed;
        }
    }

    /// A message came; not while waiting.
    pub fn feed(&mut self, message: Incoming, now: f64, out: &mut Effects) {
        if matches!(self.phase, Phase::Closed | Phase::Observed) {
            return;
        }
        self.last_s = now;
        match message {
            Incoming::ResponseBody(body) => self.response_body(body, now, out),
            Incoming::RequestBody { body, context } => self.request_body(body, context, now, out),
            Incoming::RequestHeaders { headers, end, context } => self.request_headers(headers, end, context, now, out),
            Incoming::ResponseHeaders { headers, end, context } => {
                self.response_headers(headers, end, context, now, out);
            }
            Incoming::RequestTrailers { context } => self.request_trailers(context, now, out),
            Incoming::ResponseTrailers => self.response_trailers(now, out),
            Incoming::Invalid(why) => self.abort(Status::InvalidArgument, why.into(), now, out),
        }
    }

    /// The data plane left.
    pub fn lost(&mut self, how: Lost, now: f64, out: &mut Effects) {
        if self.phase == Phase::Closed {
            return;
        }
        if how == Lost::HalfClosed {
            if matches!(self.phase, Phase::New | Phase::Observed) {
                return self.close(Status::Ok, "".into(), out);
            }
            if self.phase == Phase::Deciding && !self.opening.configured {
                self.half_closed = true;
                return;
            }
        }
        if how != Lost::SendFailed && (self.is_over() || self.ends_unseen()) {
            self.finish(End::Natural, false, now, "".into(), false, out);
            let status = if how == Lost::HalfClosed { Status::Ok } else { Status::Cancelled };
            return self.close(status, how.text().into(), out);
        }
        self.finish(End::Disconnected, false, now, "".into(), false, out);
        self.close(Status::Cancelled, how.text().into(), out);
    }

    /// The handler decided. What comes too late, or a second time, is dropped.
    pub fn answer(&mut self, answer: Answer, now: f64, out: &mut Effects) {
        if self.finished || self.phase == Phase::Closed || !self.asked {
            return;
        }
        match answer {
            Answer::Reply(reply) => {
                out.push(Effect::Send(Outgoing::Immediate(reply)));
                self.finish(End::Replied, false, now, "".into(), false, out);
                self.close(Status::Ok, "".into(), out);
            }
            Answer::Route(route) if self.phase == Phase::Deciding => self.route(*route, now, out),
            Answer::Route(_) => {}
        }
    }

    /// The result of `CallResponseHeaders`.
    pub fn edited(&mut self, edits: Option<Edits>, now: f64, out: &mut Effects) {
        if let Some((headers, end)) = self.headers_asked.take()
            && self.phase != Phase::Closed
        {
            self.headers_passed(&headers, end, edits, now, out);
        }
    }

    /// The result of a held `CallFinished`: the last answers go out, the very last with `metadata`.
    pub fn released(&mut self, metadata: Metadata, out: &mut Effects) {
        let Some(mut held) = self.held.take() else { return };
        if metadata.is_some() {
            with_metadata(&mut held, metadata);
        }
        if matches!(held.last(), Some(Effect::Close { .. })) {
            self.phase = Phase::Closed;
        }
        out.append(&mut held);
    }

    /// Whether only `edited` or `released` lets the stream go on.
    pub fn is_waiting(&self) -> bool {
        self.headers_asked.is_some() || self.held.is_some()
    }

    /// When `tick` has something to do if no message comes; None if only a message can.
    pub fn deadline_s(&self) -> Option<f64> {
        let request = self.request.as_ref()?;
        (self.phase == Phase::Receiving && request.mode.is_duplex()).then(|| self.last_s + self.rules.body_idle_s)
    }

    /// Time passed.
    pub fn tick(&mut self, now: f64, out: &mut Effects) {
        if self.deadline_s().is_some_and(|deadline_s| now >= deadline_s) {
            self.ask(BodyState::TimedOut, out);
        }
    }

    /// End the stream with an error: it was used against the rules, or we stop, or we failed.
    pub fn abort(&mut self, status: Status, why: Cow<'static, str>, now: f64, out: &mut Effects) {
        if self.phase == Phase::Closed {
            return;
        }
        if self.is_over() && self.held.is_none() {
            return self.close(Status::Ok, "".into(), out);
        }
        self.finish(End::Failed, false, now, why.clone(), false, out);
        self.close(status, why, out);
    }

    /// Whether the handler was asked about a request and is still to be told of its end.
    pub fn owes_end(&self) -> bool {
        self.asked && !self.finished
    }

    pub fn response_seen(&self) -> bool {
        self.response.seen
    }

    pub fn add_busy(&mut self, seconds: f64) {
        self.response.busy_s += seconds;
    }

    // ── ends ──

    /// The data plane has got everything that it can expect.
    fn is_over(&self) -> bool {
        self.response.ended && (self.request.is_none() || self.request_ended() || self.phase == Phase::Passing)
    }

    fn request_ended(&self) -> bool {
        self.request.as_ref().is_some_and(|request| request.ended)
    }

    /// Whether the end of the stream is what a good end looks like when we do not see the response's own.
    fn ends_unseen(&self) -> bool {
        if self.phase != Phase::Routed || !self.request_ended() {
            return false;
        }
        if self.opening.response_mode == Mode::None || self.rest_unseen {
            return true;
        }
        !self.opening.configured && !self.response.seen
    }

    fn plan(&self) -> &Plan {
        self.plan.as_deref().unwrap_or(&DEFAULT_PLAN)
    }

    fn finish(&mut self, end: End, complete: bool, now: f64, error: Cow<'static, str>, held: bool, out: &mut Effects) {
        if let Some(request) = &mut self.request {
            request.release();
        }
        if !self.owes_end() {
            return;
        }
        self.finished = true;
        out.push(Effect::CallFinished { outcome: self.response.outcome(end, complete, error, now), held });
    }

    fn close(&mut self, status: Status, details: Cow<'static, str>, out: &mut Effects) {
        self.phase = Phase::Closed;
        self.headers_asked = None;
        self.held = None;
        out.push(Effect::Close { status, details });
    }

    fn illegal(&mut self, why: &'static str, now: f64, out: &mut Effects) {
        self.abort(Status::InvalidArgument, format!("not legal here: {why}").into(), now, out);
    }
}
