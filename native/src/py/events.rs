//! The index of KV events for Python: used by `plugins/kvcache/native_index.py` only.

use std::collections::HashMap;

use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict};

use crate::events::blocks::Bounds;
use crate::events::index::{Index, Message};
use crate::events::processor::Settings;

/// Knows which pods hold a prompt's blocks.
#[pyclass(frozen, module = "epp_native")]
pub struct EventIndex {
    index: Index,
}

/// (pod, blocks, weighted blocks, blocks of each tier).
type Found = (String, usize, f64, HashMap<String, usize>);

#[pymethods]
impl EventIndex {
    /// Args:
    ///     tiers: (name in lower case, weight), never empty.
    ///     max_keys, max_bytes, max_pods_per_key: of the index; None = unbounded.
    ///     max_engine_keys: of each base model, and of each pod.
    ///     max_assumed: keys that are assumed to be cached.
    #[new]
    #[pyo3(signature = (*, block_size, hash_seed, sglang, aliases, tiers, max_keys, max_bytes, max_pods_per_key, max_engine_keys, max_assumed))]
    #[allow(clippy::too_many_arguments)] // Named in Python.
    fn new(
        block_size: usize,
        hash_seed: String,
        sglang: bool,
        aliases: HashMap<String, String>,
        tiers: Vec<(String, f64)>,
        max_keys: usize,
        max_bytes: Option<usize>,
        max_pods_per_key: Option<usize>,
        max_engine_keys: usize,
        max_assumed: usize,
    ) -> Self {
        let bounds = Bounds { keys: max_keys, bytes: max_bytes, pods_per_key: max_pods_per_key };
        let settings = Settings { block_size, hash_seed, sglang, bounds, engine_keys: max_engine_keys, aliases };
        Self { index: Index::new(settings, tiers, max_assumed) }
    }

    /// Apply messages: (pod, pods by rank, model, payload). The interpreter does not wait.
    fn apply(&self, py: Python<'_>, messages: Vec<(String, Vec<String>, String, Bound<'_, PyBytes>)>, now_s: f64) {
        let shown: Vec<Message<'_>> = messages
            .iter()
            .map(|(pod, by_rank, model, payload)| Message {
                pod: pod.clone(),
                by_rank: by_rank.clone(),
                model: model.clone(),
                payload: payload.as_bytes(),
            })
            .collect();
        py.detach(|| self.index.apply(&shown, now_s));
    }

    fn admit(&self, py: Python<'_>, pod: &str) {
        py.detach(|| {
            self.index.state().processor.pods.admit(pod);
        });
    }

    fn forget(&self, py: Python<'_>, pod: &str) {
        py.detach(|| self.index.state().processor.forget(pod));
    }

    fn rename(&self, py: Python<'_>, old: &str, new: &str) {
        py.detach(|| self.index.state().processor.rename(old, new));
    }

    fn clear(&self, py: Python<'_>, pod: &str) {
        py.detach(|| self.index.state().processor.reset(pod));
    }

    fn keys(&self, target_model: &str, tokens: &[u8], features: Vec<Vec<String>>, is_adapter: bool) -> Vec<u64> {
        self.index.keys(target_model, tokens, &features, is_adapter)
    }

    fn lookup(&self, keys: Vec<u64>, now_s: f64) -> Vec<Found> {
        let found = self.index.lookup(&keys, now_s);
        found.into_iter().map(|m| (m.pod, m.blocks, m.weighted, m.by_tier.into_iter().collect())).collect()
    }

    fn assume(&self, keys: Vec<u64>, pod: &str, until_s: f64) {
        self.index.assume(&keys, pod, until_s);
    }

    #[getter]
    fn engine_block_size(&self) -> u64 {
        self.index.state().processor.engine_block_size
    }

    /// totals, decode_errors, skipped, keys, engine_keys, orphans, pods.
    fn counts<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let state = self.index.state();
        let processor = &state.processor;
        let mut totals: HashMap<&str, u64> = processor.counts.iter().map(|(name, count)| (*name, *count)).collect();
        totals.insert("admissions", processor.blocks.admissions);
        totals.insert("evictions", processor.blocks.evictions);
        let pods: HashMap<&str, usize> = processor.pods.iter().map(|pod| (pod.name.as_str(), pod.blocks())).collect();
        let shown = PyDict::new(py);
        shown.set_item("totals", totals)?;
        shown.set_item("decode_errors", processor.decode_errors.clone())?;
        shown.set_item("skipped", processor.skipped.clone())?;
        shown.set_item("keys", processor.blocks.masks.len())?;
        shown.set_item("engine_keys", processor.engine_keys())?;
        shown.set_item("orphans", processor.orphans())?;
        shown.set_item("pods", pods)?;
        Ok(shown)
    }

    /// (pod, the engine's block size) of those whose blocks are no multiples of the index's; each is told once.
    fn take_notices(&self) -> Vec<(String, u64)> {
        std::mem::take(&mut self.index.state().processor.notices)
    }
}
