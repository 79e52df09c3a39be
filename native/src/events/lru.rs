//! A map in the order in which its keys were last put to the end: what was put longest ago leaves first.

use std::hash::{BuildHasherDefault, Hasher};

use hashbrown::HashMap;

/// Keys are hashes already; their upper bits are mixed in, since engines of tests number their blocks.
#[derive(Default)]
pub struct Mixed(u64);

impl Hasher for Mixed {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u64(u64::from(*byte));
        }
    }

    fn write_u8(&mut self, number: u8) {
        self.write_u64(number.into());
    }

    fn write_u32(&mut self, number: u32) {
        self.write_u64(number.into());
    }

    fn write_u64(&mut self, number: u64) {
        self.0 = (self.0.rotate_left(5) ^ number).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        self.0 ^= self.0 >> 32;
    }

    fn write_usize(&mut self, number: usize) {
        self.write_u64(number as u64);
    }
}

pub type BuildMixed = BuildHasherDefault<Mixed>;

const NONE: u32 = u32::MAX;

struct Node<V> {
    key: u64,
    value: V,
    before: u32,
    after: u32,
}

pub struct Lru<V> {
    places: HashMap<u64, u32, BuildMixed>,
    nodes: Vec<Node<V>>,
    free: Vec<u32>,
    first: u32,
    last: u32,
}

impl<V: Default> Default for Lru<V> {
    fn default() -> Self {
        Self { places: HashMap::default(), nodes: Vec::new(), free: Vec::new(), first: NONE, last: NONE }
    }
}

impl<V: Default> Lru<V> {
    pub fn len(&self) -> usize {
        self.places.len()
    }

    pub fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    pub fn get(&self, key: u64) -> Option<&V> {
        self.places.get(&key).map(|place| &self.nodes[*place as usize].value)
    }

    pub fn get_mut(&mut self, key: u64) -> Option<&mut V> {
        self.places.get(&key).map(|place| &mut self.nodes[*place as usize].value)
    }

    /// The value of a key, put to the end; made if there is none.
    pub fn touch(&mut self, key: u64) -> &mut V {
        let place = match self.places.get(&key) {
            Some(place) => {
                let place = *place;
                self.unlink(place);
                self.link(place);
                place
            }
            None => self.insert(key),
        };
        &mut self.nodes[place as usize].value
    }

    /// The value of a key where it stands; made at the end if there is none.
    pub fn entry(&mut self, key: u64) -> &mut V {
        let place = self.places.get(&key).copied().unwrap_or_else(|| self.insert(key));
        &mut self.nodes[place as usize].value
    }

    pub fn remove(&mut self, key: u64) -> Option<V> {
        let place = self.places.remove(&key)?;
        self.unlink(place);
        self.free.push(place);
        Some(std::mem::take(&mut self.nodes[place as usize].value))
    }

    /// The key that was put longest ago.
    pub fn oldest(&self) -> Option<u64> {
        (self.first != NONE).then(|| self.nodes[self.first as usize].key)
    }

    pub fn iter(&self) -> impl Iterator<Item = (u64, &V)> {
        self.places.iter().map(|(key, place)| (*key, &self.nodes[*place as usize].value))
    }

    fn insert(&mut self, key: u64) -> u32 {
        let node = Node { key, value: V::default(), before: NONE, after: NONE };
        let place = if let Some(place) = self.free.pop() {
            self.nodes[place as usize] = node;
            place
        } else {
            self.nodes.push(node);
            u32::try_from(self.nodes.len() - 1).expect("fewer than four billion keys")
        };
        self.places.insert(key, place);
        self.link(place);
        place
    }

    fn link(&mut self, place: u32) {
        let before = self.last;
        self.nodes[place as usize].before = before;
        self.nodes[place as usize].after = NONE;
        match before {
            NONE => self.first = place,
            before => self.nodes[before as usize].after = place,
        }
        self.last = place;
    }

    fn unlink(&mut self, place: u32) {
        let Node { before, after, .. } = self.nodes[place as usize];
        match before {
            NONE => self.first = after,
            before => self.nodes[before as usize].after = after,
        }
        match after {
            NONE => self.last = before,
            after => self.nodes[after as usize].before = before,
        }
    }
}
