//! Keys of one slot, from the most recent to the oldest: a list within one vector, 16 bytes for each.

const NONE: u32 = u32::MAX;

#[derive(Debug)]
struct Node {
    key: u64,
    newer: u32,
    /// Of a node that is free, the next free one.
    older: u32,
}

#[derive(Debug)]
pub struct Recency {
    nodes: Vec<Node>,
    newest: u32,
    oldest: u32,
    free: u32,
    len: usize,
}

impl Default for Recency {
    fn default() -> Self {
        Self { nodes: Vec::new(), newest: NONE, oldest: NONE, free: NONE, len: 0 }
    }
}

impl Recency {
    pub fn len(&self) -> usize {
        self.len
    }

    pub fn key(&self, place: u32) -> u64 {
        self.nodes[place as usize].key
    }

    /// Add a key as the most recent one; returns its place.
    pub fn push(&mut self, key: u64) -> u32 {
        let place = if self.free == NONE {
            self.grow();
            // A slot has at most as many keys as its capacity, which 32 bits count.
            let place = self.nodes.len() as u32;
            self.nodes.push(Node { key, newer: NONE, older: NONE });
            place
        } else {
            let place = self.free;
            let node = &mut self.nodes[place as usize];
            node.key = key;
            self.free = node.older;
            place
        };
        self.len += 1;
        self.link(place);
        place
    }

    /// Make this one the most recent.
    pub fn touch(&mut self, place: u32) {
        if place != self.newest {
            self.unlink(place);
            self.link(place);
        }
    }

    /// Take the oldest key out; the second result is the place that it had.
    pub fn pop(&mut self) -> Option<(u64, u32)> {
        let place = self.oldest;
        if place == NONE {
            return None;
        }
        self.unlink(place);
        let node = &mut self.nodes[place as usize];
        node.older = self.free;
        self.free = place;
        self.len -= 1;
        Some((node.key, place))
    }

    /// By quarters: doubling would leave half of the memory unused.
    fn grow(&mut self) {
        if self.nodes.len() == self.nodes.capacity() {
            self.nodes.reserve_exact((self.nodes.len() / 4).max(32));
        }
    }

    fn link(&mut self, place: u32) {
        let older = std::mem::replace(&mut self.newest, place);
        let node = &mut self.nodes[place as usize];
        (node.newer, node.older) = (NONE, older);
        match self.nodes.get_mut(older as usize) {
            Some(older) => older.newer = place,
            None => self.oldest = place,
        }
    }

    fn unlink(&mut self, place: u32) {
        let Node { newer, older, .. } = self.nodes[place as usize];
        match self.nodes.get_mut(newer as usize) {
            Some(newer) => newer.older = older,
            None => self.newest = older,
        }
        match self.nodes.get_mut(older as usize) {
            Some(older) => older.newer = newer,
            None => self.oldest = newer,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_goes_first() {
        let mut recency = Recency::default();
        let places: Vec<_> = (0..5).map(|key| recency.push(key)).collect();
        recency.touch(places[0]);
        recency.touch(places[2]);
        recency.touch(places[2]);
        let mut left = Vec::new();
        while let Some((key, place)) = recency.pop() {
            assert_eq!(recency.key(place), key);
            left.push(key);
        }
        assert_eq!((left, recency.len()), (vec![1, 3, 4, 0, 2], 0));
        assert!(places.contains(&recency.push(9)));
        assert_eq!(recency.nodes.len(), 5);
    }
}
