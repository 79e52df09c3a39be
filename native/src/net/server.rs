//! The I/O threads: each has its runtime, accepts from all listeners, and carries out what Python says.

use std::cell::RefCell;
use std::future::poll_fn;
use std::io;
use std::net::TcpListener;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use bytes::Bytes;
use h2::RecvStream;
use h2::server::SendResponse;
use tokio::runtime::Builder;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::{AbortHandle, LocalSet, spawn_local};
use tokio::time::sleep;

use super::connection::{self, Control};
use super::queue::{Event, Key, Told};
use super::shared::Shared;
use super::stopping;
use super::stream::{Command, Stream};
use super::streams::{StreamCell, Streams};

/// Deadlines are looked after in a sweep over all streams, so that a stream pays nothing; one is late by a tenth at most.
const SWEEPS_PER_DEADLINE: f64 = 10.0;
const MIN_SWEEP_S: f64 = 0.01;
const MAX_SWEEP_S: f64 = 60.0;

/// A listener that fails (too many open files) is asked again after this.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// What a port serves.
#[derive(Debug, Clone, Copy)]
pub struct ServedPort {
    pub secure: bool,
    pub extproc: bool,
    pub health: bool,
}

/// What Python says to an I/O thread.
pub enum Say {
    Commands(Vec<(Key, Command)>),
    Stop { grace: Option<Duration> },
}

/// The Python side's hold of an I/O thread.
#[derive(Debug)]
pub struct ThreadHandle {
    say: UnboundedSender<Say>,
    join: Option<JoinHandle<()>>,
}

impl ThreadHandle {
    /// Start a thread that accepts from all listeners.
    pub fn start(number: u16, shared: Arc<Shared>, listeners: Vec<(TcpListener, ServedPort)>) -> io::Result<Self> {
        let (say, said) = unbounded_channel();
        let waking = shared.clone();
        let runtime = Builder::new_current_thread()
            .enable_io()
            .enable_time()
            // Nothing is left to do: now the event loop may look.
            .on_thread_park(move || waking.queue.wake())
            .build()?;
        let join = std::thread::Builder::new().name(format!("epp-io-{number}")).spawn(move || {
            let key = Key { thread: number, generation: 0, index: 0 };
            // A panic ends the thread like an order to stop; whoever waits for it must learn of its end.
            let _ = catch_unwind(AssertUnwindSafe(|| {
                LocalSet::new().block_on(&runtime, Thread::new(number, shared.clone()).run(listeners, said));
                drop(runtime);
            }));
            shared.queue.push(Event { key, told: Told::Stopped, at_s: shared.clock.now_s() });
            shared.queue.wake();
        })?;
        Ok(Self { say, join: Some(join) })
    }

    /// False if the thread has ended.
    pub fn say(&self, what: Say) -> bool {
        self.say.send(what).is_ok()
    }

    /// Wait for the end of a thread that was stopped.
    pub fn join(&mut self) {
        if let Some(join) = self.join.take() {
            // A panic was reported by the hook when it happened.
            let _ = join.join();
        }
    }
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

/// The state of one I/O thread; lives on it.
pub struct Thread {
    pub shared: Arc<Shared>,
    streams: RefCell<Streams>,
    connections: RefCell<Vec<Option<Control>>>,
    accepting: RefCell<Vec<AbortHandle>>,
}

impl Thread {
    fn new(number: u16, shared: Arc<Shared>) -> Rc<Self> {
        Rc::new(Self {
            shared,
            streams: RefCell::new(Streams::new(number)),
            connections: RefCell::default(),
            accepting: RefCell::default(),
        })
    }

    async fn run(self: Rc<Self>, listeners: Vec<(TcpListener, ServedPort)>, mut said: UnboundedReceiver<Say>) {
        for (listener, port) in listeners {
            let task = spawn_local(self.clone().accept(listener, port));
            self.accepting.borrow_mut().push(task.abort_handle());
        }
        spawn_local(self.clone().sweep());
        let mut stopping = None;
        while let Some(say) = self.next(&mut said, &mut stopping).await {
            match say {
                Say::Commands(commands) => self.carry_out(commands),
                Say::Stop { grace } if stopping.is_none() => {
                    stopping = Some(spawn_local(stopping::stop(self.clone(), grace)));
                }
                Say::Stop { .. } => {}
            }
        }
    }

    /// What is said next; None once nobody can say anything or the thread has stopped.
    async fn next(
        &self,
        said: &mut UnboundedReceiver<Say>,
        stopping: &mut Option<tokio::task::JoinHandle<()>>,
    ) -> Option<Say> {
        poll_fn(|cx| {
            if let Some(task) = stopping
                && std::pin::Pin::new(task).poll(cx).is_ready()
            {
                return std::task::Poll::Ready(None);
            }
            said.poll_recv(cx)
        })
        .await
    }

    fn carry_out(&self, commands: Vec<(Key, Command)>) {
        for (key, command) in commands {
            let stream = self.streams.borrow().get(key).cloned();
            if let Some(stream) = stream {
                stream.borrow_mut().command(command);
            }
        }
    }

    // ── listeners and connections ──

    async fn accept(self: Rc<Self>, listener: TcpListener, port: ServedPort) {
        let Ok(listener) = tokio::net::TcpListener::from_std(listener) else {
            return;
        };
        loop {
            match listener.accept().await {
                Ok((tcp, _)) => {
                    spawn_local(connection::serve(self.clone(), port, tcp));
                }
                Err(_) => sleep(ACCEPT_PAUSE).await,
            }
        }
    }

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

    pub fn streams(&self) -> Vec<StreamCell> {
        self.streams.borrow().all()
    }

    pub fn has_no_streams(&self) -> bool {
        self.streams.borrow().is_empty()
    }

    async fn sweep(self: Rc<Self>) {
        loop {
            let idle_s = self.shared.settings().rules.body_idle_s;
            let pause_s = (idle_s / SWEEPS_PER_DEADLINE).clamp(MIN_SWEEP_S, MAX_SWEEP_S);
            sleep(Duration::from_secs_f64(pause_s)).await;
            let now = self.shared.clock.now_s();
            for stream in self.streams() {
                stream.borrow_mut().tick(now);
            }
        }
    }

    // ── stopping ──

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
