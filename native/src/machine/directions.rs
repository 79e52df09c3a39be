//! The two directions of a stream: what each message of the request and of the response does.

use std::sync::Arc;

use bytes::Bytes;

use super::answers::{self, pass_body, pass_headers, pass_trailers, response_headers, streamed};
use super::effects::{Effect, Effects, Fed};
use super::request::RequestSide;
use super::{DEFAULT_PLAN, Machine, Phase};
use crate::wire::headers::HeaderBlock;
use crate::wire::messages::{BodyMessage, BodyState, Context, Edits, End, Mode, Observe, Plan, Route, Status};

impl Machine {
    // ── the request direction ──

    pub(super) fn request_headers(
        &mut self,
        headers: Arc<HeaderBlock>,
        end: bool,
        context: Context,
        now: f64,
        out: &mut Effects,
    ) {
        if self.phase != Phase::New {
            return self.illegal("request_headers are not the first message", now, out);
        }
        let mode = self.opening.request_mode;
        let mut request = Box::new(RequestSide::new(headers, end, mode, &self.rules, self.budget.clone(), now));
        request.note(context);
        let state = request.state_at_headers();
        self.request = Some(request);
        self.phase = Phase::Receiving;
        match state {
            Some(state) => self.ask(state, out),
            None if mode.is_whole() => out.push(pass_headers(false)),
            None => {}
        }
    }

    pub(super) fn request_body(&mut self, message: BodyMessage, context: Context, now: f64, out: &mut Effects) {
        let Some(request) = &mut self.request else {
            return self.illegal("request_body without request_headers", now, out);
        };
        request.note(context);
        match self.phase {
            Phase::Receiving => {
                if let Some(state) = request.collect(message) {
                    self.ask(state, out);
                }
            }
            // Some Envoys repeat the end of the stream (envoyproxy/envoy#46237): nothing is due for it.
            _ if request.trailers || !matches!(request.mode, Mode::Streamed | Mode::None) => {}
            Phase::Deciding => request.owe(message.end),
            Phase::Routed => {
                request.ended |= message.end;
                out.push(pass_body(false));
                self.request_part_over(now, out);
            }
            _ => {}
        }
    }

    pub(super) fn request_trailers(&mut self, context: Context, now: f64, out: &mut Effects) {
        let Some(request) = &mut self.request else {
            return self.illegal("request_trailers without request_headers", now, out);
        };
        if request.trailers {
            return self.illegal("request_trailers twice", now, out);
        }
        request.trailers = true;
        request.note(context);
        if self.phase == Phase::Receiving {
            request.end_by_trailers();
            return self.ask(BodyState::Complete, out);
        }
        request.ended = true;
        if self.phase == Phase::Routed {
            out.push(pass_trailers(false));
            self.request_part_over(now, out);
        }
    }

    pub(super) fn ask(&mut self, state: BodyState, out: &mut Effects) {
        let Some(request) = &mut self.request else { return };
        self.phase = Phase::Deciding;
        self.asked = true;
        out.push(Effect::CallRequest(request.show(state)));
    }

    pub(super) fn route(&mut self, route: Route, now: f64, out: &mut Effects) {
        let plan = route.plan.clone();
        let result = match &mut self.request {
            Some(request) if request.is_routable() => request.route(&self.rules, route, out),
            _ => Err("a request was routed that cannot be forwarded".into()),
        };
        if let Err(why) = result {
            return self.abort(Status::Internal, why.into(), now, out);
        }
        if let Some(request) = &mut self.request {
            request.release();
        }
        self.phase = Phase::Routed;
        self.plan = Some(plan);
        self.request_part_over(now, out);
    }

    /// After answers of the routed request: end the stream if that was all that is wanted.
    pub(super) fn request_part_over(&mut self, now: f64, out: &mut Effects) {
        // In full duplex Envoy may have sent response chunks by now; it would lose them if the stream were closed.
        let skips = self.plan().skip && !self.opening.response_mode.is_duplex();
        let wanted = !(self.half_closed || skips);
        if wanted || !self.request_ended() {
            return;
        }
        self.finish(End::Natural, false, now, "".into(), false, out);
        self.close(Status::Ok, "".into(), out);
    }

    // ── the response direction ──

