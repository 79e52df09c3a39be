//! Keys of blocks: `key = xxh3(tokens ‖ framed features, seed = key in front)`. Twin of `FastChain` in
//! `plugins/kvcache/request_keys.py`.

use twox_hash::XxHash3_64;

use super::decode::Features;

pub const TOKEN_BYTES: usize = 4;

pub struct Chain {
    hash_seed: Vec<u8>,
}

impl Chain {
    pub fn new(hash_seed: &str) -> Self {
        Self { hash_seed: framed(hash_seed) }
    }

    /// What stands in front of the first block.
    pub fn seed(&self, identity: &str) -> u64 {
        let mut text = self.hash_seed.clone();
        text.extend_from_slice(&framed(identity));
        XxHash3_64::oneshot(&text)
    }

    /// The keys of all whole blocks; blocks behind the last features have none.
    pub fn extend(&self, parent: u64, tokens: &[u8], block_size: usize, features: &[Features]) -> Vec<u64> {
        let mut key = parent;
        let mut mixed = Vec::new();
        tokens
            .chunks_exact(block_size * TOKEN_BYTES)
            .enumerate()
            .map(|(index, block)| {
                key = match features.get(index) {
                    Some(of_block) if !of_block.is_empty() => {
                        mixed.clear();
                        mixed.extend_from_slice(block);
                        of_block.iter().for_each(|feature| mixed.extend_from_slice(&framed(feature)));
                        XxHash3_64::oneshot_with_seed(key, &mixed)
                    }
                    _ => XxHash3_64::oneshot_with_seed(key, block),
                };
                key
            })
            .collect()
    }
}

fn framed(text: &str) -> Vec<u8> {
    let mut bytes = u32::try_from(text.len()).unwrap_or(u32::MAX).to_le_bytes().to_vec();
    bytes.extend_from_slice(text.as_bytes());
    bytes
}
