//! The thread that fetches, and its two queues: what to read, and what was read.

use std::cell::RefCell;
use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use tokio::runtime::Builder;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::{AbortHandle, LocalSet, spawn_local};

use super::fetch::{Failure, Limits, Line, Means, Target};

/// What one fetch gave: a page, or an excerpt of it.
pub type Page = (u32, Result<Vec<u8>, Failure>);

enum Say {
    Set(u32, Box<Target>),
    Remove(u32),
    Read(Vec<u32>),
}

#[derive(Debug, Default)]
struct Shared {
    pages: Mutex<Vec<Page>>,
    ended: AtomicBool,
}

impl Shared {
    fn pages(&self) -> MutexGuard<'_, Vec<Page>> {
        // The list is whole between any two statements.
        self.pages.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The hold of the thread. It is stopped when this is dropped.
#[derive(Debug)]
pub struct PageReader {
    say: Option<UnboundedSender<Say>>,
    shared: Arc<Shared>,
    join: Option<JoinHandle<()>>,
}

impl PageReader {
    pub fn start(limits: Limits) -> std::io::Result<Self> {
        let (say, said) = unbounded_channel();
        let shared = Arc::<Shared>::default();
        let runtime = Builder::new_current_thread().enable_io().enable_time().build()?;
        let told = shared.clone();
        let join = std::thread::Builder::new().name("epp-pages".into()).spawn(move || {
            let _ = catch_unwind(AssertUnwindSafe(|| {
                LocalSet::new().block_on(&runtime, run(said, told.clone(), limits));
                drop(runtime);
            }));
            told.ended.store(true, Ordering::Release);
        })?;
        Ok(Self { say: Some(say), shared, join: Some(join) })
    }

    pub fn set(&self, key: u32, target: Target) {
        self.say(Say::Set(key, Box::new(target)));
    }

    pub fn remove(&self, key: u32) {
        self.say(Say::Remove(key));
    }

    /// Begin to read these targets.
    pub fn read(&self, keys: Vec<u32>) {
        if !keys.is_empty() {
            self.say(Say::Read(keys));
        }
    }

    /// All that was read since the last call; None if the thread has ended by itself.
    pub fn take(&self) -> Option<Vec<Page>> {
        let pages = std::mem::take(&mut *self.shared.pages());
        (!pages.is_empty() || !self.shared.ended.load(Ordering::Acquire)).then_some(pages)
    }

    /// Stop; connections are closed when this returns.
    pub fn close(&mut self) {
        self.say = None;
        if let Some(join) = self.join.take() {
            // A panic was reported by the hook when it happened.
            let _ = join.join();
        }
    }

    fn say(&self, what: Say) {
        // A thread that has ended is noticed by `take`.
        let _ = self.say.as_ref().map(|say| say.send(what));
    }
}

impl Drop for PageReader {
    fn drop(&mut self) {
        self.close();
    }
}

/// One target on the thread.
struct Slot {
    target: Rc<Target>,
    /// None while it is in use.
    line: Option<Line>,
    /// Counts up, so that a fetch knows whether its target is still there.
    generation: u64,
    /// The last fetch.
    reading: Option<AbortHandle>,
}

impl Drop for Slot {
    fn drop(&mut self) {
        if let Some(reading) = &self.reading {
            reading.abort();
        }
    }
}

type Slots = Rc<RefCell<HashMap<u32, Slot>>>;

async fn run(mut said: UnboundedReceiver<Say>, shared: Arc<Shared>, limits: Limits) {
    let slots = Slots::default();
    let means = Rc::new(Means::new(limits));
    let mut generation = 0;
    while let Some(say) = said.recv().await {
        match say {
            Say::Set(key, target) => {
                generation += 1;
                set(&mut slots.borrow_mut(), key, *target, generation);
            }
            Say::Remove(key) => drop(slots.borrow_mut().remove(&key)),
            Say::Read(keys) => {
                for key in keys {
                    begin(&slots, key, &shared, &means);
                }
            }
        }
    }
}

fn set(slots: &mut HashMap<u32, Slot>, key: u32, target: Target, generation: u64) {
    // A connection is kept if it leads to the same server; one in use is lost to the new target.
    let old = slots.remove(&key).filter(|old| old.target.address == target.address);
    let kept = old.and_then(|mut old| old.line.take());
    slots
        .insert(key, Slot { target: Rc::new(target), line: Some(kept.unwrap_or_default()), generation, reading: None });
}

/// Fetch in a task of its own, unless that target is being fetched.
fn begin(slots: &Slots, key: u32, shared: &Arc<Shared>, means: &Rc<Means>) {
    let mut borrowed = slots.borrow_mut();
    let Some(slot) = borrowed.get_mut(&key) else {
        return;
    };
    let Some(mut line) = slot.line.take() else {
        return;
    };
    let (target, generation, means) = (slot.target.clone(), slot.generation, means.clone());
    let ending = Ending { slots: slots.clone(), shared: shared.clone(), key, generation, line: None, result: None };
    let reading = spawn_local(async move {
        let mut ending = ending;
        ending.result = Some(line.fetch(&target, &means).await);
        ending.line = Some(line);
    });
    slot.reading = Some(reading.abort_handle());
}

/// Tells of a fetch when it is dropped, so that it does even if the fetch panics.
struct Ending {
    slots: Slots,
    shared: Arc<Shared>,
    key: u32,
    generation: u64,
    line: Option<Line>,
    result: Option<Result<Vec<u8>, Failure>>,
}

impl Drop for Ending {
    fn drop(&mut self) {
        let mut slots = self.slots.borrow_mut();
        let Some(slot) = slots.get_mut(&self.key).filter(|slot| slot.generation == self.generation) else {
            return;
        };
        slot.line = Some(self.line.take().unwrap_or_default());
        let result =
            self.result.take().unwrap_or_else(|| Err(Failure::Problem("defect while the page was read".into())));
        self.shared.pages().push((self.key, result));
    }
}
