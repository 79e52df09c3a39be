//! Prompts as blocks: read from a request body, hashed, and which endpoints hold which.
//!
//! `tape` and `compact` read and write JSON, `prompts` finds the prompts in it, `blocks` hashes; `index` remembers.

pub mod blocks;
mod compact;
pub mod index;
mod number;
mod parse;
pub mod prompts;
mod recency;
mod scan;
mod slots;
mod tape;
mod text;
