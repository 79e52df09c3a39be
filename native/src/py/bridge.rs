//! The bridge: takes batches of events to the event loop, gives the answers back in one call.

use std::net::{TcpListener, ToSocketAddrs};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use pyo3::exceptions::{PyOSError, PyRuntimeError};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyList, PyTuple};

use super::layout::event::{FINISHED, FINISHED_HELD, REQUEST, RESPONSE_BODY, RESPONSE_HEADERS, STOPPED};
use super::metadata::metadata_from;
use super::said::{Plans, read_edits, read_settings};
use super::saying::{Gathered, Saying};
use super::stream::{Stream, make_reader};
use super::types::Types;
use super::views::{Outcome, Request, ResponseHead, results};
use crate::bodies::media::is_encoded;
use crate::machine::effects::{Chunk, Head, Shown};
use crate::net::clock::Clock;
use crate::net::connection::ServedPort;
use crate::net::health::HealthTable;
use crate::net::queue::{Event, Key, Told};
use crate::net::server::{Say, ThreadHandle};
use crate::net::shared::Shared;
use crate::net::stats::Stats;
use crate::net::stream::Command;
use crate::net::tls::suite_names;
use crate::wire::messages::BodyState;

/// Names of the cipher suites that can be chosen for TLS 1.2.
#[pyfunction]
pub fn cipher_suites() -> Vec<&'static str> {
    suite_names()
}

/// The I/O threads and their hand-over; used by `epp.transport.native` only.
#[pyclass(frozen, module = "epp_native")]
pub struct Bridge {
    shared: Arc<Shared>,
    saying: Arc<Saying>,
    /// Streams that the handler knows, by thread and place.
    streams: Mutex<Vec<Vec<Option<Py<Stream>>>>>,
}

#[pymethods]
impl Bridge {
    /// Args:
    ///     now_s: what `time.monotonic()` shows.
    ///     later: called without arguments when an answer came outside a pass; has `give` called soon.
    ///     hold_bounds_s, handover_bounds_s: buckets of the two histograms.
    #[new]
    fn new(now_s: f64, later: Py<PyAny>, hold_bounds_s: Vec<f64>, handover_bounds_s: Vec<f64>) -> PyResult<Self> {
        let shared = Shared::new(Clock::new(now_s), Stats::new(hold_bounds_s, handover_bounds_s))?;
        let gathered = Gathered { later: Some(later), ..Gathered::default() };
        Ok(Self {
            shared: Arc::new(shared),
            saying: Arc::new(Saying { gathered: Mutex::new(gathered), plans: Plans::default() }),
            streams: Mutex::default(),
        })
    }

    /// Use these settings for new streams and new connections.
    fn configure(&self, settings: &Bound<'_, PyAny>) -> PyResult<()> {
        let (read, max_buffered_bytes) = read_settings(settings)?;
        self.shared.budget.set_limit(max_buffered_bytes);
        self.shared.configure(read);
        Ok(())
    }

    /// Listen and start the threads.
    ///
    /// Args:
    ///     ports: (host, port, secure, extproc, health) of each.
    ///     io_threads: how many.
    ///
    /// Raises:
    ///     OSError: a port cannot be bound; its second argument names the address. Nothing was started.
    fn start(&self, ports: Vec<(String, u16, bool, bool, bool)>, io_threads: u16) -> PyResult<Vec<u16>> {
        let mut listeners = Vec::with_capacity(ports.len());
        let mut bound = Vec::with_capacity(ports.len());
        for (host, port, secure, extproc, health) in ports {
            let listener = listen(&host, port)?;
            bound.push(listener.local_addr()?.port());
            listeners.push((listener, ServedPort { secure, extproc, health }));
        }
        let mut gathered = self.saying.gathered();
        if !gathered.threads.is_empty() {
            return Err(PyRuntimeError::new_err("the bridge was started already"));
        }
        for number in 0..io_threads.max(1) {
            let own = listeners.iter().map(|(listener, port)| Ok((listener.try_clone()?, *port)));
            let own = own.collect::<std::io::Result<Vec<_>>>()?;
            gathered.threads.push(ThreadHandle::start(number, self.shared.clone(), own)?);
            gathered.by_thread.push(Vec::new());
            lock(&self.streams).push(Vec::new());
        }
        Ok(bound)
    }

    /// The file descriptor that becomes readable when events wait.
    fn fileno(&self) -> i32 {
        self.shared.queue.fd()
    }

