//! How an I/O thread ends: GOAWAY, wait, abort what is left, cut what cannot be sent.

use std::rc::Rc;
use std::time::Duration;

use tokio::time::{sleep, timeout};

use super::thread::Thread;
use crate::wire::messages::Status;

/// How long an aborted stream may take to send its status before its connection is cut.
const ABORT: Duration = Duration::from_secs(1);

const STOPPING: &str = "server is stopping";

/// Stop accepting, let running streams end within `grace` (None = for ever), end the others.
pub async fn stop(thread: Rc<Thread>, grace: Option<Duration>) {
    thread.begin_stopping();
    match grace {
        None => until(&thread, Thread::has_no_streams).await,
        Some(grace) => {
            let _ = timeout(grace, until(&thread, Thread::has_no_streams)).await;
        }
    }
    for stream in thread.streams() {
        stream.borrow_mut().abort(Status::Unavailable, STOPPING);
    }
    let _ = timeout(ABORT, until(&thread, |thread| thread.has_no_streams() && thread.has_no_connections())).await;
    for stream in thread.streams() {
        stream.borrow_mut().cut();
    }
    thread.cut_connections();
    // Let the tasks of what was cut end; then whatever is left goes with the runtime.
    let _ = timeout(ABORT, until(&thread, |thread| thread.has_no_streams() && thread.has_no_connections())).await;
}

async fn until(thread: &Thread, is_true: impl Fn(&Thread) -> bool) {
    let mut pause = Duration::from_micros(100);
    while !is_true(thread) {
        // Stopping is rare: looking is cheaper than being told by each stream.
        sleep(pause).await;
        pause = (pause * 2).min(Duration::from_millis(10));
    }
}
