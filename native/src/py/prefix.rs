//! Prompt blocks and the index of prefixes, for plugins.

use std::borrow::Cow;
use std::num::NonZeroUsize;

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyMemoryView, PyTuple};

use super::views::Body;
use crate::prefix::blocks::{self, Cut, HASH_BYTES, Scope};
use crate::prefix::index::MAX_SLOTS;
use crate::prefix::later::SharedIndex;
use crate::prefix::outline::outline as outlined;
use crate::prefix::packed::{self, Chain, Keys};
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

/// The keys of a prompt's prefixes, the shortest first, one for every `stride` hashes, as 64 bits little endian.
///
/// Raises:
///     ValueError: `contents` does not consist of 64 bits each, or `stride` is 0.
#[pyfunction]
#[pyo3(signature = (seed, contents, stride = NonZeroUsize::MIN))]
pub fn chain<'py>(seed: u64, contents: &Bound<'py, PyAny>, stride: NonZeroUsize) -> PyResult<Bound<'py, PyBytes>> {
    let keys = blocks::chain(seed, &bytes(contents)?, stride).ok_or_else(not_whole)?;
    Ok(PyBytes::new(contents.py(), &keys))
}

/// The keys of packed prompts, of each that has a whole block; None if fewer hashes were made than are wanted.
///
/// Raises:
///     ValueError: `packed` is cut off or goes on behind its end.
#[pyfunction]
pub fn packed_keys<'py>(
    packed: &Bound<'py, PyBytes>,
    model: &[u8],
    salt: &[u8],
    unit_bytes: NonZeroUsize,
    stride: NonZeroUsize,
    max_blocks: usize,
) -> PyResult<Option<Bound<'py, PyTuple>>> {
    let py = packed.py();
    let how = Chain { scope: Scope { model, salt }, unit_bytes, stride, max_blocks };
    match packed::packed_keys(packed.as_bytes(), how) {
        Keys::Known(prompts) => Ok(Some(PyTuple::new(py, prompts.iter().map(|keys| PyBytes::new(py, keys)))?)),
        Keys::TooFew => Ok(None),
        Keys::Malformed => Err(PyValueError::new_err("packed prompt blocks are cut off or go on behind their end")),
    }
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

/// A request body whose long texts and lists of token ids are cut; None if it is no JSON object, or too deep or too much of one,
/// or a view of what is not read here: of neither a body of the transport nor `bytes`, as a whole.
#[pyfunction]
pub fn outline<'py>(body: &Bound<'py, PyMemoryView>) -> PyResult<Option<Bound<'py, PyBytes>>> {
    let (py, owner, length) = (body.py(), body.getattr("obj")?, body.len()?);
    let whole = |data: &[u8]| (data.len() == length).then(|| outlined(data)).flatten();
    let cut = if let Ok(bytes) = owner.cast::<PyBytes>() {
        whole(bytes.as_bytes())
    } else if let Ok(body) = owner.cast::<Body>() {
        whole(&body.get().0)
    } else {
        None
    };
    Ok(cut.map(|cut| PyBytes::new(py, &cut)))
}

/// Which slots hold which prefixes: one bounded LRU of keys for each slot, and the slots of each key.
#[pyclass(frozen, module = "epp_native")]
pub struct LruIndex(SharedIndex);

#[pymethods]
impl LruIndex {
    #[new]
    fn new() -> Self {
        Self(SharedIndex::default())
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
        self.0.add(slot, whole(&keys)?, capacity);
        Ok(())
    }

    /// (slot, number of leading keys that it holds) of those that hold the first one, ascending by slot.
    ///
    /// Raises:
    ///     ValueError: `keys` are not 64 bits each.
    #[pyo3(name = "match")]
    fn matches(&self, keys: &Bound<'_, PyAny>) -> PyResult<Vec<(u32, u32)>> {
        let keys = bytes(keys)?;
        let keys = whole(&keys)?;
        Ok(self.0.look(|index| index.matches(keys)))
    }

    /// Forget all that `slot` holds.
    fn clear(&self, slot: u32) {
        self.0.look(|index| index.clear(slot));
    }

    /// Keys that `slot` holds.
    fn size(&self, slot: u32) -> usize {
        self.0.look(|index| index.size(slot))
    }

    /// Different keys that are held by any slot.
    fn keys(&self) -> usize {
        self.0.look(|index| index.keys())
    }

    /// Keys of all slots together; more, while some that were added are there already or take the place of others.
    fn __len__(&self) -> usize {
        self.0.len()
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
