//! What is remembered of each pod. Twin of `plugins/kvcache/pods.py`.

use hashbrown::HashMap;

use super::lru::{BuildMixed, Lru};

/// A block that was announced more often counts as announced this often.
pub const MAX_COUNT: u32 = 8;

/// (tier, group).
pub type Place = (usize, Option<u64>);

#[derive(Debug)]
pub enum Holding {
    One(u64),
    Many(Box<Several>),
}

#[derive(Debug)]
pub struct Several {
    pub keys: Vec<u64>,
    pub count: u32,
}

impl Default for Holding {
    fn default() -> Self {
        Self::One(0)
    }
}

impl Holding {
    pub fn keys(&self) -> &[u64] {
        match self {
            Self::One(key) => std::slice::from_ref(key),
            Self::Many(several) => &several.keys,
        }
    }
}

#[derive(Default)]
pub struct Pod {
    pub name: String,
    /// Moves when the cache is cleared, so that what was assumed of it before is void.
    pub epoch: u64,
    /// Counts pods, so that one that comes into a slot is not taken for who was there before.
    pub number: u64,
    pub held: Vec<(Place, Lru<Holding>)>,
    /// (tier, key) → how many of the engine's blocks beyond the first stand for the same.
    pub shared: HashMap<(usize, u64), u32, BuildMixed>,
    pub kinds: HashMap<u64, String, BuildMixed>,
    pub mismatch_told: bool,
}

impl Pod {
    pub fn blocks(&self) -> usize {
        self.held.iter().map(|(_, held)| held.len()).sum()
    }

    pub fn held(&mut self, place: Place) -> &mut Lru<Holding> {
        let found = self.held.iter().position(|(known, _)| *known == place).unwrap_or_else(|| {
            self.held.push((place, Lru::default()));
            self.held.len() - 1
        });
        &mut self.held[found].1
    }
}

/// Pods by name and by slot.
#[derive(Default)]
pub struct Pods {
    pub slots: Vec<Option<Pod>>,
    by_name: std::collections::HashMap<String, usize>,
    free: Vec<usize>,
    next: u64,
}

impl Pods {
    pub fn slot(&self, name: &str) -> Option<usize> {
        self.by_name.get(name).copied()
    }

    pub fn get(&self, slot: usize) -> Option<&Pod> {
        self.slots.get(slot).and_then(Option::as_ref)
    }

    /// A pod that is there.
    pub fn at(&mut self, slot: usize) -> &mut Pod {
        self.slots[slot].as_mut().expect("the slot of a pod that is there")
    }

    pub fn name(&self, slot: usize) -> &str {
        self.get(slot).map_or("", |pod| pod.name.as_str())
    }

    pub fn admit(&mut self, name: &str) -> usize {
        if let Some(slot) = self.slot(name) {
            return slot;
        }
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push(None);
            self.slots.len() - 1
        });
        self.next += 1;
        self.slots[slot] = Some(Pod { name: name.to_owned(), number: self.next, ..Pod::default() });
        self.by_name.insert(name.to_owned(), slot);
        slot
    }

    pub fn rename(&mut self, slot: usize, name: &str) {
        let pod = self.at(slot);
        let old = std::mem::replace(&mut pod.name, name.to_owned());
        self.by_name.remove(&old);
        self.by_name.insert(name.to_owned(), slot);
    }

    pub fn leave(&mut self, slot: usize) {
        if let Some(pod) = self.slots[slot].take() {
            self.by_name.remove(&pod.name);
            self.free.push(slot);
        }
    }

    pub fn iter(&self) -> impl Iterator<Item = &Pod> {
        self.slots.iter().flatten()
    }
}
