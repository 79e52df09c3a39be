//! Strings of JSON as they are written.

use std::borrow::Cow;

/// A string without its quotes; its escapes are right.
#[derive(Debug, Clone, Copy)]
pub struct Text<'a> {
    pub raw: &'a str,
    pub escaped: bool,
}

/// Part of a string.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Piece<'a> {
    Plain(&'a str),
    Escaped(char),
}

impl<'a> Text<'a> {
    pub fn is(self, text: &str) -> bool {
        // An escape has at most six times the bytes of what it stands for.
        let near = self.raw.len() <= 6 * text.len();
        if self.escaped { near && self.decoded() == text } else { self.raw == text }
    }

    pub fn decoded(self) -> Cow<'a, str> {
        if !self.escaped {
            return Cow::Borrowed(self.raw);
        }
        let mut out = String::with_capacity(self.raw.len());
        self.pieces(|piece| match piece {
            Piece::Plain(text) => out.push_str(text),
            Piece::Escaped(character) => out.push(character),
        });
        Cow::Owned(out)
    }

    pub fn starts_with(self, beginning: &str) -> bool {
        let mut rest = beginning.as_bytes();
        let mut same = true;
        self.pieces(|piece| {
            let mut buffer = [0; 4];
            let text = match piece {
                Piece::Plain(text) => text,
                Piece::Escaped(character) => character.encode_utf8(&mut buffer),
            };
            let common = text.len().min(rest.len());
            same = same && text.as_bytes()[..common] == rest[..common];
            rest = &rest[common..];
        });
        same && rest.is_empty()
    }

    /// Its runs without escapes, and the characters between them.
    pub fn pieces(self, mut take: impl FnMut(Piece<'a>)) {
        let mut rest = self.raw;
        while self.escaped
            && let Some(at) = next_escape(rest.as_bytes())
        {
            if at > 0 {
                take(Piece::Plain(&rest[..at]));
            }
            let (character, length) = unescape(&rest.as_bytes()[at..]).unwrap_or((char::REPLACEMENT_CHARACTER, 1));
            take(Piece::Escaped(character));
            rest = &rest[at + length..];
        }
        if !rest.is_empty() {
            take(Piece::Plain(rest));
        }
    }
}

fn next_escape(data: &[u8]) -> Option<usize> {
    // Text that is written in ASCII has one after the other.
    if data.first() == Some(&b'\\') { Some(0) } else { memchr::memchr(b'\\', data) }
}

/// The character of the escape that begins here, and how long that is; None if it is none, or half a surrogate pair.
pub fn unescape(data: &[u8]) -> Option<(char, usize)> {
    let [b'\\', letter, rest @ ..] = data else { return None };
    if *letter != b'u' {
        let short = SHORT[usize::from(*letter)];
        return (short != 0).then_some((char::from(short), 2));
    }
    let (digits, rest) = rest.split_first_chunk()?;
    let first = hex4(digits)?;
    if let 0xd800..=0xdbff = first {
        let [b'\\', b'u', rest @ ..] = rest else { return None };
        let second = hex4(rest.first_chunk()?)?.checked_sub(0xdc00).filter(|second| *second < 0x400)?;
        return Some((char::from_u32(0x10000 + ((first - 0xd800) << 10) + second)?, 12));
    }
    Some((char::from_u32(first)?, 6))
}

fn hex4(digits: &[u8; 4]) -> Option<u32> {
    let [a, b, c, d] = digits.map(|digit| u32::from(HEX[usize::from(digit)]));
    // What is no digit shows above the four bits of one.
    (a | b | c | d < 16).then_some(a << 12 | b << 8 | c << 4 | d)
}

/// What a letter after a backslash stands for; 0 for what must not be there, and for `u`.
const SHORT: [u8; 256] = {
    let mut table = [0; 256];
    let (letters, meant) = (b"\"\\/bfnrt", b"\"\\/\x08\x0c\n\r\t");
    let mut place = 0;
    while place < letters.len() {
        table[letters[place] as usize] = meant[place];
        place += 1;
    }
    table
};

/// The value of each hexadecimal digit, 255 for other bytes.
const HEX: [u8; 256] = {
    let mut table = [255; 256];
    let mut value = 0;
    while value < 16 {
        table[b"0123456789abcdef"[value] as usize] = value as u8;
        table[b"0123456789ABCDEF"[value] as usize] = value as u8;
        value += 1;
    }
    table
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes() {
        let text = Text { raw: r#"\"x\n\ud83d\ude00\u0079"#, escaped: true };
        assert_eq!(text.decoded(), "\"x\n😀y");
        assert!(text.is("\"x\n😀y") && !text.is("\"x\n😀z") && !text.is("") && !text.is("y"));
        assert!(Text { raw: r"\u0061\u0062", escaped: true }.is("ab"));
        assert!(text.starts_with("") && text.starts_with("\"x\n😀") && text.starts_with("\"x\n😀y"));
        assert!(!text.starts_with("\"x\n😀yz") && !text.starts_with("\"y") && !text.starts_with("\"x\n😁"));
    }
}
