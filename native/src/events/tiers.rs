//! Tiers of the engines' caches by number. Twin of `plugins/kvcache/tiers.py`.

use super::decode::GPU;

const MAX_TIERS: usize = 16;

pub struct Tiers {
    given: Vec<(String, f64)>,
    least: f64,
    pub names: Vec<String>,
    pub weights: Vec<f64>,
}

impl Tiers {
    /// Number 0 is the GPU's. `given` has the defaults already, and is not empty.
    pub fn new(given: Vec<(String, f64)>) -> Self {
        let least = given.iter().map(|(_, weight)| *weight).fold(f64::INFINITY, f64::min);
        let mut tiers = Self { given, least, names: Vec::new(), weights: Vec::new() };
        tiers.number(GPU);
        tiers
    }

    /// The tier's number, a new one if it has none; None if there are too many.
    pub fn number(&mut self, name: &str) -> Option<usize> {
        if let Some(number) = self.names.iter().position(|known| known == name) {
            return Some(number);
        }
        if self.names.len() >= MAX_TIERS {
            return None;
        }
        let given = self.given.iter().find(|(known, _)| known == name).map(|(_, weight)| *weight);
        self.names.push(name.to_owned());
        self.weights.push(given.unwrap_or(self.least));
        Some(self.names.len() - 1)
    }
}
