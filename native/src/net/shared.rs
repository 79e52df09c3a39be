//! What all I/O threads and the Python side share.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use rustls::ServerConfig;
use tokio::sync::watch;

use super::clock::Clock;
use super::health::HealthTable;
use super::queue::Queue;
use super::stats::Stats;
use crate::bodies::body::Budget;
use crate::machine::answers::Rules;

/// The settings for new streams and new connections.
#[derive(Debug, Clone, Default)]
pub struct Settings {
    pub rules: Arc<Rules>,
    pub max_receive_bytes: usize,
    pub max_send_bytes: usize,
    pub tls: Option<Arc<ServerConfig>>,
}

#[derive(Debug)]
pub struct Shared {
    pub clock: Clock,
    pub queue: Queue,
    pub stats: Stats,
    pub budget: Arc<Budget>,
    pub health: watch::Sender<Arc<HealthTable>>,
    settings: Mutex<Arc<Settings>>,
}

impl Shared {
    pub fn new(clock: Clock, stats: Stats) -> io::Result<Self> {
        Ok(Self {
            clock,
            queue: Queue::new()?,
            stats,
            budget: Arc::default(),
            health: watch::Sender::new(Arc::default()),
            settings: Mutex::default(),
        })
    }

    pub fn settings(&self) -> Arc<Settings> {
        self.settings.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub fn configure(&self, settings: Settings) {
        *self.settings.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(settings);
    }
}
