//! What the handler is shown, as Python classes: read-only, decoded on access.

use std::ffi::{c_int, c_void};
use std::sync::Arc;

use bytes::Bytes;
use pyo3::exceptions::PyBufferError;
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyBytes, PyDict, PyFloat, PyList, PyMemoryView, PyString, PyTuple};

use super::metadata::context_to_dict;
use super::types::Types;
use crate::bodies::read::Read;
use crate::machine::effects::{Head, Outcome as Facts, Shown};
use crate::wire::headers::HeaderBlock;
use crate::wire::messages::Context;

/// Implements `handler.Headers`.
#[pyclass(frozen, module = "epp_native")]
pub struct Headers(pub Arc<HeaderBlock>);

#[pymethods]
impl Headers {
    /// The last value of `name` (lower case), or None.
    fn get<'py>(&self, py: Python<'py>, name: &str) -> PyResult<Option<Bound<'py, PyString>>> {
        self.0.get(name.as_bytes()).map(|value| decoded(py, value)).transpose()
    }

    /// All pairs in wire order, names lower-cased, duplicates kept.
    fn items<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let pairs = PyList::empty(py);
        for (name, value) in self.0.iter() {
            let name = if name.is_ascii() { name.to_ascii_lowercase() } else { lower(name) };
            pairs.append((decoded(py, &name)?, decoded(py, value)?))?;
        }
        Ok(pairs.try_iter()?.into_any())
    }

    /// All names, lower case.
    fn names<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let names = PyList::empty(py);
        for name in self.0.names_where(|_| true) {
            names.append(decoded(py, &name)?)?;
        }
        Ok(names.into_any())
    }
}

fn lower(name: &[u8]) -> Vec<u8> {
    String::from_utf8_lossy(name).to_lowercase().into_bytes()
}

/// Text as the seam has it: UTF-8, odd bytes as surrogates.
fn decoded<'py>(py: Python<'py>, value: &[u8]) -> PyResult<Bound<'py, PyString>> {
    match std::str::from_utf8(value) {
        Ok(text) => Ok(PyString::new(py, text)),
        Err(_) => PyString::from_encoded_object(&PyBytes::new(py, value), Some(c"utf-8"), Some(c"surrogateescape")),
    }
}

/// Bytes that Python reads in place.
#[pyclass(frozen, module = "epp_native")]
pub struct Body(pub Bytes);

#[pymethods]
impl Body {
    #[allow(unsafe_code)]
    unsafe fn __getbuffer__(slf: Bound<'_, Self>, view: *mut ffi::Py_buffer, flags: c_int) -> PyResult<()> {
        if view.is_null() {
            return Err(PyBufferError::new_err("no view to fill"));
        }
        let bytes = &slf.get().0;
        let length = isize::try_from(bytes.len()).map_err(|_| PyBufferError::new_err("the body is too long"))?;
        // SAFETY: the interpreter gives a view to fill. It takes a reference to this object, which owns the bytes and, being
        // frozen, neither moves nor changes them; the view is marked read-only.
        let result = unsafe {
            ffi::PyBuffer_FillInfo(view, slf.as_ptr(), bytes.as_ptr().cast_mut().cast::<c_void>(), length, 1, flags)
        };
        if result == 0 { Ok(()) } else { Err(PyErr::fetch(slf.py())) }
    }
}

/// Implements `handler.Request`.
#[pyclass(frozen, module = "epp_native")]
pub struct Request {
    shown: Box<Shown>,
    read: Py<PyTuple>,
    headers: PyOnceLock<Py<Headers>>,
    body: PyOnceLock<Py<PyMemoryView>>,
}

impl Request {
    pub fn new(shown: Box<Shown>, read: Py<PyTuple>) -> Self {
        Self { shown, read, headers: PyOnceLock::new(), body: PyOnceLock::new() }
    }
}

#[pymethods]
impl Request {
    #[getter]
    fn headers(&self, py: Python<'_>) -> PyResult<&Py<Headers>> {
        self.headers.get_or_try_init(py, || Py::new(py, Headers(self.shown.headers.clone())))
    }

    #[getter]
    fn metadata<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        metadata(py, &self.shown.context)
    }

    #[getter]
    fn at_s(&self) -> f64 {
        self.shown.at_s
    }

    #[getter]
    fn body(&self, py: Python<'_>) -> PyResult<&Py<PyMemoryView>> {
        self.body.get_or_try_init(py, || memory(py, self.shown.body.clone()))
    }

    #[getter]
    fn body_state<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        Ok(Types::get(py)?.body_state(py, self.shown.state))
    }

    #[getter]
    fn read(&self) -> &Py<PyTuple> {
        &self.read
    }
}

pub fn memory(py: Python<'_>, bytes: Bytes) -> PyResult<Py<PyMemoryView>> {
    let owner = Bound::new(py, Body(bytes))?;
    Ok(PyMemoryView::from(owner.as_any())?.unbind())
}

