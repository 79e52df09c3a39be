//! MessagePack as values that borrow from the payload. Never allocates more than the payload can fill.

/// Deeper values are refused.
const MAX_DEPTH: usize = 900;

#[derive(Debug, PartialEq)]
pub enum Value<'a> {
    Nil,
    Bool,
    Unsigned(u64),
    Negative(i64),
    Float,
    Text(&'a str),
    Bytes(&'a [u8]),
    Array(Vec<Value<'a>>),
    Map(Vec<(Value<'a>, Value<'a>)>),
    Extension,
}

impl<'a> Value<'a> {
    /// The whole payload as one value; None if it is none, or if something follows.
    pub fn read(payload: &'a [u8]) -> Option<Self> {
        let mut reader = Reader { rest: payload };
        let value = reader.value(0)?;
        reader.rest.is_empty().then_some(value)
    }

    pub fn text(&self) -> Option<&'a str> {
        match self {
            Value::Text(text) => Some(text),
            _ => None,
        }
    }

    pub fn array(&self) -> Option<&[Value<'a>]> {
        match self {
            Value::Array(values) => Some(values),
            _ => None,
        }
    }

    /// The member of a map; of several of that name the last one.
    pub fn member(&self, name: &str) -> Option<&Value<'a>> {
        let Value::Map(members) = self else { return None };
        members.iter().rev().find(|(key, _)| key.text() == Some(name)).map(|(_, value)| value)
    }

    pub fn is_nil(&self) -> bool {
        matches!(self, Value::Nil)
    }
}

struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.rest.split_at_checked(count)?;
        self.rest = rest;
        Some(taken)
    }

    fn number<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N)?.try_into().ok()
    }

    fn value(&mut self, depth: usize) -> Option<Value<'a>> {
        if depth > MAX_DEPTH {
            return None;
        }
        let [marker] = self.number()?;
        Some(match marker {
            0x00..=0x7f => Value::Unsigned(marker.into()),
            0x80..=0x8f => return self.map((marker & 0x0f).into(), depth),
            0x90..=0x9f => return self.array((marker & 0x0f).into(), depth),
            0xa0..=0xbf => return self.text((marker & 0x1f).into()),
            0xc0 => Value::Nil,
            0xc1 => return None,
            0xc2 | 0xc3 => Value::Bool,
            0xc4 => Value::Bytes(self.length8().and_then(|count| self.take(count))?),
            0xc5 => Value::Bytes(self.length16().and_then(|count| self.take(count))?),
            0xc6 => Value::Bytes(self.length32().and_then(|count| self.take(count))?),
            0xc7 => self.length8().and_then(|count| self.extension(count))?,
            0xc8 => self.length16().and_then(|count| self.extension(count))?,
            0xc9 => self.length32().and_then(|count| self.extension(count))?,
            0xca => self.take(4).map(|_| Value::Float)?,
            0xcb => self.take(8).map(|_| Value::Float)?,
            0xcc => Value::Unsigned(u8::from_be_bytes(self.number()?).into()),
            0xcd => Value::Unsigned(u16::from_be_bytes(self.number()?).into()),
            0xce => Value::Unsigned(u32::from_be_bytes(self.number()?).into()),
            0xcf => Value::Unsigned(u64::from_be_bytes(self.number()?)),
            0xd0 => signed(i8::from_be_bytes(self.number()?).into()),
            0xd1 => signed(i16::from_be_bytes(self.number()?).into()),
            0xd2 => signed(i32::from_be_bytes(self.number()?).into()),
            0xd3 => signed(i64::from_be_bytes(self.number()?)),
            0xd4..=0xd8 => self.extension(1 << (marker - 0xd4))?,
            0xd9 => return self.length8().and_then(|count| self.text(count)),
            0xda => return self.length16().and_then(|count| self.text(count)),
            0xdb => return self.length32().and_then(|count| self.text(count)),
            0xdc => return self.length16().and_then(|count| self.array(count, depth)),
            0xdd => return self.length32().and_then(|count| self.array(count, depth)),
            0xde => return self.length16().and_then(|count| self.map(count, depth)),
            0xdf => return self.length32().and_then(|count| self.map(count, depth)),
            0xe0..=0xff => Value::Negative(i64::from(marker as i8)),
        })
    }

    fn length8(&mut self) -> Option<usize> {
        self.number().map(|bytes: [u8; 1]| bytes[0].into())
    }

    fn length16(&mut self) -> Option<usize> {
        self.number().map(|bytes| u16::from_be_bytes(bytes).into())
    }

    fn length32(&mut self) -> Option<usize> {
        self.number().and_then(|bytes| u32::from_be_bytes(bytes).try_into().ok())
    }

    fn text(&mut self, count: usize) -> Option<Value<'a>> {
        std::str::from_utf8(self.take(count)?).ok().map(Value::Text)
    }

    fn extension(&mut self, count: usize) -> Option<Value<'a>> {
        self.take(count + 1).map(|_| Value::Extension)
    }

    fn array(&mut self, count: usize, depth: usize) -> Option<Value<'a>> {
        // Every value takes a byte at least.
        if count > self.rest.len() {
            return None;
        }
        let mut values = Vec::with_capacity(count);
        for _ in 0..count {
            values.push(self.value(depth + 1)?);
        }
        Some(Value::Array(values))
    }

    fn map(&mut self, count: usize, depth: usize) -> Option<Value<'a>> {
        if count > self.rest.len() / 2 {
            return None;
        }
        let mut members = Vec::with_capacity(count);
        for _ in 0..count {
            members.push((self.value(depth + 1)?, self.value(depth + 1)?));
        }
        Some(Value::Map(members))
    }
}

fn signed<'a>(number: i64) -> Value<'a> {
    u64::try_from(number).map_or(Value::Negative(number), Value::Unsigned)
}

#[cfg(test)]
mod tests {
    use super::Value;

    #[test]
    fn what_claims_more_than_there_is_is_refused() {
        assert_eq!(Value::read(b"\xdd\x06\x00\x00\x00"), None);
        assert_eq!(Value::read(b"\xdf\x06\x00\x00\x00"), None);
        assert_eq!(Value::read(&[0x91; 100_000]), None);
        assert_eq!(Value::read(b""), None);
        assert_eq!(Value::read(b"\xc0\xc0"), None);
    }

    #[test]
    fn numbers_are_signed_only_below_zero() {
        assert_eq!(Value::read(b"\xd0\x7f"), Some(Value::Unsigned(127)));
        assert_eq!(Value::read(b"\xd0\xff"), Some(Value::Negative(-1)));
        assert_eq!(Value::read(b"\xff"), Some(Value::Negative(-1)));
    }
}
