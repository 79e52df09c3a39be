//! One ext_proc stream over HTTP/2: moves bytes between the wire and its machine.
//!
//! A stream is driven from two places of the same thread: its own task, when the network has something for it, and the task
//! that carries out what Python said. What waits is bounded: a stream is not read while its peer does not take our answers,
//! while Python has not taken what it wanted to be told, or while the machine waits for Python.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use h2::server::SendResponse;
use h2::{RecvStream, SendStream};

use super::grpc::{accepted, end_with, refuse};
use super::queue::{Event, Key, Told};
use super::shared::{Settings, Shared};
use crate::bodies::body::Partial;
use crate::machine::Machine;
use crate::machine::effects::{Effect, Effects, Outcome};
use crate::wire::codec::{OutBuffer, decode};
use crate::wire::framing::{Assembler, Broken};
use crate::wire::messages::{Answer, Edits, End, Lost, Metadata, Outgoing, Status};

/// Response bytes that the peer has not taken, or Python was not told of: Envoy's largest chunk.
const MAX_WAITING_BYTES: usize = 1024 * 1024;

const DEFECT: &str = "internal error";

/// What Python decided about a stream.
#[derive(Debug)]
pub enum Command {
    Answer(Answer),
    Edited(Option<Edits>),
    Released(Metadata),
    /// So many bytes that were told have been taken.
    Taken(usize),
    /// Its side of the stream failed.
    Abort(Cow<'static, str>),
}

pub struct Stream {
    key: Key,
    shared: Arc<Shared>,
    settings: Arc<Settings>,
    machine: Machine,
    began_s: f64,
    first: bool,
    /// None once the peer has half-closed.
    recv: Option<RecvStream>,
    wire: Wire,
    assembler: Assembler,
    partial: Partial,
    outbox: VecDeque<Bytes>,
    outbox_bytes: usize,
    /// How to end the stream once the outbox is empty; None while it lasts.
    closing: Option<(Status, Cow<'static, str>)>,
    /// Nothing can be written any more.
    broken: bool,
    /// Bytes that Python is told of and has not taken.
    untaken_bytes: usize,
    over: bool,
    effects: Effects,
    waker: Option<Waker>,
}

/// Our half of the HTTP/2 stream.
enum Wire {
    /// Headers are sent with the first message.
    Unopened(SendResponse<Bytes>),
    Open(SendStream<Bytes>),
    Ended,
}

impl Stream {
    pub fn new(key: Key, shared: Arc<Shared>, recv: RecvStream, respond: SendResponse<Bytes>) -> Self {
        let settings = shared.settings();
        let partial = Partial::new(shared.budget.clone());
        let machine = Machine::new(settings.rules.clone(), shared.budget.clone());
        Self {
            key,
            machine,
            settings,
            began_s: shared.clock.now_s(),
            shared,
            first: true,
            recv: Some(recv),
            wire: Wire::Unopened(respond),
            assembler: Assembler::default(),
            partial,
            outbox: VecDeque::new(),
            outbox_bytes: 0,
            closing: None,
            broken: false,
            untaken_bytes: 0,
            over: false,
            effects: Vec::new(),
            waker: None,
        }
    }

    pub fn key(&self) -> Key {
        self.key
    }

    /// Do all that can be done; ready when the stream is over.
    pub fn poll(&mut self, cx: &mut Context) -> Poll<()> {
        if !self.waker.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
            self.waker = Some(cx.waker().clone());
        }
        self.guarded(|stream| {
            while !stream.over {
                stream.flush(Some(cx));
                if stream.over || !stream.read(cx) {
                    break;
                }
            }
        });
        if self.over { Poll::Ready(()) } else { Poll::Pending }
    }

    /// Carry out what Python said.
    pub fn command(&mut self, command: Command) {
        self.guarded(|stream| stream.carry_out(command));
    }

    /// Look after the deadline.
    pub fn tick(&mut self, now: f64) {
        if self.machine.deadline_s().is_some_and(|deadline_s| now >= deadline_s) {
            self.guarded(|stream| {
                stream.machine.tick(now, &mut stream.effects);
                stream.run(now, None);
                stream.flush(None);
                stream.wake();
            });
        }
    }

    /// End the stream with an error, now, whatever it is doing.
    pub fn abort(&mut self, status: Status, why: &'static str) {
        self.guarded(|stream| {
            let now = stream.shared.clock.now_s();
            let unsent = !stream.outbox.is_empty();
            stream.outbox.clear();
            stream.outbox_bytes = 0;
            stream.machine.abort(status, why.into(), now, &mut stream.effects);
            stream.run(now, None);
            if unsent {
                // What the machine has said already will not arrive: that is no clean end.
                stream.closing = Some((status, why.into()));
            }
            stream.flush(None);
            stream.wake();
        });
    }

    /// Give up what could not be sent; `abort` came before.
    pub fn cut(&mut self) {
        if let Wire::Open(send) = &mut self.wire {
            send.send_reset(h2::Reason::CANCEL);
        }
        self.broken = true;
        self.guarded(|stream| stream.flush(None));
        self.wake();
    }

