//! Buffers in which pages are put together: reused, and given back after a huge page.

use std::cell::RefCell;

/// A buffer that grew beyond this is not kept: pages have some 60 KB for each engine.
const KEPT_BYTES: usize = 512 * 1024;
const KEPT: usize = 8;

#[derive(Debug, Default)]
pub struct Buffers(RefCell<Vec<Vec<u8>>>);

impl Buffers {
    /// An empty buffer.
    pub fn take(&self) -> Vec<u8> {
        self.0.borrow_mut().pop().unwrap_or_default()
    }

    pub fn give(&self, mut buffer: Vec<u8>) {
        let mut kept = self.0.borrow_mut();
        if kept.len() < KEPT && buffer.capacity() <= KEPT_BYTES {
            buffer.clear();
            kept.push(buffer);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_small_buffers_are_kept() {
        let buffers = Buffers::default();
        buffers.give(Vec::with_capacity(KEPT_BYTES * 2));
        assert_eq!(buffers.take().capacity(), 0);
        for _ in 0..2 * KEPT {
            buffers.give(vec![1; 10]);
        }
        assert_eq!(buffers.0.borrow().len(), KEPT);
        assert!(buffers.take().is_empty());
    }
}
