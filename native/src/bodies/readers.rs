//! Readers of bodies, by name; twins of `epp/extproc/readers.py`. A new one is a file that implements `Reader`, and a line here.

use std::sync::Arc;

use super::copy::CopyReader;
use super::media::is_encoded;
use super::read::{Read, Reader};
use super::usage::UsageReader;
use crate::wire::headers::HeaderBlock;

/// Makes the reader of a body with these headers.
type Make = fn(&HeaderBlock) -> Box<dyn Reader>;

/// Readers by name. Every name is one of Python's table of the same kind.
pub type Table = [(&'static str, Make)];

/// Of responses.
pub const READERS: &Table = &[
    ("anthropic-usage", |headers| Box::new(UsageReader::anthropic(headers))),
    ("copy", |_| Box::<CopyReader>::default()),
    ("openai-usage", |headers| Box::new(UsageReader::openai(headers))),
];

/// Of requests.
pub const REQUEST_READERS: &Table = &[
    ("copy", |_| Box::<CopyReader>::default()),
    #[cfg(test)]
    ("pieces", |_| Box::<tests::Pieces>::default()),
];

pub fn find(table: &Table, name: &str) -> Option<Make> {
    table.iter().find(|(known, _)| *known == name).map(|(_, make)| *make)
}

/// The readers of one body, in the order of their names.
#[derive(Debug)]
pub struct Readers {
    readers: Vec<Known>,
    /// Nothing in a compressed body can be read.
    readable: bool,
}

#[derive(Debug)]
enum Known {
    Here(Box<dyn Reader>),
    /// Only Python has it.
    Python(Arc<str>),
}

impl Readers {
    pub fn new(names: &[Arc<str>], table: &Table, headers: &HeaderBlock) -> Self {
        let known = |name: &Arc<str>| match find(table, name) {
            Some(make) => Known::Here(make(headers)),
            None => Known::Python(name.clone()),
        };
        Self { readers: names.iter().map(known).collect(), readable: !is_encoded(headers) }
    }

    /// Whether there are readers that only Python has, and something to feed them.
    pub fn wants_python(&self) -> bool {
        self.readable && self.readers.iter().any(|reader| matches!(reader, Known::Python(_)))
    }

    pub fn feed(&mut self, data: &[u8]) {
        if !self.readable {
            return;
        }
        for reader in &mut self.readers {
            if let Known::Here(reader) = reader {
                reader.feed(data);
            }
        }
    }

    pub fn results(&mut self) -> Vec<Read> {
        self.readers
            .iter_mut()
            .map(|reader| match reader {
                Known::Here(reader) => reader.result(),
                Known::Python(name) => Read::Python(name.clone()),
            })
            .collect()
    }
}

#[cfg(test)]
pub mod tests {
    use super::*;

    /// Knows how long each piece of the body was that it was fed: 32 bits each, packed.
    #[derive(Debug, Default)]
    pub struct Pieces(Vec<u8>);

    impl Reader for Pieces {
        fn feed(&mut self, data: &[u8]) {
            self.0.extend_from_slice(&u32::try_from(data.len()).unwrap().to_le_bytes());
        }

        fn result(&mut self) -> Read {
            Read::Bytes(self.0.clone().into())
        }
    }

    /// What `Pieces` knows after pieces of these lengths.
    pub fn packed(lengths: &[u32]) -> Read {
        Read::Bytes(lengths.iter().flat_map(|length| length.to_le_bytes()).collect())
    }

    #[test]
    fn results_are_in_the_order_of_the_names() {
        let names: Vec<Arc<str>> = ["copy", "of python", "pieces"].map(Into::into).into();
        let mut readers = Readers::new(&names, REQUEST_READERS, &HeaderBlock::default());
        readers.feed(b"ab");
        readers.feed(b"c");
        let copy = Read::Copy { data: b"abc".into(), truncated: false };
        assert_eq!(readers.results(), [copy, Read::Python("of python".into()), packed(&[2, 1])]);
        assert!(readers.wants_python());
    }
}
