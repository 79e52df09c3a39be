//! Sets of two slots or more, each kept once however many keys it belongs to: the blocks of a prompt mostly have the same.

use hashbrown::HashTable;

const BITS: usize = u64::BITS as usize;

/// The number of a set.
pub type SetId = u32;

#[derive(Debug, Default)]
struct Set {
    /// One for each slot; the last word is not 0.
    words: Box<[u64]>,
    /// Keys that it belongs to; none: the place is free.
    keys: usize,
}

#[derive(Debug, Default)]
pub struct SlotSets {
    sets: Vec<Set>,
    free: Vec<SetId>,
    by_words: HashTable<SetId>,
    /// The last change: (set, slot, result). The next key's is mostly the same.
    last: Option<(SetId, u32, SetId)>,
}

/// What is left of a set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rest {
    Set(SetId),
    /// Only this slot.
    One(u32),
}

impl SlotSets {
    pub fn words(&self, id: SetId) -> &[u64] {
        &self.sets[id as usize].words
    }

    pub fn has(&self, id: SetId, slot: u32) -> bool {
        let (word, bit) = place(slot);
        self.words(id).get(word).is_some_and(|word| word & bit != 0)
    }

    /// How many sets there are.
    pub fn len(&self) -> usize {
        self.by_words.len()
    }

    /// A key that one slot had belongs to two now.
    pub fn pair(&mut self, one: u32, other: u32) -> SetId {
        let mut words = vec![0; place(one.max(other)).0 + 1];
        for slot in [one, other] {
            let (word, bit) = place(slot);
            words[word] |= bit;
        }
        self.take(words)
    }

    /// One key's set with one slot more.
    pub fn with(&mut self, id: SetId, slot: u32) -> SetId {
        self.changed(id, slot, |words, (word, bit)| {
            words.resize(words.len().max(word + 1), 0);
            words[word] |= bit;
        })
    }

    /// One key's set with one slot less.
    pub fn without(&mut self, id: SetId, slot: u32) -> Rest {
        if let Some(left) = self.other_of_two(id, slot) {
            self.release(id);
            return Rest::One(left);
        }
        Rest::Set(self.changed(id, slot, |words, (word, bit)| {
            words[word] &= !bit;
            while words.pop_if(|word| *word == 0).is_some() {}
        }))
    }

    /// The other slot of a set of two.
    fn other_of_two(&self, id: SetId, slot: u32) -> Option<u32> {
        let words = self.words(id);
        if words.iter().map(|word| word.count_ones()).sum::<u32>() != 2 {
            return None;
        }
        slots(words.iter().copied().enumerate()).find(|other| *other != slot)
    }

    /// One key's set is nobody's any more.
    fn release(&mut self, id: SetId) {
        let set = &mut self.sets[id as usize];
        set.keys -= 1;
        if set.keys > 0 {
            return;
        }
        let words = std::mem::take(&mut set.words);
        if let Ok(found) = self.by_words.find_entry(hash(&words), |other| *other == id) {
            found.remove();
        }
        self.free.push(id);
        self.last = self.last.filter(|(from, _, to)| *from != id && *to != id);
    }

    fn changed(&mut self, id: SetId, slot: u32, change: impl FnOnce(&mut Vec<u64>, (usize, u64))) -> SetId {
        let to = match self.last {
            Some((from, by, to)) if (from, by) == (id, slot) => {
                self.sets[to as usize].keys += 1;
                to
            }
            _ => {
                let mut words = self.words(id).to_vec();
                change(&mut words, place(slot));
                let to = self.take(words);
                self.last = Some((id, slot, to));
                to
            }
        };
        self.release(id);
        to
    }

    /// The set of these words, for one key more.
    fn take(&mut self, words: Vec<u64>) -> SetId {
        let key = hash(&words);
        let sets = &mut self.sets;
        if let Some(id) = self.by_words.find(key, |id| *sets[*id as usize].words == *words) {
            sets[*id as usize].keys += 1;
            return *id;
        }
        let set = Set { words: words.into(), keys: 1 };
        let id = match self.free.pop() {
            Some(id) => {
                sets[id as usize] = set;
                id
            }
            None => {
                sets.push(set);
                // There are fewer sets than keys.
                (sets.len() - 1) as SetId
            }
        };
        self.by_words.insert_unique(key, id, |id| hash(&sets[*id as usize].words));
        id
    }
}

/// The word of a slot, and its bit there.
pub fn place(slot: u32) -> (usize, u64) {
    (slot as usize / BITS, 1 << (slot as usize % BITS))
}

/// The slots of some words, ascending.
pub fn slots(words: impl Iterator<Item = (usize, u64)>) -> impl Iterator<Item = u32> {
    words.flat_map(|(place, mut word)| {
        std::iter::from_fn(move || {
            let bit = (word != 0).then(|| word.trailing_zeros())?;
            word &= word - 1;
            Some((place * BITS) as u32 + bit)
        })
    })
}

fn hash(words: &[u64]) -> u64 {
    const ODD: u128 = 0x9e37_79b9_7f4a_7c15;
    words.iter().fold(words.len() as u64, |hash, word| {
        let wide = u128::from(hash.rotate_left(5) ^ word).wrapping_mul(ODD);
        wide as u64 ^ (wide >> 64) as u64
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn members(sets: &SlotSets, id: SetId) -> Vec<u32> {
        slots(sets.words(id).iter().copied().enumerate()).collect()
    }

    #[test]
    fn equal_sets_are_one() {
        let mut sets = SlotSets::default();
        let first = sets.pair(3, 200);
        assert_eq!((sets.pair(200, 3), sets.len()), (first, 1));
        let more = sets.with(first, 64);
        assert_eq!(members(&sets, more), [3, 64, 200]);
        assert_eq!((sets.with(first, 64), sets.len()), (more, 1));
        assert_eq!(sets.without(more, 64), Rest::Set(sets.pair(3, 200)));
        let Rest::Set(less) = sets.without(more, 200) else { panic!("two are left") };
        assert_eq!((members(&sets, less), sets.words(less).len()), (vec![3, 64], 2));
        assert!(sets.has(less, 64) && !sets.has(less, 65) && !sets.has(less, 200));
        assert_eq!(sets.without(less, 3), Rest::One(64));
    }

    #[test]
    fn sets_without_keys_are_gone() {
        let mut sets = SlotSets::default();
        for slot in 2..1000 {
            let mut id = sets.pair(0, 1);
            id = sets.with(id, slot);
            let Rest::Set(id) = sets.without(id, 0) else { panic!("two are left") };
            assert_eq!(sets.without(id, 1), Rest::One(slot));
        }
        assert_eq!(sets.len(), 0);
        assert!(sets.sets.len() <= 2);
    }

    #[test]
    fn a_number_that_is_given_again_is_another_set() {
        let mut sets = SlotSets::default();
        let first = sets.pair(0, 1);
        let more = sets.with(first, 5);
        let second = sets.pair(2, 3);
        assert_eq!(second, first, "the number of a set that is gone");
        let changed = sets.with(second, 5);
        assert_eq!((members(&sets, more), members(&sets, changed)), (vec![0, 1, 5], vec![2, 3, 5]));
    }
}
