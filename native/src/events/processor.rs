//! What events mean: from an engine's blocks to the index's. Twin of `plugins/kvcache/event_processor.py`.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};

use super::blocks::{Blocks, Bounds};
use super::decode::{Batch, Event, Features, Stored};
use super::engine_keys::{EngineKeys, Tail};
use super::features::{spread, united};
use super::keys::{Chain, TOKEN_BYTES};
use super::orphans::Orphans;
use super::pods::{Holding, MAX_COUNT, Place, Pods, Several};
use super::tiers::Tiers;

const FULL_ATTENTION: [&str; 3] = ["full_attention", "mla_attention", "sink_full_attention"];
const MAX_GROUPS: usize = 256;
const MAX_MODELS: usize = 256;
const MAX_ADAPTERS: usize = 10_000;
/// Pods that are told of blocks of another size are named to Python, at most so many at a time.
const MAX_NOTICES: usize = 1_000;

pub struct Settings {
    pub block_size: usize,
    pub hash_seed: String,
    pub sglang: bool,
    pub bounds: Bounds,
    pub engine_keys: usize,
    pub aliases: HashMap<String, String>,
}

struct Model {
    keys: EngineKeys,
    orphans: Orphans,
}

#[derive(Clone, Copy)]
struct At {
    slot: usize,
    place: Place,
    seed: u64,
}

pub struct Processor {
    settings: Settings,
    chain: Chain,
    pub pods: Pods,
    pub tiers: Tiers,
    pub blocks: Blocks,
    models: HashMap<String, Model>,
    seeds: HashMap<String, u64>,
    pub adapters: HashSet<String>,
    pub engine_block_size: u64,
    pub counts: BTreeMap<&'static str, u64>,
    pub decode_errors: BTreeMap<&'static str, u64>,
    /// (stores or removals, kind, reason).
    pub skipped: BTreeMap<(&'static str, String, &'static str), u64>,
    /// (pod, the engine's block size), not yet told.
    pub notices: Vec<(String, u64)>,
}

impl Processor {
    pub fn new(settings: Settings, tiers: Vec<(String, f64)>) -> Self {
        Self {
            chain: Chain::new(&settings.hash_seed),
            pods: Pods::default(),
            tiers: Tiers::new(tiers),
            blocks: Blocks::new(settings.bounds),
            models: HashMap::new(),
            seeds: HashMap::new(),
            adapters: HashSet::new(),
            engine_block_size: settings.block_size as u64,
            counts: BTreeMap::new(),
            decode_errors: BTreeMap::new(),
            skipped: BTreeMap::new(),
            notices: Vec::new(),
            settings,
        }
    }

    pub fn orphans(&self) -> usize {
        self.models.values().map(|model| model.orphans.len()).sum()
    }

    pub fn engine_keys(&self) -> usize {
        self.models.values().map(|model| model.keys.len()).sum()
    }

    /// The keys of a prompt's whole blocks.
    pub fn keys(&self, target_model: &str, tokens: &[u8], features: &[Features], is_adapter: bool) -> Vec<u64> {
        let identity = if is_adapter || self.adapters.contains(target_model) {
            target_model
        } else if self.settings.aliases.is_empty() {
            ""
        } else {
            self.scope(target_model)
        };
        self.chain.extend(self.chain.seed(identity), tokens, self.settings.block_size, features)
    }

    /// Apply what was decoded of a message; None = it was no batch.
    pub fn apply(&mut self, pod: &str, by_rank: &[String], model: &str, batch: Option<Batch>, now_s: f64) {
        let Some(batch) = batch else {
            *self.decode_errors.entry("payload").or_default() += 1;
            return;
        };
        if batch.errors > 0 {
            *self.decode_errors.entry("event").or_default() += batch.errors;
        }
        let ranked =
            batch.rank.and_then(|rank| by_rank.get(usize::try_from(rank).ok()?)).filter(|name| !name.is_empty());
        let slot = self.pods.admit(ranked.map_or(pod, String::as_str));
        let scope = self.scope(model).to_owned();
        if !self.models.contains_key(&scope) {
            if self.models.len() >= MAX_MODELS {
                self.count("unsupported");
                return;
            }
            let keys = EngineKeys::new(self.seed(model, ""), self.settings.engine_keys);
            self.models.insert(scope.clone(), Model { keys, orphans: Orphans::default() });
        }
        for event in batch.events {
            match event {
                Event::Stored(stored) => self.stored(slot, &scope, model, stored, now_s),
                Event::Removed { hashes, tier, group } => self.removed(slot, &scope, &hashes, &tier, group),
                Event::Cleared => self.clear(slot),
            }
        }
    }

