//! Which slots hold which keys: one bounded LRU of keys for each slot. Twin of `plugins/prefix/lru_index.py`.
//!
//! Memory for a key that one slot holds: 16 bytes in the slot's list and, with the table's own, some 20 to 40 in the table of
//! keys. Where several hold it, each has 16 and some 6 to 12 bytes of its own, and the rest is shared.

use std::hash::{BuildHasher, RandomState};

use hashbrown::HashTable;
use hashbrown::hash_table::Entry;

use super::blocks::HASH_BYTES;
use super::recency::Recency;
use super::slots::{Rest, SetId, SlotSets, place, slots};

/// Slots are numbers of endpoints: more than this many are a mistake, and would cost memory for each that is between.
pub const MAX_SLOTS: u32 = 1 << 20;

/// The table of keys is in parts, so that it never takes long to grow.
const PARTS: usize = 64;
/// For `Holder::slot`: several slots.
const SEVERAL: u32 = u32::MAX;

/// Who holds a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Holder {
    slot: u32,
    /// The key's place in the list of this slot; of several slots the number of their set.
    at: u32,
}

#[derive(Debug, Clone, Copy)]
struct Key {
    key: u64,
    holder: Holder,
}

#[derive(Debug, Default)]
struct Slot {
    recency: Recency,
    /// Places of those keys that other slots hold too.
    shared: HashTable<u32>,
}

/// Gives hashes that nobody can foresee: the keys come from texts that users choose.
#[derive(Debug, Clone, Copy)]
struct Mixer(u64);

impl Mixer {
    fn hash(self, key: u64) -> u64 {
        const ODD: u128 = 0xa076_1d64_78bd_642f;
        let wide = u128::from(key ^ self.0).wrapping_mul(ODD);
        wide as u64 ^ (wide >> 64) as u64
    }
}

/// The index.
#[derive(Debug)]
pub struct LruIndex {
    parts: Vec<HashTable<Key>>,
    slots: Vec<Slot>,
    sets: SlotSets,
    mixer: Mixer,
    entries: usize,
}

impl Default for LruIndex {
    fn default() -> Self {
        Self {
            parts: std::iter::repeat_with(HashTable::new).take(PARTS).collect(),
            slots: Vec::new(),
            sets: SlotSets::default(),
            mixer: Mixer(RandomState::new().hash_one(0)),
            entries: 0,
        }
    }
}

impl LruIndex {
    /// Put keys in from the tail to the head, so that the head is the most recent: the first `capacity` of them, which is from
    /// now on the most that this slot holds.
    pub fn add(&mut self, slot: u32, keys: &[[u8; HASH_BYTES]], capacity: usize) {
        if self.slots.len() <= slot as usize {
            self.slots.resize_with(slot as usize + 1, Slot::default);
        }
        for key in keys.iter().take(capacity).rev() {
            self.add_key(slot, u64::from_le_bytes(*key));
            // One at a time: the list never grows beyond its capacity.
            self.shrink(slot, capacity);
        }
        self.shrink(slot, capacity);
    }

    fn add_key(&mut self, slot: u32, key: u64) {
        let Self { parts, slots, sets, mixer, entries } = self;
        let mixer = *mixer;
        let hash = mixer.hash(key);
        let found = match parts[part(hash)].entry(hash, |other| other.key == key, |other| mixer.hash(other.key)) {
            Entry::Vacant(vacant) => {
                let at = slots[slot as usize].recency.push(key);
                vacant.insert(Key { key, holder: Holder { slot, at } });
                *entries += 1;
                return;
            }
            Entry::Occupied(found) => found.into_mut(),
        };
        let Holder { slot: holder, at } = found.holder;
        if holder == slot {
            return slots[slot as usize].recency.touch(at);
        }
        if holder == SEVERAL && sets.has(at, slot) {
            return slots[slot as usize].refresh(key, hash);
        }
        let id = if holder == SEVERAL {
            sets.with(at, slot)
        } else {
            slots[holder as usize].share(at, mixer);
            sets.pair(holder, slot)
        };
        found.holder = Holder { slot: SEVERAL, at: id };
        let own = &mut slots[slot as usize];
        let at = own.recency.push(key);
        own.share(at, mixer);
        *entries += 1;
    }

