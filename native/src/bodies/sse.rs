//! Find the events of a `text/event-stream` body that are worth decoding, and count all of them.
//! Twin of `epp/extproc/sse.py`.
//!
//! Source: WHATWG HTML, 9.2.6 "Interpreting an event stream"; protocol decision D9.

use std::borrow::Cow;

use memchr::{memchr, memmem};

/// Longest event whose data is looked at. Longer ones are counted and forgotten.
pub const MAX_EVENT_BYTES: usize = 1024 * 1024;

const DATA: &[u8] = b"data:";
const DONE: &[u8] = b"[DONE]";

/// Incremental scanner for one body; exact for any cut, also inside a CRLF.
#[derive(Debug)]
pub struct Scanner {
    /// Events without these bytes are not told.
    wanted: &'static [u8],
    /// Occurrences of `wanted` inside this longer text do not count.
    dull: &'static [u8],
    limit: usize,
    events: u64,
    carry: Vec<u8>,
    /// The data lines of the current event, joined.
    data: Vec<u8>,
    has_data: bool,
    size: usize,
    overlong: bool,
    skipping: bool,
    after_cr: bool,
}

impl Scanner {
    pub fn new(wanted: &'static [u8], dull: &'static [u8]) -> Self {
        Self {
            wanted,
            dull,
            limit: MAX_EVENT_BYTES,
            events: 0,
            carry: Vec::new(),
            data: Vec::new(),
            has_data: false,
            size: 0,
            overlong: false,
            skipping: false,
            after_cr: false,
        }
    }

    /// Take the next bytes of the body; `found` gets the data of the interesting events that end in them, in order.
    pub fn feed(&mut self, chunk: &[u8], mut found: impl FnMut(&[u8])) {
        if chunk.is_empty() {
            return;
        }
        let chunk = if self.after_cr && chunk[0] == b'\n' { &chunk[1..] } else { chunk };
        self.after_cr = chunk.last() == Some(&b'\r');
        let text = unified(chunk);
        let mut rest: &[u8] = &text;
        let mut first = true;
        while let Some(end) = memchr(b'\n', rest) {
            let (line, behind) = (&rest[..end], &rest[end + 1..]);
            rest = behind;
            if first {
                first = false;
                self.first_line(line, &mut found);
            } else {
                self.line(line, &mut found);
            }
        }
        self.keep(rest);
    }

    /// What is known so far, as if the body ended here: the number of events, `[DONE]` not counted, and the data of an
    /// interesting event that has not ended.
    pub fn snapshot(&self) -> (u64, Option<Vec<u8>>) {
        let mut data = self.data.clone();
        let mut has_data = self.has_data;
        if !self.skipping && self.carry.starts_with(DATA) {
            push_line(&mut data, has_data, value(&self.carry));
            has_data = true;
        }
        if self.overlong {
            return (self.events + 1, None);
        }
        if !has_data || data.trim_ascii() == DONE {
            return (self.events, None);
        }
        let wanted = self.is_wanted(&data);
        (self.events + 1, wanted.then_some(data))
    }

    fn is_wanted(&self, data: &[u8]) -> bool {
        let count = memmem::find_iter(data, self.wanted).count();
        count > 0 && count != memmem::find_iter(data, self.dull).count()
    }

    /// A line whose beginning may be carried over; a dropped one counts for nothing.
    fn first_line(&mut self, end: &[u8], found: &mut impl FnMut(&[u8])) {
        if std::mem::take(&mut self.skipping) {
            return;
        }
        if self.carry.is_empty() {
            return self.line(end, found);
        }
        let mut line = std::mem::take(&mut self.carry);
        line.extend_from_slice(end);
        self.line(&line, found);
        line.clear();
        self.carry = line;
    }

    fn line(&mut self, line: &[u8], found: &mut impl FnMut(&[u8])) {
        if line.starts_with(DATA) {
            self.size += line.len();
            if self.overlong || self.size > self.limit {
                self.drop_event();
            } else {
                push_line(&mut self.data, self.has_data, value(line));
                self.has_data = true;
            }
        } else if line.is_empty() {
            self.end_event(found);
        }
    }

    fn keep(&mut self, rest: &[u8]) {
        if self.skipping || rest.is_empty() {
            return;
        }
        self.carry.extend_from_slice(rest);
        if self.size + self.carry.len() <= self.limit {
            return;
        }
        if self.carry.starts_with(DATA) {
            self.drop_event();
            self.skip_line();
        } else if self.carry.len() > self.limit {
            self.skip_line();
        }
    }

    fn skip_line(&mut self) {
        self.carry = Vec::new();
        self.skipping = true;
    }

    fn drop_event(&mut self) {
        self.overlong = true;
        self.data = Vec::new();
        self.has_data = false;
    }

    fn end_event(&mut self, found: &mut impl FnMut(&[u8])) {
        if self.overlong {
            self.events += 1;
        } else if self.has_data && self.data.trim_ascii() != DONE {
            self.events += 1;
            if self.is_wanted(&self.data) {
                found(&self.data);
            }
        }
        self.data.clear();
        self.has_data = false;
        self.size = 0;
        self.overlong = false;
    }
}

/// The chunk with all line ends as `\n`.
fn unified(chunk: &[u8]) -> Cow<'_, [u8]> {
    if memchr(b'\r', chunk).is_none() {
        return Cow::Borrowed(chunk);
    }
    let mut out = Vec::with_capacity(chunk.len());
    let mut bytes = chunk.iter().copied().peekable();
    while let Some(byte) = bytes.next() {
        if byte == b'\r' {
            bytes.next_if_eq(&b'\n');
            out.push(b'\n');
        } else {
            out.push(byte);
        }
    }
    Cow::Owned(out)
}

fn push_line(data: &mut Vec<u8>, has_data: bool, line: &[u8]) {
    if has_data {
        data.push(b'\n');
    }
    data.extend_from_slice(line);
}

/// The value of a data line, without the one blank that may follow the colon.
fn value(line: &[u8]) -> &[u8] {
    let value = &line[DATA.len()..];
    value.strip_prefix(b" ").unwrap_or(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scan(body: &[u8], size: usize) -> (u64, Vec<Vec<u8>>, Option<Vec<u8>>) {
        let mut scanner = Scanner::new(b"usage", b"\"usage\":null");
        let mut found = Vec::new();
        for chunk in body.chunks(size) {
            scanner.feed(chunk, |data| found.push(data.to_vec()));
        }
        let (events, unfinished) = scanner.snapshot();
        (events, found, unfinished)
    }

    #[test]
    fn cuts_change_nothing() {
        let body =
            b": ping\r\ndata: {\"a\":1}\r\n\r\nevent: x\ndata:{\"usage\":\rdata: 1}\n\ndata: {\"usage\":null}\n\n\
                     data: [DONE]\n\ndata: {\"usage\":2}";
        let whole = scan(body, body.len());
        assert_eq!(whole, (4, vec![b"{\"usage\":\n1}".to_vec()], Some(b"{\"usage\":2}".to_vec())));
        for size in 1..body.len() {
            assert_eq!(scan(body, size), whole, "pieces of {size}");
        }
    }

    #[test]
    fn overlong_events_are_counted_and_forgotten() {
        let mut body = b"data: usage ".to_vec();
        body.resize(MAX_EVENT_BYTES + 10, b'x');
        body.extend_from_slice(b"\n\ndata: 1\n\n");
        assert_eq!(scan(&body, 10_000), (2, vec![], None));
        assert_eq!(scan(&body, body.len()), (2, vec![], None));
    }
}
