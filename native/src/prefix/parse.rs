//! Reads JSON into nodes, one for each value in the order in which they are written. Accepts what `orjson.loads` accepts, up to
//! a depth and a size.

use super::number;
use super::scan::{integers_length, number_length, plain_length};
use super::text::unescape;

/// Deeper documents are not read. `orjson` cannot write deeper ones, and the parser recurses.
pub const MAX_DEPTH: usize = 250;
/// Documents with more values are not read: 16 MiB.
pub const MAX_VALUES: usize = 1024 * 1024;

#[derive(Debug, Clone, Copy)]
pub enum Kind {
    Null,
    False,
    True,
    Number,
    /// Without escapes.
    Plain,
    Escaped,
    /// A list of plain integers that fit 32 bits; their text without the brackets.
    Integers,
    List,
    Object,
}

#[derive(Debug, Clone, Copy)]
pub struct Node {
    pub kind: Kind,
    pub start: u32,
    pub end: u32,
    /// The node after this one and all within it.
    pub next: u32,
}

/// The nodes of a document; None if this is no JSON, or too deep or too much of it.
pub fn parse(text: &str) -> Option<Vec<Node>> {
    u32::try_from(text.len()).ok()?;
    let mut parser = Parser { text, data: text.as_bytes(), at: 0, nodes: Vec::new() };
    parser.value(0)?;
    parser.peek().is_none().then_some(parser.nodes)
}

struct Parser<'a> {
    text: &'a str,
    data: &'a [u8],
    at: usize,
    nodes: Vec<Node>,
}

impl Parser<'_> {
    /// The next byte that is no white space.
    fn peek(&mut self) -> Option<u8> {
        while let Some(byte) = self.data.get(self.at) {
            match byte {
                b' ' | b'\t' | b'\r' | b'\n' => self.at += 1,
                other => return Some(*other),
            }
        }
        None
    }

    fn value(&mut self, depth: usize) -> Option<()> {
        let byte = self.peek()?;
        let start = self.at;
        match byte {
            b'"' => self.string(),
            b'{' => self.object(depth + 1),
            b'[' => self.list(depth + 1),
            b'n' => self.word(b"null", Kind::Null),
            b't' => self.word(b"true", Kind::True),
            b'f' => self.word(b"false", Kind::False),
            _ => {
                self.at += number_length(&self.data[start..])?;
                number::is_finite(&self.text[start..self.at]).then_some(())?;
                self.push(Kind::Number, start, self.at)
            }
        }
    }

    fn word(&mut self, word: &[u8], kind: Kind) -> Option<()> {
        let start = self.at;
        self.data[start..].starts_with(word).then_some(())?;
        self.at += word.len();
        self.push(kind, start, self.at)
    }

    fn push(&mut self, kind: Kind, start: usize, end: usize) -> Option<()> {
        let next = self.nodes.len() + 1;
        (next <= MAX_VALUES).then_some(())?;
        // No document is longer than 32 bits count.
        self.nodes.push(Node { kind, start: start as u32, end: end as u32, next: next as u32 });
        Some(())
    }

    fn string(&mut self) -> Option<()> {
        let start = self.at + 1;
        let mut kind = Kind::Plain;
        self.at = start;
        loop {
            match self.data.get(self.at)? {
                b'"' => break,
                b'\\' => {
                    kind = Kind::Escaped;
                    self.at += unescape(&self.data[self.at..])?.1;
                }
                b'\0'..=b'\x1f' => return None,
                _ => self.at += plain_length(&self.data[self.at..]),
            }
        }
        self.at += 1;
        self.push(kind, start, self.at - 1)
    }

    /// After a value: whether another one follows; None if this is neither a comma nor the end.
    fn follows(&mut self, end: u8) -> Option<bool> {
        let byte = self.peek()?;
        self.at += 1;
        if byte == b',' { Some(true) } else { (byte == end).then_some(false) }
    }

    fn list(&mut self, depth: usize) -> Option<()> {
        self.at += 1;
        let start = self.at;
        if let Some(length) = integers_length(&self.data[start..]) {
            self.at = start + length + 1;
            return self.push(Kind::Integers, start, start + length);
        }
        let own = self.open(Kind::List, depth)?;
        if self.peek()? == b']' {
            self.at += 1;
        } else {
            self.value(depth)?;
            while self.follows(b']')? {
                self.value(depth)?;
            }
        }
        self.close(own)
    }

    fn object(&mut self, depth: usize) -> Option<()> {
        self.at += 1;
        let own = self.open(Kind::Object, depth)?;
        if self.peek()? == b'}' {
            self.at += 1;
        } else {
            self.member(depth)?;
            while self.follows(b'}')? {
                self.member(depth)?;
            }
        }
        self.close(own)
    }

    fn member(&mut self, depth: usize) -> Option<()> {
        (self.peek()? == b'"').then_some(())?;
        self.string()?;
        (self.peek()? == b':').then_some(())?;
        self.at += 1;
        self.value(depth)
    }

    fn open(&mut self, kind: Kind, depth: usize) -> Option<usize> {
        (depth <= MAX_DEPTH).then_some(())?;
        self.push(kind, self.at, self.at)?;
        Some(self.nodes.len() - 1)
    }

    fn close(&mut self, own: usize) -> Option<()> {
        self.nodes[own].next = self.nodes.len() as u32;
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_json() {
        for good in [
            "0",
            " -0.0e+1 ",
            "\"\"",
            "[]",
            "[1]",
            "[1, 2 ]",
            "{}",
            "{\"a\":[{},null,true,false]}",
            "\"\\ud83d\\ude00\\u0000\"",
            "\"\u{7f}\u{2028}\"",
            "[1,-2,3.5]",
        ] {
            assert!(parse(good).is_some(), "{good}");
        }
        for bad in [
            "",
            " ",
            "1 2",
            "01",
            "[01]",
            "[1,]",
            "[1",
            "[,1]",
            "{\"a\"}",
            "{\"a\":}",
            "{a:1}",
            "{\"a\":1,}",
            "1.",
            ".5",
            "+1",
            "-",
            "1e",
            "1e+",
            "1e400",
            "nul",
            "NaN",
            "Infinity",
            "\"",
            "\"\t\"",
            "\"\\x\"",
            "\"\\u12g4\"",
            "\"\\ud800\"",
            "\"\\ud800\\ud800\"",
            "\"\\udc00\"",
            "\"\\ud800\\n12345\"",
            "\u{feff}1",
            "\x0c1",
            "[1}",
            "{\"a\":1]",
            "\"\\u+123\"",
        ] {
            assert!(parse(bad).is_none(), "{bad:?}");
        }
    }

    #[test]
    fn depth_and_size_are_bounded() {
        let nested = |depth: usize| "[".repeat(depth) + &"]".repeat(depth);
        assert!(parse(&nested(MAX_DEPTH)).is_some());
        assert!(parse(&nested(MAX_DEPTH + 1)).is_none());
        assert!(parse(&"[".repeat(10_000_000)).is_none());
        let many = |count: usize| format!("[{}null]", "null,".repeat(count - 2));
        assert!(parse(&many(MAX_VALUES)).is_some());
        assert!(parse(&many(MAX_VALUES + 1)).is_none());
        assert!(parse(&format!("[{}1]", "1,".repeat(2 * MAX_VALUES))).is_some());
    }
}
