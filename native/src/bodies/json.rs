//! JSON as far as readers need it: the few members of a top-level object, and string literals.

use std::fmt;

use memchr::memmem;
use serde::de::{Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::Value;

/// The members of a JSON object that readers look at; None = not there.
#[derive(Debug, Default)]
pub struct Document {
    pub usage: Option<Value>,
    pub kind: Option<Value>,
    pub response: Option<Value>,
    pub message: Option<Value>,
}

impl Document {
    /// Read an object; None if `data` is not valid JSON or not an object.
    pub fn parse(data: &[u8]) -> Option<Self> {
        // What is skipped is not checked as strictly as what is read: text and surrogates must be checked here.
        let text = std::str::from_utf8(data).ok()?;
        if memmem::find(data, b"\\ud").is_some() || memmem::find(data, b"\\uD").is_some() {
            return Self::parse_strictly(text);
        }
        let mut source = serde_json::Deserializer::from_str(text);
        let document = source.deserialize_map(DocumentVisitor).ok()?;
        source.end().ok()?;
        Some(document)
    }

    fn parse_strictly(text: &str) -> Option<Self> {
        let Ok(Value::Object(mut members)) = serde_json::from_str(text) else {
            return None;
        };
        Some(Self {
            usage: members.remove("usage"),
            kind: members.remove("type"),
            response: members.remove("response"),
            message: members.remove("message"),
        })
    }
}

struct DocumentVisitor;

impl<'de> Visitor<'de> for DocumentVisitor {
    type Value = Document;

    fn expecting(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        formatter.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Document, A::Error> {
        let mut document = Document::default();
        while let Some(name) = members.next_key::<std::borrow::Cow<'de, str>>()? {
            let slot = match &*name {
                "usage" => &mut document.usage,
                "type" => &mut document.kind,
                "response" => &mut document.response,
                "message" => &mut document.message,
                _ => {
                    members.next_value::<IgnoredAny>()?;
                    continue;
                }
            };
            *slot = Some(members.next_value()?);
        }
        Ok(document)
    }
}

/// The code points of the string between two quotes, or None if it is none; lone surrogates are kept, as Python does.
pub fn decode_string(raw: &[u8]) -> Option<Vec<u32>> {
    let mut out = Vec::with_capacity(raw.len());
    let mut characters = std::str::from_utf8(raw).ok()?.chars();
    while let Some(character) = characters.next() {
        match character {
            '\\' => {
                let escaped = match characters.next()? {
                    'u' => u_escape(&mut characters)?,
                    '"' => '"' as u32,
                    '\\' => '\\' as u32,
                    '/' => '/' as u32,
                    'b' => 8,
                    'f' => 12,
                    'n' => 10,
                    'r' => 13,
                    't' => 9,
                    _ => return None,
                };
                out.push(escaped);
            }
            '"' | '\0'..='\x1f' => return None,
            other => out.push(other as u32),
        }
    }
    Some(out)
}

/// The code point of a `\u` escape, with its second half if it is a pair.
fn u_escape(characters: &mut std::str::Chars) -> Option<u32> {
    let first = hex4(characters)?;
    if !(0xd800..0xdc00).contains(&first) {
        return Some(first);
    }
    let mut ahead = characters.clone();
    if ahead.next() == Some('\\')
        && ahead.next() == Some('u')
        && let Some(second @ 0xdc00..=0xdfff) = hex4(&mut ahead)
    {
        *characters = ahead;
        return Some(0x10000 + ((first - 0xd800) << 10) + (second - 0xdc00));
    }
    Some(first)
}

fn hex4(characters: &mut std::str::Chars) -> Option<u32> {
    (0..4).try_fold(0, |value, _| Some(value << 4 | characters.next()?.to_digit(16)?))
}

/// The string as an ASCII JSON literal without its quotes, as Python's `json.dumps` writes it.
pub fn encode_string(text: &[u32]) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    for &point in text {
        match point {
            0x22 => out.extend_from_slice(b"\\\""),
            0x5c => out.extend_from_slice(b"\\\\"),
            8 => out.extend_from_slice(b"\\b"),
            9 => out.extend_from_slice(b"\\t"),
            10 => out.extend_from_slice(b"\\n"),
            12 => out.extend_from_slice(b"\\f"),
            13 => out.extend_from_slice(b"\\r"),
            0x20..=0x7e => out.push(point as u8),
            0x10000.. => {
                let rest = point - 0x10000;
                out.extend_from_slice(
                    format!("\\u{:04x}\\u{:04x}", 0xd800 + (rest >> 10), 0xdc00 + (rest & 0x3ff)).as_bytes(),
                );
            }
            _ => out.extend_from_slice(format!("\\u{point:04x}").as_bytes()),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn points(text: &str) -> Vec<u32> {
        text.chars().map(u32::from).collect()
    }

    #[test]
    fn strings_survive() {
        for text in ["", "plain", "\"\\/\u{8}\u{c}\n\r\t", "grüße", "😀", "\u{7f}", "\u{1}"] {
            assert_eq!(decode_string(&encode_string(&points(text))), Some(points(text)));
        }
        assert_eq!(decode_string(br"\ud83d\ude00"), Some(vec![0x1f600]));
        assert_eq!(decode_string(br"\ud83dx"), Some(vec![0xd83d, u32::from('x')]));
        for bad in [&b"\\"[..], b"\\x", b"\\u12", b"\\u12g4", b"\n", b"\"", b"\xff", b"\\U1234"] {
            assert_eq!(decode_string(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn documents() {
        let document = Document::parse(br#" {"usage":{"a":1},"x":[{}],"usage":null,"type":"t"} "#).unwrap();
        assert_eq!(document.usage, Some(Value::Null));
        assert_eq!(document.kind, Some("t".into()));
        for bad in [&b"[]"[..], b"{", b"{} x", b"{\"a\":\"\xff\"}", b"{\"a\":\"\\ud800\"}", b"1", b""] {
            assert!(Document::parse(bad).is_none(), "{bad:?}");
        }
        assert!(Document::parse(br#"{"a":"\ud83d\ude00","usage":1}"#).unwrap().usage.is_some());
    }
}
