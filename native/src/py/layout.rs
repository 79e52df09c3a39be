//! What is read and made by position, and which numbers are given: `epp.transport.native` compares it with Python's own
//! definitions when it is imported, so that an extension of another version is refused instead of mixing up fields.

use pyo3::prelude::*;
use pyo3::types::PyDict;

use crate::bodies::readers::{READERS, REQUEST_READERS, Table};

/// Kinds of what `Bridge::take` gives, with the numbers that stand for them.
pub mod event {
    pub const REQUEST: u8 = 0;
    pub const RESPONSE_HEADERS: u8 = 1;
    pub const RESPONSE_BODY: u8 = 2;
    pub const FINISHED: u8 = 3;
    pub const FINISHED_HELD: u8 = 4;
    pub const STOPPED: u8 = 5;
}

/// Records of `epp.seam`, each with its fields in order.
const RECORDS: &[(&str, &[&str])] = &[
    ("Edits", &["set", "remove"]),
    ("Rename", &["member", "old", "new"]),
    ("Plan", &["ask_headers", "observe", "hold_end", "rename", "readers", "streams", "skip"]),
    ("Route", &["headers", "metadata", "plan", "splices"]),
    ("Reply", &["status", "body", "headers", "grpc_status", "details"]),
    ("Chunk", &["data", "end", "at_s", "read"]),
    ("Port", &["host", "port", "secure", "extproc", "health"]),
];

/// Records that readers give.
const RESULTS: &[(&str, &[&str])] = &[
    ("Usage", &["prompt_tokens", "completion_tokens", "total_tokens", "cached_tokens", "events", "found"]),
    ("BodyCopy", &["data", "truncated"]),
];

/// `Observe` by number.
const OBSERVE: &[&str] = &["OFF", "FIRST", "EVERY"];

/// Everything that both sides must agree on: records and results with their fields, numbers of events, names of readers.
#[pyfunction]
pub fn layout(py: Python<'_>) -> PyResult<Bound<'_, PyDict>> {
    let events = PyDict::new(py);
    for (name, number) in [
        ("request", event::REQUEST),
        ("response_headers", event::RESPONSE_HEADERS),
        ("response_body", event::RESPONSE_BODY),
        ("finished", event::FINISHED),
        ("finished_held", event::FINISHED_HELD),
        ("stopped", event::STOPPED),
    ] {
        events.set_item(name, number)?;
    }
    let out = PyDict::new(py);
    out.set_item("events", events)?;
    out.set_item("records", fields(py, RECORDS)?)?;
    out.set_item("results", fields(py, RESULTS)?)?;
    out.set_item("observe", OBSERVE)?;
    out.set_item("readers", names(READERS))?;
    out.set_item("request_readers", names(REQUEST_READERS))?;
    Ok(out)
}

fn fields<'py>(py: Python<'py>, records: &[(&str, &[&str])]) -> PyResult<Bound<'py, PyDict>> {
    let out = PyDict::new(py);
    for (name, fields) in records {
        out.set_item(name, *fields)?;
    }
    Ok(out)
}

fn names(table: &Table) -> Vec<&'static str> {
    table.iter().map(|(name, _)| *name).collect()
}