    // ── reading ──

    /// Take one step of reading; false if there is nothing to do until something happens.
    fn read(&mut self, cx: &mut Context) -> bool {
        if !self.may_read() {
            return self.noticed_reset(cx);
        }
        match self.assembler.next(self.settings.max_receive_bytes) {
            Ok(Some(message)) => {
                self.partial.holds(0);
                self.received(&message);
                return true;
            }
            Ok(None) => {
                let held = self.assembler.held_bytes();
                // A usual chunk may become whole, so that the handler can say why it is refused.
                if !self.partial.holds(held) && held > MAX_WAITING_BYTES {
                    self.refuse(Broken::NoMemory);
                    return true;
                }
            }
            Err(broken) => {
                self.refuse(broken);
                return true;
            }
        }
        let Some(recv) = &mut self.recv else { return false };
        match recv.poll_data(cx) {
            Poll::Pending => return false,
            Poll::Ready(Some(Ok(data))) => {
                // Fails only for more than was received.
                let _ = recv.flow_control().release_capacity(data.len());
                self.assembler.push(data);
            }
            Poll::Ready(Some(Err(_))) => self.lost(Lost::Cancelled),
            Poll::Ready(None) => {
                self.recv = None;
                self.lost(Lost::HalfClosed);
            }
        }
        true
    }

    fn may_read(&self) -> bool {
        self.recv.is_some()
            && self.closing.is_none()
            && !self.machine.is_waiting()
            && self.outbox_bytes <= MAX_WAITING_BYTES
            && self.untaken_bytes <= MAX_WAITING_BYTES
    }

    fn noticed_reset(&mut self, cx: &mut Context) -> bool {
        let reset = match &mut self.wire {
            Wire::Unopened(respond) => respond.poll_reset(cx),
            Wire::Open(send) => send.poll_reset(cx),
            Wire::Ended => return false,
        };
        if reset.is_pending() {
            return false;
        }
        self.recv = None;
        self.lost(Lost::Cancelled);
        true
    }

    fn received(&mut self, data: &Bytes) {
        #[cfg(test)]
        tests::panic_if_wanted();
        let now = self.shared.clock.now_s();
        let received = decode(data);
        if self.first {
            self.first = false;
            self.machine.open(received.opening);
        }
        self.machine.feed(received.message, now, &mut self.effects);
        self.run(now, Some(now));
        if self.machine.response_seen() {
            self.machine.add_busy(self.shared.clock.now_s() - now);
        }
    }

    fn refuse(&mut self, broken: Broken) {
        let now = self.shared.clock.now_s();
        let (status, why) = match broken {
            Broken::TooLong(size) => (
                Status::ResourceExhausted,
                format!("a message of {size} bytes is longer than the limit of {}", self.settings.max_receive_bytes),
            ),
            Broken::NoMemory => (Status::ResourceExhausted, "all messages together take too much memory".into()),
            Broken::Compressed => (Status::Unimplemented, "compressed messages are not supported".into()),
        };
        self.machine.abort(status, why.into(), now, &mut self.effects);
        self.run(now, None);
    }

    fn lost(&mut self, how: Lost) {
        let now = self.shared.clock.now_s();
        if how != Lost::HalfClosed {
            self.broken = true;
        }
        self.machine.lost(how, now, &mut self.effects);
        self.run(now, None);
        if self.broken && self.closing.is_none() {
            self.closing = Some((Status::Cancelled, how.text().into()));
        }
    }

    // ── Python's side ──

    fn carry_out(&mut self, command: Command) {
        let now = self.shared.clock.now_s();
        let was_paused = !self.may_read();
        match command {
            Command::Answer(answer) => self.machine.answer(answer, now, &mut self.effects),
            Command::Edited(edits) => self.machine.edited(edits, now, &mut self.effects),
            Command::Released(metadata) => self.machine.released(metadata, &mut self.effects),
            Command::Taken(bytes) => self.untaken_bytes = self.untaken_bytes.saturating_sub(bytes),
            Command::Abort(why) => self.machine.abort(Status::Internal, why, now, &mut self.effects),
        }
        self.run(now, None);
        self.flush(None);
        if self.closing.is_some() || (was_paused && self.may_read()) {
            self.wake();
        }
    }

    /// Run the effects; `since_s` is when the message came that caused them.
    fn run(&mut self, now: f64, since_s: Option<f64>) {
        if self.effects.is_empty() {
            return;
        }
        let mut buffer = OutBuffer::default();
        let mut effects = std::mem::take(&mut self.effects);
        for effect in effects.drain(..) {
            match effect {
                Effect::Send(answer) => self.put(&mut buffer, &answer),
                Effect::Close { status, details } => {
                    self.closing.get_or_insert((status, details));
                }
                Effect::CallRequest(shown) => self.tell(now, Told::Request(shown)),
                Effect::CallResponseHeaders(head) => self.tell(now, Told::ResponseHeaders(head)),
                Effect::FeedReaders(fed) => {
                    self.untaken_bytes += fed.data.len();
                    self.tell(now, Told::FeedReaders(fed));
                }
                Effect::CallResponseBody(chunk) => {
                    self.untaken_bytes += chunk.data.len();
                    self.tell(now, Told::ResponseBody(vec![*chunk]));
                }
                Effect::CallFinished { mut outcome, held } => {
                    if let Some(since_s) = since_s.filter(|_| self.machine.response_seen()) {
                        outcome.busy_s += self.shared.clock.now_s() - since_s;
                    }
                    self.tell(now, Told::Finished { outcome, held });
                }
            }
        }
        self.effects = effects;
        buffer.take(|bytes| {
            self.outbox_bytes += bytes.len();
            self.outbox.push_back(bytes);
        });
    }

