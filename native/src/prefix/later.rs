//! An index that one thread reads and another fills: what takes long to remember is remembered beside the event loop.
//!
//! Whoever looks at the index sees all that was added before: what is not done yet, he does himself.

use std::collections::VecDeque;
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::thread;

use super::blocks::HASH_BYTES;
use super::index::LruIndex;

/// Fewer keys than this are added at once: waking a thread costs as much.
const MANY_KEYS: usize = 1024;
/// Keys that the thread adds before it lets others look, some 30 us.
const TURN_KEYS: usize = 512;

type Key = [u8; HASH_BYTES];

#[derive(Debug)]
struct Job {
    slot: u32,
    keys: Vec<Key>,
    capacity: usize,
}

#[derive(Debug, Default)]
struct State {
    index: LruIndex,
    waiting: VecDeque<Job>,
}

impl State {
    /// Add some more of what waits, the tail first; false if nothing is left.
    fn advance(&mut self, most: usize) -> bool {
        let Some(job) = self.waiting.front_mut() else { return false };
        let part = job.keys.split_off(job.keys.len().saturating_sub(most));
        self.index.add(job.slot, &part, job.capacity);
        if job.keys.is_empty() {
            self.waiting.pop_front();
        }
        !self.waiting.is_empty()
    }
}

/// The index.
#[derive(Debug, Default)]
pub struct SharedIndex(Arc<Mutex<State>>);

impl SharedIndex {
    /// As `LruIndex::add`; many keys are added by another thread, soon.
    pub fn add(&self, slot: u32, keys: &[Key], capacity: usize) {
        let keys = &keys[..keys.len().min(capacity)];
        let Some(filler) = (keys.len() >= MANY_KEYS).then(filler).flatten() else {
            return self.look(|index| index.add(slot, keys, capacity));
        };
        lock(&self.0).waiting.push_back(Job { slot, keys: keys.to_vec(), capacity });
        if filler.send(Arc::downgrade(&self.0)).is_err() {
            self.look(|_| ()); // the thread has ended: never, as it does not panic
        }
    }

    /// Use the index, with all that was added.
    pub fn look<T>(&self, use_it: impl FnOnce(&mut LruIndex) -> T) -> T {
        let mut state = lock(&self.0);
        while state.advance(usize::MAX) {}
        use_it(&mut state.index)
    }

    /// Keys of all slots together, and those that still have to be added: at least as many as there will be.
    pub fn len(&self) -> usize {
        let state = lock(&self.0);
        state.index.len() + state.waiting.iter().map(|job| job.keys.len()).sum::<usize>()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// The thread that fills all indexes, begun when it is first needed; None if there can be none.
fn filler() -> Option<&'static Sender<Weak<Mutex<State>>>> {
    static FILLER: OnceLock<Option<Sender<Weak<Mutex<State>>>>> = OnceLock::new();
    let begin = || {
        let (sender, receiver) = channel::<Weak<Mutex<State>>>();
        let fill = move || {
            for index in receiver {
                while index.upgrade().is_some_and(|state| lock(&state).advance(TURN_KEYS)) {
                    thread::yield_now(); // the lock is not fair: whoever waits for it comes first
                }
            }
        };
        thread::Builder::new().name("epp-index".into()).spawn(fill).ok().map(|_| sender)
    };
    FILLER.get_or_init(begin).as_ref()
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(from: u64, count: usize) -> Vec<Key> {
        (from..).take(count).map(u64::to_le_bytes).collect()
    }

    #[test]
    fn what_was_added_is_seen_at_once() {
        let (shared, mut plain) = (SharedIndex::default(), LruIndex::default());
        let steps =
            [(0, 0, 5000, 9000), (1, 100, 3000, 2500), (0, 20_000, 4000, 9000), (0, 3, 4, 9000), (2, 0, 9000, 9000)];
        for (slot, from, count, capacity) in steps {
            shared.add(slot, &keys(from, count), capacity);
            plain.add(slot, &keys(from, count), capacity);
            let asked = keys(0, 5000);
            assert_eq!(shared.look(|index| index.matches(&asked)), plain.matches(&asked));
        }
        assert_eq!((shared.len(), shared.look(|index| index.keys())), (plain.len(), plain.keys()));
    }

    #[test]
    fn parts_of_a_job_give_up_the_same_as_the_whole() {
        let (mut state, mut plain) = (State::default(), LruIndex::default());
        for (from, count) in [(0, 3000), (1000, 3000), (500, 10)] {
            state.waiting.push_back(Job { slot: 0, keys: keys(from, count), capacity: 3500 });
            plain.add(0, &keys(from, count), 3500);
        }
        while state.advance(700) {}
        for from in (0..4000).step_by(50) {
            assert_eq!(state.index.matches(&keys(from, 4000)), plain.matches(&keys(from, 4000)), "{from}");
        }
    }

    #[test]
    fn what_waits_counts() {
        let shared = SharedIndex::default();
        lock(&shared.0).waiting.push_back(Job { slot: 0, keys: keys(0, 5), capacity: 5 });
        assert_eq!((shared.len(), shared.look(|index| index.len()), shared.len()), (5, 5, 5));
        assert!(!shared.is_empty());
    }
}
