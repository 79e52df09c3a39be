//! Headers as they came, indexed but not decoded: what nobody reads costs nothing.

use std::ops::Range;

use super::fields::{header_map, header_value};
use super::proto::{Malformed, Reader, Value, text};

/// One HTTP message's headers. Owns an exact copy of its bytes, so that it pins no larger buffer.
#[derive(Debug, Default)]
pub struct HeaderBlock {
    bytes: Box<[u8]>,
    entries: Box<[Entry]>,
}

#[derive(Debug)]
struct Entry {
    name: Range<u32>,
    value: Range<u32>,
}

impl HeaderBlock {
    /// Read an `envoy.config.core.v3.HeaderMap`.
    pub fn parse(map: &[u8]) -> Result<Self, Malformed> {
        let mut entries = Vec::with_capacity(16);
        let mut fields = Reader::new(map);
        while let Some((number, value)) = fields.field()? {
            if let (header_map::HEADERS, Value::Bytes(header)) = (number, value) {
                entries.push(entry(map, header)?);
            }
        }
        Ok(Self { bytes: map.into(), entries: entries.into() })
    }

    /// The last value of a lower-case name.
    pub fn get(&self, name: &[u8]) -> Option<&[u8]> {
        let found = self.entries.iter().rev().find(|entry| self.at(&entry.name).eq_ignore_ascii_case(name))?;
        Some(self.at(&found.value))
    }

    /// All names and values in wire order; names as they were spelled.
    pub fn iter(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.entries.iter().map(|entry| (self.at(&entry.name), self.at(&entry.value)))
    }

    /// The names, lower case, for which `wanted` is true; sorted, each once.
    pub fn names_where(&self, wanted: impl Fn(&[u8]) -> bool) -> Vec<Box<[u8]>> {
        let mut names: Vec<Box<[u8]>> = Vec::new();
        for entry in &self.entries {
            let name = self.at(&entry.name);
            if name.iter().any(u8::is_ascii_uppercase) {
                let lower = name.to_ascii_lowercase();
                if wanted(&lower) {
                    names.push(lower.into());
                }
            } else if wanted(name) {
                names.push(name.into());
            }
        }
        names.sort_unstable();
        names.dedup();
        names
    }

    fn at(&self, range: &Range<u32>) -> &[u8] {
        &self.bytes[range.start as usize..range.end as usize]
    }
}

/// Where the name and the value of a `HeaderValue` are within `map`: Envoy fills `raw_value`, others `value`.
fn entry(map: &[u8], header: &[u8]) -> Result<Entry, Malformed> {
    let (mut name, mut plain, mut raw): (&[u8], &[u8], &[u8]) = (&[], &[], &[]);
    let mut fields = Reader::new(header);
    while let Some(field) = fields.field()? {
        match field {
            (header_value::KEY, Value::Bytes(data)) => name = text(data)?.as_bytes(),
            (header_value::VALUE, Value::Bytes(data)) => plain = text(data)?.as_bytes(),
            (header_value::RAW_VALUE, Value::Bytes(data)) => raw = data,
            _ => {}
        }
    }
    let value = if raw.is_empty() { plain } else { raw };
    Ok(Entry { name: place(map, name)?, value: place(map, value)? })
}

fn place(map: &[u8], part: &[u8]) -> Result<Range<u32>, Malformed> {
    if part.is_empty() {
        return Ok(0..0);
    }
    let start = part.as_ptr() as usize - map.as_ptr() as usize;
    let start = u32::try_from(start).map_err(|_| Malformed)?;
    let length = u32::try_from(part.len()).map_err(|_| Malformed)?;
    Ok(start..start.checked_add(length).ok_or(Malformed)?)
}

/// A set of lower-case header names. Looked up by length first, which tells nearly all apart.
#[derive(Debug, Default, Clone)]
pub struct Names(Vec<Box<[u8]>>);

impl Names {
    pub fn new(mut names: Vec<Box<[u8]>>) -> Self {
        names.sort_unstable_by(|a, b| order(a, b));
        names.dedup();
        Self(names)
    }

    pub fn contains(&self, name: &[u8]) -> bool {
        self.0.binary_search_by(|other| order(other, name)).is_ok()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

fn order(a: &[u8], b: &[u8]) -> std::cmp::Ordering {
    a.len().cmp(&b.len()).then_with(|| a.cmp(b))
}

#[cfg(test)]
pub mod tests {
    use super::super::proto::{put_bytes, put_message};
    use super::*;

    pub fn map(pairs: &[(&str, &str)]) -> Vec<u8> {
        let mut out = Vec::new();
        for (name, value) in pairs {
            put_message(&mut out, 1, |header| {
                put_bytes(header, 1, name.as_bytes());
                put_bytes(header, 3, value.as_bytes());
            });
        }
        out
    }

    #[test]
    fn the_last_value_counts_and_spelling_does_not() {
        let block = HeaderBlock::parse(&map(&[("Cookie", "a"), ("x", ""), ("cookie", "b")])).unwrap();
        assert_eq!(block.get(b"cookie"), Some(&b"b"[..]));
        assert_eq!(block.get(b"x"), Some(&b""[..]));
        assert_eq!(block.get(b"y"), None);
        let names = Names::new(vec![b"cookie"[..].into(), b"y"[..].into()]);
        assert_eq!(block.names_where(|name| names.contains(name)), [b"cookie"[..].into()]);
    }

    #[test]
    fn the_plain_value_stands_in() {
        let mut data = Vec::new();
        put_message(&mut data, 1, |header| {
            put_bytes(header, 1, b"a");
            put_bytes(header, 2, b"plain");
        });
        assert_eq!(HeaderBlock::parse(&data).unwrap().get(b"a"), Some(&b"plain"[..]));
    }

    #[test]
    fn names_must_be_text() {
        let mut data = Vec::new();
        put_message(&mut data, 1, |header| put_bytes(header, 1, b"\xff"));
        assert_eq!(HeaderBlock::parse(&data).unwrap_err(), Malformed);
    }
}
