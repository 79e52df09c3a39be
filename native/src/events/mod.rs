//! KV events of engines: decoded, understood, and kept as an index of who holds which block. No I/O, no Python.

pub mod assumed;
pub mod bits;
pub mod blocks;
pub mod decode;
pub mod engine_keys;
pub mod features;
pub mod index;
pub mod keys;
pub mod lookup;
pub mod lru;
pub mod msgpack;
pub mod orphans;
pub mod pods;
pub mod processor;
pub mod tiers;