    /// A pod's cache was emptied, or too much of what it said was missed.
    pub fn reset(&mut self, name: &str) {
        if let Some(slot) = self.pods.slot(name) {
            self.clear(slot);
            self.pods.at(slot).kinds.clear();
        }
    }

    pub fn forget(&mut self, name: &str) {
        if let Some(slot) = self.pods.slot(name) {
            self.clear(slot);
            self.pods.leave(slot);
        }
    }

    pub fn rename(&mut self, old: &str, new: &str) {
        let Some(slot) = self.pods.slot(old) else { return };
        if old == new {
            return;
        }
        self.forget(new);
        self.blocks.renamed(old, new, self.pods.at(slot).blocks());
        self.pods.rename(slot, new);
        self.models.values_mut().for_each(|model| model.orphans.renamed(old, new));
    }

    // ── events ──

    fn scope<'a>(&'a self, model: &'a str) -> &'a str {
        self.settings.aliases.get(model).map_or(model, String::as_str)
    }

    fn seed(&mut self, model: &str, lora_name: &str) -> u64 {
        let identity = if !lora_name.is_empty() {
            lora_name
        } else if self.settings.aliases.is_empty() {
            ""
        } else {
            self.scope(model)
        };
        if let Some(seed) = self.seeds.get(identity) {
            return *seed;
        }
        let (identity, seed) = (identity.to_owned(), self.chain.seed(identity));
        if self.seeds.len() >= MAX_ADAPTERS {
            self.seeds.clear();
        }
        self.seeds.insert(identity, seed);
        seed
    }

    fn count(&mut self, what: &'static str) {
        *self.counts.entry(what).or_default() += 1;
    }

    fn skip(&mut self, what: &'static str, kind: &str, reason: &'static str) {
        *self.skipped.entry((what, kind.to_owned(), reason)).or_default() += 1;
    }

    fn stored(&mut self, slot: usize, scope: &str, model: &str, event: Stored, now_s: f64) {
        if event.group.is_some_and(|group| !self.is_indexable(slot, group, &event)) {
            return;
        }
        let tier = self.tiers.number(&event.tier);
        let Some(tier) = tier.filter(|_| !event.has_lora_id || !event.lora_name.is_empty()) else {
            self.count("unsupported");
            return;
        };
        let place = (tier, event.group);
        if event.tokens.is_empty() {
            for engine_key in &event.hashes {
                let keys = self.models[scope].keys.keys(*engine_key);
                if !keys.is_empty() {
                    self.hold(slot, place, *engine_key, &keys);
                }
            }
            return;
        }
        if event.block_size == 0 {
            self.skip("stores", &event.kind, "invalid_block_size");
            return;
        }
        let seed = self.seed(model, &event.lora_name);
        if !event.lora_name.is_empty() && self.adapters.len() < MAX_ADAPTERS {
            self.adapters.insert(event.lora_name.clone());
        }
        let parents = event.hashes.clone();
        if self.link(At { slot, place, seed }, scope, event, &HashSet::new(), now_s) {
            self.adopt(scope, model, parents, now_s);
        }
    }

    /// Apply what waited for these blocks, and what waited for that in turn.
    fn adopt(&mut self, scope: &str, model: &str, parents: Vec<u64>, now_s: f64) {
        let Some(of_model) = self.models.get_mut(scope).filter(|of_model| !of_model.orphans.is_empty()) else { return };
        of_model.orphans.sweep(now_s);
        let mut queue = VecDeque::from(parents);
        while let Some(parent) = queue.pop_front() {
            let waiting = self.models.get_mut(scope).map(|of_model| of_model.orphans.take(parent)).unwrap_or_default();
            for orphan in waiting {
                let Some(slot) = self.pods.slot(&orphan.pod) else { continue };
                let Some(tier) = self.tiers.number(&orphan.event.tier) else { continue };
                let seed = self.seed(model, &orphan.event.lora_name);
                let hashes = orphan.event.hashes.clone();
                let at = At { slot, place: (tier, orphan.event.group), seed };
                // What still waits must not be taken again at once: garbage may be its own parent.
                if self.link(at, scope, orphan.event, &orphan.removed, now_s) {
                    queue.extend(hashes);
                }
            }
        }
    }

