//! The index behind the interface of `plugins/kvcache/event_index.py`: what is decoded is applied under a lock that is held for
//! one message, so that no look-up waits for a flood.

use std::sync::{Mutex, MutexGuard, PoisonError};

use super::assumed::Assumed;
use super::decode::{Features, decode};
use super::lookup::{Match, lookup};
use super::processor::{Processor, Settings};

/// A message with who published it.
pub struct Message<'a> {
    pub pod: String,
    pub by_rank: Vec<String>,
    pub model: String,
    pub payload: &'a [u8],
}

pub struct State {
    pub processor: Processor,
    pub assumed: Assumed,
}

pub struct Index {
    sglang: bool,
    state: Mutex<State>,
}

impl Index {
    pub fn new(settings: Settings, tiers: Vec<(String, f64)>, max_assumed: usize) -> Self {
        let sglang = settings.sglang;
        let state = State { processor: Processor::new(settings, tiers), assumed: Assumed::new(max_assumed) };
        Self { sglang, state: Mutex::new(state) }
    }

    /// A panic elsewhere leaves what was written; it is told of as a panic.
    pub fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn apply(&self, messages: &[Message<'_>], now_s: f64) {
        for message in messages {
            let batch = decode(message.payload, self.sglang);
            let processor = &mut self.state().processor;
            processor.apply(&message.pod, &message.by_rank, &message.model, batch, now_s);
        }
    }

    pub fn keys(&self, target_model: &str, tokens: &[u8], features: &[Features], is_adapter: bool) -> Vec<u64> {
        self.state().processor.keys(target_model, tokens, features, is_adapter)
    }

    pub fn lookup(&self, keys: &[u64], now_s: f64) -> Vec<Match> {
        let state = &mut *self.state();
        state.assumed.sweep(now_s);
        let Processor { blocks, pods, tiers, .. } = &state.processor;
        lookup(keys, blocks, &state.assumed, pods, tiers, now_s)
    }

    pub fn assume(&self, keys: &[u64], pod: &str, until_s: f64) {
        let state = &mut *self.state();
        if let Some(slot) = state.processor.pods.slot(pod)
            && !keys.is_empty()
        {
            state.assumed.add(keys, slot, until_s, &state.processor.pods);
        }
    }
}
