//! One HTTP request as the handler knows it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use pyo3::prelude::*;
use pyo3::types::PyBytes;

use super::said::read_answer;
use super::saying::Saying;
use super::types::Types;
use super::views::ResponseHead;
use crate::bodies::readers::{READERS, find};
use crate::machine::effects::{Fed, Head};
use crate::net::queue::Key;
use crate::net::stream::Command;
use crate::wire::headers::HeaderBlock;
use crate::wire::messages::{Answer, Plan};

/// Implements `handler.Stream`.
#[pyclass(frozen, module = "epp_native")]
pub struct Stream {
    pub key: Key,
    saying: Arc<Saying>,
    inner: Mutex<Inner>,
}

struct Inner {
    state: Py<PyAny>,
    plan: Option<Arc<Plan>>,
    /// The readers that only Python has, by place; made with the response.
    readers: Vec<Option<Py<PyAny>>>,
}

impl Stream {
    pub fn new(py: Python<'_>, key: Key, saying: Arc<Saying>) -> Self {
        Self { key, saying, inner: Mutex::new(Inner { state: py.None(), plan: None, readers: Vec::new() }) }
    }

    /// Give bytes of the response to the readers that only Python has.
    pub fn feed(&self, py: Python<'_>, fed: &Fed) -> PyResult<()> {
        let data = PyBytes::new(py, &fed.data);
        for place in 0..self.planned() {
            if let Some(reader) = self.reader(py, place, fed.head.as_ref())? {
                reader.bind(py).call_method1("feed", (&data,))?;
            }
        }
        Ok(())
    }

    /// The result of the reader at this place of the plan.
    pub fn result<'py>(&self, py: Python<'py>, place: usize, head: Option<&Arc<Head>>) -> PyResult<Bound<'py, PyAny>> {
        match self.reader(py, place, head)? {
            Some(reader) => reader.bind(py).call_method0("result"),
            None => Ok(py.None().into_bound(py)),
        }
    }

    fn planned(&self) -> usize {
        self.inner().plan.as_ref().map_or(0, |plan| plan.readers.len())
    }

    fn reader(&self, py: Python<'_>, place: usize, head: Option<&Arc<Head>>) -> PyResult<Option<Py<PyAny>>> {
        let name = {
            let inner = self.inner();
            if let Some(Some(reader)) = inner.readers.get(place) {
                return Ok(Some(reader.clone_ref(py)));
            }
            let Some(plan) = &inner.plan else { return Ok(None) };
            plan.readers[place].clone()
        };
        if find(READERS, &name).is_some() {
            return Ok(None);
        }
        let reader = make_reader(py, &Types::get(py)?.readers, &name, head)?;
        let mut inner = self.inner();
        if inner.readers.len() <= place {
            inner.readers.resize_with(place + 1, || None);
        }
        inner.readers[place] = Some(reader.clone_ref(py));
        Ok(Some(reader))
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A reader of one of the tables of `epp.extproc.readers`.
pub fn make_reader(py: Python<'_>, table: &Py<PyAny>, name: &str, head: Option<&Arc<Head>>) -> PyResult<Py<PyAny>> {
    let head = head
        .cloned()
        .unwrap_or_else(|| Arc::new(Head { headers: Arc::new(HeaderBlock::default()), context: None, at_s: 0.0 }));
    let make = table.bind(py).get_item(name)?;
    Ok(make.call1((Py::new(py, ResponseHead::new(head))?,))?.unbind())
}

#[pymethods]
impl Stream {
    /// The handler's own slot; None at first.
    #[getter]
    fn state(&self, py: Python<'_>) -> Py<PyAny> {
        self.inner().state.clone_ref(py)
    }

    #[setter]
    fn set_state(&self, state: Py<PyAny>) {
        let before = std::mem::replace(&mut self.inner().state, state);
        drop(before);
    }

    /// Let go of the handler's state, which usually knows this stream: without that both would stay for ever.
    fn retire(&self, py: Python<'_>) {
        let (state, readers) = {
            let mut inner = self.inner();
            (std::mem::replace(&mut inner.state, py.None()), std::mem::take(&mut inner.readers))
        };
        // Dropping may run Python code; nothing is locked any more.
        drop((state, readers));
    }

    /// Record a decision. One that cannot be read is a defect: the stream is aborted.
    fn answer(&self, answer: &Bound<'_, PyAny>) -> PyResult<()> {
        let py = answer.py();
        match read_answer(answer, &self.saying.plans) {
            Ok(answer) => {
                if let Answer::Route(route) = &answer
                    && !route.plan.readers.is_empty()
                {
                    self.inner().plan.get_or_insert_with(|| route.plan.clone());
                }
                self.saying.say(py, self.key, Command::Answer(answer))
            }
            Err(error) => {
                self.saying.say(py, self.key, Command::Abort("internal error".into()))?;
                Err(error)
            }
        }
    }
}
