//! Replace a string member of JSON objects in a response body while it is forwarded. Twin of `epp/extproc/rename.py`.
//!
//! Only a whole member counts, key and value; text that merely quotes such a member is never changed. At most the tail that
//! may begin the member is held back; in an event stream no line end can be part of it.

use bytes::{Bytes, BytesMut};
use memchr::memmem;

use super::json::{decode_string, encode_string};
use super::media::{is_encoded, is_event_stream, is_json, media_type};
use crate::wire::headers::HeaderBlock;
use crate::wire::messages::Rename;

/// White space accepted on each side of the colon: bounds what is held back.
const MAX_BLANKS: usize = 256;

/// The rename of one body.
#[derive(Debug)]
pub struct Renamer {
    /// With its quotes.
    key: Vec<u8>,
    old: Vec<u32>,
    old_raw: Vec<u8>,
    new: Vec<u8>,
    /// What counts as white space; in event streams no line end.
    blanks: &'static [u8],
    held: Bytes,
    /// What was released last ends with a backslash.
    escaped: bool,
}

/// What follows a key.
enum Follows {
    /// The place of the text between the value's quotes.
    Value(usize, usize),
    /// The data ends in what may become one.
    Perhaps(Option<usize>),
    Other,
}

impl Renamer {
    /// The renamer for a body with these headers, or None if its bytes stay as they are.
    pub fn new(rename: &Rename, headers: &HeaderBlock) -> Option<Self> {
        if rename.old.is_empty() || rename.new.is_empty() || rename.old == rename.new || is_encoded(headers) {
            return None;
        }
        let media = media_type(headers);
        let blanks: &[u8] = if is_event_stream(&media) {
            b" \t"
        } else if is_json(&media) {
            b" \t\r\n"
        } else {
            return None;
        };
        Some(Self {
            key: [&b"\""[..], &encode_string(&rename.member), b"\""].concat(),
            old: rename.old.clone(),
            old_raw: encode_string(&rename.old),
            new: encode_string(&rename.new),
            blanks,
            held: Bytes::new(),
            escaped: false,
        })
    }

    /// Take the next bytes of the body; returns what is to be forwarded now.
    pub fn feed(&mut self, data: Bytes, end: bool) -> Bytes {
        let data = if self.held.is_empty() {
            data
        } else {
            let held = std::mem::take(&mut self.held);
            [&held[..], &data].concat().into()
        };
        match memmem::find(&data, &self.key) {
            Some(position) => self.replace(&data, position, end),
            None if end || data.is_empty() => data,
            None => {
                let cut = self.release(&data, 0);
                data.slice(..cut)
            }
        }
    }

    fn replace(&mut self, data: &Bytes, first: usize, end: bool) -> Bytes {
        let mut out = BytesMut::with_capacity(data.len() + self.new.len());
        let mut done = 0;
        let mut position = Some(first);
        while let Some(at) = position {
            let mut following = at + self.key.len();
            if self.is_token(data, at) {
                match self.follows(data, following) {
                    Follows::Value(start, stop) if self.is_old(&data[start..stop]) => {
                        out.extend_from_slice(&data[done..start]);
                        out.extend_from_slice(&self.new);
                        (done, following) = (stop, stop);
                    }
                    Follows::Perhaps(value) if !end && self.may_begin(value.map(|start| &data[start..])) => {
                        self.held = data.slice(at..);
                        self.escaped = false;
                        out.extend_from_slice(&data[done..at]);
                        return out.freeze();
                    }
                    _ => {}
                }
            }
            position = memmem::find(&data[following..], &self.key).map(|offset| following + offset);
        }
        let cut = if end { data.len() } else { self.release(data, done) };
        out.extend_from_slice(&data[done..cut]);
        out.freeze()
    }

    /// Where to cut: everything goes out except the beginning of a key at the very end, which is held back.
    fn release(&mut self, data: &Bytes, done: usize) -> usize {
        let cut = self.key_start(data, done);
        self.held = Bytes::copy_from_slice(&data[cut..]);
        self.escaped = self.held.is_empty() && data.ends_with(b"\\");
        cut
    }

    fn key_start(&self, data: &[u8], done: usize) -> usize {
        if data.ends_with(b"\n") {
            return data.len();
        }
        (1..=(self.key.len() - 1).min(data.len() - done))
            .rev()
            .map(|length| (length, data.len() - length))
            .find(|(length, position)| data.ends_with(&self.key[..*length]) && self.is_token(data, *position))
            .map_or(data.len(), |(_, position)| position)
    }

    /// Whether the quote at `position` opens a string, which an escaped one does not.
    fn is_token(&self, data: &[u8], position: usize) -> bool {
        if position == 0 { !self.escaped } else { data[position - 1] != b'\\' }
    }

