//! gRPC's framing of messages: a flag, a length, the bytes.

use bytes::{Bytes, BytesMut};

const PREFIX: usize = 5;
const COUNTED_FROM_BYTES: usize = 16 * 1024;

/// Why no message can be read any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Broken {
    /// Longer than the receive limit.
    TooLong(usize),
    Compressed,
    /// All partial messages and bodies together are above the limit.
    NoMemory,
}

/// Cuts a stream of bytes into messages. A message that lies in one piece is not copied.
#[derive(Debug, Default)]
pub struct Assembler {
    /// Received, not looked at yet.
    rest: Bytes,
    /// A prefix or message that came in several pieces.
    partial: BytesMut,
    /// How long `partial` gets, once the prefix is complete.
    wanted: Option<usize>,
}

impl Assembler {
    /// Take the next bytes; only when `next` has nothing more.
    pub fn push(&mut self, data: Bytes) {
        debug_assert!(self.rest.is_empty());
        self.rest = data;
    }

    /// The next complete message; None if more bytes are needed.
    pub fn next(&mut self, limit: usize) -> Result<Option<Bytes>, Broken> {
        if self.wanted.is_none() && self.partial.is_empty() {
            match self.next_of_one_piece(limit)? {
                Some(message) => return Ok(Some(message)),
                None if self.rest.is_empty() => return Ok(None),
                None => {}
            }
        }
        self.next_of_pieces(limit)
    }

    /// Bytes held of a message that is not complete; what is short is not worth counting.
    pub fn held_bytes(&self) -> usize {
        if self.partial.len() < COUNTED_FROM_BYTES { 0 } else { self.partial.len() }
    }

    /// Whether the stream could end here.
    pub fn is_between(&self) -> bool {
        self.rest.is_empty() && self.partial.is_empty() && self.wanted.is_none()
    }

    fn next_of_one_piece(&mut self, limit: usize) -> Result<Option<Bytes>, Broken> {
        if self.rest.len() < PREFIX {
            return Ok(None);
        }
        let length = length(&self.rest[..PREFIX], limit)?;
        if self.rest.len() < PREFIX + length {
            return Ok(None);
        }
        let mut message = self.rest.split_to(PREFIX + length);
        bytes::Buf::advance(&mut message, PREFIX);
        Ok(Some(message))
    }

    fn next_of_pieces(&mut self, limit: usize) -> Result<Option<Bytes>, Broken> {
        if self.wanted.is_none() {
            self.move_up_to(PREFIX);
            if self.partial.len() < PREFIX {
                return Ok(None);
            }
            let length = length(&self.partial, limit)?;
            self.wanted = Some(length);
            self.partial.clear();
            // Memory follows what has really come: the announced length is only a claim.
            self.partial.reserve(length.min(self.rest.len().max(64 * 1024)));
        }
        let wanted = self.wanted.unwrap_or_default();
        self.move_up_to(wanted);
        if self.partial.len() < wanted {
            return Ok(None);
        }
        self.wanted = None;
        Ok(Some(std::mem::take(&mut self.partial).freeze()))
    }

    fn move_up_to(&mut self, length: usize) {
        let missing = length - self.partial.len();
        let taken = self.rest.split_to(missing.min(self.rest.len()));
        self.partial.extend_from_slice(&taken);
    }
}

fn length(prefix: &[u8], limit: usize) -> Result<usize, Broken> {
    if prefix[0] != 0 {
        return Err(Broken::Compressed);
    }
    let length = u32::from_be_bytes([prefix[1], prefix[2], prefix[3], prefix[4]]) as usize;
    if length > limit { Err(Broken::TooLong(length)) } else { Ok(length) }
}

/// Put a prefix before a message of this length.
pub fn put_prefix(out: &mut Vec<u8>, length: usize) {
    out.push(0);
    // A message above 4 GiB cannot be made: request bodies are limited, responses come in pieces.
    out.extend_from_slice(&u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn framed(messages: &[&[u8]]) -> Vec<u8> {
        let mut out = Vec::new();
        for message in messages {
            put_prefix(&mut out, message.len());
            out.extend_from_slice(message);
        }
        out
    }

    #[test]
    fn any_cut_gives_the_same_messages() {
        let messages: [&[u8]; 4] = [b"first", b"", b"a longer one", b"x"];
        let data = framed(&messages);
        for size in 1..=data.len() {
            let mut assembler = Assembler::default();
            let mut found: Vec<Bytes> = Vec::new();
            for piece in data.chunks(size) {
                assembler.push(Bytes::copy_from_slice(piece));
                while let Some(message) = assembler.next(100).unwrap() {
                    found.push(message);
                }
            }
            assert_eq!(found, messages, "pieces of {size}");
            assert!(assembler.is_between());
        }
    }

    #[test]
    fn limits_and_flags() {
        let mut assembler = Assembler::default();
        assembler.push(framed(&[&[0; 11]]).into());
        assert_eq!(assembler.next(10), Err(Broken::TooLong(11)));
        let mut assembler = Assembler::default();
        assembler.push(Bytes::from_static(&[1, 0, 0, 0, 0]));
        assert_eq!(assembler.next(10), Err(Broken::Compressed));
    }
}
