//! What Python says, gathered so that each thread is told once per pass.

use std::sync::{Mutex, MutexGuard, PoisonError};

use pyo3::prelude::*;

use super::said::Plans;
use crate::net::queue::Key;
use crate::net::server::{Say, ThreadHandle};
use crate::net::stream::Command;

/// What Python says, gathered until it is given to the I/O threads.
pub struct Saying {
    pub gathered: Mutex<Gathered>,
    pub plans: Plans,
}

#[derive(Default)]
pub struct Gathered {
    pub threads: Vec<ThreadHandle>,
    pub by_thread: Vec<Vec<(Key, Command)>>,
    /// Between `take` and `give`: what is said goes with this pass.
    pub in_pass: bool,
    /// `later` was called and `give` has not come yet.
    pub scheduled: bool,
    /// Called when something was said outside a pass; has `give` called soon.
    pub later: Option<Py<PyAny>>,
}

impl Saying {
    /// Say something to a stream; the thread hears of it with the next `give`.
    pub fn say(&self, py: Python<'_>, key: Key, command: Command) -> PyResult<()> {
        let later = {
            let mut gathered = self.gathered();
            let Some(commands) = gathered.by_thread.get_mut(usize::from(key.thread)) else {
                return Ok(());
            };
            commands.push((key, command));
            if gathered.in_pass || gathered.scheduled {
                return Ok(());
            }
            gathered.scheduled = true;
            gathered.later.as_ref().map(|later| later.clone_ref(py))
        };
        match later {
            Some(later) => later.call0(py).map(|_| ()),
            None => Ok(()),
        }
    }

    /// The I/O threads hear what was said.
    pub fn give(&self) {
        let mut gathered = self.gathered();
        gathered.in_pass = false;
        gathered.scheduled = false;
        let Gathered { threads, by_thread, .. } = &mut *gathered;
        for (thread, commands) in threads.iter().zip(by_thread) {
            if !commands.is_empty() {
                // A thread that has ended has no streams that could hear it.
                thread.say(Say::Commands(std::mem::take(commands)));
            }
        }
    }

    pub fn gathered(&self) -> MutexGuard<'_, Gathered> {
        self.gathered.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