    /// Up to `max_events` events, each (kind, stream, what); `give` must follow when they are handled.
    fn take<'py>(&self, py: Python<'py>, max_events: usize) -> PyResult<Bound<'py, PyList>> {
        let events = self.shared.queue.take(max_events);
        self.saying.gathered().in_pass = true;
        let taken = PyList::empty(py);
        let now = self.shared.clock.now_s();
        for event in events {
            self.shared.stats.handover.observe(now - event.at_s);
            let key = event.key;
            match catch_unwind(AssertUnwindSafe(|| self.shown(py, event))) {
                Ok(Ok(Some(item))) => taken.append(item)?,
                Ok(Ok(None)) => {}
                Ok(Err(error)) => self.failed(py, key, error)?,
                Err(_) => self.failed(py, key, PyRuntimeError::new_err("defect while an event was shown"))?,
            }
        }
        Ok(taken)
    }

    /// The end of a pass, or of a turn of the loop: the I/O threads hear what was said.
    fn give(&self) {
        self.saying.give();
    }

    /// The result of `response_headers`: said before what the handler answered inside the call.
    fn edited(&self, py: Python<'_>, stream: &Stream, edits: Option<&Bound<'_, PyTuple>>, said: usize) -> PyResult<()> {
        let edits = edits.map(read_edits).transpose();
        match edits {
            Ok(edits) => {
                self.insert(stream.key, said, Command::Edited(edits));
                Ok(())
            }
            Err(error) => {
                self.abort(py, stream)?;
                Err(error)
            }
        }
    }

    /// How much was said to this stream's thread so far; for `edited`.
    fn said(&self, stream: &Stream) -> usize {
        self.saying.gathered().by_thread.get(usize::from(stream.key.thread)).map_or(0, Vec::len)
    }

    /// The result of a held `finished`.
    fn released(&self, py: Python<'_>, stream: &Stream, metadata: &Bound<'_, PyAny>) -> PyResult<()> {
        match metadata_from(metadata) {
            Ok(metadata) => self.saying.say(py, stream.key, Command::Released(metadata)),
            Err(error) => {
                self.saying.say(py, stream.key, Command::Released(None))?;
                Err(error)
            }
        }
    }

    /// The handler failed: end the stream with an error.
    fn abort(&self, py: Python<'_>, stream: &Stream) -> PyResult<()> {
        self.saying.say(py, stream.key, Command::Abort("internal error".into()))
    }

    /// Answer health checks from this table.
    fn set_health(&self, statuses: std::collections::BTreeMap<String, u32>, default: u32) {
        self.shared.health.send_modify(|table| {
            let stopped = table.stopped;
            *table = Arc::new(HealthTable { statuses, default, stopped });
        });
    }

    /// Counts since the start: open streams, ends by code, hold counts and sum, buffered bytes, hand-over counts and sum.
    fn stats<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyTuple>> {
        let stats = &self.shared.stats;
        let ended = PyDict::new(py);
        for (name, count) in stats.by_status() {
            ended.set_item(name, count)?;
        }
        (
            stats.open_streams.load(std::sync::atomic::Ordering::Relaxed),
            ended,
            PyTuple::new(py, stats.hold.counts())?,
            stats.hold.sum_s(),
            self.shared.budget.used_bytes(),
            PyTuple::new(py, stats.handover.counts())?,
            stats.handover.sum_s(),
        )
            .into_pyobject(py)
    }

    /// Begin to stop: GOAWAY, wait up to `grace_s` (None = for ever), then UNAVAILABLE. Each thread tells when it has ended.
    ///
    /// Returns:
    ///     How many threads will tell.
    fn stop(&self, grace_s: Option<f64>) -> usize {
        self.shared.health.send_modify(|table| {
            *table = Arc::new(HealthTable { statuses: table.statuses.clone(), default: table.default, stopped: true });
        });
        // Longer than any process lives is for ever.
        let grace = grace_s.and_then(|seconds| Duration::try_from_secs_f64(seconds.max(0.0)).ok());
        self.saying.gathered().threads.iter().filter(|thread| thread.say(Say::Stop { grace })).count()
    }

    /// After all threads have told that they ended.
    fn join(&self, py: Python<'_>) {
        let (mut threads, later) = {
            let mut gathered = self.saying.gathered();
            gathered.by_thread.clear();
            (std::mem::take(&mut gathered.threads), gathered.later.take())
        };
        py.detach(|| threads.iter_mut().for_each(ThreadHandle::join));
        let streams = std::mem::take(&mut *lock(&self.streams));
        // Dropping may run Python code; nothing is locked any more.
        drop((streams, later));
    }
}

