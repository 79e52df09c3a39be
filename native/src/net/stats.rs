//! Counts since the start; written by the I/O threads, read when scraped.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::wire::messages::Status;

const STATUSES: [Status; 7] = [
    Status::Ok,
    Status::Cancelled,
    Status::InvalidArgument,
    Status::ResourceExhausted,
    Status::Unimplemented,
    Status::Internal,
    Status::Unavailable,
];

/// Durations counted in buckets.
#[derive(Debug)]
pub struct Histogram {
    bounds_s: Vec<f64>,
    counts: Vec<AtomicU64>,
    sum_ns: AtomicU64,
}

impl Histogram {
    pub fn new(bounds_s: Vec<f64>) -> Self {
        let counts = (0..=bounds_s.len()).map(|_| AtomicU64::new(0)).collect();
        Self { bounds_s, counts, sum_ns: AtomicU64::new(0) }
    }

    pub fn observe(&self, seconds: f64) {
        self.counts[self.bounds_s.partition_point(|bound| *bound < seconds)].fetch_add(1, Relaxed);
        self.sum_ns.fetch_add((seconds.max(0.0) * 1e9) as u64, Relaxed);
    }

    pub fn counts(&self) -> Vec<u64> {
        self.counts.iter().map(|count| count.load(Relaxed)).collect()
    }

    pub fn sum_s(&self) -> f64 {
        self.sum_ns.load(Relaxed) as f64 / 1e9
    }
}

#[derive(Debug)]
pub struct Stats {
    pub open_streams: AtomicU64,
    ended: [AtomicU64; STATUSES.len()],
    /// How long streams lasted.
    pub hold: Histogram,
    /// How long events waited for the event loop.
    pub handover: Histogram,
}

impl Stats {
    pub fn new(hold_bounds_s: Vec<f64>, handover_bounds_s: Vec<f64>) -> Self {
        Self {
            open_streams: AtomicU64::new(0),
            ended: Default::default(),
            hold: Histogram::new(hold_bounds_s),
            handover: Histogram::new(handover_bounds_s),
        }
    }

    pub fn opened(&self) {
        self.open_streams.fetch_add(1, Relaxed);
    }

    pub fn ended(&self, status: Status, held_s: f64) {
        self.open_streams.fetch_sub(1, Relaxed);
        self.hold.observe(held_s);
        if let Some(index) = STATUSES.iter().position(|known| *known == status) {
            self.ended[index].fetch_add(1, Relaxed);
        }
    }

    /// Ended streams by gRPC code; only codes that occurred.
    pub fn by_status(&self) -> Vec<(&'static str, u64)> {
        let counts = self.ended.iter().map(|count| count.load(Relaxed));
        STATUSES.iter().map(|status| status.name()).zip(counts).filter(|(_, count)| *count > 0).collect()
    }
}
