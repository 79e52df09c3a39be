//! Readers of bodies, by name; twins of `epp/extproc/readers.py`. A new one is a file that implements `Reader`, and a line here.

use std::sync::Arc;

use super::copy::CopyReader;
use super::media::is_encoded;
use super::prompts::PromptReader;
use super::read::{Read, Reader};
use super::usage::UsageReader;
use crate::wire::headers::HeaderBlock;

/// How the reader of a body is made.
#[derive(Clone, Copy)]
pub enum Make {
    /// With the headers of the body.
    Plain(fn(&HeaderBlock) -> Box<dyn Reader>),
    /// With what follows the first slash of the name; None if that is not right.
    WithParameters(fn(&str) -> Option<Box<dyn Reader>>),
}

/// Readers by name, that up to the first slash. Every name is one of Python's table of the same kind.
pub type Table = [(&'static str, Make)];

/// Of responses.
pub const READERS: &Table = &[
    ("anthropic-usage", Make::Plain(|headers| Box::new(UsageReader::anthropic(headers)))),
    ("copy", Make::Plain(|_| Box::<CopyReader>::default())),
    ("openai-usage", Make::Plain(|headers| Box::new(UsageReader::openai(headers)))),
];

/// Of requests.
pub const REQUEST_READERS: &Table = &[
    ("copy", Make::Plain(|_| Box::<CopyReader>::default())),
    #[cfg(test)]
    ("pieces", Make::Plain(|_| Box::<tests::Pieces>::default())),
    ("prompt-blocks", Make::WithParameters(|parameters| Some(Box::new(PromptReader::new(parameters)?)))),
];

/// What makes the reader of this name, and its parameters.
pub fn find<'a>(table: &Table, name: &'a str) -> Option<(Make, Option<&'a str>)> {
    let (family, parameters) = name.split_once('/').map_or((name, None), |(family, rest)| (family, Some(rest)));
    table.iter().find(|(known, _)| *known == family).map(|(_, make)| (*make, parameters))
}

/// The reader of this name for a body with these headers; None if there is none here.
fn make(table: &Table, name: &str, headers: &HeaderBlock) -> Option<Box<dyn Reader>> {
    match find(table, name)? {
        (Make::Plain(make), None) => Some(make(headers)),
        (Make::WithParameters(make), Some(parameters)) => make(parameters),
        _ => None,
    }
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
        let known =
            |name: &Arc<str>| make(table, name, headers).map_or_else(|| Known::Python(name.clone()), Known::Here);
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

    /// What all of them know so far, after they have seen the `whole` body if there is one.
    pub fn results(&mut self, whole: Option<&[u8]>) -> Vec<Read> {
        for reader in &mut self.readers {
            if let (Known::Here(reader), Some(body), true) = (reader, whole, self.readable) {
                reader.whole(body);
            }
        }
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
    use bytes::Bytes;

    use super::*;
    use crate::wire::headers::tests::map;

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
        assert_eq!(readers.results(None), [copy, Read::Python("of python".into()), packed(&[2, 1])]);
        assert!(readers.wants_python());
    }

    #[test]
    fn parameters_belong_to_some_names_only() {
        let known = |name: &str| make(REQUEST_READERS, name, &HeaderBlock::default()).is_some();
        assert!(known("copy") && known("prompt-blocks/64/256"));
        assert!(!known("copy/") && !known("copy/1") && !known("prompt-blocks") && !known("prompt-blocks/64/256/"));
    }

    #[test]
    fn nothing_of_a_compressed_body_is_read() {
        let headers = HeaderBlock::parse(&map(&[("content-encoding", "gzip")])).unwrap();
        let body = br#"{"prompt":"x"}"#;
        let results =
            |headers| Readers::new(&["prompt-blocks/1/0".into()], REQUEST_READERS, headers).results(Some(body));
        assert_eq!(results(&headers), [Read::Bytes(Bytes::new())]);
        assert_ne!(results(&HeaderBlock::default()), [Read::Bytes(Bytes::new())]);
    }
}
