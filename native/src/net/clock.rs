//! Seconds of Python's `time.monotonic()`.

use std::time::Instant;

/// Both clocks are CLOCK_MONOTONIC; only their origins differ.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    begun: Instant,
    begun_s: f64,
}

impl Clock {
    /// `now_s` is what Python's clock shows now.
    pub fn new(now_s: f64) -> Self {
        Self { begun: Instant::now(), begun_s: now_s }
    }

    pub fn now_s(&self) -> f64 {
        self.begun_s + self.begun.elapsed().as_secs_f64()
    }
}
