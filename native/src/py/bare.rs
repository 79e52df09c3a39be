//! The twins as tests reach them: one machine without a wire, one reader, one renamer.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyList, PyTuple};

use super::bridge::request_results;
use super::metadata::metadata_from;
use super::said::{Plans, read_answer, read_edits, read_rename, read_settings};
use super::types::Types;
use super::views::{Outcome, Request, ResponseHead, results};
use crate::bodies::body::Budget;
use crate::bodies::readers::{READERS, Readers};
use crate::bodies::rename::Renamer as RenamerTwin;
use crate::machine::Machine as MachineTwin;
use crate::machine::effects::{Effect, Effects};
use crate::wire::codec::{decode, encode};
use crate::wire::fields::{header_map, header_value};
use crate::wire::headers::HeaderBlock;
use crate::wire::messages::{Lost, Outgoing};
use crate::wire::proto::{put_bytes, put_message};

/// The state table of one stream: serialized messages and events in, effects out.
///
/// Effects are tuples: ("send", bytes), ("request", Request), ("response_headers", ResponseHead), ("feed", bytes),
/// ("response_body", Chunk), ("finished", Outcome, held), ("close", status name, details).
#[pyclass(frozen, module = "epp_native")]
pub struct Machine {
    inner: Mutex<Inner>,
    budget: Arc<Budget>,
    plans: Plans,
}

struct Inner {
    machine: MachineTwin,
    first: bool,
}

#[pymethods]
impl Machine {
    #[new]
    fn new(settings: &Bound<'_, PyAny>) -> PyResult<Self> {
        let (settings, max_buffered_bytes) = read_settings(settings)?;
        let budget = Arc::new(Budget::default());
        budget.set_limit(max_buffered_bytes);
        let machine = MachineTwin::new(settings.rules, budget.clone());
        Ok(Self { inner: Mutex::new(Inner { machine, first: true }), budget, plans: Plans::default() })
    }

    /// A serialized `ProcessingRequest` came.
    fn feed<'py>(&self, py: Python<'py>, message: Vec<u8>, now: f64) -> PyResult<Bound<'py, PyList>> {
        let received = decode(&message.into());
        self.run(py, |inner, out| {
            if std::mem::take(&mut inner.first) {
                inner.machine.open(received.opening);
            }
            inner.machine.feed(received.message, now, out);
        })
    }

    /// The data plane left: "half-closed", "cancelled" or "send failed".
    fn lost<'py>(&self, py: Python<'py>, how: &str, now: f64) -> PyResult<Bound<'py, PyList>> {
        let all = [Lost::HalfClosed, Lost::Cancelled, Lost::SendFailed];
        let how = all.into_iter().find(|known| known.text() == how);
        let how = how.ok_or_else(|| PyValueError::new_err("not a way to leave"))?;
        self.run(py, |inner, out| inner.machine.lost(how, now, out))
    }

    /// The handler decided.
    fn answer<'py>(&self, answer: &Bound<'py, PyAny>, now: f64) -> PyResult<Bound<'py, PyList>> {
        let read = read_answer(answer, &self.plans)?;
        self.run(answer.py(), |inner, out| inner.machine.answer(read, now, out))
    }

    /// The result of "response_headers".
    fn edited<'py>(
        &self,
        py: Python<'py>,
        edits: Option<&Bound<'py, PyTuple>>,
        now: f64,
    ) -> PyResult<Bound<'py, PyList>> {
        let edits = edits.map(read_edits).transpose()?;
        self.run(py, |inner, out| inner.machine.edited(edits, now, out))
    }

    /// The result of a held "finished".
    fn released<'py>(&self, metadata: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyList>> {
        let read = metadata_from(metadata)?;
        self.run(metadata.py(), |inner, out| inner.machine.released(read, out))
    }

    /// Time passed.
    fn tick<'py>(&self, py: Python<'py>, now: f64) -> PyResult<Bound<'py, PyList>> {
        self.run(py, |inner, out| inner.machine.tick(now, out))
    }

    /// End the stream with an error of ours.
    fn abort<'py>(&self, py: Python<'py>, unavailable: bool, why: String, now: f64) -> PyResult<Bound<'py, PyList>> {
        use crate::wire::messages::Status::{Internal, Unavailable};
        let status = if unavailable { Unavailable } else { Internal };
        self.run(py, |inner, out| inner.machine.abort(status, why.into(), now, out))
    }

    #[getter]
    fn deadline_s(&self) -> Option<f64> {
        self.inner().machine.deadline_s()
    }

    /// Only `edited` or `released` lets the stream go on.
    #[getter]
    fn waiting(&self) -> bool {
        self.inner().machine.is_waiting()
    }

    /// What all request bodies of this machine hold.
    #[getter]
    fn buffered_bytes(&self) -> usize {
        self.budget.used_bytes()
    }
}

