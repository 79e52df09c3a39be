//! Blocks whose parent nobody knows yet. Twin of `plugins/kvcache/orphans.py`.

use std::collections::{BTreeMap, HashMap, HashSet};

use super::decode::Stored;

const MAX_ORPHANS: usize = 10_000;
const MAX_BYTES: usize = 64 * 1024 * 1024;
const TTL_S: f64 = 600.0;

pub struct Orphan {
    pub pod: String,
    pub event: Stored,
    until_s: f64,
    /// Hashes of blocks that the engine dropped meanwhile.
    pub removed: HashSet<u64>,
}

#[derive(Default)]
pub struct Orphans {
    in_order: BTreeMap<u64, Orphan>,
    by_parent: HashMap<u64, Vec<u64>>,
    by_block: HashMap<u64, Vec<u64>>,
    next: u64,
    bytes: usize,
}

impl Orphans {
    pub fn len(&self) -> usize {
        self.in_order.len()
    }

    pub fn is_empty(&self) -> bool {
        self.in_order.is_empty()
    }

    /// Keep an event until its parent comes.
    pub fn add(&mut self, pod: &str, event: Stored, parent: u64, now_s: f64) {
        let number = self.next;
        self.next += 1;
        self.by_parent.entry(parent).or_default().push(number);
        for engine_key in &event.hashes {
            self.by_block.entry(*engine_key).or_default().push(number);
        }
        self.bytes += size(&event);
        let orphan = Orphan { pod: pod.to_owned(), event, until_s: now_s + TTL_S, removed: HashSet::new() };
        self.in_order.insert(number, orphan);
        self.sweep(now_s);
    }

    /// Forget what waited too long, and what is too much.
    pub fn sweep(&mut self, now_s: f64) {
        while let Some((number, oldest)) = self.in_order.first_key_value() {
            if oldest.until_s > now_s && self.in_order.len() <= MAX_ORPHANS && self.bytes <= MAX_BYTES {
                return;
            }
            let number = *number;
            self.drop(number);
        }
    }

    /// The events that waited for this block, in the order in which they came.
    pub fn take(&mut self, parent: u64) -> Vec<Orphan> {
        let waiting = self.by_parent.get(&parent).cloned().unwrap_or_default();
        waiting.into_iter().filter_map(|number| self.drop(number)).collect()
    }

    /// The engine dropped these blocks.
    pub fn removed(&mut self, pod: &str, engine_keys: &[u64]) {
        if self.in_order.is_empty() {
            return;
        }
        for engine_key in engine_keys {
            for number in self.by_block.get(engine_key).into_iter().flatten() {
                if let Some(orphan) = self.in_order.get_mut(number)
                    && orphan.pod == pod
                {
                    orphan.removed.insert(*engine_key);
                }
            }
        }
    }

    /// The engine dropped all its blocks.
    pub fn cleared(&mut self, pod: &str) {
        let of_pod = self.in_order.iter().filter(|(_, orphan)| orphan.pod == pod).map(|(number, _)| *number);
        for number in of_pod.collect::<Vec<_>>() {
            self.drop(number);
        }
    }

    /// A pod is known by another name from now on.
    pub fn renamed(&mut self, old: &str, new: &str) {
        for orphan in self.in_order.values_mut().filter(|orphan| orphan.pod == old) {
            new.clone_into(&mut orphan.pod);
        }
    }

    fn drop(&mut self, number: u64) -> Option<Orphan> {
        let orphan = self.in_order.remove(&number)?;
        self.bytes -= size(&orphan.event);
        if let Some(parent) = orphan.event.parent {
            discard(&mut self.by_parent, parent, number);
        }
        for engine_key in &orphan.event.hashes {
            discard(&mut self.by_block, *engine_key, number);
        }
        Some(orphan)
    }
}

fn size(event: &Stored) -> usize {
    event.tokens.len() + 64 * event.hashes.len()
}

fn discard(table: &mut HashMap<u64, Vec<u64>>, key: u64, number: u64) {
    if let Some(waiting) = table.get_mut(&key) {
        waiting.retain(|waits| *waits != number);
        if waiting.is_empty() {
            table.remove(&key);
        }
    }
}
