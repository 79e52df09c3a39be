//! Prompt blocks and the index of prefixes, for plugins.

use std::borrow::Cow;
use std::num::NonZeroUsize;
use std::sync::{Mutex, MutexGuard, PoisonError};

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyMemoryView};

use crate::prefix::blocks::{self, Cut, HASH_BYTES};
use crate::prefix::index::{self, MAX_SLOTS};
use crate::prefix::prompts;

/// xxh3_64 of each whole block of `data`, as 64 bits little endian; of the first `max_blocks` blocks, 0 = of all.
///
/// Raises:
///     ValueError: `block_bytes` is 0.
#[pyfunction]
#[pyo3(signature = (data, block_bytes, max_blocks = 0))]
pub fn content_hashes<'py>(
    data: &Bound<'py, PyAny>,
    block_bytes: NonZeroUsize,
    max_blocks: usize,
) -> PyResult<Bound<'py, PyBytes>> {
    let hashes = blocks::content_hashes(&bytes(data)?, Cut { block_bytes, max_blocks });
    Ok(PyBytes::new(data.py(), &hashes))
}

/// The keys of a prompt's prefixes, the shortest first, as 64 bits little endian.
///
/// Raises:
///     ValueError: `contents` does not consist of 64 bits each.
#[pyfunction]
pub fn chain<'py>(seed: u64, contents: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyBytes>> {
    let keys = blocks::chain(seed, &bytes(contents)?).ok_or_else(not_whole)?;
    Ok(PyBytes::new(contents.py(), &keys))
}

/// The prompts of a request body, hashed and packed; b"" if it is no JSON object, or too deep or too much of one.
///
/// Raises:
///     ValueError: `block_bytes` is 0.
#[pyfunction]
#[pyo3(signature = (body, block_bytes, max_blocks = 0))]
pub fn prompt_blocks<'py>(
    body: &Bound<'py, PyAny>,
    block_bytes: NonZeroUsize,
    max_blocks: usize,
) -> PyResult<Bound<'py, PyBytes>> {
    let packed = prompts::prompt_blocks(&bytes(body)?, Cut { block_bytes, max_blocks });
    Ok(PyBytes::new(body.py(), &packed))
}

/// Which slots hold which prefixes: one bounded LRU of keys for each slot, and the slots of each key.
#[pyclass(frozen, module = "epp_native")]
pub struct LruIndex(Mutex<index::LruIndex>);

#[pymethods]
impl LruIndex {
    #[new]
    fn new() -> Self {
        Self(Mutex::default())
    }

    /// Remember that `slot` holds the first `capacity` of these keys, which is the most that it holds from now on.
    ///
    /// Raises:
    ///     ValueError: `keys` are not 64 bits each, or the slot is too large.
    fn add(&self, slot: u32, keys: &Bound<'_, PyAny>, capacity: i64) -> PyResult<()> {
        if slot >= MAX_SLOTS {
            return Err(PyValueError::new_err(format!("slot {slot} is not below {MAX_SLOTS}")));
        }
        let keys = bytes(keys)?;
        // More keys than 32 bits count cannot be told apart by their places.
        let capacity = usize::try_from(capacity.clamp(0, i64::from(u32::MAX - 1))).unwrap_or_default();
        self.index().add(slot, whole(&keys)?, capacity);
        Ok(())
    }

    /// (slot, number of leading keys that it holds) of those that hold the first one, ascending by slot.
    ///
    /// Raises:
    ///     ValueError: `keys` are not 64 bits each.
    #[pyo3(name = "match")]
    fn matches(&self, keys: &Bound<'_, PyAny>) -> PyResult<Vec<(u32, u32)>> {
        Ok(self.index().matches(whole(&bytes(keys)?)?))
    }

    /// Forget all that `slot` holds.
    fn clear(&self, slot: u32) {
        self.index().clear(slot);
    }

    /// Keys that `slot` holds.
    fn size(&self, slot: u32) -> usize {
        self.index().size(slot)
    }

    /// Different keys that are held by any slot.
    fn keys(&self) -> usize {
        self.index().keys()
    }

    /// Keys of all slots together.
    fn __len__(&self) -> usize {
        self.index().len()
    }
}

impl LruIndex {
    fn index(&self) -> MutexGuard<'_, index::LruIndex> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The bytes of a buffer, copied if it is not `bytes`.
fn bytes<'a>(buffer: &'a Bound<'_, PyAny>) -> PyResult<Cow<'a, [u8]>> {
    if let Ok(bytes) = buffer.cast::<PyBytes>() {
        return Ok(Cow::Borrowed(bytes.as_bytes()));
    }
    Ok(Cow::Owned(PyMemoryView::from(buffer)?.call_method0("tobytes")?.extract()?))
}

fn whole(keys: &[u8]) -> PyResult<&[[u8; HASH_BYTES]]> {
    let (keys, []) = keys.as_chunks() else { return Err(not_whole()) };
    Ok(keys)
}

fn not_whole() -> PyErr {
    PyValueError::new_err("the length of packed hashes or keys is no multiple of 8")
}
