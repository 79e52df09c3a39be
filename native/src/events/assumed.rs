//! Blocks that are assumed to be cached for a moment. Twin of `plugins/kvcache/assumed.py`.

use std::collections::VecDeque;

use hashbrown::HashMap;

use super::lru::BuildMixed;
use super::pods::Pods;

struct Assumption {
    slot: usize,
    /// Of the pod: another may come into its slot.
    number: u64,
    epoch: u64,
    until_s: f64,
}

struct Prompt {
    until_s: f64,
    slot: usize,
    number: u64,
    keys: Vec<u64>,
}

pub struct Assumed {
    limit: usize,
    by_key: HashMap<u64, Vec<Assumption>, BuildMixed>,
    prompts: VecDeque<Prompt>,
    remembered: usize,
}

impl Assumed {
    pub fn new(limit: usize) -> Self {
        Self { limit, by_key: HashMap::default(), prompts: VecDeque::new(), remembered: 0 }
    }

    pub fn is_empty(&self) -> bool {
        self.by_key.is_empty()
    }

    /// Assume that a pod holds these; what was assumed before holds as long as before, or longer.
    pub fn add(&mut self, keys: &[u64], slot: usize, until_s: f64, pods: &Pods) {
        let Some(pod) = pods.get(slot) else { return };
        let keys = keys[..keys.len().min(self.limit)].to_vec();
        for key in &keys {
            let of_key = self.by_key.entry(*key).or_default();
            match of_key.iter_mut().find(|known| known.slot == slot && known.number == pod.number) {
                Some(known) if known.until_s < until_s || known.epoch != pod.epoch => {
                    known.until_s = until_s;
                    known.epoch = pod.epoch;
                }
                Some(_) => {}
                None => of_key.push(Assumption { slot, number: pod.number, epoch: pod.epoch, until_s }),
            }
        }
        self.remembered += keys.len();
        self.prompts.push_back(Prompt { until_s, slot, number: pod.number, keys });
        while self.remembered > self.limit {
            self.forget_oldest(f64::INFINITY);
        }
    }

    /// Forget what is over.
    pub fn sweep(&mut self, now_s: f64) {
        while self.prompts.front().is_some_and(|prompt| prompt.until_s <= now_s) {
            self.forget_oldest(now_s);
        }
    }

    /// The slots of the pods that are assumed to hold this block.
    pub fn slots<'a>(&'a self, key: u64, now_s: f64, pods: &'a Pods) -> impl Iterator<Item = usize> + 'a {
        self.by_key.get(&key).into_iter().flatten().filter_map(move |known| {
            let pod = pods.get(known.slot)?;
            (known.until_s > now_s && pod.number == known.number && pod.epoch == known.epoch).then_some(known.slot)
        })
    }

    fn forget_oldest(&mut self, now_s: f64) {
        let Some(prompt) = self.prompts.pop_front() else { return };
        self.remembered -= prompt.keys.len();
        let over_s = now_s.min(prompt.until_s);
        for key in &prompt.keys {
            let Some(of_key) = self.by_key.get_mut(key) else { continue };
            of_key.retain(|known| known.slot != prompt.slot || known.number != prompt.number || known.until_s > over_s);
            if of_key.is_empty() {
                self.by_key.remove(key);
            }
        }
    }
}
