//! A JSON document in the order in which it is written, values as places in its text: read at once, nothing copied, 16 bytes
//! for each value; a list of token ids is one.

use super::parse::{Kind, Node, parse};
use super::text::Text;

/// A document that was read.
#[derive(Debug)]
pub struct Tape<'a> {
    text: &'a str,
    nodes: Vec<Node>,
}

/// One value of a document.
#[derive(Debug, Clone, Copy)]
pub enum Value<'a> {
    Null,
    Bool(bool),
    Number(&'a str),
    Text(Text<'a>),
    Integers(Integers<'a>),
    List(List<'a>),
    Object(Object<'a>),
}

impl<'a> Tape<'a> {
    /// None if this is no JSON, or too deep or too much of it.
    pub fn read(data: &'a [u8]) -> Option<Self> {
        let text = std::str::from_utf8(data).ok()?;
        Some(Self { text, nodes: parse(text)? })
    }

    pub fn root(&'a self) -> Value<'a> {
        self.value(0)
    }

    fn value(&'a self, at: u32) -> Value<'a> {
        let node = self.nodes[at as usize];
        let raw = &self.text[node.start as usize..node.end as usize];
        match node.kind {
            Kind::Null => Value::Null,
            Kind::False => Value::Bool(false),
            Kind::True => Value::Bool(true),
            Kind::Number => Value::Number(raw),
            Kind::Plain => Value::Text(Text { raw, escaped: false }),
            Kind::Escaped => Value::Text(Text { raw, escaped: true }),
            Kind::Integers => Value::Integers(Integers(raw)),
            Kind::List => Value::List(List(Nodes { tape: self, at: at + 1, end: node.next })),
            Kind::Object => Value::Object(Object(Nodes { tape: self, at: at + 1, end: node.next })),
        }
    }
}

impl<'a> Value<'a> {
    pub fn is_null(self) -> bool {
        matches!(self, Self::Null)
    }

    pub fn text(self) -> Option<Text<'a>> {
        if let Self::Text(text) = self { Some(text) } else { None }
    }

    pub fn object(self) -> Option<Object<'a>> {
        if let Self::Object(object) = self { Some(object) } else { None }
    }

    /// The items of a list.
    pub fn items(self) -> Option<Box<dyn Iterator<Item = Value<'a>> + 'a>> {
        match self {
            Self::List(list) => Some(Box::new(list.0)),
            Self::Integers(integers) => Some(Box::new(integers.numbers().map(Value::Number))),
            _ => None,
        }
    }
}

/// Values that follow each other.
#[derive(Debug, Clone, Copy)]
struct Nodes<'a> {
    tape: &'a Tape<'a>,
    at: u32,
    end: u32,
}

impl<'a> Iterator for Nodes<'a> {
    type Item = Value<'a>;

    fn next(&mut self) -> Option<Value<'a>> {
        if self.at == self.end {
            return None;
        }
        let value = self.tape.value(self.at);
        self.at = self.tape.nodes[self.at as usize].next;
        Some(value)
    }
}

/// A list of values.
#[derive(Debug, Clone, Copy)]
pub struct List<'a>(Nodes<'a>);

/// A list of integers that fit 32 bits, at least one.
#[derive(Debug, Clone, Copy)]
pub struct Integers<'a>(&'a str);

impl<'a> Integers<'a> {
    /// Their values.
    pub fn values(self) -> impl Iterator<Item = u32> {
        let mut bytes = self.0.bytes();
        let mut more = true;
        std::iter::from_fn(move || {
            if !std::mem::take(&mut more) {
                return None;
            }
            let mut value = 0_u32;
            for byte in &mut bytes {
                match byte {
                    b'0'..=b'9' => value = value.wrapping_mul(10).wrapping_add(u32::from(byte - b'0')),
                    b',' => {
                        more = true;
                        break;
                    }
                    _ => {}
                }
            }
            Some(value)
        })
    }

    pub fn numbers(self) -> impl Iterator<Item = &'a str> {
        self.0.split(',').map(|raw| raw.trim_matches([' ', '\t', '\r', '\n']))
    }
}

/// Named values.
#[derive(Debug, Clone, Copy)]
pub struct Object<'a>(Nodes<'a>);

impl<'a> Object<'a> {
    /// All members as they are written, also those of the same name.
    pub fn members(self) -> impl Iterator<Item = (Text<'a>, Value<'a>)> {
        let mut nodes = self.0;
        std::iter::from_fn(move || Some((nodes.next()?.text()?, nodes.next()?)))
    }

    /// The last member of this name.
    pub fn get(self, name: &str) -> Option<Value<'a>> {
        let [value] = self.pick([name]);
        value
    }

    /// The last member of each of these names.
    pub fn pick<const N: usize>(self, names: [&str; N]) -> [Option<Value<'a>>; N] {
        let mut found = [None; N];
        let Nodes { tape, mut at, end } = self.0;
        while at < end {
            let value = tape.nodes[at as usize].next;
            let key = tape.value(at).text();
            if let Some(place) = names.iter().position(|name| key.is_some_and(|key| key.is(name))) {
                found[place] = Some(tape.value(value));
            }
            at = tape.nodes[value as usize].next;
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values() {
        let text = r#"{"a":1,"\u0061":{"b":["x",[7, 8],-1]},"c":"\"x\n\ud83d\ude00y"}"#;
        let tape = Tape::read(text.as_bytes()).unwrap();
        let root = tape.root().object().unwrap();
        assert_eq!(root.members().count(), 3);
        let inner = root.get("a").unwrap().object().unwrap().get("b").unwrap();
        let kinds: Vec<_> = inner.items().unwrap().collect();
        let [Value::Text(x), Value::Integers(integers), Value::Number("-1")] = kinds[..] else { panic!("{kinds:?}") };
        assert!(x.is("x"));
        assert_eq!(integers.numbers().collect::<Vec<_>>(), ["7", "8"]);
        assert_eq!(integers.values().collect::<Vec<_>>(), [7, 8]);
        assert!(root.get("c").unwrap().text().unwrap().is("\"x\n😀y"));
        assert!(root.get("d").is_none());
    }

    #[test]
    fn only_unicode_is_read() {
        for bad in [&b"\"\xff\""[..], b"\"\xed\xa0\x80\""] {
            assert!(Tape::read(bad).is_none(), "{bad:?}");
        }
    }
}