    fn shrink(&mut self, slot: u32, capacity: usize) {
        while self.slots[slot as usize].recency.len() > capacity {
            self.pop(slot);
        }
    }

    /// Forget the oldest key of a slot; false if it has none.
    fn pop(&mut self, slot: u32) -> bool {
        let Some((key, at)) = self.slots[slot as usize].recency.pop() else { return false };
        self.entries -= 1;
        let hash = self.mixer.hash(key);
        if let Ok(mut found) = self.parts[part(hash)].find_entry(hash, |other| other.key == key) {
            let holder = found.get().holder;
            if holder.slot == SEVERAL {
                self.slots[slot as usize].unshare(hash, |place, _| place == at);
                found.get_mut().holder = match self.sets.without(holder.at, slot) {
                    Rest::Set(id) => Holder { slot: SEVERAL, at: id },
                    Rest::One(left) => {
                        let at = self.slots[left as usize].unshare(hash, |place, recency| recency.key(place) == key);
                        Holder { slot: left, at }
                    }
                };
            } else {
                found.remove();
            }
        }
        true
    }

    /// Slots that hold the first key, each with how many keys it holds from there on; ascending by slot.
    pub fn matches(&self, keys: &[[u8; HASH_BYTES]]) -> Vec<(u32, u32)> {
        let mut found = Vec::new();
        let mut alive: Vec<u64> = Vec::new();
        let mut last = None;
        let mut count = 0;
        for key in keys {
            let Some(holder) = self.holder(u64::from_le_bytes(*key)) else { break };
            let held = holder.set();
            if last != Some(held) {
                if count == 0 {
                    alive = self.words(held);
                } else if !self.keep(held, &mut alive, |slot| found.push((slot, count))) {
                    break;
                }
                last = Some(held);
            }
            count += 1;
        }
        found.extend(slots(alive.into_iter().enumerate()).map(|slot| (slot, count)));
        found.sort_unstable();
        found
    }

    /// Keep those that are in a set too, and tell which are not; false if none is left.
    fn keep(&self, held: Held, alive: &mut [u64], mut gone: impl FnMut(u32)) -> bool {
        let (own, words) = match held {
            Held::One(slot) => (place(slot), &[][..]),
            Held::Set(id) => ((usize::MAX, 0), self.sets.words(id)),
        };
        let mut left = 0;
        for (at, word) in alive.iter_mut().enumerate() {
            let kept = if at == own.0 { own.1 } else { words.get(at).copied().unwrap_or_default() };
            slots(std::iter::once((at, *word & !kept))).for_each(&mut gone);
            *word &= kept;
            left |= *word;
        }
        left != 0
    }

    fn words(&self, held: Held) -> Vec<u64> {
        match held {
            Held::Set(id) => self.sets.words(id).to_vec(),
            Held::One(slot) => {
                let (word, bit) = place(slot);
                let mut words = vec![0; word + 1];
                words[word] = bit;
                words
            }
        }
    }

    fn holder(&self, key: u64) -> Option<Holder> {
        let hash = self.mixer.hash(key);
        self.parts[part(hash)].find(hash, |other| other.key == key).map(|found| found.holder)
    }

    /// Forget all that a slot holds, and give its memory back.
    pub fn clear(&mut self, slot: u32) {
        if slot as usize >= self.slots.len() {
            return;
        }
        while self.pop(slot) {}
        self.slots[slot as usize] = Slot::default();
        let mixer = self.mixer;
        for part in &mut self.parts {
            if part.capacity() > 4 * part.len().max(16) {
                part.shrink_to(2 * part.len(), |key| mixer.hash(key.key));
            }
        }
    }

    /// Keys that a slot holds.
    pub fn size(&self, slot: u32) -> usize {
        self.slots.get(slot as usize).map_or(0, |slot| slot.recency.len())
    }

    /// Keys of all slots together.
    pub fn len(&self) -> usize {
        self.entries
    }

