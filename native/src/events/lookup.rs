//! What each pod holds of a prompt. Twin of `plugins/kvcache/block_index.py`, as far as that is read.

use super::assumed::Assumed;
use super::bits::Bits;
use super::blocks::Blocks;
use super::pods::Pods;
use super::tiers::Tiers;

pub const ASSUMED: &str = "speculative";
const ASSUMED_WEIGHT: f64 = 1.0;

#[derive(Debug)]
pub struct Match {
    pub pod: String,
    pub blocks: usize,
    pub weighted: f64,
    pub by_tier: Vec<(String, usize)>,
}

/// How many leading blocks each slot has.
struct Run {
    alive: Vec<u64>,
    ended: Vec<usize>,
}

impl Run {
    fn new(slots: usize) -> Self {
        let mut alive = vec![0; slots.div_ceil(64)];
        for slot in 0..slots {
            alive[slot / 64] |= 1 << (slot % 64);
        }
        Self { alive, ended: vec![0; slots] }
    }

    /// Keep the slots that have block `index` too; whether there are any.
    fn narrow(&mut self, mask: &[u64], index: usize) -> bool {
        let mut any = 0;
        for (place, alive) in self.alive.iter_mut().enumerate() {
            let kept = *alive & mask.get(place).copied().unwrap_or(0);
            if index > 0 {
                let mut gone = *alive ^ kept;
                while gone != 0 {
                    self.ended[place * 64 + gone.trailing_zeros() as usize] = index;
                    gone &= gone - 1;
                }
            }
            *alive = kept;
            any |= kept;
        }
        any != 0
    }

    /// Blocks of each slot, of a prompt of this many.
    fn ended(mut self, blocks: usize) -> Vec<usize> {
        for (slot, ended) in self.ended.iter_mut().enumerate() {
            if self.alive[slot / 64] >> (slot % 64) & 1 == 1 {
                *ended = blocks;
            }
        }
        self.ended
    }
}

/// What each pod holds; pods that hold nothing are left out.
pub fn lookup(keys: &[u64], blocks: &Blocks, assumed: &Assumed, pods: &Pods, tiers: &Tiers, now_s: f64) -> Vec<Match> {
    let slots = pods.slots.len();
    if assumed.is_empty() && tiers.names.len() == 1 {
        let mut run = Run::new(slots);
        for (index, key) in keys.iter().enumerate() {
            let mask = blocks.masks.get(*key).map_or(&[][..], |masks| masks.gpu.words());
            if !run.narrow(mask, index) {
                break;
            }
        }
        return matches(&run.ended(keys.len()), pods, |_, count| {
            (tiers.weights[0] * count as f64, vec![(tiers.names[0].clone(), count)])
        });
    }
    let count = tiers.names.len();
    let worth: Vec<f64> = tiers.weights.iter().copied().chain([ASSUMED_WEIGHT]).collect();
    let mut best_first: Vec<usize> = (0..=count).collect();
    best_first.sort_by(|one, other| worth[*other].total_cmp(&worth[*one]));
    let mut whole = Run::new(slots);
    let mut runs: Vec<Run> = (0..=count).map(|_| Run::new(slots)).collect();
    let mut corrections = vec![0.0; slots];
    let none = Bits::default();
    for (index, key) in keys.iter().enumerate() {
        let mut guess = Bits::default();
        assumed.slots(*key, now_s, pods).for_each(|slot| {
            guess.set(slot);
        });
        let masks = blocks.masks.get(*key);
        let by_tier: Vec<&Bits> =
            (0..count).map(|tier| masks.and_then(|masks| masks.tier(tier)).unwrap_or(&none)).chain([&guess]).collect();
        let mut held = vec![0; slots.div_ceil(64)];
        for (run, mask) in runs.iter_mut().zip(&by_tier) {
            run.narrow(mask.words(), index);
            for (word, more) in held.iter_mut().zip(mask.words()) {
                *word |= more;
            }
        }
        if !whole.narrow(&held, index) {
            break;
        }
        let mut left = whole.alive.clone();
        for number in &best_first {
            let difference = worth[*number] - worth[0];
            for (place, word) in by_tier[*number].words().iter().enumerate().take(left.len()) {
                let mut hit = left[place] & word;
                left[place] &= !word;
                while difference != 0.0 && hit != 0 {
                    corrections[place * 64 + hit.trailing_zeros() as usize] += difference;
                    hit &= hit - 1;
                }
            }
        }
    }
    let ended: Vec<Vec<usize>> = runs.into_iter().map(|run| run.ended(keys.len())).collect();
    let names: Vec<&str> = tiers.names.iter().map(String::as_str).chain([ASSUMED]).collect();
    matches(&whole.ended(keys.len()), pods, |slot, count| {
        let of_tiers = names.iter().zip(&ended).filter(|(_, runs)| runs[slot] > 0);
        (
            worth[0] * count as f64 + corrections[slot],
            of_tiers.map(|(name, runs)| ((*name).to_owned(), runs[slot])).collect(),
        )
    })
}

fn matches(ended: &[usize], pods: &Pods, more: impl Fn(usize, usize) -> (f64, Vec<(String, usize)>)) -> Vec<Match> {
    let held = ended.iter().enumerate().filter(|(_, blocks)| **blocks > 0);
    held.filter_map(|(slot, blocks)| {
        let (weighted, by_tier) = more(slot, *blocks);
        Some(Match { pod: pods.get(slot)?.name.clone(), blocks: *blocks, weighted, by_tier })
    })
    .collect()
}
