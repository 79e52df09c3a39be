//! Readers of response bodies, by name; twins of `epp/extproc/readers.py`.

use bytes::Bytes;

use super::media::is_encoded;
use super::usage::{Usage, UsageReader};
use crate::wire::headers::HeaderBlock;

/// How much of a body `copy` keeps.
pub const MAX_COPY_BYTES: usize = 1024 * 1024;

/// What a reader knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Read {
    Usage(Usage),
    Copy {
        data: Vec<u8>,
        truncated: bool,
    },
    /// Only Python has this reader.
    Python,
}

#[derive(Debug)]
enum Reader {
    Usage(Box<UsageReader>),
    Copy { data: Vec<u8>, truncated: bool },
    Python,
}

/// The readers of one response, in the plan's order.
#[derive(Debug, Default)]
pub struct Readers {
    readers: Vec<Reader>,
    readable: bool,
    python: bool,
}

impl Readers {
    pub fn new(names: &[Box<str>], headers: &HeaderBlock) -> Self {
        let readers: Vec<Reader> = names.iter().map(|name| reader(name, headers)).collect();
        let python = readers.iter().any(|reader| matches!(reader, Reader::Python));
        Self { readers, readable: !is_encoded(headers), python }
    }

    /// Whether there are readers that only Python has, and something to feed them.
    pub fn wants_python(&self) -> bool {
        self.python && self.readable
    }

    pub fn feed(&mut self, data: &Bytes) {
        if !self.readable {
            return;
        }
        for reader in &mut self.readers {
            match reader {
                Reader::Usage(usage) => usage.feed(data),
                Reader::Copy { data: kept, truncated } => {
                    let room = MAX_COPY_BYTES - kept.len();
                    *truncated |= data.len() > room;
                    kept.extend_from_slice(&data[..room.min(data.len())]);
                }
                Reader::Python => {}
            }
        }
    }

    pub fn results(&mut self) -> Vec<Read> {
        self.readers
            .iter_mut()
            .map(|reader| match reader {
                Reader::Usage(usage) => Read::Usage(usage.result()),
                Reader::Copy { data, truncated } => Read::Copy { data: data.clone(), truncated: *truncated },
                Reader::Python => Read::Python,
            })
            .collect()
    }
}

fn reader(name: &str, headers: &HeaderBlock) -> Reader {
    match name {
        "openai-usage" => Reader::Usage(Box::new(UsageReader::openai(headers))),
        "anthropic-usage" => Reader::Usage(Box::new(UsageReader::anthropic(headers))),
        "copy" => Reader::Copy { data: Vec::new(), truncated: false },
        _ => Reader::Python,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_is_bounded() {
        let mut readers = Readers::new(&["copy".into()], &HeaderBlock::default());
        readers.feed(&vec![1; MAX_COPY_BYTES].into());
        assert!(matches!(&readers.results()[0], Read::Copy { truncated: false, .. }));
        readers.feed(&Bytes::from_static(b"x"));
        let Read::Copy { data, truncated: true } = &readers.results()[0] else { panic!("not truncated") };
        assert_eq!(data.len(), MAX_COPY_BYTES);
    }
}