    /// Work out the keys of an event's blocks, or keep it until its parent is known; whether any block is known now.
    fn link(&mut self, at: At, scope: &str, event: Stored, removed: &HashSet<u64>, now_s: f64) -> bool {
        let tail = match event.parent {
            None => Some(Tail { key: at.seed, ..Tail::default() }),
            Some(parent) => self.models[scope].keys.tail(parent, at.seed),
        };
        let Some(tail) = tail else {
            self.count("unknown_parent");
            let name = self.pods.name(at.slot).to_owned();
            if let (Some(parent), Some(model)) = (event.parent, self.models.get_mut(scope)) {
                model.orphans.add(&name, event, parent, now_s);
            }
            return false;
        };
        let Ok(engine_block) = usize::try_from(event.block_size) else { return false };
        let Some(engine_bytes) = engine_block.checked_mul(TOKEN_BYTES) else { return false };
        let usable = event.features.iter().position(Option::is_none).unwrap_or(usize::MAX);
        let count = (event.tokens.len() / engine_bytes).min(event.hashes.len()).min(usable);
        if count == 0 {
            return false;
        }
        self.engine_block_size = event.block_size;
        let of_engine: Vec<Features> =
            event.features.iter().take(count).map(|features| features.clone().unwrap_or_default()).collect();
        let block = self.settings.block_size;
        if engine_block.is_multiple_of(block) && tail.rest.is_empty() {
            let tokens = &event.tokens[..count * engine_bytes];
            let features =
                spread(&of_engine, engine_block, block, tokens.len() / (block * TOKEN_BYTES), 0, &Vec::new());
            let keys = self.chain.extend(tail.key, tokens, block, &features);
            for (engine_key, own) in event.hashes.iter().zip(keys.chunks_exact(engine_block / block)) {
                let last = Tail { key: own[own.len() - 1], ..Tail::default() };
                self.learn(scope, *engine_key, at.seed, own, last);
                if !removed.contains(engine_key) {
                    self.hold(at.slot, at.place, *engine_key, own);
                }
            }
            return true;
        }
        self.link_unevenly(at, scope, &event, count, tail, &of_engine, removed);
        true
    }

    /// Where an engine's blocks are no multiples of the index's: a key belongs to the block that completes it.
    #[allow(clippy::too_many_arguments)] // The parts of one event.
    fn link_unevenly(
        &mut self,
        at: At,
        scope: &str,
        event: &Stored,
        count: usize,
        tail: Tail,
        of_engine: &[Features],
        removed: &HashSet<u64>,
    ) {
        self.notice(at.slot, event.block_size);
        let engine_bytes = event.tokens.len().min(usize::try_from(event.block_size).unwrap_or(0) * TOKEN_BYTES);
        let width = self.settings.block_size * TOKEN_BYTES;
        let mut tokens = tail.rest.clone();
        tokens.extend_from_slice(&event.tokens[..count * engine_bytes]);
        let head_tokens = tail.rest.len() / TOKEN_BYTES;
        let engine_block = engine_bytes / TOKEN_BYTES;
        let block = self.settings.block_size;
        let features = spread(of_engine, engine_block, block, tokens.len() / width, head_tokens, &tail.features);
        let keys = self.chain.extend(tail.key, &tokens, block, &features);
        let (mut done, mut key, mut rest_features) = (0, tail.key, tail.features);
        let none = Features::new();
        for (index, engine_key) in event.hashes.iter().take(count).enumerate() {
            let end = tail.rest.len() + (index + 1) * engine_bytes;
            let complete = end / width;
            let own = &keys[done..complete];
            let here = of_engine.get(index).unwrap_or(&none);
            rest_features = if own.is_empty() { united([&rest_features, here].into_iter()) } else { here.clone() };
            key = own.last().copied().unwrap_or(key);
            done = complete;
            let rest = tokens[complete * width..end].to_vec();
            let features = if rest.is_empty() { Features::new() } else { rest_features.clone() };
            self.learn(scope, *engine_key, at.seed, own, Tail { key, rest, features });
            if !own.is_empty() && !removed.contains(engine_key) {
                self.hold(at.slot, at.place, *engine_key, own);
            }
        }
    }

    fn learn(&mut self, scope: &str, engine_key: u64, seed: u64, keys: &[u64], tail: Tail) {
        if let Some(model) = self.models.get_mut(scope) {
            model.keys.put(engine_key, seed, keys, tail);
        }
    }

    fn removed(&mut self, slot: usize, scope: &str, hashes: &[u64], tier: &str, group: Option<u64>) {
        if let Some(model) = self.models.get_mut(scope) {
            model.orphans.removed(self.pods.name(slot), hashes);
        }
        if let Some(group) = group {
            let pod = self.pods.at(slot);
            let kind = pod.kinds.get(&group).cloned().unwrap_or_default();
            if kind.is_empty() && !pod.kinds.is_empty() {
                self.skip("removals", "", "unknown_group");
                return;
            }
            if !kind.is_empty() && !FULL_ATTENTION.contains(&kind.as_str()) {
                self.skip("removals", &kind, "unsupported_cache_kind");
                return;
            }
        }
        let Some(tier) = self.tiers.number(tier) else {
            self.count("unsupported");
            return;
        };
        for engine_key in hashes {
            self.release(slot, (tier, group), *engine_key);
        }
    }