    fn put(&mut self, buffer: &mut OutBuffer, answer: &Outgoing) {
        let length = buffer.put(answer);
        if length > self.settings.max_send_bytes {
            let why =
                format!("an answer of {length} bytes is longer than the limit of {}", self.settings.max_send_bytes);
            self.closing = Some((Status::ResourceExhausted, why.into()));
        }
    }

    fn tell(&self, now: f64, told: Told) {
        self.shared.queue.push(Event { key: self.key, told, at_s: now });
    }

    // ── writing ──

    /// Write what the peer takes, then the end. Without a context the task is woken if something is left.
    fn flush(&mut self, mut cx: Option<&mut Context>) {
        while !self.broken && !self.outbox.is_empty() {
            match self.write(cx.as_deref_mut()) {
                Ok(true) => {}
                Ok(false) => return,
                Err(_) => self.lost(Lost::SendFailed),
            }
        }
        if self.closing.is_some() {
            self.end();
        }
    }

    /// Write one piece; false if the peer takes nothing now.
    fn write(&mut self, cx: Option<&mut Context>) -> Result<bool, h2::Error> {
        if let Wire::Unopened(respond) = &mut self.wire {
            self.wire = Wire::Open(respond.send_response(accepted(), false)?);
        }
        let Wire::Open(send) = &mut self.wire else {
            return Ok(false);
        };
        let Some(front) = self.outbox.front_mut() else {
            return Ok(true);
        };
        send.reserve_capacity(self.outbox_bytes);
        let mut capacity = send.capacity();
        if capacity == 0 {
            let Some(cx) = cx else {
                self.wake();
                return Ok(false);
            };
            capacity = match send.poll_capacity(cx) {
                Poll::Pending => return Ok(false),
                Poll::Ready(Some(result)) => result?,
                Poll::Ready(None) => return Err(h2::Reason::CANCEL.into()),
            };
        }
        let size = capacity.min(front.len());
        let piece = front.split_to(size);
        if front.is_empty() {
            self.outbox.pop_front();
        }
        self.outbox_bytes -= size;
        if size > 0 {
            send.send_data(piece, false)?;
        }
        Ok(true)
    }

    fn end(&mut self) {
        let Some((status, details)) = self.closing.take() else {
            return;
        };
        if !self.broken {
            match std::mem::replace(&mut self.wire, Wire::Ended) {
                Wire::Unopened(mut respond) => refuse(&mut respond, status, &details),
                Wire::Open(mut send) => end_with(&mut send, status, &details),
                Wire::Ended => {}
            }
        }
        self.wire = Wire::Ended;
        self.recv = None;
        self.over = true;
        self.shared.stats.ended(status, self.shared.clock.now_s() - self.began_s);
    }

    fn wake(&self) {
        if let Some(waker) = &self.waker {
            waker.wake_by_ref();
        }
    }

    // ── our own faults ──

    /// Take a step; if it panics, this stream alone ends.
    fn guarded(&mut self, step: impl FnOnce(&mut Self)) {
        if self.over {
            return;
        }
        if catch_unwind(AssertUnwindSafe(|| step(self))).is_err() {
            self.effects.clear();
            self.outbox.clear();
            self.outbox_bytes = 0;
            self.fail();
            self.closing = Some((Status::Internal, DEFECT.into()));
            self.end();
            self.wake();
        }
    }

    /// Tell Python of the end that is still owed.
    fn fail(&mut self) {
        let owed = self.machine.owes_end();
        let now = self.shared.clock.now_s();
        let aborted = catch_unwind(AssertUnwindSafe(|| {
            self.machine.abort(Status::Internal, DEFECT.into(), now, &mut self.effects);
            self.run(now, None);
        }));
        if owed && aborted.is_err() {
            self.tell(now, Told::Finished { outcome: failed(now), held: false });
        }
    }
}

/// An outcome of which nothing is known but the failure.
fn failed(now: f64) -> Box<Outcome> {
    Box::new(Outcome {
        end: End::Failed,
        complete: false,
        error: DEFECT.into(),
        head: None,
        streaming: false,
        chunks: 0,
        size_bytes: 0,
        read: Vec::new(),
        first_s: None,
        last_s: None,
        end_s: now,
        busy_s: 0.0,
        gaps: Vec::new(),
        gaps_s: 0.0,
    })
}

#[cfg(test)]
#[path = "stream_tests.rs"]
mod tests;
