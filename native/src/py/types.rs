//! The Python types that cross the seam, looked up once.

use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::PyType;

use crate::wire::messages::{BodyState, End};

pub struct Types {
    body_states: [Py<PyAny>; 6],
    ends: [Py<PyAny>; 4],
    pub route: Py<PyType>,
    pub reply: Py<PyType>,
    pub chunk: Py<PyType>,
    pub usage: Py<PyType>,
    pub body_copy: Py<PyType>,
    /// `epp.extproc.readers.READERS`: readers by name.
    pub readers: Py<PyAny>,
    /// `epp.extproc.readers.REQUEST_READERS`.
    pub request_readers: Py<PyAny>,
}

static TYPES: PyOnceLock<Types> = PyOnceLock::new();

impl Types {
    pub fn get(py: Python<'_>) -> PyResult<&Self> {
        TYPES.get_or_try_init(py, || Self::find(py))
    }

    pub fn body_state<'py>(&self, py: Python<'py>, state: BodyState) -> Bound<'py, PyAny> {
        self.body_states[state as usize].bind(py).clone()
    }

    pub fn end<'py>(&self, py: Python<'py>, end: End) -> Bound<'py, PyAny> {
        self.ends[end as usize].bind(py).clone()
    }

    fn find(py: Python<'_>) -> PyResult<Self> {
        let handler = py.import("epp.seam")?;
        let readers = py.import("epp.extproc.readers")?;
        let class = |name: &str| -> PyResult<Py<PyType>> { Ok(handler.getattr(name)?.cast_into::<PyType>()?.unbind()) };
        let states = handler.getattr("BodyState")?;
        let state = |name: &str| -> PyResult<Py<PyAny>> { Ok(states.getattr(name)?.unbind()) };
        let ends = handler.getattr("End")?;
        let end = |name: &str| -> PyResult<Py<PyAny>> { Ok(ends.getattr(name)?.unbind()) };
        Ok(Self {
            body_states: [
                state("COMPLETE")?,
                state("ABSENT")?,
                state("UNSEEN")?,
                state("TIMED_OUT")?,
                state("TOO_LARGE")?,
                state("NO_MEMORY")?,
            ],
            ends: [end("NATURAL")?, end("DISCONNECTED")?, end("REPLIED")?, end("FAILED")?],
            route: class("Route")?,
            reply: class("Reply")?,
            chunk: class("Chunk")?,
            usage: readers.getattr("Usage")?.cast_into::<PyType>()?.unbind(),
            body_copy: readers.getattr("BodyCopy")?.cast_into::<PyType>()?.unbind(),
            readers: readers.getattr("READERS")?.unbind(),
            request_readers: readers.getattr("REQUEST_READERS")?.unbind(),
        })
    }
}