    /// The group's layers attend to all that is in front, and the blocks follow each other without a gap.
    fn is_indexable(&mut self, slot: usize, group: u64, event: &Stored) -> bool {
        let pod = self.pods.at(slot);
        if !event.kind.is_empty() && pod.kinds.len() < MAX_GROUPS {
            pod.kinds.insert(group, event.kind.clone());
        }
        let kind =
            if event.kind.is_empty() { pod.kinds.get(&group).cloned().unwrap_or_default() } else { event.kind.clone() };
        let is_described = !kind.is_empty() || !pod.kinds.is_empty();
        let is_full = if is_described { FULL_ATTENTION.contains(&kind.as_str()) } else { group == 0 };
        let dense = event.hashes.len() as u64;
        let dense = dense.checked_mul(event.block_size).and_then(|tokens| tokens.checked_mul(TOKEN_BYTES as u64));
        let problem = if !is_full {
            "unsupported_cache_kind"
        } else if !event.tokens.is_empty() && event.block_size == 0 {
            "invalid_block_size"
        } else if !event.tokens.is_empty() && dense != Some(event.tokens.len() as u64) {
            "non_dense_block_span"
        } else {
            return true;
        };
        self.skip("stores", &kind, problem);
        false
    }

    // ── what a pod holds ──

    fn hold(&mut self, slot: usize, place: Place, engine_key: u64, keys: &[u64]) {
        let most = self.settings.engine_keys;
        let held = self.pods.at(slot).held(place);
        let new: Vec<u64>;
        if let Some(holding) = held.get_mut(engine_key) {
            new = keys.iter().copied().filter(|key| !holding.keys().contains(key)).collect();
            let (mut all, count) = match std::mem::take(holding) {
                Holding::One(key) => (vec![key], 1),
                Holding::Many(several) => (several.keys, several.count),
            };
            all.extend_from_slice(&new);
            *holding = Holding::Many(Box::new(Several { keys: all, count: MAX_COUNT.min(count + 1) }));
            self.count("duplicate_stores");
        } else {
            if held.len() >= most
                && let Some(oldest) = held.oldest()
            {
                self.release_whole(slot, place, oldest);
            }
            *self.pods.at(slot).held(place).entry(engine_key) = match keys {
                [only] => Holding::One(*only),
                several => Holding::Many(Box::new(Several { keys: several.to_vec(), count: 1 })),
            };
            new = keys.to_vec();
        }
        for key in new {
            if !self.blocks.add(slot, place.0, key, &self.pods, &self.tiers.names) {
                *self.pods.at(slot).shared.entry((place.0, key)).or_default() += 1;
            }
        }
    }

    fn release(&mut self, slot: usize, place: Place, engine_key: u64) {
        match self.pods.at(slot).held(place).get_mut(engine_key) {
            None => {}
            Some(Holding::Many(several)) if several.count > 1 => {
                several.count -= 1;
                self.count("removals_suppressed");
            }
            Some(_) => {
                self.count("removals_forwarded");
                self.release_whole(slot, place, engine_key);
            }
        }
    }

    fn release_whole(&mut self, slot: usize, place: Place, engine_key: u64) {
        let Some(holding) = self.pods.at(slot).held(place).remove(engine_key) else { return };
        let tier = place.0;
        for key in holding.keys() {
            let shared = &mut self.pods.at(slot).shared;
            match shared.get_mut(&(tier, *key)) {
                None => self.blocks.remove(slot, tier, *key, &self.pods, &self.tiers.names),
                Some(others) if *others > 1 => *others -= 1,
                Some(_) => {
                    shared.remove(&(tier, *key));
                }
            }
        }
    }

    fn clear(&mut self, slot: usize) {
        let pod = self.pods.at(slot);
        pod.epoch += 1;
        pod.shared.clear();
        let name = pod.name.clone();
        for ((tier, _), held) in std::mem::take(&mut pod.held) {
            for (_, holding) in held.iter() {
                for key in holding.keys() {
                    self.blocks.remove(slot, tier, *key, &self.pods, &self.tiers.names);
                }
            }
        }
        self.models.values_mut().for_each(|model| model.orphans.cleared(&name));
        self.count("clears");
    }

    fn notice(&mut self, slot: usize, engine_block: u64) {
        let pod = self.pods.at(slot);
        if !std::mem::replace(&mut pod.mismatch_told, true) && self.notices.len() < MAX_NOTICES {
            self.notices.push((self.pods.name(slot).to_owned(), engine_block));
        }
    }
}
