//! Request bodies: collect them within limits, replace spans, cut them into legal pieces. Twin of `epp/extproc/body.py`.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use bytes::{Bytes, BytesMut};

use crate::wire::messages::BodyState;

/// Longest piece of a body: some data planes cap a message at 64 KB, and Envoy advises the same.
/// Source: llm-d/llm-d-router: pkg/common/envoy/chunking.go
pub const MAX_PIECE_BYTES: usize = 62_000;

/// Pieces up to this size are copied, so that they do not pin the network buffer that they came in.
const COPIED_UP_TO_BYTES: usize = 4 * 1024;

/// Bytes that all request bodies together hold in memory; shared by all streams and threads.
#[derive(Debug, Default)]
pub struct Budget {
    /// 0 means no limit.
    limit_bytes: AtomicUsize,
    used_bytes: AtomicUsize,
}

impl Budget {
    pub fn set_limit(&self, bytes: usize) {
        self.limit_bytes.store(bytes, Relaxed);
    }

    pub fn used_bytes(&self) -> usize {
        self.used_bytes.load(Relaxed)
    }

    /// Whether so many more bytes are allowed; they are counted then.
    fn take(&self, size: usize) -> bool {
        let fits = self.count(size);
        if !fits {
            self.give(size);
        }
        fits
    }

    /// Count bytes; says whether all are within the limit.
    fn count(&self, size: usize) -> bool {
        let used = self.used_bytes.fetch_add(size, Relaxed) + size;
        let limit = self.limit_bytes.load(Relaxed);
        limit == 0 || used <= limit
    }

    fn give(&self, size: usize) {
        self.used_bytes.fetch_sub(size, Relaxed);
    }
}

/// Part of a message that has not come wholly yet, in the budget's books.
#[derive(Debug)]
pub struct Partial {
    budget: Arc<Budget>,
    size_bytes: usize,
}

impl Partial {
    pub fn new(budget: Arc<Budget>) -> Self {
        Self { budget, size_bytes: 0 }
    }

    /// So many bytes are held now; false if all together are above the limit. They are counted in any case.
    pub fn holds(&mut self, size_bytes: usize) -> bool {
        let before = std::mem::replace(&mut self.size_bytes, size_bytes);
        if size_bytes <= before {
            self.budget.give(before - size_bytes);
            return true;
        }
        self.budget.count(size_bytes - before)
    }
}

impl Drop for Partial {
    fn drop(&mut self) {
        self.budget.give(self.size_bytes);
    }
}

/// One request body while it arrives. Gives its memory back when dropped.
#[derive(Debug)]
pub struct Body {
    budget: Arc<Budget>,
    max_bytes: usize,
    chunks: Vec<Bytes>,
    pub size_bytes: usize,
}

impl Body {
    /// `max_bytes` 0 means no limit.
    pub fn new(budget: Arc<Budget>, max_bytes: usize) -> Self {
        Self { budget, max_bytes, chunks: Vec::new(), size_bytes: 0 }
    }

    /// Keep `data`; an error says which limit it broke, and everything kept so far is dropped then.
    pub fn add(&mut self, data: Bytes) -> Result<(), BodyState> {
        let size = data.len();
        if size == 0 {
            return Ok(());
        }
        if self.max_bytes != 0 && self.size_bytes + size > self.max_bytes {
            self.release();
            return Err(BodyState::TooLarge);
        }
        if !self.budget.take(size) {
            self.release();
            return Err(BodyState::NoMemory);
        }
        self.size_bytes += size;
        self.chunks.push(if size <= COPIED_UP_TO_BYTES { Bytes::copy_from_slice(&data) } else { data });
        Ok(())
    }

    /// All bytes; copied only if they came in several pieces.
    pub fn whole(&mut self) -> Bytes {
        if self.chunks.len() > 1 {
            let mut joined = BytesMut::with_capacity(self.size_bytes);
            for chunk in self.chunks.drain(..) {
                joined.extend_from_slice(&chunk);
            }
            self.chunks.push(joined.freeze());
        }
        self.chunks.first().cloned().unwrap_or_default()
    }

    /// Give the memory back; may be called again.
    pub fn release(&mut self) {
        self.budget.give(self.size_bytes);
        self.size_bytes = 0;
        self.chunks = Vec::new();
    }
}

impl Drop for Body {
    fn drop(&mut self) {
        self.release();
    }
}

pub type Splice = (usize, usize, Bytes);

