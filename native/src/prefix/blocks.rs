//! Hashes of blocks and of chains of blocks. Twin of `plugins/prefix/keys.py`, and of the hashing in
//! `epp/framework/prompt_blocks.py`.

use std::num::NonZeroUsize;

use twox_hash::XxHash3_64;

/// A hash or a key, packed: 64 bits, little endian.
pub const HASH_BYTES: usize = 8;

/// Takes a text or other bytes piece by piece.
pub trait Sink {
    fn put(&mut self, data: &[u8]);
}

impl Sink for Vec<u8> {
    fn put(&mut self, data: &[u8]) {
        self.extend_from_slice(data);
    }
}

/// How a prompt is cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cut {
    pub block_bytes: NonZeroUsize,
    /// Blocks of each prompt that are hashed; 0 = all.
    pub max_blocks: usize,
}

/// Hashes the blocks of one prompt as it is put; holds little of it.
#[derive(Debug)]
pub struct Blocks {
    size: usize,
    /// Blocks that may still be hashed.
    left: usize,
    /// What is not hashed yet, from the beginning of a block.
    held: Vec<u8>,
    /// Of all that was put, in bytes.
    length: usize,
    /// Of each block, packed.
    hashes: Vec<u8>,
}

/// Longer pieces are hashed where they are, shorter ones gathered: most texts have an escape every few words.
const LONG_BYTES: usize = 512;
/// How much is gathered.
const HELD_BYTES: usize = 4096;

impl Blocks {
    pub fn new(cut: Cut) -> Self {
        let left = if cut.max_blocks == 0 { usize::MAX } else { cut.max_blocks };
        Self { size: cut.block_bytes.get(), left, held: Vec::new(), length: 0, hashes: Vec::new() }
    }

    /// Length of all that was put, in bytes, and the hash of each whole block, packed.
    pub fn end(mut self) -> (usize, Vec<u8>) {
        self.flush();
        (self.length, self.hashes)
    }

    /// Hash the whole blocks at the beginning of `data`; returns what is left of it.
    fn hash<'a>(&mut self, data: &'a [u8]) -> &'a [u8] {
        let mut blocks = data.chunks_exact(self.size);
        for block in blocks.by_ref().take(self.left) {
            self.hashes.extend_from_slice(&XxHash3_64::oneshot(block).to_le_bytes());
            self.left -= 1;
        }
        blocks.remainder()
    }

    fn flush(&mut self) {
        let mut held = std::mem::take(&mut self.held);
        let rest = self.hash(&held).len();
        held.drain(..held.len() - rest);
        self.held = held;
    }

    fn put_long(&mut self, data: &[u8]) {
        let begun = self.held.len() % self.size;
        let missing = if begun == 0 { 0 } else { self.size - begun };
        let (missing, rest) = data.split_at(missing.min(data.len()));
        self.held.extend_from_slice(missing);
        self.flush();
        if self.held.is_empty() {
            let rest = self.hash(rest);
            self.held.extend_from_slice(rest);
        }
    }
}

impl Sink for Blocks {
    #[inline]
    fn put(&mut self, data: &[u8]) {
        self.length += data.len();
        if self.left == 0 {
            return;
        }
        if data.len() >= LONG_BYTES {
            return self.put_long(data);
        }
        self.held.extend_from_slice(data);
        if self.held.len() >= HELD_BYTES.max(self.size) {
            self.flush();
        }
    }
}

/// The hash of each whole block, packed.
pub fn content_hashes(data: &[u8], cut: Cut) -> Vec<u8> {
    let mut blocks = Blocks::new(cut);
    blocks.put_long(data);
    blocks.hashes
}

/// The keys of a prompt's prefixes, one for every `stride` of its hashes, packed; None if `contents` does not consist of whole
/// hashes.
pub fn chain(seed: u64, contents: &[u8], stride: NonZeroUsize) -> Option<Vec<u8>> {
    let (contents, []) = contents.as_chunks::<HASH_BYTES>() else { return None };
    let mut keys = Vec::with_capacity(contents.len() / stride * HASH_BYTES);
    let mut key = seed;
    for block in contents.chunks_exact(stride.get()) {
        for content in block {
            key = XxHash3_64::oneshot_with_seed(key, content);
        }
        keys.extend_from_slice(&key.to_le_bytes());
    }
    Some(keys)
}

/// What the keys of a request depend on beside its prompts.
#[derive(Debug, Clone, Copy)]
pub struct Scope<'a> {
    pub model: &'a [u8],
    pub salt: &'a [u8],
}

impl Scope<'_> {
    /// Where the chain of a prompt begins.
    pub fn seed(self, is_tokens: bool, template_hash: u64) -> u64 {
        let mut frames = Vec::with_capacity(self.model.len() + self.salt.len() + 32);
        let mut frame = |value: &[u8]| {
            frames.extend_from_slice(&(value.len() as u32).to_le_bytes());
            frames.extend_from_slice(value);
        };
        frame(self.model);
        frame(self.salt);
        if is_tokens {
            frame(b"tokens");
        }
        if template_hash != 0 {
            frame(&template_hash.to_le_bytes());
        }
        XxHash3_64::oneshot(&frames)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cut(block_bytes: usize, max_blocks: usize) -> Cut {
        Cut { block_bytes: NonZeroUsize::new(block_bytes).unwrap(), max_blocks }
    }

    #[test]
    fn pieces_do_not_matter() {
        let data: Vec<u8> = (0..=255).cycle().take(10_000).collect();
        for (size, max_blocks) in [(1, 0), (3, 0), (64, 0), (64, 4), (64, 1), (300, 3), (10_000, 0), (10_001, 0)] {
            let whole = content_hashes(&data, cut(size, max_blocks));
            let count = data.len() / size;
            assert_eq!(whole.len() / HASH_BYTES, if max_blocks == 0 { count } else { count.min(max_blocks) });
            for pieces in [&[1][..], &[7], &[63], &[64], &[65], &[512], &[999], &[5000], &[3, 600], &[61, 3, 700, 9]] {
                let mut blocks = Blocks::new(cut(size, max_blocks));
                let mut rest = &data[..];
                for length in pieces.iter().cycle() {
                    let (piece, after) = rest.split_at(rest.len().min(*length));
                    blocks.put(piece);
                    rest = after;
                    if rest.is_empty() {
                        break;
                    }
                }
                assert_eq!(blocks.end(), (data.len(), whole.clone()), "blocks of {size}, pieces of {pieces:?}");
            }
        }
    }

    #[test]
    fn chains() {
        // Seed of the model `m`, see prefix.md 8.4; a key depends on all before it.
        let seed = XxHash3_64::oneshot(b"\x01\0\0\0m\0\0\0\0");
        assert_eq!(seed, 7_423_791_507_670_902_645);
        let contents = content_hashes(&[b'a'; 130], cut(64, 0));
        let one = NonZeroUsize::MIN;
        let keys = chain(seed, &contents, one).unwrap();
        assert_eq!(keys.len(), 2 * HASH_BYTES);
        assert_ne!(keys[..8], keys[8..]);
        assert_eq!(chain(seed, &contents[..8], one).unwrap(), keys[..8]);
        assert_eq!(chain(seed, &contents[..7], one), None);
        let two = NonZeroUsize::new(2).unwrap();
        assert_eq!(chain(seed, &contents, two).unwrap(), keys[8..]);
        assert_eq!(chain(seed, &contents[..8], two).unwrap(), b"");
        assert_eq!(Scope { model: b"m", salt: b"" }.seed(false, 0), seed);
    }
}
