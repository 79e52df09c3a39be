//! The state of one I/O thread: its connections, its streams, and how both are told to end.

use std::cell::RefCell;
use std::future::poll_fn;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Waker;

use bytes::Bytes;
use h2::RecvStream;
use h2::server::SendResponse;
use tokio::task::{AbortHandle, spawn_local};

use super::queue::Key;
use super::shared::Shared;
use super::stream::Stream;
use super::streams::{StreamCell, Streams};

/// What stops a connection from outside.
#[derive(Default)]
pub struct Control {
    pub stopping: bool,
    pub cut: bool,
    pub waker: Option<Waker>,
}

/// A connection's place among those of its thread.
pub struct Connected {
    thread: Rc<Thread>,
    pub number: usize,
}

impl Drop for Connected {
    fn drop(&mut self) {
        self.thread.connections.borrow_mut()[self.number] = None;
    }
}

/// Lives on its thread.
pub struct Thread {
    pub shared: Arc<Shared>,
    streams: RefCell<Streams>,
    connections: RefCell<Vec<Option<Control>>>,
    accepting: RefCell<Vec<AbortHandle>>,
}

impl Thread {
    pub fn new(number: u16, shared: Arc<Shared>) -> Rc<Self> {
        Rc::new(Self {
            shared,
            streams: RefCell::new(Streams::new(number)),
            connections: RefCell::default(),
            accepting: RefCell::default(),
        })
    }

    // ── connections ──

    /// A connection begins; it is forgotten when the result is dropped.
    pub fn connected(self: &Rc<Self>) -> Connected {
        let mut connections = self.connections.borrow_mut();
        let number = connections.iter().position(Option::is_none).unwrap_or_else(|| {
            connections.push(None);
            connections.len() - 1
        });
        connections[number] = Some(Control { stopping: self.is_stopping(), ..Control::default() });
        Connected { thread: self.clone(), number }
    }

    /// Look at what was said to a connection.
    pub fn control<T>(&self, number: usize, look: impl FnOnce(&mut Control) -> T) -> T {
        let mut connections = self.connections.borrow_mut();
        look(connections[number].get_or_insert_default())
    }

    // ── streams ──

    /// Serve a new stream in a task of its own.
    pub fn open(self: &Rc<Self>, recv: RecvStream, respond: SendResponse<Bytes>) {
        let shared = self.shared.clone();
        shared.stats.opened();
        let stream = self.streams.borrow_mut().insert(|key| Stream::new(key, shared, recv, respond));
        let thread = self.clone();
        spawn_local(async move {
            poll_fn(|cx| stream.borrow_mut().poll(cx)).await;
            thread.streams.borrow_mut().remove(stream.borrow().key());
        });
    }

    /// The stream, unless it has ended.
    pub fn stream(&self, key: Key) -> Option<StreamCell> {
        self.streams.borrow().get(key).cloned()
    }

    pub fn streams(&self) -> Vec<StreamCell> {
        self.streams.borrow().all()
    }

    pub fn has_no_streams(&self) -> bool {
        self.streams.borrow().is_empty()
    }

    // ── stopping ──

    /// A listener's task, which stopping ends.
    pub fn accepts(&self, task: AbortHandle) {
        self.accepting.borrow_mut().push(task);
    }

    fn is_stopping(&self) -> bool {
        self.shared.health.borrow().stopped
    }

    /// Accept nothing more, tell all connections to go away.
    pub fn begin_stopping(&self) {
        for task in self.accepting.borrow_mut().drain(..) {
            task.abort();
        }
        self.tell_connections(|control| control.stopping = true);
    }

    pub fn cut_connections(&self) {
        self.tell_connections(|control| control.cut = true);
    }

    pub fn has_no_connections(&self) -> bool {
        self.connections.borrow().iter().all(Option::is_none)
    }

    fn tell_connections(&self, tell: impl Fn(&mut Control)) {
        for control in self.connections.borrow_mut().iter_mut().flatten() {
            tell(control);
            if let Some(waker) = &control.waker {
                waker.wake_by_ref();
            }
        }
    }
}
