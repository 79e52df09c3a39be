//! Prompts as blocks: read from a request body, hashed, and which endpoints hold which.
//!
//! `tape` and `compact` read and write JSON, `outline` cuts it short, `prompts` finds the prompts in it, `blocks` hashes, `packed`
//! makes keys; `index` remembers, `later` beside the event loop.

pub mod blocks;
mod compact;
pub mod index;
pub mod later;
mod number;
pub mod outline;
pub mod packed;
mod parse;
pub mod prompts;
mod recency;
mod scan;
mod slots;
mod tape;
mod text;