impl Machine {
    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn run<'py>(&self, py: Python<'py>, step: impl FnOnce(&mut Inner, &mut Effects)) -> PyResult<Bound<'py, PyList>> {
        let mut effects = Effects::new();
        step(&mut self.inner(), &mut effects);
        let shown = PyList::empty(py);
        for effect in effects {
            shown.append(show(py, effect)?)?;
        }
        Ok(shown)
    }
}

fn show(py: Python<'_>, effect: Effect) -> PyResult<Bound<'_, PyTuple>> {
    let none = |_, _: &str| Ok(py.None().into_bound(py));
    match effect {
        Effect::Send(answer) => ("send", sent(py, &answer)).into_pyobject(py),
        Effect::CallRequest(shown) => {
            let read = request_results(py, &shown)?;
            let request = Py::new(py, Request::new(shown, read.unbind()))?;
            ("request", request).into_pyobject(py)
        }
        Effect::CallResponseHeaders(head) => {
            ("response_headers", Py::new(py, ResponseHead::new(head))?).into_pyobject(py)
        }
        Effect::FeedReaders(fed) => ("feed", PyBytes::new(py, &fed.data)).into_pyobject(py),
        Effect::CallResponseBody(chunk) => {
            let read = results(py, &chunk.read, none)?;
            let class = Types::get(py)?.chunk.bind(py);
            let told = class.call1((PyBytes::new(py, &chunk.data), chunk.end, chunk.at_s, read))?;
            ("response_body", told).into_pyobject(py)
        }
        Effect::CallFinished { outcome, held } => {
            let read = results(py, &outcome.read, none)?;
            ("finished", Py::new(py, Outcome::new(outcome, read.unbind()))?, held).into_pyobject(py)
        }
        Effect::Close { status, details } => ("close", status.name(), &*details).into_pyobject(py),
    }
}

fn sent<'py>(py: Python<'py>, answer: &Outgoing) -> Bound<'py, PyBytes> {
    PyBytes::new(py, &encode(answer))
}

/// A reader of response bodies; has the members of `epp.extproc.readers.Reader`.
#[pyclass(frozen, module = "epp_native")]
pub struct Reader(Mutex<Readers>);

#[pymethods]
impl Reader {
    #[new]
    fn new(name: &str, headers: &Bound<'_, PyDict>) -> PyResult<Self> {
        let readers = Readers::new(&[name.into()], READERS, &header_block(headers)?);
        if readers.wants_python() {
            return Err(PyValueError::new_err(format!("{name} has no twin")));
        }
        Ok(Self(Mutex::new(readers)))
    }

    fn feed(&self, data: Vec<u8>) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).feed(&data);
    }

    fn result<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let read = self.0.lock().unwrap_or_else(PoisonError::into_inner).results(None);
        results(py, &read, |_, _| Ok(py.None().into_bound(py)))?.get_item(0)
    }
}

/// The rename of one response body; has the members of `epp.extproc.rename.Renamer`.
#[pyclass(frozen, module = "epp_native")]
pub struct Renamer(Mutex<RenamerTwin>);

#[pymethods]
impl Renamer {
    /// None if the bytes of a body with these headers stay as they are.
    #[staticmethod]
    fn make(rename: &Bound<'_, PyTuple>, headers: &Bound<'_, PyDict>) -> PyResult<Option<Self>> {
        let twin = RenamerTwin::new(&read_rename(rename)?, &header_block(headers)?);
        Ok(twin.map(|twin| Self(Mutex::new(twin))))
    }

    fn feed<'py>(&self, py: Python<'py>, data: Vec<u8>, end: bool) -> Bound<'py, PyBytes> {
        let out = self.0.lock().unwrap_or_else(PoisonError::into_inner).feed(Bytes::from(data), end);
        PyBytes::new(py, &out)
    }
}

fn header_block(headers: &Bound<'_, PyDict>) -> PyResult<HeaderBlock> {
    let mut map = Vec::new();
    for (name, value) in headers {
        let (name, value): (String, String) = (name.extract()?, value.extract()?);
        put_message(&mut map, header_map::HEADERS, |header| {
            put_bytes(header, header_value::KEY, name.as_bytes());
            put_bytes(header, header_value::RAW_VALUE, value.as_bytes());
        });
    }
    HeaderBlock::parse(&map).map_err(|_| PyValueError::new_err("not headers"))
}
