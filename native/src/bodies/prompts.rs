//! The reader of prompts: `prompt-blocks/<block bytes>/<max blocks>`. Twin of the reader of this name in `epp/extproc/readers.py`.

use super::read::{Read, Reader};
use crate::prefix::blocks::Cut;
use crate::prefix::prompts::prompt_blocks;

/// Hashes the prompts of a request once that is complete: what comes first in a prompt often comes last in the body.
#[derive(Debug)]
pub struct PromptReader {
    cut: Cut,
    packed: Vec<u8>,
}

impl PromptReader {
    /// None if `parameters` are not `<block bytes>/<max blocks>`.
    pub fn new(parameters: &str) -> Option<Self> {
        let (block_bytes, max_blocks) = parameters.split_once('/')?;
        let cut = Cut { block_bytes: block_bytes.parse().ok()?, max_blocks: max_blocks.parse().ok()? };
        Some(Self { cut, packed: Vec::new() })
    }
}

impl Reader for PromptReader {
    fn feed(&mut self, _: &[u8]) {}

    fn whole(&mut self, body: &[u8]) {
        self.packed = prompt_blocks(body, self.cut);
    }

    fn result(&mut self) -> Read {
        Read::Bytes(std::mem::take(&mut self.packed).into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters() {
        assert!(PromptReader::new("64/0").is_some() && PromptReader::new("64/256").is_some());
        for bad in ["", "64", "0/1", "64/", "/64", "-1/1", "64/-1", "64/1/1", "a/b"] {
            assert!(PromptReader::new(bad).is_none(), "{bad}");
        }
    }

    #[test]
    fn only_a_whole_body_has_a_result() {
        let mut reader = PromptReader::new("64/0").unwrap();
        reader.feed(br#"{"prompt":"x"}"#);
        assert_eq!(reader.result(), Read::Bytes(bytes::Bytes::new()));
        reader.whole(br#"{"prompt":"x"}"#);
        assert_eq!(reader.result(), Read::Bytes(prompt_blocks(br#"{"prompt":"x"}"#, reader.cut).into()));
    }
}
