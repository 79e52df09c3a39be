//! What an engine's keys stand for, and where a chain goes on behind them. Twin of `plugins/kvcache/engine_keys.py`.

use super::decode::Features;
use super::lru::Lru;

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Tail {
    pub key: u64,
    /// Tokens behind it that fill no whole block of the index yet.
    pub rest: Vec<u8>,
    pub features: Features,
}

#[derive(Clone, Debug, Default)]
struct Entry {
    seed: u64,
    keys: Vec<u64>,
    tail: Tail,
}

enum Known {
    /// One key of the base model.
    Base(u64),
    /// Of each identity its own. Boxed, as nearly all keys are of the other kind.
    #[allow(clippy::box_collection)]
    Several(Box<Vec<Entry>>),
}

impl Default for Known {
    fn default() -> Self {
        Self::Several(Box::default())
    }
}

pub struct EngineKeys {
    base_seed: u64,
    limit: usize,
    known: Lru<Known>,
}

impl EngineKeys {
    pub fn new(base_seed: u64, limit: usize) -> Self {
        Self { base_seed, limit, known: Lru::default() }
    }

    pub fn len(&self) -> usize {
        self.known.len()
    }

    pub fn is_empty(&self) -> bool {
        self.known.is_empty()
    }

    pub fn put(&mut self, engine_key: u64, seed: u64, keys: &[u64], tail: Tail) {
        let base_seed = self.base_seed;
        let is_plain = keys.len() == 1 && seed == base_seed && tail.rest.is_empty();
        let known = self.known.touch(engine_key);
        let is_base_only = match known {
            Known::Base(_) => true,
            Known::Several(entries) => entries.is_empty(),
        };
        if is_plain && is_base_only {
            *known = Known::Base(keys[0]);
        } else {
            let mut entries = match std::mem::take(known) {
                Known::Base(key) => {
                    vec![Entry { seed: base_seed, keys: vec![key], tail: Tail { key, ..Tail::default() } }]
                }
                Known::Several(entries) => *entries,
            };
            entries.retain(|entry| entry.seed != seed);
            entries.insert(0, Entry { seed, keys: keys.to_vec(), tail });
            *known = Known::Several(Box::new(entries));
        }
        if self.known.len() > self.limit
            && let Some(oldest) = self.known.oldest()
        {
            self.known.remove(oldest);
        }
    }

    /// Where the blocks behind this one go on; None if it is unknown in the cache of this identity.
    pub fn tail(&self, engine_key: u64, seed: u64) -> Option<Tail> {
        match self.known.get(engine_key)? {
            Known::Base(key) => (seed == self.base_seed).then(|| Tail { key: *key, ..Tail::default() }),
            Known::Several(entries) => entries.iter().find(|entry| entry.seed == seed).map(|entry| entry.tail.clone()),
        }
    }

    /// What it stands for, whatever the identity.
    pub fn keys(&self, engine_key: u64) -> Vec<u64> {
        match self.known.get(engine_key) {
            None => Vec::new(),
            Some(Known::Base(key)) => vec![*key],
            Some(Known::Several(entries)) => entries.iter().flat_map(|entry| entry.keys.iter().copied()).collect(),
        }
    }
}
