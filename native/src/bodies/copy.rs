//! The bounded copy of a body. Twin of `CopyReader` in `epp/extproc/readers.py`.

use super::read::{Read, Reader};

/// How much of a body is kept.
pub const MAX_COPY_BYTES: usize = 1024 * 1024;

/// Keeps the beginning of a body.
#[derive(Debug, Default)]
pub struct CopyReader {
    data: Vec<u8>,
    truncated: bool,
}

impl Reader for CopyReader {
    fn feed(&mut self, data: &[u8]) {
        let room = MAX_COPY_BYTES - self.data.len();
        self.truncated |= data.len() > room;
        self.data.extend_from_slice(&data[..room.min(data.len())]);
    }

    fn result(&mut self) -> Read {
        Read::Copy { data: self.data.clone(), truncated: self.truncated }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_is_bounded() {
        let mut reader = CopyReader::default();
        reader.feed(&vec![1; MAX_COPY_BYTES]);
        assert!(matches!(reader.result(), Read::Copy { truncated: false, .. }));
        reader.feed(b"x");
        let Read::Copy { data, truncated: true } = reader.result() else { panic!("not truncated") };
        assert_eq!(data.len(), MAX_COPY_BYTES);
    }
}