    fn is_old(&self, raw: &[u8]) -> bool {
        raw == self.old_raw || decode_string(raw).is_some_and(|text| text == self.old)
    }

    /// `:` and a string, white space around the colon.
    fn follows(&self, data: &[u8], following: usize) -> Follows {
        let mut at = self.skip_blanks(data, following);
        match data.get(at) {
            None => return Follows::Perhaps(None),
            Some(b':') => at = self.skip_blanks(data, at + 1),
            Some(_) => return Follows::Other,
        }
        match data.get(at) {
            None => return Follows::Perhaps(None),
            Some(b'"') => at += 1,
            Some(_) => return Follows::Other,
        }
        let start = at;
        loop {
            match data.get(at) {
                None => return Follows::Perhaps(Some(start)),
                Some(b'"') => return Follows::Value(start, at),
                Some(b'\r' | b'\n') => return Follows::Other,
                Some(b'\\') => match data.get(at + 1) {
                    None => return Follows::Perhaps(Some(start)),
                    Some(b'\r' | b'\n') => return Follows::Other,
                    Some(_) => at += 2,
                },
                Some(_) => at += 1,
            }
        }
    }

    fn skip_blanks(&self, data: &[u8], start: usize) -> usize {
        let blanks = data[start.min(data.len())..].iter().take(MAX_BLANKS);
        start + blanks.take_while(|byte| self.blanks.contains(byte)).count()
    }

    /// Whether the value may still become the old one; None: it has not begun.
    fn may_begin(&self, raw: Option<&[u8]>) -> bool {
        match raw {
            None | Some([]) => true,
            Some(raw) => decoded_beginning(raw).is_some_and(|text| self.old.starts_with(&text)),
        }
    }
}

/// The whole characters of a value that may be cut anywhere, or None if it cannot be the beginning of a string.
fn decoded_beginning(raw: &[u8]) -> Option<Vec<u32>> {
    let mut at = 0;
    while at < raw.len() {
        if raw[at] != b'\\' {
            at += 1;
            continue;
        }
        let escape = match raw.get(at + 1) {
            None => break,
            Some(b'u' | b'U') => {
                let digits = raw[at + 2..].iter().take(4).take_while(|byte| byte.is_ascii_hexdigit()).count();
                if digits < 4 && at + 2 + digits < raw.len() {
                    return None;
                }
                2 + digits
            }
            Some(_) => 2,
        };
        if escape < 6 && matches!(raw[at + 1], b'u' | b'U') {
            break;
        }
        at += escape;
    }
    let whole = match std::str::from_utf8(&raw[..at]) {
        Ok(_) => at,
        // A character that is cut at the end is not an error.
        Err(error) if error.error_len().is_none() => error.valid_up_to(),
        Err(_) => return None,
    };
    let mut decoded = decode_string(&raw[..whole])?;
    decoded.pop_if(|last| (0xd800..0xdc00).contains(last));
    Some(decoded)
}

#[cfg(test)]
mod tests {
    use super::super::super::wire::headers::tests::map;
    use super::*;

    fn points(text: &str) -> Vec<u32> {
        text.chars().map(u32::from).collect()
    }

    fn renamed(media: &str, old: &str, body: &[u8], size: usize) -> Vec<u8> {
        let headers = HeaderBlock::parse(&map(&[("content-type", media)])).unwrap();
        let rename = Rename { member: points("model"), old: points(old), new: points("asked") };
        let mut renamer = Renamer::new(&rename, &headers).unwrap();
        let mut out = Vec::new();
        for chunk in body.chunks(size) {
            out.extend_from_slice(&renamer.feed(Bytes::copy_from_slice(chunk), false));
        }
        out.extend_from_slice(&renamer.feed(Bytes::new(), true));
        out
    }

    #[test]
    fn cuts_change_nothing() {
        let old = "a/gr\"üße😀";
        let body = "{\"x\":\"\\\"model\\\":\\\"a\",\"model\" : \"a\\/gr\\\"\\u00fc\u{df}e\\ud83d\\ude00\",\"model\":\"other\",\
                    \"model\":1,\"mod"
            .as_bytes();
        let expected = renamed("application/json", old, body, body.len());
        assert!(memmem::find(&expected, b"\"model\" : \"asked\"").is_some());
        for size in 1..body.len() {
            assert_eq!(renamed("application/json", old, body, size), expected, "pieces of {size}");
        }
    }

    #[test]
    fn complete_events_are_not_delayed() {
        let headers = HeaderBlock::parse(&map(&[("content-type", "text/event-stream")])).unwrap();
        let rename = Rename { member: points("model"), old: points("a"), new: points("b") };
        let mut renamer = Renamer::new(&rename, &headers).unwrap();
        let event = Bytes::from_static(b"data: {\"model\"\n\n");
        assert_eq!(renamer.feed(event.clone(), false), event);
    }
}
