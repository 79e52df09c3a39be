//! Which pods hold a block. Twin of `plugins/kvcache/block_index.py`, as far as that is written.

use std::collections::HashMap;

use super::bits::Bits;
use super::lru::Lru;
use super::pods::Pods;

const KEY_COST: usize = 84;
const ENTRY_COST: usize = 64;

#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    pub keys: usize,
    pub bytes: Option<usize>,
    pub pods_per_key: Option<usize>,
}

/// Pods at a key: of the GPU, and of each further tier by its number less one.
#[derive(Default)]
pub struct Masks {
    pub gpu: Bits,
    pub more: Option<Box<Vec<Bits>>>,
}

impl Masks {
    pub fn tier(&self, tier: usize) -> Option<&Bits> {
        match tier {
            0 => Some(&self.gpu),
            tier => self.more.as_ref().and_then(|more| more.get(tier - 1)),
        }
    }

    fn tier_mut(&mut self, tier: usize) -> &mut Bits {
        if tier == 0 {
            return &mut self.gpu;
        }
        let more = self.more.get_or_insert_default();
        if more.len() < tier {
            more.resize_with(tier, Bits::default);
        }
        &mut more[tier - 1]
    }

    fn is_empty(&self) -> bool {
        self.gpu.is_empty() && self.more.iter().flat_map(|more| more.iter()).all(Bits::is_empty)
    }
}

pub struct Blocks {
    bounds: Bounds,
    pub masks: Lru<Masks>,
    /// (slot, tier) of each key in the order in which they were added, where their number is bounded.
    order: HashMap<u64, Vec<(usize, usize)>>,
    bytes: usize,
    pub admissions: u64,
    pub evictions: u64,
}

impl Blocks {
    pub fn new(bounds: Bounds) -> Self {
        Self { bounds, masks: Lru::default(), order: HashMap::new(), bytes: 0, admissions: 0, evictions: 0 }
    }

    /// A pod holds a block; false if that was known.
    pub fn add(&mut self, slot: usize, tier: usize, key: u64, pods: &Pods, tiers: &[String]) -> bool {
        if let Some(most) = self.bounds.pods_per_key {
            self.remember_order(slot, tier, key, most, pods, tiers);
        }
        let before = self.masks.len();
        let is_new = self.masks.touch(key).tier_mut(tier).set(slot);
        if self.masks.len() != before {
            self.admissions += 1;
            self.bytes += KEY_COST;
        }
        if is_new {
            self.bytes += entry_cost(pods.name(slot), &tiers[tier]);
            self.bound(pods, tiers);
        }
        is_new
    }

    /// A pod holds a block no longer; nothing happens if it did not.
    pub fn remove(&mut self, slot: usize, tier: usize, key: u64, pods: &Pods, tiers: &[String]) {
        let Some(masks) = self.masks.get_mut(key) else { return };
        if masks.tier(tier).is_none() || !masks.tier_mut(tier).unset(slot) {
            return;
        }
        let is_empty = masks.is_empty();
        self.evictions += 1;
        self.bytes -= entry_cost(pods.name(slot), &tiers[tier]);
        if let Some(order) = self.order.get_mut(&key) {
            order.retain(|entry| *entry != (slot, tier));
        }
        if is_empty {
            self.drop(key);
        }
    }

    /// A pod has another name, of another length, at this many entries.
    pub fn renamed(&mut self, old: &str, new: &str, entries: usize) {
        self.bytes = (self.bytes + new.len() * entries).saturating_sub(old.len() * entries);
    }

    fn bound(&mut self, pods: &Pods, tiers: &[String]) {
        while self.masks.len() > self.bounds.keys || self.bounds.bytes.is_some_and(|most| self.bytes > most) {
            let Some(key) = self.masks.oldest() else { return };
            let Some(masks) = self.masks.get(key) else { return };
            let mut entries = 0;
            let mut cost = 0;
            for (tier, name) in tiers.iter().enumerate() {
                for slot in masks.tier(tier).into_iter().flat_map(Bits::slots) {
                    entries += 1;
                    cost += entry_cost(pods.name(slot), name);
                }
            }
            self.evictions += entries;
            self.bytes = self.bytes.saturating_sub(cost);
            self.drop(key);
        }
    }

    fn drop(&mut self, key: u64) {
        self.masks.remove(key);
        self.order.remove(&key);
        self.bytes = self.bytes.saturating_sub(KEY_COST);
    }

    fn remember_order(&mut self, slot: usize, tier: usize, key: u64, most: usize, pods: &Pods, tiers: &[String]) {
        let order = self.order.entry(key).or_default();
        order.retain(|entry| *entry != (slot, tier));
        if order.len() >= most {
            let (oldest, its_tier) = order[0];
            self.remove(oldest, its_tier, key, pods, tiers);
        }
        self.order.entry(key).or_default().push((slot, tier));
    }
}

fn entry_cost(pod: &str, tier: &str) -> usize {
    ENTRY_COST + pod.len() + tier.len()
}