/// The body with its spans replaced; the same bytes if there are none.
pub fn splice(body: &Bytes, splices: &[Splice]) -> Result<Bytes, String> {
    if splices.is_empty() {
        return Ok(body.clone());
    }
    let added: usize = splices.iter().map(|(_, _, new)| new.len()).sum();
    let mut out = BytesMut::with_capacity(body.len() + added);
    let mut done = 0;
    for (start, stop, new) in splices {
        if !(done <= *start && start <= stop && *stop <= body.len()) {
            return Err(format!(
                "splice ({start}, {stop}) does not follow {done} within a body of {} bytes; \
                 spans must be ascending and must not overlap",
                body.len()
            ));
        }
        out.extend_from_slice(&body[done..*start]);
        out.extend_from_slice(new);
        done = *stop;
    }
    out.extend_from_slice(&body[done..]);
    Ok(out.freeze())
}

/// One message of a gRPC request: its place in the body, and the flags to echo.
#[derive(Debug, Clone, Copy)]
pub struct Frame {
    pub start: usize,
    pub stop: usize,
    pub end: bool,
    pub compressed: bool,
    pub without_message: bool,
}

/// The messages of a gRPC request, each with its own spans replaced.
pub fn splice_frames(body: &Bytes, frames: &[Frame], splices: &[Splice]) -> Result<Vec<Bytes>, String> {
    let mut used = 0;
    let mut out = Vec::with_capacity(frames.len());
    for frame in frames {
        let own: Vec<Splice> = splices
            .iter()
            .filter(|(start, stop, _)| frame.start <= *start && *stop <= frame.stop && start <= stop)
            .map(|(start, stop, new)| (start - frame.start, stop - frame.start, new.clone()))
            .collect();
        used += own.len();
        out.push(splice(&body.slice(frame.start..frame.stop), &own)?);
    }
    if used != splices.len() {
        return Err(format!(
            "{} of {} splices are not within one gRPC message",
            splices.len().abs_diff(used),
            splices.len()
        ));
    }
    Ok(out)
}

/// `data` in pieces of at most `MAX_PIECE_BYTES`, each with whether it is the last; one empty piece if it is empty.
pub fn pieces(data: &Bytes) -> impl Iterator<Item = (Bytes, bool)> {
    let count = data.len().div_ceil(MAX_PIECE_BYTES).max(1);
    let data = data.clone();
    (0..count).map(move |index| {
        let start = index * MAX_PIECE_BYTES;
        let stop = (start + MAX_PIECE_BYTES).min(data.len());
        (data.slice(start..stop), index + 1 == count)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_budget_is_shared_and_given_back() {
        let budget = Arc::new(Budget::default());
        budget.set_limit(10);
        let mut first = Body::new(budget.clone(), 0);
        let mut second = Body::new(budget.clone(), 0);
        assert_eq!(first.add(Bytes::from_static(b"123456")), Ok(()));
        assert_eq!(second.add(Bytes::from_static(b"12345")), Err(BodyState::NoMemory));
        assert_eq!(budget.used_bytes(), 6);
        drop(first);
        assert_eq!(budget.used_bytes(), 0);
        assert_eq!(second.add(Bytes::from_static(b"1234567890")), Ok(()));
    }

    #[test]
    fn partial_messages_count() {
        let budget = Arc::new(Budget::default());
        budget.set_limit(10);
        let mut partial = Partial::new(budget.clone());
        assert!(partial.holds(8));
        assert!(!partial.holds(11));
        assert_eq!(budget.used_bytes(), 11);
        assert!(partial.holds(3));
        assert_eq!(budget.used_bytes(), 3);
        drop(partial);
        assert_eq!(budget.used_bytes(), 0);
    }

    #[test]
    fn pieces_are_legal() {
        for (size, expected) in [(0, vec![0]), (1, vec![1]), (62_000, vec![62_000]), (62_001, vec![62_000, 1])] {
            let parts: Vec<_> = pieces(&Bytes::from(vec![0; size])).collect();
            assert_eq!(parts.iter().map(|(part, _)| part.len()).collect::<Vec<_>>(), expected);
            assert!(parts.iter().rev().skip(1).all(|(_, last)| !last) && parts.last().unwrap().1);
        }
    }

    #[test]
    fn splices() {
        let body = Bytes::from_static(b"abcdef");
        let new = Bytes::from_static(b"X");
        assert_eq!(splice(&body, &[(1, 2, new.clone()), (5, 6, new.clone())]).unwrap(), &b"aXcdeX"[..]);
        assert!(splice(&body, &[(2, 5, new.clone()), (4, 6, new.clone())]).is_err());
        assert!(splice(&body, &[(3, 7, new.clone())]).is_err());
        let frame = |start, stop| Frame { start, stop, end: false, compressed: false, without_message: false };
        let frames = [frame(0, 3), frame(3, 6)];
        assert_eq!(
            splice_frames(&body, &frames, &[(2, 4, new)]).unwrap_err(),
            "1 of 1 splices are not within one gRPC message"
        );
    }
}