fn metadata<'py>(py: Python<'py>, context: &Context) -> PyResult<Bound<'py, PyDict>> {
    match context {
        None => Ok(PyDict::new(py)),
        Some(context) => context_to_dict(py, context),
    }
}

/// Implements `handler.ResponseHead`.
#[pyclass(frozen, module = "epp_native")]
pub struct ResponseHead {
    head: Arc<Head>,
    headers: PyOnceLock<Py<Headers>>,
}

impl ResponseHead {
    pub fn new(head: Arc<Head>) -> Self {
        Self { head, headers: PyOnceLock::new() }
    }
}

#[pymethods]
impl ResponseHead {
    /// HTTP status; 0 if none was sent or it is not a number.
    #[getter]
    fn status(&self) -> u64 {
        let headers = &self.head.headers;
        let value = headers.get(b":status").filter(|value| !value.is_empty()).or_else(|| headers.get(b"status"));
        let digits = value.filter(|value| value.iter().all(u8::is_ascii_digit)).unwrap_or_default();
        std::str::from_utf8(digits).ok().and_then(|text| text.parse().ok()).unwrap_or(0)
    }

    #[getter]
    fn headers(&self, py: Python<'_>) -> PyResult<&Py<Headers>> {
        self.headers.get_or_try_init(py, || Py::new(py, Headers(self.head.headers.clone())))
    }

    #[getter]
    fn metadata<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        metadata(py, &self.head.context)
    }

    #[getter]
    fn at_s(&self) -> f64 {
        self.head.at_s
    }
}

/// Has the members of `handler.Outcome`.
#[pyclass(frozen, module = "epp_native")]
pub struct Outcome {
    facts: Box<Facts>,
    read: Py<PyTuple>,
    head: PyOnceLock<Option<Py<ResponseHead>>>,
}

impl Outcome {
    pub fn new(facts: Box<Facts>, read: Py<PyTuple>) -> Self {
        Self { facts, read, head: PyOnceLock::new() }
    }
}

#[pymethods]
impl Outcome {
    #[getter]
    fn end<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        Ok(Types::get(py)?.end(py, self.facts.end))
    }

    #[getter]
    fn complete(&self) -> bool {
        self.facts.complete
    }

    #[getter]
    fn error(&self) -> &str {
        &self.facts.error
    }

    #[getter]
    fn head(&self, py: Python<'_>) -> PyResult<&Option<Py<ResponseHead>>> {
        self.head.get_or_try_init(py, || {
            self.facts.head.as_ref().map(|head| Py::new(py, ResponseHead::new(head.clone()))).transpose()
        })
    }

    #[getter]
    fn streaming(&self) -> bool {
        self.facts.streaming
    }

    #[getter]
    fn chunks(&self) -> u64 {
        self.facts.chunks
    }

    #[getter]
    fn size_bytes(&self) -> u64 {
        self.facts.size_bytes
    }

    #[getter]
    fn read(&self) -> &Py<PyTuple> {
        &self.read
    }

    #[getter]
    fn first_s(&self) -> Option<f64> {
        self.facts.first_s
    }

    #[getter]
    fn last_s(&self) -> Option<f64> {
        self.facts.last_s
    }

    #[getter]
    fn end_s(&self) -> f64 {
        self.facts.end_s
    }

    #[getter]
    fn busy_s(&self) -> f64 {
        self.facts.busy_s
    }

    #[getter]
    fn gaps<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyTuple>> {
        PyTuple::new(py, &self.facts.gaps)
    }

    #[getter]
    fn gaps_s<'py>(&self, py: Python<'py>) -> Bound<'py, PyFloat> {
        PyFloat::new(py, self.facts.gaps_s)
    }
}

/// Results of readers; `python` gives those of the readers that only Python has, by place and name.
pub fn results<'py>(
    py: Python<'py>,
    read: &[Read],
    mut python: impl FnMut(usize, &str) -> PyResult<Bound<'py, PyAny>>,
) -> PyResult<Bound<'py, PyTuple>> {
    if read.is_empty() {
        return Ok(PyTuple::empty(py));
    }
    let types = Types::get(py)?;
    let mut values = Vec::with_capacity(read.len());
    for (place, known) in read.iter().enumerate() {
        values.push(match known {
            Read::Usage(usage) => types.usage.bind(py).call1((
                usage.prompt_tokens,
                usage.completion_tokens,
                usage.total_tokens,
                usage.cached_tokens,
                usage.events,
                usage.found,
            ))?,
            Read::Copy { data, truncated } => types.body_copy.bind(py).call1((PyBytes::new(py, data), *truncated))?,
            Read::Bytes(data) => PyBytes::new(py, data).into_any(),
            Read::Python(name) => python(place, name)?,
        });
    }
    PyTuple::new(py, values)
}