    pub fn is_empty(&self) -> bool {
        self.entries == 0
    }

    /// Different keys.
    pub fn keys(&self) -> usize {
        self.parts.iter().map(HashTable::len).sum()
    }

    /// Different sets of slots that hold a key together.
    pub fn sets(&self) -> usize {
        self.sets.len()
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Held {
    One(u32),
    Set(SetId),
}

impl Holder {
    fn set(self) -> Held {
        if self.slot == SEVERAL { Held::Set(self.at) } else { Held::One(self.slot) }
    }
}

impl Slot {
    /// Another slot holds the key at this place too.
    fn share(&mut self, at: u32, mixer: Mixer) {
        let Self { recency, shared } = self;
        let hash = |at: &u32| mixer.hash(recency.key(*at));
        shared.insert_unique(hash(&at), at, hash);
    }

    /// Nobody else holds this key any more; returns its place.
    fn unshare(&mut self, hash: u64, is_it: impl Fn(u32, &Recency) -> bool) -> u32 {
        let Self { recency, shared } = self;
        // It is there: it was put there when the key began to be shared.
        shared.find_entry(hash, |at| is_it(*at, recency)).map(|found| found.remove().0).unwrap_or(0)
    }

    /// Make a shared key the most recent.
    fn refresh(&mut self, key: u64, hash: u64) {
        if let Some(at) = self.shared.find(hash, |at| self.recency.key(*at) == key) {
            self.recency.touch(*at);
        }
    }
}

/// The part that a key is in. Tables use the lowest and the highest bits.
fn part(hash: u64) -> usize {
    (hash >> 44) as usize % PARTS
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packed(keys: impl IntoIterator<Item = u64>) -> Vec<[u8; 8]> {
        keys.into_iter().map(u64::to_le_bytes).collect()
    }

    #[test]
    fn tails_go_first() {
        let mut index = LruIndex::default();
        index.add(0, &packed(0..10), 4);
        assert_eq!((index.matches(&packed(0..10)), index.keys(), index.len()), (vec![(0, 4)], 4, 4));
        index.add(1, &packed(0..6), 10);
        index.add(1, &packed(100..106), 10);
        assert_eq!(index.matches(&packed(0..6)), [(0, 4), (1, 4)]);
        index.add(1, &packed([]), 7);
        assert_eq!((index.matches(&packed(0..6)), index.size(1)), (vec![(0, 4), (1, 1)], 7));
        index.add(1, &packed([]), 0);
        assert_eq!((index.matches(&packed(0..6)), index.size(1)), (vec![(0, 4)], 0));
    }

    #[test]
    fn only_leading_keys_count() {
        let mut index = LruIndex::default();
        index.add(2, &packed([0, 1, 2, 4, 5]), 10);
        index.add(70, &packed([0]), 10);
        index.add(5, &packed([1, 2]), 10);
        assert_eq!(index.matches(&packed(0..6)), [(2, 3), (70, 1)]);
        assert_eq!(index.matches(&packed([1])), [(2, 1), (5, 1)]);
        assert_eq!(index.matches(&packed([3])), []);
        assert_eq!(index.matches(&[]), []);
    }

    #[test]
    fn what_is_cleared_is_gone() {
        let mut index = LruIndex::default();
        for round in 0..3 {
            for slot in 0..200 {
                index.add(slot, &packed(0..20 + u64::from(slot)), 1000);
            }
            assert_eq!((index.keys(), index.sets()), (219, 199), "round {round}");
            for slot in 0..200 {
                index.clear(slot);
                assert_eq!(index.size(slot), 0);
                assert_eq!(index.matches(&packed([0])).len(), 199 - slot as usize);
            }
            assert_eq!((index.len(), index.keys(), index.sets()), (0, 0, 0));
        }
        index.clear(100_000);
    }

    #[test]
    fn a_key_that_comes_twice_is_one() {
        let mut index = LruIndex::default();
        index.add(0, &packed([1, 2, 1]), 3);
        assert_eq!((index.len(), index.matches(&packed([1, 2, 1, 3]))), (2, vec![(0, 3)]));
    }
}
