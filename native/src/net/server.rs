//! The I/O threads: each has its runtime, accepts from all listeners, and carries out what Python says.

use std::future::poll_fn;
use std::io;
use std::net::TcpListener;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::runtime::Builder;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::{LocalSet, spawn_local};
use tokio::time::sleep;

use super::connection::{self, ServedPort};
use super::queue::{Event, Key, Told};
use super::shared::Shared;
use super::stopping;
use super::stream::Command;
use super::thread::Thread;

/// Deadlines are looked after in a sweep over all streams, so that a stream pays nothing; one is late by a tenth at most.
const SWEEPS_PER_DEADLINE: f64 = 10.0;
const MIN_SWEEP_S: f64 = 0.01;
const MAX_SWEEP_S: f64 = 60.0;

/// A listener that fails (too many open files) is asked again after this.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

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
                LocalSet::new().block_on(&runtime, run(Thread::new(number, shared.clone()), listeners, said));
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

async fn run(thread: Rc<Thread>, listeners: Vec<(TcpListener, ServedPort)>, mut said: UnboundedReceiver<Say>) {
    for (listener, port) in listeners {
        let task = spawn_local(accept(thread.clone(), listener, port));
        thread.accepts(task.abort_handle());
    }
    spawn_local(sweep(thread.clone()));
    let mut stopping = None;
    while let Some(say) = next(&mut said, &mut stopping).await {
        match say {
            Say::Commands(commands) => carry_out(&thread, commands),
            Say::Stop { grace } if stopping.is_none() => {
                stopping = Some(spawn_local(stopping::stop(thread.clone(), grace)));
            }
            Say::Stop { .. } => {}
        }
    }
}

/// What is said next; None once nobody can say anything or the thread has stopped.
async fn next(said: &mut UnboundedReceiver<Say>, stopping: &mut Option<tokio::task::JoinHandle<()>>) -> Option<Say> {
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

fn carry_out(thread: &Thread, commands: Vec<(Key, Command)>) {
    for (key, command) in commands {
        if let Some(stream) = thread.stream(key) {
            stream.borrow_mut().command(command);
        }
    }
}

/// Serve what comes on one listener.
async fn accept(thread: Rc<Thread>, listener: TcpListener, port: ServedPort) {
    let Ok(listener) = tokio::net::TcpListener::from_std(listener) else {
        return;
    };
    loop {
        match listener.accept().await {
            Ok((tcp, _)) => {
                spawn_local(connection::serve(thread.clone(), port, tcp));
            }
            Err(_) => sleep(ACCEPT_PAUSE).await,
        }
    }
}

/// Look after the deadlines.
async fn sweep(thread: Rc<Thread>) {
    loop {
        let idle_s = thread.shared.settings().rules.body_idle_s;
        let pause_s = (idle_s / SWEEPS_PER_DEADLINE).clamp(MIN_SWEEP_S, MAX_SWEEP_S);
        sleep(Duration::from_secs_f64(pause_s)).await;
        let now = thread.shared.clock.now_s();
        for stream in thread.streams() {
            stream.borrow_mut().tick(now);
        }
    }
}
