//! Protocol buffers by hand, as far as ext_proc and health need them: a reader over a slice, a writer into a buffer.
//!
//! The few messages that matter are flat; reading them in place costs no allocation and no copy.
//! Source: protobuf.dev, "Encoding".

/// Field numbers of every entry of a map.
pub mod entry {
    pub const KEY: u32 = 1;
    pub const VALUE: u32 = 2;
}

/// The bytes are not a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Malformed;

/// The value of one field, as the wire shows it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Value<'a> {
    Varint(u64),
    Fixed64(u64),
    Bytes(&'a [u8]),
    Fixed32,
}

/// Reads the fields of one message, in order.
pub struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub fn new(data: &'a [u8]) -> Self {
        Self { rest: data }
    }

    /// The next field and its value; None at the end.
    pub fn field(&mut self) -> Result<Option<(u32, Value<'a>)>, Malformed> {
        if self.rest.is_empty() {
            return Ok(None);
        }
        let tag = u32::try_from(self.varint()?).map_err(|_| Malformed)?;
        if tag >> 3 == 0 {
            return Err(Malformed);
        }
        let value = match tag & 7 {
            0 => Value::Varint(self.varint()?),
            1 => Value::Fixed64(u64::from_le_bytes(self.take(8)?.try_into().map_err(|_| Malformed)?)),
            2 => {
                let length = usize::try_from(self.varint()?).map_err(|_| Malformed)?;
                Value::Bytes(self.take(length)?)
            }
            5 => {
                self.take(4)?;
                Value::Fixed32
            }
            _ => return Err(Malformed),
        };
        Ok(Some((tag >> 3, value)))
    }

    fn varint(&mut self) -> Result<u64, Malformed> {
        let mut value = 0u64;
        for (index, &byte) in self.rest.iter().take(10).enumerate() {
            value |= u64::from(byte & 0x7f) << (7 * index);
            if byte < 0x80 {
                self.rest = &self.rest[index + 1..];
                return Ok(value);
            }
        }
        Err(Malformed)
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], Malformed> {
        if length > self.rest.len() {
            return Err(Malformed);
        }
        let (taken, rest) = self.rest.split_at(length);
        self.rest = rest;
        Ok(taken)
    }
}

/// The text of a `string` field; proto3 wants UTF-8.
pub fn text(data: &[u8]) -> Result<&str, Malformed> {
    std::str::from_utf8(data).map_err(|_| Malformed)
}

pub fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

pub fn varint_len(value: u64) -> usize {
    (64 - (value | 1).leading_zeros() as usize).div_ceil(7)
}

/// The size of a length-delimited field with a number below 16.
pub fn bytes_len(length: usize) -> usize {
    1 + varint_len(length as u64) + length
}

/// Begin a length-delimited field with a number below 16; its content must follow.
pub fn put_head(out: &mut Vec<u8>, field: u32, length: usize) {
    debug_assert!((1..16).contains(&field));
    out.push((field << 3) as u8 | 2);
    put_varint(out, length as u64);
}

pub fn put_bytes(out: &mut Vec<u8>, field: u32, data: &[u8]) {
    put_head(out, field, data.len());
    out.extend_from_slice(data);
}

/// A varint field; left out if it is 0, as proto3 does.
pub fn put_number(out: &mut Vec<u8>, field: u32, value: u64) {
    if value != 0 {
        debug_assert!((1..16).contains(&field));
        out.push((field << 3) as u8);
        put_varint(out, value);
    }
}

pub fn put_true(out: &mut Vec<u8>, field: u32, value: bool) {
    put_number(out, field, u64::from(value));
}

/// A nested message of a few bytes to some kilobytes: written behind its own length, which is filled in afterwards.
pub fn put_message(out: &mut Vec<u8>, field: u32, fill: impl FnOnce(&mut Vec<u8>)) {
    debug_assert!((1..16).contains(&field));
    out.push((field << 3) as u8 | 2);
    let start = out.len();
    out.push(0);
    fill(out);
    let length = (out.len() - start - 1) as u64;
    let wide = varint_len(length);
    if wide > 1 {
        out.splice(start..start, std::iter::repeat_n(0, wide - 1));
    }
    let mut rest = length;
    for index in 0..wide {
        let more = if index + 1 < wide { 0x80 } else { 0 };
        out[start + index] = (rest & 0x7f) as u8 | more;
        rest >>= 7;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        for length in [0usize, 1, 127, 128, 16_383, 16_384, 70_000] {
            let mut out = Vec::new();
            put_number(&mut out, 1, length as u64);
            put_bytes(&mut out, 2, &vec![7; length]);
            put_message(&mut out, 3, |inner| put_bytes(inner, 1, &vec![8; length]));
            let mut reader = Reader::new(&out);
            if length > 0 {
                assert_eq!(reader.field(), Ok(Some((1, Value::Varint(length as u64)))));
            }
            assert_eq!(reader.field(), Ok(Some((2, Value::Bytes(&vec![7; length])))));
            let Ok(Some((3, Value::Bytes(inner)))) = reader.field() else { panic!("no message") };
            assert_eq!(inner.len(), bytes_len(length));
            assert_eq!(Reader::new(inner).field(), Ok(Some((1, Value::Bytes(&vec![8; length])))));
            assert_eq!(reader.field(), Ok(None));
        }
    }

    #[test]
    fn cut_or_impossible_messages_are_malformed() {
        for data in [&b"\xff\xff"[..], b"\x0a\x05abc", b"\x00\x01", b"\x09\x01", b"\x0b", b"\x0a", b"\x7f"] {
            let mut reader = Reader::new(data);
            let result = loop {
                match reader.field() {
                    Ok(Some(_)) => {}
                    Ok(None) => break Ok(()),
                    Err(error) => break Err(error),
                }
            };
            assert_eq!(result, Err(Malformed), "{data:?}");
        }
    }

    #[test]
    fn lengths_of_varints() {
        for (value, length) in [(0, 1), (1, 1), (127, 1), (128, 2), (16_383, 2), (16_384, 3), (u64::MAX, 10)] {
            let mut out = Vec::new();
            put_varint(&mut out, value);
            assert_eq!((out.len(), varint_len(value)), (length, length));
        }
    }
}
