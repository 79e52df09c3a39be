//! Sets of slots: one word for the first 64, more where there are more.

#[derive(Clone, Debug, PartialEq)]
pub enum Bits {
    One(u64),
    Many(Box<[u64]>),
}

impl Default for Bits {
    fn default() -> Self {
        Self::One(0)
    }
}

impl Bits {
    pub fn words(&self) -> &[u64] {
        match self {
            Self::One(word) => std::slice::from_ref(word),
            Self::Many(words) => words,
        }
    }

    /// The slots 0 to `count - 1`.
    pub fn first(count: usize) -> Self {
        let mut bits = Self::default();
        (0..count).for_each(|slot| {
            bits.set(slot);
        });
        bits
    }

    /// Add a slot; whether it was not there.
    pub fn set(&mut self, slot: usize) -> bool {
        let (place, bit) = (slot / 64, 1u64 << (slot % 64));
        if place >= self.words().len() {
            let mut words = self.words().to_vec();
            words.resize(place + 1, 0);
            *self = Self::Many(words.into());
        }
        let word = &mut self.words_mut()[place];
        let is_new = *word & bit == 0;
        *word |= bit;
        is_new
    }

    /// Remove a slot; whether it was there.
    pub fn unset(&mut self, slot: usize) -> bool {
        let bit = 1u64 << (slot % 64);
        match self.words_mut().get_mut(slot / 64) {
            Some(word) if *word & bit != 0 => {
                *word &= !bit;
                true
            }
            _ => false,
        }
    }

    pub fn is_empty(&self) -> bool {
        self.words().iter().all(|word| *word == 0)
    }

    pub fn slots(&self) -> impl Iterator<Item = usize> {
        self.words().iter().enumerate().flat_map(|(place, word)| {
            let mut left = *word;
            std::iter::from_fn(move || {
                (left != 0).then(|| {
                    let slot = place * 64 + left.trailing_zeros() as usize;
                    left &= left - 1;
                    slot
                })
            })
        })
    }

    fn words_mut(&mut self) -> &mut [u64] {
        match self {
            Self::One(word) => std::slice::from_mut(word),
            Self::Many(words) => words,
        }
    }
}
