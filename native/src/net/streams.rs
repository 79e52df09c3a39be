//! The table of an I/O thread's open streams, by key.

use std::cell::RefCell;
use std::rc::Rc;

use super::queue::Key;
use super::stream::Stream;

pub type StreamCell = Rc<RefCell<Stream>>;

#[derive(Default)]
struct Place {
    generation: u16,
    stream: Option<StreamCell>,
}

#[derive(Default)]
pub struct Streams {
    thread: u16,
    places: Vec<Place>,
    free: Vec<u32>,
    open: usize,
}

impl Streams {
    pub fn new(thread: u16) -> Self {
        Self { thread, ..Self::default() }
    }

    pub fn len(&self) -> usize {
        self.open
    }

    pub fn is_empty(&self) -> bool {
        self.open == 0
    }

    /// Make a stream that knows its key.
    pub fn insert(&mut self, make: impl FnOnce(Key) -> Stream) -> StreamCell {
        let index = self.free.pop().unwrap_or_else(|| {
            self.places.push(Place::default());
            // A thread cannot hold so many streams: memory ends long before.
            u32::try_from(self.places.len() - 1).unwrap_or(u32::MAX)
        });
        let place = &mut self.places[index as usize];
        place.generation = place.generation.wrapping_add(1);
        let key = Key { thread: self.thread, generation: place.generation, index };
        let cell = Rc::new(RefCell::new(make(key)));
        place.stream = Some(cell.clone());
        self.open += 1;
        cell
    }

    /// The stream, unless it has ended.
    pub fn get(&self, key: Key) -> Option<&StreamCell> {
        let place = self.places.get(key.index as usize)?;
        place.stream.as_ref().filter(|_| place.generation == key.generation)
    }

    pub fn remove(&mut self, key: Key) {
        if let Some(place) = self.places.get_mut(key.index as usize)
            && place.generation == key.generation
            && place.stream.take().is_some()
        {
            self.free.push(key.index);
            self.open -= 1;
        }
    }

    /// All open streams as they are now.
    pub fn all(&self) -> Vec<StreamCell> {
        self.places.iter().filter_map(|place| place.stream.clone()).collect()
    }
}
