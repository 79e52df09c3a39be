//! The hand-over to the event loop: events wait in a queue, an eventfd wakes the loop once.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use rustix::event::{EventfdFlags, eventfd};

use crate::machine::effects::{Chunk, Fed, Head, Outcome, Shown};

/// Names one stream of one I/O thread: place in its table, generation of the place, number of the thread.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Key {
    pub thread: u16,
    pub generation: u16,
    pub index: u32,
}

#[derive(Debug)]
pub enum Told {
    Request(Box<Shown>),
    ResponseHeaders(std::sync::Arc<Head>),
    FeedReaders(Fed),
    ResponseBody(Vec<Chunk>),
    Finished {
        outcome: Box<Outcome>,
        held: bool,
    },
    /// The thread has ended; nothing comes from it any more.
    Stopped,
}

#[derive(Debug)]
pub struct Event {
    pub key: Key,
    pub told: Told,
    /// When it was queued.
    pub at_s: f64,
}

/// With so many events waiting the loop is woken, even if the I/O thread still has work.
const WAKE_AT: usize = 32;

#[derive(Debug)]
pub struct Queue {
    events: Mutex<VecDeque<Event>>,
    /// The eventfd was written and not taken yet.
    woken: AtomicBool,
    fd: OwnedFd,
}

impl Queue {
    pub fn new() -> io::Result<Self> {
        let fd = eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC)?;
        Ok(Self { events: Mutex::default(), woken: AtomicBool::new(false), fd })
    }

    pub fn fd(&self) -> RawFd {
        self.fd.as_raw_fd()
    }

    /// Queue an event. The loop is woken by `wake`, once the I/O thread has nothing else to do, or when many wait.
    pub fn push(&self, event: Event) {
        let mut events = self.lock();
        let Some(event) = merged(events.back_mut(), event) else {
            return;
        };
        events.push_back(event);
        let many = events.len() >= WAKE_AT;
        drop(events);
        if many {
            self.wake();
        }
    }

    /// Wake the loop if events wait and it does not know yet.
    pub fn wake(&self) {
        if !self.woken.load(Ordering::Acquire) && !self.lock().is_empty() && !self.woken.swap(true, Ordering::AcqRel) {
            self.signal();
        }
    }

    /// Take up to `max` events; if more wait, the loop is woken again.
    pub fn take(&self, max: usize) -> Vec<Event> {
        let mut counter = [0; 8];
        // Nothing to read means that nobody has written since: then there is nothing to clear either.
        let _ = rustix::io::read(&self.fd, &mut counter);
        self.woken.store(false, Ordering::Release);
        let mut events = self.lock();
        let count = events.len().min(max);
        let taken = events.drain(..count).collect();
        let more = !events.is_empty();
        drop(events);
        if more {
            self.wake();
        }
        taken
    }

    fn signal(&self) {
        // A full counter is as good as a written one, and no other error can occur on an open eventfd.
        let _ = rustix::io::write(&self.fd, &1u64.to_ne_bytes());
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, VecDeque<Event>> {
        // The queue is whole between any two statements.
        self.events.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Chunks of the stream that was told of last are told together with those; else the event itself.
fn merged(last: Option<&mut Event>, event: Event) -> Option<Event> {
    match (last, event) {
        (
            Some(Event { key, told: Told::ResponseBody(chunks), .. }),
            Event { key: same, told: Told::ResponseBody(more), .. },
        ) if *key == same => {
            chunks.extend(more);
            None
        }
        (_, event) => Some(event),
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn event(index: u32) -> Event {
        Event { key: Key { thread: 0, generation: 0, index }, told: Told::Stopped, at_s: 0.0 }
    }

    fn is_woken(queue: &Queue) -> bool {
        queue.woken.load(Ordering::Acquire)
    }

    #[test]
    fn the_loop_is_woken_once_and_again_for_the_rest() {
        let queue = Queue::new().unwrap();
        queue.push(event(1));
        assert!(!is_woken(&queue));
        queue.wake();
        queue.push(event(2));
        queue.push(event(3));
        assert!(is_woken(&queue));
        assert_eq!(queue.take(2).len(), 2);
        assert!(is_woken(&queue), "one more waits");
        assert_eq!(queue.take(2).len(), 1);
        assert!(!is_woken(&queue));
        queue.wake();
        assert!(!is_woken(&queue), "nothing waits");
    }

    #[test]
    fn chunks_of_one_stream_are_told_together() {
        let queue = Queue::new().unwrap();
        for _ in 0..3 {
            let chunk = Chunk { data: Bytes::new(), end: false, at_s: 0.0, read: Vec::new() };
            queue.push(Event { told: Told::ResponseBody(vec![chunk]), ..event(1) });
        }
        let events = queue.take(10);
        assert!(matches!(&events[..], [Event { told: Told::ResponseBody(chunks), .. }] if chunks.len() == 3));
    }
}