    pub(super) fn response_headers(
        &mut self,
        headers: Arc<HeaderBlock>,
        end: bool,
        context: Context,
        now: f64,
        out: &mut Effects,
    ) {
        if self.response.seen {
            return self.illegal("response_headers after the response began", now, out);
        }
        self.response_begins(Some((headers.clone(), context)), now, out);
        if self.phase == Phase::Routed
            && self.plan().ask_headers
            && let Some(head) = &self.response.head
        {
            out.push(Effect::CallResponseHeaders(head.clone()));
            self.headers_asked = Some((headers, end));
            return;
        }
        self.headers_passed(&headers, end, None, now, out);
    }

    pub(super) fn headers_passed(
        &mut self,
        headers: &HeaderBlock,
        end: bool,
        edits: Option<Edits>,
        now: f64,
        out: &mut Effects,
    ) {
        let begun = out.len();
        out.push(response_headers(&self.rules, headers, edits));
        if end {
            self.response_ends(begun, None, true, now, out);
        }
    }

    /// The first message of the response. Before the route it leaves nothing to decide.
    fn response_begins(&mut self, headers: Option<(Arc<HeaderBlock>, Context)>, now: f64, out: &mut Effects) {
        if self.phase != Phase::Routed {
            self.finish(End::Disconnected, false, now, "".into(), false, out);
            self.phase = Phase::Passing;
        }
        let may_rename = matches!(self.opening.response_mode, Mode::FullDuplex | Mode::Buffered);
        let plan: &Plan = self.plan.as_deref().unwrap_or(&DEFAULT_PLAN);
        self.response.begin(headers, now, plan, may_rename);
    }

    pub(super) fn response_body(&mut self, message: BodyMessage, now: f64, out: &mut Effects) {
        if !self.response.seen {
            self.response_begins(None, now, out);
        }
        if self.response.ended {
            return;
        }
        let (mode, end) = (self.opening.response_mode, message.end);
        let over = end || mode == Mode::Buffered;
        if !message.data.is_empty() {
            self.response.take(&message.data, &self.rules.gap_bounds_s, now);
        }
        let data = match &mut self.response.renamer {
            Some(renamer) => renamer.feed(message.data.clone(), over),
            None => message.data.clone(),
        };
        let begun = out.len();
        answers::response_body(mode, &message, data, out);
        let told = self.told(message.data, end, now);
        if over {
            return self.response_ends(begun, told, end, now, out);
        }
        self.rest_unseen = mode == Mode::BufferedPartial;
        out.extend(told.into_iter().flatten());
    }

    /// What Python is to be told of a chunk: its own readers, then the handler.
    fn told(&mut self, data: Bytes, end: bool, now: f64) -> Option<Effects> {
        if data.is_empty() {
            return None;
        }
        let feeds = self.response.wants_python();
        let observed = self.response.observe != Observe::Off;
        if !feeds && !observed {
            return None;
        }
        let mut told = Vec::with_capacity(2);
        if feeds {
            told.push(Effect::FeedReaders(Fed { data: data.clone(), head: self.response.head.clone() }));
        }
        if observed {
            told.push(Effect::CallResponseBody(self.response.observed(data, end, now)));
        }
        Some(told)
    }

    pub(super) fn response_trailers(&mut self, now: f64, out: &mut Effects) {
        if self.response.trailers {
            return self.illegal("response_trailers twice", now, out);
        }
        self.response.trailers = true;
        if !self.response.seen {
            self.response_begins(None, now, out);
        }
        if self.response.ended {
            out.push(pass_trailers(true));
            return;
        }
        let begun = out.len();
        if let Some(renamer) = &mut self.response.renamer {
            let tail = renamer.feed(Bytes::new(), true);
            if !tail.is_empty() {
                streamed(true, &tail, false, out);
            }
        }
        out.push(pass_trailers(true));
        self.response_ends(begun, None, true, now, out);
    }

    /// The response is over. `out` has its last answers from `begun` on; `told` is what Python is still to be told of the
    /// body; `may_close`: no trailers can follow.
    fn response_ends(&mut self, begun: usize, told: Option<Effects>, may_close: bool, now: f64, out: &mut Effects) {
        self.response.ended = true;
        let closes = may_close && self.is_over();
        if self.plan().hold_end && self.asked && !self.finished {
            let mut held = out.split_off(begun);
            out.extend(told.into_iter().flatten());
            self.finish(End::Natural, true, now, "".into(), true, out);
            if closes {
                held.push(Effect::Close { status: Status::Ok, details: "".into() });
            }
            self.held = Some(held);
            return;
        }
        out.extend(told.into_iter().flatten());
        self.finish(End::Natural, true, now, "".into(), false, out);
        if closes {
            // The data plane closes now, too. Not waiting for that saves a read.
            self.close(Status::Ok, "".into(), out);
        }
    }
}