impl Bridge {
    fn shown<'py>(&self, py: Python<'py>, event: Event) -> PyResult<Option<Bound<'py, PyTuple>>> {
        let key = event.key;
        if let Told::Stopped = event.told {
            return Ok(Some((STOPPED, py.None(), py.None()).into_pyobject(py)?));
        }
        if let Told::Request(shown) = event.told {
            let stream = Py::new(py, Stream::new(py, key, self.saying.clone()))?;
            self.remember(key, stream.clone_ref(py));
            let read = request_results(py, &shown)?;
            let request = Py::new(py, Request::new(shown, read.unbind()))?;
            return Ok(Some((REQUEST, stream, request).into_pyobject(py)?));
        }
        let Some(stream) = self.known(py, key) else {
            return Ok(None);
        };
        let item = match event.told {
            Told::ResponseHeaders(head) => {
                (RESPONSE_HEADERS, stream, Py::new(py, ResponseHead::new(head))?).into_pyobject(py)?
            }
            Told::FeedReaders(fed) => {
                self.taken(py, key, fed.data.len())?;
                stream.get().feed(py, &fed)?;
                return Ok(None);
            }
            Told::ResponseBody(chunks) => {
                self.taken(py, key, chunks.iter().map(|chunk| chunk.data.len()).sum())?;
                let chunks = show_chunks(py, stream.get(), chunks)?;
                (RESPONSE_BODY, stream, chunks).into_pyobject(py)?
            }
            Told::Finished { outcome, held } => {
                self.forget(key);
                let kind = if held { FINISHED_HELD } else { FINISHED };
                let head = outcome.head.clone();
                let read = results(py, &outcome.read, |place, _| stream.get().result(py, place, head.as_ref()))?;
                let outcome = Py::new(py, Outcome::new(outcome, read.unbind()))?;
                (kind, stream, outcome).into_pyobject(py)?
            }
            Told::Request(_) | Told::Stopped => return Ok(None),
        };
        Ok(Some(item))
    }

    fn taken(&self, py: Python<'_>, key: Key, bytes: usize) -> PyResult<()> {
        self.saying.say(py, key, Command::Taken(bytes))
    }

    /// An event could not be shown: report that, end its stream.
    fn failed(&self, py: Python<'_>, key: Key, error: PyErr) -> PyResult<()> {
        error.write_unraisable(py, None);
        self.saying.say(py, key, Command::Abort("internal error".into()))
    }

    fn insert(&self, key: Key, place: usize, command: Command) {
        let mut gathered = self.saying.gathered();
        if let Some(commands) = gathered.by_thread.get_mut(usize::from(key.thread)) {
            let place = place.min(commands.len());
            commands.insert(place, (key, command));
        }
    }

    fn remember(&self, key: Key, stream: Py<Stream>) {
        let mut streams = lock(&self.streams);
        if let Some(places) = streams.get_mut(usize::from(key.thread)) {
            let index = key.index as usize;
            if places.len() <= index {
                places.resize_with(index + 1, || None);
            }
            places[index] = Some(stream);
        }
    }

    fn known(&self, py: Python<'_>, key: Key) -> Option<Py<Stream>> {
        let streams = lock(&self.streams);
        let stream = streams.get(usize::from(key.thread))?.get(key.index as usize)?.as_ref()?;
        (stream.get().key == key).then(|| stream.clone_ref(py))
    }

    fn forget(&self, key: Key) {
        let stream = lock(&self.streams)
            .get_mut(usize::from(key.thread))
            .and_then(|places| places.get_mut(key.index as usize))
            .and_then(Option::take);
        drop(stream);
    }
}

/// What the readers of a request know. Those that only Python has read the whole body now.
pub fn request_results<'py>(py: Python<'py>, shown: &Shown) -> PyResult<Bound<'py, PyTuple>> {
    results(py, &shown.read, |_, name| {
        let head = Arc::new(Head { headers: shown.headers.clone(), context: shown.context.clone(), at_s: shown.at_s });
        let reader = make_reader(py, &Types::get(py)?.request_readers, name, Some(&head))?;
        if shown.state == BodyState::Complete && !is_encoded(&shown.headers) {
            reader.bind(py).call_method1("feed", (PyBytes::new(py, &shown.body),))?;
        }
        reader.bind(py).call_method0("result")
    })
}

fn show_chunks<'py>(py: Python<'py>, stream: &Stream, chunks: Vec<Chunk>) -> PyResult<Bound<'py, PyList>> {
    let class = Types::get(py)?.chunk.bind(py);
    let shown = PyList::empty(py);
    for Chunk { data, end, at_s, read } in chunks {
        let read = results(py, &read, |place, _| stream.result(py, place, None))?;
        shown.append(class.call1((as_bytes(py, &data), end, at_s, read))?)?;
    }
    Ok(shown)
}

fn as_bytes<'py>(py: Python<'py>, data: &Bytes) -> Bound<'py, PyBytes> {
    PyBytes::new(py, data)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Bind to the first address of `host` that can be bound.
fn listen(host: &str, port: u16) -> PyResult<TcpListener> {
    let bind = || -> std::io::Result<TcpListener> {
        let addresses: Vec<_> = (host, port).to_socket_addrs()?.collect();
        let listener = TcpListener::bind(&addresses[..])?;
        listener.set_nonblocking(true)?;
        Ok(listener)
    };
    let address = if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") };
    bind().map_err(|error| PyOSError::new_err((error.raw_os_error(), format!("{address}: {error}"))))
}
