//! The response of one stream: what was seen of it, counted, read and renamed while it passes.
//! Twin of `epp/extproc/response.py`.

use std::borrow::Cow;
use std::sync::Arc;

use bytes::Bytes;

use super::effects::{Chunk, Head, Outcome};
use crate::bodies::media::announces_events;
use crate::bodies::read::Read;
use crate::bodies::readers::{READERS, Readers};
use crate::bodies::rename::Renamer;
use crate::wire::headers::HeaderBlock;
use crate::wire::messages::{Context, End, Observe, Plan};

/// Counts, readers and rename of one response.
#[derive(Debug, Default)]
pub struct ResponseSide {
    pub seen: bool,
    pub ended: bool,
    pub trailers: bool,
    pub observe: Observe,
    pub head: Option<Arc<Head>>,
    pub renamer: Option<Box<Renamer>>,
    pub busy_s: f64,
    streaming: bool,
    chunks: u64,
    size_bytes: u64,
    first_s: Option<f64>,
    last_s: Option<f64>,
    gaps: Vec<u64>,
    gaps_s: f64,
    readers: Option<Box<Readers>>,
}

impl ResponseSide {
    /// The response begins; `headers` is None if the data plane does not show them.
    pub fn begin(&mut self, headers: Option<(Arc<HeaderBlock>, Context)>, now: f64, plan: &Plan, may_rename: bool) {
        self.seen = true;
        let none = HeaderBlock::default();
        let block: &HeaderBlock = headers.as_ref().map_or(&none, |(block, _)| block);
        self.streaming = plan.streams || announces_events(block);
        self.observe = if self.streaming { plan.observe } else { Observe::Off };
        if !plan.readers.is_empty() {
            self.readers = Some(Box::new(Readers::new(&plan.readers, READERS, block)));
        }
        if may_rename && let Some(rename) = &plan.rename {
            self.renamer = Renamer::new(rename, block).map(Box::new);
        }
        self.head = headers.map(|(headers, context)| Arc::new(Head { headers, context, at_s: now }));
    }

    /// Count and read a chunk that is not empty.
    pub fn take(&mut self, data: &Bytes, bounds_s: &[f64], now: f64) {
        self.chunks += 1;
        self.size_bytes += data.len() as u64;
        match self.last_s {
            None => self.first_s = Some(now),
            Some(last_s) if self.streaming => self.count_gap(now - last_s, bounds_s),
            Some(_) => {}
        }
        self.last_s = Some(now);
        if let Some(readers) = &mut self.readers {
            readers.feed(data);
        }
    }

    fn count_gap(&mut self, gap_s: f64, bounds_s: &[f64]) {
        if self.gaps.is_empty() {
            self.gaps = vec![0; bounds_s.len() + 1];
        }
        self.gaps[bounds_s.partition_point(|bound| *bound < gap_s)] += 1;
        self.gaps_s += gap_s;
    }

    /// Whether chunks must go to readers that only Python has.
    pub fn wants_python(&self) -> bool {
        self.readers.as_ref().is_some_and(|readers| readers.wants_python())
    }

    /// The chunk as the plan wants to be told of it; call only if it does.
    pub fn observed(&mut self, data: Bytes, end: bool, now: f64) -> Box<Chunk> {
        if self.observe == Observe::First {
            self.observe = Observe::Off;
        }
        Box::new(Chunk { data, end, at_s: now, read: self.results() })
    }

    /// What the readers know so far.
    fn results(&mut self) -> Vec<Read> {
        self.readers.as_mut().map_or_else(Vec::new, |readers| readers.results(None))
    }

    /// The facts of the stream as they are now.
    pub fn outcome(&mut self, end: End, complete: bool, error: Cow<'static, str>, now: f64) -> Box<Outcome> {
        Box::new(Outcome {
            end,
            complete,
            error,
            head: self.head.clone(),
            streaming: self.streaming,
            chunks: self.chunks,
            size_bytes: self.size_bytes,
            read: self.results(),
            first_s: self.first_s,
            last_s: self.last_s,
            end_s: now,
            busy_s: self.busy_s,
            gaps: std::mem::take(&mut self.gaps),
            gaps_s: self.gaps_s,
        })
    }
}
