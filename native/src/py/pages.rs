//! Metrics pages for the event loop: used by `epp/datalayer/page_rounds.py` only.

use std::net::{IpAddr, SocketAddr};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use pyo3::exceptions::{PyRuntimeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyList};

use crate::pages::check;
use crate::pages::excerpt::{Families, excerpt};
use crate::pages::fetch::{Failure, Limits, Target};
use crate::pages::reader;

/// Reads metrics pages in a thread of its own.
#[pyclass(frozen, module = "epp_native")]
pub struct PageReader {
    reader: Mutex<Option<reader::PageReader>>,
}

#[pymethods]
impl PageReader {
    /// Args:
    ///     max_page_bytes: a larger page is an error.
    ///     timeout_s: time of one fetch.
    #[new]
    fn new(max_page_bytes: usize, timeout_s: f64) -> PyResult<Self> {
        let time = Duration::try_from_secs_f64(timeout_s).map_err(|error| PyValueError::new_err(error.to_string()))?;
        let reader = reader::PageReader::start(Limits { page_bytes: max_page_bytes, time })?;
        Ok(Self { reader: Mutex::new(Some(reader)) })
    }

    /// Where a page is, and the families that are read of it; None = the whole page. Replaces an earlier target; what is under
    /// way for that is not told any more.
    ///
    /// Raises:
    ///     ValueError: the address is no IP address.
    #[pyo3(signature = (key, address, port, host, path, url, families))]
    #[allow(clippy::too_many_arguments)] // Named in Python.
    fn set_target(
        &self,
        key: u32,
        address: &str,
        port: u16,
        host: String,
        path: String,
        url: String,
        families: Option<Vec<String>>,
    ) -> PyResult<()> {
        let address: IpAddr =
            address.parse().map_err(|_| PyValueError::new_err(format!("{address:?} is no address")))?;
        let families = families.map(Families::new);
        let target = Target { address: SocketAddr::new(address, port), host, path, url, families };
        if let Some(reader) = self.open().as_ref() {
            reader.set(key, target);
        }
        Ok(())
    }

    /// Forget a target; what is under way for it is not told any more.
    fn remove_target(&self, key: u32) {
        if let Some(reader) = self.open().as_ref() {
            reader.remove(key);
        }
    }

    /// Begin to read these targets, and take what was read since the last call: (key, page, None) or (key, None, error); (key, None, None)
    /// for a page that is compressed or on another server, which is not read here.
    ///
    /// Raises:
    ///     RuntimeError: the thread has ended.
    fn exchange<'py>(&self, py: Python<'py>, keys: Vec<u32>) -> PyResult<Bound<'py, PyList>> {
        let open = self.open();
        let taken = open.as_ref().and_then(|reader| {
            reader.read(keys);
            reader.take()
        });
        drop(open);
        let taken = taken.ok_or_else(|| PyRuntimeError::new_err("the thread that reads metrics pages has ended"))?;
        let shown = PyList::empty(py);
        for (key, result) in taken {
            match result {
                Ok(page) => shown.append((key, PyBytes::new(py, &page), py.None()))?,
                Err(Failure::Problem(problem)) => shown.append((key, py.None(), problem))?,
                Err(Failure::Refused) => shown.append((key, py.None(), py.None()))?,
            }
        }
        Ok(shown)
    }

    /// Stop the thread and close all connections.
    fn close(&self, py: Python<'_>) {
        let reader = self.open().take();
        py.detach(|| drop(reader));
    }
}

impl PageReader {
    /// None once it is closed.
    fn open(&self) -> MutexGuard<'_, Option<reader::PageReader>> {
        self.reader.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The lines of a page that the reader hands out, for tests and measurements.
///
/// Raises:
///     ValueError: this is no whole page.
#[pyfunction]
pub fn page_excerpt<'py>(py: Python<'py>, page: &[u8], families: Vec<String>) -> PyResult<Bound<'py, PyBytes>> {
    if let Some(problem) = check::problem(page) {
        return Err(PyValueError::new_err(problem));
    }
    Ok(PyBytes::new(py, &excerpt(page, &Families::new(families))))
}
